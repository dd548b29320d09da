"""Pseudo-fakes and views, a whole batch at a time on one device.

Pictures are float (n, 3, 256, 256), RGB in 0..255. Points, outlines and maps are x, y in 256ths of a crop's
side, whatever the side. A chance is a share of the batch; sigmas are pixels; angles degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 256
TEMPLATE = torch.tensor(
    [(96.87, 120.43), (158.83, 120.09), (128.04, 155.67), (102.59, 191.94), (153.90, 191.66)]
)
HALF = {
    "face": (
        (0, 58),
        (30, 62),
        (52, 78),
        (63, 102),
        (65, 128),
        (61, 158),
        (53, 188),
        (39, 214),
        (20, 230),
        (0, 235),
    ),
    "inner": ((0, 94), (30, 90), (47, 98), (51, 122), (43, 160), (37, 194), (22, 210), (0, 214)),
    "lower": ((0, 160), (24, 163), (46, 174), (50, 192), (38, 213), (20, 229), (0, 234)),
    "mouth": ((0, 170), (22, 172), (37, 186), (36, 200), (20, 211), (0, 214)),
    "eyes": ((0, 102), (28, 94), (50, 98), (58, 118), (48, 136), (26, 140), (0, 136)),
}
REGIONS = tuple(HALF)
CORNERS = 24


def _closed(half: Sequence[tuple[int, int]]) -> Tensor:
    """CORNERS points around a region that mirrors its right half, given from the middle of the face."""
    right = torch.tensor(half, dtype=torch.float32)
    left = right[1:-1].flip(0) * torch.tensor([-1.0, 1.0])
    ring = torch.cat([right, left])
    ring[:, 0] += 128
    ring = torch.cat([ring, ring[:1]])
    # CORNERS points, evenly along the ring
    length = (ring[1:] - ring[:-1]).norm(dim=1).cumsum(0)
    length = torch.cat([torch.zeros(1), length])
    at = torch.arange(CORNERS) / CORNERS * length[-1]
    i = (torch.searchsorted(length, at, right=True) - 1).clamp(max=len(ring) - 2)
    f = ((at - length[i]) / (length[i + 1] - length[i]))[:, None]
    return ring[i] * (1 - f) + ring[i + 1] * f


OUTLINES = torch.stack([_closed(HALF[name]) for name in REGIONS])  # (5, CORNERS, 2)


_KEPT: dict[object, tuple[Tensor, object]] = {}


def kept(value: Tensor | tuple[float, ...], dev: torch.device) -> Tensor:
    """A small constant on the device, copied there once."""
    key = (id(value) if isinstance(value, torch.Tensor) else value, dev)
    if key not in _KEPT:
        t = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float32)
        _KEPT[key] = (t.to(dev), value)
    return _KEPT[key][0]


def affine_fit(source: Tensor, target: Tensor) -> Tensor:
    """(n, 3, 2) maps M with [x, y, 1] @ M ~ target, least squares; source (n or 1, k, 2)."""
    one = torch.ones_like(source[..., :1])
    a = torch.cat([source, one], -1)
    return torch.linalg.solve_ex(a.mT @ a, a.mT @ target)[0]


def inside(polygons: Tensor, side: int) -> Tensor:
    """(n, side, side) 0/1: which pixel centres lie in closed polygons (n, k, 2) given in 256ths."""
    centre = (torch.arange(side, device=polygons.device) + 0.5) * (SIDE / side)
    px, py = centre[None, None, :, None], centre[None, :, None, None]
    x0, y0 = polygons[:, None, None, :, 0], polygons[:, None, None, :, 1]
    x1, y1 = x0.roll(-1, -1), y0.roll(-1, -1)
    between = (y0 > py) != (y1 > py)
    dy = torch.where((y1 - y0).abs() < 1e-6, torch.full_like(y0, 1e-6), y1 - y0)
    left = px < (x1 - x0) * (py - y0) / dy + x0
    return ((between & left).sum(-1) % 2).float()


def outlines_of(points: Tensor, region: Tensor) -> Tensor:
    """Polygons (n, CORNERS, 2) of each crop's region (n,), by its five points (n, 5, 2)."""
    dev = points.device
    fit = affine_fit(kept(TEMPLATE, dev)[None].expand(len(points), -1, -1), points)
    ring = kept(OUTLINES, dev)[region]
    return torch.cat([ring, torch.ones_like(ring[..., :1])], -1) @ fit


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """Each picture (n, c, h, w) blurred by its own sigma (n,) pixels: two products with banded matrices."""

    def band(length: int) -> Tensor:
        at = torch.arange(length, device=x.device, dtype=torch.float32)
        k = torch.exp(-0.5 * ((at[:, None] - at)[None] / sigma.clamp_min(0.05)[:, None, None]) ** 2)
        return (k / k.sum(-1, keepdim=True))[:, None]

    h, w = x.shape[-2:]
    return band(h) @ x @ band(w).mT


