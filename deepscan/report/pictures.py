"""Keeps the pictures for the report page while a video is scored: few, small and bounded in bytes.

Frames are kept plain. The page draws boxes over them from the numbers in report.json and places each map,
a small layer of its own, by the crop's alignment. So the same bytes serve as the plain picture, as the
overlay, and for everything between the two on the page's slider.
"""

from __future__ import annotations

import heapq
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from deepscan.faces.alignment import viewed
from deepscan.records import Crop, Frame, Output, Pixels
from deepscan.report import heatmap
from deepscan.shapes import Float

# Frames spread evenly over the sampled ones (all 32 by default), and those with the highest logits from
# anywhere else, since they are what a reader wants to see first.
EVEN, PEAKS = 48, 16
FACES = 10  # largest faces of one frame that get a thumbnail

# Longest side in pixels and most bytes of a JPEG. A thumbnail is shown at up to 88 CSS pixels.
FRAME_SIDE, FRAME_BYTES = 640, 64 * 1024
CROP_SIDE, CROP_BYTES = 120, 5 * 1024
HEAT_BYTES = 2560


@dataclass(frozen=True, slots=True)
class FacePicture:
    """One face as the detector saw it and, if maps were drawn, the layers that go over it.

    `heat` has a layer for each kind of map, by its name: WebP with transparency, smooth between patches.
    `to_frame` (2, 3) maps pixels of what was seen, `side` wide, to the frame's.
    """

    track: int
    jpeg: bytes
    heat: dict[str, bytes]
    side: int
    to_frame: Float[np.ndarray, "2 3"]


@dataclass(frozen=True, slots=True)
class FramePicture:
    """One sampled frame; `width` and `height` are the frame's own, the JPEG may be smaller."""

    index: int
    time: float
    width: int
    height: int
    jpeg: bytes
    faces: tuple[FacePicture, ...]


class Pictures:
    """Takes every sampled frame and keeps a bounded selection.

    Args:
        instants: the number of frames to expect, for spreading the kept ones evenly.
        heat: also keep the maps over each face.
    """

    def __init__(self, instants: int, heat: bool) -> None:
        self._stride, self._heat = max(1, -(-instants // EVEN)), heat
        self._even: list[FramePicture] = []
        self._peaks: list[tuple[float, int, FramePicture]] = []  # a heap, lowest logit first
        self._seen = 0

    def add(self, frame: Frame, crops: Sequence[Crop], output: Output | None) -> None:
        """Consider one frame and its scored faces; `output` belongs to `crops`, None if there are none."""
        number, self._seen = self._seen, self._seen + 1
        if number % self._stride == 0:
            self._even.append(self._take(frame, crops, output))
        elif output is not None:
            highest = float(output.logit.max())
            if len(self._peaks) < PEAKS:
                heapq.heappush(self._peaks, (highest, number, self._take(frame, crops, output)))
            elif highest > self._peaks[0][0]:
                heapq.heapreplace(self._peaks, (highest, number, self._take(frame, crops, output)))

    def frames(self) -> list[FramePicture]:
        """The kept frames, in order of time."""
        peaks = [picture for _, _, picture in self._peaks]
        return sorted([*self._even, *peaks], key=lambda picture: picture.index)

    def _take(self, frame: Frame, crops: Sequence[Crop], output: Output | None) -> FramePicture:
        height, width = frame.pixels.shape[:2]
        order = sorted(range(len(crops)), key=lambda i: -crops[i].face.box.area)[:FACES]
        # Evidence and attention: the page has a switch between two.
        kinds = heatmap.drawable(output)[:2] if self._heat and output is not None else ()
        drawn = {kind: heatmap.maps(output, kind) for kind in kinds} if output is not None else {}
        faces = []
        for i in sorted(order):
            crop = crops[i] if output is None else viewed(crops[i], output.view)
            faces.append(
                FacePicture(
                    crop.track,
                    jpeg(crop.pixels, CROP_SIDE, CROP_BYTES),
                    {kind.name: heat(values[i], kind) for kind, values in drawn.items()},
                    crop.pixels.shape[0],
                    crop.to_frame,
                )
            )
        picture = jpeg(frame.pixels, FRAME_SIDE, FRAME_BYTES)
        return FramePicture(frame.index, float(frame.time), width, height, picture, tuple(faces))


def jpeg(pixels: Pixels, side: int, limit: int) -> bytes:
    """A JPEG of at most `limit` bytes and `side` pixels; if need be coarser, then smaller."""
    image = Image.fromarray(heatmap.resize(pixels, side))
    for quality in (80, 65, 45, 25):
        data = io.BytesIO()
        image.save(data, "JPEG", quality=quality)
        if data.tell() <= limit:
            return data.getvalue()
    return jpeg(pixels, side // 2, limit)


def heat(values: Float[np.ndarray, "cells cells"], scale: heatmap.Scale) -> bytes:
    """A map as a WebP of at most HEAT_BYTES, with `heatmap.blend`'s colours and opacity."""
    for side in (56, 28, 14):
        smooth = heatmap.smooth(values, side)
        alpha = (255 * heatmap.opacity(smooth, scale)).round().astype(np.uint8)
        data = io.BytesIO()
        drawn = np.dstack([heatmap.colours(smooth, scale), alpha])
        Image.fromarray(drawn).save(data, "WEBP", quality=70)
        if data.tell() <= HEAT_BYTES:
            break
    return data.getvalue()
