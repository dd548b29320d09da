"""Draws attention as a heatmap over the picture, on one fixed scale.

The unit is "times uniform": a patch's attention times the number of patches, so 1 means that the detector
looked there no more than anywhere else. The scale never changes, so maps of different frames and videos can
be compared.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deepscan.faces.alignment import invert
from deepscan.records import Crop, Pixels
from deepscan.shapes import Float, UInt8

SCALE_TOP = 6.0  # times uniform; higher values are drawn like this one
OPACITY = 0.75  # at the top of the scale; up to 1, which is no preference, the picture stays clear
COLOUR_MAP = "inferno"

CAVEAT = (
    "Attention shows where the model looked; it is not evidence that the region is manipulated."
)

# Stands above the logits drawn beside faces.
NOTE = "Logits above 0 lean to manipulated; the report says what they are worth."

LEGEND_HEIGHT = 62
INK, PAPER = (235, 235, 235), (24, 24, 24)


def relative(attention: Float[np.ndarray, "*more p"]) -> Float[np.ndarray, "*more side side"]:
    """Attention over p patches (sums to 1) as a square map in times uniform (averages to 1)."""
    patches = attention.shape[-1]
    side = round(patches**0.5)
    if side * side != patches:
        raise ValueError(f"{patches} patches make no square grid")
    return (attention * patches).reshape(*attention.shape[:-1], side, side)


def colours(values: Float[np.ndarray, "*more"]) -> UInt8[np.ndarray, "*more 3"]:
    """Values in times uniform as RGB, from 0 to SCALE_TOP."""
    steps = np.clip(values / SCALE_TOP * 255, 0, 255).astype(np.uint8)
    return _table()[steps]


@functools.cache
def _table() -> UInt8[np.ndarray, "256 3"]:
    from matplotlib import colormaps  # slow to import, and only drawing needs it

    return (colormaps[COLOUR_MAP](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


def paint(pixels: Pixels, faces: Sequence[tuple[Crop, Float[np.ndarray, "side side"]]]) -> Pixels:
    """The frame with each face's map drawn over the area its crop was cut from."""
    out = pixels.copy()
    for crop, values in faces:
        corners = crop.corners()
        height, width = pixels.shape[:2]
        left, top = np.clip(np.floor(corners.min(0)), 0, (width, height)).astype(int).tolist()
        right, bottom = np.clip(np.ceil(corners.max(0)), 0, (width, height)).astype(int).tolist()
        if right <= left or bottom <= top:
            continue
        # Frame pixels of the region -> crop pixels -> cells of the map.
        to_map = invert(crop.to_frame) * (values.shape[0] / crop.pixels.shape[0])
        to_map[:, 2] += to_map[:, :2] @ (left, top)
        size = (right - left, bottom - top)
        heat, cover = (
            np.asarray(
                Image.fromarray(layer).transform(
                    size,
                    Image.Transform.AFFINE,
                    tuple(to_map.ravel().tolist()),
                    Image.Resampling.BILINEAR,
                )
            )
            for layer in (values.astype(np.float32), np.ones_like(values, np.float32))
        )
        region = out[top:bottom, left:right]
        region[:] = blend(region, heat, cover)
    return out


def blend(
    pixels: UInt8[np.ndarray, "height width 3"],
    heat: Float[np.ndarray, "height width"],
    cover: Float[np.ndarray, "height width"] | float = 1.0,
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw heat (times uniform) over pixels; `cover` is 0 outside the map and 1 inside."""
    alpha = (OPACITY * np.clip((heat - 1) / (SCALE_TOP - 1), 0, 1) * cover)[..., None]
    return (pixels * (1 - alpha) + colours(heat) * alpha).round().astype(np.uint8)


def outline(pixels: Pixels, crops: Sequence[Crop], labels: Sequence[str]) -> Pixels:
    """Draw each crop's border and its label."""
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    line = max(1, round(max(image.size) / 640))
    for crop, label in zip(crops, labels, strict=True):
        corners = [tuple(corner) for corner in crop.corners().tolist()]
        draw.line([*corners, corners[0]], fill=INK, width=line)
        write(draw, (corners[0][0] + 2 * line, corners[0][1] + 2 * line), label, 10 + 4 * line)
    return np.asarray(image)


def write(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int) -> None:
    """Write white text on a dark tag, readable on any picture and kept inside it."""
    corner = max(place[0], 2.0), max(place[1], 2.0)
    left, top, right, bottom = draw.textbbox(corner, text, font=_font(size))
    draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=PAPER)
    draw.text(corner, text, fill=INK, font=_font(size))


