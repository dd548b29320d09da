"""Finds all faces in a batch of frames: FaceFinder decides at what size to search, `mtcnn` searches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from deepscan.faces.mtcnn import FIELD, Detections, Mtcnn
from deepscan.records import Box, Face, Frame
from deepscan.shapes import Float, UInt8

# At most so many faces are judged in one frame, the largest: ten thousand crops would take two gigabytes.
MOST = 100


@dataclass(frozen=True, slots=True)
class Found:
    """The faces of one frame, largest first, and how many were left out as too small or too many."""

    faces: tuple[Face, ...]
    too_small: int
    too_many: int = 0


class FaceFinder:
    """MTCNN behind one call.

    Args:
        min_size: smallest face wanted, in frame pixels (see Box.size).
        min_confidence: faces MTCNN is less sure of are dropped.
        working_side: frames are shrunk to this longer side first, unless that would hide faces of
            `min_size`. Frames in which nothing is found that way get a second look at full size.
        device: torch device.
    """

    def __init__(
        self, min_size: int, min_confidence: float, working_side: int, device: str = "cpu"
    ) -> None:
        self._min_size = min_size
        self._min_confidence = min_confidence
        self._working_side = working_side
        self._net = Mtcnn(device)

    def find(self, frames: Sequence[Frame]) -> list[Found]:
        """Faces of each frame, in the frames' order. Frames of one size are searched in one batch."""
        found: list[Found | None] = [None] * len(frames)
        sizes = {frame.pixels.shape for frame in frames}
        for size in sizes:
            places = [i for i, frame in enumerate(frames) if frame.pixels.shape == size]
            scale = min(1.0, max(self._working_side / max(size[:2]), FIELD / self._min_size))
            for i, result in zip(
                places, self._look([frames[i] for i in places], scale), strict=True
            ):
                if scale < 1 and not result.faces:
                    result = self._look([frames[i]], 1.0)[0]
                found[i] = result
        return [result for result in found if result is not None]

    def _look(self, frames: Sequence[Frame], scale: float) -> list[Found]:
        """Search frames of one size, shrunk by `scale`."""
        height, width = frames[0].pixels.shape[:2]
        smallest = max(float(FIELD), self._min_size * scale)
        size = (round(width * scale), round(height * scale))
        if min(size) < smallest:  # too small to hold a face, or to be shrunk at all
            return [Found((), 0) for _ in frames]
        pixels = [f.pixels if scale == 1 else shrink(f.pixels, size) for f in frames]
        back = np.array((width / size[0], height / size[1]))
        # A single frame, which may be large, is not copied.
        images = pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
        return [self._found(_faces(one, back)) for one in self._net.detect(images, smallest)]

    def _found(self, faces: Iterable[Face]) -> Found:
        sure = sorted(
            (f for f in faces if f.confidence >= self._min_confidence), key=lambda f: -f.box.size
        )
        large = tuple(f for f in sure if f.box.size >= self._min_size)
        return Found(large[:MOST], len(sure) - len(large), len(large[MOST:]))


def _faces(found: Detections, back: Float[np.ndarray, " 2"]) -> Iterable[Face]:
    """MTCNN's detections in one frame as records, scaled `back` to frame pixels."""
    boxes = found.boxes.astype(float) * np.tile(back, 2)
    landmarks = found.landmarks.astype(float) * back
    for box, confidence, points in zip(boxes, found.confidences, landmarks, strict=True):
        left, top, right, bottom = box.tolist()
        if right > left and bottom > top:
            yield Face(Box(left, top, right, bottom), float(confidence), points)


def shrink(pixels: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> np.ndarray:
    """Resample to `size` (width, height): Pillow's pixels, in a seventh of the time."""
    planes = torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)[None]
    shrunk = functional.interpolate(planes, size[::-1], mode="bilinear", antialias=True)
    return shrunk[0].permute(1, 2, 0).numpy()
