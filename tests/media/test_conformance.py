"""Generated media against FFmpeg's own tools: ffprobe's count of frames and times, ffmpeg's colours.

The tools are Debian's, another version than the libraries that deepscan uses; without them these tests skip.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from builders import clips
from deepscan.media.video import DamagedFrame, VideoSource
from deepscan.records import Frame

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None,
        reason="no ffmpeg and ffprobe here; Debian's package ffmpeg has both",
    ),
]

COUNT = 24
VARIABLE = [Fraction(i * i + 3 * i, 200) for i in range(COUNT)]
LATE = [2 + Fraction(i, 25) for i in range(COUNT)]

B = clips.b_frames()
QUIET = "log-level=none"
CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264-b": ("libx264", B),
    "h264": ("libx264", {"bf": "0", "g": "8"}),
    "h264-open": (
        "libx264",
        {**B, "x264-params": "open-gop=1:bframes=3:keyint=8:min-keyint=1:scenecut=0"},
    ),
    "h264-fields": (
        "libx264",
        {"flags": "+ildct+ilme", "x264-params": "tff=1:bframes=2:keyint=10"},
    ),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": f"{QUIET}:bframes=3:keyint=10"}),
    "mpeg4-b": ("mpeg4", {"bf": "2", "g": "10", "qmin": "1", "qmax": "3"}),
    "mpeg2-b": ("mpeg2video", {"bf": "2", "g": "10", "qmin": "1", "qmax": "3"}),
    "mpeg2": ("mpeg2video", {"g": "10", "qmin": "1", "qmax": "3"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "0"}),
    "vp8": (
        "libvpx",
        {"deadline": "realtime", "b": "4M", "auto-alt-ref": "1", "lag-in-frames": "10"},
    ),
    "av1": ("libsvtav1", {"preset": "12", "crf": "20"}),
    "ffv1": ("ffv1", {}),
    "mjpeg": ("mjpeg", {"q": "2"}),
    "prores": ("prores_ks", {}),
    "flv1": ("flv", {}),
    "wmv2": ("wmv2", {}),
}
CONTAINERS = {
    "mp4": "h264-b h264 h264-open h264-fields hevc mpeg4-b mpeg2-b vp9 av1 mjpeg",
    "mov": "h264-b h264 h264-fields hevc mpeg4-b mpeg2-b mjpeg prores",
    "mkv": "h264-b h264 h264-open h264-fields hevc mpeg4-b mpeg2-b vp9 vp8 av1 ffv1 mjpeg",
    "webm": "vp8 vp9 av1",
    "ts": "h264-b h264 h264-open h264-fields hevc mpeg2-b mpeg2 mpeg4-b",
    "m2ts": "h264-b mpeg2-b",
    "mpg": "mpeg2-b mpeg2",
    "vob": "mpeg2-b",
    "avi": "h264-b h264 mpeg4-b mjpeg mpeg2 ffv1",
    "nut": "h264-b mpeg4-b ffv1 hevc",
    "flv": "h264-b h264 flv1",
    "f4v": "h264-b",
    "m4v": "h264-b",
    "3gp": "h264-b mpeg4-b",
    "wmv": "wmv2",
    "asf": "mpeg4-b",
    "mxf": "mpeg2",
}
COARSE = ("avi", "mpg", "vob", "mxf", "wmv", "asf")  # cannot say at which instant a frame is shown
PLACED = [
    (container, name, times)
    for container, names in CONTAINERS.items()
    for name in names.split()
    for times in ("constant", "variable", "late")
    if times == "constant"
    or (container not in COARSE and not (times == "variable" and name[:5] == "mpeg2"))
]


def film(path: Path, name: str, times: str = "constant", count: int = COUNT, **more: Any) -> Path:
    codec, options = CODECS[name]
    form = {"prores": "yuv422p10le", "mjpeg": "yuvj420p"}.get(name, "yuv420p")
    old = name.startswith(("mpeg4", "mjpeg", "flv1", "wmv2"))  # their clocks have 16 bits
    stepped = name.startswith("mpeg2") or path.suffix[1:] in COARSE[:4]
    ticks = 25 if stepped else 1000 if old else None
    given = {"constant": None, "variable": VARIABLE, "late": LATE}[times]
    pictures = [coloured(n) for n in range(count)]
    return clips.write(
        path, pictures, codec, form, options=options, times=given, ticks=ticks, **more
    )


def coloured(n: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A numbered picture under tiles of many colours."""
    tiles = np.random.default_rng(1).integers(30, 225, (height // 16 + 1, width // 16 + 1, 3))
    tint = np.kron(tiles, np.ones((16, 16, 1)))[:height, :width]
    return (0.7 * clips.numbered(n, width, height) + 0.3 * tint).astype(np.uint8)


def frames(source: VideoSource) -> list[Frame]:
    found = list(source.decode(range(source.source.frames)))
    assert not any(isinstance(frame, DamagedFrame) for frame in found)
    return found  # type: ignore[return-value]


def times_of(path: Path) -> tuple[list[Fraction | None], Fraction]:
    """What ffprobe says of each frame's time, None where it does not know, and the clock's tick."""
    entries = "frame=best_effort_timestamp:stream=time_base"
    command = ["ffprobe", "-v", "error", "-select_streams", "V:0", "-show_entries", entries]
    said = json.loads(subprocess.check_output([*command, "-of", "json", path]))
    tick = Fraction(said["streams"][0]["time_base"])
    stamps = [frame.get("best_effort_timestamp") for frame in said["frames"]]
    return [None if stamp is None else int(stamp) * tick for stamp in stamps], tick


def pixels_of(path: Path, source: VideoSource) -> np.ndarray:
    """What ffmpeg makes of the frames: (n, height, width, 3)."""
    facts = source.source
    deep = any(part.bits > 8 for part in av.VideoFormat(facts.pixel_format).components)
    # deepscan rounds 10 bits; 8 bits are converted as by ffmpeg's defaults.
    how = "scale=flags=bicubic" + ("+accurate_rnd+full_chroma_int" if deep else "")
    if facts.colour.matrix != "gbr":
        how += f":in_color_matrix={facts.colour.matrix.removesuffix('nc')}"
    command = ["ffmpeg", "-v", "error", "-i", path, "-map", "0:V:0", "-fps_mode", "passthrough"]
    command += ["-vf", how, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    content = np.frombuffer(subprocess.check_output(command), np.uint8)
    return content.reshape(-1, facts.height, facts.width, 3)


def blocks(pixels: np.ndarray) -> np.ndarray:
    """Medians of blocks of 8 by 8: filters of chroma differ at edges, between versions too."""
    n, height, width, _ = pixels.shape
    whole = pixels[:, : height // 8 * 8, : width // 8 * 8].astype(float)
    return np.median(whole.reshape(n, height // 8, 8, width // 8, 8, 3), (2, 4))


def check(path: Path, geometry: bool = False) -> None:
    source = VideoSource(path)
    found = frames(source)
    times, tick = times_of(path)
    assert len(found) == len(times)
    pairs = [
        (frame.time, time) for frame, time in zip(found, times, strict=True) if time is not None
    ]
    # AVI has no times of its own: ours begin at 0, ffprobe's after as many frames as the decoder holds.
    start = pairs[0][0] - pairs[0][1] if path.suffix == ".avi" else 0
    assert max(abs(ours - theirs - start) for ours, theirs in pairs) <= tick / 2
    if not geometry and not any(frame.interlaced for frame in found):
        ours, theirs = (
            blocks(p) for p in (np.stack([f.pixels for f in found]), pixels_of(path, source))
        )
        assert np.abs(ours - theirs).max() <= 2


@pytest.mark.parametrize(("container", "name", "times"), PLACED)
def test_frames_and_times_are_ffmpegs(
    tmp_path: Path, container: str, name: str, times: str
) -> None:
    check(film(tmp_path / f"a.{container}", name, times))


@pytest.mark.parametrize("container", ["mp4", "mov"])
@pytest.mark.parametrize("name", ["h264-b", "h264", "h264-fields", "hevc", "mpeg4-b"])
def test_edit_lists_are_followed_as_by_ffmpeg(tmp_path: Path, container: str, name: str) -> None:
    check(clips.edit_list(film(tmp_path / f"a.{container}", name), Fraction(7, 25)))


@pytest.mark.parametrize("container", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("aspect", [None, Fraction(4, 3), Fraction(3, 4)])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_geometry_changes_neither_frames_nor_times(
    tmp_path: Path, container: str, aspect: Fraction | None, degrees: int
) -> None:
    def state(stream: Any) -> None:
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if degrees:
            stream.set_display_rotation(degrees)

    path = film(tmp_path / f"a.{container}", "h264-b", count=12, stream=state)
    check(path, geometry=True)
    facts, width = VideoSource(path).source, round(96 * (aspect or 1))
    assert (facts.width, facts.height) == ((64, width) if degrees % 180 else (width, 64))


def tagged(path: Path, codec: str, form: str, size: tuple[int, int], **tags: int) -> Path:
    options = {
        "libx264": {"crf": "4", "preset": "ultrafast"},
        "libx265": {"preset": "ultrafast", "x265-params": f"{QUIET}:crf=4"},
    }.get(codec, {})

    def state(target: Any) -> None:
        for name, value in tags.items():
            setattr(target, name, value)

    pictures = [coloured(n, *size) for n in range(3)]
    return clips.write(
        path, pictures, codec, form, options=options, frame=state, stream=lambda s: state(s.codec_context)
    )  # fmt: skip


@pytest.mark.parametrize("codec", ["libx264", "libx265", "ffv1"])
@pytest.mark.parametrize(
    ("matrix", "reach", "form"),
    list(product([2, 1, 5, 6, 7, 9], [1, 2], ["yuv420p", "yuv420p10le"])),
)
def test_colours_are_ffmpegs(
    tmp_path: Path, codec: str, matrix: int, reach: int, form: str
) -> None:
    check(tagged(tmp_path / "a.mkv", codec, form, (96, 64), colorspace=matrix, color_range=reach))


@pytest.mark.parametrize(
    "form",
    "yuv422p yuv444p yuv422p10le yuv444p10le yuv420p12le gray gray10le bgr0 gbrp10le".split(),  # noqa: SIM905
)
def test_pixel_formats_are_ffmpegs(tmp_path: Path, form: str) -> None:
    check(tagged(tmp_path / "a.mkv", "ffv1", form, (96, 64)))


@pytest.mark.parametrize("form", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("size", [(96, 64), (720, 64), (960, 64), (64, 576), (64, 720), (97, 61)])
def test_untagged_colours_are_those_of_the_guessed_matrix(
    tmp_path: Path, size: tuple[int, int], form: str
) -> None:
    check(tagged(tmp_path / "a.mkv", "ffv1", form, size))
