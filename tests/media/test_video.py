"""VideoSource: what a file says of itself, which frames are chosen, and that just those come out."""

from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from builders import clips
from builders.machine import SHARED
from deepscan.config import Sampling
from deepscan.errors import InputError, NoVideoStream, UnreadableInput
from deepscan.media.packets import number, number_of
from deepscan.media.video import DamagedFrame, VideoSource
from deepscan.records import Pixels

ALL = Sampling("all")


def numbers(source: VideoSource, indices: Sequence[int]) -> list[int | None]:
    """The numbers in the pictures that were given out, None for damaged ones."""
    items = list(source.decode(indices))
    assert [item.index for item in items] == list(indices)
    return [None if isinstance(i, DamagedFrame) else clips.number(i.pixels) for i in items]


def picture(path: Path) -> Pixels:
    return next(iter(VideoSource(path).decode([0]))).pixels


def noisy(count: int) -> list[np.ndarray]:
    """Numbered pictures with so much grain that their packets are worth breaking."""
    grain = np.random.default_rng(1)
    return [
        (clips.numbered(i) + grain.integers(-35, 36, (clips.HEIGHT, clips.WIDTH, 1))).astype(
            np.uint8
        )
        for i in range(count)
    ]


# --- what a file says of itself --------------------------------------------------------------------


VARIABLE = [Fraction(0), Fraction(1, 10), Fraction(1), Fraction(3, 2), Fraction(4)]
LATE = [2 + Fraction(i, 25) for i in range(20)]


@pytest.mark.parametrize(
    ("name", "times", "start", "duration", "average", "variable"),
    [
        ("a.mp4", None, 0, Fraction(4, 5), 25, False),
        ("a.mkv", None, 0, Fraction(4, 5), 25, False),
        ("a.ts", LATE, 2, Fraction(4, 5), 25, False),
        ("late.mp4", LATE, 2, Fraction(4, 5), 25, False),
        ("late.mkv", LATE, 2, Fraction(4, 5), 25, False),
        ("variable.mp4", VARIABLE, 0, 4 + Fraction(1, 25), 1, True),
        ("variable.mkv", VARIABLE, 0, 4 + Fraction(1, 25), 1, True),
        ("a.avi", None, 0, Fraction(4, 5), 25, False),
        ("a.h264", None, 0, Fraction(4, 5), 25, False),
    ],
)
def test_times_are_exact_fractions(
    tmp_path: Path,
    name: str,
    times: list[Fraction] | None,
    start: Fraction,
    duration: Fraction,
    average: Fraction,
    variable: bool,
) -> None:
    count = len(times) if times else 20
    clip = clips.write(tmp_path / name, count, times=times, options=clips.b_frames())
    source = VideoSource(clip).source
    assert (source.frames, source.start, source.duration) == (count, start, duration)
    assert (source.average_rate, source.variable_rate) == (average, variable)
    assert source.exact_times == (clip.suffix not in (".avi", ".h264"))


def test_record_of_a_file(tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "a.mp4", 5, tags={"title": "evidence"}, sound=True)
    source = VideoSource(clip).source
    assert (source.kind, source.codec, source.pixel_format) == ("video", "h264", "yuv420p")
    assert (source.width, source.height, source.rotation) == (96, 64, 0)
    assert source.bytes == clip.stat().st_size
    assert source.tags["title"] == "evidence"


def test_tags_that_are_no_text_are_kept_as_far_as_they_go(tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "a.mp4", 2, tags={"title": "AAAABBBB"})
    clip.write_bytes(clip.read_bytes().replace(b"AAAABBBB", b"A\xff\xfeABBBB"))
    assert VideoSource(clip).source.tags["title"] == "A��ABBBB"


