"""What `make growth` says of measurements, and the clips it measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepscan.media.video import VideoSource
from tools.bench import Measured
from tools.bench_growth import ACROSS, SIZE, TALL, Point, _crowd, _growth, _table, write


def point(faces: int, *walls: float) -> Point:
    seconds = {"decoding": 1.0, "faces": 2.0, "scoring": 3.0}
    return Point(
        0, faces, 32, tuple(Measured(wall, 2 * wall, 900, 0.5, seconds, {}) for wall in walls)
    )


def test_what_the_next_one_costs_among_few_and_among_many() -> None:
    """From 1 to 3 it is 2 s each, from 3 to 5 it is 3 s each."""
    points = [point(1, 10, 9, 11), point(3, 14), point(5, 20)]
    *_, costs, ratio = _growth("face", (1, 3, 5), points)
    assert costs == "The next face costs 2000 ms among few and 3000 ms among many:"
    assert ratio.startswith("1.50 times")


def test_the_table_is_markdown() -> None:
    head, rule, row = _table("faces", [8], [point(8, 12.34)])
    assert head == "| faces | seconds | decoding | faces | scoring | peak MiB |"
    assert rule.count("--:") == 6
    assert row == "| 8 | 12.3 | 1.0 | 2.0 | 3.0 | 900 |"


@pytest.mark.parametrize("faces", [1, 64])
def test_every_portrait_of_a_crowd_is_whole(faces: int) -> None:
    picture = _crowd(faces, 6)
    assert picture.shape == (SIZE[1], SIZE[0], 3)
    rows = -(-faces // ACROSS)
    assert rows * TALL <= SIZE[1]
    assert (picture[rows * TALL :] == (110, 115, 120)).all()


def test_a_clip_has_as_many_frames_as_asked(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", 1, 3)
    assert VideoSource(tmp_path / "a.mp4").source.frames == 3