def uniform(n: int, low: float, high: float, dev: torch.device) -> Tensor:
    """(n,) numbers between low and high."""
    return low + torch.rand(n, device=dev) * (high - low)


def chance(n: int, p: float, dev: torch.device) -> Tensor:
    """(n,) bool, true with chance p."""
    return torch.rand(n, device=dev) < p


def pick(change: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` where `change` (n,), `old` elsewhere."""
    return torch.where(change.view(-1, *[1] * (old.dim() - 1)), new, old)


# --- codecs ------------------------------------------------------------------------------------------

LUMA = torch.tensor(
    [
        16,
        11,
        10,
        16,
        24,
        40,
        51,
        61,
        12,
        12,
        14,
        19,
        26,
        58,
        60,
        55,
        14,
        13,
        16,
        24,
        40,
        57,
        69,
        56,
        14,
        17,
        22,
        29,
        51,
        87,
        80,
        62,
        18,
        22,
        37,
        56,
        68,
        109,
        103,
        77,
        24,
        35,
        55,
        64,
        81,
        104,
        113,
        92,
        49,
        64,
        78,
        87,
        103,
        121,
        120,
        101,
        72,
        92,
        95,
        98,
        112,
        100,
        103,
        99,
    ],
    dtype=torch.float32,
).view(8, 8)
CHROMA = torch.full((8, 8), 99.0)
CHROMA[:4, :4] = torch.tensor(
    [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99.0]]
)
_i = torch.arange(8, dtype=torch.float32)
DCT = torch.cos((2 * _i[None] + 1) * _i[:, None] * math.pi / 16) * 0.5
DCT[0] /= math.sqrt(2)
YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def _coded(plane: Tensor, step: Tensor, dead: Tensor) -> Tensor:
    """A plane (n, h, w) coded by 8 x 8 blocks with steps (n, 8, 8); `dead` (n,): share that rounds up."""
    n, h, w = plane.shape
    d = kept(DCT, plane.device)
    b = plane.view(n, h // 8, 8, w // 8, 8).transpose(2, 3)
    c = d @ b @ d.T / step[:, None, None]
    c = c.sign() * (c.abs() + dead.view(-1, 1, 1, 1, 1)).floor()
    b = d.T @ (c * step[:, None, None]) @ d
    return b.transpose(2, 3).reshape(n, h, w)


def _deblocked(y: Tensor, strength: Tensor) -> Tensor:
    """Steps at the block edges smoothed up to `strength` (n,) grey levels."""
    for dim in (1, 2):
        z = y.transpose(1, dim) if dim != 1 else y
        n, h, w = z.shape
        z = z.reshape(n, h // 8, 8, w).clone()
        p1, p0, q0, q1 = z[:, :-1, 6], z[:, :-1, 7], z[:, 1:, 0], z[:, 1:, 1]
        s = strength.view(-1, 1, 1)
        delta = ((q0 - p0) * 4 + p1 - q1) / 8
        delta = torch.where((q0 - p0).abs() < 4 * s, delta.clamp(-s, s), torch.zeros_like(delta))
        z[:, :-1, 7] = p0 + delta
        z[:, 1:, 0] = q0 - delta
        z = z.view(n, h, w)
        y = z.transpose(1, dim) if dim != 1 else z
    return y


def codec(x: Tensor, film: Tensor, quality: Tensor, qp: Tensor) -> Tensor:
    """Pictures as JPEG of a quality (n,); where `film` (n,), roughly as key frames of H.264 of a qp (n,)."""
    dev, n = x.device, len(x)
    h, w = x.shape[-2:]
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    tables = [
        ((kept(t, dev)[None] * scale.view(-1, 1, 1)).round().clamp(1, 255)) for t in (LUMA, CHROMA)
    ]
    flat = (0.625 * 2 ** (qp / 6)).view(-1, 1, 1).expand(-1, 8, 8)
    steps = [torch.where(film.view(-1, 1, 1), flat, t) for t in tables]
    dead = torch.where(film, 1 / 3, 0.5)
    ycc = torch.einsum("nchw,dc->ndhw", x, kept(YCC, dev))
    luma = _coded(ycc[:, 0] - 128, steps[0], dead)
    soft = torch.where(film, (0.4 * 2 ** ((qp - 12) / 6)).clamp(0, 18), torch.zeros_like(qp))
    luma = _deblocked(luma, soft) + 128
    small = F.avg_pool2d(ycc[:, 1:], 2)
    ph, pw = -small.shape[-2] % 8, -small.shape[-1] % 8
    padded = F.pad(small, (0, pw, 0, ph), mode="replicate").flatten(0, 1)
    chroma = _coded(padded, steps[1].repeat_interleave(2, 0), dead.repeat_interleave(2)).view(
        n, 2, *padded.shape[-2:]
    )
    chroma = F.interpolate(
        chroma[..., : small.shape[-2], : small.shape[-1]], (h, w), mode="bilinear"
    )
    y, cb, cr = luma, chroma[:, 0], chroma[:, 1]
    rgb = torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)
    return rgb.round().clamp(0, 255)


def recompressed(
    x: Tensor,
    p_film: float,
    p_jpeg: float,
    crf: tuple[float, float],
    quality: tuple[float, float],
    scales: Sequence[float] = (0.75, 1.0, 1.0, 1.25),
) -> Tensor:
    """A share of the pictures as films and of the rest as JPEGs, blocks at any offset and a few scales."""
    n, dev = len(x), x.device
    u = torch.rand(n, device=dev)
    film, jpeg = u < p_film, (u >= p_film) & (u < p_film + p_jpeg)
    out = x.clone()
    order = torch.randperm(n, device=dev)
    for part, s in zip(order.chunk(len(scales)), scales, strict=False):
        if not len(part):
            continue
        y = x[part]
        side = int(SIDE * s) // 16 * 16
        if side != SIDE:
            y = F.interpolate(y, (side, side), mode="bilinear", antialias=True)
        dy, dx = (int(v) for v in torch.randint(0, 8, (2,)))
        y = y.roll((dy, dx), (2, 3))
        m = len(part)
        y = codec(y.clamp(0, 255), film[part], uniform(m, *quality, dev), uniform(m, *crf, dev) - 3)
        y = y.roll((-dy, -dx), (2, 3))
        if side != SIDE:
            y = F.interpolate(y, (SIDE, SIDE), mode="bilinear", antialias=True)
        out[part] = pick((film | jpeg)[part], y, x[part])
    return out


def resampled(x: Tensor, p: float, low: float, high: float, groups: int = 4) -> Tensor:
    """A share of the pictures shrunk to between `low` and `high` of their side and brought back."""
    n, dev = len(x), x.device
    change, out = chance(n, p, dev), x
    parts = torch.randperm(n, device=dev).chunk(groups)
    out = x.clone()
    for part in parts:
        if not len(part):
            continue
        side = int(SIDE * float(torch.empty(()).uniform_(low, high)))
        y = F.interpolate(x[part], (side, side), mode="bilinear", antialias=True)
        y = F.interpolate(y, (SIDE, SIDE), mode="bicubic").clamp(0, 255)
        out[part] = pick(change[part], y, x[part])
    return out


def coloured(x: Tensor, p: float, factor: tuple[float, float], shift: float) -> Tensor:
    """Saturation, contrast, brightness and each channel's level, an affine map of the colours."""
    n, dev = len(x), x.device
    sat, con, bri = (uniform(n, *factor, dev).view(-1, 1, 1, 1) for _ in range(3))
    grey = (x * kept((0.299, 0.587, 0.114), dev).view(1, 3, 1, 1)).sum(1, keepdim=True)
    mean = x.mean((2, 3), keepdim=True)
    y = con * (sat * x + (1 - sat) * grey)
    y = y - y.mean((2, 3), keepdim=True) + bri * mean + shift * torch.randn(n, 3, 1, 1, device=dev)
    return pick(chance(n, p, dev), y.clamp(0, 255), x)


def sharpened(x: Tensor, p: float, low: float, high: float) -> Tensor:
    """A share of the pictures sharpened by an unsharp mask between `low` and `high`."""
    n, dev = len(x), x.device
    soft = gaussian(x, torch.full((n,), 1.5, device=dev))
    y = x + uniform(n, low, high, dev).view(-1, 1, 1, 1) * (x - soft)
    return pick(chance(n, p, dev), y.clamp(0, 255), x)


def sampled(
    x: Tensor, matrix: Tensor, side: int, bend: Tensor | None = None, mode: str = "bilinear"
) -> Tensor:
    """Pictures (n, c, h, h) seen at [u, v, 1] @ matrix (n, 3, 2): from output to input, both in 256ths."""
    n, dev = len(x), x.device
    at = (torch.arange(side, device=dev) + 0.5) * (SIDE / side)
    v, u = torch.meshgrid(at, at, indexing="ij")
    grid = torch.stack([u, v, torch.ones_like(u)], -1).view(1, -1, 3) @ matrix
    grid = grid.view(n, side, side, 2)
    if bend is not None:
        grid = grid + bend
    return F.grid_sample(
        x, grid / (SIDE / 2) - 1, mode=mode, padding_mode="zeros", align_corners=False
    )


def turned(
    n: int,
    dev: torch.device,
    scale: float,
    shift: float,
    angle: float,
    centre: tuple[float, float] = (128.0, 140.0),
    flip: float = 0.0,
    base: float = 1.0,
) -> Tensor:
    """Maps (n, 3, 2), output to input: scaled by base * exp(N(0, scale)), moved and turned about a centre.

    With base < 1 the output shows less, from near.
    """
    s = base * torch.exp(scale * torch.randn(n, device=dev))
    a = angle * torch.randn(n, device=dev) * math.pi / 180
    f = torch.where(chance(n, flip, dev), -1.0, 1.0)
    c, d = s * torch.cos(a), s * torch.sin(a)
    linear = torch.stack(
        [torch.stack([c * f, d * f], -1), torch.stack([-d, c], -1)], 1
    )  # rows: of u, of v
    middle = kept(tuple(centre), dev)
    out = kept((128.0, centre[1]), dev)
    if base != 1:
        out = kept((128.0, 128.0), dev)
    moved = middle + shift * torch.randn(n, 2, device=dev)
    last = moved - (out[None, None] @ linear)[:, 0]
    return torch.cat([linear, last[:, None]], 1)


# --- pseudo-fakes ------------------------------------------------------------------------------------


def soft_regions(points: Tensor, shares: Sequence[float]) -> Tensor:
    """Blend weights (n, 1, 256, 256) of regions drawn by `shares`, their outlines and edges disturbed."""
    n, dev = len(points), points.device
    region = torch.multinomial(kept(tuple(shares), dev), n, replacement=True)
    ring = outlines_of(points, region)
    t = torch.arange(CORNERS, device=dev) / CORNERS * 2 * math.pi
    waves = sum(
        torch.randn(n, 1, device=dev)
        / k
        * torch.cos(k * t[None] + 6.28 * torch.rand(n, 1, device=dev))
        for k in (1, 2, 3, 4)
    )
    middle = ring.mean(1, keepdim=True)
    out = ring - middle
    size = out.norm(dim=2).mean(1)[:, None]
    out = (
        out * (1 + (4.0 * waves / size)[..., None]) * (1 + 0.06 * torch.randn(n, 1, 2, device=dev))
    )
    weight = inside(middle + out, 128)[:, None]
    weight = gaussian(weight, uniform(n, 1, 6, dev))
    weight = (weight > uniform(n, 0.25, 0.75, dev).view(-1, 1, 1, 1)).float()
    weight = gaussian(weight, uniform(n, 0.6, 4.5, dev))
    weight = F.interpolate(weight, (SIDE, SIDE), mode="bilinear")
    return weight / weight.amax((1, 2, 3), keepdim=True).clamp_min(1e-3)


def disturbed(x: Tensor, k: float) -> Tensor:
    """Other statistics; k scales the chances."""
    x = coloured(x, 0.9 * k, (0.88, 1.12), 6.0)
    x = resampled(x, 0.45 * k, 0.25, 0.7)
    x = sharpened(x, 0.2 * k, 0.4, 1.5)
    return recompressed(x, 0.1 * k, 0.3 * k, (20, 36), (40, 95))


def laid_on(donor: Tensor, donor_points: Tensor, x: Tensor, points: Tensor) -> Tensor:
    """Other faces where these are, in these faces' colours (Reinhard 2001, in RGB)."""
    moved = sampled(donor, affine_fit(points, donor_points), SIDE)
    w = inside(outlines_of(points, torch.ones(len(x), dtype=torch.long, device=x.device)), 64)[
        :, None
    ]
    w = F.interpolate(w, (SIDE, SIDE))
    total = w.sum((2, 3), keepdim=True).clamp_min(1)
    stats = []
    for y in (moved, x):
        m = (w * y).sum((2, 3), keepdim=True) / total
        stats.append(
            (m, ((w * (y - m) ** 2).sum((2, 3), keepdim=True) / total).sqrt().clamp_min(4))
        )
    (m0, s0), (m1, s1) = stats
    return ((moved - m0) * (s1 / s0).clamp(0.5, 2) + m1).clamp(0, 255)


def pseudo(
    x: Tensor,
    points: Tensor,
    other: Tensor,
    other_points: Tensor,
    redrawn: Tensor,
    kind: Tensor,
    shares: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pseudo-fakes of real crops.

    kind (n,): 0 a face over itself, 1 another's face, 2 redrawn in a region, 3 redrawn whole.
    Returns: the fakes, the real twins, shares of manipulation (n, 1, 256, 256), and whether it is seen (n,).
    """
    n, dev = len(x), x.device
    weight = soft_regions(points, shares)
    own = torch.where((kind >= 2).view(-1, 1, 1, 1), redrawn, x)
    swap = laid_on(other, other_points, x, points)
    source = pick(kind == 1, swap, own)
    to_source = chance(n, 0.6, dev)
    mild = kind >= 2  # redrawn ones may differ by that alone
    changed = disturbed(source, 1.0)
    source = pick(to_source & ~(mild & chance(n, 0.6, dev)), changed, source)
    target = pick(~to_source, disturbed(x, 1.0), x)
    bend = 3.0 * F.interpolate(
        torch.randn(n, 2, 5, 5, device=dev), (SIDE, SIDE), mode="bicubic", align_corners=True
    )
    moves = turned(n, dev, 0.02, 3.0, 0.6)
    still = mild & chance(n, 0.7, dev)
    source = pick(still, source, sampled(source, moves, SIDE, bend.permute(0, 2, 3, 1)))
    ratio = torch.where(
        chance(n, 0.5, dev) & ~mild, uniform(n, 0.4, 0.95, dev), torch.ones(n, device=dev)
    )
    whole = (kind == 3).view(-1, 1, 1, 1)
    weight = torch.where(whole, torch.ones_like(weight), weight)
    fake = (target + ratio.view(-1, 1, 1, 1) * weight * (source - target)).round().clamp(0, 255)
    change = ((fake - target).abs().mean(1, keepdim=True) * (weight > 0.5)).sum((1, 2, 3)) / (
        weight > 0.5
    ).sum((1, 2, 3)).clamp_min(1)
    return fake, target, weight, change >= 1.2


# --- views -------------------------------------------------------------------------------------------


def viewed(
    x: Tensor,
    masks: Tensor,
    margin: float,
    matrix: Tensor | None = None,
    strength: float = 1.0,
    film: float = 0.3,
    crf: tuple[float, float] = (18, 40),
) -> tuple[Tensor, Tensor]:
    """Training views (n, 3, 224, 224) in 0..255 of pictures and (n, m, 224, 224) of their masks."""
    n, dev = len(x), x.device
    k = strength
    x = coloured(x, 0.5 * k, (0.75, 1.25), 4.0)
    gains = torch.exp(0.12 * torch.randn(n, 3, 1, 1, device=dev))
    x = pick(chance(n, 0.25 * k, dev), (x * gains).clamp(0, 255), x)
    x = pick(chance(n, 0.15 * k, dev), gaussian(x, uniform(n, 0.4, 2.0, dev)), x)
    x = resampled(x, 0.3 * k, 0.25, 0.9)
    sigma = uniform(n, 1, 9, dev).view(-1, 1, 1, 1)
    x = pick(chance(n, 0.12 * k, dev), (x + sigma * torch.randn_like(x)).clamp(0, 255), x)
    x = recompressed(x, film * k, 0.3 * k, crf, (35, 98))
    if matrix is None:
        matrix = turned(
            n,
            dev,
            0.07,
            4.0,
            3.0,
            flip=0.5,
            base=margin,
            centre=(128.0, 128.0 + 18 * (1 - margin) / 0.3),
        )
    seen = sampled(x, matrix, 224)
    for dim in (2, 3):  # a frame that ends: black on one side or another
        depth = torch.where(
            chance(n, 0.15, dev), 224 * 0.2 * torch.rand(n, device=dev), torch.zeros(n, device=dev)
        )
        at = torch.arange(224, device=dev, dtype=torch.float32)
        at = torch.where(chance(n, 0.5, dev)[:, None], at[None], 223 - at[None])
        keep = (at >= depth[:, None]).float()
        seen = seen * (keep[:, None, :, None] if dim == 2 else keep[:, None, None, :])
    return seen.round().clamp(0, 255), sampled(masks, matrix, 224)


def plain(x: Tensor, margin: float) -> Tensor:
    """What a detector sees of crops (n, 3, 256, 256): all of it or its middle, at 224 pixels."""
    if margin == 1:
        return F.interpolate(x, (224, 224), mode="bilinear", antialias=True)
    side = round(SIDE * margin)
    left, top = (SIDE - side) // 2, round((SIDE - side) / 2 + 18 * (1 - margin) / 0.3)
    cut = x[..., top : top + side, left : left + side]
    return F.interpolate(cut, (224, 224), mode="bilinear", antialias=True)