def resize(pixels: Pixels, side: int) -> Pixels:
    """Shrink to a longer side of at most `side` pixels; never enlarge."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    if scale == 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # First by whole pixels, which is quick, then smoothly.
    return np.asarray(
        Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
    )


def legend(width: int) -> UInt8[np.ndarray, "height width 3"]:
    """The strip under every picture: colour bar, unit and caveat."""
    image = Image.new("RGB", (width, LEGEND_HEIGHT), PAPER)
    draw = ImageDraw.Draw(image)
    bar = min(256, max(64, width // 4))
    ramp = np.linspace(0, SCALE_TOP, bar)[None].repeat(10, 0)
    image.paste(Image.fromarray(colours(ramp)), (8, 6))
    for value in range(int(SCALE_TOP) + 1):
        text = f"{value}{'+' if value == SCALE_TOP else ''}"
        draw.text((8 + bar * value / SCALE_TOP, 17), text, fill=INK, font=_font(10), anchor="ma")
    words = "times uniform attention (up to 1, no preference, is left clear)"
    draw.text((bar + 22, 5), words, fill=INK, font=_fitting(words, width - bar - 26, 11))
    draw.text((8, 31), CAVEAT, fill=INK, font=_fitting(CAVEAT, width - 12, 11))
    draw.text((8, 46), NOTE, fill=INK, font=_fitting(NOTE, width - 12, 11))
    return np.asarray(image)


def with_legend(pixels: Pixels) -> Pixels:
    """The picture with the legend under it; narrow pictures are padded so that the caveat is readable."""
    height, width = pixels.shape[:2]
    wide = max(width, 360)
    out = np.full((height + LEGEND_HEIGHT, wide, 3), PAPER, np.uint8)
    out[:height, :width] = pixels
    out[height:] = legend(wide)
    return out


def face_panel(
    pixels: Pixels, crop: Crop, values: Float[np.ndarray, "side side"], label: str
) -> Pixels:
    """One face with its surroundings, plain beside heat, over the legend."""
    height, width = pixels.shape[:2]
    corners = crop.corners()
    room = 0.15 * (corners.max(0) - corners.min(0))
    left, top = np.clip(corners.min(0) - room, 0, (width, height)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(0) + room), 0, (width, height)).astype(int).tolist()
    painted = paint(pixels, [(crop, values)])
    pair = [resize(view[top:bottom, left:right], 448) for view in (pixels, painted)]
    gap = np.full((pair[0].shape[0], 4, 3), PAPER, np.uint8)
    image = Image.fromarray(np.concatenate([pair[0], gap, pair[1]], axis=1))
    write(ImageDraw.Draw(image), (4, 4), label, 13)
    return with_legend(np.asarray(image))


def contact_sheet(cells: Sequence[tuple[Pixels, str]], columns: int = 8) -> Pixels:
    """Equal square pictures in reading order, labelled, over one legend."""
    side = cells[0][0].shape[0]
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (side + 4), rows * (side + 4)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (cell, label) in enumerate(cells):
        place = (i % columns * (side + 4) + 2, i // columns * (side + 4) + 2)
        sheet.paste(Image.fromarray(cell), place)
        write(draw, (place[0] + 3, place[1] + 2), label, 11)
    return with_legend(np.asarray(sheet))


def crop_view(crop: Crop, values: Float[np.ndarray, "side side"], side: int) -> Pixels:
    """The aligned crop with its heat, `side` pixels square."""
    image = Image.fromarray(crop.pixels).resize((side, side), Image.Resampling.BILINEAR)
    heat = Image.fromarray(values.astype(np.float32)).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    return blend(np.asarray(image), np.asarray(heat))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitting(text: str, width: int, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font up to `size`, but at least 7, in which `text` is no wider than `width`."""
    while size > 7 and _font(size).getlength(text) > width:
        size -= 1
    return _font(size)
