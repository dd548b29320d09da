"""Keeps the pictures for the report page while a video is scored: few, and bounded in bytes.

A frame is kept small, for its surroundings. Each face in it is kept beside it in the frame's own pixels, and
each map as a layer of its own. The page lays them over each other in the frame's coordinates, by the numbers
that they were cut by. So the same bytes serve as thumbnail, as the frame that one can zoom into, and as what
a map lies on.
"""

from __future__ import annotations

import heapq
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from deepscan.faces.alignment import viewed
from deepscan.records import Crop, Frame, Output, Pixels
from deepscan.report import heatmap
from deepscan.shapes import Float

# Frames spread evenly over the sampled ones (all 32 by default), and those with the highest logits from
# anywhere else, since they are what a reader wants to see first.
EVEN, PEAKS = 32, 8
FACES = 24  # largest faces of one frame that are considered

# Longest side in pixels and most bytes of a JPEG, and of all of a kind: together some 2.2 MB in the page's
# text. The face that the result is about is served first, then each other once.
FRAME_SIDE, FRAME_BYTES = 640, 20_000
FACE_SIDE, FACE_BYTES, FACES_BYTES = 1024, 120_000, 500_000
THUMBNAIL_SIDE, THUMBNAIL_BYTES, THUMBNAILS_BYTES = 96, 2_000, 150_000
HEAT_BYTES, HEATS_BYTES = 2_560, 250_000
THUMBNAIL = "thumbnail.jpg"  # of a result, for lists: a thousand are 2.7 MB in an index


@dataclass(frozen=True, slots=True)
class FacePicture:
    """One face with its surroundings and, if maps were drawn, the layers that go over it.

    `jpeg` shows the `region` of the frame: left, top, width and height in its pixels; one of its own for
    each, unless there was no room for so many (see `_bounded`). `heat` has a layer for each kind of map, by
    its name: WebP with transparency, smooth between patches. `to_frame` (2, 3) maps a layer's square of
    `side` to the frame's pixels.
    """

    track: int
    jpeg: bytes
    region: tuple[int, int, int, int]
    heat: dict[str, bytes]
    side: int
    to_frame: Float[np.ndarray, "2 3"]
    logit: float = 0.0


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

    def frames(self, first: Collection[int] = ()) -> list[FramePicture]:
        """The kept frames, in order of time, within the bounds; faces of the tracks `first` come first."""
        peaks = [picture for _, _, picture in self._peaks]
        return _bounded(sorted([*self._even, *peaks], key=lambda p: p.index), first)

    def _take(self, frame: Frame, crops: Sequence[Crop], output: Output | None) -> FramePicture:
        height, width = frame.pixels.shape[:2]
        order = sorted(range(len(crops)), key=lambda i: -crops[i].face.box.area)[:FACES]
        # Evidence and attention: the page has a switch between two.
        kinds = heatmap.drawable(output)[:2] if self._heat and output is not None else ()
        drawn = {kind: heatmap.maps(output, kind) for kind in kinds} if output is not None else {}
        faces = []
        for i in sorted(order):
            seen = crops[i] if output is None else viewed(crops[i], output.view)
            left, top, right, bottom = around(crops[i], width, height)
            if right <= left or bottom <= top:
                continue
            faces.append(
                FacePicture(
                    seen.track,
                    jpeg(frame.pixels[top:bottom, left:right], FACE_SIDE, FACE_BYTES),
                    (left, top, right - left, bottom - top),
                    {kind.name: heat(values[i], kind) for kind, values in drawn.items()},
                    seen.pixels.shape[0],
                    seen.to_frame,
                    0.0 if output is None else float(output.logit[i]),
                )
            )
        picture = jpeg(frame.pixels, FRAME_SIDE, FRAME_BYTES)
        return FramePicture(frame.index, float(frame.time), width, height, picture, tuple(faces))


def thumbnail(frames: Sequence[FramePicture], track: int | None, index: int | None) -> bytes | None:
    """A small JPEG for lists; None without frames.

    It shows the face `track` in the kept frame nearest to `index`, or the middle frame without such a face.
    """
    faces = [
        (frame.index, face.jpeg) for frame in frames for face in frame.faces if face.track == track
    ]
    if faces and index is not None:
        found = min(faces, key=lambda pair: abs(pair[0] - index))[1]
    elif frames:
        found = frames[len(frames) // 2].jpeg
    else:
        return None
    return _thumbnail(found)


def around(crop: Crop, width: int, height: int) -> tuple[int, int, int, int]:
    """The frame's pixels that a crop was cut from: left, top, right, bottom, whole and inside it."""
    corners = crop.corners()
    left, top = np.clip(np.floor(corners.min(0)), 0, (width, height)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(0)), 0, (width, height)).astype(int).tolist()
    return left, top, right, bottom


def _bounded(pictures: Sequence[FramePicture], first: Collection[int]) -> list[FramePicture]:
    """The same frames, with as many faces and maps as there is room for, the most telling first.

    Where there is no more room for a face in the frame's own pixels it gets a thumbnail, then no picture.
    """
    every = [(face, at) for at, picture in enumerate(pictures) for face in picture.faces]
    best: dict[int, float] = {}
    for face, _ in every:
        best[face.track] = max(face.logit, best.get(face.track, face.logit))
    every.sort(
        key=lambda one: (
            one[0].track not in first,
            one[0].logit < best[one[0].track],
            -one[0].logit,
            one[1],
        )
    )
    room, small_room, map_room = FACES_BYTES, THUMBNAILS_BYTES, HEATS_BYTES
    kept: list[list[FacePicture]] = [[] for _ in pictures]
    for face, at in every:
        if len(face.jpeg) <= room:
            room -= len(face.jpeg)
        else:
            face = replace(face, jpeg=_thumbnail(face.jpeg))
            if len(face.jpeg) > small_room:
                continue
            small_room -= len(face.jpeg)
        if (maps := sum(map(len, face.heat.values()))) <= map_room:
            map_room -= maps
        else:
            face = replace(face, heat={})
        kept[at].append(face)
    return [
        replace(picture, faces=tuple(sorted(own, key=lambda face: face.track)))
        for picture, own in zip(pictures, kept, strict=True)
    ]


def _thumbnail(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return jpeg(np.asarray(image), THUMBNAIL_SIDE, THUMBNAIL_BYTES)


def jpeg(pixels: Pixels, side: int, limit: int) -> bytes:
    """A JPEG of at most `limit` bytes and `side` pixels; if need be coarser, then smaller."""
    image = Image.fromarray(heatmap.resize(pixels, side))
    for quality in (85, 75, 60, 45, 25):
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
