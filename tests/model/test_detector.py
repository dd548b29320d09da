"""The detector on a tiny tower: queries, evidence, the copy without detail, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from deepscan.errors import SettingsError
from deepscan.faces.alignment import seen
from deepscan.model.aggregation import QueryAggregation
from deepscan.model.detector import Detector, without_detail
from deepscan.model.header import DetectorSettings


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_aggregation_is_multi_head_attention() -> None:
    """Held against torch's own, which projects every patch: same weights, and the mean of its answers."""
    torch.manual_seed(0)
    module = QueryAggregation(width=8, queries=3, heads=2)
    torch.nn.init.normal_(module.attention.in_proj_bias)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(module.attention.state_dict())
    patches = torch.randn(2, 5, 8)
    answers, weights_ = theirs(module.query.expand(2, -1, -1), patches, patches)
    token, attention, _ = module(patches)
    torch.testing.assert_close(token, answers.mean(1))
    torch.testing.assert_close(attention, weights_)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 3))


def test_attention_worked_by_hand() -> None:
    """One head, identity projections: softmax(q z / sqrt(d)) over two patches, d = 1."""
    module = QueryAggregation(width=1, queries=1, heads=1)
    with torch.no_grad():
        module.query.fill_(1.0)
        module.attention.in_proj_weight.fill_(1.0)
        module.attention.in_proj_bias.zero_()
        module.attention.out_proj.weight.fill_(1.0)
        module.attention.out_proj.bias.zero_()
    patches = torch.tensor([[[0.0], [float(np.log(3))]]])
    token, attention, of_heads = module(patches)
    torch.testing.assert_close(attention, torch.tensor([[[0.25, 0.75]]]))
    torch.testing.assert_close(token, torch.tensor([[0.75 * float(np.log(3))]]))
    # A head that doubles the token and adds nothing: all of it comes from the second patch.
    evidence, constant = module.evidence(patches, of_heads, torch.tensor([2.0]))
    torch.testing.assert_close(evidence, torch.tensor([[0.0, 1.5 * float(np.log(3))]]))
    assert constant == 0


def test_the_papers_parameter_count() -> None:
    """4,198,400 for one attention of width 1024 plus K x 1024 for the queries (method.md)."""
    with torch.device("meta"):
        module = QueryAggregation(width=1024, queries=4, heads=8)
    assert sum(p.numel() for p in module.parameters()) == 4_198_400 + 4 * 1024


def test_a_copy_without_detail_worked_by_hand() -> None:
    """Sixteen pixels become their mean; between the middles of two such it is a straight line."""
    image = torch.zeros(1, 3, 4, 8)
    image[..., 4:] = torch.tensor([0.0, 1.0]).repeat(2)  # mean one half
    row = torch.tensor([0, 0, 1, 3, 5, 7, 8, 8]) / 16
    torch.testing.assert_close(without_detail(image), row.expand(1, 3, 4, 8))
    odd = torch.full((1, 3, 6, 6), 0.25)
    torch.testing.assert_close(without_detail(odd), odd)


@pytest.mark.parametrize("token", ["cls", "global"])
def test_a_share_of_the_copys_logit_is_taken_off_the_crops(
    tiny_tower: str, rng: np.random.Generator, token: str
) -> None:
    plain = Detector(DetectorSettings(tower=tiny_tower, heads=4, token=token)).eval()
    against_itself = Detector(replace(plain.settings, reference=0.5)).eval()
    against_itself.load_state_dict(plain.state_dict())
    # Of such blocks the copies are whole numbers, too.
    blocks = 64 * rng.integers(0, 4, (2, 8, 8, 3), np.uint8)
    crops = blocks.repeat(4, 1).repeat(4, 2)
    copies = without_detail(torch.from_numpy(crops).permute(0, 3, 1, 2).float())
    copies = copies.permute(0, 2, 3, 1).to(torch.uint8)

    found, expected = against_itself.score(crops), plain.score(crops)
    of_copies = plain(copies).logit.detach().numpy()
    np.testing.assert_allclose(found.logit, expected.logit - of_copies / 2, atol=1e-5)
    np.testing.assert_array_equal(found.query_attention, expected.query_attention)

    flat = np.full_like(crops, 100)  # there is no detail to lose
    half = plain.score(flat).logit / 2
    np.testing.assert_allclose(against_itself.score(flat).logit, half, atol=1e-5)


