"""StillSource: single pictures of every kind, turned upright, or refused in words."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from builders import clips
from deepscan.config import Sampling
from deepscan.errors import InputError, NoVideoStream, UnreadableInput
from deepscan.media.heif import Primary, Tags, primary
from deepscan.media.isolation import open_source
from deepscan.media.stills import StillSource, is_still
from deepscan.media.video import DamagedFrame, VideoSource
from deepscan.records import Frame, Pixels

QUARTERS = Image.fromarray(clips.quarters())


def shown(path: Path) -> Pixels:
    source = StillSource(path)
    assert is_still(path)
    (frame,) = source.decode(source.choose(Sampling()))
    assert (frame.index, frame.time) == (0, Fraction(0))
    assert frame.pixels.shape == (source.source.height, source.source.width, 3)
    return frame.pixels


def animation(path: Path, count: int = 3, **more: object) -> Path:
    pictures = [Image.fromarray(clips.numbered(i)) for i in range(count)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **more)
    return path


def raw(path: Path) -> Path:
    """A thumbnail first, and the picture itself where only a camera's maker knows how to read it."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[254], tags[330] = 1, 8
    Image.fromarray(clips.numbered(0)).save(path, "TIFF", tiffinfo=tags)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif", "avif", "jp2"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    QUARTERS.save(path)
    assert clips.corners(shown(path)) == "RG/BW"
    source = StillSource(path).source
    assert (source.kind, source.frames, source.start, source.duration) == ("image", 1, 0, 0)


@pytest.mark.parametrize(
    ("orientation", "upright", "rotation"),
    [
        # The stored picture is RG over BW; EXIF says which way up the camera was held.
        (1, "RG/BW", 0),
        (2, "GR/WB", 0),
        (3, "WB/GR", 180),
        (4, "BW/RG", 180),
        (5, "RB/GW", 270),
        (6, "BR/WG", 270),
        (7, "WG/BR", 90),
        (8, "GW/RB", 90),
    ],
)
def test_turned_upright_by_exif(
    tmp_path: Path, orientation: int, upright: str, rotation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    QUARTERS.save(path, exif=exif)
    assert clips.corners(shown(path)) == upright
    assert StillSource(path).source.rotation == rotation


def deep_grey(path: Path) -> None:
    ramp = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    Image.fromarray(ramp).save(path)


def see_through(path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1, 128, 255]], np.uint8))
    picture.putalpha(Image.fromarray(np.array([[0, 255, 0, 128]], np.uint8)))
    picture.save(path)


def palette(path: Path) -> None:
    picture = Image.frombytes("P", (4, 1), bytes(range(4)))
    picture.putpalette([level for grey in (0, 1, 128, 255) for level in (grey,) * 3])
    picture.save(path, transparency=bytes((0, 255, 0, 128)))


