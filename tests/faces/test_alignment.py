"""Alignment against transforms worked out by hand: what goes in at a point comes out at its image."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from deepscan.faces.alignment import CROP_SIDE, TEMPLATE, align, invert, similarity, warp
from deepscan.records import Box, Face, Frame


def turn(degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    """(2, 3): turned clockwise on the screen, scaled, shifted."""
    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([(cos, -sin, shift[0]), (sin, cos, shift[1])])


def at(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def face(landmarks: np.ndarray) -> Face:
    (left, top), (right, bottom) = landmarks.min(0), landmarks.max(0)
    return Face(Box(float(left), float(top), float(right), float(bottom)), 0.99, landmarks)


TURNS = [
    turn(0, 1, (0, 0)),
    turn(90, 1, (0, 0)),
    turn(-30, 0.25, (10, -7)),
    turn(179, 3, (-500, 20)),
]


@pytest.mark.parametrize("known", TURNS)
def test_similarity_finds_the_transform_again(known: np.ndarray) -> None:
    assert similarity(TEMPLATE, at(known, TEMPLATE)) == pytest.approx(known)


def test_similarity_is_the_least_squares_solution() -> None:
    """The same four numbers from the normal equations: x' = a x - b y + c, y' = b x + a y + d."""
    chance = np.random.default_rng(0)
    source, target = chance.normal(size=(5, 2)), chance.normal(size=(5, 2))
    (x, y), one, no = source.T, np.ones(5), np.zeros(5)
    rows = np.concatenate([np.stack([x, -y, one, no], 1), np.stack([y, x, no, one], 1)])
    a, b, c, d = np.linalg.lstsq(rows, target.T.ravel())[0]
    assert similarity(source, target) == pytest.approx(np.array([(a, -b, c), (b, a, d)]))


def test_similarity_never_mirrors() -> None:
    mirrored = TEMPLATE * (-1, 1)
    assert np.linalg.det(similarity(mirrored, TEMPLATE)[:, :2]) > 0


def test_similarity_of_a_single_point_is_undefined() -> None:
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.ones((5, 2)), TEMPLATE)


@pytest.mark.parametrize("known", TURNS)
def test_invert_undoes(known: np.ndarray) -> None:
    points = np.array([(0.0, 0.0), (100.0, 3.0), (-5.0, 77.0)])
    assert at(invert(known), at(known, points)) == pytest.approx(points)


def test_warp_by_nothing_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    assert (warp(pixels, turn(0, 1, (0, 0)), 40) == pixels).all()


def test_warp_by_whole_pixels_shifts() -> None:
    """Crop pixel (0, 0) shows frame pixel (3, 5); what lies outside the frame is black."""
    pixels = np.random.default_rng(0).integers(1, 256, (40, 40, 3), np.uint8)
    out = warp(pixels, turn(0, 1, (3, 5)), 40)
    assert (out[:35, :37] == pixels[5:, 3:]).all()
    assert not out[35:].any()
    assert not out[:, 37:].any()


def test_warp_by_a_quarter_turn() -> None:
    """x = 40 - v, y = u: the crop's right is the frame's down."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    assert (warp(pixels, np.array([(0.0, -1, 40), (1, 0, 0)]), 40) == np.rot90(pixels)).all()


@pytest.mark.parametrize(
    "to_frame",
    [
        turn(0, 1, (20, 30)),
        turn(25, 1, (80, 10)),
        turn(0, 0.3, (100, 90)),  # the crop enlarges
        turn(-40, 2.5, (10, 200)),  # the crop shrinks, which takes another path
        turn(10, 4.7, (-100, -50)),  # and reaches beyond the frame,
    ],
)
def test_a_white_dot_lands_where_the_matrix_says(to_frame: np.ndarray) -> None:
    """Its centre of mass, to a tenth of a crop pixel or of a frame pixel, whichever is coarser."""
    side, step = 128, float(np.hypot(*to_frame[:, 0]))
    where = np.round(at(to_frame, np.array([(70.0, 50.0)]))[0])  # a pixel corner near crop (70, 50)
    y, x = np.mgrid[:480, :640] + 0.5
    radius = 4 * max(step, 1)
    dot = 255 * np.exp(-((x - where[0]) ** 2 + (y - where[1]) ** 2) / 2 / radius**2)
    out = warp(np.repeat(dot[..., None], 3, 2).astype(np.uint8), to_frame, side)[..., 0]
    v, u = np.mgrid[:side, :side] + 0.5
    centre = np.array([(u * out).sum(), (v * out).sum()]) / out.sum(dtype=float)
    wanted = at(invert(to_frame), where[None])[0]
    assert np.abs(centre - wanted).max() < 0.1 * max(1, 1 / step)


