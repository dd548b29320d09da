"""The index: frames and their times where packets are not frames or time stamps are not those of display."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from builders import clips, ogm
from deepscan.config import Sampling
from deepscan.media.video import DamagedFrame, VideoSource

ALL = Sampling("all")


def seen(source: VideoSource, indices: tuple[int, ...] | None = None) -> list[tuple[int, Fraction]]:
    """The number that each frame shows, and its time."""
    frames = list(source.decode(indices or source.choose(ALL)))
    assert not any(isinstance(frame, DamagedFrame) for frame in frames)
    return [(clips.number(frame.pixels), frame.time) for frame in frames]


def every(count: int, start: int = 0) -> list[tuple[int, Fraction]]:
    """Numbered pictures at 25 a second."""
    return [(n, Fraction(n + start, 25)) for n in range(count)]


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.mkv", "a.h264"])
def test_two_fields_are_one_frame(tmp_path: Path, name: str) -> None:
    source = VideoSource(clips.fields(tmp_path / name, 30))
    assert (source.source.frames, source.source.duration) == (30, Fraction(6, 5))
    start = source.source.start
    assert [(n, time - start) for n, time in seen(source)] == every(30)
    assert [n for n, _ in seen(source, (3, 17, 29))] == [3, 17, 29]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *((f"a.{suffix}", "libx264") for suffix in ("mp4", "mkv", "nut", "ts", "mov")),
        *((f"a.{suffix}", "mpeg4") for suffix in ("mp4", "mkv", "nut", "mov")),
    ],
)
def test_stamps_in_decoding_order_are_put_in_order(tmp_path: Path, name: str, codec: str) -> None:
    """Muxers that take no pts (MP4 without ctts, rips from AVI) stamp the k-th packet with the k-th time."""
    options = clips.b_frames() if codec == "libx264" else {"bf": "2", "g": "10"}
    sound = clips.write(tmp_path / "sound.mp4", 40, codec, options=options)
    source = VideoSource(clips.restamped(tmp_path / name, sound, lambda n, pts: n))
    start = source.source.start
    assert [(n, time - start) for n, time in seen(source)] == every(40)
    assert [n for n, _ in seen(source, (7, 33))] == [7, 33]
    assert not source.source.exact_times


@pytest.mark.parametrize(
    "stamp",
    [
        pytest.param(lambda n, pts: pts - (pts == 13), id="doubled"),
        pytest.param(lambda n, pts: pts + 20 * (pts == 13), id="one-far-off"),
    ],
)
def test_a_wrong_stamp_is_no_damage(tmp_path: Path, stamp: Callable[[int, int], int]) -> None:
    sound = clips.write(tmp_path / "sound.mp4", 40, options={"bf": "0"})
    source = VideoSource(clips.restamped(tmp_path / "a.mkv", sound, stamp))
    assert sorted(n for n, _ in seen(source)) == list(range(40))


@pytest.mark.parametrize("packets", [1, 3])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("mpeg4", {"bf": "0", "g": "10"}),
        ("mpeg4", {"bf": "2", "g": "10"}),
        ("libx264", clips.b_frames()),
    ],
)
def test_ogm_counts_frames_in_coding_order(
    tmp_path: Path, codec: str, options: dict[str, str], packets: int
) -> None:
    source = VideoSource(ogm.write(tmp_path / "a.ogm", 48, codec, options, packets))
    found = seen(source)
    assert [n for n, _ in found] == list(range(48))
    # FFmpeg makes up a time or two where pages begin with packets that have none.
    within = Fraction(0) if packets == 1 else Fraction(2, 25)
    assert all(abs(time - n * Fraction(1, 25)) <= within for n, time in found)
    assert all(a < b for (_, a), (_, b) in pairwise(found))


def test_frames_that_share_a_stamp_take_the_times_between(tmp_path: Path) -> None:
    """Clocks too coarse for the frame rate give each second frame the time of the one before."""
    sound = clips.write(tmp_path / "sound.mp4", 40, options={"bf": "0", "g": "10"})
    clip = clips.restamped(tmp_path / "a.mkv", sound, lambda n, pts: pts - pts % 2)
    source = VideoSource(clip)
    assert seen(source) == every(40)
    assert source.source.duration == Fraction(8, 5)


@pytest.mark.parametrize("options", [clips.b_frames(), {"bf": "0", "g": "10"}])
@pytest.mark.parametrize("kept", [2, 5])
def test_frames_without_stamps_take_the_times_between(
    tmp_path: Path, options: dict[str, str], kept: int
) -> None:
    """Broadcasters may stamp one frame in several."""
    clip = clips.unstamped(clips.write(tmp_path / "a.ts", 41, options=options), kept)
    source = VideoSource(clip)
    start = source.source.start
    assert [(n, time - start) for n, time in seen(source)] == every(41)
    assert source.source.duration == Fraction(41, 25)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("ts", "libx264"), ("ts", "mpeg2video"), ("mpg", "mpeg2video")]
)
def test_takes_joined_end_to_end_follow_each_other(tmp_path: Path, suffix: str, codec: str) -> None:
    options = clips.b_frames() if codec == "libx264" else {"bf": "2", "g": "10"}
    pictures = [clips.numbered(n) for n in range(60)]
    takes = [
        clips.write(
            tmp_path / f"{i}.{suffix}", pictures[at : at + 20], codec, options=options, ticks=25
        )
        for i, at in enumerate((0, 20, 40))
    ]
    source = VideoSource(clips.joined(tmp_path / f"a.{suffix}", *takes))
    start = source.source.start
    assert [(n, time - start) for n, time in seen(source)] == every(60)
    assert source.source.duration == Fraction(12, 5)
    assert [at - start for at in source.source.restarts] == [Fraction(4, 5), Fraction(8, 5)]
    assert [n for n, _ in seen(source, (5, 33, 47))] == [5, 33, 47]
    assert source.source.exact_times


@pytest.mark.parametrize("options", [{"bf": "0", "g": "10"}, {"bf": "2", "g": "10"}])
def test_of_joined_ogm_no_header_is_a_frame(tmp_path: Path, options: dict[str, str]) -> None:
    one = ogm.write(tmp_path / "one.ogm", 20, "mpeg4", options)
    source = VideoSource(clips.joined(tmp_path / "a.ogm", one, one))
    assert [n for n, _ in seen(source)] == [*range(20), *range(20)]
    assert source.source.duration == Fraction(8, 5)
    assert source.source.restarts == (Fraction(4, 5),)


def test_a_leap_of_a_broadcast_clock_is_no_pause(tmp_path: Path) -> None:
    """Recorders that were switched off and on again leave hours between two frames."""
    late = [Fraction(n, 25) + (7200 if n >= 10 else 0) for n in range(20)]
    source = VideoSource(clips.write(tmp_path / "a.ts", 20, times=late, options=clips.b_frames()))
    start = source.source.start
    assert [(n, time - start) for n, time in seen(source)] == every(20)
    assert [at - start for at in source.source.restarts] == [Fraction(2, 5)]


def test_a_pause_in_a_file_without_such_a_clock_stays(tmp_path: Path) -> None:
    late = [Fraction(n, 25) + (60 if n >= 10 else 0) for n in range(20)]
    source = VideoSource(clips.write(tmp_path / "a.mkv", 20, times=late, ticks=1000))
    assert [time for _, time in seen(source)] == late
    assert source.source.restarts == ()


def test_vp8_frames_that_are_never_shown_are_none(tmp_path: Path) -> None:
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "b": "200k"}
    clip = clips.write(tmp_path / "a.webm", 60, "libvpx", options=options)
    assert [n for n, _ in seen(VideoSource(clip))] == list(range(60))


def test_b_frames_packed_with_the_frame_before_are_frames(tmp_path: Path) -> None:
    source = VideoSource(clips.packed(tmp_path / "a.avi", 30))
    assert seen(source) == every(30)
    assert [n for n, _ in seen(source, (4, 19))] == [4, 19]


def test_both_fields_in_one_packet_are_one_frame(tmp_path: Path) -> None:
    source = VideoSource(clips.fields(tmp_path / "a.mp4", 12, together=True))
    assert [n for n, _ in seen(source)] == list(range(12))


def test_fields_of_hevc_are_pictures_of_full_height(tmp_path: Path) -> None:
    """FFmpeg gives them one by one: every instant of an interlaced recording, at half the detail."""
    fields = [clips.numbered(n)[parity::2] for n in range(12) for parity in (0, 1)]
    options = {"x265-params": "interlace=1:log-level=none", "preset": "ultrafast"}
    clip = clips.write(tmp_path / "a.mkv", fields, "libx265", rate=50, options=options)
    source = VideoSource(clip)
    assert (source.source.frames, source.source.width, source.source.height) == (24, 96, 64)
    assert [n for n, _ in seen(source)] == [n // 2 for n in range(24)]


@pytest.mark.parametrize("options", [clips.b_frames(), {"bf": "0", "g": "10"}])
def test_an_edit_list_may_show_parts_in_any_order(tmp_path: Path, options: dict[str, str]) -> None:
    clip = clips.write(tmp_path / "a.mp4", 50, options=options)
    second = Fraction(1), Fraction(12, 25)
    source = VideoSource(clips.edits(clip, second, (Fraction(0), Fraction(2, 5))))
    wanted = [*range(25, 37), *range(10)]
    assert seen(source) == [(n, Fraction(i, 25)) for i, n in enumerate(wanted)]
    assert [n for n, _ in seen(source, (3, 15))] == [28, 3]
    assert source.source.restarts == ()
