"""Recognises videos and pictures by a file's first bytes, whatever its name, and others joined on behind."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# First bytes of the containers and pictures that deepscan reads: an offset, and the bytes there. The
# decoder, in a process of its own, checks the rest.
_HEADS = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (4, b"free"), (4, b"skip"),  # MP4, MOV, AVIF
    (0, b"\x1aE\xdf\xa3"),  # Matroska, WebM
    (8, b"AVI "), (8, b"AMV "), (8, b"ON2 "), (8, b"WEBP"), (8, b"CDXA"),
    (0, b"FLV"), (0, b"OggS"), (0, b"DKIF"), (0, b"YUV4MPEG2"), (0, b"nut/"), (0, b".RMF"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # ASF, WMV
    (0, b"\x06\x0e\x2b\x34"),  # MXF
    (0, b"\x00\x00\x00\x01"),  # bare H.264 and HEVC
    (0, b"\x12\x00\x0a"),  # bare AV1
    (0, b"\x1f\x07\x00"),  # DV
    (0, b"\xb7\xd8\x00\x20\x37\x49\xda\x11"),  # WTV
    (0, b"FWS"), (0, b"CWS"),
    (0, b"\xff\xd8\xff"), (0, b"\x89PNG\r\n\x1a\n"), (0, b"GIF8"),
    (0, b"II*\x00"), (0, b"MM\x00*"),  # TIFF
    (0, b"\x00\x00\x00\x0cjP  "), (0, b"\xff\x4f\xff\x51"),  # JPEG 2000
)  # fmt: skip

# What MPEG-PS, MPEG video, H.264 and HEVC begin with; an icon continues with a zero, they do not.
_START = b"\x00\x00\x01"

# MPEG transport streams have a "G" every so many bytes, wherever they were cut.
_PACKETS = (188, 192, 204)

HEAD = 1024  # first bytes that are examined
MAPPED = 2**27  # bytes; the decoder's address space is limited
LONGEST_MARK = 80  # bytes of what recordings begin with

# First bytes of sound in the same containers.
_SOUND = (b"ftypM4A ", b"ftypM4B ", b"ftypM4P ")
_OGG_VIDEO = (b"\x80theora", b"\x01video", b"BBCD\0", b"OVP80")  # in an Ogg file's first pages


# What recordings begin with, in so many bytes that hardly any other content looks like it: MP4 and MOV, but
# not pictures in the same container; Matroska, FLV, AVI, NUT, YUV4MPEG, IVF, RealMedia, ASF and WTV.
_RECORDING = re.compile(
    rb"\0\0\0.ftyp(?!avi[fs]|he[iv]|mif|msf)|\x1aE\xdf\xa3.{1,60}?\x42\x82|FLV\x01[\1\4\5]\0\0\0\x09"
    rb"|RIFF....AVI |nut/multimedia container\0|YUV4MPEG2 W|DKIF\0\0\x20\0|\.RMF\0\0\0"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c|\xb7\xd8\0\x20\x37\x49\xda\x11",
    re.DOTALL,
)
# JPEG, by the usual first segments; PNG, WebP, AVIF and HEIC.
_PICTURE = re.compile(
    rb"\xff\xd8\xff(?:\xe0..JFIF|\xe1..(?:Exif|http)|\xe2..(?:MPF|ICC_)|\xee\0\x0eAdobe|\xdb\0[\x43\x84]|\xfe\0)"
    rb"|\x89PNG\r\n\x1a\n|RIFF....WEBP|\0\0\0.ftyp(?:avif|hei[cx]|mif1)",
    re.DOTALL,
)


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file's first `MAPPED` bytes, read as they are needed."""
    size = min(path.stat().st_size, MAPPED)
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as start:
        yield start


def recording_behind(path: Path, start: int) -> bool:
    """Whether another recording begins in a file at byte `start` or behind it."""
    return _behind(path, start, _RECORDING)


def picture_behind(path: Path, start: int) -> bool:
    """Whether another picture begins in a file at byte `start` or behind it."""
    return _behind(path, start, _PICTURE)


def _behind(path: Path, start: int, what: re.Pattern[bytes]) -> bool:
    with path.open("rb") as file:
        file.seek(start)
        before = b""
        while piece := file.read(2**20):
            if what.search(before + piece):
                return True
            before = piece[-LONGEST_MARK:]
    return False


def is_media(head: bytes) -> bool:
    """Whether a file's first `HEAD` bytes look like a video or picture that deepscan may read."""
    if head.startswith(b"BM"):  # too short a mark by itself: four reserved bytes are 0 in every BMP
        return head[6:10] == bytes(4)
    if any(head[at : at + len(mark)] == mark for at, mark in _HEADS):
        return True
    if head.startswith(_START):
        return head[3:4] > b"\0"
    return len(head) == HEAD and any(
        set(head[start::step]) == {ord("G")} for step in _PACKETS for start in range(step)
    )


def is_sound(head: bytes) -> bool:
    """Whether a file that `is_media` accepts is sound only, by its first bytes."""
    return head[4:12] in _SOUND or (
        head.startswith(b"OggS") and not any(mark in head for mark in _OGG_VIDEO)
    )