@pytest.mark.parametrize("reference", [0.0, 0.5])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("token", ["global", "avg", "weighted-avg", "concat"])
def test_evidence_and_constant_add_up_to_the_logit(
    tiny_tower: str, rng: np.random.Generator, token: str, normalise: bool, reference: float
) -> None:
    chosen = DetectorSettings(
        tower=tiny_tower, heads=4, token=token, normalise=normalise, reference=reference, prior=True
    )
    detector = Detector(chosen).eval()
    torch.nn.init.normal_(detector.aggregation.attention.in_proj_bias)  # part of the constant
    output = detector.score(rng.integers(0, 256, (3, 32, 32, 3), np.uint8))
    assert output.evidence.shape == (3, 16)
    np.testing.assert_allclose(output.evidence.sum(1) + output.constant, output.logit, atol=1e-5)


def test_evidence_is_what_a_patch_adds(tiny_tower: str) -> None:
    """Given where the queries look, a patch that turns to zero takes just its evidence with it."""
    detector = Detector(DetectorSettings(tower=tiny_tower, heads=4)).eval()
    patches = torch.randn(1, 16, detector.tower.width)
    of_heads = detector.aggregation(patches).of_heads
    row = detector.head.weight[0]

    def product(tokens: torch.Tensor) -> torch.Tensor:
        attention = detector.aggregation.attention
        values = torch.nn.functional.linear(
            tokens, attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2]
        )
        by_head = values.view(1, 16, 4, -1).transpose(1, 2)
        return attention.out_proj((of_heads[:, :, None] @ by_head).flatten(1)) @ row

    evidence, _ = detector.aggregation.evidence(patches, of_heads, row)
    without = patches.clone()
    without[:, 3] = 0
    torch.testing.assert_close(product(patches) - product(without), evidence[:, 3])


def test_a_detector_without_queries_has_no_evidence_of_patches(
    tiny_tower: str, rng: np.random.Generator
) -> None:
    detector = Detector(DetectorSettings(tower=tiny_tower, token="cls")).eval()
    output = detector.score(rng.integers(0, 256, (2, 32, 32, 3), np.uint8))
    assert output.evidence.shape == (2, 0)
    np.testing.assert_array_equal(output.constant, output.logit)


def test_what_lies_outside_of_the_view_is_not_seen(
    tiny_tower: str, rng: np.random.Generator
) -> None:
    """0.5 of a crop of 64 pixels: 32 of them, from 16 on across and, 60 (1 - 0.5) / 4 lower, 24 down."""
    assert seen(0.5, 64) == (16, 24, 32)
    assert seen(1, 64) == (0, 0, 64)
    detector = Detector(DetectorSettings(tower=tiny_tower, heads=4, view=0.5)).eval()
    crops = rng.integers(0, 256, (1, 64, 64, 3), np.uint8)
    outside = rng.integers(0, 256, (1, 64, 64, 3), np.uint8)
    outside[:, 24:56, 16:48] = crops[:, 24:56, 16:48]
    found, again = detector.score(crops), detector.score(outside)
    assert found.view == 0.5
    np.testing.assert_array_equal(found.logit, again.logit)
    outside[:, 24, 16] += 100
    assert detector.score(outside).logit != found.logit


