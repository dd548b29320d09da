"""Decides which of several boxes on one face is kept: overlap and non-maximum suppression.

Boxes are float32 (n, 4): left, top, right, bottom. `owner` (n,) says which image each belongs to; boxes of
different images are never compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deepscan.shapes import Bool, Float32, Int

# Pairs of boxes compared at a time.
COMPARED = 1 << 18

Boxes = Float32[np.ndarray, "_n 4"]  # of any two steps, hence no counts held equal
Scores = Float32[np.ndarray, " _n"]
Owner = Int[np.ndarray, " _n"]


def suppress(
    boxes: Boxes, scores: Scores, owner: Owner, threshold: float, of_smaller: bool = False
) -> Int[np.ndarray, " kept"]:
    """Non-maximum suppression within each image: indices of the boxes kept, best first.

    From the best down, a box is dropped if it overlaps a better box that was kept by more than `threshold`.

    Args:
        boxes: of any number of images.
        scores: higher is better; ties keep their order.
        owner: each box's image; boxes of different images are never compared.
        threshold: share of overlap, see `overlap`.
        of_smaller: see `overlap`.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, owner = boxes[order], owner[order]
    beats = [np.empty((2, 0), np.int32)]
    for pairs in _meeting(boxes, owner):
        better, worse = pairs.min(0), pairs.max(0)
        beaten = overlap(boxes[better], boxes[worse], of_smaller) > threshold
        beats.append(np.stack([better[beaten], worse[beaten]]))
    return order[_unbeaten(len(order), np.hstack(beats))]


def _unbeaten(count: int, beats: Int[np.ndarray, "2 _pairs"]) -> Bool[np.ndarray, " count"]:
    """Who is kept, if in each pair the first beats the second only while it is kept itself.

    The first of a pair has the lower number. Each round decides all anew from the round before, until nothing
    changes. The lowest number is right from the start and each round settles at least one more; in practice
    it takes four or five rounds.
    """
    stays = np.ones(count, bool)
    while True:
        still = np.ones(count, bool)
        still[beats[1, stays[beats[0]]]] = False
        if (still == stays).all():
            return stays
        stays = still


def _meeting(boxes: Boxes, owner: Owner) -> Iterator[Int[np.ndarray, "2 _pairs"]]:
    """Indices of pairs of boxes in one image: all that touch (some twice), and some that do not.

    Each box is entered into every horizontal band it reaches into, and each band is swept from left to right.
    So in a larger crowd each box is still compared with its neighbours only.
    """
    if len(boxes) < 2:
        return
    left, top, right, bottom = boxes.astype(float).T
    band = max(1.0, float(np.median(bottom - top)))
    low, high = np.floor(top / band).astype(int), np.floor((bottom + 1) / band).astype(int)
    who, step = _spread(np.maximum(high - low + 1, 0))
    # One axis for all bands of all images, long enough that none reaches into the next.
    bands = (owner - owner.min()) * (high.max() - low.min() + 1) + low - low.min()
    length = right.max() - left.min() + 2
    start = (bands[who] + step) * length + left[who] - left.min()
    by_start = np.argsort(start)
    who, start = who[by_start], start[by_start]
    end = np.searchsorted(start, start + (right - left + 1)[who], side="right")
    ahead = np.maximum(end - np.arange(len(who)) - 1, 0)
    upto = np.cumsum(ahead)
    for at in range(0, int(ahead.sum()), COMPARED):
        pair = np.arange(at, min(at + COMPARED, int(upto[-1])))
        here = np.searchsorted(upto, pair, side="right")
        there = here + 1 + pair - (upto - ahead)[here]
        yield np.stack([who[here], who[there]])


def _spread(
    counts: Int[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " _all"], Int[np.ndarray, " _all"]]:
    """Each place as many times as `counts` says, in order, and how many times it has been there before."""
    place = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return place, np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)


def overlap(
    a: Float32[np.ndarray, "*#n 4"], b: Float32[np.ndarray, "*#n 4"], of_smaller: bool
) -> Float32[np.ndarray, ...]:
    """Intersection over union of pairs; `of_smaller`: over the smaller box, right and bottom inside.

    The latter is the rule of the authors' last step: a box inside another is dropped, however small.
    """
    edge = int(of_smaller)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:], b[..., 2:])
    shared = np.maximum(high - low + edge, 0).prod(-1)
    area_a, area_b = sides(a, edge).prod(-1), sides(b, edge).prod(-1)
    whole = np.minimum(area_a, area_b) if of_smaller else area_a + area_b - shared
    with np.errstate(divide="ignore", invalid="ignore"):  # a box moved inside out overlaps nothing
        return shared / whole


def sides(boxes: Float32[np.ndarray, "*n 4"], edge: float) -> Float32[np.ndarray, "*n 2"]:
    """Width and height; `edge` 1 includes the right and bottom pixels, as in MTCNN's training."""
    return boxes[..., 2:] - boxes[..., :2] + edge
