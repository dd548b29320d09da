"""Draws maps of a crop's patches over the picture, each kind on one fixed scale.

Evidence is what a patch adds to the logit: red for manipulation, blue against, clear where it says nothing.
Attention's unit is "times uniform": a patch's attention times the number of patches, so 1 means that the
detector looked there no more than anywhere else. Likelihood is the probability that a patch is manipulated,
as the detector learnt to tell. The scales never change, so maps of different frames and videos can be
compared.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deepscan.errors import SettingsError
from deepscan.faces.alignment import invert
from deepscan.records import Crop, Output, Pixels
from deepscan.shapes import Float, UInt8

OPACITY = 0.75  # at the top of a scale
COLOUR_MAP = "inferno"
FOR, AGAINST = (205, 32, 38), (33, 92, 191)  # red and blue that the colour-blind tell apart, too


@dataclass(frozen=True, slots=True)
class Scale:
    """A kind of map and how it is drawn; values above `top` are drawn like it."""

    name: str
    top: float
    clear: float  # up to here the picture stays clear
    ticks: tuple[float, ...]
    unit: str
    words: str  # of the legend
    caveat: str

    @property
    def bottom(self) -> float:
        """Of evidence, which has a sign, the top's mirror image."""
        return -self.top if self.name == "evidence" else 0.0


EVIDENCE = Scale(
    "evidence",
    top=0.1,
    clear=0.0,
    ticks=(-0.1, -0.05, 0, 0.05, 0.1),
    unit="logits that a patch adds to the score",
    words="logits a patch adds to the score: red for manipulation, blue against",
    caveat=(
        "Together with a constant, the evidence adds up to this detector's score; it does not prove"
        " that a region is manipulated."
    ),
)
ATTENTION = Scale(
    "attention",
    top=6.0,
    clear=1.0,
    ticks=(0, 1, 2, 3, 4, 5, 6),
    unit="times uniform attention",
    words="times uniform attention (up to 1, no preference, is left clear)",
    caveat=(
        "Attention shows where the model looked; it is not evidence that a region is manipulated."
    ),
)
LIKELIHOOD = Scale(
    "likelihood",
    top=1.0,
    clear=0.5,
    ticks=(0, 0.5, 1),
    unit="likelihood that a patch is manipulated",
    words="likelihood that a patch is manipulated (up to a half is left clear)",
    caveat=(
        "The detector learnt this likelihood from masks of other manipulations; it does not prove"
        " that a region is manipulated."
    ),
)
SCALES = {scale.name: scale for scale in (EVIDENCE, ATTENTION, LIKELIHOOD)}

# Stands above the logits drawn beside faces.
NOTE = "Logits above 0 lean to manipulated; the report says how far to trust them."

LEGEND_HEIGHT = 62
INK, PAPER = (235, 235, 235), (24, 24, 24)


def drawable(output: Output) -> tuple[Scale, ...]:
    """The kinds of maps that this output can be drawn as, the one that says most first."""
    has = {
        EVIDENCE: output.evidence,
        ATTENTION: output.query_attention,
        LIKELIHOOD: output.likelihood,
    }
    return tuple(scale for scale, values in has.items() if values.shape[-1])


def maps(output: Output, scale: Scale) -> Float[np.ndarray, "b side side"]:
    """One kind of map of every crop, in its scale's unit.

    Raises:
        SettingsError: the detector has no such map.
    """
    if scale not in drawable(output):
        raise SettingsError(
            f"map {scale.name}: this detector has no such map; --map attention works with every detector"
        )
    if scale is ATTENTION:
        return relative(output.query_attention.mean(1))
    return squared(output.evidence if scale is EVIDENCE else output.likelihood)


def relative(attention: Float[np.ndarray, "*more p"]) -> Float[np.ndarray, "*more side side"]:
    """Attention over p patches (sums to 1) as a square map in times uniform (averages to 1)."""
    return squared(attention * attention.shape[-1])


def squared(values: Float[np.ndarray, "*more p"]) -> Float[np.ndarray, "*more side side"]:
    """Values of p patches, row by row, as a square map."""
    patches = values.shape[-1]
    side = round(patches**0.5)
    if side * side != patches:
        raise ValueError(f"{patches} patches make no square grid")
    return values.reshape(*values.shape[:-1], side, side)


def colours(
    values: Float[np.ndarray, "*more"], scale: Scale = ATTENTION
) -> UInt8[np.ndarray, "*more 3"]:
    """Values as RGB, whatever their opacity."""
    if scale is EVIDENCE:
        return np.where(values[..., None] < 0, AGAINST, FOR).astype(np.uint8)
    steps = np.clip(values / scale.top * 255, 0, 255).astype(np.uint8)
    return _table()[steps]


def opacity(values: Float[np.ndarray, "*more"], scale: Scale) -> Float[np.ndarray, "*more"]:
    """How much of the picture values hide: 0 where they say nothing, OPACITY at either end of the scale."""
    above = (np.abs(values) - scale.clear) / (scale.top - scale.clear)
    return OPACITY * np.clip(above, 0, 1)


