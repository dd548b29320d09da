"""Heat lands where the model looked, and means the same in every picture."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from deepscan.faces.alignment import CROP_SIDE, TEMPLATE, align, invert, similarity, viewed
from deepscan.records import Box, Crop, Face, Frame
from deepscan.report import heatmap
from deepscan.report.heatmap import ATTENTION, EVIDENCE


def turned_crop(angle: float, scale: float = 1.5) -> tuple[Frame, Crop]:
    """A crop cut at an angle from the middle of a grey frame, `scale` frame pixels per crop pixel."""
    frame = Frame(0, Fraction(0), np.full((720, 960, 3), 90, np.uint8))
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = scale * np.array([(c, -s), (s, c)])
    landmarks = (TEMPLATE - CROP_SIDE / 2) @ turn.T + (480, 360)
    return frame, align(frame, Face(Box(400, 260, 560, 460), 0.99, landmarks), track=1)


def test_attention_is_drawn_relative_to_uniform() -> None:
    uniform = np.full((2, 16), 1 / 16)
    assert np.allclose(heatmap.relative(uniform), np.ones((2, 4, 4)))
    one_patch = np.eye(16)[5]
    assert heatmap.relative(one_patch)[1, 1] == 16


def test_a_count_of_patches_that_is_no_square_is_refused() -> None:
    with pytest.raises(ValueError, match="15 patches"):
        heatmap.relative(np.full(15, 1 / 15))


def test_the_scale_is_fixed_whatever_else_is_in_the_map() -> None:
    quiet, loud = np.array([1.0, 1.0]), np.array([1.0, 900.0])
    assert (heatmap.colours(quiet)[0] == heatmap.colours(loud)[0]).all()
    assert (heatmap.colours(np.array([heatmap.ATTENTION.top])) == heatmap.colours(loud)[1]).all()


def test_no_preference_leaves_the_picture_as_it_was() -> None:
    frame, crop = turned_crop(20)
    assert (
        heatmap.paint(frame.pixels, [(crop, np.ones((14, 14)))], ATTENTION) == frame.pixels
    ).all()


@pytest.mark.parametrize("angle", [0, 30, -75])
@pytest.mark.parametrize("cell", [(2, 11), (7, 7), (12, 1)])
def test_a_hot_patch_is_painted_over_the_place_it_was_cut_from(
    angle: float, cell: tuple[int, int]
) -> None:
    frame, crop = turned_crop(angle)
    values = np.ones((14, 14))
    values[cell] = 30
    changed = (heatmap.paint(frame.pixels, [(crop, values)], ATTENTION) != frame.pixels).any(-1)
    y, x = (np.argwhere(changed) + 0.5).mean(0)
    middle = (np.array([cell[1], cell[0]]) + 0.5) * CROP_SIDE / 14
    expected = crop.to_frame @ (*middle, 1)
    assert np.hypot(*(np.array([x, y]) - expected)) < 1.5


def test_heat_stays_inside_the_crop_and_the_frame() -> None:
    frame, _ = turned_crop(0)
    to_frame = np.array([(1.0, 0, -100), (0, 1.0, -60)])  # a crop over the frame's top left corner
    landmarks = TEMPLATE - (100, 60)
    crop = align(frame, Face(Box(0, 0, 80, 90), 0.99, landmarks), track=1)
    assert np.allclose(crop.to_frame, to_frame)
    changed = (
        heatmap.paint(frame.pixels, [(crop, np.full((14, 14), 9.0))], ATTENTION) != frame.pixels
    ).any(-1)
    assert changed[:196, :156].all()
    assert not changed[196:].any()
    assert not changed[:, 156:].any()


def test_every_picture_carries_the_bar_and_the_caveat() -> None:
    small = np.zeros((40, 50, 3), np.uint8)
    out = heatmap.with_legend(small, [EVIDENCE, ATTENTION])
    assert out.shape[0] == 40 + 2 * heatmap.LEGEND_HEIGHT
    assert out.shape[1] >= 360  # room for the words
    assert (out[40:] == heatmap.legend(out.shape[1], [EVIDENCE, ATTENTION])).all()


def test_a_panel_shows_the_face_plain_and_with_heat() -> None:
    frame, crop = turned_crop(10)
    against, attended = np.full((14, 14), -0.1), np.full((14, 14), 4.0)
    drawn = [(EVIDENCE, against), (ATTENTION, attended)]
    panel = heatmap.face_panel(frame.pixels, crop, drawn, "face 1")
    picture = panel[20 : -2 * heatmap.LEGEND_HEIGHT]
    third = (picture.shape[1] - 8) // 3
    assert (picture[:, 160:third] == 90).all()
    red, _, blue = picture[120:-120, third + 140 : 2 * third - 140].reshape(-1, 3).T.astype(int)
    assert (blue > red).all()
    assert (picture[120:-120, 2 * third + 148 : -140] != 90).any(-1).all()


def test_evidence_is_red_for_blue_against_and_clear_where_it_says_nothing() -> None:
    grey = np.full((1, 3, 3), 100, np.uint8)
    against, nothing, speaks_for = heatmap.blend(grey, np.array([[-9.0, 0.0, 0.2]]), EVIDENCE)[
        0
    ].tolist()
    assert nothing == [100, 100, 100]
    # Three quarters of the scale's red or blue over a quarter of the picture.
    assert speaks_for == [round(25 + 0.75 * c) for c in heatmap.FOR]
    assert against == [round(25 + 0.75 * c) for c in heatmap.AGAINST]


def test_a_map_lies_on_what_the_detector_saw() -> None:
    """Of a view of 0.5: 128 pixels of the crop, from 64 on across and 94 down."""
    _, crop = turned_crop(0)
    part = viewed(crop, 0.5)
    assert part.pixels.shape == (128, 128, 3)
    np.testing.assert_allclose(part.corners()[0], crop.to_frame @ (64, 94, 1))
    np.testing.assert_array_equal(part.pixels, crop.pixels[94:222, 64:192])


def test_the_way_back_is_the_inverse_of_the_way_there(rng: np.random.Generator) -> None:
    matrix = similarity(rng.normal(size=(5, 2)) * 40 + 200, TEMPLATE)
    points = rng.normal(size=(7, 2)) * 100
    there = np.column_stack([points, np.ones(7)]) @ matrix.T
    assert np.allclose(np.column_stack([there, np.ones(7)]) @ invert(matrix).T, points)