def test_layers_are_read_and_averaged(tiny_tower: str, images: torch.Tensor) -> None:
    detector = Detector(DetectorSettings(tower=tiny_tower, heads=4, layers=(1, 3))).eval()
    tokens = detector.tower(images, layers=(1, 3))
    first, last = tokens.states
    np.testing.assert_array_equal(
        detector.tower.visual.ln_post(last[:, 0]).detach(), tokens.cls.detach()
    )
    cls, patches = detector._read(tokens)
    width = (detector.tower.width,)
    norm = torch.nn.functional.layer_norm
    torch.testing.assert_close(cls, (norm(first, width) + norm(last, width))[:, 0] / 2)
    assert patches.shape[1] == 16


def test_layers_start_on_one_scale(tiny_tower: str, rng: np.random.Generator) -> None:
    detector = Detector(DetectorSettings(tower=tiny_tower, heads=4, layers=(1, 3))).eval()
    crops = torch.from_numpy(rng.integers(0, 256, (4, 32, 32, 3), np.uint8))
    detector.standardise(detector.tokens(detector.images(crops)))
    images = (detector.images(crops) - detector.mean) / detector.std
    for reader, state in zip(
        detector.readers, detector.tower(images, layers=(1, 3)).states, strict=True
    ):
        read = reader(state[:, 1:]).flatten(0, 1)
        torch.testing.assert_close(read.mean(0), torch.zeros(read.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(read.std(0), torch.ones(read.shape[1]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": (2, 1)}, "layers"), ({"layers": (0,)}, "layers"), ({"layers": ()}, "layers"),
        ({"layers": (1,)}, "depth"), ({"layers": (1,), "depth": 2}, "depth"), ({"view": 0.0}, "view"),
        ({"view": 1.5}, "view"), ({"prior": True, "token": "cls"}, "prior"),
    ],
)  # fmt: skip
def test_what_no_detector_can_be_is_refused(
    tiny_tower: str, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Detector(DetectorSettings(tower=tiny_tower, **{"heads": 4, **wrong}))


def test_in_training_the_crop_alone_is_scored(tiny_tower: str, rng: np.random.Generator) -> None:
    detector = Detector(DetectorSettings(tower=tiny_tower, heads=4, reference=0.5)).train()
    crops = torch.from_numpy(rng.integers(0, 256, (2, 32, 32, 3), np.uint8))
    alone = detector(crops).logit
    torch.testing.assert_close(detector.head(detector(crops).global_token).squeeze(1), alone)
    assert not torch.allclose(detector.eval()(crops).logit, alone, atol=1e-4)


def test_a_batch_too_large_for_the_device_is_scored_in_halves(
    tiny_tower: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(DetectorSettings(tower=tiny_tower, heads=2)).eval()
    crops = rng.integers(0, 256, (7, 32, 32, 3), np.uint8)
    whole = detector.score(crops)
    forward, sizes, most = Detector.forward, list[int](), 2

    def scarce(self: Detector, crops: torch.Tensor, **how: Any) -> Any:
        sizes.append(len(crops))
        if len(crops) > most:
            raise torch.OutOfMemoryError("no memory left")
        return forward(self, crops, **how)

    monkeypatch.setattr(Detector, "forward", scarce)
    halved = detector.score(crops)
    assert sizes == [7, 4, 2, 2, 3, 2, 1]
    for name in ("logit", "query_attention", "cls_attention"):
        np.testing.assert_allclose(getattr(halved, name), getattr(whole, name), atol=1e-6)
    most = 0
    with pytest.raises(SettingsError, match="too little memory to score one crop"):
        detector.score(crops)


def test_crops_of_any_size_are_scored(tiny_tower: str, rng: np.random.Generator) -> None:
    detector = Detector(DetectorSettings(tower=tiny_tower, heads=4)).eval()
    for side in (32, 256):
        output = detector.score(rng.integers(0, 256, (3, side, side, 3), dtype=np.uint8))
        assert output.logit.shape == (3,)
        assert output.query_attention.shape == (3, 4, 16)
        assert output.cls_attention.shape == (3, 16)
