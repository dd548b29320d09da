"""Where a crop is manipulated, by what differs from the real crop of the same frame."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, optimize

from deepscan.faces.alignment import CROP_SIDE, similarity, warp
from deepscan.records import Pixels
from deepscan.shapes import Bool, Float

Points = Float[np.ndarray, "5 2"]  # landmarks, x and y in a picture's pixels
Mask = Bool[np.ndarray, "h w"]

# A forged region, as in data/cutting.py: blurred, above what encoding leaves.
BLUR, FLOOR, ABOVE, CLOSE = 6.0, 25, 3.5, 12
EDGE = 8  # pixels at each side of a crop
AROUND = 8.0  # grey levels around the face; above it two pictures do not show the same frame
CHANGED = 4.0  # grey levels in the face's middle; below it nothing is manipulated to be seen
WIDEST = 0.6  # share of the crop; what covers more is no face

HEAD = 1.9  # radius of a head, by the distance of its farthest landmark from their mean
BLACK = 8  # levels; what is darker, from the crop's edge on, lies outside the frame
STEP = 7  # of the pixels around a head, every STEP-th says how two crops lie
DETAIL = 1.5  # pixels, sigma: finer detail is what encoding left
OUTLIER = 6.0  # grey levels from which a pixel's difference counts less


def difference(real: Pixels, fake: Pixels) -> Mask | None:
    """Where two crops differ that were cut alike; None if they show other frames, or no change is seen."""
    edge = np.ones(fake.shape[:2], bool)
    edge[EDGE:-EDGE, EDGE:-EDGE] = False
    return _region(real, fake, edge, np.ones_like(edge))


def of_panels(real: Pixels, real_points: Points, fake: Pixels, fake_points: Points) -> Mask | None:
    """Where a crop differs from that of the real panel beside it; None as for `difference`.

    Each was cut by the landmarks of its own face, which a swap moves. So what is around the head says how
    the real crop lies on the other.
    """
    start = similarity(fake_points, real_points)
    around = _shown_in_both(real, fake, start) & ~_head(fake_points, len(fake))
    if not around.any():
        return None
    to_real = _registered(real, fake, start, around)
    shown = _shown_in_both(real, fake, to_real)
    return _region(warp(real, to_real, len(fake)), fake, around & shown, shown)


def _head(points: Points, side: int) -> Mask:
    """A circle around a face's landmarks."""
    across = np.arange(side) + 0.5
    centre = points.mean(0)
    radius = HEAD * np.linalg.norm(points - centre, axis=1).max()
    return np.hypot(across - centre[0], across[:, None] - centre[1]) < radius


def _shown(pixels: Pixels) -> Mask:
    """What of a crop lies inside its frame, but for a rim that black has blurred into."""
    dark, _ = ndimage.label(np.pad(pixels.max(2) < BLACK, 1, constant_values=True))
    return ndimage.binary_erosion(dark != dark[0, 0], iterations=3)[1:-1, 1:-1]


def _shown_in_both(real: Pixels, fake: Pixels, to_real: Float[np.ndarray, "2 3"]) -> Mask:
    shown = _shown(real).astype(np.uint8)[..., None].repeat(3, 2)
    return _shown(fake) & (warp(shown, to_real, len(fake))[..., 0] > 0)


def _registered(
    real: Pixels, fake: Pixels, start: Float[np.ndarray, "2 3"], around: Mask
) -> Float[np.ndarray, "2 3"]:
    """The similarity that takes `fake`'s pixels `around` to where `real` is most like them.

    Least squares of grey levels in which far outliers count less, from `start` on: shifts in pixels, a
    turn and a change of size in hundredths.
    """
    rows, columns = (found[::STEP] for found in np.nonzero(around))
    places = np.stack([columns, rows], 1) + 0.5
    theirs, own = (ndimage.gaussian_filter(pixels.mean(2), DETAIL) for pixels in (real, fake))
    middle = np.full(2, len(fake) / 2)

    def moved(by: Float[np.ndarray, " 4"]) -> Float[np.ndarray, "2 3"]:
        across, down, larger, turned = by * (1, 1, 0.01, 0.01)
        turn = np.array([(1 + larger, -turned), (turned, 1 + larger)])
        linear = start[:, :2] @ turn
        shift = start[:, :2] @ (middle - turn @ middle + (across, down)) + start[:, 2]
        return np.column_stack([linear, shift])

    def differences(by: Float[np.ndarray, " 4"]) -> Float[np.ndarray, " n"]:
        to_real = moved(by)
        x, y = (places @ to_real[:, :2].T + to_real[:, 2]).T - 0.5
        found = ndimage.map_coordinates(theirs, [y, x], order=1, mode="nearest")
        return found - own[rows, columns]

    found = optimize.least_squares(
        differences, np.zeros(4), loss="soft_l1", f_scale=OUTLIER, max_nfev=60
    )
    return moved(found.x)


def _region(real: Pixels, fake: Pixels, around: Mask, shown: Mask) -> Mask | None:
    """What differs by more than encoding leaves, if what is `around` the face is one frame's in both."""
    if not around.any():
        return None
    change = np.abs(real.astype(np.float32) - fake).mean(2) * shown
    sigma = BLUR * len(fake) / CROP_SIDE
    weight = ndimage.gaussian_filter(shown.astype(np.float32), sigma)
    change = ndimage.gaussian_filter(change, sigma) / np.maximum(weight, 1e-6)
    level = float(np.median(change[around]))
    third = slice(len(change) // 3, 2 * len(change) // 3)
    if level > AROUND or change[third, third].mean() < max(CHANGED, 2 * level):
        return None
    mask = shown & (change > np.percentile(change[shown], FLOOR) + ABOVE)
    mask = ndimage.binary_closing(np.pad(mask, CLOSE), iterations=CLOSE)[CLOSE:-CLOSE, CLOSE:-CLOSE]
    parts, count = ndimage.label(mask)
    if not count:
        return None
    sizes = ndimage.sum_labels(mask, parts, range(1, count + 1))
    mask = parts == 1 + int(np.argmax(sizes))
    return None if mask.mean() > WIDEST else ndimage.binary_fill_holes(mask)
