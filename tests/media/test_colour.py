"""Colours: HDR and wide gamut become the SDR that a player shows; untagged video is read as they read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from builders import clips
from deepscan.media.colour import BT2020, DISPLAY_P3, HLG, PQ, to_sdr
from deepscan.media.video import VideoSource

QUIET = {"x265-params": "log-level=none"}


def shown(code: tuple[float, float, float], transfer: int, primaries: int) -> list[int]:
    """What code values from 0 to 1 become."""
    pixels = np.rint(np.array(code) * 65535).astype(np.uint16).reshape(1, 1, 3)
    return to_sdr(pixels, 65535, transfer, primaries)[0, 0].tolist()


@pytest.mark.parametrize(
    ("code", "level"),
    [
        # PQ's code values (ST 2084) of 0, 0.1, 0.25 and 0.5 times reference white, 203 cd/m2. Light below 0.8
        # of it comes back: 255 * share ** (1 / 2.4).
        (0.0, 0),
        (0.3583, 98),
        (0.4417, 143),
        (0.5096, 191),
        (0.7518, 255),  # 1000 cd/m2: white
        (1.0, 255),
    ],
)
def test_pq_is_shown_as_bright_as_its_reference_white_says(code: float, level: int) -> None:
    assert shown((code,) * 3, PQ, BT2020) == [level] * 3


@pytest.mark.parametrize(
    ("code", "level"),
    [
        # A display of 1000 cd/m2 shows the code value 0.5, light 1/12 of the scene, at 1000 * (1/12) ** 1.2 =
        # 50.7 cd/m2; 0.25, light 1/48, at 9.6.
        (0.0, 0),
        (0.25, 72),
        (0.5, 143),
        (1.0, 255),
    ],
)
def test_hlg_is_shown_as_on_a_display_of_1000(code: float, level: int) -> None:
    assert shown((code,) * 3, HLG, BT2020) == [level] * 3


def test_highlights_keep_their_order_and_their_hue() -> None:
    levels = [shown((code,) * 3, PQ, BT2020)[0] for code in np.linspace(0, 0.75, 76)]
    assert levels == sorted(levels)
    assert shown((0.5807,) * 3, PQ, BT2020) == [244] * 3  # reference white itself
    red, green, blue = shown((0.68, 0.62, 0.60), PQ, 1)
    assert red > green > blue


def test_wide_gamut_is_taken_to_the_colours_of_bt709() -> None:
    assert shown((0.5, 0.5, 0.5), 1, DISPLAY_P3) == [128] * 3
    assert shown((1.0, 0.0, 0.0), 13, DISPLAY_P3) == [255, 0, 0]  # outside: clipped
    red, green, _ = shown((0.6, 0.4, 0.4), 1, BT2020)
    assert red > 0.6 * 255 > green  # BT.709 needs more of its paler red for the same colour


def flat(
    path: Path, levels: tuple[int, int, int], form: str, size: tuple[int, int], **tags: int
) -> Path:
    """A clip with these Y, U and V everywhere, lossless."""
    deep = form.endswith("10le")

    def paint(frame: av.VideoFrame) -> None:
        for plane, level in zip(frame.planes, levels, strict=True):
            content = np.full(
                plane.buffer_size // (1 + deep), level, np.uint16 if deep else np.uint8
            )
            plane.update(content.tobytes())
        for name, value in tags.items():
            setattr(frame, name, value)

    def state(stream: Any) -> None:
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)

    grey = clips.plain((0, 0, 0), *size)
    return clips.write(path, [grey] * 2, "ffv1", form, frame=paint, stream=state)


def centre(path: Path) -> list[int]:
    pixels = next(iter(VideoSource(path).decode([0]))).pixels
    return pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].tolist()


def test_an_hdr_video_is_converted_and_says_so(tmp_path: Path) -> None:
    # PQ's 0.4417 in limited range: 64 + 876 * 0.4417 = 451.
    hdr = {"colorspace": 9, "color_trc": PQ, "color_primaries": 9, "color_range": 1}
    clip = flat(tmp_path / "a.mkv", (451, 512, 512), "yuv420p10le", (64, 64), **hdr)
    assert centre(clip) == pytest.approx([143] * 3, abs=1)
    colour = VideoSource(clip).source.colour
    assert (colour.matrix, colour.transfer, colour.primaries, colour.range) == (
        "bt2020nc", "smpte2084", "bt2020", "tv",
    )  # fmt: skip
    assert colour.conversion == "PQ to SDR of BT.709"


def test_hdr_of_8_bits_is_rounded_too(tmp_path: Path) -> None:
    """PQ's 0.4429 in limited range is 113 of 8 bits and 452 of 10; both are shown alike, at 144."""
    hdr = {"colorspace": 9, "color_trc": PQ, "color_primaries": 9, "color_range": 1}
    shallow = flat(tmp_path / "a.mkv", (113, 128, 128), "yuv420p", (64, 64), **hdr)
    deep = flat(tmp_path / "b.mkv", (452, 512, 512), "yuv420p10le", (64, 64), **hdr)
    assert centre(shallow) == centre(deep) == [144] * 3


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_what_was_graded_from_sdr_comes_back(transfer: int) -> None:
    """Up to 0.8 of reference white (232 of 255), in BT.2020's primaries: to one level."""
    levels = np.random.default_rng(0).integers(40, 233, (64, 64, 3))
    light = (levels / 255) ** 2.4 @ np.array(
        [(0.6274, 0.0691, 0.0164), (0.3293, 0.9195, 0.0880), (0.0433, 0.0114, 0.8956)]
    )  # the matrix of ITU-R BT.2087, transposed
    if transfer == PQ:
        power = (light * 203 / 10000) ** (2610 / 16384)
        code = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:
        display = light * 203 / 1000
        luminance = display @ np.array([0.2627, 0.6780, 0.0593])
        scene = display * np.maximum(luminance, 1e-9)[..., None] ** (-0.2 / 1.2)
        low, high = (
            np.sqrt(3 * scene),
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)),
        )
        code = np.where(scene <= 1 / 12, low, high + 0.55991073)
    shown = to_sdr(np.rint(code * 65535).astype(np.uint16), 65535, transfer, BT2020)
    assert np.abs(shown.astype(int) - levels).max() <= 1