def print_colours(path: Path) -> None:
    levels = [(0, 0, 0, 255 - grey) for grey in (0, 1, 128, 255)]
    Image.frombytes("CMYK", (4, 1), bytes(sum(levels, ()))).resize((64, 16), 0).save(
        path, quality=100
    )


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("deep.png", deep_grey),
        ("deep.tif", deep_grey),
        ("see-through.png", see_through),
        ("palette.png", palette),
        ("cmyk.jpg", print_colours),
    ],
)
def test_modes_keep_their_levels(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    """Each holds the greys 0, 1, 128 and 255 from left to right; transparency changes nothing."""
    make(tmp_path / name)
    pixels = shown(tmp_path / name)
    columns = (np.arange(4) * 2 + 1) * pixels.shape[1] // 8
    wanted = np.array((0, 1, 128, 255))[:, None]
    assert np.abs(pixels[0, columns].astype(int) - wanted).max() <= (name == "cmyk.jpg")


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (lambda p: clips.huge_png(p), "a.png", "3600000000 pixels"),
        (lambda p: clips.huge_png(p, 10000, 10000), "a.png", "10000 x 10000 pixels; the limit is"),
        (lambda p: raw(p), "a.nef", "a camera's raw file, of which only the thumbnail"),
        (lambda p: Image.new("F", (4, 4)).save(p), "a.tif", "32 bits per pixel"),
        (lambda p: Image.new("I", (4, 4)).save(p), "a.tif", "32 bits per pixel"),
    ],
)
def test_what_cannot_be_used_says_so(
    tmp_path: Path, make: Callable[[Path], object], name: str, words: str
) -> None:
    path = tmp_path / name
    make(path)
    assert is_still(path)  # a picture all right, so the words are about pictures
    with pytest.raises(UnreadableInput, match=words) as caught:
        StillSource(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_cut_short_is_refused_not_filled_with_grey(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)).save(path)
    with pytest.raises(UnreadableInput, match="not a readable picture"):
        StillSource(clips.cut(path, 0.6))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("text.jpg", lambda p: p.write_text("This is not a picture.")),
        ("moving.gif", animation),
        ("moving.png", animation),
        ("moving.webp", animation),
        ("moving.avif", animation),
        ("video.jpg", lambda p: clips.write(p, 2, container="mp4")),
    ],
)
def test_content_decides_not_the_name(
    tmp_path: Path, name: str, make: Callable[[Path], object]
) -> None:
    make(tmp_path / name)
    assert not is_still(tmp_path / name)


def test_random_damage_is_an_input_error(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for suffix in ("jpg", "png", "webp", "tif", "gif", "bmp", "jp2"):
        path = tmp_path / f"a.{suffix}"
        QUARTERS.save(path)
        sound = path.read_bytes()
        for _ in range(25):
            data = bytearray(sound)
            for place in chance.integers(0, min(len(data), 600), 4):
                data[place] = chance.integers(256)
            path.write_bytes(data)
            try:
                is_still(path)
                StillSource(path)
            except InputError:
                pass


# --- several pictures, tiles, profiles and HDR -----------------------------------------------------


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_an_animation_is_a_video(tmp_path: Path, suffix: str) -> None:
    path = animation(tmp_path / f"a.{suffix}", 5, duration=[100, 200, 40, 40, 40])
    source = open_source(path)
    frames = [frame for frame in source.decode(range(5)) if isinstance(frame, Frame)]
    assert [clips.number(frame.pixels) for frame in frames] == list(range(5))
    assert [float(frame.time) for frame in frames] == pytest.approx([0, 0.1, 0.3, 0.34, 0.38])
    facts = source.source
    assert (facts.kind, facts.frames, float(facts.duration)) == ("video", 5, pytest.approx(0.42))
    assert facts.variable_rate
    # At 0.19 s the second picture is on display.
    assert source.choose(Sampling("uniform", 3)) == (0, 1, 4)


def test_webp_times_are_browsers(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.webp", duration=0)
    times = [float(frame.time) for frame in open_source(path).decode(range(3))]
    assert times == [0, 0.1, 0.2]
    with pytest.raises(NoVideoStream, match="stream 1 is not a video stream"):
        open_source(path, stream=1)


def test_a_webp_animation_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.webp")
    with pytest.raises(InputError):
        open_source(clips.cut(path, 0.7))


def test_damage_inside_of_a_webp_animation_ends_it(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), np.uint8)
    path = tmp_path / "a.webp"
    pictures = [Image.fromarray(picture) for picture in noise]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], lossless=True)
    data = path.read_bytes()
    third = [m.start() for m in re.finditer(b"VP8L", data)][2]
    path.write_bytes(data[: third + 100] + b"\xff" * 200 + data[third + 300 :])
    source = open_source(path)
    kinds = [type(item) for item in source.decode(range(4))]
    assert kinds == [Frame, Frame, DamagedFrame, DamagedFrame]