@pytest.mark.parametrize(
    "name", [b"a:b.mp4", b"http:x.mp4", b"%03d.mp4", b"line\nfeed.mp4", b"\xff\xfe.mp4", b" #?.mp4"]
)
def test_any_file_name_opens_that_file(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    clips.write(tmp_path / "plain.mp4", 2).rename(path)
    assert VideoSource(path).source.frames == 2


def test_declared_duration_tells_of_what_is_missing(tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "a.mp4", noisy(50), movflags="faststart")
    source = VideoSource(clips.cut(clip, 0.5))
    assert source.declared_duration == 2
    assert source.source.duration < Fraction(3, 2)


# --- which frames ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "frames", "chosen"),
    [
        # Frames stand at 0, 0.1, 1, 1.5 and 4 s; an instant shows the last frame not after it.
        ("uniform", 3, (0, 3, 4)),  # instants 0, 2, 4
        ("uniform", 4, (0, 2, 3, 4)),  # 0, 1.333, 2.667, 4
        ("uniform", 2, (0, 4)),
        ("uniform", 1, (3,)),  # the middle: 2 s
        ("uniform", 5, (0, 1, 2, 3, 4)),  # as many as there are
        ("uniform", 99, (0, 1, 2, 3, 4)),
        ("all", 1, (0, 1, 2, 3, 4)),
        ("every:0.5", 1, (0, 1, 2, 3, 4)),  # 0.5 shows frame 1; 1.5 to 3.5 show frame 3, once
        ("every:2", 1, (0, 3, 4)),
        ("every:10", 1, (0,)),
        ("every:0.000000001", 1, (0, 1, 2, 3, 4)),  # finer than the clock, and not a list of 4e9
        ("keyframes", 1, (0,)),
    ],
)
def test_choice_follows_the_clock(
    tmp_path: Path, rule: str, frames: int, chosen: tuple[int, ...]
) -> None:
    source = VideoSource(clips.write(tmp_path / "a.mkv", 5, times=VARIABLE, ticks=1000))
    assert source.choose(Sampling.parse(rule, frames)) == chosen
    assert numbers(source, chosen) == list(chosen)


def test_uniform_at_a_constant_rate_is_linspace(tmp_path: Path) -> None:
    source = VideoSource(clips.write(tmp_path / "a.mp4", 101))
    assert source.choose(Sampling("uniform", 5)) == (0, 25, 50, 75, 100)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.h264"])
def test_keyframes(tmp_path: Path, name: str) -> None:
    source = VideoSource(clips.write(tmp_path / name, 35, options=clips.b_frames()))
    assert source.choose(Sampling("keyframes")) == (0, 10, 20, 30)
    assert numbers(source, (0, 10, 20, 30)) == [0, 10, 20, 30]


# --- just those frames -----------------------------------------------------------------------------

