"""Lists a video stream's frames: which packet each comes from, in display order, and when it is shown.

Packets are walked without decoding. Their time stamps are believed where they give every frame a time of its
own and an order that the codec can have coded. Elsewhere the stream is decoded once, since only the decoder
knows which packets give frames, and in which order.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av.error
import numpy as np
from av.format import Flags

from deepscan.media.h264 import Field, Fields
from deepscan.media.packets import number, number_of, packets, short_of_memory

NO_TIME = -(2**63)  # AV_NOPTS_VALUE

# No codec shows a frame after more than this many that were coded later.
REORDERED = 16

# Frames decoded to see whether the order of time stamps, which is that of coding, is that of display too.
PROBED = 64

# MPEG-4 says "the last picture once more" in packets of this many bytes at most; a decoder gives no frame.
REPEATS = 16

# Where clocks may leap, a leap of so many seconds is none in time (as for FFmpeg's own tool).
LEAP = 10

# Streams with more time stamps that fall back than one in so many are timed by the order of frames alone.
FEW = 10

Open = Callable[[], AbstractContextManager[tuple[Any, Any]]]


@dataclass(frozen=True, slots=True)
class Index:
    """A stream's n frames in display order, and its m packets in decoding order.

    Attributes:
        pts: (n,) times, ascending, in ticks of the stream's clock, which counts on where it restarts.
        packet: (n,) the number of the (first) packet each comes from.
        frame: (m,) the display-order index of the frame that each packet belongs to; -1: none that is shown.
        stamps: (m, 3) pts, dts and size. After a seek, packets are known again by pts and size.
        keys: (k, 2) times and packet numbers of keyframes, ascending.
        exact: False: the time stamps are unusable, and the frames' order decides which is whose.
        seekable: False: the container's clock cannot be used to find a packet.
        restarts: times where the clock restarts.
        hidden: frames outside the edit list, or that are coded but never shown.
        last_duration: ticks.
        places: (m,) where in the file the packets begin; -1 if the container does not say.
    """

    pts: np.ndarray
    packet: np.ndarray
    frame: np.ndarray
    stamps: np.ndarray
    keys: np.ndarray
    exact: bool
    seekable: bool
    restarts: tuple[int, ...]
    hidden: int
    last_duration: int
    places: np.ndarray

    def number(self, packet: Any) -> int | None:
        """The number of a packet that was read after a seek; None if it cannot be told."""
        pts, _, size = _stamps(packet)
        same = np.flatnonzero((self.stamps[:, 0] == pts) & (self.stamps[:, 2] == size))
        return int(same[0]) if len(same) == 1 else None

    def matches(self, number: int, packet: Any) -> bool:
        """Whether a packet is the one with this number."""
        pts, _, size = _stamps(packet)
        return number < len(self.stamps) and self.stamps[number, ::2].tolist() == [pts, size]


@dataclass(frozen=True, slots=True)
class _Packets:
    """What the container says of each packet, (m,) each."""

    pts: np.ndarray
    dts: np.ndarray
    duration: np.ndarray
    key: np.ndarray
    discarded: np.ndarray
    size: np.ndarray
    first: np.ndarray  # the first packet of the same frame: another one for second fields
    hidden: np.ndarray  # coded, but never shown
    place: np.ndarray  # where in the file it begins; edits may show one twice

    @property
    def shown(self) -> np.ndarray:
        """The numbers of packets that should each give a frame."""
        numbers = np.arange(len(self.pts))
        return numbers[(self.first == numbers) & ~self.hidden & ~self.discarded]


def read_index(open_stream: Open, rate: Fraction | None) -> Index:
    """Read the index of the stream that `open_stream` gives, whose frame rate seems to be `rate`."""
    with open_stream() as (container, stream):
        walked = _walk(container, stream)
        leaps = bool(container.format.flags & Flags.ts_discont.value)
        base = stream.time_base
        reorders = stream.codec_context.reorder_depth > 0
        sly = stream.codec_context.name == "mpeg4" and bool((walked.size <= REPEATS).any())
    tick = _tick(walked, rate, base)
    shift, restarts = _takes(walked, tick, int(LEAP / base) if leaps else None)
    pts = np.where(walked.pts == NO_TIME, NO_TIME, walked.pts + shift)
    shown = walked.shown
    timed = bool((pts[shown] != NO_TIME).all()) and len(np.unique(pts[shown])) == len(shown)
    in_order = timed and bool((np.diff(pts[shown]) > 0).all())
    watched = None
    if not timed or sly or (in_order and reorders and len(shown) > 1):
        watched = _watch(open_stream, walked, None if not timed or sly else PROBED)
    if watched is None:
        order = shown[np.argsort(pts[shown], kind="stable")]
        clock, exact = pts[order], timed
        key_times = pts
    else:
        order, hidden = watched
        walked.hidden[hidden] = True
        dts = np.where(walked.dts == NO_TIME, NO_TIME, walked.dts + shift)
        clock, exact = _times(order, pts[order], dts[order], tick)
        key_times = np.full(len(pts), NO_TIME)
        key_times[order] = clock
    frame = np.full(len(pts), -1)
    frame[order] = np.arange(len(order))
    frame = np.where(walked.hidden[walked.first] | walked.discarded, -1, frame[walked.first])
    numbers = np.arange(len(pts))
    keys = numbers[walked.key & (walked.first == numbers) & (key_times != NO_TIME)]
    keys = keys[np.argsort(key_times[keys], kind="stable")] if len(keys) else numbers[:1]
    # Of the frame coded last: where durations are distances of decoding times, only its is true of the end.
    last = walked.duration[walked.first == order.max()] if len(order) else np.empty(0, np.int64)
    duration = int(last.sum())
    if duration <= 0 or not timed or len(last) > 1:  # each field may state the frame's
        duration = int(np.median(np.diff(clock))) if len(clock) > 1 else int(tick)
    return Index(
        pts=clock,
        packet=order,
        frame=frame,
        stamps=np.column_stack([walked.pts, walked.dts, walked.size]),
        keys=np.column_stack([key_times[keys], keys]),
        exact=exact,
        seekable=watched is None and not restarts,
        restarts=tuple(
            int(clock[np.searchsorted(clock, at)]) for at in restarts if at <= clock[-1:]
        ),
        hidden=_hidden(walked, frame),
        last_duration=duration,
        places=walked.place,
    )


def _hidden(walked: _Packets, frame: np.ndarray) -> int:
    """How many frames are never shown; one that an edit list leaves out here may be shown elsewhere."""
    first = walked.first == np.arange(len(frame))
    left_out = np.setdiff1d(walked.place[walked.discarded & first], walked.place[frame >= 0])
    return int((walked.hidden & first & ~walked.discarded).sum()) + len(left_out)


def _stamps(packet: Any) -> tuple[int, int, int]:
    pts, dts = (NO_TIME if t is None else t for t in (packet.pts, packet.dts))
    return pts, dts, packet.size


def _walk(container: Any, stream: Any) -> _Packets:
    """Walk all packets of the stream without decoding."""
    walked, first = array("q"), array("q")
    codec = stream.codec_context.name
    fields = Fields(stream.codec_context.extradata) if codec == "h264" else None
    before: Field | None = None  # a first field, whose second one may follow
    for place, packet in enumerate(packets(container, stream)):
        found = None
        if fields is not None and (fields.possible or packet.is_keyframe):
            found = fields.read(bytes(packet))
        second = (
            found is not None
            and before is not None
            and found.bottom != before.bottom
            and found.frame_number == before.frame_number
        )
        first.append(place - second)
        before = None if second else found
        # A VP8 frame that is shown has this bit set (RFC 6386, 9.1).
        hidden = codec == "vp8" and not bytes(packet)[0] & 0x10
        walked.extend((*_stamps(packet), packet.duration or 0))
        place_in_file = -1 if packet.pos is None else packet.pos
        walked.extend((packet.is_keyframe, packet.is_discard, hidden, place_in_file))
    columns = np.array(walked, np.int64).reshape(-1, 8).T
    pts, dts, size, duration, key, discarded, hidden, places = columns
    if "avi" in container.format.name.split(",") and (pts != dts).any():
        pts = np.full(len(pts), NO_TIME)  # AVI stores none: with B-frames FFmpeg makes them up
    return _Packets(
        pts,
        dts,
        duration,
        key == 1,
        discarded == 1,
        size,
        np.array(first, np.int64),
        hidden == 1,
        places,
    )


def _tick(walked: _Packets, rate: Fraction | None, base: Fraction) -> Fraction:
    """How long a frame is shown, as a rule, in ticks."""
    stamps = walked.pts[walked.shown]
    gaps = np.diff(np.unique(stamps[stamps != NO_TIME]))
    return Fraction(int(np.median(gaps))) if len(gaps) else 1 / ((rate or Fraction(25)) * base)


def _takes(walked: _Packets, tick: Fraction, leap: int | None) -> tuple[np.ndarray, list[int]]:
    """Where the clock restarts, as if recordings had been joined end to end.

    Returns what to add to each packet's times so that they count on, and the times of the first frames.

    In decoding order a keyframe is shown after all frames before it, so one that is not begins another clock
    (unless the container calls every frame a keyframe: then only decoding times that fall back, or a fall too
    deep for reordering, do). `leap`: a step of so many ticks forward is another clock, too.
    """
    shift = np.zeros(len(walked.pts), np.int64)
    starts = [0]
    highest = last_dts = NO_TIME
    stamps = np.where(
        walked.discarded, NO_TIME, walked.pts
    )  # an edit may end amid frames not shown
    for n, (pts, dts, key) in enumerate(
        zip(stamps.tolist(), walked.dts.tolist(), walked.key.tolist(), strict=True)
    ):
        if pts != NO_TIME and highest != NO_TIME:
            back = dts != NO_TIME and last_dts != NO_TIME and dts < last_dts
            fell = pts < highest - REORDERED * tick
            anew = (key and pts <= highest and (back or fell)) or (fell and back)
            ahead = leap is not None and pts > highest + leap
            if anew or ahead:
                starts.append(n)
                highest = NO_TIME
        if pts != NO_TIME:
            highest = max(highest, pts)
        if dts != NO_TIME:
            last_dts = dts
    restarts: list[int] = []
    if len(starts) > 1:
        shown = np.zeros(len(walked.pts), bool)
        shown[walked.shown] = True
        end = None
        for start, stop in pairwise([*starts, len(walked.pts)]):
            part = slice(start, stop)
            own = stamps[part][shown[part] & (stamps[part] != NO_TIME)]
            if not len(own):
                continue
            if end is not None:
                shift[part] = end - int(own.min())
                restarts.append(end)
            end = int(own.max()) + int(shift[start]) + int(tick)
    return shift, restarts


def _watch(
    open_stream: Open, walked: _Packets, probe: int | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Decode the stream: the packets of frames in display order, and those that give no frame.

    A packet that cannot be decoded counts as a frame, in its place. With `probe`, None if that many frames
    come in the order of their packets.
    """
    order: list[int] = []
    failed: list[int] = []
    with open_stream() as (container, stream):
        context = stream.codec_context
        context.copy_opaque = True
        context.options |= {"skip_loop_filter": "all"}  # only the order matters
        for place, packet in enumerate(_and_end(packets(container, stream))):
            if packet is not None:
                number(packet, place)
            try:
                given = context.decode(packet)
            except av.error.FFmpegError as error:
                short_of_memory(error)
                given = []
                if packet is not None:
                    failed.append(place)
            order += [n for n in map(number_of, given) if n is not None]
            if probe and len(order) >= probe and all(a < b for a, b in pairwise(order)):
                return None
    if probe and all(a < b for a, b in pairwise(order)):
        return None
    first = walked.first.tolist()
    seen: dict[int, None] = {}
    for place in order:
        seen.setdefault(first[place])
    frames = [n for n in seen if not walked.discarded[n]]
    for place in failed:
        n = first[place]
        if n not in seen and not walked.discarded[n]:
            seen.setdefault(n)
            after = next((i for i, other in enumerate(frames) if other > n), len(frames))
            frames.insert(after, n)
    silent = [n for n in walked.shown.tolist() if n not in seen]
    return np.array(frames, np.int64), np.array(silent, np.int64)


