"""What cameras, platforms and framing do to faces: random changes, a whole batch at a time on one device.

Images are (n, 3, 256, 256), RGB in 0..255. A chance is a share of the batch; sigmas and shifts are pixels,
angles degrees. Every draw is from torch's global stream of the device, in the order of the code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from deepscan.faces.alignment import CROP_SIDE, LOWER
from deepscan.shapes import Bool, Float
from tools.evidence import codecs
from tools.evidence.geometry import VIEW_SIDE, constant, gaussian, warped

Images = Float[Tensor, "n 3 256 256"]
Range = tuple[float, float]

MIDDLE = CROP_SIDE / 2
GREY = (0.299, 0.587, 0.114)  # of R, G and B
SCALES = (0.75, 1.0, 1.0, 1.25)  # of a crop when it is coded, each for a quarter of the batch


def uniform(n: int, low: float, high: float, device: torch.device) -> Float[Tensor, " n"]:
    """Numbers between low and high."""
    return low + torch.rand(n, device=device) * (high - low)


def chance(n: int, p: float, device: torch.device) -> Bool[Tensor, " n"]:
    """True with chance p."""
    return torch.rand(n, device=device) < p


def pick(change: Bool[Tensor, " n"], new: Tensor, old: Tensor) -> Tensor:
    """`new` where `change`, `old` elsewhere."""
    return torch.where(change.view(-1, *[1] * (old.dim() - 1)), new, old)


def recompressed(images: Images, film: float, jpeg: float, crf: Range, quality: Range) -> Images:
    """A share of the images as films and one as JPEGs, with the blocks at any offset, at one of SCALES.

    A film's CRF is taken for its key frames' QP + 3.
    """
    n, device = len(images), images.device
    u = torch.rand(n, device=device)
    is_film, is_jpeg = u < film, (u >= film) & (u < film + jpeg)
    out = images.clone()
    order = torch.randperm(n, device=device)
    for part, scale in zip(
        order.chunk(len(SCALES)), SCALES, strict=False
    ):  # few images: fewer parts
        found = images[part]
        side = int(CROP_SIDE * scale) // 16 * 16
        if side != CROP_SIDE:
            found = _resized(found, side)
        dy, dx = torch.randint(0, 8, (2,)).tolist()
        found = found.roll((dy, dx), (2, 3))
        found = codecs.compressed(
            found.clamp(0, 255),
            is_film[part],
            uniform(len(part), *quality, device),
            uniform(len(part), *crf, device) - 3,
        )
        found = found.roll((-dy, -dx), (2, 3))
        if side != CROP_SIDE:
            found = _resized(found, CROP_SIDE)
        out[part] = pick((is_film | is_jpeg)[part], found, images[part])
    return out


def resampled(images: Images, p: float, low: float, high: float) -> Images:
    """A share of the images shrunk to between `low` and `high` of their side and brought back.

    There are four sizes a batch: one for each image would be one call for each.
    """
    n, device = len(images), images.device
    change = chance(n, p, device)
    parts = torch.randperm(n, device=device).chunk(4)
    out = images.clone()
    for part in parts:
        side = int(CROP_SIDE * float(torch.empty(()).uniform_(low, high)))
        found = functional.interpolate(
            _resized(images[part], side), (CROP_SIDE, CROP_SIDE), mode="bicubic"
        )
        out[part] = pick(change[part], found.clamp(0, 255), images[part])
    return out


def _resized(images: Tensor, side: int) -> Tensor:
    return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)


def coloured(images: Images, p: float, factor: Range, shift: float) -> Images:
    """A share of the images with other saturation, contrast, brightness, and level of each channel."""
    n, device = len(images), images.device
    saturation, contrast, brightness = (
        uniform(n, *factor, device).view(-1, 1, 1, 1) for _ in range(3)
    )
    grey = (images * constant(GREY, device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    mean = images.mean((2, 3), keepdim=True)
    found = contrast * (saturation * images + (1 - saturation) * grey)
    level = shift * torch.randn(n, 3, 1, 1, device=device)
    found = found - found.mean((2, 3), keepdim=True) + brightness * mean + level
    return pick(chance(n, p, device), found.clamp(0, 255), images)


def sharpened(images: Images, p: float, low: float, high: float) -> Images:
    """A share of the images sharpened by an unsharp mask of between `low` and `high`."""
    n, device = len(images), images.device
    soft = gaussian(images, torch.full((n,), 1.5, device=device))
    found = images + uniform(n, low, high, device).view(-1, 1, 1, 1) * (images - soft)
    return pick(chance(n, p, device), found.clamp(0, 255), images)


def moves(
    n: int,
    device: torch.device,
    *,
    scale: float,
    shift: float,
    angle: float,
    centre: Sequence[float],
    lands: Sequence[float],
    flip: float = 0.0,
    zoom: float = 1.0,
) -> Float[Tensor, "n 3 2"]:
    """Random maps from output to input: scaled by zoom exp(N(0, scale)), turned and moved about a centre.

    On the output the centre `lands` there. With a zoom below 1 the output shows less, from nearer. `flip` is
    the chance to be mirrored.
    """
    size = zoom * torch.exp(scale * torch.randn(n, device=device))
    turn = angle * torch.randn(n, device=device) * math.pi / 180
    mirror = torch.where(chance(n, flip, device), -1.0, 1.0)
    c, d = size * torch.cos(turn), size * torch.sin(turn)
    linear = torch.stack([torch.stack([c * mirror, d * mirror], -1), torch.stack([-d, c], -1)], 1)
    at = constant(tuple(lands), device)
    moved = constant(tuple(centre), device) + shift * torch.randn(n, 2, device=device)
    last = moved - (at[None, None] @ linear)[:, 0]
    return torch.cat([linear, last[:, None]], 1)


def viewed(
    images: Images, masks: Float[Tensor, "n m 256 256"], margin: float, strength: float, film: float
) -> tuple[Float[Tensor, "n 3 224 224"], Float[Tensor, "n m 224 224"]]:
    """Training views of images, in 0..255, and their masks seen alike.

    `margin`: how much of a crop's side is seen. `strength` scales all chances that the picture is changed; of
    these `film` is the chance to be a film's, beside 0.3 for a JPEG's.
    """
    n, device = len(images), images.device
    k = strength
    x = coloured(images, 0.5 * k, (0.75, 1.25), 4.0)
    gains = torch.exp(0.12 * torch.randn(n, 3, 1, 1, device=device))
    x = pick(chance(n, 0.25 * k, device), (x * gains).clamp(0, 255), x)
    x = pick(chance(n, 0.15 * k, device), gaussian(x, uniform(n, 0.4, 2.0, device)), x)
    x = resampled(x, 0.3 * k, 0.25, 0.9)
    sigma = uniform(n, 1, 9, device).view(-1, 1, 1, 1)
    noisy = pick(chance(n, 0.12 * k, device), (x + sigma * torch.randn_like(x)).clamp(0, 255), x)
    x = recompressed(noisy, film * k, 0.3 * k, (18, 40), (35, 98))
    maps = moves(
        n,
        device,
        scale=0.07,
        shift=4.0,
        angle=3.0,
        centre=(MIDDLE, MIDDLE + LOWER * (1 - margin)),
        lands=(MIDDLE, MIDDLE),
        flip=0.5,
        zoom=margin,
    )
    seen = _cut_off(warped(x, maps, VIEW_SIDE))
    return seen.round().clamp(0, 255), warped(masks, maps, VIEW_SIDE)


def _cut_off(images: Float[Tensor, "n 3 side side"]) -> Float[Tensor, "n 3 side side"]:
    """A share of the images black from one edge on, and from another: there the frame ended."""
    n, device, side = len(images), images.device, images.shape[-1]
    for dim in (2, 3):
        depth = torch.where(
            chance(n, 0.15, device),
            side * 0.2 * torch.rand(n, device=device),
            torch.zeros(n, device=device),
        )
        at = torch.arange(side, device=device, dtype=torch.float32)
        at = torch.where(chance(n, 0.5, device)[:, None], at[None], side - 1 - at[None])
        kept = (at >= depth[:, None]).float()
        images = images * (kept[:, None, :, None] if dim == 2 else kept[:, None, None, :])
    return images
