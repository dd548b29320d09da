"""Overlap and non-maximum suppression of boxes, by hand and against the plain greedy rule."""

from __future__ import annotations

import numpy as np
import pytest

from deepscan.faces import suppression
from deepscan.faces.suppression import overlap, suppress
from deepscan.records import Box

BOXES = np.array(
    [
        (0, 0, 10, 10),
        (0, 0, 10, 5),  # half of the first: union 100, shared 50
        (0, 0, 10, 6),  # 0.6 of the first, 5/6 of the second
        (20, 20, 30, 30),
        (22, 22, 26, 26),  # inside the one before: 16 of 100
    ],
    np.float32,
)


def test_overlaps() -> None:
    union = overlap(BOXES[:3, None], BOXES[None], of_smaller=False)
    np.testing.assert_allclose(union[0], (1, 0.5, 0.6, 0, 0))
    np.testing.assert_allclose(union[1], (0.5, 1, 5 / 6, 0, 0), rtol=1e-6)
    smaller = overlap(BOXES[3:, None], BOXES[None, 3:], of_smaller=True)
    np.testing.assert_allclose(smaller, np.ones((2, 2)))
    # Right and bottom pixels count here: boxes that only touch share a row of 11.
    touching = np.array([(0, 0, 10, 10), (0, 10, 10, 20)], np.float32)
    assert overlap(touching[:1], touching[1:], of_smaller=True) == np.float32(11 / 121)
    assert overlap(touching[:1], touching[1:], of_smaller=False) == 0


@pytest.mark.parametrize("compared", [1, 2, 512])
def test_suppression(compared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "COMPARED", compared)
    scores = np.array((0.9, 0.7, 0.8, 0.6, 0.95), np.float32)
    one = np.zeros(5, int)
    # 2 goes by 0 and, being gone, does not take 1 along; at the threshold itself a box stays.
    assert suppress(BOXES, scores, one, 0.5).tolist() == [4, 0, 1, 3]
    assert suppress(BOXES, scores, one, 0.7).tolist() == [4, 0, 2, 3]
    assert suppress(BOXES, scores, one, 0.7, of_smaller=True).tolist() == [4, 0]
    # Boxes of different images never meet; equal scores keep their order.
    assert suppress(BOXES, scores, np.arange(5), 0.1).tolist() == [4, 0, 2, 1, 3]
    assert suppress(BOXES, np.ones_like(scores), np.array([1, 0, 1, 0, 0]), 0.5).tolist() == [
        *(0, 1, 3, 4)
    ]
    assert suppress(BOXES[:0], scores[:0], one[:0], 0.5).tolist() == []


@pytest.mark.parametrize("of_smaller", [False, True])
def test_suppression_is_the_greedy_one(of_smaller: bool, rng: np.random.Generator) -> None:
    """Also among boxes of all sizes, moved out of the picture or inside out."""
    corner = rng.uniform(-20, 60, (700, 2))
    sides = rng.uniform(5, 25, (700, 2)) * rng.choice((1, 1, 1, 6, -0.2), (700, 1))
    boxes = np.hstack([corner, corner + sides]).astype(np.float32)
    scores = rng.uniform(size=700).astype(np.float32)
    owner = rng.integers(0, 2, 700)
    greedy: list[int] = []
    shared = overlap(boxes[:, None], boxes[None], of_smaller)
    for i in np.argsort(-scores):
        if not any(shared[i, j] > 0.3 and owner[i] == owner[j] for j in greedy):
            greedy.append(int(i))
    assert suppress(boxes, scores, owner, 0.3, of_smaller).tolist() == greedy


def test_a_crowd_has_as_many_neighbours_each_as_a_group_has() -> None:
    """Comparing all boxes with all would take ten thousand faces minutes and gigabytes."""

    def compared(side: int) -> int:
        column, row = (axis.ravel() for axis in np.meshgrid(np.arange(side), np.arange(side)))
        corner = 40 * np.column_stack([column, row])
        boxes = np.hstack([corner, corner + 60]).astype(np.float32)
        return sum(pairs.shape[1] for pairs in suppression._meeting(boxes, np.zeros(side**2, int)))

    # Left, right, above, below and across, each pair once or twice; the group has an edge all round.
    assert compared(10) > 4 * 100 * 0.8
    assert compared(100) < 1.3 * 100 * compared(10)


def test_the_overlap_of_two_boxes_is_intersection_over_union() -> None:
    assert Box(0, 0, 2, 2).iou(Box(1, 0, 3, 2)) == pytest.approx(2 / 6)
    assert Box(0, 0, 2, 2).iou(Box(2, 0, 3, 2)) == 0
