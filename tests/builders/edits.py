"""Writes an edit list of several parts into an MP4, as an editor leaves it that copies nothing."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

from builders import clips

MOVIE = 1000  # ticks a second of the movie's clock, in FFmpeg's files


def write(path: Path, *parts: tuple[Fraction, Fraction]) -> Path:
    """Show these parts of the media, each a start and a length in seconds, one after another.

    The index must lie behind the media, where nothing moves when it grows.
    """
    data = bytearray(path.read_bytes())
    (media,) = struct.unpack_from(
        ">I", data, clips.boxes(bytes(data), "moov/trak/mdia/mdhd")[0] + 12
    )
    places = ["moov", "moov/trak", "moov/trak/edts", "moov/trak/edts/elst"]
    starts = [clips.boxes(bytes(data), place)[0] - 8 for place in places]
    (first,) = struct.unpack_from(">i", data, starts[-1] + 20)  # B-frames delay the first picture
    entries = [
        struct.pack(">IiI", int(length * MOVIE), first + int(start * media), 1 << 16)
        for start, length in parts
    ]
    new = struct.pack(">II", 0, len(parts)) + b"".join(entries)
    (old,) = struct.unpack_from(">I", data, starts[-1])
    data[starts[-1] + 8 : starts[-1] + old] = new
    for at in starts:
        (size,) = struct.unpack_from(">I", data, at)
        struct.pack_into(">I", data, at, size + 8 + len(new) - old)
    path.write_bytes(data)
    return path
