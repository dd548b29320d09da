"""Deletion and insertion, with detectors whose reasons are known."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from deepscan.judgement.explain import CROPS, Specimens, Sums, blur, cover, faithfulness
from deepscan.records import Box, Crop, CropQuality, EvidenceSum, Face, Frame, Output

GRID = 4
SIDE = 16 * GRID


def crop(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def detail(crops: np.ndarray, row: int, column: int) -> np.ndarray:
    """How much fine structure one patch holds: what blurring takes away. About 1 in `crop`."""
    cell = crops[:, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
    return cell.astype(float).std((1, 2, 3)) / 74


def looks_at(row: int, column: int) -> np.ndarray:
    """A map with all attention on one patch."""
    attention = np.full(GRID * GRID, 0.01)
    attention[row * GRID + column] = 1
    return attention / attention.sum()


def test_a_map_of_the_one_patch_that_counts_is_faithful() -> None:
    found = faithfulness(
        np.stack([crop(1), crop(2)]),
        np.stack([looks_at(1, 2)] * 2),
        lambda crops: 4 * detail(crops, 1, 2),
    )
    assert (found.crops, found.deletion_wins, found.insertion_wins) == (2, 1.0, 1.0)
    # Gone at the first step, and back at the first step; by lot, half of the way on average.
    assert found.marked.deletion == pytest.approx(4, abs=1.2)
    assert found.random.deletion == pytest.approx(2, abs=1.2)
    assert found.marked.insertion > found.random.insertion


def test_a_map_of_what_does_not_count_is_worse_than_the_lot() -> None:
    found = faithfulness(
        crop()[None], looks_at(0, 0)[None], lambda crops: 4 * detail(crops, 3, 3), seed=1
    )
    assert found.marked.deletion < found.random.deletion


def test_a_negative_logit_falls_towards_zero() -> None:
    found = faithfulness(crop()[None], looks_at(1, 2)[None], lambda crops: -4 * detail(crops, 1, 2))
    assert found.marked.deletion > 2


def test_the_lot_is_the_seeds() -> None:
    def measured(seed: int) -> object:
        score = lambda crops: detail(crops, 0, 1) + detail(crops, 2, 2)
        return faithfulness(crop()[None], looks_at(0, 1)[None], score, seed).random

    assert measured(3) == measured(3) != measured(4)


def test_covered_patches_show_the_blurred_crop_and_others_the_crop() -> None:
    plain = crop()
    soft = blur(plain)
    mixed = cover(plain, soft, np.array([0, 5]), GRID)
    assert (mixed[:16, :16] == soft[:16, :16]).all()
    assert (mixed[16:32, 16:32] == soft[16:32, 16:32]).all()
    assert (mixed[:16, 16:] == plain[:16, 16:]).all()
    assert np.abs(soft.mean() - plain.mean()) < 1
    assert soft.std() < plain.std() / 4


def test_specimens_are_few_and_spread_over_the_video() -> None:
    """100 instants; the face is absent from the first half."""
    specimens = Specimens(100)
    face = Face(Box(0, 0, 9, 9), 0.99, np.zeros((5, 2)))
    one = Crop(1, 0, Fraction(0), face, crop(), np.eye(2, 3), CropQuality(9, 9, 9, 0, 1))
    output = Output(
        np.zeros(1),
        np.full((1, 2, 16), 1 / 16),
        np.full((1, 16), 1 / 16),
        np.zeros((1, 16)),
        np.zeros(1),
        np.zeros((1, 0)),
    )
    scored = []
    for i in range(100):
        frame = Frame(i, Fraction(i), crop())
        specimens.add(frame, [one] if i >= 50 else [], output if i >= 50 else None)
    found = specimens.measure(lambda crops: scored.append(len(crops)) or np.ones(len(crops)))
    assert found is not None
    assert found.crops == 5  # strides of 13: from 50, 52, 65, 78 and 91
    assert found.crops <= CROPS
    assert sum(scored) == 37 * found.crops


def test_without_a_face_nothing_is_measured() -> None:
    assert Specimens(8).measure(lambda crops: np.zeros(len(crops))) is None


def test_a_faces_logit_is_the_sum_of_what_its_patches_say() -> None:
    """Two crops of 2 x 2 patches; the lower two lie on the face."""
    sums = Sums()
    face = Face(Box(0, 0, 9, 9), 0.99, np.zeros((5, 2)))
    one = Crop(3, 0, Fraction(0), face, crop(), np.eye(2, 3), CropQuality(9, 9, 9, 0, 1))
    evidence = np.array([[1.0, -0.5, 0.5, 0.0]])
    nothing = np.zeros((1, 0))
    for constant in (0.25, 0.75):
        logit = evidence.sum(1) + constant
        output = Output(
            logit,
            np.full((1, 1, 4), 0.25),
            np.full((1, 4), 0.25),
            evidence,
            np.array([constant]),
            nothing,
        )
        sums.add(Frame(0, Fraction(0), crop()), [one], output)
    sums.add(Frame(1, Fraction(1), crop()), [], None)
    found = sums.of(3)
    assert found is not None
    assert replace(found, on_face=None) == EvidenceSum(3, 2, 1.5, 1.5, -0.5, 0.5, None)
    assert found.on_face == pytest.approx(1 / 3)
    assert sums.of(4) is None


def test_patches_are_covered_where_the_view_has_them() -> None:
    """The lower right one of 2 x 2 patches of a view of 0.5: 16 pixels a side, from 32 across and 40 down."""
    plain, blurred = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 9, np.uint8)
    covered = cover(plain, blurred, np.array([3]), 2, view=0.5)
    rows, columns = np.nonzero(covered[..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 55, 32, 47)