def test_of_a_tiffs_pages_the_first_is_judged_or_the_one_asked_for(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.tif")
    assert clips.number(shown(path)) == 0
    facts = StillSource(path).source
    assert (facts.others, facts.stream) == (("2 further pictures in the same file",), 0)
    second = StillSource(path, stream=1)
    assert clips.number(next(second.decode([0])).pixels) == 1
    assert second.source.stream == 1
    with pytest.raises(NoVideoStream, match="no picture 3 in this file, which contains 3 pictures"):
        StillSource(path, stream=3)


def test_a_tiffs_thumbnail_is_never_taken_for_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    small = Image.fromarray(clips.numbered(0, 24, 16))
    with TiffImagePlugin.AppendingTiffWriter(str(path), new=True) as pages:
        for picture, subfile in ((small, 1), (QUARTERS, 0)):
            picture.save(pages, "TIFF", tiffinfo={254: subfile})
            pages.newFrame()
    assert clips.corners(shown(path)) == "RG/BW"
    assert StillSource(path).source.others == ("1 further picture in the same file",)


def test_thumbnails_and_videos_behind_a_photograph_are_named(tmp_path: Path) -> None:
    small = jpeg(clips.numbered(1))
    # EXIF: a directory without entries, and a second one that says where a JPEG lies, and its length.
    entries = struct.pack("<HHIIHHII", 0x0201, 4, 1, 44, 0x0202, 4, 1, len(small))
    exif = b"Exif\0\0II*\0" + struct.pack("<IHIH", 8, 0, 14, 2) + entries + bytes(4) + small
    film = clips.write(tmp_path / "film.mp4", 2).read_bytes()
    (tmp_path / "a.jpg").write_bytes(jpeg(clips.quarters(), exif=exif) + film)
    assert clips.corners(shown(tmp_path / "a.jpg")) == "RG/BW"
    assert StillSource(tmp_path / "a.jpg").source.others == (
        "1 thumbnail",
        "a video behind the picture",
    )


@pytest.mark.parametrize("first", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("second", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_picture_joined_on_behind_is_named(tmp_path: Path, first: str, second: str) -> None:
    parts = io.BytesIO(), io.BytesIO()
    QUARTERS.save(parts[0], first)
    Image.new("RGB", (32, 32)).save(parts[1], second)
    path = tmp_path / "a"
    path.write_bytes(parts[0].getvalue())
    assert StillSource(path).source.others == ()
    path.write_bytes(parts[0].getvalue() + parts[1].getvalue())
    assert StillSource(path).source.others == ("another picture behind it",)


def test_three_bytes_behind_a_picture_are_no_other(tmp_path: Path) -> None:
    """A JPEG's first three bytes stand in every few megabytes of a phone's trailer."""
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(clips.quarters()) + b"\xff\xd8\xff\xe7 of no picture")
    assert StillSource(path).source.others == ()


def test_of_a_phones_multi_picture_the_first_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    QUARTERS.save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32))])
    source = StillSource(path)
    assert is_still(path)
    assert clips.corners(shown(path)) == "RG/BW"
    assert source.source.others == ("1 further picture in the same file",)