OPEN = {"x264-params": "open-gop=1:b-adapt=0:b-pyramid=normal:ref=3:scenecut=0"}
REFRESH = {"g": "20", "preset": "ultrafast", "x264-params": "intra-refresh=1:bframes=0"}
HEVC = {"preset": "ultrafast", "x265-params": "keyint=20:bframes=3:log-level=none"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "20", "lag-in-frames": "12"}
MPEG = {"bf": "2", "g": "12"}


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("b-frames.mp4", "libx264", clips.b_frames()),
        ("b-frames.mkv", "libx264", clips.b_frames()),
        ("b-frames.ts", "libx264", clips.b_frames()),
        ("b-frames.flv", "libx264", clips.b_frames()),
        ("open.mp4", "libx264", clips.b_frames(**OPEN)),
        ("open.ts", "libx264", clips.b_frames(**OPEN)),
        ("gradual-refresh.mp4", "libx264", REFRESH),
        ("no-index.avi", "libx264", clips.b_frames()),
        ("no-clock.h264", "libx264", clips.b_frames()),
        ("hevc.mp4", "libx265", HEVC),
        ("vp9.webm", "libvpx-vp9", VP9),
        ("mpeg4.avi", "mpeg4", MPEG),
        ("mpeg2.mpg", "mpeg2video", MPEG),
        ("mpeg2.ts", "mpeg2video", MPEG),
    ],
)
def test_seeking_gives_the_frames_a_full_decode_gives(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    count = 120
    ticks = 25 if codec == "mpeg2video" else None
    source = VideoSource(
        clips.write(
            tmp_path / name, count, codec, options=options, ticks=ticks, sound=name[-2:] == "ts"
        )
    )
    with av.open(str(tmp_path / name)) as container:
        plain = [clips.number(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    assert plain == list(range(count))
    assert numbers(source, source.choose(ALL)) == plain
    for indices in ([0, 57, 119], [118], [99], [33, 34, 35, 99, 100, 101], list(range(9, 120, 31))):
        assert numbers(source, indices) == indices


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        # Keyframes stand at 0, 10, ... 110; one run from each of those that an instant needs.
        ("a.mp4", [[0, 5, 60, 64, 118], [33, 90]]),
        ("a.avi", [[0, 5, 60, 64, 118], [33, 90]]),  # read up to there, since it cannot seek
    ],
)
def test_parts_are_decoded_side_by_side(tmp_path: Path, name: str, parts: list[list[int]]) -> None:
    source = VideoSource(clips.write(tmp_path / name, 120, options=clips.b_frames()))
    indices = [0, 5, 33, 60, 64, 90, 118]
    assert source.split(indices, 2) == parts
    assert [numbers(source, part) for part in parts] == parts


def test_what_one_decoder_lets_go_of_another_keeps() -> None:
    """Frames are known by marks on packets; another decoder numbers its own alike."""
    ours, theirs = [av.Packet(b"\0") for _ in range(9)], [av.Packet(b"\0") for _ in range(9)]
    for place, both in enumerate(zip(ours, theirs, strict=True)):
        for packet in both:
            number(packet, place)
    del theirs, both, packet
    assert [number_of(packet) for packet in ours] == list(range(9))


def test_without_a_seek_table(tmp_path: Path) -> None:
    """Matroska keeps its table of keyframes at the end: a recording cut short has none."""
    clip = clips.write(tmp_path / "a.mkv", noisy(200), options=clips.b_frames())
    source = VideoSource(clips.cut(clip, 0.9))
    indices = source.choose(Sampling("uniform", 6))
    assert indices[-1] > 150
    assert numbers(source, indices[:-1]) == list(indices[:-1])  # the last packet itself may be cut


def test_a_cut_in_the_edit_list_is_cut(tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "a.mp4", 50, options=clips.b_frames())
    source = VideoSource(clips.edit_list(clip, Fraction(13, 25)))
    assert (source.source.frames, source.source.start) == (37, 0)
    assert numbers(source, source.choose(ALL)) == list(range(13, 50))
    assert numbers(source, [0, 20, 36]) == [13, 33, 49]


def test_dropped_frames_of_an_avi_keep_their_time(tmp_path: Path) -> None:
    times = [Fraction(i, 25) for i in (0, 1, 2, 5, 6, 7, 12, 13)]
    source = VideoSource(clips.write(tmp_path / "a.avi", 8, "mpeg4", times=times))
    assert [frame.time for frame in source.decode(range(8))] == times
    assert numbers(source, range(8)) == list(range(8))


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        pictures = [clips.plain((i % 256,) * 3, 64, 64) for i in range(count)]
        source = VideoSource(clips.write(tmp_path / f"{count}.mp4", pictures, "mpeg4"))
        tracemalloc.start()
        try:
            assert sum(1 for _ in source.decode(source.choose(ALL))) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(700) - peak(100) < 600 * 64 * 64 * 3 / 10  # a tenth of what the frames would take


# --- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
@pytest.mark.parametrize(
    ("packet", "damaged"),
    [
        (10, set(range(10, 20))),  # a keyframe: all that is built on it
        (11, set(range(11, 20))),  # frame 14, on which 11 to 13 and all later ones are built
        (49, {49}),  # the last frame, a reference to none
    ],
)
def test_damage_reaches_as_far_as_it_is_built_on(
    tmp_path: Path, name: str, packet: int, damaged: set[int]
) -> None:
    clip = clips.write(tmp_path / name, noisy(50), options=clips.b_frames())
    source = VideoSource(clips.break_packets(clip, [packet]))
    for indices in (range(50), range(0, 50, 4)):
        for i, found in zip(indices, numbers(source, indices), strict=True):
            if i not in damaged:
                assert found == i
            elif packet == 10:
                assert found is None
            else:  # broken data may happen to decode to the right picture
                assert found in (None, i)


def test_a_file_cut_short_is_read_to_its_end(tmp_path: Path) -> None:
    clip = clips.write(
        tmp_path / "a.mp4", noisy(50), options=clips.b_frames(), movflags="faststart"
    )
    source = VideoSource(clips.cut(clip, 0.5))
    found = numbers(source, source.choose(ALL))
    assert 15 < len(found) < 35
    assert found[:-4] == list(range(len(found) - 4))
    assert None in found[-4:]


def text(path: Path) -> Path:
    path.write_text("This is not a video. " * 50)
    return path


def playlist(path: Path) -> Path:
    clips.write(path.with_name("other.ts"), 5)
    path.write_text(
        "ffconcat version 1.0\nfile other.ts\n"
        if path.suffix == ".ffconcat"
        else "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.ts\n#EXT-X-ENDLIST\n"
    )
    return path


def empty(path: Path) -> Path:
    path.touch()
    return path


def cover(path: Path) -> Path:
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64)).save(jpeg, "JPEG")
    return clips.with_cover(path, jpeg.getvalue())