def test_tags_in_the_container_alone_are_followed(tmp_path: Path) -> None:
    """As players do. What the bits of the video say comes first."""
    tags = {"colorspace": 9, "color_trc": PQ, "color_primaries": 9, "color_range": 1}

    def state(stream: Any) -> None:
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)

    bare = clips.write(tmp_path / "bare.mp4", 3, "libx265", "yuv420p10le", options=QUIET)
    with av.open(str(bare)) as given, av.open(str(tmp_path / "a.mkv"), "w") as out:
        copy = out.add_stream_from_template(given.streams.video[0])
        state(copy)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    assert VideoSource(bare).source.colour.conversion == ""
    colour = VideoSource(tmp_path / "a.mkv").source.colour
    assert (colour.matrix, colour.transfer, colour.range, colour.conversion) == (
        "bt2020nc", "smpte2084", "tv", "PQ to SDR of BT.709",
    )  # fmt: skip


def test_dolby_vision_without_other_tags_is_not_exact(tmp_path: Path) -> None:
    clip = clips.write(tmp_path / "a.mp4", 3, "libx265", "yuv420p10le", options=QUIET)
    clip.write_bytes(clip.read_bytes().replace(b"hev1", b"dvhe").replace(b"hvc1", b"dvh1"))
    colour = VideoSource(clip).source.colour
    assert (colour.transfer, colour.exact) == ("Dolby Vision", False)


def test_ten_bits_are_rounded(tmp_path: Path) -> None:
    # 220, 170 and 140 in BT.709: Y 0.7044, Cb -0.0838, Cr 0.1005.
    clip = flat(
        tmp_path / "a.mkv", (677, 439, 605), "yuv420p10le", (64, 64), colorspace=1, color_range=1
    )
    assert centre(clip) == [220, 170, 140]


@pytest.mark.parametrize(
    ("size", "matrix"),
    [
        ((640, 480), "smpte170m"),
        ((720, 576), "smpte170m"),
        ((1280, 544), "bt709"),  # cut to the picture
        ((960, 540), "bt709"),  # half of 1080p
        ((480, 640), "bt709"),  # upright
        ((1280, 720), "bt709"),
    ],
)
def test_untagged_colours_are_guessed_by_size(
    tmp_path: Path, size: tuple[int, int], matrix: str
) -> None:
    clip = flat(tmp_path / "a.mkv", (120, 100, 160), "yuv420p", size)
    colour = VideoSource(clip).source.colour
    assert (colour.matrix, colour.matrix_guessed) == (matrix, True)
    # Green = 1.164 (Y - 16) less a share of the chroma: 0.391 (U - 128) and 0.813 (V - 128) in BT.601,
    # 0.213 and 0.533 in BT.709.
    u, v = (0.391, 0.813) if matrix == "smpte170m" else (0.213, 0.533)
    assert centre(clip)[1] == pytest.approx(1.164 * 104 + u * 28 - v * 32, abs=2)
