"""Queries that gather a crop's patches into one global token, and what each patch adds to it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from deepscan.model.tower import Attention, draw_normal
from deepscan.shapes import Float, Int


class Gathered(NamedTuple):
    """What queries gather from patches."""

    token: Float[Tensor, "b d"]  # the mean over queries
    attention: Float[Tensor, "b k p"]  # of each query over patches, averaged over heads
    of_heads: Float[Tensor, "b h p"]  # of each head over patches, averaged over queries


class QueryAggregation(nn.Module):
    """K learnable queries, independent of the tower, attend to the patches; their mean is the global token.

    Args:
        width: token width d, a multiple of `heads`.
        patches: number of patches whose places the queries learn to favour or to avoid; None: places mean
            nothing to them.
    """

    def __init__(self, width: int, queries: int, heads: int, patches: int | None = None) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(queries, width))
        self.attention = Attention(width, heads)
        self.place = None if patches is None else nn.Parameter(torch.zeros(heads, patches))
        draw_normal(self.query, std=0.02)

    def forward(
        self, patches: Float[Tensor, "b p d"], keep: Int[Tensor, " p"] | None = None
    ) -> Gathered:
        """Look at these patches; `keep` are their numbers, None: all.

        The same as projecting keys and values of every patch, in another order: patches are gathered
        by their weights first and projected afterwards, since K times heads is far below their number.
        """
        place = self.place if self.place is None or keep is None else self.place[:, keep]
        weights = self.attention.weights(self.query[None], patches, place)  # (b, h, k, p)
        of_heads = weights.mean(2)
        gathered = of_heads @ patches[:, None].flatten(1, 2)  # (b, h, d)
        w_v, b_v = self._values()
        answer = torch.einsum("bhd,hcd->bhc", gathered, w_v).flatten(1) + b_v
        return Gathered(self.attention.out_proj(answer), weights.mean(1), of_heads)

    def evidence(
        self,
        patches: Float[Tensor, "b p d"],
        of_heads: Float[Tensor, "b h p"],
        row: Float[Tensor, " d"],
    ) -> tuple[Float[Tensor, "b p"], Float[Tensor, ""]]:
        """What each patch adds to row @ token, and what no patch adds: together they are row @ token.

        Given the weights, all that follows is linear in the patches: e_p = sum_h A_hp <u_h, W_v,h z_p>, with
        u = row W_out read back through the output projection, head by head.
        """
        out = self.attention.out_proj
        w_v, b_v = self._values()
        folded = (row @ out.weight).view(len(w_v), -1)
        values = torch.einsum("hc,hcd->hd", folded, w_v)
        found = (of_heads * (patches @ values.T).mT).sum(1)
        return found, row @ (out.weight @ b_v + out.bias)

    def _values(self) -> tuple[Float[Tensor, "h c d"], Float[Tensor, " d"]]:
        """The values' projection by heads, and its bias."""
        attention = self.attention
        weight = attention.in_proj_weight.chunk(3)[2]
        by_head = weight.view(attention.heads, -1, weight.shape[1])
        return by_head, attention.in_proj_bias.chunk(3)[2]
