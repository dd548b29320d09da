"""Reads a face's logits over time: runs, intervals, scene cuts.

Only the sampled instants are known. A run or a stretch is named by its first and last instant; whether it
goes on after its last instant, before the next sampled one, is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from deepscan.judgement.words import rounded, rounded_down, rounded_up
from deepscan.records import FEWEST_FRAMES, Frame, FrameEvidence, Interval, Pixels, Stretch
from deepscan.shapes import Float

LEVEL = 0.95
# Student's t, 97.5 %, with 2 and more degrees of freedom.
STUDENT = (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)
MOST_ALIKE = (
    0.7  # correlation of neighbours; more makes the interval endless, and few logits show none
)

# Keeps a report readable and bounded, however often a noisy face crosses the threshold.
MOST_RUNS = 100


def interval(logits: Sequence[float]) -> Interval | None:
    """95 % interval of the mean over time, from logits at instants evenly apart; None for too few.

    Neighbouring frames resemble each other, so the mean varies by how the curve swings slowly, not by how
    single frames do. The slow swing is what the first B cosines over the video find,
    c_j = sqrt(2 / n) sum_t x_t cos(w_j (t - 1/2)), w_j = pi j / n: their mean square is n times the mean's
    variance, with B degrees of freedom of Student's t. For independent normal logits this is exact at any n,
    which no bootstrap is. Source: E. Lazarus, D. Lewis, J. Stock and M. Watson, "HAR inference:
    recommendations for practice", Journal of Business & Economic Statistics 36, 2018 (equal-weighted
    cosines). B is smaller than theirs, 0.3 n^(2/3), because frames of a video are more alike than quarters
    of a year.

    Even the slowest cosine swings faster than the mean, so its square falls short by what a first-order
    autoregression says: (1 - r)^2 / (1 - 2 r cos w + r^2), where r is the correlation of neighbours, which
    few logits show too small by (1 + 3 r) / n. Sources: D. Andrews and J. Monahan, Econometrica 60, 1992
    (prewhitening); M. Kendall, Biometrika 41, 1954 (the bias). The last factor, 1 + 1/n, is for skewed
    logits; tests/judgement/test_timeline.py measures the coverage.

    It covers which instants were looked at, not the detector's errors.
    """
    n = len(logits)
    if n < FEWEST_FRAMES:
        return None
    values = np.asarray(logits, float)
    apart = values - values.mean()
    alike = float(apart[1:] @ apart[:-1] / max(apart @ apart, 1e-12))
    r = min(max(0.0, alike + (1 + 3 * alike) / n), MOST_ALIKE)
    count = min(max(2, int(0.3 * n ** (2 / 3))), len(STUDENT) + 1)
    speeds = np.pi / n * np.arange(1, count + 1)
    swings = np.sqrt(2 / n) * np.cos(np.outer(speeds, np.arange(n) + 0.5)) @ values
    squares = swings**2 * (1 - 2 * r * np.cos(speeds) + r**2) / (1 - r) ** 2
    half = STUDENT[count - 2] * float(np.sqrt(squares.mean() / n)) * (1 + 1 / n)
    return Interval(rounded_down(values.mean() - half), rounded_up(values.mean() + half))


def unbroken(
    frames: Sequence[FrameEvidence], instants: Sequence[int]
) -> Iterator[list[FrameEvidence]]:
    """A face's frames, split wherever it was not scored at a sampled instant.

    `instants` are the display-order indices of all sampled frames, ascending.
    """
    place = {index: i for i, index in enumerate(instants)}
    piece: list[FrameEvidence] = []
    for frame in frames:
        if piece and place[frame.frame_index] != place[piece[-1].frame_index] + 1:
            yield piece
            piece = []
        piece.append(frame)
    if piece:
        yield piece


def runs(
    frames: Sequence[FrameEvidence], instants: Sequence[int], high: float
) -> tuple[Stretch, ...]:
    """All unbroken runs of instants at or above `high`, in order of time; only the longest if many."""
    found: list[Stretch] = []
    for piece in unbroken(frames, instants):
        above: list[FrameEvidence] = []
        for frame in piece:
            if rounded(frame.logit) >= high:
                above.append(frame)
            elif above:
                found.append(stretch_of(above))
                above = []
        if above:
            found.append(stretch_of(above))
    longest = sorted(found, key=lambda run: -run.frames)[:MOST_RUNS]
    return tuple(sorted(longest, key=lambda run: run.start))


def stretch_of(frames: Sequence[FrameEvidence]) -> Stretch:
    """From the first of these frames to the last, with their mean."""
    mean = rounded(float(np.mean([frame.logit for frame in frames])))
    return Stretch(frames[0].track, frames[0].time, frames[-1].time, len(frames), mean)


# --- scene cuts ------------------------------------------------------------------------------------

Thumbnail = Float[np.ndarray, "down across"]  # 18 x 32, or a part of it


def thumbnail(pixels: Pixels) -> Thumbnail:
    """The whole frame, tiny and grey: enough to see a change of scene, but not of pose."""
    # Only every third or tenth pixel of a large frame: Pillow copies its input, and a cell still averages 256
    # pixels and more.
    step = max(1, min(pixels.shape[0] // 18, pixels.shape[1] // 32) // 16)
    some = Image.fromarray(pixels[::step, ::step])
    small = some.resize((32, 18), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small.convert("L")).astype(float)


def change(a: Thumbnail, b: Thumbnail) -> float:
    """How much the picture changed even where it changed least, in standard deviations.

    Heads and hands move before a background that stays, so this takes the 35th percentile of the cells'
    differences: across a cut nearly all cells differ. Overall brightness and contrast are removed first.
    """
    return float(np.quantile(np.abs(_levelled(a) - _levelled(b)), UNMOVED))


def _levelled(picture: Thumbnail) -> Thumbnail:
    return (picture - picture.mean()) / max(float(picture.std()), FAINT)


UNMOVED = 0.35
FAINT = 4.0  # grey levels; below this a picture is plain, and its noise is not a pattern

# SUDDEN was chosen on 62 recordings of talking people (9 clips, the originals of 53 demos) at 32 instants
# each and nearly 800 artificial cuts between two of them, 97 % of which reach it. Correlating whole
# thumbnails mistook leaning heads for cuts in three of them. Of 120 pans made over stills, 70 reach SUDDEN,
# and all of these fit when moved; of 300 artificial cuts none does.
SUDDEN = 0.3
FITS = 0.2


class Scenes:
    """Takes all sampled frames in order and finds where the scene is cut between them."""

    def __init__(self) -> None:
        self._last: Thumbnail | None = None

    def add(self, frame: Frame) -> bool:
        """Take the next sampled frame; whether the scene was cut since the one before.

        A cut changes nearly all of the picture, and not as a moving camera does: however the one picture is
        moved over the other, it does not fit. So a change of everything at every instant, as in quick
        cutting, is a cut each time, and a pan is none.
        """
        seen = thumbnail(frame.pixels)
        last, self._last = self._last, seen
        return last is not None and change(last, seen) >= SUDDEN and moved(last, seen) >= FITS


def moved(a: Thumbnail, b: Thumbnail) -> float:
    """The smallest `change` of what two pictures share, half or more, when one is moved over the other."""
    height, width = a.shape
    least = math.inf
    for x in range(-width // 2, width // 2 + 1):
        for y in range(-height // 2, height // 2 + 1):
            if (width - abs(x)) * (height - abs(y)) >= a.size / 2:
                here = a[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
                there = b[max(0, -y) : height + min(0, -y), max(0, -x) : width + min(0, -x)]
                least = min(least, change(here, there))
    return least
