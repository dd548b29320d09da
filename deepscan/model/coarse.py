"""Reads a crop's copy without detail at the copy's own resolution, with a quarter of a tower's tokens.

    crop of 224 x 224 -> copy of 56 x 56 -> patches of 8 x 8 -> 7 x 7 tokens -> the tower's own layers

A copy says nothing at its size that it does not say at a quarter of it, and a tower's time goes with its
tokens. The matrices are the tower's; what depends on the resolution is learnt: the patches' embedding, their
positions, the LayerNorms, and where queries look. It learns from what the tower makes of the same copies at
full size (tools/evidence/coarse.py).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscan.errors import SettingsError
from deepscan.model.tower import Tower
from deepscan.shapes import Float

# Pixels a side that become one in a copy without detail: of 224 a side, they leave a face its features alone.
COARSE = 4

ACROSS = 2  # patches a side that become one


def shrunk(images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b 3 _h _w"]:
    """Images at a quarter of their resolution."""
    return functional.avg_pool2d(images, COARSE)


class CoarseTower(nn.Module):
    """What a tower's layers need to read copies.

    Its values are random until they are loaded, or it is put to its `start`.

    Args:
        tower: whose layers it goes through. Its sides must be divisible: 224 pixels by patches of 16 or 14.
        layers: numbers of the layers whose tokens are read, counted from 1.
        heads: of the queries that look at the tokens, where they favour places; else 0.

    Raises:
        SettingsError: the tower's patches cannot be halved.
    """

    def __init__(self, tower: Tower, layers: tuple[int, ...], heads: int) -> None:
        super().__init__()
        size, width = tower.size, tower.width
        side, patch = size.image_size // COARSE, size.patch_size // ACROSS
        if size.image_size % COARSE or size.patch_size % ACROSS or side % patch:
            raise SettingsError(
                f"coarse: patches of {size.patch_size} pixels in {size.image_size} cannot be halved"
            )
        self.layers = layers
        self.grid = side // patch
        self.embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.positions = nn.Parameter(torch.empty(1 + self.grid**2, width))
        self.before = nn.LayerNorm(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * size.layers))
        self.readers = nn.ModuleList(nn.LayerNorm(width) for _ in layers)
        self.place = nn.Parameter(torch.zeros(heads, self.grid**2)) if heads else None

    def forward(
        self, copies: Float[Tensor, "b 3 side side"], tower: Tower
    ) -> Float[Tensor, "b n d"]:
        """Tokens of normalised copies, [CLS] first: the mean of the layers that are read, float32."""
        visual = tower.visual
        x = self.embedding(copies).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(x.shape[0], 1, -1).to(x.dtype), x], dim=1)
        x = self.before((x + self.positions).to(x.dtype))
        found = []
        for number, block in enumerate(visual.blocks(), 1):
            x = block(x, norms=(self.norms[2 * number - 2], self.norms[2 * number - 1]))
            if number in self.layers:
                found.append(x)
        with torch.autocast(x.device.type, enabled=False):
            pairs = zip(self.readers, found, strict=True)
            return torch.stack([reader(state.float()) for reader, state in pairs]).mean(0)

    def cast(self, dtype: torch.dtype) -> None:
        """Keep what goes with the tower's layers in their type; what reads them stays in float32."""
        for module in (self.embedding, self.before, self.norms):
            module.to(dtype)
        self.positions.data = self.positions.data.to(dtype)

    @torch.no_grad()
    def start(self, tower: Tower, readers: nn.ModuleList, place: Tensor | None) -> None:
        """Do to a copy what the tower does to one at full size, as nearly as it goes without learning."""
        visual, width = tower.visual, tower.width
        # Pixels that stand for two by two: their weights together.
        self.embedding.weight.copy_(functional.avg_pool2d(visual.conv1.weight.float(), ACROSS) * 4)
        whole = round(tower.patches**0.5)
        grid = visual.positional_embedding[1:].float().T.reshape(1, width, whole, whole)
        fewer = functional.interpolate(grid, (self.grid, self.grid), mode="bicubic", antialias=True)
        self.positions.copy_(
            torch.cat([visual.positional_embedding[:1].float(), fewer[0].flatten(1).T])
        )
        norms = [norm for block in visual.blocks() for norm in (block.ln_1, block.ln_2)]
        given = zip(
            (self.before, *self.norms, *self.readers),
            (visual.ln_pre, *norms, *readers),
            strict=True,
        )
        for own, other in given:
            own.load_state_dict(cast(nn.LayerNorm, other).state_dict())
        if self.place is not None and place is not None:
            squares = place.float().view(1, -1, whole, whole)
            self.place.copy_(functional.avg_pool2d(squares, ACROSS)[0].flatten(1))

    def spread(self, evidence: Float[Tensor, "b q"]) -> Float[Tensor, "b p"]:
        """Evidence of the copy's patches, in equal parts on those of the crop that each stands for."""
        square = evidence.view(-1, self.grid, self.grid) / ACROSS**2
        return square.repeat_interleave(ACROSS, 1).repeat_interleave(ACROSS, 2).flatten(1)