def huge_gif(path: Path) -> Path:
    return clips.patch(clips.write(path, 2, "gif", "rgb8"), 6, b"\x60\xea" * 2)


@pytest.mark.parametrize(
    ("make", "name", "error", "words"),
    [
        (lambda p: p, "absent.mp4", UnreadableInput, "no such file; "),
        (empty, "a.mp4", UnreadableInput, "is empty .* copy it again"),
        (text, "a.mp4", UnreadableInput, "text, not a video; check"),
        (
            lambda p: clips.cut(clips.write(p, 9), 0.5),
            "a.mp4",
            UnreadableInput,
            "without its index",
        ),
        (
            lambda p: clips.write(p, 0),
            "a.mp4",
            NoVideoStream,
            "contains no video, nor anything else",
        ),
        (lambda p: clips.write(p, 0), "a.mkv", UnreadableInput, "not a readable video"),
        (lambda p: clips.write(p, 0), "a.avi", UnreadableInput, "contains no frames; copy"),
        (lambda p: clips.sound_only(p), "a.m4a", NoVideoStream, "only audio; check"),
        (lambda p: clips.sound_only(p, "pcm_s16le"), "a.wav", NoVideoStream, "only audio"),
        (cover, "a.mp3", NoVideoStream, "only a cover picture, audio"),
        (
            playlist,
            "a.m3u8",
            UnreadableInput,
            "does not open files named in other files",
        ),
        (playlist, "a.ffconcat", UnreadableInput, "a playlist"),
        (clips.huge_h264, "a.h264", UnreadableInput, "more than 67108864 pixels"),
        (huge_gif, "a.gif", UnreadableInput, "more than 67108864 pixels"),
    ],
)
def test_what_cannot_be_read_says_so(
    tmp_path: Path, make: Callable[[Path], Path], name: str, error: type[InputError], words: str
) -> None:
    path = make(tmp_path / name)
    with pytest.raises(error, match=words) as caught:
        VideoSource(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4")]
)
def test_random_damage_is_an_input_error_or_adds_up(
    tmp_path: Path, name: str, codec: str, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    clip = clips.write(tmp_path / name, 20, codec)
    sound = clip.read_bytes()
    for _ in range(10):
        data = bytearray(sound)
        for place in chance.integers(0, len(data), 8):
            data[place] = chance.integers(256)
        clip.write_bytes(data)
        try:
            source = VideoSource(clip)
            numbers(
                source, source.choose(Sampling("uniform", 6))
            )  # each index once, whatever it holds
        except InputError:
            pass


# --- as a player shows it --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrix", "shown", "rotation"),
    [
        # x' = a x + c y, y' = b x + d y; the stored picture is RG over BW.
        ((1, 0, 0, 1), "RG/BW", 0),
        ((0, 1, -1, 0), "BR/WG", 270),  # a phone held upright: a quarter turn clockwise
        ((-1, 0, 0, -1), "WB/GR", 180),
        ((0, -1, 1, 0), "GW/RB", 90),
        ((-1, 0, 0, 1), "GR/WB", 0),  # mirrored, as selfies are
        ((1, 0, 0, -1), "BW/RG", 180),
        ((0, 1, 1, 0), "RB/GW", 270),
        ((0, -1, -1, 0), "WG/BR", 90),
    ],
)
def test_turned_and_mirrored(
    tmp_path: Path, matrix: tuple[int, int, int, int], shown: str, rotation: int
) -> None:
    clip = clips.track_matrix(clips.write(tmp_path / "a.mp4", [clips.quarters()] * 2), *matrix)
    source, pixels = VideoSource(clip).source, picture(clip)
    assert clips.corners(pixels) == shown
    assert source.rotation == rotation
    assert pixels.shape == (source.height, source.width, 3)
    assert (source.width, source.height) == ((64, 96) if matrix[0] == 0 else (96, 64))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(("degrees", "shown"), [(90, "GW/RB"), (180, "WB/GR"), (270, "BR/WG")])
