"""One contract for all adapters, on towers of both activations; what each one is, worked by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from builders.toy import add_tiny_tower
from deepscan.errors import WeightsMismatch
from deepscan.files import sha256
from deepscan.model import adapters, checkpoint, tower, weights
from deepscan.model.adapters import LowRank, SpectralResidual
from deepscan.model.detector import Detector
from deepscan.model.header import ADAPTERS, TOKENS, DetectorSettings, Header
from deepscan.model.tower import add_change

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
    name, path = base

    def make(adapter: str, token: str = "global", seed: int = 0) -> Detector:
        detector = Detector(DetectorSettings(tower=name, adapter=adapter, token=token, heads=8))
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
        assert not any(".change." in name for name, _ in detector.named_parameters())
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


def layer_outputs(detector: Detector, x: Tensor) -> dict[str, Tensor]:
    """What the matrices of a middle layer make of `x`; of the attention's first three, what it works on."""
    block, found = detector.tower.visual.blocks()[1], {}

    def heard(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found.update(q=q, k=k, v=v)
        return q

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "scaled_dot_product_attention", heard)
        block.attn(x)
    found["out"], found["norm"] = block.attn.out_proj(x), block.ln_1(x)
    if detector.settings.adapter == "lora":
        found["fc1"] = block.mlp[0](x)
        found["fc2"] = block.mlp[2](torch.cat([x] * 4, -1))
    return {name: value.double() for name, value in found.items()}


@pytest.mark.parametrize("adapter", ["effort", "lora", "norm"])
@pytest.mark.parametrize("steps", [1, 10, 100])
def test_small_steps_show_in_what_a_bfloat16_layer_puts_out(
    monkeypatch: pytest.MonkeyPatch, adapter: str, steps: int
) -> None:
    """Adam at 2e-4 moves a parameter by 2e-4 a step: what that changes is right to 5 % under autocast.

    Against the same layer in float64, on a tower of ViT-B/16's width. ("full" is ordinary mixed precision,
    whose products are rounded to bfloat16: after ten steps its change is right to 5 %, after one to 44 %.)
    """
    size = tower.TowerSize(32, 8, 768, 2, 16, quick_gelu=True)
    monkeypatch.setattr(tower, "tower_size", {"wide": size}.__getitem__)
    torch.manual_seed(0)
    detector = Detector(DetectorSettings("wide", adapter=adapter, token="cls")).eval()
    detector.initialise(torch.Generator().manual_seed(0))
    exact = copy.deepcopy(detector).double()
    adapters.cast_frozen(detector.tower, torch.bfloat16)
    adapters.cast_frozen(exact.tower, torch.bfloat16)  # both stand on the same base
    exact.double()
    x = torch.randn(4, 17, 768)

    def outputs() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = layer_outputs(detector, x)
        with torch.no_grad():
            return found, layer_outputs(exact, x.bfloat16().double())

    before = outputs()
    with torch.no_grad():
        pairs = zip(detector.parameters(), exact.parameters(), strict=True)
        for parameter, same in ((a, b) for a, b in pairs if a.requires_grad):
            parameter += 2e-4 * steps * torch.randn_like(parameter).sign()
            same.copy_(parameter)
    after = outputs()
    changed = ["norm"] if adapter == "norm" else sorted(before[0].keys() - {"norm"})
    noise = {}
    for name in changed:
        found, signal = (after[i][name] - before[i][name] for i in (0, 1))
        noise[name] = float((found - signal).norm() / signal.norm())
    assert max(noise.values()) <= 0.05, noise