def jpeg(picture: np.ndarray, **more: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", **more)
    return out.getvalue()


@pytest.mark.parametrize("width", [96, 960])  # FFmpeg takes the larger ones for pictures
def test_a_film_of_jpegs_is_a_video(tmp_path: Path, width: int) -> None:
    path = tmp_path / "a.mjpeg"
    path.write_bytes(b"".join(jpeg(clips.numbered(n, width, width * 2 // 3)) for n in range(5)))
    assert not is_still(path)
    source = VideoSource(path)
    assert [clips.number(frame.pixels) for frame in source.decode(range(5))] == list(range(5))


def test_a_photograph_with_a_picture_behind_it_is_a_still(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    (tmp_path / "a.jpg").write_bytes(jpeg(clips.quarters(), exif=exif) + jpeg(clips.quarters()))
    (tmp_path / "b.jpg").write_bytes(jpeg(clips.quarters()) + jpeg(clips.numbered(1, 32, 32)))
    assert is_still(tmp_path / "a.jpg")
    assert is_still(tmp_path / "b.jpg")


def test_avif_without_its_size_is_refused_and_never_judged_by_a_tile(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    QUARTERS.save(path)
    path.write_bytes(path.read_bytes().replace(b"ispe", b"free"))
    with pytest.raises(
        UnreadableInput, match=r"cannot be read completely .* save it as JPEG or PNG"
    ):
        is_still(path)


def test_a_wide_gamut_profile_is_applied(tmp_path: Path) -> None:
    """BT.2020's primaries in a profile: its red 0.6, 0.4, 0.4 is a stronger red of sRGB."""
    profile = wide_profile()
    plain, tagged = tmp_path / "plain.png", tmp_path / "tagged.png"
    picture = Image.fromarray(clips.plain((153, 102, 102)))
    picture.save(plain)
    picture.save(tagged, icc_profile=profile)
    assert shown(plain)[0, 0].tolist() == [153, 102, 102]
    red, green, _ = shown(tagged)[0, 0].tolist()
    assert red > 160
    assert green < 100
    assert "ICC profile" in StillSource(tagged).source.colour.conversion


def wide_profile() -> bytes:
    """An ICC profile made of sRGB's by giving it BT.2020's primaries (adapted to D50)."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    columns = {
        b"rXYZ": (0.6734, 0.2790, -0.0019),
        b"gXYZ": (0.1657, 0.6753, 0.0300),
        b"bXYZ": (0.1251, 0.0456, 0.7969),
    }
    count = int.from_bytes(profile[128:132], "big")
    for n in range(count):
        name, at, _ = struct.unpack(">4sII", profile[132 + 12 * n : 144 + 12 * n])
        if name in columns:
            numbers = [round(value * 65536) for value in columns[name]]
            profile[at + 8 : at + 20] = struct.pack(">3i", *numbers)
        if name == b"desc":
            profile = profile.replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))
    return bytes(profile)


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(png: bytes, name: bytes, body: bytes) -> bytes:
    return png[:33] + chunk(name, body) + png[33:]


def test_hdr_stills_of_8_bits_are_converted(tmp_path: Path) -> None:
    """PQ's 0.4417, which 113 of 255 comes next to, is a quarter of reference white: 143."""
    avif, png = tmp_path / "a.avif", tmp_path / "a.png"
    picture = Image.fromarray(clips.plain((113, 113, 113)))
    picture.save(avif, quality=100)
    at = avif.read_bytes().index(b"nclx")
    clips.patch(avif, at + 4, struct.pack(">HH", 9, 16))
    picture.save(png)
    png.write_bytes(with_chunk(png.read_bytes(), b"cICP", bytes([9, 16, 0, 1])))
    for path in (avif, png):
        assert shown(path)[0, 0].tolist() == pytest.approx([143] * 3, abs=3)
        assert StillSource(path).source.colour.conversion == "PQ to SDR of BT.709, from 8 bits"


# PQ's 0.4532 is light of 0.28 times reference white: level 150. The nearest of 8 bits would give 152.
DEEP = round(0.4532 * 65535)


def deep_png(path: Path) -> Path:
    line = b"\0" + struct.pack(">H", DEEP) * 3 * 64
    header = struct.pack(">IIBBBBB", 64, 32, 16, 2, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"cICP", bytes([9, 16, 0, 1])),
        (b"IDAT", zlib.compress(line * 32)),
    )
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in (*chunks, (b"IEND", b"")))
    )
    return path


def deep_heic(path: Path) -> Path:
    heif = pytest.importorskip("pillow_heif")
    picture = heif.from_bytes("RGB;16", (64, 32), struct.pack("<H", DEEP) * 3 * 64 * 32)
    tags = {"color_primaries": 9, "transfer_characteristics": 16, "matrix_coefficients": 9}
    picture.save(path, quality=-1, chroma=444, full_range_flag=1, **tags)
    return path


def deep_avif(path: Path) -> Path:
    def state(target: Any) -> None:
        target.colorspace, target.color_trc, target.color_primaries = 9, 16, 9
        target.color_range = 1

    def paint(frame: av.VideoFrame) -> None:
        for plane, level in zip(frame.planes, (64 + round(876 * 0.4532), 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, level, np.uint16).tobytes())
        state(frame)

    grey = clips.plain((0, 0, 0), 64, 64)
    return clips.write(
        path, [grey], "libsvtav1", "yuv420p10le", options={"preset": "12", "crf": "1"}, frame=paint,
        stream=lambda stream: state(stream.codec_context),
    )  # fmt: skip


def without_colours(path: Path) -> Path:
    """An AVIF whose boxes say nothing of colours; the coded picture does."""
    deep_avif(path)
    path.write_bytes(path.read_bytes().replace(b"colrnclx", b"freenclx"))
    return path


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (deep_png, "a.png"),
        (deep_heic, "a.heic"),
        (deep_avif, "a.avif"),
        (without_colours, "a.avif"),
    ],
)
def test_hdr_stills_are_read_in_all_of_their_bits(
    tmp_path: Path, make: Callable[[Path], Path], name: str
) -> None:
    path = make(tmp_path / name)
    assert shown(path)[16, 32].tolist() == pytest.approx([150] * 3, abs=1)
    assert StillSource(path).source.colour.conversion == "PQ to SDR of BT.709"


def test_hdr_stills_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    QUARTERS.save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    plain = shown(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(with_chunk(data, b"cICP", bytes([9, 18, 0, 1])))
    assert clips.corners(shown(tmp_path / "a.png")) == clips.corners(plain)


def test_a_profile_may_state_hdr(tmp_path: Path) -> None:
    """The tag "cicp" of ICC profiles (ICC.1:2022), here with PQ and BT.2020's primaries."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    count = int.from_bytes(profile[128:132], "big")
    moved = bytearray(profile[:128] + struct.pack(">I", count + 1))
    for n in range(count):
        name, at, size = struct.unpack(">4sII", profile[132 + 12 * n : 144 + 12 * n])
        moved += struct.pack(">4sII", name, at + 12, size)
    moved += struct.pack(">4sII", b"cicp", len(profile) + 12, 12) + profile[132 + 12 * count :]
    moved += b"cicp" + bytes([0, 0, 0, 0, 9, 16, 0, 1])
    moved[:4] = struct.pack(">I", len(moved))
    picture = Image.fromarray(clips.plain((113, 113, 113)))
    picture.save(tmp_path / "a.jpg", icc_profile=bytes(moved), quality=100)
    assert shown(tmp_path / "a.jpg")[0, 0].tolist() == pytest.approx([143] * 3, abs=3)


def test_a_gain_map_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    QUARTERS.save(path)
    entry = struct.pack(">I4sIHH4s", 21, b"infe", 2 << 24, 9, 0, b"tmap") + b"\0"
    content = bytearray(path.read_bytes())
    at = content.index(b"iinf") - 4
    size = int.from_bytes(content[at : at + 4], "big")
    content[at : at + 4] = struct.pack(">I", size + len(entry))
    content[at + size : at + size] = entry
    meta = content.index(b"meta") - 4
    content[meta : meta + 4] = struct.pack(
        ">I", int.from_bytes(content[meta : meta + 4], "big") + len(entry)
    )
    path.write_bytes(content)
    assert primary(path).gain_map
    QUARTERS.save(path)
    assert primary(path) == Primary(False, Tags(1, 13, 6, True), False)


def test_heic_is_read_with_its_extra(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(QUARTERS).save(tmp_path / "a.heic", quality=90)
    assert is_still(tmp_path / "a.heic")
    assert clips.corners(shown(tmp_path / "a.heic")) == "RG/BW"
