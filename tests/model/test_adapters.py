"""One contract for all adapters, on towers of both activations; what each one is, worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from conftest import add_tiny_tower
from deepscan.errors import WeightsMismatch
from deepscan.files import sha256
from deepscan.model import adapters, checkpoint, weights
from deepscan.model.adapters import LowRank, SpectralResidual
from deepscan.model.detector import Detector
from deepscan.model.header import ADAPTERS, TOKENS, DetectorSettings, Header

# Each adapter alone ([CLS], the baseline) and with queries (+Ours).
METHODS = [(adapter, token) for adapter in ADAPTERS for token in ("cls", "global")]

Build = Callable[..., tuple[Detector, Path]]


@pytest.fixture(
    params=["tiny-vit", pytest.param("ViT-B-16-quickgelu", marks=pytest.mark.slow)], scope="module"
)
def base(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A tower's name and its base: small and random, and (slow) CLIP ViT-B/16's own weights."""
    if request.param != "tiny-vit":
        return request.param, weights.base_file(
            weights.catalogue().bases["clip-vit-b16"], offline=True
        )
    path = tmp_path_factory.mktemp("base") / "tiny.safetensors"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        name = add_tiny_tower(patch)
        save_file(Detector(DetectorSettings(tower=name)).tower.visual.state_dict(), path)
    return request.param, path


@pytest.fixture
def build(base: tuple[str, Path], tiny_tower: str) -> Build:
    """Makes a detector as training starts it."""
    tower, path = base

    def make(adapter: str, token: str = "global", seed: int = 0) -> Detector:
        detector = Detector(DetectorSettings(tower=tower, adapter=adapter, token=token, heads=8))
        adapters.load_base(detector.tower, checkpoint.read_base(path))
        detector.initialise(torch.Generator().manual_seed(seed))
        return detector

    return make


@pytest.fixture
def crops(rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.integers(0, 256, (2, 32, 32, 3), np.uint8))


def step(detector: Detector, crops: Tensor) -> None:
    """One large step of what trains, so that a change shows."""
    trained = [p for p in detector.parameters() if p.requires_grad]
    detector.zero_grad()
    answer = detector(crops)
    torch.autograd.backward(answer.logit.sum() + answer.patches.square().sum() * 1e-3)
    with torch.no_grad():
        for parameter in trained:
            if parameter.grad is not None:
                parameter -= 0.05 * parameter.grad / (parameter.grad.norm() + 1e-9)


# --- the contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("adapter", "token"), METHODS)
def test_the_start_computes_what_the_base_computes(
    build: Build, crops: Tensor, adapter: str, token: str
) -> None:
    plain, adapted = build("none", token).eval(), build(adapter, token).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            adapted(crops).patches, plain(crops).patches, atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(adapted(crops).logit, plain(crops).logit, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("adapter", "token"), METHODS)
def test_only_its_own_parameters_train(
    build: Build, crops: Tensor, adapter: str, token: str
) -> None:
    detector = build(adapter, token)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    step(detector, crops)
    step(detector, crops)  # LoRA's A moves once B has
    trains = {name for name, p in detector.named_parameters() if p.requires_grad}
    moved = {n for n, value in detector.state_dict().items() if not torch.equal(value, before[n])}
    assert moved <= trains
    # CLIP's projection to text is part of "full" but has no part in the score; key biases fall out of
    # any softmax.
    assert {n for n in trains - moved if not n.endswith(".proj")} == set()
    inside = {name for name in trains if name.startswith("tower.")}
    assert bool(inside) == (adapter != "none")


@pytest.mark.parametrize(("adapter", "token"), METHODS)
def test_merged_and_reloaded_it_scores_the_same(
    build: Build, base: tuple[str, Path], crops: Tensor, tmp_path: Path, adapter: str, token: str
) -> None:
    detector = build(adapter, token)
    step(detector, crops)
    detector.eval()
    with torch.no_grad():
        unmerged = detector(crops)
        header = Header(
            "trained",
            detector.settings,
            {"name": "tiny", "sha256": sha256(base[1])},
            {"data": "made up"},
            "none",
        )
        checkpoint.save(tmp_path / "trained.safetensors", detector, header)
        adapters.merge(detector.tower)
        assert not any("parametrizations" in name for name, _ in detector.named_parameters())
        torch.testing.assert_close(detector(crops).logit, unmerged.logit, atol=1e-4, rtol=0)
        again, _ = checkpoint.load(tmp_path / "trained.safetensors", base[1])
        torch.testing.assert_close(again(crops).logit, unmerged.logit, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("adapter", "token"), METHODS)
def test_a_checkpoint_holds_all_that_trains_and_nothing_else_of_the_tower(
    build: Build, base: tuple[str, Path], tmp_path: Path, adapter: str, token: str
) -> None:
    detector = build(adapter, token)
    trains = {name for name, p in detector.named_parameters() if p.requires_grad}
    held = detector.trained_state().keys()
    assert trains <= held
    started = {n for n in held - trains if adapter == "effort" and n[-2:] in ("u0", "s0", "v0")}
    assert held - trains == started
    header = Header(
        "cut", detector.settings, {"name": "tiny", "sha256": sha256(base[1])}, {"data": "x"}, "none"
    )
    checkpoint.save(tmp_path / "whole.safetensors", detector, header)
    for name in sorted(trains)[:1]:  # what is missing is never taken from the base in silence
        tensors = load_file(tmp_path / "whole.safetensors")
        del tensors[name]
        with pytest.raises(WeightsMismatch, match="missing"):
            checkpoint.restore(detector, tmp_path / "whole.safetensors", tensors)


