"""Writes OGM, the Ogg of the years around 2003: MPEG-4 or H.264, with frames counted in coding order."""

from __future__ import annotations

import struct
from pathlib import Path

import av

from builders import clips


def write(path: Path, count: int, codec: str, options: dict[str, str], packets: int = 1) -> Path:
    """Numbered pictures at 25 a second, so many packets on each page; only its last one has a time."""
    plain = clips.write(path.with_suffix(".avi"), count, codec, options=options)
    with av.open(str(plain)) as given:
        video = given.streams.video[0]
        size = video.width, video.height
        coded = [
            bytes([8 * packet.is_keyframe]) + bytes(packet)
            for packet in given.demux(video)
            if packet.size
        ]
    kind = b"XVID" if codec == "mpeg4" else b"H264"
    # Size of this, 400,000 times 100 ns a tick, one tick a frame, default length, buffer, bits, picture.
    numbers = struct.pack("<IqqIIHHII", 52, 400_000, 1, 1, 200_000, 24, 0, *size)
    comment = b"\3vorbis" + struct.pack("<I4sI", 4, b"none", 0) + b"\1"
    pages = [_page([b"\1video\0\0\0" + kind + numbers], 0, 0, 2), _page([comment], 0, 1, 0)]
    for at in range(0, count, packets):
        held = coded[at : at + packets]
        pages.append(_page(held, at + len(held) - 1, len(pages), 4 * (at + packets >= count)))
    path.write_bytes(b"".join(pages))
    return path


def _page(packets: list[bytes], time: int, number: int, flags: int) -> bytes:
    """A page of Ogg (RFC 3533)."""
    lengths = b"".join(b"\xff" * (len(p) // 255) + bytes([len(p) % 255]) for p in packets)
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, time, 1, number, 0, len(lengths))
    page = head + lengths + b"".join(packets)
    return page[:22] + struct.pack("<I", _checksum(page)) + page[26:]


def _checksum(page: bytes) -> int:
    rest = 0
    for byte in page:
        rest ^= byte << 24
        for _ in range(8):
            rest = (rest << 1 ^ (0x04C11DB7 if rest >> 31 else 0)) & 0xFFFFFFFF
    return rest
