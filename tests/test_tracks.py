"""Follower: who is who over the sampled instants, on faces placed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from deepscan.align import TEMPLATE
from deepscan.records import Box, Face
from deepscan.tracks import MAX_GAP, Follower, likeness


def face(x: float, y: float = 0, size: float = 100) -> Face:
    """A face of this size around (x, y)."""
    half = size / 2
    return Face(
        Box(x - half, y - half, x + half, y + half),
        0.99,
        (TEMPLATE - 128) * (size / 256) + (x, y),
    )


def follow(*instants: list[Face]) -> list[list[int]]:
    follower = Follower()
    return [follower.follow(faces) for faces in instants]


def test_ids_start_at_one_and_follow_faces_not_their_order() -> None:
    assert follow([face(0), face(500)], [face(505), face(3)]) == [[1, 2], [2, 1]]


def test_no_faces_at_all() -> None:
    assert follow([], [], [face(0)], []) == [[], [], [1], []]


def test_two_faces_that_draw_near_and_part_keep_their_names() -> None:
    """Two people pass behind one another, 40 px a step, one half a face higher."""
    steps = [[face(40 * t, 0), face(400 - 40 * t, 50)] for t in range(11)]
    assert follow(*steps) == [[1, 2]] * 11


def test_the_pairing_is_the_best_on_the_whole() -> None:
    """Both new faces are nearest to face 1; taken one by one, face 2 would be lost."""
    assert follow([face(0), face(60)], [face(20), face(-35)]) == [[1, 2], [2, 1]]


@pytest.mark.parametrize(("gap", "then"), [(1, 1), (MAX_GAP, 1), (MAX_GAP + 1, 2)])
def test_a_face_is_taken_up_again_after_a_short_gap(gap: int, then: int) -> None:
    assert follow([face(0)], *[[]] * gap, [face(5)])[-1] == [then]


@pytest.mark.parametrize(
    ("second", "same"),
    [
        (face(90), True),  # nine tenths of a face away
        (face(110), False),
        (face(0, size=170), True),  # a step towards the camera
        (face(0, size=190), False),  # a cut to a close-up
        (face(0, size=55), False),
    ],
)
def test_reach(second: Face, same: bool) -> None:
    assert follow([face(0)], [second])[-1] == [1 if same else 2]


def test_a_newcomer_gets_a_new_name_and_no_name_is_used_twice() -> None:
    far = [[face(0)], [face(1000)], [face(2000)], [face(0), face(1000), face(2000), face(3000)]]
    assert follow(*far) == [[1], [2], [3], [1, 2, 3, 4]]


def test_likeness_by_hand() -> None:
    assert likeness(face(0), face(0)) == pytest.approx(2)
    # 50 px apart: the boxes share half of each, 1/3 of their union; half the reach is used up.
    assert likeness(face(0), face(50)) == pytest.approx(1 / 3 + 0.5)
    assert likeness(face(0), face(100)) == 0
    assert likeness(face(0), face(30, 40, 120)) == pytest.approx(
        likeness(face(30, 40, 120), face(0))
    )


def test_any_number_of_faces_gets_that_many_different_ids() -> None:
    chance = np.random.default_rng(0)
    follower = Follower()
    for _ in range(30):
        crowd = [face(*chance.uniform(0, 400, 2)) for _ in range(chance.integers(0, 7))]
        ids = follower.follow(crowd)
        assert len(set(ids)) == len(crowd)
