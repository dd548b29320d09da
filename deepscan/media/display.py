"""Turns a decoded frame into pixels as players show it: RGB, progressive, square pixels, upright."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from deepscan.errors import UnreadableInput
from deepscan.media import colour
from deepscan.records import Colour, Pixels

# An 8K frame has 33 million pixels. No camera makes twice that, and three bytes a pixel must fit in memory.
MAX_PIXELS = 2**26

# Numbers of ITU-T H.273 by FFmpeg's names.
MATRICES = {
    0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc",
    10: "bt2020c", 11: "smpte2085", 12: "chroma-derived-nc", 13: "chroma-derived-c", 14: "ictcp",
}  # fmt: skip
TRANSFERS = {
    1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100",
    10: "log316", 11: "iec61966-2-4", 12: "bt1361e", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12",
    16: "smpte2084", 17: "smpte428", 18: "arib-std-b67",
}  # fmt: skip
PRIMARIES = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020",
    10: "smpte428", 11: "smpte431", 12: "smpte432", 22: "ebu3213",
}  # fmt: skip
RANGES = {1: "tv", 2: "pc"}

# Codec tags of Dolby Vision. Without tags of its own such a picture is in colours of Dolby's (profile 5).
DOLBY = ("dvh1", "dvhe", "dva1", "dvav", "dav1")

# What the scaler converts exactly: it takes the other matrices for BT.601's.
MATRICES_KNOWN = (0, 1, 2, 4, 5, 6, 7, 9)
TRANSFERS_KNOWN = (1, 2, 4, 5, 6, 7, 11, 12, 13, 14, 15, 16, 18)

# Of the scaler: bicubic, chroma for every pixel, rounded instead of cut off. Without them 10 bits come out up
# to 3 levels dark, and HDR in 8 bits.
BICUBIC, FULL_CHROMA, ACCURATE = 4, 0x2000, 0x40000


def check_size(path: Path, width: int, height: int) -> None:
    """Raise UnreadableInput if a picture has too many pixels to decode."""
    if width * height > MAX_PIXELS:
        raise UnreadableInput(
            f"{path}: claims {width} x {height} pixels; the limit is {MAX_PIXELS}"
        )


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display matrix: x' = a x + c y, y' = b x + d y; the identity if there is none."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except (
        ValueError
    ):  # side data of a kind newer than PyAV hides all others; the turn it has apart
        a, b = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}.get(frame.rotation % 360, (1, 0))
        return a, b, -b, a
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    return a, b, c, d


def rotation(frame: Any) -> int:
    """Rotation for display in degrees counter-clockwise, a multiple of 90; mirroring is applied after it."""
    a, b, c, d = _matrix(frame)
    if a * d - b * c < 0:
        a = -a
    return int(round(np.degrees(np.arctan2(-b, a)) / 90) * 90) % 360


@dataclass(frozen=True, slots=True)
class Tags:
    """A container's statement of a stream's colours, in the numbers of ITU-T H.273."""

    matrix: int
    transfer: int
    primaries: int
    range: int
    dolby: bool  # Dolby Vision, whose metadata no decoder here applies

    @classmethod
    def of(cls, stream: Any) -> Tags:
        """Read before anything is decoded: decoders overwrite them."""
        context = stream.codec_context
        return cls(
            context.colorspace,
            context.color_trc,
            context.color_primaries,
            context.color_range,
            context.codec_tag in DOLBY,
        )

    def complete(self, frame: Any) -> Any:
        """The frame, with the tags that its own bits leave open; players read them from the container."""
        if frame.color_trc == colour.UNSPECIFIED:
            frame.color_trc = self.transfer
        if frame.color_primaries == colour.UNSPECIFIED:
            frame.color_primaries = self.primaries
        if frame.colorspace == colour.UNSPECIFIED and not frame.format.is_rgb:
            frame.colorspace = self.matrix
        if frame.color_range == 0:
            frame.color_range = self.range
        return frame


def colour_of(frame: Any) -> Colour:
    """What a frame says of its colours, or what players guess, and what `display` makes of them."""
    matrix, transfer, primaries = frame.colorspace, frame.color_trc, frame.color_primaries
    guessed = matrix == colour.UNSPECIFIED and not frame.format.is_rgb
    if guessed:
        matrix = _guessed_matrix(frame)
    elif frame.format.is_rgb:
        matrix = 0
    return replace(
        tagged_colour(transfer, primaries),
        matrix=MATRICES.get(matrix, "unknown"),
        range=RANGES.get(frame.color_range, "unknown"),
        matrix_guessed=guessed,
        exact=matrix in MATRICES_KNOWN and transfer in TRANSFERS_KNOWN,
    )


def tagged_colour(transfer: int, primaries: int) -> Colour:
    """What these tags say of colours, and what `colour.to_sdr` makes of them."""
    conversion = ""
    if transfer in colour.HDR:
        conversion = f"{'PQ' if transfer == colour.PQ else 'HLG'} to SDR of BT.709"
    elif primaries in colour.WIDE:
        conversion = f"{PRIMARIES[primaries]} to BT.709"
    return Colour(
        transfer=TRANSFERS.get(transfer, "unknown"),
        primaries=PRIMARIES.get(primaries, "unknown"),
        conversion=conversion,
    )


def _guessed_matrix(frame: Any) -> int:
    """As players do: untagged HDR is BT.2020, untagged high definition BT.709, anything smaller BT.601.

    High definition is what is larger than PAL in one direction: 960 x 540 and 1280 x 544 are cut or halved
    from it.
    """
    if frame.color_trc in colour.HDR:
        return 9
    return 1 if frame.width >= 960 or frame.height > 576 else 6


def display(frame: Any, pixel_aspect: Fraction, path: Path, single_field: bool = False) -> Pixels:
    """The frame as a player shows it: RGB of BT.709, one progressive picture, square pixels, upright.

    `pixel_aspect` is the width of a stored pixel over its height; above 4 it is treated as a mistake.
    `single_field`: the frame is one field, every second line of the picture.
    """
    plausible = Fraction(1, 4) <= pixel_aspect <= 4
    width = max(round(frame.width * pixel_aspect), 1) if plausible else frame.width
    height = frame.height * (1 + single_field)
    check_size(path, width, height)
    pixels = colours_shown(frame, width, height)
    if frame.interlaced_frame and not single_field and frame.height > 2:
        pixels = _one_field(pixels)
    a, b, c, d = _matrix(frame)
    if abs(b) > abs(a):
        pixels, flip_x, flip_y = pixels.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    pixels = pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(pixels)


def colours_shown(frame: Any, width: int, height: int) -> Pixels:
    """The frame's RGB of BT.709 in this size, as it is stored otherwise."""
    how: dict[str, Any] = {}
    if frame.colorspace == colour.UNSPECIFIED and not frame.format.is_rgb:
        matrix = _guessed_matrix(frame)
        how["src_colorspace"] = {1: "ITU709", 6: "ITU601", 9: "BT2020"}[matrix]
    bits = max(component.bits for component in frame.format.components)
    convert = frame.color_trc in colour.HDR or frame.color_primaries in colour.WIDE
    if bits > 8 or convert:
        how["interpolation"] = BICUBIC | FULL_CHROMA | ACCURATE
    # One thread: more would live as long as the frame's scaler, which only the garbage collector frees, and
    # pile up until no new ones could start.
    form = "rgb48le" if convert else "rgb24"
    pixels = frame.reformat(width=width, height=height, format=form, threads=1, **how).to_ndarray()
    if convert:
        return colour.to_sdr(pixels, _white(frame, bits), frame.color_trc, frame.color_primaries)
    return pixels


def _white(frame: Any, bits: int) -> int:
    """The scaler's white in 16 bits: 255 times 256 for YUV of limited range, else the highest code."""
    if frame.format.is_rgb and bits > 8:
        return 65535
    full = frame.color_range == 2 or frame.format.name.startswith("yuvj")
    return 65536 - 2 ** (16 - bits) if full and not frame.format.is_rgb else 65280


def _one_field(pixels: Pixels) -> Pixels:
    """Keep the top field and interpolate the lines between: no combing, half the vertical detail."""
    out = pixels.copy()
    above, below = pixels[0:-2:2], pixels[2::2]
    lines = min(len(above), len(below))
    middle = (above[:lines].astype(np.uint16) + below[:lines] + 1) // 2
    out[1 : 1 + 2 * lines : 2] = middle
    if len(pixels) % 2 == 0:
        out[-1] = pixels[-2]
    return out