def test_turned_by_the_container(tmp_path: Path, name: str, degrees: int, shown: str) -> None:
    clip = clips.write(
        tmp_path / name, [clips.quarters()] * 2, stream=lambda s: s.set_display_rotation(degrees)
    )
    assert clips.corners(picture(clip)) == shown
    assert VideoSource(clip).source.rotation == degrees


def test_turned_by_exif_in_a_cameras_motion_jpeg(tmp_path: Path) -> None:
    """FFmpeg hands EXIF on as side data of a kind that PyAV cannot name and refuses to list."""
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = io.BytesIO()
    Image.fromarray(clips.quarters()).save(jpeg, "JPEG", exif=exif)
    clip = clips.mux(tmp_path / "a.avi", "mjpeg", [jpeg.getvalue()] * 2)
    assert clips.corners(picture(clip)) == "BR/WG"
    assert VideoSource(clip).source.rotation == 270


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize(
    ("aspect", "width"),
    [(Fraction(1), 96), (Fraction(4, 3), 128), (Fraction(3, 4), 72), (Fraction(9), 96)],
)
def test_pixels_are_square(tmp_path: Path, name: str, aspect: Fraction, width: int) -> None:
    def wide(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = aspect

    clip = clips.write(tmp_path / name, [clips.quarters()] * 2, stream=wide)
    assert picture(clip).shape == (64, width, 3)
    assert VideoSource(clip).source.width == width
    assert clips.corners(picture(clip)) == "RG/BW"


BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)  # weights of red and blue


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("size", "tag", "weights"),
    [
        ((64, 48), None, BT601),  # untagged and small
        ((1280, 720), None, BT709),  # untagged and large
        ((64, 48), 1, BT709),
        ((1280, 720), 6, BT601),
        ((64, 48), 5, BT601),
        ((64, 48), 9, BT2020),
    ],
)
def test_colours_are_those_that_were_filmed(
    tmp_path: Path, size: tuple[int, int], tag: int | None, weights: tuple[float, float], full: bool
) -> None:
    red, green, blue = 200 / 255, 60 / 255, 90 / 255
    luma = weights[0] * red + (1 - sum(weights)) * green + weights[1] * blue
    chroma = (blue - luma) / 2 / (1 - weights[1]), (red - luma) / 2 / (1 - weights[0])
    low, steps, chroma_steps = (0, 255, 255) if full else (16, 219, 224)
    y, u, v = (round(low + steps * luma), *(round(128 + chroma_steps * c) for c in chroma))
    planes = np.concatenate([np.full(48 * 64, y), np.full(48 * 16, u), np.full(48 * 16, v)])

    def paint(frame: av.VideoFrame) -> None:
        for plane, level in zip(frame.planes, (y, u, v), strict=True):
            plane.update(bytes([level]) * plane.buffer_size)
        frame.colorspace, frame.color_range = tag or 2, 2 if full else 1

    def state(stream: av.VideoStream) -> None:
        stream.codec_context.colorspace = tag or 2
        stream.codec_context.color_range = 2 if full else 1

    assert planes.max() <= 255
    grey = clips.plain((0, 0, 0), *size)
    clip = clips.write(tmp_path / "a.mp4", [grey], options={"crf": "1"}, frame=paint, stream=state)
    pixels = picture(clip)
    assert pixels.shape == (size[1], size[0], 3)
    assert np.abs(pixels.reshape(-1, 3) - np.array((200, 60, 90.0))).max() <= 3