def test_warp_does_not_alias() -> None:
    """A checkerboard of single pixels, shrunk fourfold, is grey and not a moiré."""
    board = np.indices((400, 400)).sum(0) % 2 * 255
    out = warp(np.repeat(board[..., None], 3, 2).astype(np.uint8), turn(7, 4.1, (60, 20)), 60)
    assert np.abs(out[10:50, 10:50].astype(int) - 127).max() < 20


def test_warp_wholly_outside_is_black() -> None:
    white = np.full((50, 50, 3), 255, np.uint8)
    for matrix in (turn(0, 1, (1000, 0)), turn(0, 3, (-900, -900))):
        assert not warp(white, matrix, 64).any()


@pytest.mark.parametrize("degrees", [0, 20, -75])
@pytest.mark.parametrize("scale", [0.3, 1, 2.5])
def test_aligned_landmarks_lie_on_the_template(degrees: float, scale: float) -> None:
    to_frame = turn(degrees, scale, (300, 250))
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    frame = Frame(7, Fraction(1, 3), pixels)
    crop = align(frame, face(at(to_frame, TEMPLATE)), track=2)
    assert (crop.track, crop.frame_index, crop.time) == (2, 7, Fraction(1, 3))
    assert crop.pixels.shape == (CROP_SIDE, CROP_SIDE, 3)
    assert crop.to_frame == pytest.approx(to_frame)
    assert crop.corners() == pytest.approx(
        at(to_frame, np.array([(0, 0), (256, 0), (256, 256), (0, 256.0)]))
    )
    assert crop.quality.turn == pytest.approx(0, abs=0.01)  # the template looks straight ahead


def test_quality_by_hand() -> None:
    """A face cut in half by the frame's left border, with a bright background on its cheek."""
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[:, :64] = 100
    half = face(TEMPLATE - (128, 0))  # one to one, crop column 128 on frame column 0
    quality = align(Frame(0, Fraction(0), pixels), half, 1).quality
    assert quality.inside == 0.5
    assert quality.brightness == pytest.approx(
        50, abs=0.1
    )  # of the middle 128 columns, 64 show the 100
    # The Laplacian is 100 on either side of two upright edges: 4 columns of 254, whose mean is 0.
    assert quality.sharpness == pytest.approx(100**2 * 4 / 254, rel=0.03)
    assert quality.face_size == pytest.approx(np.sqrt(np.prod(np.ptp(TEMPLATE, axis=0))))


def test_turn_by_hand() -> None:
    """The nose half an eye distance (62 px) off the middle: as good as a profile."""
    landmarks = TEMPLATE + 0
    landmarks[2, 0] = landmarks[:2, 0].mean() + 31
    black = Frame(0, Fraction(0), np.zeros((256, 256, 3), np.uint8))
    assert align(black, face(landmarks), 1).quality.turn == pytest.approx(0.5, abs=0.01)


def test_sharpness_falls_with_blur() -> None:
    grain = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    smooth = warp(warp(grain, turn(0, 4, (0, 0)), 64), turn(0, 0.25, (0, 0)), 256)
    sharp, blurred = (align(Frame(0, Fraction(0), p), face(TEMPLATE), 1) for p in (grain, smooth))
    assert sharp.quality.sharpness > 10 * blurred.quality.sharpness
