"""CLIP's image tower, returning the tokens of the last layer that runs, or of several, and [CLS]'s attention.

The architecture is open_clip's plain ViT with its parameter names, built from its size tables, so that any
open_clip checkpoint of such a tower fits. It is written out here because importing open_clip also imports
torchvision, timm and torch's compiler, which more than doubles torch's start-up. The tests compare it with
open_clip.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscan.errors import SettingsError
from deepscan.shapes import Float, Int

QUICK = 1.702  # QuickGELU's factor


@dataclass(frozen=True, slots=True)
class Tokens:
    """The last layer's tokens for a batch of crops; p is the number of patches, all or those kept.

    `patches` is empty if no patches were asked for. `states` are the tokens after each of the layers asked
    for, [CLS] first, that no LayerNorm has seen.
    """

    cls: Float[Tensor, "b d"]
    patches: Float[Tensor, "b _n d"]
    cls_attention: Float[Tensor, "b p"]  # averaged over heads, renormalised over patches
    states: tuple[Float[Tensor, "b _m d"], ...] = ()


@dataclass(frozen=True, slots=True)
class TowerSize:
    """A plain ViT's shape. Lengths in pixels; `mlp_ratio` times `width` is the hidden width."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    embed_dim: int
    head_width: int = 64
    mlp_ratio: float = 4.0
    quick_gelu: bool = False

    def __post_init__(self) -> None:
        for length in ("image_size", "patch_size", "width", "layers"):
            if not isinstance(getattr(self, length), int):
                raise TypeError(f"{length} is {getattr(self, length)}")


