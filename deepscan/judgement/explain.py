"""Tests whether a heatmap explains the score: covers what it marks and measures how far the logit falls.

Each crop has two curves. Deletion covers more and more patches, the most attended first; with a faithful map
|logit| falls at once. Insertion starts from the covered crop and uncovers the most attended patches first;
with a faithful map |logit| comes back at once. Both are compared with random orders, which a meaningless
map would equal.
Source: V. Petsiuk, A. Das and K. Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018, section 4.2; for the random reference, W. Samek et al., "Evaluating the visualization of
what a deep neural network has learned", TNNLS 2017.

A covered patch shows the crop strongly blurred. Grey or black squares would add edges and tones that the
detector has never seen and may take for a forgery. Blurring keeps the skin's tone and removes the fine
structure in which traces of manipulation lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from deepscan.records import Areas, Crop, Faithfulness, Frame, Output, Pixels
from deepscan.shapes import Bool, Float, Int, UInt8

# Crops measured, spread over the video: each costs (2 + LOTS) x (STEPS - 1) + 2 = 37 runs of the detector.
CROPS = 8

STEPS = 8  # shares of patches covered: 0, 1/8, ... 1
LOTS = 3  # random orders for each crop
SEED = 0

# Blur of a covered patch, as a share of the crop's side: about a patch and a half of a 14 x 14 grid.
BLUR = 0.1

Crops = UInt8[np.ndarray, "b side side 3"]
Score = Callable[[Crops], Float[np.ndarray, " b"]]


def faithfulness(
    crops: Crops, attention: Float[np.ndarray, "b p"], score: Score, seed: int = SEED
) -> Faithfulness:
    """Deletion and insertion of patches by `attention`, compared with random orders.

    Args:
        crops: aligned faces.
        attention: over each crop's patches, row by row on a square grid.
        score: the detector: logits of crops.
        seed: of the random orders.
    """
    rng = np.random.default_rng(seed)
    found = [_areas(*one, score, rng) for one in zip(crops, attention, strict=True)]
    by_attention, by_lot = (np.array(areas) for areas in zip(*found, strict=True))
    wins = (by_attention > by_lot).mean(0)
    return Faithfulness(
        crops=len(found),
        seed=seed,
        attention=Areas(*by_attention.mean(0).tolist()),
        random=Areas(*by_lot.mean(0).tolist()),
        deletion_wins=float(wins[0]),
        insertion_wins=float(wins[1]),
    )


def _areas(
    crop: UInt8[np.ndarray, "side side 3"],
    attention: Float[np.ndarray, " p"],
    score: Score,
    rng: np.random.Generator,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(deletion, insertion) areas of one crop, by attention and in random orders.

    Uncovering the most attended patches is the same as covering the others, so both curves come from covering
    alone; and a random order reversed is a random order.
    """
    descending = np.argsort(-attention, kind="stable")
    orders = [
        descending,
        descending[::-1],
        *(rng.permutation(len(attention)) for _ in range(LOTS)),
    ]
    blurred, grid = blur(crop), round(len(attention) ** 0.5)
    covered = [
        cover(crop, blurred, order[: round(len(order) * step / STEPS)], grid)
        for order in orders
        for step in range(1, STEPS)
    ]
    logits = score(np.stack([crop, blurred, *covered]))
    # Counted in the direction of the crop's own logit: one that crosses 0 has lost more than its size.
    own, empty = logits[:2] * (side := np.sign(logits[0]))
    curves = (logits[2:] * side).reshape(len(orders), STEPS - 1)
    means = curves.mean(1)
    lot = float(means[2:].mean())
    return (
        (float(own - means[0]), float(means[1] - empty)),
        (float(own - lot), float(lot - empty)),
    )


class Specimens:
    """Keeps up to CROPS crops with their attention, spread evenly over the video.

    Args:
        instants: the number of frames to expect.
    """

    def __init__(self, instants: int) -> None:
        self._stride, self._frames, self._free = max(1, -(-instants // CROPS)), 0, 0
        self._kept: list[tuple[Pixels, Float[np.ndarray, " p"]]] = []

    def add(self, frame: Frame, crops: Sequence[Crop], output: Output | None) -> None:
        """Take one sampled frame; the first frame with a face in each stride gives its largest face."""
        if output is not None and self._frames >= self._free:
            self._free = (self._frames // self._stride + 1) * self._stride
            largest = max(range(len(crops)), key=lambda i: crops[i].quality.face_size)
            self._kept.append((crops[largest].pixels, output.query_attention[largest].mean(0)))
        self._frames += 1

    def measure(self, score: Score) -> Faithfulness | None:
        """`faithfulness` of the crops kept; None without any."""
        if not self._kept:
            return None
        crops, attention = zip(*self._kept, strict=True)
        return faithfulness(np.stack(crops), np.stack(attention), score)


def blur(crop: UInt8[np.ndarray, "side side 3"]) -> UInt8[np.ndarray, "side side 3"]:
    """The crop as covered patches show it."""
    return np.asarray(Image.fromarray(crop).filter(ImageFilter.GaussianBlur(BLUR * len(crop))))


def cover(
    crop: UInt8[np.ndarray, "side side 3"],
    blurred: UInt8[np.ndarray, "side side 3"],
    patches: Int[np.ndarray, " n"],
    grid: int,
) -> UInt8[np.ndarray, "side side 3"]:
    """The crop with these patches (of `grid` x `grid`, row by row) replaced by their blurred form."""
    hidden: Bool[np.ndarray, " p"] = np.zeros(grid * grid, bool)
    hidden[patches] = True
    cell = np.arange(len(crop)) * grid // len(crop)  # of each pixel, along one side
    mask = hidden.reshape(grid, grid)[cell][:, cell]
    return np.where(mask[..., None], blurred, crop)
