"""Reads a face's logits over time: runs, the stretch that stands out, intervals, scene cuts.

Only the sampled instants are known. A run or a stretch is named by its first and last instant; whether it
goes on after its last instant, before the next sampled one, is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from PIL import Image

from deepscan.records import Frame, FrameEvidence, Interval, Pixels, Stretch
from deepscan.shapes import Float

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0  # fixed, so that a report can be reproduced to the last digit

# With fewer frames there are hardly two independent blocks to draw from, and an interval would pretend to
# know the spread.
FEWEST_FRAMES = 8

# A tenth of a video holds three of the 32 instants sampled by default. Shorter stretches are not reported:
# single frames of real faces (a blink, motion blur) cross the threshold too often. An earlier detector, on
# 43 demos that it was mostly trained on, reported a swapped tenth within its bounds in 39, and something in
# 1 of their 43 originals.
FEWEST_IN_STRETCH = 3

# Keeps a report readable and bounded, however often a noisy face crosses the threshold.
MOST_RUNS = 100


def interval(logits: Sequence[float]) -> Interval | None:
    """95 % interval of the mean of successive logits; None for fewer than FEWEST_FRAMES.

    Neighbouring frames resemble each other, so whole blocks of neighbours are drawn, not frames: the
    moving-block bootstrap with blocks of n^(1/3). Source: H. R. Kuensch, "The jackknife and the
    bootstrap for general stationary observations", Annals of Statistics 17, 1989; for the block length,
    P. Hall, J. Horowitz and B.-Y. Jing, Biometrika 82, 1995. The interval covers the choice of instants
    only, not the detector's errors.
    """
    n = len(logits)
    if n < FEWEST_FRAMES:
        return None
    length = math.ceil(n ** (1 / 3))
    whole, rest = divmod(n, length)
    # A block's sum is a difference of running sums, so a resample costs one step a block, not one a frame.
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(logits, float))])
    starts = n - length + 1
    rng = np.random.default_rng(SEED)
    first = rng.integers(starts, size=(RESAMPLES, whole))
    total = (sums[first + length] - sums[first]).sum(1)
    last = rng.integers(starts, size=RESAMPLES)
    total += sums[last + rest] - sums[last]
    low, high = np.quantile(total / n, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


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
            if frame.logit >= high:
                above.append(frame)
            elif above:
                found.append(_stretch(above))
                above = []
        if above:
            found.append(_stretch(above))
    longest = sorted(found, key=lambda run: -run.frames)[:MOST_RUNS]
    return tuple(sorted(longest, key=lambda run: run.start))


def outstanding(
    frames: Sequence[FrameEvidence], instants: Sequence[int], high: float
) -> Stretch | None:
    """The stretch that exceeds `high` by the most in total, dips included; None under three frames.

    The maximum-sum segment of (logit - high). Source: J. Bentley, "Programming pearls: algorithm design
    techniques", Communications of the ACM 27, 1984 (Kadane's scan). Its mean is at or above `high`, and
    so are its first and its last frame.
    """
    best: list[FrameEvidence] = []
    most = 0.0
    for piece in unbroken(frames, instants):
        begin, total = 0, 0.0
        for i, frame in enumerate(piece):
            if total <= 0:
                begin, total = i, 0.0
            total += frame.logit - high
            if total > most:
                best, most = piece[begin : i + 1], total
    return _stretch(best) if len(best) >= FEWEST_IN_STRETCH else None


def _stretch(frames: Sequence[FrameEvidence]) -> Stretch:
    mean = float(np.mean([frame.logit for frame in frames]))
    return Stretch(frames[0].track, frames[0].time, frames[-1].time, len(frames), mean)


# --- scene cuts ------------------------------------------------------------------------------------

Thumbnail = Float[np.ndarray, "18 32"]


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
FAINT = 4.0  # grey levels; below this a picture is plain, and its noise is no pattern

# Chosen on 62 recordings of talking people (9 clips, the originals of 53 demos) at 32 instants each: none
# of their 1,922 changes reaches both, and 97 % of nearly 800 artificial cuts between two of them do.
# Correlating whole thumbnails mistook leaning heads for cuts in three of them.
SUDDEN = 0.3
TIMES_USUAL = 3.0


class Scenes:
    """Takes all sampled frames in order and records how much the picture changes between them."""

    def __init__(self) -> None:
        self._times: list[Fraction] = []
        self._changes: list[float] = []
        self._last: Thumbnail | None = None

    def add(self, frame: Frame) -> None:
        """Take the next sampled frame."""
        seen = thumbnail(frame.pixels)
        if self._last is not None:
            self._changes.append(change(self._last, seen))
        self._times.append(frame.time)
        self._last = seen

    def cuts(self) -> tuple[Fraction, ...]:
        """Times of the first sampled instants after a scene cut.

        A cut is a change that is large in itself and compared with the changes right before and after it:
        while a camera pans, every change is large and none is a cut.
        """
        found = []
        for i, value in enumerate(self._changes):
            around = [*self._changes[max(0, i - 2) : i], *self._changes[i + 1 : i + 3]]
            usual = float(np.median(around)) if around else 0.0
            if value >= SUDDEN and value >= TIMES_USUAL * usual:
                found.append(self._times[i + 1])
        return tuple(found)


# --- words -----------------------------------------------------------------------------------------


def time_code(seconds: Fraction | float, digits: int = 3) -> str:
    """m:ss.mmm, or h:mm:ss.mmm from an hour on; rounded first, so that 59.9999 s is 1:00.000.

    Times of frames have three digits wherever they are shown; a scale may do with fewer.
    """
    ticks = round(abs(Fraction(seconds)) * 10**digits)
    whole, part = divmod(ticks, 10**digits)
    minutes, secs = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    sign = "\u2212" if seconds < 0 and ticks else ""
    clock = f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
    return sign + clock + (f".{part:0{digits}d}" if digits else "")