@pytest.mark.parametrize(("adapter", "share"), [("lora", 0.71), ("effort", 0.88)])
def test_a_step_computes_no_gradient_of_a_frozen_matrix(
    monkeypatch: pytest.MonkeyPatch, adapter: str, share: float
) -> None:
    """Forward and backward take two products a frozen matrix; a gradient of its size would be a third.

    With all three, as for W + dW written out, a tower of ViT-B/16's width would take 1 instead of `share`.
    """
    size = tower.TowerSize(224, 16, 768, 1, 16, quick_gelu=True)
    monkeypatch.setattr(tower, "tower_size", {"wide": size}.__getitem__)
    detector = Detector(DetectorSettings("wide", adapter=adapter, token="cls"))
    detector.initialise(torch.Generator().manual_seed(0))
    block, x = detector.tower.visual.blocks()[0], torch.randn(1, 197, 768, requires_grad=True)
    with FlopCounterMode(display=False) as counted:
        torch.autograd.backward(block(x).sum())
    tokens, d = 197, 768
    attention = 12 * tokens * tokens * d  # two products, each with two gradients
    matrices = {"lora": 12 * 3, "effort": 4 * 3 + 8 * 2}[adapter] * 2 * tokens * d * d
    written_out = matrices + 2 * attention
    assert counted.get_total_flops() <= share * written_out


# --- what each one is ------------------------------------------------------------------------------


def test_lora_by_hand() -> None:
    """alpha / r = 2: dW = 2 B A, for each of two row blocks; each makes one number of x = (1, 1)."""
    change = LowRank(torch.zeros(2, 2), blocks=2, rank=1, alpha=2.0)
    with torch.no_grad():
        change.a.copy_(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]))
        change.b.copy_(torch.tensor([[[1.0]], [[10.0]]]))
    left, right = change()
    expected = torch.tensor([[2.0, 4.0], [60.0, 80.0]])
    torch.testing.assert_close((left @ right).flatten(0, 1), expected)
    made = add_change(torch.tensor([[0.5, 0.5]]), torch.ones(1, 2), left, right)
    torch.testing.assert_close(made, torch.tensor([[6.5, 140.5]]))


def test_effort_trains_the_last_component() -> None:
    """diag(3, 1): the residual is the 1, its singular vectors the second axis."""
    change = SpectralResidual(torch.empty(2, 2), blocks=1, rank=1)
    change.start(torch.diag(torch.tensor([3.0, 1.0])), None)
    torch.testing.assert_close(change.s, torch.tensor([[1.0]]))
    torch.testing.assert_close(change.u.abs(), torch.tensor([[[0.0], [1.0]]]))
    with torch.no_grad():
        change.s.mul_(2.5)
    torch.testing.assert_close(torch.matmul(*change())[0], torch.diag(torch.tensor([0.0, 1.5])))


def test_efforts_change_is_the_difference_of_the_residuals() -> None:
    change = SpectralResidual(torch.empty(2 * 5, 5), blocks=2, rank=2)
    change.start(torch.randn(10, 5, generator=torch.Generator().manual_seed(0)), None)
    with torch.no_grad():
        for parameter in change.parameters():
            parameter += 0.1
    trained = (change.u * change.s[:, None]) @ change.v
    torch.testing.assert_close(
        torch.matmul(*change()), trained - (change.u0 * change.s0[:, None]) @ change.v0
    )


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
        changed = block + torch.matmul(*change())[i]
        kept.append((changed.square().sum() - block.square().sum()).abs())
    torch.testing.assert_close(change.orthogonality(), torch.stack(expected))
    torch.testing.assert_close(change.keeping(weight), torch.stack(kept))


def test_a_checkpoint_of_the_former_names_loads(
    build: Build, base: tuple[str, Path], crops: Tensor, tmp_path: Path
) -> None:
    """Adapters' tensors were once named after the matrix: out_proj.parametrizations.weight.0.a."""
    detector = build("lora")
    step(detector, crops)
    header = Header(
        "old", detector.settings, {"name": "tiny", "sha256": sha256(base[1])}, {"data": "x"}, "none"
    )
    former = {
        name.replace("attn.change", "attn.parametrizations.in_proj_weight.0").replace(
            ".change.", ".parametrizations.weight.0."
        ): value
        for name, value in detector.trained_state().items()
    }
    checkpoint.write(tmp_path / "old.safetensors", former, header)
    again, _ = checkpoint.load(tmp_path / "old.safetensors", base[1])
    with torch.no_grad():
        torch.testing.assert_close(
            again(crops).logit, detector.eval()(crops).logit, atol=1e-4, rtol=0
        )


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