class Tower(nn.Module):
    """A CLIP image tower that returns its last-layer tokens.

    Args:
        name: an open_clip model name of a plain ViT, as "ViT-B-16-quickgelu".
        patch_norm: whether patches, like [CLS], pass the tower's final LayerNorm.
        depth: how many of its layers to build, from the first; None: all.

    Raises:
        SettingsError: there is no such tower, or it has fewer layers.
    """

    def __init__(self, name: str, patch_norm: bool = True, depth: int | None = None) -> None:
        super().__init__()
        whole = tower_size(name)
        if depth is not None and depth > whole.layers:
            raise SettingsError(f"depth: {depth} is more than the {whole.layers} layers of {name}")
        self.size = whole if depth is None else replace(whole, layers=depth)
        self.visual = Visual(self.size)
        self.patch_norm = patch_norm
        self.recompute = (
            False  # in the backward pass, each layer again: less memory, a third more time
        )

    @property
    def width(self) -> int:
        """Token width d."""
        return self.size.width

    @property
    def patches(self) -> int:
        """How many patches an image has."""
        return (self.size.image_size // self.size.patch_size) ** 2

    @property
    def input_side(self) -> int:
        """Side of the square input in pixels."""
        return self.size.image_size

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, hence of the arithmetic."""
        return self.visual.conv1.weight.dtype

    def forward(
        self,
        images: Float[Tensor, "b 3 side side"],
        keep: Int[Tensor, " p"] | None = None,
        patches: bool = True,
        layers: Collection[int] = (),
    ) -> Tokens:
        """Tokens of normalised images.

        Args:
            keep: numbers of the patches that go through the layers; None: all. Patches carry their position,
                so a crop can still be read from some of them, in less time.
            patches: whether patches are wanted; if not, the last layer is computed for [CLS] alone and the
                tokens' `patches` are empty.
            layers: numbers of the layers whose tokens are wanted as they are, counted from 1.
        """
        visual = self.visual
        x = visual.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)
        x = x + visual.positional_embedding
        if keep is not None:
            x = torch.cat([x[:, :1], x[:, 1:][:, keep]], dim=1)
        x = visual.ln_pre(x)
        *earlier, last = visual.blocks()
        states = []
        for number, block in enumerate(earlier, 1):
            x = self._run(block, x)
            if number in layers:
                states.append(x)
        with torch.no_grad():  # the target of the queries' attention, which must not change it
            tokens = last.ln_1(x)
            attention = last.attn.weights(tokens[:, :1], tokens).mean(1)[:, 0, 1:]
            attention = attention / attention.sum(-1, keepdim=True)
        x = self._run(last, x) if patches else last(x, 1)
        if len(earlier) + 1 in layers:
            states.append(x)
        cls = visual.ln_post(x[:, 0])
        rest = visual.ln_post(x[:, 1:]) if self.patch_norm else x[:, 1:]
        return Tokens(cls, rest, attention, tuple(states))

    def _run(self, block: Block, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        if self.recompute and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint  # training only

            return cast(Tensor, checkpoint(block, x, use_reentrant=False))
        return block(x)


class Visual(nn.Module):
    """The tower's parameters, by open_clip's names. Random until weights are loaded."""

    def __init__(self, size: TowerSize) -> None:
        super().__init__()
        width = size.width
        positions = (size.image_size // size.patch_size) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, size.patch_size, stride=size.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(positions, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.ln_post = nn.LayerNorm(width)
        # Projects into CLIP's common space with text; unused here, kept so that bases are complete.
        self.proj = nn.Parameter(torch.empty(width, size.embed_dim))
        for parameter in (self.class_embedding, self.positional_embedding, self.proj):
            draw_normal(parameter, std=width**-0.5)

    def blocks(self) -> list[Block]:
        """The layers, first to last."""
        return list(cast(nn.ModuleList, self.transformer.resblocks))  # type: ignore[arg-type]


def draw_normal(parameter: Tensor, std: float) -> None:
    """Draw from N(0, std^2) in place, except on the meta device, where weights are loaded later.

    There drawing would change nothing but make torch import its compiler.
    """
    if not parameter.is_meta:
        nn.init.normal_(parameter, std=std)


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, size: TowerSize) -> None:
        super().__init__()
        hidden = int(size.width * size.mlp_ratio)
        self.ln_1 = nn.LayerNorm(size.width)
        self.attn = Attention(size.width, size.width // size.head_width)
        self.ln_2 = nn.LayerNorm(size.width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=Linear(size.width, hidden),
                gelu=QuickGELU() if size.quick_gelu else nn.GELU(),
                c_proj=Linear(hidden, size.width),
            )
        )

    def forward(
        self, x: Float[Tensor, "b n d"], first: int | None = None
    ) -> Float[Tensor, "b m d"]:
        """The layer's output for the `first` m tokens; None: for all n."""
        x = x[:, :first] + self.attn(self.ln_1(x), first)
        return x + self.mlp(self.ln_2(x))


class Linear(nn.Linear):
    """A linear layer, W x + b + dW x; `change` holds dW's factors until an adapter is merged."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__(columns, rows)
        self.change: nn.Module | None = None

    def forward(self, x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        """The product; float32 where there is a change."""
        made = functional.linear(x, self.weight, self.bias)
        return made if self.change is None else add_change(made, x, *self.change())


def add_change(
    made: Float[Tensor, "*b m"],
    x: Float[Tensor, "*b n"],
    left: Float[Tensor, "blocks rows r"],
    right: Float[Tensor, "blocks r n"],
) -> Float[Tensor, "*b m"]:
    """made + dW x, where left @ right are dW's row blocks one below the other; m = blocks rows.

    Under autocast both products round dW x by itself, which costs it a part in 256; the sum is float32,
    since bfloat16 would lose a change below 1/256 of `made`. dW is never written out, and no gradient of its
    size is computed.
    """
    inner = functional.linear(x, right.flatten(0, 1)).chunk(len(left), -1)
    rows = [functional.linear(part, block) for part, block in zip(inner, left, strict=True)]
    return made.float() + (torch.cat(rows, -1) if len(rows) > 1 else rows[0])


class Attention(nn.Module):
    """Multi-head attention with fused projections, in nn.MultiheadAttention's parameter names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)
        self.change: nn.Module | None = None  # of q's, k's and v's rows, as in Linear
        self.project: nn.Module | None = None  # the joint projection of a packed tower
        if not self.in_proj_weight.is_meta:
            nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(
        self, x: Float[Tensor, "b n d"], first: int | None = None
    ) -> Float[Tensor, "b m d"]:
        """Self-attention of the `first` m tokens to all n; None: of all."""
        if first is None:
            whole = self._projected(x, 0, 3) if self.project is None else self.project(x)
            q, k, v = whole.chunk(3, -1)
        else:
            q = self._projected(x[:, :first], 0, 1)
            k, v = self._projected(x, 1, 3).chunk(2, -1)
        q, k, v = self._split(q), self._split(k), self._split(v)
        answers = functional.scaled_dot_product_attention(q, k, v)
        return self.out_proj(answers.transpose(1, 2).flatten(2))

    def weights(
        self,
        queries: Float[Tensor, "q k d"],
        tokens: Float[Tensor, "b n d"],
        place: Float[Tensor, "h n"] | None = None,
    ) -> Float[Tensor, "b h k n"]:
        """How a few queries (one set for each crop, or one for all) attend to many tokens, in float32.

        q (W_k x + b_k) = (q W_k) x + q b_k: folding the key projection into the queries is cheaper than
        projecting every token, by a factor of up to d / (h k). The last term is the same for all tokens and
        cancels in the softmax. `place` is added to every query's scores of a head.
        """
        w_k = self.in_proj_weight.chunk(3)[1]
        q = self._split(self._projected(queries, 0, 1))
        folded = q @ w_k.view(self.heads, -1, w_k.shape[1])
        if self.change is not None:
            left, right = (factor[1] for factor in self.change())
            folded = folded + (q @ left.view(self.heads, -1, left.shape[1])) @ right
        scores = folded.flatten(1, 2) @ tokens.mT
        scores = scores.float() / q.shape[-1] ** 0.5
        scores = scores.unflatten(1, (self.heads, -1))
        return (scores if place is None else scores + place[:, None]).softmax(-1)

    def _projected(
        self, x: Float[Tensor, "b n d"], first: int, stop: int
    ) -> Float[Tensor, "b n m"]:
        """Of queries, keys and values (0, 1, 2) those from `first` to below `stop`, side by side."""
        rows = slice(first * x.shape[-1], stop * x.shape[-1])
        made = functional.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        if self.change is None:
            return made
        return add_change(made, x, *(factor[first:stop] for factor in self.change()))

    def _split(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n c"]:
        b, n, d = x.shape
        return x.view(b, n, self.heads, d // self.heads).transpose(1, 2)


class QuickGELU(nn.Module):
    """OpenAI's approximation of GELU, with which its weights were trained: x sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        gate = QUICK * x
        if gate.requires_grad:
            return x * torch.sigmoid(gate)
        return gate.sigmoid_().mul_(x)  # in place: the same bits in half the time


@cache
def tower_size(name: str) -> TowerSize:
    """The shape that open_clip's size table gives for a model name.

    Raises:
        SettingsError: unknown name, or not a plain ViT.
    """
    spec = find_spec("open_clip")  # finds it without importing it
    places = spec.submodule_search_locations if spec else None
    tables = {p.stem: p for place in places or () for p in Path(place).glob("model_configs/*.json")}
    if name not in tables:
        raise SettingsError(f"tower {name!r} is unknown to open_clip; see open_clip.list_models()")
    table: dict[str, Any] = json.loads(tables[name].read_text("utf-8"))
    try:
        return TowerSize(
            embed_dim=table["embed_dim"],
            quick_gelu=table.get("quick_gelu", False),
            **table["vision_cfg"],
        )
    except (KeyError, TypeError) as error:
        raise SettingsError(
            f"tower {name!r} is not a plain ViT ({error}); deepscan works with ViT-B, -L and -H towers"
        ) from error
