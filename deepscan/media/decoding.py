"""Decodes with PyAV: packets in; frames out, each with its packet's number, marked sound or damaged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av.error
import numpy as np
from av.video.frame import PictureType

from deepscan.media.index import NO_TIME, Index
from deepscan.media.packets import number, number_of, packets, short_of_memory

# No decoder holds back more frames than this for reordering: a frame later than that is lost.
DECODER_HOLDS = 48

NEVER = 2**62

# In these codecs no frame depends on one marked "not a reference". In HEVC higher temporal layers may, so
# nothing is skipped there.
SKIPPABLE = ("h264", "mpeg1video", "mpeg2video", "mpeg4")


@dataclass(slots=True)
class _Held:
    """A decoded frame, its place in decoding order, and whether it looks sound so far."""

    frame: Any
    place: int
    sound: bool = True

    @property
    def whole(self) -> bool:
        """Whether it depends on no other frame (a "keyframe" may only begin a gradual refresh)."""
        return bool(self.frame.key_frame and self.frame.pict_type == PictureType.I)


class Doubt(Exception):
    """Fast decoding got lost or met damage, so the run must be decoded again with more care."""


def decoded(
    container: Any,
    stream: Any,
    index: Index,
    wanted: set[int],
    start: int,
    reading: Iterator[tuple[int, Any]] | None,
) -> Iterator[tuple[int, Any, bool]]:
    """Frames in display order, each with the number of its packet and a flag: is it sound?

    A frame is unsound if the decoder reports it as corrupt, or if it comes after a corrupt frame and before
    the next whole picture: it was then predicted from a guess, although no decoder says so.

    Decoding begins at packet `start` and ends once the decoder has every packet in `wanted`; it then flushes
    what it still holds. Frames that nothing depends on are skipped unless wanted.

    Numbered packets are read on from `reading` up to there. If that is None, the container is asked for that
    packet, and every packet that comes must be the one that was there when the index was made, because some
    containers infer wrong times after a seek.

    The first frames may depend on frames before `start`: they count as sound from the first whole picture on
    or, with gradual refresh, from the second "keyframe" on, when the first refresh is complete.

    Raises:
        Doubt: a seek led elsewhere.
    """
    context = stream.codec_context
    context.copy_opaque = True  # so that each frame says which packet it comes from
    left = len(set(np.flatnonzero(np.isin(index.frame, index.frame[list(wanted)])).tolist()))
    coming: set[int] = set()  # packets whose frames have not come out yet
    held: deque[_Held] = deque()  # decoded frames that may still prove to depend on damage
    broken = NEVER  # where damage began that later frames may depend on
    founded = start and NEVER  # where frames stop depending on what lies before the start
    keys = 0

    def judged(packet: Any, place: int) -> Iterator[tuple[int, Any, bool]]:
        nonlocal broken, founded
        try:
            frames = context.decode(packet)
        except av.error.FFmpegError as error:
            short_of_memory(error)
            frames, broken = [], min(broken, place)
        for frame in frames:
            if (own := number_of(frame)) is None:
                continue  # it is of no packet; the one it replaces counts as damaged
            one = _Held(frame, own)
            shown = index.frame[one.place]
            # Frames come in display order: any that was due before this one was skipped or lost.
            coming.difference_update([p for p in coming if index.frame[p] <= shown])
            if frame.is_corrupt:
                broken = min(broken, one.place)
                for other in held:
                    other.sound &= other.whole or other.place < one.place
            elif one.whole:
                founded = min(founded, one.place)
                if one.place > broken:
                    broken = NEVER
            one.sound = not frame.is_corrupt and (one.whole or founded <= one.place < broken)
            held.append(one)
        while held and (packet is None or min(coming, default=NEVER) > held[0].place):
            yield held[0].place, held[0].frame, held.popleft().sound

    place = start
    for place, packet in _from(container, stream, index, start, reading):
        number(packet, place)
        own = int(index.frame[place])
        if own >= 0 and int(index.packet[own]) == place:
            coming.add(place)
            keys += packet.is_keyframe
        if keys == 2:
            founded = min(founded, place)
        coming.difference_update([p for p in coming if p < place - DECODER_HOLDS])
        hit = own >= 0 and int(index.packet[own]) in wanted
        skip = not hit and index.seekable and context.name in SKIPPABLE
        context.skip_frame = "NONREF" if skip else "DEFAULT"
        left -= hit
        yield from judged(packet, place)
        if left == 0:
            break
    yield from judged(None, place)


def _from(
    container: Any,
    stream: Any,
    index: Index,
    start: int,
    reading: Iterator[tuple[int, Any]] | None,
) -> Iterator[tuple[int, Any]]:
    """The packets from number `start` on, or from before it, with their numbers."""
    if reading is not None:
        stream.codec_context.flush_buffers()
        yield from (one for one in reading if one[0] >= start)
        return
    pts, dts, _ = index.stamps[start].tolist()
    try:
        container.seek(pts if dts == NO_TIME else dts, stream=stream, backward=True)
    except av.error.FFmpegError as error:
        raise Doubt from error
    place: int | None = None
    for packet in packets(container, stream):
        if place is None:
            place = index.number(packet)
            if place is None or place > start:
                raise Doubt
        elif not index.matches(place, packet):
            raise Doubt
        yield place, packet
        place += 1
