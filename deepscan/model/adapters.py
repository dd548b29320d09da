"""What trains in the tower: the adapters, as changes of weights and not of the forward pass.

`adapt` lays an adapter over a tower, `load_base` gives the tower its base weights, `start` puts the adapter
to where it changes nothing, and `merge` bakes it in for inference. In between, each adapted matrix is a
torch parametrization: the base's weight stays as it is, and what the layer multiplies with is computed
from it. So there is one forward pass for all, and merging is exact.

The base fuses q, k and v in one matrix; its three row blocks are adapted apart, as if they were three.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from deepscan.model.header import DetectorSettings
from deepscan.model.tower import Block, Tower

LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.")


class Change(Protocol):
    """A parametrization of a weight of (blocks * rows, columns) that can be put to its start."""

    def start(self, weight: Tensor, generator: torch.Generator | None) -> None:
        """Draw or compute the starting values, at which the change is zero."""
        ...


class LowRank(nn.Module):
    """W + (alpha / r) B A for each row block, B zero at the start.

    Source: E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1.
    """

    def __init__(self, weight: Tensor, blocks: int, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.shape[0] // blocks, weight.shape[1]
        self.scale = alpha / rank
        self.a = nn.Parameter(weight.new_empty(blocks, rank, columns))
        self.b = nn.Parameter(weight.new_empty(blocks, rows, rank))

    def start(self, weight: Tensor, generator: torch.Generator | None) -> None:
        """A as nn.Linear draws its weights, B zero."""
        bound = weight.shape[1] ** -0.5
        nn.init.uniform_(self.a, -bound, bound, generator=generator)
        nn.init.zeros_(self.b)

    def forward(self, weight: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        # In full precision under autocast, too: bfloat16 would round a step's change away.
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.scale * (self.b @ self.a).flatten(0, 1)


class SpectralResidual(nn.Module):
    """The last r components of each row block's singular value decomposition train, the others are frozen.

    With W = U S V^T the weight is W - U0 S0 V0^T + Ur Sr Vr^T, where the residual starts as the last r
    components (U0, S0, V0), which are kept: what is frozen never has to be recomputed.
    Source: Z. Yan et al., "Orthogonal Subspace Decomposition for Generalizable AI-Generated Image
    Detection" (Effort), ICML 2025.
    """

    u0: Tensor
    s0: Tensor
    v0: Tensor

    def __init__(self, weight: Tensor, blocks: int, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape[0] // blocks, weight.shape[1]
        self.u = nn.Parameter(weight.new_empty(blocks, rows, rank))
        self.s = nn.Parameter(weight.new_empty(blocks, rank))
        self.v = nn.Parameter(weight.new_empty(blocks, rank, columns))
        for name in "usv":
            self.register_buffer(f"{name}0", torch.empty_like(getattr(self, name).data))

    @torch.no_grad()
    def start(self, weight: Tensor, generator: torch.Generator | None) -> None:
        """Take the last components of `weight`; nothing is drawn."""
        rank, blocks = self.s0.shape[1], self.s0.shape[0]
        u, s, v = torch.linalg.svd(weight.float().view(blocks, -1, weight.shape[1]), False)
        for name, last in (("u", u[..., -rank:]), ("s", s[:, -rank:]), ("v", v[:, -rank:])):
            getattr(self, name).copy_(last)
            getattr(self, f"{name}0").copy_(last)

    def forward(self, weight: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        with torch.autocast(weight.device.type, enabled=False):
            residual = (self.u * self.s[:, None]) @ self.v
            first = (self.u0 * self.s0[:, None]) @ self.v0
            return weight + (residual - first).flatten(0, 1)

    def orthogonality(self) -> Float[Tensor, " blocks"]:
        """1/2 |Uh^T Uh - I|_F + 1/2 |Vh^T Vh - I|_F, Uh = [frozen U, Ur], of each (square) block.

        The frozen columns are orthonormal and span all that U0 does not, so that the frozen part of Uh^T Ur
        is as long as what is left of Ur without its share along U0: no other column is needed.
        """
        with torch.autocast(self.u.device.type, enabled=False):
            sides = ((self.u, self.u0), (self.v.mT, self.v0.mT))
            return torch.stack([_departure(x, start) for x, start in sides]).mean(0)

    def keeping(self, weight: Float[Tensor, "m n"]) -> Float[Tensor, " blocks"]:
        """| |W|_F^2 - |W0|_F^2 | of each block."""
        blocks = len(self.s)
        changed, base = (w.view(blocks, -1).square().sum(1) for w in (self(weight), weight))
        return (changed - base).abs()


def _departure(x: Float[Tensor, "b d r"], start: Float[Tensor, "b d r"]) -> Float[Tensor, " b"]:
    """|[F, x]^T [F, x] - I|_F, where F's columns and `start`'s make up one orthonormal basis."""
    across = x - start @ (start.mT @ x)
    own = x.mT @ x - torch.eye(x.shape[-1], device=x.device)
    # The block across appears twice. vector_norm, unlike a square root, has a gradient (0) at zero.
    return torch.linalg.vector_norm(
        torch.cat([2**0.5 * across.flatten(1), own.flatten(1)], 1), dim=1
    )


def adapt(tower: Tower, settings: DetectorSettings) -> None:
    """Lay `settings.adapter` over the tower; afterwards just what it trains requires gradients.

    With `settings.adapted` that is in the last layers alone, and the norm after them. Of the matrices, effort
    changes q, k, v and out, lora fc1 and fc2 too. What was added holds no values yet: `start` it, or
    load them.
    """
    tower.requires_grad_(False)
    layers = tower.visual.blocks()[-(settings.adapted or 0) :]
    changed = [tower] if settings.adapted is None else [*layers, tower.visual.ln_post]
    for module in (m for part in changed for m in part.modules()):
        if settings.adapter == "full" or (
            settings.adapter == "norm" and isinstance(module, nn.LayerNorm)
        ):
            module.requires_grad_(True)
    for block in layers:
        for module, name, blocks in _matrices(block, settings.adapter):
            weight = getattr(module, name)
            change: nn.Module
            if settings.adapter == "lora":
                change = LowRank(weight, blocks, settings.lora_rank, settings.lora_alpha)
            else:
                change = SpectralResidual(weight, blocks, settings.effort_rank)
            # unsafe: nothing is run to see whether shapes are kept; there are no values yet.
            parametrize.register_parametrization(module, name, change, unsafe=True)


def _matrices(block: Block, adapter: str) -> Iterator[tuple[nn.Module, str, int]]:
    """A layer's adapted matrices: module, parameter name, and of how many row blocks it is made."""
    if adapter in ("lora", "effort"):
        yield block.attn, "in_proj_weight", 3
        yield block.attn.out_proj, "weight", 1
    if adapter == "lora":
        yield block.mlp[0], "weight", 1  # c_fc
        yield block.mlp[2], "weight", 1  # c_proj


