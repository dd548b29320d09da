"""Of several video streams, the one that players show is judged, and the others are named."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from builders import clips, edits
from deepscan.errors import NoVideoStream
from deepscan.media.video import VideoSource
from deepscan.records import Frame

BIG, SMALL = (192, 128), (96, 64)


def two(path: Path, sizes: list[tuple[int, int]], default: int | None) -> Path:
    """A file with a video stream of each size; `default` is the number of the one that is marked so."""
    parts = []
    for n, size in enumerate(sizes):
        noise = np.random.default_rng(n).integers(0, 256, (10, size[1], size[0], 3), np.uint8)
        parts.append(clips.write(path.with_name(f"part{n}.mkv"), list(noise), "mpeg4"))
    with av.open(str(path), "w") as out:
        given = [av.open(str(part)) for part in parts]
        copies = [out.add_stream_from_template(one.streams.video[0]) for one in given]
        for n, copy in enumerate(copies):
            flags = type(copy.disposition)
            copy.disposition = flags.default if n == default else flags(0)
        for one, copy in zip(given, copies, strict=True):
            for packet in one.demux(video=0):
                if packet.size:
                    packet.stream = copy
                    out.mux(packet)
            one.close()
    return path


@pytest.mark.parametrize(
    ("name", "sizes", "default", "judged"),
    [
        ("a.mp4", [SMALL, BIG], 1, 1),  # the first one is switched off
        ("a.mp4", [SMALL, BIG], 0, 0),
        ("a.mkv", [SMALL, BIG], 1, 1),
        ("a.mkv", [BIG, SMALL], 0, 0),
        ("a.mkv", [SMALL, BIG], None, 1),  # nothing is said: the larger
    ],
)
def test_the_stream_that_players_show_is_judged(
    tmp_path: Path, name: str, sizes: list[tuple[int, int]], default: int | None, judged: int
) -> None:
    source = VideoSource(two(tmp_path / name, sizes, default)).source
    assert (source.stream, (source.width, source.height)) == (judged, sizes[judged])
    other = 1 - judged
    width, height = sizes[other]
    assert source.others == (f"video stream {other} (mpeg4, {width} x {height})",)


def test_another_stream_can_be_asked_for(tmp_path: Path) -> None:
    clip = two(tmp_path / "a.mkv", [SMALL, BIG], 1)
    source = VideoSource(clip, stream=0)
    assert (source.source.stream, source.source.width) == (0, SMALL[0])
    assert len(list(source.decode(range(10)))) == 10
    with pytest.raises(
        NoVideoStream, match="stream 7 is not a video stream; its video streams are 0, 1"
    ):
        VideoSource(clip, stream=7)


@pytest.mark.parametrize(
    ("suffix", "codec", "read", "copies"),
    [
        ("flv", "libx264", 1, 2),
        ("mp4", "libx264", 1, 2),
        ("wmv", "wmv2", 1, 2),
        ("mkv", "libx264", 2, 3),  # FFmpeg reads two
        ("avi", "mpeg4", 2, 2),
    ],
)
def test_recordings_joined_on_that_players_do_not_show_are_named(
    tmp_path: Path, suffix: str, codec: str, read: int, copies: int
) -> None:
    clip = clips.write(tmp_path / f"one.{suffix}", 10, codec)
    both = clips.joined(tmp_path / f"a.{suffix}", *[clip] * copies)
    source = VideoSource(both).source
    assert VideoSource(clip).source.others == ()
    assert source.frames == 10 * read
    assert source.others == ("another recording behind it",) * (copies > read)


def test_what_an_edit_list_leaves_out_is_counted(tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "a.mp4", 50, options=clips.b_frames())
    source = VideoSource(clips.edit_list(clip, Fraction(13, 25))).source
    assert source.others == ("13 frames that it does not show",)


@pytest.mark.parametrize(
    ("parts", "shown", "left_out"),
    [
        ([(0, 10), (20, 10)], [*range(10), *range(20, 30)], 10),
        ([(10, 5), (10, 5)], [*range(10, 15)] * 2, 25),  # the same part twice
        ([(20, 10), (0, 10)], [*range(20, 30), *range(10)], 10),
    ],
)
@pytest.mark.parametrize("options", [clips.b_frames(), {"bf": "0", "g": "10"}])
def test_edits_in_several_parts_are_followed_and_what_none_shows_is_counted(
    tmp_path: Path,
    parts: list[tuple[int, int]],
    shown: list[int],
    left_out: int,
    options: dict[str, str],
) -> None:
    clip = clips.write(tmp_path / "a.mp4", 30, options=options)
    edits.write(clip, *((Fraction(a, 25), Fraction(n, 25)) for a, n in parts))
    source = VideoSource(clip)
    found = list(source.decode(range(source.source.frames)))
    assert [clips.number(frame.pixels) for frame in found if isinstance(frame, Frame)] == shown
    assert source.source.others == (f"{left_out} frames that it does not show",)
