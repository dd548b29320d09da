"""Reads a stream's packets, whatever state the file is in."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import av.error


def short_of_memory(error: av.error.FFmpegError) -> None:
    """Raise MemoryError if FFmpeg ran out of memory, which is not the file's fault."""
    if error.errno == errno.ENOMEM:
        raise MemoryError from error


def number(packet: Any, place: int) -> None:
    """Mark a packet, so that `number_of` tells which packet a frame comes from (with `copy_opaque`).

    PyAV finds the mark by its address, which must be one of a kind: every small int has the same everywhere,
    so that a decoder would take away the marks of another.
    """
    packet.opaque = [place]


def number_of(frame: Any) -> int | None:
    """The number that `number` gave to the packet of a frame."""
    return None if frame.opaque is None else int(frame.opaque[0])


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets in decoding order, up to the end or to where the file breaks off."""
    packets = container.demux(stream)
    ogg = container.format.name == "ogg"
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            short_of_memory(error)
            return  # what could be read before the damage is still evidence
        if packet is None:
            return
        # Without content: the end, or in AVI "the last picture once more".
        if packet.size and not (ogg and _is_header(stream.codec_context.name, bytes(packet))):
            yield packet


def _is_header(codec: str, content: bytes) -> bool:
    """Whether this is an Ogg's header, which comes as a packet where another recording was joined on."""
    if codec == "theora":
        return content[0] >= 0x80
    # OGM's two, without the bytes that FFmpeg takes off every packet: "\1video" and "\3vorbis".
    return content.startswith((b"video\0\0\0", b"is", b"OVP80"))
