"""Sums up the evidence of a face, and tests whether a heatmap explains the score.

The test covers what the map marks and measures how far the logit falls. Each crop has two curves. Deletion
covers more and more patches, first those that count most: by evidence those that speak most for what the
logit says, by attention the most attended. With a faithful map |logit| falls at once. Insertion starts from
the covered crop and uncovers the same patches first; with a faithful map |logit| comes back at once. Both are
compared with random orders, which a meaningless map would equal.
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

from deepscan.faces.alignment import on_face, seen
from deepscan.records import Areas, Crop, EvidenceSum, Faithfulness, Frame, Output, Pixels
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
    crops: Crops,
    weights: Float[np.ndarray, "b p"],
    score: Score,
    seed: int = SEED,
    view: float = 1.0,
    kind: str = "attention",
) -> Faithfulness:
    """Deletion and insertion of patches by their `weights`, compared with random orders.

    Args:
        crops: aligned faces.
        weights: of each crop's patches, row by row on a square grid; higher counts more.
        score: the detector: logits of crops.
        seed: of the random orders.
        view: which share of the crop's side the patches cover (see faces.alignment.seen).
        kind: of the map that the weights are.
    """
    rng = np.random.default_rng(seed)
    found = [_areas(*one, score, rng, view) for one in zip(crops, weights, strict=True)]
    by_map, by_lot = (np.array(areas) for areas in zip(*found, strict=True))
    wins = (by_map > by_lot).mean(0)
    return Faithfulness(
        map=kind,
        crops=len(found),
        seed=seed,
        marked=Areas(*by_map.mean(0).tolist()),
        random=Areas(*by_lot.mean(0).tolist()),
        deletion_wins=float(wins[0]),
        insertion_wins=float(wins[1]),
    )


def _areas(
    crop: UInt8[np.ndarray, "side side 3"],
    weights: Float[np.ndarray, " p"],
    score: Score,
    rng: np.random.Generator,
    view: float,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(deletion, insertion) areas of one crop, by the map and in random orders.

    Uncovering the patches that count most is the same as covering the others, so both curves come from
    covering alone; and a random order reversed is a random order.
    """
    descending = np.argsort(-weights, kind="stable")
    orders = [
        descending,
        descending[::-1],
        *(rng.permutation(len(weights)) for _ in range(LOTS)),
    ]
    blurred, grid = blur(crop), round(len(weights) ** 0.5)
    covered = [
        cover(crop, blurred, order[: round(len(order) * step / STEPS)], grid, view)
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
    """Keeps up to CROPS crops with their evidence, or their attention, spread evenly over the video.

    Args:
        instants: the number of frames to expect.
    """

    def __init__(self, instants: int) -> None:
        self._stride, self._frames, self._free = max(1, -(-instants // CROPS)), 0, 0
        self._kept: list[tuple[Pixels, Float[np.ndarray, " p"]]] = []
        self._map, self._view = "attention", 1.0

    def add(self, frame: Frame, crops: Sequence[Crop], output: Output | None) -> None:
        """Take one sampled frame; the first frame with a face in each stride gives its largest face."""
        if output is not None and self._frames >= self._free:
            self._free = (self._frames // self._stride + 1) * self._stride
            largest = max(range(len(crops)), key=lambda i: crops[i].quality.face_size)
            weights, self._view = output.query_attention[largest].mean(0), output.view
            if output.evidence.size:
                self._map = "evidence"
                weights = output.evidence[largest] * np.sign(output.logit[largest])
            self._kept.append((crops[largest].pixels, weights))
        self._frames += 1

    def measure(self, score: Score) -> Faithfulness | None:
        """`faithfulness` of the crops kept; None without any."""
        if not self._kept:
            return None
        crops, weights = map(np.stack, zip(*self._kept, strict=True))
        return faithfulness(crops, weights, score, view=self._view, kind=self._map)


class Sums:
    """Adds up the evidence of each face, crop by crop."""

    def __init__(self) -> None:
        # Of each track: crops, then sums of the logits, of the evidence above 0, of its part on the
        # face, of the evidence below 0, and of the constants.
        self._sums: dict[int, Float[np.ndarray, " 6"]] = {}

    def add(self, frame: Frame, crops: Sequence[Crop], output: Output | None) -> None:
        """Take one sampled frame."""
        if output is None or not output.evidence.size:
            return
        above = np.maximum(output.evidence, 0)
        face = on_face(output.view, round(output.evidence.shape[1] ** 0.5))
        columns = (
            np.ones(len(crops)), output.logit, above.sum(1), above[:, face].sum(1),
            np.minimum(output.evidence, 0).sum(1), output.constant,
        )  # fmt: skip
        for crop, row in zip(crops, np.stack(columns, 1).astype(float), strict=True):
            self._sums[crop.track] = self._sums.get(crop.track, np.zeros(6)) + row

    def of(self, track: int, merged: Sequence[int] = ()) -> EvidenceSum | None:
        """Of one face, with the tracks found to be the same person's; None without evidence."""
        found = [self._sums[one] for one in (track, *merged) if one in self._sums]
        if not found:
            return None
        count, logit, above, on, below, constant = np.sum(found, 0).tolist()
        share = on / above if above else None
        means = [value / count for value in (logit, above, below, constant)]
        return EvidenceSum(track, round(count), means[0], means[1], means[2], means[3], share)


def blur(crop: UInt8[np.ndarray, "side side 3"]) -> UInt8[np.ndarray, "side side 3"]:
    """The crop as covered patches show it."""
    return np.asarray(Image.fromarray(crop).filter(ImageFilter.GaussianBlur(BLUR * len(crop))))


def cover(
    crop: UInt8[np.ndarray, "side side 3"],
    blurred: UInt8[np.ndarray, "side side 3"],
    patches: Int[np.ndarray, " n"],
    grid: int,
    view: float = 1.0,
) -> UInt8[np.ndarray, "side side 3"]:
    """The crop with these patches (of `grid` x `grid` over the view, row by row) in their blurred form."""
    hidden: Bool[np.ndarray, " p"] = np.zeros(grid * grid, bool)
    hidden[patches] = True
    left, top, size = seen(view, len(crop))
    cell = np.arange(size) * grid // size  # of each pixel that is seen, along one side
    mask = np.zeros(crop.shape[:2], bool)
    mask[top : top + size, left : left + size] = hidden.reshape(grid, grid)[cell][:, cell]
    return np.where(mask[..., None], blurred, crop)