def load_base(tower: Tower, state: Mapping[str, Tensor]) -> None:
    """Give the tower its base's weights, by open_clip's names, whatever is laid over them.

    Layers of the base beyond the tower's depth are left out.

    Raises:
        RuntimeError: names or shapes differ; a base's hash vouches for both.
    """
    own = tower.visual.state_dict().keys()
    named = {}
    for name, value in state.items():
        if (layer := LAYER.match(name)) and int(layer[1]) >= tower.size.layers:
            continue
        module, _, leaf = name.rpartition(".")
        adapted = f"{module}.parametrizations.{leaf}.original"
        named[adapted if adapted in own else name] = value
    changes = {
        name for name in own if ".parametrizations." in name and not name.endswith("original")
    }
    if named.keys() != own - changes:
        raise RuntimeError(f"not this tower's base: {sorted(named.keys() ^ (own - changes))[:3]}")
    tower.visual.load_state_dict(named, strict=False, assign=True)


def start(tower: Tower, generator: torch.Generator | None = None) -> None:
    """Put a freshly laid adapter to its start, at which the tower computes what its base computes."""
    for weight, change in _changes(tower):
        cast(Change, change).start(weight, generator)


def penalties(tower: Tower) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Effort's two, means over its matrices: departure from orthogonality, and from the singular values.

    Source: the paper named at `SpectralResidual`, section 3.3; its released code trains without them.
    """
    found = [(w, c) for w, c in _changes(tower) if isinstance(c, SpectralResidual)]
    orthogonality = torch.cat([change.orthogonality() for _, change in found]).mean()
    return orthogonality, torch.cat([change.keeping(weight) for weight, change in found]).mean()


def merge(tower: Tower) -> None:
    """Bake the adapter into the tower's plain weights, in their own precision."""
    for module in list(tower.modules()):
        if parametrize.is_parametrized(module):
            for name in list(cast(nn.ModuleDict, module.parametrizations)):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    tower.requires_grad_(False)


def _changes(tower: Tower) -> Iterator[tuple[Tensor, nn.Module]]:
    """Each adapted matrix's base weight and the change laid over it."""
    for module in tower.modules():
        if isinstance(module, parametrize.ParametrizationList):
            yield module.original, module[0]
