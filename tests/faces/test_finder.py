"""Finding faces: batches, sizes, the second look, and what is no face at all."""

from __future__ import annotations

import numpy as np
import pytest

from builders.people import in_portrait, scene
from deepscan.faces import finder as faces
from deepscan.faces.alignment import TEMPLATE, align
from deepscan.faces.finder import FaceFinder


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder(min_size=40, min_confidence=0.9, working_side=960)


def test_all_faces_are_found_largest_first(finder: FaceFinder) -> None:
    (found,) = finder.find([scene(900, 500, (20, 80, 300), (450, 20, 460))])
    assert len(found.faces) == 2
    assert found.faces[0].box.iou(in_portrait(450, 20, 460)) > 0.6
    assert found.faces[1].box.iou(in_portrait(20, 80, 300)) > 0.6


def test_frames_of_several_sizes_and_faceless_ones_go_in_one_call(finder: FaceFinder) -> None:
    frames = [
        scene(300, 360, (0, 0, 350)),
        scene(640, 360),
        scene(640, 360, (100, 0, 350)),
        scene(8, 8),
        scene(300, 360, (0, 0, 350)),
    ]
    assert [len(found.faces) for found in finder.find(frames)] == [1, 0, 1, 0, 1]


def test_landmarks_come_out_where_the_template_has_them(finder: FaceFinder) -> None:
    frame = scene(640, 480, (100, 0, 480))
    face = finder.find([frame])[0].faces[0]
    crop = align(frame, face, track=1)
    there = np.column_stack([TEMPLATE, np.ones(5)]) @ crop.to_frame.T
    assert np.abs(there - face.landmarks).max() < 0.08 * face.box.size
    assert face.landmarks[0, 0] < face.landmarks[1, 0]  # the left eye is left in the picture


def test_shrinking_for_detection_moves_no_box(finder: FaceFinder) -> None:
    frame = scene(2400, 1400, (700, 100, 1200))
    (shrunk,) = finder.find([frame])
    full = FaceFinder(min_size=40, min_confidence=0.9, working_side=2400)
    (whole,) = full.find([frame])
    assert shrunk.faces[0].box.iou(whole.faces[0].box) > 0.85


def test_what_shrinking_hides_is_found_at_the_second_look(finder: FaceFinder) -> None:
    """A face of 43 px in a frame shrunk to 0.3 has 13 px left, which MTCNN takes for less than 40."""
    frame = scene(3840, 2160, (3000, 1500, 130))
    assert finder._look([frame], 0.3)[0].faces == ()
    (found,) = finder.find([frame])
    assert [face.box.iou(in_portrait(3000, 1500, 130)) > 0.5 for face in found.faces] == [True]


def test_faces_under_the_smallest_size_are_counted(finder: FaceFinder) -> None:
    picky = FaceFinder(min_size=150, min_confidence=0.9, working_side=960)
    (found,) = picky.find([scene(640, 480, (100, 40, 420))])
    assert (found.faces, found.too_small) == ((), 1)


def test_of_too_many_faces_the_largest_are_judged(
    finder: FaceFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces, "MOST", 1)
    (found,) = finder.find([scene(900, 500, (20, 80, 300), (450, 20, 460))])
    assert [face.box.iou(in_portrait(450, 20, 460)) > 0.6 for face in found.faces] == [True]
    assert (found.too_small, found.too_many) == (0, 1)
