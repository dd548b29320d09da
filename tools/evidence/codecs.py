"""What JPEG and H.264 do to pixels, a whole batch at a time on one device, without a bit stream.

A codec transforms blocks, rounds their coefficients and transforms back; how it writes them plays no part.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from deepscan.shapes import Bool, Float
from tools.evidence.geometry import constant

BLOCK = 8

# Quantisation of quality 50: ITU-T T.81 (JPEG), annex K, tables K.1 and K.2.
# fmt: off
LUMA = torch.tensor([
    [16, 11, 10, 16,  24,  40,  51,  61],
    [12, 12, 14, 19,  26,  58,  60,  55],
    [14, 13, 16, 24,  40,  57,  69,  56],
    [14, 17, 22, 29,  51,  87,  80,  62],
    [18, 22, 37, 56,  68, 109, 103,  77],
    [24, 35, 55, 64,  81, 104, 113,  92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103,  99],
], dtype=torch.float32)
CHROMA = torch.full((BLOCK, BLOCK), 99.0)
CHROMA[:4, :4] = torch.tensor([
    [17, 18, 24, 47],
    [18, 21, 26, 66],
    [24, 26, 56, 99],
    [47, 66, 99, 99],
], dtype=torch.float32)
# fmt: on

# Y, Cb and Cr of R, G and B: ITU-T T.871 (JFIF), without the offset of 128.
YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def _cosines() -> Float[Tensor, "8 8"]:
    """The orthonormal discrete cosine transform of BLOCK values: one frequency a row."""
    i = torch.arange(BLOCK, dtype=torch.float32)
    rows = torch.cos((2 * i[None] + 1) * i[:, None] * math.pi / (2 * BLOCK)) * 0.5
    rows[0] /= math.sqrt(2)
    return rows


DCT = _cosines()


def compressed(
    images: Float[Tensor, "n 3 h w"],
    film: Bool[Tensor, " n"],
    quality: Float[Tensor, " n"],
    qp: Float[Tensor, " n"],
) -> Float[Tensor, "n 3 h w"]:
    """RGB in 0..255 as JPEG of a quality (1 to 100); where `film`, roughly as key frames of H.264 of a QP.

    Both code blocks of 8 x 8 and colours at half the resolution; sides are multiples of 8. H.264 has the same
    step for all frequencies, rounds up from 2/3 on, and smooths the blocks' edges.
    """
    device, n = images.device, len(images)
    height, width = images.shape[-2:]
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    tables = [
        (constant(table, device)[None] * scale.view(-1, 1, 1)).round().clamp(1, 255)
        for table in (LUMA, CHROMA)
    ]
    flat = (0.625 * 2 ** (qp / 6)).view(-1, 1, 1).expand(-1, BLOCK, BLOCK)
    luma_steps, chroma_steps = (torch.where(film.view(-1, 1, 1), flat, t) for t in tables)
    rounding = torch.where(film, 1 / 3, 0.5)
    ycc = torch.einsum("nchw,dc->ndhw", images, constant(YCC, device))
    luma = _quantised(ycc[:, 0] - 128, luma_steps, rounding)
    strength = torch.where(film, (0.4 * 2 ** ((qp - 12) / 6)).clamp(0, 18), torch.zeros_like(qp))
    luma = _deblocked(luma, strength) + 128
    small = functional.avg_pool2d(ycc[:, 1:], 2)
    more = (0, -small.shape[-1] % BLOCK, 0, -small.shape[-2] % BLOCK)  # to whole blocks
    padded = functional.pad(small, more, mode="replicate")
    chroma = _quantised(
        padded.flatten(0, 1), chroma_steps.repeat_interleave(2, 0), rounding.repeat_interleave(2)
    ).view(n, 2, *padded.shape[-2:])
    chroma = functional.interpolate(
        chroma[..., : small.shape[-2], : small.shape[-1]], (height, width), mode="bilinear"
    )
    y, cb, cr = luma, chroma[:, 0], chroma[:, 1]
    rgb = torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)
    return rgb.round().clamp(0, 255)


def _quantised(
    plane: Float[Tensor, "n h w"], steps: Float[Tensor, "n 8 8"], rounding: Float[Tensor, " n"]
) -> Float[Tensor, "n h w"]:
    """A plane of whole blocks, its coefficients in whole steps: |c| becomes floor(|c| + rounding)."""
    n, height, width = plane.shape
    dct = constant(DCT, plane.device)
    steps = steps[:, None, None]
    blocks = plane.view(n, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(2, 3)
    found = dct @ blocks @ dct.T / steps
    found = found.sign() * (found.abs() + rounding.view(-1, 1, 1, 1, 1)).floor()
    blocks = dct.T @ (found * steps) @ dct
    return blocks.transpose(2, 3).reshape(n, height, width)


def _deblocked(
    plane: Float[Tensor, "n h w"], strength: Float[Tensor, " n"]
) -> Float[Tensor, "n h w"]:
    """Steps between blocks smoothed by up to `strength` levels, unless they are an edge of the picture."""
    most = strength.view(-1, 1, 1)
    for turned in (False, True):  # rows' edges, then columns'
        rows = plane.mT if turned else plane
        n, height, width = rows.shape
        blocks = rows.reshape(n, height // BLOCK, BLOCK, width).clone()
        p1, p0 = blocks[:, :-1, -2], blocks[:, :-1, -1]  # the last two rows before an edge
        q0, q1 = blocks[:, 1:, 0], blocks[:, 1:, 1]  # the first two after it
        delta = ((q0 - p0) * 4 + p1 - q1) / 8
        small = (q0 - p0).abs() < 4 * most
        delta = torch.where(small, delta.clamp(-most, most), torch.zeros_like(delta))
        blocks[:, :-1, -1] = p0 + delta
        blocks[:, 1:, 0] = q0 - delta
        rows = blocks.view(n, height, width)
        plane = rows.mT if turned else rows
    return plane
