"""Cuts a face out of its frame: an upright, centred crop of fixed size, with the way back to the frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from deepscan.records import Crop, CropQuality, Face, Frame, Pixels
from deepscan.shapes import Bool, Float

CROP_SIDE = 256

# DeepfakeBench's template: ArcFace's five points with a margin of 1.3, in a crop of 256 pixels.
# Left eye, right eye, nose, left and right mouth corner; x, y.
TEMPLATE: Float[np.ndarray, "5 2"] = np.array(
    [(96.87, 120.43), (158.83, 120.09), (128.04, 155.67), (102.59, 191.94), (153.90, 191.66)]
)


# The right half of a face's outline in such a crop, from hairline to chin; x from the crop's middle.
FACE: Float[np.ndarray, "n 2"] = np.array(
    [(0, 58), (30, 62), (52, 78), (63, 102), (65, 128),
     (61, 158), (53, 188), (39, 214), (20, 230), (0, 235)], float,
)  # fmt: skip

# By how many pixels of a crop the middle of what a detector sees lies lower, as its view narrows to nothing.
LOWER = 60


def seen(share: float, side: int = CROP_SIDE) -> tuple[int, int, int]:
    """The square that a `view` of this share of a crop's side covers: left, top, side, in pixels.

    A narrower view lies lower: the middle of a crop is between the eyes, that of a face on the nose.
    """
    size = round(side * share)
    lower = LOWER * (1 - share) * side / CROP_SIDE
    return (side - size) // 2, round((side - size) / 2 + lower), size


def viewed(crop: Crop, share: float) -> Crop:
    """The part of a crop that is seen with a `view` of this share, with its own way back to the frame."""
    left, top, size = seen(share, len(crop.pixels))
    to_frame = crop.to_frame.copy()
    to_frame[:, 2] += to_frame[:, :2] @ (left, top)
    pixels = crop.pixels[top : top + size, left : left + size]
    return replace(crop, pixels=pixels, to_frame=to_frame)


def on_face(share: float, grid: int) -> Bool[np.ndarray, " p"]:
    """Which of grid x grid patches of a view, row by row, lie on the face by more than a quarter."""
    left, top, size = seen(share)
    fine = 16  # points a side of each patch
    at = (np.arange(grid * fine) + 0.5) * size / (grid * fine)
    # The outline is as wide at every height as its right half is, read as a function of the height.
    half = np.interp(top + at, FACE[:, 1], FACE[:, 0], left=-1, right=-1)
    inside = np.abs(left + at - CROP_SIDE / 2)[None, :] < half[:, None]
    covered = inside.reshape(grid, fine, grid, fine).mean((1, 3))
    return covered.ravel() > 0.25


def align(frame: Frame, face: Face, track: int) -> Crop:
    """Cut the face out of its frame so that its landmarks fit the template's as well as possible.

    What lies outside the frame is black, as in DeepfakeBench's crops.
    """
    to_crop = similarity(face.landmarks, TEMPLATE)
    to_frame = invert(to_crop)
    pixels = warp(frame.pixels, to_frame, CROP_SIDE)
    return Crop(
        track,
        frame.index,
        frame.time,
        face,
        pixels,
        to_frame,
        _quality(frame, face, pixels, to_frame),
    )


def similarity(
    source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "2 3"]:
    """Least-squares rotation, uniform scale and shift taking `source` to `target`.

    Source: S. Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", PAMI 1991, eqs. 40-42; in the plane it reduces to one complex number z with
    target = z source + shift, z = <source, target> / |source|^2 of the centred points.

    Returns:
        (2, 3) matrix M with target ~ M @ (x, y, 1).
    """
    mean_s, mean_t = source.mean(0), target.mean(0)
    s, t = (source - mean_s) @ (1, 1j), (target - mean_t) @ (1, 1j)
    spread = float(np.vdot(s, s).real)
    if spread == 0:
        raise ValueError("all source points coincide, so no similarity transform exists")
    z = complex(np.vdot(s, t)) / spread
    linear = np.array([(z.real, -z.imag), (z.imag, z.real)])
    return np.column_stack([linear, mean_t - linear @ mean_s])


def invert(matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """The affine map that undoes `matrix`."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def warp(pixels: Pixels, to_frame: Float[np.ndarray, "2 3"], side: int) -> Pixels:
    """Resample a square of `side` pixels whose point (u, v) shows the frame's point to_frame @ (u, v, 1).

    Coordinates are continuous: the first pixel's centre is (0.5, 0.5). If the frame has more detail than
    the crop can hold, it is first shrunk with an area filter to avoid aliasing.
    """
    step = float(np.sqrt(abs(np.linalg.det(to_frame[:, :2]))))  # frame pixels per crop pixel
    corners = np.array([(0, 0, 1), (side, 0, 1), (0, side, 1), (side, side, 1)], float) @ to_frame.T
    margin = 2 * max(step, 1.0)  # further than the filters reach
    low, high = np.clip((corners.min(0) - margin, corners.max(0) + margin), 0, pixels.shape[1::-1])
    if (high - low < 1).any():  # the crop lies outside the frame altogether
        return np.zeros((side, side, 3), np.uint8)
    # Pillow copies its input, so it gets only part of the frame, with a margin that no filter reaches beyond.
    left, top = first = np.maximum(np.floor(low - margin), 0).astype(int)
    right, bottom = np.ceil(high + margin).astype(int)
    image = Image.fromarray(pixels[top:bottom, left:right])
    if step > 1:
        size = np.maximum(np.ceil((high - low) / step), 1).astype(int)
        # Rounded to Pillow's precision before the offset is subtracted, so that pixels do not depend on it.
        box = np.array((low, high), np.float32).astype(float) - first
        image = image.resize(
            (int(size[0]), int(size[1])), Image.Resampling.BILINEAR, box=tuple(box.ravel().tolist())
        )
        shrink = size / (high - low)
        to_frame = np.column_stack([to_frame[:, :2], to_frame[:, 2] - low]) * shrink[:, None]
    else:
        to_frame = np.column_stack([to_frame[:, :2], to_frame[:, 2] - first])
    coefficients = tuple(to_frame.ravel().tolist())
    return np.asarray(
        image.transform(
            (side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
        )
    )


def _quality(
    frame: Frame, face: Face, pixels: Pixels, to_frame: Float[np.ndarray, "2 3"]
) -> CropQuality:
    grey = pixels.astype(np.float32) @ np.array((0.299, 0.587, 0.114), np.float32)
    laplacian = (
        grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    )
    left_eye, right_eye, nose = face.landmarks[:3]
    eyes = right_eye - left_eye
    distance = max(float(np.hypot(*eyes)), 1e-6)
    turn = abs(float((nose - (left_eye + right_eye) / 2) @ eyes)) / distance**2
    centres = (np.arange(16) + 0.5) * (CROP_SIDE / 16)
    grid = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)
    x, y = (np.column_stack([grid, np.ones(len(grid))]) @ to_frame.T).T
    height, width = frame.pixels.shape[:2]
    inside = float(((x >= 0) & (x < width) & (y >= 0) & (y < height)).mean())
    quarter = CROP_SIDE // 4
    return CropQuality(
        face_size=face.box.size,
        sharpness=float(laplacian.var()),
        brightness=float(grey[quarter:-quarter, quarter:-quarter].mean()),
        turn=turn,
        inside=inside,
    )
