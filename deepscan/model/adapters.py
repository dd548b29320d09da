"""What trains in the tower: the adapters, as changes dW of its matrices W.

`adapt` lays an adapter over a tower, `load_base` gives the tower its base weights, `start` puts the adapter
to where it changes nothing. While it trains a layer computes W x + dW x, with dW as two thin factors in
float32 beside the frozen W (see tower.add_change). `merge` adds dW to W for inference, which is exact and
leaves the plain tower.

The base fuses q, k and v in one matrix; its three row blocks are adapted separately, as if they were three.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from deepscan.model.header import DetectorSettings
from deepscan.model.tower import Attention, Block, Linear, Tower
from deepscan.shapes import Float

LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.")


class LowRank(nn.Module):
    """dW = (alpha / r) B A for each row block, B zero at the start.

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

    def forward(self) -> tuple[Float[Tensor, "blocks m r"], Float[Tensor, "blocks r n"]]:
        """dW's factors, left and right."""
        return self.scale * self.b, self.a


class SpectralResidual(nn.Module):
    """The last r components of each row block's singular value decomposition train, the others are frozen.

    With W = U S V^T, dW = Ur Sr Vr^T - U0 S0 V0^T, where the residual (Ur, Sr, Vr) starts as the last r
    components (U0, S0, V0). These are kept: what is frozen, W - U0 S0 V0^T, is never recomputed.
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

    def forward(self) -> tuple[Float[Tensor, "blocks m r2"], Float[Tensor, "blocks r2 n"]]:
        """dW's factors, left and right: dW = (Ur Sr - U0 S0) Vr^T + U0 S0 (Vr - V0)^T.

        Every product is as small as the change. The difference of the two residuals would lose it where
        products are rounded, as to TF32.
        """
        changed, first = self.u * self.s[:, None], self.u0 * self.s0[:, None]
        return (
            torch.cat([changed - first, first], 2),
            torch.cat([self.v, self.v - self.v0], 1),
        )

    def orthogonality(self) -> Float[Tensor, " blocks"]:
        """1/2 |Uh^T Uh - I|_F + 1/2 |Vh^T Vh - I|_F, Uh = [frozen U, Ur], of each (square) block.

        The frozen columns are orthonormal and span all that U0 does not, so that the frozen part of Uh^T Ur
        is as long as what is left of Ur without its share along U0: no other column is needed.
        """
        with torch.autocast(self.u.device.type, enabled=False):
            sides = ((self.u, self.u0), (self.v.mT, self.v0.mT))
            return torch.stack([_departure(x, start) for x, start in sides]).mean(0)

    def keeping(self, weight: Float[Tensor, "m n"]) -> Float[Tensor, " blocks"]:
        """| |W + dW|_F^2 - |W|_F^2 | = | <2 W + dW, dW> | of each block, W the base's `weight`."""
        with torch.autocast(weight.device.type, enabled=False):
            left, right = self()
            across = left.mT @ weight.view(len(left), -1, weight.shape[1]).to(left.dtype)
            own = (
                left.mT @ left
            ) @ right  # <L R, W> is the trace of L^T W R^T, <L R, L R> of L^T L R R^T
            return ((2 * across + own) * right).sum((1, 2)).abs()


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
        for module in _matrices(block, settings.adapter):
            weight, blocks = _weight(module)
            if settings.adapter == "lora":
                module.change = LowRank(weight, blocks, settings.lora_rank, settings.lora_alpha)
            else:
                module.change = SpectralResidual(weight, blocks, settings.effort_rank)


def _matrices(block: Block, adapter: str) -> Iterator[Linear | Attention]:
    """What holds a layer's adapted matrices: effort's q, k, v and out, lora's fc1 and fc2 too."""
    parts: list[nn.Module] = []
    if adapter in ("lora", "effort"):
        parts += [block.attn, block.attn.out_proj]
    if adapter == "lora":
        parts += [block.mlp[0], block.mlp[2]]
    for part in parts:
        assert isinstance(part, (Linear, Attention))
        yield part


def _weight(module: Linear | Attention) -> tuple[Tensor, int]:
    """A matrix, and of how many row blocks it is made."""
    return (module.in_proj_weight, 3) if isinstance(module, Attention) else (module.weight, 1)


def _changed(tower: Tower) -> Iterator[tuple[Linear | Attention, LowRank | SpectralResidual]]:
    """Each module whose matrix is adapted, and the change."""
    for module in tower.modules():
        if isinstance(module, (Linear, Attention)) and module.change is not None:
            assert isinstance(module.change, (LowRank, SpectralResidual))
            yield module, module.change


def load_base(tower: Tower, state: Mapping[str, Tensor]) -> None:
    """Give the tower its base's weights, by open_clip's names, whatever is laid over them.

    Layers of the base beyond the tower's depth are left out.

    Raises:
        RuntimeError: names or shapes differ; a base's hash vouches for both.
    """
    kept = {
        name: value
        for name, value in state.items()
        if not (layer := LAYER.match(name)) or int(layer[1]) < tower.size.layers
    }
    own = {name for name in tower.visual.state_dict() if ".change." not in name}
    if kept.keys() != own:
        raise RuntimeError(f"not this tower's base: {sorted(kept.keys() ^ own)[:3]}")
    tower.visual.load_state_dict(kept, strict=False, assign=True)


def start(tower: Tower, generator: torch.Generator | None = None) -> None:
    """Initialise a new adapter, so that the tower still computes what its base computes."""
    for module, change in _changed(tower):
        change.start(_weight(module)[0], generator)


def cast_frozen(tower: Tower, dtype: torch.dtype) -> None:
    """Keep matrices and biases that do not train in autocast's type, which would cast them at each step.

    An adapter must be at its start, or loaded: `start` needs the base's full precision.
    """
    for module in tower.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, Attention)):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)


def penalties(tower: Tower) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Effort's two, means over its matrices: departure from orthogonality, and from the singular values.

    Source: the paper named at `SpectralResidual`, section 3.3; its released code trains without them.
    """
    found = [
        (_weight(module)[0], change)
        for module, change in _changed(tower)
        if isinstance(change, SpectralResidual)
    ]
    orthogonality = torch.cat([change.orthogonality() for _, change in found]).mean()
    return orthogonality, torch.cat([change.keeping(weight) for weight, change in found]).mean()


@torch.no_grad()
def merge(tower: Tower) -> None:
    """Add the adapter's dW to the tower's plain weights: summed in float32, kept in the weights' type."""
    for module, change in list(_changed(tower)):
        (weight, _), (left, right) = _weight(module), change()
        weight.copy_(weight + (left @ right).flatten(0, 1))
        module.change = None
    tower.requires_grad_(False)
