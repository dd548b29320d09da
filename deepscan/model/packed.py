"""Optimises a merged tower for its device; a packed tower can only score.

On a CPU torch passes bfloat16 products to oneDNN, which rearranges the matrix each time, at a tenth of the
product's cost, and float32 products to other libraries. The two operators used here, which torch's compiler
uses too, have oneDNN rearrange it once. bfloat16 products stay the same to the bit, and no parameters remain
to train or to store.

On a GPU the operations between the products take time, because they move much memory. As single torch
operations QuickGELU moves it seven times; x sigmoid(1.702 x) = silu(1.702 x) / 1.702 moves it twice, and
both factors are folded into the products before and after, which apply them before rounding.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from deepscan.model.tower import QUICK, QuickGELU, Tower
from deepscan.shapes import Float


class Packed(nn.Module):
    """A linear layer whose weight only oneDNN can read."""

    def __init__(self, weight: Float[Tensor, "m n"], bias: Float[Tensor, " m"]) -> None:
        super().__init__()
        # Attributes instead of buffers, because they must not be moved, cast or stored.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self._bias = bias.detach()

    def forward(self, x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        """The product, with the bias added."""
        made = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return cast(Tensor, made)


class Scaled(nn.Module):
    """A linear layer whose product is multiplied by `factor`, and whose bias is `bias`."""

    def __init__(
        self, weight: Float[Tensor, "m n"], bias: Float[Tensor, " m"], factor: float
    ) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
        self.factor = factor

    def forward(self, x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        """The product, with the bias added."""
        made = torch.addmm(self.bias, x.flatten(0, -2), self.weight.T, alpha=self.factor)
        return made.view(*x.shape[:-1], -1)


def packable(tower: Tower) -> bool:
    """Whether the tower is on a CPU, and oneDNN takes its matrices there.

    It refuses bfloat16 where the processor has no AVX-512.
    """
    weight = tower.visual.conv1.weight
    if weight.device.type != "cpu":
        return False
    one = torch.ones(16, 16, dtype=weight.dtype)
    try:
        Packed(one, one[0])(one)
    except (AttributeError, RuntimeError):  # a torch without the operators; a processor too plain
        return False
    return True


def pack(tower: Tower) -> None:
    """Apply what makes the tower faster on its device, where possible. The adapter must be merged."""
    if packable(tower):
        _pack_matrices(tower)
    elif tower.visual.conv1.weight.device.type == "cuda":
        join_activations(tower)


def _pack_matrices(tower: Tower) -> None:
    *earlier, last = tower.visual.blocks()
    for block in (*earlier, last):
        attention = block.attn
        attention.project = Packed(attention.in_proj_weight, attention.in_proj_bias)
        attention.register_module("out_proj", _packed(attention.out_proj))
        block.mlp[0], block.mlp[2] = _packed(block.mlp[0]), _packed(block.mlp[2])
    for block in earlier:  # the last one's rows are also read one by one: where [CLS] looks
        block.attn.in_proj_weight = nn.Parameter(torch.empty(0), requires_grad=False)


def join_activations(tower: Tower) -> None:
    """Fold every QuickGELU's factors into the products around it; no weight changes."""
    for block in tower.visual.blocks():
        if isinstance(block.mlp[1], QuickGELU):
            into, out = _linear(block.mlp[0]), _linear(block.mlp[2])
            bias = (into.bias.detach().float() * QUICK).to(into.bias.dtype)
            block.mlp[0] = Scaled(into.weight.detach(), bias, QUICK)
            block.mlp[1] = nn.SiLU(inplace=True)
            block.mlp[2] = Scaled(out.weight.detach(), out.bias.detach(), 1 / QUICK)


def _packed(linear: nn.Module) -> Packed:
    return Packed(_linear(linear).weight, _linear(linear).bias)


def _linear(module: nn.Module) -> nn.Linear:
    assert isinstance(module, nn.Linear)
    return module
