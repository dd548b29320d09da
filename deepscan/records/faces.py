"""A face in a frame, the crop cut from it, and what the detector says about a batch of crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from deepscan.records.media import Pixels
from deepscan.shapes import Float


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in display pixels, half-open; it may reach outside the frame."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not (self.right > self.left and self.bottom > self.top):
            raise ValueError(f"empty or inside-out box: {self}")

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def size(self) -> float:
        """Side of the square of equal area, in pixels: "the face size" everywhere in deepscan."""
        return float(np.sqrt(self.area))

    def iou(self, other: Box) -> float:
        """Intersection over union, 0 to 1."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(across, 0.0) * max(down, 0.0)
        return shared / (self.area + other.area - shared)


@dataclass(frozen=True, slots=True)
class Face:
    """A detected face: where it is, how sure the finder is, and its five landmarks.

    `landmarks` (5, 2), x and y: left eye, right eye, nose, left and right mouth corner, left meaning
    left in the picture.
    """

    box: Box
    confidence: float
    landmarks: Float[np.ndarray, "5 2"]


@dataclass(frozen=True, slots=True)
class CropQuality:
    """Properties that can make a crop weak evidence."""

    face_size: float  # pixels in the frame, see Box.size
    sharpness: float  # variance of the Laplacian of the aligned grey crop (grey levels squared)
    brightness: float  # mean grey level of the aligned crop's inside, 0 to 255
    turn: float  # |nose offset from mid-eyes| / eye distance along the eye line: 0 frontal, 0.5+ profile
    inside: float  # share of the crop that lies within the frame, 0 to 1


@dataclass(frozen=True, slots=True)
class Crop:
    """An aligned face and the way back to the frame it was cut from.

    `to_frame` (2, 3) maps crop pixels to display pixels: (x, y) = to_frame @ (u, v, 1).
    """

    track: int
    frame_index: int
    time: Fraction
    face: Face
    pixels: Pixels
    to_frame: Float[np.ndarray, "2 3"]
    quality: CropQuality

    def __repr__(self) -> str:
        return f"Crop(track={self.track}, time={float(self.time):.3f}, {self.pixels.shape})"

    def corners(self) -> Float[np.ndarray, "4 2"]:
        """Corners of the crop in display pixels, clockwise from the top left."""
        side = self.pixels.shape[0]
        square = np.array([(0, 0, 1), (side, 0, 1), (side, side, 1), (0, side, 1)], float)
        return square @ self.to_frame.T


@dataclass(frozen=True, slots=True)
class Output:
    """The detector's output for a batch of crops, as numpy arrays.

    Both attentions are averaged over heads and sum to 1 over patches, which run row by row over a square
    grid. A detector without queries classifies [CLS], whose attention then stands in both.

    `evidence` is what each patch adds to the logit, and `constant` what none of them adds: together they
    are the logit. Without queries no part comes from a patch: evidence is (b, 0), the constant the logit.
    `likelihood` is the probability that each patch is manipulated, (b, 0) from a detector that was not taught
    to tell. `view` is the share of the crop's side that the patches cover (see faces.alignment.seen).
    """

    logit: Float[np.ndarray, " b"]
    query_attention: Float[np.ndarray, "b k p"]
    cls_attention: Float[np.ndarray, "b p"]
    evidence: Float[np.ndarray, "b e"]
    constant: Float[np.ndarray, " b"]
    likelihood: Float[np.ndarray, "b l"]
    view: float = 1.0

    def __len__(self) -> int:
        return len(self.logit)

    def part(self, crops: slice) -> Output:
        """Of some of the crops."""
        logit, query, cls, evidence, constant, likely = (values[crops] for values in self._arrays())
        return Output(logit, query, cls, evidence, constant, likely, self.view)

    @classmethod
    def joined(cls, parts: Sequence[Output]) -> Output:
        """Of all the parts' crops, one part after another."""
        columns = zip(*(part._arrays() for part in parts), strict=True)
        logit, query, attention, evidence, constant, likely = map(np.concatenate, columns)
        return cls(logit, query, attention, evidence, constant, likely, parts[0].view)

    def _arrays(self) -> tuple[np.ndarray, ...]:
        attentions = self.query_attention, self.cls_attention
        return self.logit, *attentions, self.evidence, self.constant, self.likelihood
