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
    theora = stream.codec_context.name == "theora"
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            short_of_memory(error)
            return  # what could be read before the damage is still evidence
        if packet is None:
            return
        # Without content: the end, or in AVI "the last picture once more". Theora's headers, which have the
        # first bit set, come as packets where another recording was joined on.
        if packet.size and not (theora and bytes(packet)[0] & 0x80):
            yield packet
