"""Turns a decoded frame into pixels as players show it: RGB, progressive, square pixels, upright."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from deepscan.errors import UnreadableInput
from deepscan.records import Pixels

# An 8K frame has 33 million pixels. No camera makes twice that, and three bytes a pixel must fit in memory.
MAX_PIXELS = 2**26

UNSPECIFIED_COLOUR = 2  # AVCOL_SPC_UNSPECIFIED


def check_size(path: Path, width: int, height: int) -> None:
    """Raise UnreadableInput if a picture has too many pixels to decode."""
    if width * height > MAX_PIXELS:
        raise UnreadableInput(
            f"{path}: claims {width} x {height} pixels; the limit is {MAX_PIXELS} in all"
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


def display(frame: Any, pixel_aspect: Fraction, path: Path) -> Pixels:
    """The frame as a player shows it: RGB, one progressive picture, square pixels, upright.

    `pixel_aspect` is the width of a stored pixel over its height; above 4 it is treated as a mistake.
    """
    plausible = Fraction(1, 4) <= pixel_aspect <= 4
    width = max(round(frame.width * pixel_aspect), 1) if plausible else frame.width
    check_size(path, width, frame.height)
    colours: dict[str, Any] = {}
    if frame.colorspace == UNSPECIFIED_COLOUR and not frame.format.is_rgb:
        # As players do: untagged high definition is BT.709, anything smaller BT.601.
        colours["src_colorspace"] = "ITU709" if frame.height >= 720 else "ITU601"
    # One thread: more would live as long as the frame's scaler, which only the garbage collector frees, and
    # pile up until no new ones could start.
    pixels = frame.reformat(
        width=width, height=frame.height, format="rgb24", threads=1, **colours
    ).to_ndarray()
    if frame.interlaced_frame and frame.height > 2:
        pixels = _one_field(pixels)
    a, b, c, d = _matrix(frame)
    if abs(b) > abs(a):
        pixels, flip_x, flip_y = pixels.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    pixels = pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(pixels)


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
