"""Where a face lies on a crop, and pictures seen from elsewhere: outlines, fits, warps; a batch at a time.

Points, outlines and maps are x, y in 256ths of a crop's side, whatever the side: a map (3, 2) takes [x, y, 1]
from the left, and where it warps a picture it goes from the output to the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from deepscan.faces import alignment
from deepscan.faces.alignment import CROP_SIDE
from deepscan.shapes import Float, Int

VIEW_SIDE = 224  # pixels a side of what the detector sees
GRID = 14  # patches a side of it
PATCHES = GRID**2

TEMPLATE = torch.tensor(alignment.TEMPLATE, dtype=torch.float32)

# The right half of each region that is manipulated at once, from top to bottom; x from the face's middle.
HALVES: dict[str, Sequence[Sequence[float]]] = {
    "face": alignment.FACE.tolist(),
    "inner": ((0, 94), (30, 90), (47, 98), (51, 122), (43, 160), (37, 194), (22, 210), (0, 214)),
    "lower": ((0, 160), (24, 163), (46, 174), (50, 192), (38, 213), (20, 229), (0, 234)),
    "mouth": ((0, 170), (22, 172), (37, 186), (36, 200), (20, 211), (0, 214)),
    "eyes": ((0, 102), (28, 94), (50, 98), (58, 118), (48, 136), (26, 140), (0, 136)),
}
REGIONS = tuple(HALVES)
CORNERS = 24  # of an outline


def _closed(half: Sequence[Sequence[float]]) -> Float[Tensor, "24 2"]:
    """CORNERS points, evenly along the outline whose right half is given."""
    right = torch.tensor(half, dtype=torch.float32)
    left = right[1:-1].flip(0) * torch.tensor([-1.0, 1.0])
    ring = torch.cat([right, left])
    ring[:, 0] += CROP_SIDE / 2
    ring = torch.cat([ring, ring[:1]])
    length = (ring[1:] - ring[:-1]).norm(dim=1).cumsum(0)
    length = torch.cat([torch.zeros(1), length])
    at = torch.arange(CORNERS) / CORNERS * length[-1]
    i = (torch.searchsorted(length, at, right=True) - 1).clamp(max=len(ring) - 2)
    share = ((at - length[i]) / (length[i + 1] - length[i]))[:, None]
    return ring[i] * (1 - share) + ring[i + 1] * share


OUTLINES = torch.stack(
    [_closed(half) for half in HALVES.values()]
)  # (5, CORNERS, 2), on the template


@cache
def constant(values: Tensor | tuple[float, ...], device: torch.device) -> Tensor:
    """A small constant on the device, float32, copied there once: a copy at each step would be waited for."""
    return torch.as_tensor(values, dtype=torch.float32, device=device)


def with_ones(points: Float[Tensor, "n k 2"]) -> Float[Tensor, "n k 3"]:
    """[x, y, 1] of each point, which a map takes."""
    return torch.cat([points, torch.ones_like(points[..., :1])], -1)


def affine_fit(
    source: Float[Tensor, "n k 2"], target: Float[Tensor, "n k 2"]
) -> Float[Tensor, "n 3 2"]:
    """Affine maps M with [x, y, 1] @ M ~ target, by least squares."""
    a = with_ones(source)
    return torch.linalg.solve_ex(a.mT @ a, a.mT @ target)[0]


def similarity_fit(
    source: Float[Tensor, "n k 2"], target: Float[Tensor, "n k 2"]
) -> Float[Tensor, "n 3 2"]:
    """Maps that scale, turn and move alone, by least squares."""
    from_mean, to_mean = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    s, t = source - from_mean, target - to_mean
    square = (s**2).sum((1, 2))
    a = (s * t).sum((1, 2)) / square
    b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1) / square
    linear = torch.stack([torch.stack([a, b], -1), torch.stack([-b, a], -1)], 1)
    return torch.cat([linear, to_mean - from_mean @ linear], 1)


def outlines(points: Float[Tensor, "n 5 2"], region: Int[Tensor, " n"]) -> Float[Tensor, "n 24 2"]:
    """The outline of a region (a place in REGIONS) of each face, by its five landmarks."""
    template = constant(TEMPLATE, points.device)[None].expand(len(points), -1, -1)
    return with_ones(constant(OUTLINES, points.device)[region]) @ affine_fit(template, points)


def inside(polygons: Float[Tensor, "n k 2"], side: int) -> Float[Tensor, "n side side"]:
    """1 where a pixel's centre lies in the closed polygon, else 0: an odd number of edges is right of it."""
    centre = (torch.arange(side, device=polygons.device) + 0.5) * (CROP_SIDE / side)
    px, py = centre[None, None, :, None], centre[None, :, None, None]
    x0, y0 = polygons[:, None, None, :, 0], polygons[:, None, None, :, 1]
    x1, y1 = x0.roll(-1, -1), y0.roll(-1, -1)
    between = (y0 > py) != (y1 > py)
    dy = torch.where((y1 - y0).abs() < 1e-6, torch.full_like(y0, 1e-6), y1 - y0)
    left = px < (x1 - x0) * (py - y0) / dy + x0
    return ((between & left).sum(-1) % 2).float()


def warped(
    images: Float[Tensor, "n c h h"],
    maps: Float[Tensor, "n 3 2"],
    side: int,
    bend: Float[Tensor, "n side side 2"] | None = None,
    mode: str = "bilinear",
) -> Float[Tensor, "n c side side"]:
    """Images seen through maps from output to input, both in 256ths; `bend` moves each pixel further."""
    n, device = len(images), images.device
    at = (torch.arange(side, device=device) + 0.5) * (CROP_SIDE / side)
    v, u = torch.meshgrid(at, at, indexing="ij")
    grid = torch.stack([u, v, torch.ones_like(u)], -1).view(1, -1, 3) @ maps
    grid = grid.view(n, side, side, 2)
    if bend is not None:
        grid = grid + bend
    return functional.grid_sample(
        images,
        grid / (CROP_SIDE / 2) - 1,
        mode=mode,
        padding_mode="zeros",
        align_corners=False,
    )


def plain_view(crops: Float[Tensor, "n c 256 256"], margin: float) -> Float[Tensor, "n c 224 224"]:
    """What a detector sees of crops without any change: the square of this share of their side."""
    left, top, side = alignment.seen(margin)
    cut = crops[..., top : top + side, left : left + side]
    return functional.interpolate(cut, (VIEW_SIDE, VIEW_SIDE), mode="bilinear", antialias=True)


def patch_shares(masks: Float[Tensor, "n c 224 224"]) -> Float[Tensor, "n c 196"]:
    """How much of each patch a view's masks cover, row by row."""
    return functional.avg_pool2d(masks, VIEW_SIDE // GRID).flatten(-2)


def gaussian(images: Float[Tensor, "n c h w"], sigma: Float[Tensor, " n"]) -> Tensor:
    """Each image blurred by its own sigma, in pixels: two products with banded matrices."""

    def band(length: int) -> Float[Tensor, "n 1 length length"]:
        at = torch.arange(length, device=images.device, dtype=torch.float32)
        k = torch.exp(-0.5 * ((at[:, None] - at)[None] / sigma.clamp_min(0.05)[:, None, None]) ** 2)
        return (k / k.sum(-1, keepdim=True))[:, None]

    height, width = images.shape[-2:]
    return band(height) @ images @ band(width).mT
