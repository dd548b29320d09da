"""A tower's matrices laid out as oneDNN multiplies them, once instead of at every multiplication.

On a CPU torch hands a bfloat16 product to oneDNN, which lays the matrix out anew each time, for a tenth of
what the product takes. torch's compiler lays it out beforehand, by the two operators used here; the products
are the same to the bit. What is packed only scores: it has no parameters left to train or to store.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepscan.model.tower import Tower


class Packed(nn.Module):
    """A linear layer whose weight only oneDNN can read."""

    def __init__(self, weight: Float[Tensor, "m n"], bias: Float[Tensor, " m"]) -> None:
        super().__init__()
        # Attributes, no buffers: it is not to be moved, cast or stored.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self._bias = bias.detach()

    def forward(self, x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        """The product, with the bias added."""
        made = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return cast(Tensor, made)


def packable(tower: Tower) -> bool:
    """Whether this torch packs, and the tower is one that gains: on a CPU, in bfloat16."""
    weight = tower.visual.conv1.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and all(
            hasattr(torch.ops.mkldnn, name)
            for name in ("_reorder_linear_weight", "_linear_pointwise")
        )
    )


def pack(tower: Tower) -> None:
    """Pack every layer's matrices, where that is to be had. The adapter must be merged."""
    if not packable(tower):
        return
    *earlier, last = tower.visual.blocks()
    for block in (*earlier, last):
        attention = block.attn
        attention.project = Packed(attention.in_proj_weight, attention.in_proj_bias)
        attention.register_module("out_proj", _packed(attention.out_proj))
        block.mlp[0], block.mlp[2] = _packed(block.mlp[0]), _packed(block.mlp[2])
    for block in earlier:  # the last one's rows are also read one by one: where [CLS] looks
        block.attn.in_proj_weight = nn.Parameter(torch.empty(0), requires_grad=False)


def _packed(linear: nn.Module) -> Packed:
    assert isinstance(linear, nn.Linear)
    return Packed(linear.weight, linear.bias)
