"""Pseudo-fakes of real crops: something is laid over a face, so that it is known what is manipulated.

Source: K. Shiohara and T. Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022, for faces laid
over themselves. Images are (n, 3, 256, 256), RGB in 0..255; points are x, y in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor
from torch.nn import functional

from deepscan.faces.alignment import CROP_SIDE
from deepscan.shapes import Bool, Float, Int
from tools.evidence.geometry import (
    CORNERS,
    REGIONS,
    affine_fit,
    constant,
    gaussian,
    inside,
    outlines,
    warped,
)
from tools.evidence.views import (
    Images,
    chance,
    coloured,
    moves,
    pick,
    recompressed,
    resampled,
    sharpened,
    uniform,
)

Points = Float[Tensor, "n 5 2"]

LEAST_CHANGE = 1.2  # grey levels, mean over the region; a smaller change is not seen


class Kind(IntEnum):
    """What is laid over a real face."""

    SELF = 0  # the same face
    SWAP = 1  # another's face
    REDRAWN = 2  # a region of a decoder's copy
    REDRAWN_WHOLE = 3  # all of a decoder's copy


@dataclass(frozen=True, slots=True)
class Faked:
    """Pseudo-fakes of a batch."""

    fakes: Images
    twins: Images  # what they were made of: of the same colours and codec, not manipulated
    weights: Float[Tensor, "n 1 256 256"]  # share of each pixel that is laid over
    visible: Bool[Tensor, " n"]  # whether something is seen to change


def pseudo_fakes(
    crops: Images,
    points: Points,
    others: Images,
    other_points: Points,
    redrawn: Images,
    kinds: Int[Tensor, " n"],
    regions: Sequence[float],
) -> Faked:
    """One pseudo-fake of each crop, of the kind asked for.

    Args:
        others: the faces that a SWAP takes.
        redrawn: a decoder's copy of each crop.
        kinds: numbers of `Kind`.
        regions: shares of REGIONS.
    """
    n, device = len(crops), crops.device
    weight = soft_regions(points, regions)
    own = pick(kinds >= Kind.REDRAWN, redrawn, crops)
    source = pick(kinds == Kind.SWAP, laid_on(others, other_points, crops, points), own)
    to_source = chance(n, 0.6, device)
    mild = kinds >= Kind.REDRAWN  # redrawn ones may differ by that alone
    changed = disturbed(source)
    source = pick(to_source & ~(mild & chance(n, 0.6, device)), changed, source)
    target = pick(~to_source, disturbed(crops), crops)
    bend = 3.0 * functional.interpolate(
        torch.randn(n, 2, 5, 5, device=device),
        (CROP_SIDE, CROP_SIDE),
        mode="bicubic",
        align_corners=True,
    )
    middle = (128.0, 140.0)  # of a face
    maps = moves(n, device, scale=0.02, shift=3.0, angle=0.6, centre=middle, lands=middle)
    still = mild & chance(n, 0.7, device)
    moved = warped(source, maps, CROP_SIDE, bend.permute(0, 2, 3, 1))
    source = pick(still, source, moved)
    ratio = torch.where(
        chance(n, 0.5, device) & ~mild,
        uniform(n, 0.4, 0.95, device),
        torch.ones(n, device=device),
    )
    weight = pick(kinds == Kind.REDRAWN_WHOLE, torch.ones_like(weight), weight)
    fakes = (target + ratio.view(-1, 1, 1, 1) * weight * (source - target)).round().clamp(0, 255)
    region = weight > 0.5
    change = (fakes - target).abs().mean(1, keepdim=True) * region
    change = change.sum((1, 2, 3)) / region.sum((1, 2, 3)).clamp_min(1)
    return Faked(fakes, target, weight, change >= LEAST_CHANGE)


def soft_regions(points: Points, shares: Sequence[float]) -> Float[Tensor, "n 1 256 256"]:
    """Blend weights of regions drawn by `shares`, with outlines and edges disturbed."""
    n, device = len(points), points.device
    region = torch.multinomial(constant(tuple(shares), device), n, replacement=True)
    ring = outlines(points, region)
    angle = torch.arange(CORNERS, device=device) / CORNERS * 2 * math.pi
    waves = sum(
        torch.randn(n, 1, device=device)
        / k
        * torch.cos(k * angle[None] + 6.28 * torch.rand(n, 1, device=device))
        for k in (1, 2, 3, 4)
    )
    middle = ring.mean(1, keepdim=True)
    out = ring - middle
    size = out.norm(dim=2).mean(1)[:, None]
    stretch = 1 + 0.06 * torch.randn(n, 1, 2, device=device)
    out = out * (1 + (4.0 * waves / size)[..., None]) * stretch
    weight = inside(middle + out, CROP_SIDE // 2)[:, None]
    weight = gaussian(weight, uniform(n, 1, 6, device))
    weight = (weight > uniform(n, 0.25, 0.75, device).view(-1, 1, 1, 1)).float()
    weight = gaussian(weight, uniform(n, 0.6, 4.5, device))
    weight = functional.interpolate(weight, (CROP_SIDE, CROP_SIDE), mode="bilinear")
    return weight / weight.amax((1, 2, 3), keepdim=True).clamp_min(1e-3)


def disturbed(images: Images) -> Images:
    """Images with other statistics: colours, resolution, sharpness, codec."""
    images = coloured(images, 0.9, (0.88, 1.12), 6.0)
    images = resampled(images, 0.45, 0.25, 0.7)
    images = sharpened(images, 0.2, 0.4, 1.5)
    return recompressed(images, 0.1, 0.3, (20, 36), (40, 95))


def laid_on(others: Images, other_points: Points, crops: Images, points: Points) -> Images:
    """Other faces where the crops' are, with these faces' mean and deviation of each colour channel.

    Source: E. Reinhard et al., "Color Transfer between Images", IEEE Computer Graphics and Applications 21,
    2001; in RGB instead of l-alpha-beta.
    """
    moved = warped(others, affine_fit(points, other_points), CROP_SIDE)
    inner = torch.full((len(crops),), REGIONS.index("inner"), device=crops.device)
    weight = inside(outlines(points, inner), 64)[:, None]
    weight = functional.interpolate(weight, (CROP_SIDE, CROP_SIDE))
    total = weight.sum((2, 3), keepdim=True).clamp_min(1)

    def statistics(images: Images) -> tuple[Tensor, Tensor]:
        mean = (weight * images).sum((2, 3), keepdim=True) / total
        variance = (weight * (images - mean) ** 2).sum((2, 3), keepdim=True) / total
        return mean, variance.sqrt().clamp_min(4)

    mean, deviation = statistics(moved)
    wanted_mean, wanted_deviation = statistics(crops)
    factor = (wanted_deviation / deviation).clamp(0.5, 2)
    return ((moved - mean) * factor + wanted_mean).clamp(0, 255)