@functools.cache
def _table() -> UInt8[np.ndarray, "256 3"]:
    from matplotlib import colormaps  # slow to import, and only drawing needs it

    return (colormaps[COLOUR_MAP](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


def paint(
    pixels: Pixels,
    faces: Sequence[tuple[Crop, Float[np.ndarray, "side side"]]],
    scale: Scale,
) -> Pixels:
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
        region[:] = blend(region, heat, scale, cover)
    return out


def blend(
    pixels: UInt8[np.ndarray, "height width 3"],
    values: Float[np.ndarray, "height width"],
    scale: Scale,
    cover: Float[np.ndarray, "height width"] | float = 1.0,
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw a map over pixels; `cover` is 0 outside of it and 1 inside."""
    alpha = (opacity(values, scale) * cover)[..., None]
    return (pixels * (1 - alpha) + colours(values, scale) * alpha).round().astype(np.uint8)


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


def legend(width: int, scales: Sequence[Scale]) -> UInt8[np.ndarray, "height width 3"]:
    """The strip under every picture: for each kind of map its colour bar, unit and caveat."""
    image = Image.new("RGB", (width, LEGEND_HEIGHT * len(scales)), PAPER)
    draw = ImageDraw.Draw(image)
    bar = min(256, max(64, width // 4))
    for row, scale in enumerate(scales):
        y = row * LEGEND_HEIGHT
        image.paste(Image.fromarray(bar_of(scale, bar)[None].repeat(10, 0)), (8, y + 6))
        for value in scale.ticks:
            text = f"{value:+g}" if scale.bottom and value else f"{value:g}"
            more = "+" if value == scale.top > 1 else ""
            x = 8 + bar * (value - scale.bottom) / (scale.top - scale.bottom)
            anchor = "la" if value == scale.bottom else "ma"
            draw.text((x, y + 17), text + more, fill=INK, font=_font(10), anchor=anchor)
        draw.text(
            (bar + 26, y + 5),
            scale.words,
            fill=INK,
            font=_fitting(scale.words, width - bar - 30, 11),
        )
        draw.text((8, y + 31), scale.caveat, fill=INK, font=_fitting(scale.caveat, width - 12, 11))
        draw.text((8, y + 46), NOTE, fill=INK, font=_fitting(NOTE, width - 12, 11))
    return np.asarray(image)


def bar_of(scale: Scale, steps: int) -> UInt8[np.ndarray, "steps 3"]:
    """A scale's colours over mid grey, from its bottom to its top."""
    values = np.linspace(scale.bottom, scale.top, steps)[None]
    return blend(np.full((1, steps, 3), 128, np.uint8), values, scale)[0]


def with_legend(pixels: Pixels, scales: Sequence[Scale]) -> Pixels:
    """The picture with the legend under it; narrow pictures are padded so that the caveat is readable."""
    height, width = pixels.shape[:2]
    below = legend(max(width, 360), scales)
    out = np.full((height + len(below), below.shape[1], 3), PAPER, np.uint8)
    out[:height, :width] = pixels
    out[height:] = below
    return out


def face_panel(
    pixels: Pixels,
    crop: Crop,
    drawn: Sequence[tuple[Scale, Float[np.ndarray, "side side"]]],
    label: str,
) -> Pixels:
    """One face with its surroundings, plain and under each map, over the legend."""
    height, width = pixels.shape[:2]
    corners = crop.corners()
    room = 0.15 * (corners.max(0) - corners.min(0))
    left, top = np.clip(corners.min(0) - room, 0, (width, height)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(0) + room), 0, (width, height)).astype(int).tolist()
    views = [pixels, *(paint(pixels, [(crop, values)], scale) for scale, values in drawn)]
    shown = [resize(view[top:bottom, left:right], 448) for view in views]
    gap = np.full((shown[0].shape[0], 4, 3), PAPER, np.uint8)
    row = [shown[0], *(part for view in shown[1:] for part in (gap, view))]
    image = Image.fromarray(np.concatenate(row, axis=1))
    draw = ImageDraw.Draw(image)
    write(draw, (4, 4), label, 13)
    step = shown[0].shape[1] + 4
    for place, (scale, _) in enumerate(drawn, 1):
        write(draw, (place * step + 4, shown[0].shape[0] - 20), scale.name, 11)
    return with_legend(np.asarray(image), [scale for scale, _ in drawn])


def contact_sheet(cells: Sequence[tuple[Pixels, str]], scale: Scale, columns: int = 8) -> Pixels:
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
    return with_legend(np.asarray(sheet), [scale])


def crop_view(
    crop: Crop, values: Float[np.ndarray, "side side"], scale: Scale, side: int
) -> Pixels:
    """The aligned crop with a map, `side` pixels square."""
    image = Image.fromarray(crop.pixels).resize((side, side), Image.Resampling.BILINEAR)
    return blend(np.asarray(image), smooth(values, side), scale)


def smooth(values: Float[np.ndarray, "cells cells"], side: int) -> Float[np.ndarray, "side side"]:
    """A map at `side` pixels, without edges between patches."""
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitting(text: str, width: int, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font up to `size`, but at least 7, in which `text` is no wider than `width`."""
    while size > 7 and _font(size).getlength(text) > width:
        size -= 1
    return _font(size)