@pytest.mark.parametrize(
    ("name", "codec", "form", "size"),
    [
        ("ten-bits.mp4", "libx264", "yuv420p10le", (96, 64)),
        ("grey.mkv", "ffv1", "gray", (96, 64)),
        ("alpha.mov", "prores_ks", "yuva444p10le", (96, 64)),
        ("alpha.mov", "qtrle", "argb", (96, 64)),
        ("alpha.mov", "png", "rgba", (96, 64)),
        ("alpha.webm", "libvpx-vp9", "yuva420p", (96, 64)),
        ("odd.mkv", "ffv1", "yuv444p", (97, 61)),
        ("odd.mkv", "ffv1", "yuv420p", (97, 61)),
        ("odd.avi", "rawvideo", "bgr24", (97, 61)),
        ("full-range.avi", "mjpeg", "yuvj420p", (96, 64)),
        ("palette.gif", "gif", "rgb8", (96, 64)),
        ("one-frame.mp4", "libx264", "yuv420p", (96, 64)),
    ],
)
def test_every_pixel_format_becomes_rgb(
    tmp_path: Path, name: str, codec: str, form: str, size: tuple[int, int]
) -> None:
    count = 1 if name.startswith("one") else 3
    pictures = [clips.numbered(i, *size) for i in range(count)]
    source = VideoSource(clips.write(tmp_path / name, pictures, codec, form))
    assert numbers(source, range(count)) == list(range(count))
    frame = next(iter(source.decode([0])))
    assert frame.pixels.shape == (size[1], size[0], 3)
    assert frame.pixels.flags.c_contiguous
    assert abs(int(frame.pixels[size[1] // 2, size[0] // 2, 1]) - clips.DARK) < 12


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mpg", "mpeg2video")])
def test_interlaced_pictures_are_one_field(tmp_path: Path, name: str, codec: str) -> None:
    comb = clips.plain((60, 60, 60))
    comb[1::2] = 200  # the second field shows another moment
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1", "crf": "10"}
    if codec == "mpeg2video":
        options = {"flags": "+ildct+ilme", "qmin": "1", "qmax": "2"}
    clip = clips.write(tmp_path / name, [comb] * 3, codec, options=options)
    frame = next(iter(VideoSource(clip).decode([0])))
    assert frame.interlaced
    assert np.abs(frame.pixels.astype(int) - 60).max() <= 3


# --- real files ------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside this checkout")
def test_real_clips_come_out_whole_and_in_order() -> None:
    for path in sorted((SHARED / "clips").glob("*/*.mp4"))[:4]:
        source = VideoSource(path)
        indices = source.choose(Sampling("uniform", 4))
        frames = list(source.decode(indices))
        assert not any(isinstance(frame, DamagedFrame) for frame in frames)
        assert [frame.index for frame in frames] == list(indices)