# --- what each one is ------------------------------------------------------------------------------


def test_lora_by_hand() -> None:
    """alpha / r = 2: W + 2 B A, for each of two row blocks."""
    change = LowRank(torch.zeros(2, 2), blocks=2, rank=1, alpha=2.0)
    with torch.no_grad():
        change.a.copy_(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]))
        change.b.copy_(torch.tensor([[[1.0]], [[10.0]]]))
    expected = torch.tensor([[1.0 + 2, 4.0], [60.0, 1.0 + 80]])
    torch.testing.assert_close(change(torch.eye(2)), expected)


def test_effort_trains_the_last_component() -> None:
    """diag(3, 1): the residual is the 1, its singular vectors the second axis."""
    weight = torch.diag(torch.tensor([3.0, 1.0]))
    change = SpectralResidual(weight, blocks=1, rank=1)
    change.start(weight, None)
    torch.testing.assert_close(change.s, torch.tensor([[1.0]]))
    torch.testing.assert_close(change.u.abs(), torch.tensor([[[0.0], [1.0]]]))
    with torch.no_grad():
        change.s.mul_(2.5)
    torch.testing.assert_close(change(weight), torch.diag(torch.tensor([3.0, 2.5])))


def test_efforts_penalties_by_hand_and_against_all_columns() -> None:
    torch.manual_seed(0)
    weight = torch.randn(2 * 5, 5)
    change = SpectralResidual(weight, blocks=2, rank=1)
    change.start(weight, None)
    torch.testing.assert_close(change.orthogonality(), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(change.keeping(weight), torch.zeros(2), atol=1e-4, rtol=0)
    torch.autograd.backward((change.orthogonality() + change.keeping(weight)).sum())
    assert all(torch.isfinite(p.grad).all() for p in change.parameters() if p.grad is not None)
    with torch.no_grad():
        for parameter in change.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    expected, kept = [], []
    for i, block in enumerate(weight.view(2, 5, 5)):
        u, _, v = torch.linalg.svd(block)
        whole_u = torch.cat([u[:, :-1], change.u[i]], 1)
        whole_v = torch.cat([v[:-1], change.v[i]], 0)
        parts = (m - torch.eye(5) for m in (whole_u.T @ whole_u, whole_v @ whole_v.T))
        expected.append(sum(torch.linalg.matrix_norm(part) for part in parts) / 2)
        changed = change(weight).view(2, 5, 5)[i]
        kept.append((changed.square().sum() - block.square().sum()).abs())
    torch.testing.assert_close(change.orthogonality(), torch.stack(expected))
    torch.testing.assert_close(change.keeping(weight), torch.stack(kept))


def test_a_step_too_small_for_bfloat16_is_not_lost() -> None:
    """The change is computed in float32 under autocast, where 1 + 1e-4 would round to 1."""
    change = LowRank(torch.zeros(1, 1), blocks=1, rank=1, alpha=1.0)
    nn.init.ones_(change.a)
    nn.init.constant_(change.b, 1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert change(torch.ones(1, 1)).item() == pytest.approx(1.0001)


@pytest.mark.parametrize(
    ("adapter", "tower", "query", "head"),
    [
        ("effort", 196_704, 4_202_496, 1025),
        ("lora", 1_769_472, 4_202_496, 1025),
        ("full", 303_966_208, 4_202_496, 1025),
        ("norm", 2 * 1024 * (24 * 2 + 2), 4_202_496, 1025),
        ("none", 0, 4_202_496, 1025),
    ],
)
def test_parameters_at_vit_l_14(adapter: str, tower: int, query: int, head: int) -> None:
    """method.md's figures; LayerNorms: two a layer and two outside, each an affine pair of 1024."""
    with torch.device("meta"):
        detector = Detector(DetectorSettings(tower="ViT-L-14-quickgelu", adapter=adapter))
    parts = {"tower": 0, "aggregation": 0, "head": 0}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            parts[name.split(".")[0]] += parameter.numel()
    assert parts == {"tower": tower, "aggregation": query, "head": head}


# --- tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", TOKENS)
def test_what_each_token_classifies(tiny_tower: str, crops: Tensor, token: str) -> None:
    detector = Detector(DetectorSettings(tower=tiny_tower, token=token, heads=4)).eval()
    detector.initialise(torch.Generator().manual_seed(0))
    answer = detector(crops)
    cls, own = answer.cls, answer.global_token
    expected = {
        "cls": lambda: cls,
        "global": lambda: own,
        "avg": lambda: (cls + own) / 2,
        "weighted-avg": lambda: 0.5 * cls + 0.5 * own,  # two equal scalars at the start
        "concat": lambda: torch.cat([cls, own], 1),
    }[token]()
    torch.testing.assert_close(answer.logit, detector.head(expected).squeeze(-1))
    assert (own is None) == (answer.query_attention is None) == (token == "cls")
    assert any(name.startswith("aggregation") for name in detector.state_dict()) == (token != "cls")


def test_weights_of_the_weighted_average_are_learnt(tiny_tower: str, crops: Tensor) -> None:
    settings = DetectorSettings(tower=tiny_tower, token="weighted-avg", heads=4)
    detector = Detector(settings)
    detector.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        detector.balance.copy_(torch.tensor([0.0, float(np.log(3))]))  # softmax: 1/4, 3/4
    answer = detector(crops)
    expected = detector.head(0.25 * answer.cls + 0.75 * answer.global_token).squeeze(-1)
    torch.testing.assert_close(answer.logit, expected)
    assert replace(settings, token="avg") != settings
