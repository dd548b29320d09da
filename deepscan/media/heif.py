"""Reads what an AVIF or HEIC says of the picture that viewers show: boxes (ISO/IEC 23008-12), no pixels."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEAD = 2**20  # first bytes of a file, which hold its boxes but for the coded pictures

# An item that makes HDR of the picture: of AVIF and ISO 21496-1, and as iPhones name it.
_GAIN_MAP = re.compile(rb"infe.{8,10}tmap|urn:com:apple:photo:2020:aux:hdrgainmap", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Tags:
    """What is stated of colours, in numbers of ITU-T H.273; None: not stated."""

    primaries: int
    transfer: int
    matrix: int | None = None
    full_range: bool | None = None


@dataclass(frozen=True, slots=True)
class Primary:
    """The picture that viewers show.

    Attributes:
        tiled: it is composed of several coded pictures.
        colours: None if its boxes do not state them.
        gain_map: the file holds what makes HDR of it.
    """

    tiled: bool
    colours: Tags | None
    gain_map: bool


def primary(path: Path) -> Primary:
    """The picture that viewers show, as far as the boxes say; what is damaged in them counts as not said."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    meta = dict(_boxes(head)).get(b"meta", b"")[4:]
    boxes = dict(_boxes(meta))
    properties = dict(_boxes(boxes.get(b"iprp", b"")))
    wide = boxes.get(b"pitm", b"")[:1] > b"\0"
    number = int.from_bytes(boxes.get(b"pitm", b"")[4 : 8 if wide else 6], "big")
    own = _associated(properties.get(b"ipma", b""), number)
    colours = None
    for place, (kind, content) in enumerate(_boxes(properties.get(b"ipco", b"")), 1):
        if place in own and kind == b"colr" and content[:4] == b"nclx" and len(content) >= 11:
            primaries, transfer, matrix, full = struct.unpack(">HHHB", content[4:11])
            colours = Tags(primaries, transfer, matrix, full >= 128)
    return Primary(
        tiled=_kind(boxes.get(b"iinf", b""), number) in (b"grid", b"iovl"),
        colours=colours,
        gain_map=_GAIN_MAP.search(meta) is not None,
    )


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes in this content: kind, and what is in it."""
    at = 0
    while len(content) - at >= 8:
        size, begin = int.from_bytes(content[at : at + 4], "big"), 8
        if size == 1:
            size, begin = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        if size == 0:
            size = len(content) - at
        if size < begin:
            return
        yield content[at + 4 : at + 8], content[at + begin : at + size]
        at += size


def _kind(items: bytes, number: int) -> bytes:
    """The type of the item with this number, from the box "iinf"; empty if it is not there."""
    for kind, entry in _boxes(items[6 if items[:1] == b"\0" else 8 :]):
        width = 4 if entry[:1] == b"\3" else 2
        if kind == b"infe" and int.from_bytes(entry[4 : 4 + width], "big") == number:
            return entry[6 + width : 10 + width]
    return b""


def _associated(table: bytes, number: int) -> set[int]:
    """The places of the properties of the item with this number, from the box "ipma"."""
    id_width = 4 if table[:1] > b"\0" else 2
    width = 2 if table[3:4] and table[3] & 1 else 1
    at, found = 8, set()
    for _ in range(int.from_bytes(table[4:8], "big")):
        if at + id_width >= len(table):
            break
        own = int.from_bytes(table[at : at + id_width], "big") == number
        count, at = table[at + id_width], at + id_width + 1
        for _ in range(count):
            if own:
                whole = int.from_bytes(table[at : at + width], "big")
                found.add(whole & (0x7FFF if width == 2 else 0x7F))
            at += width
    return found
