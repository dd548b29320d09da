"""Follower: who is who over the sampled instants, on faces placed by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from deepscan.config import Sampling
from deepscan.faces.alignment import TEMPLATE, align
from deepscan.faces.finder import FaceFinder
from deepscan.faces.tracks import MAX_GAP, SAME_LOOK, Follower, likeness, look_of, resemblance
from deepscan.media.video import VideoSource
from deepscan.records import Box, Face, Frame


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


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)


def test_who_moved_out_of_reach_is_known_by_the_look() -> None:
    one, other = look_of(noise(1)), look_of(noise(2))
    follower = Follower()
    assert follower.follow([face(0), face(400)], [one, other]) == [1, 2]
    assert follower.follow([face(900), face(2000)], [other, one]) == [2, 1]


def test_who_comes_back_after_a_long_time_is_known_by_the_look() -> None:
    one, other = look_of(noise(1)), look_of(noise(2))
    follower = Follower()
    assert follower.follow([face(0)], [one]) == [1]
    for _ in range(3 * MAX_GAP):
        assert follower.follow([], []) == []
    assert follower.follow([face(0)], [other]) == [2]
    assert follower.follow([face(700)], [one]) == [1]


def test_a_look_is_the_same_in_another_light_and_worth_nothing_on_a_blank_wall() -> None:
    pixels = noise(3)
    assert look_of(pixels) @ look_of(pixels // 2 + 40) == pytest.approx(1, abs=1e-3)
    blank = look_of(np.full((256, 256, 3), 90, np.uint8))
    assert resemblance(blank, blank) == 0


@pytest.mark.slow
@pytest.mark.shared
def test_looks_tell_persons_apart_on_real_clips(shared: Path) -> None:
    """The camera halves of pairs, one clip a person: what SAME_LOOK rests on (pytest -s shows it)."""
    finder, looks = FaceFinder(40, 0.99, 960), []
    for path in sorted((shared / "pairs").glob("*_0.mp4"))[:12]:
        video = VideoSource(path)
        frames = [f for f in video.decode(video.choose(Sampling(frames=5))) if isinstance(f, Frame)]
        halves = [replace(f, pixels=f.pixels[:, : f.pixels.shape[1] // 2].copy()) for f in frames]
        found = zip(halves, finder.find(halves), strict=True)
        looks.append([look_of(align(f, r.faces[0], 1).pixels) for f, r in found if r.faces])
    same = [float(a @ b) for own in looks for a, b in combinations(own, 2)]
    other = [float(a @ b) for x, y in combinations(looks, 2) for a in x for b in y]
    known = np.mean(np.array(same) >= SAME_LOOK)
    mistaken = np.mean(np.array(other) >= SAME_LOOK)
    print(f"same person: {known:.3f} of {len(same)}, others: {mistaken:.3f} of {len(other)}")  # noqa: T201
    assert known > 0.5
    assert mistaken < 0.03