def _and_end(items: Iterator[Any]) -> Iterator[Any]:
    yield from items
    yield None


def _times(
    order: np.ndarray, pts: np.ndarray, dts: np.ndarray, tick: Fraction
) -> tuple[np.ndarray, bool]:
    """Times of frames in display order, whose packets have numbers `order` and these stamps; are they exact?

    Stamps that ascend are believed. Frames without one, with that of the frame before, or with one of a few
    that fall back, take the times between. If that does not go, and the stamps ascend in coding order, the
    k-th frame takes the k-th of those. Else they are the frames' in yet another order, or the rate decides.
    """
    n = len(pts)
    stated, good = pts != NO_TIME, _ascending(pts)
    if good.all():
        return pts, True
    fallen = int((stated[1:] & (pts[1:] < np.maximum.accumulate(pts)[:-1])).sum())
    times = _between(pts, good) if good.sum() > 1 and fallen <= n // FEW else None
    if times is None or fallen or (np.diff(times) <= 0).any():
        coded = pts[np.argsort(order)]
        ascending = _ascending(coded)
        if ascending.sum() > 1 and np.array_equal(ascending, coded != NO_TIME):
            times = _between(coded, ascending)
    if times is not None:
        return times, False
    for stamps in (pts, dts):
        if (stamps != NO_TIME).all() and len(np.unique(stamps)) == n:
            start = pts[0] - stamps.min() if pts[0] != NO_TIME and stamps is dts else 0
            return np.sort(stamps) + start, False
    start = int(pts[good][0]) - int(np.flatnonzero(good)[0]) * int(tick) if good.any() else 0
    return np.array([start + int(i * tick) for i in range(n)], np.int64), False


def _ascending(stamps: np.ndarray) -> np.ndarray:
    """Which stamps are stated and later than all before them."""
    highest = np.maximum.accumulate(stamps)
    later = np.concatenate([[True], stamps[1:] > highest[:-1]])[: len(stamps)]
    return (stamps != NO_TIME) & later


def _between(stamps: np.ndarray, good: np.ndarray) -> np.ndarray:
    """The good stamps, and evenly between them the others; beyond the first and last at the same rate."""
    places = np.arange(len(stamps))
    anchors = places[good]
    step = int(np.median(np.diff(stamps[good]) / np.diff(anchors)))
    times = np.interp(places, anchors, stamps[good]).astype(np.int64)
    first, last = anchors[0], anchors[-1]
    times = np.where(places < first, stamps[first] - (first - places) * step, times)
    return np.where(places > last, stamps[last] + (places - last) * step, times)
