"""A spare token takes what a neuron would make long patches of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from deepscan.model import tower
from tools.evidence import registers

PLANTED = 5  # a neuron


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> tower.Tower:
    """Two layers, of which the first has one neuron that lengthens the patches it fires on a hundredfold."""
    size = tower.TowerSize(224, 16, 32, 2, 16, head_width=8, quick_gelu=True)
    monkeypatch.setattr(tower, "tower_size", {"tiny-vit": size}.__getitem__)
    torch.manual_seed(0)
    made = tower.Tower("tiny-vit")
    mlp: Any = made.visual.blocks()[0].mlp
    with torch.no_grad():
        for linear in (mlp.c_fc, mlp.c_proj):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        mlp.c_fc.weight[PLANTED, 0] = 10
        mlp.c_fc.bias[PLANTED] = -15  # so that it fires on few
        mlp.c_proj.weight[:, PLANTED] = 20 * torch.randn(32)
    return made.eval()


IMAGES = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def test_outliers_are_three_times_as_long_as_most_patches() -> None:
    """Lengths 1, 1, 1, 4, 1 behind a [CLS] of 100; then 2.9 in place of 4."""
    lengths = torch.tensor([[100, 1, 1, 1, 4, 1], [100, 1, 1, 1, 2.9, 1]])
    state = lengths[..., None] * torch.tensor([0.6, 0.8])
    assert registers.outliers(state).tolist() == [[False] * 3 + [True, False], [False] * 5]


def test_the_neuron_that_makes_outliers_is_found(planted: tower.Tower) -> None:
    found = registers.makers(planted, IMAGES, layer=2, count=1)
    assert {layer: own.tolist() for layer, own in found.items()} == {0: [PLANTED]}


@torch.no_grad()
def test_with_a_spare_token_no_patch_grows_and_afterwards_all_is_as_before(
    planted: tower.Tower,
) -> None:
    before = planted(IMAGES, None, True, (1, 2))
    assert registers.outliers(before.states[1]).any(1).all()
    with registers.spare_token(planted, {0: torch.tensor([PLANTED])}):
        with_spare = planted(IMAGES, None, True, (1, 2))
    found = registers.without_spare(with_spare)
    assert not registers.outliers(found.states[1]).any()
    assert [state.shape for state in found.states] == [state.shape for state in before.states]
    assert found.patches.shape == before.patches.shape
    assert found.cls_attention.shape == before.cls_attention.shape
    spare = with_spare.states[0][:, -1].norm(dim=1)
    assert (spare > before.states[0][:, 1:].norm(dim=2).median()).all()  # it holds what they do not
    after = planted(IMAGES, None, True, (1, 2))
    assert torch.equal(after.states[1], before.states[1])
