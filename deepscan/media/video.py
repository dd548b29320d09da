"""Reads a video: VideoSource probes it, chooses instants by exact pts and decodes only those.

A first pass over the container's packets, without decoding, lists every frame's pts and every keyframe. The
instants are chosen from that list and the decoder seeks straight to the keyframes they need. So time and
memory do not grow with the video's length, and variable frame rates, B-frames, edit lists and start offsets
come out right by construction.
"""

from __future__ import annotations

import errno
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from deepscan.config import Sampling
from deepscan.errors import NoVideoStream, UnreadableInput
from deepscan.files import check_readable, diagnose, sha256
from deepscan.media.decoding import (
    MAX_PIXELS,
    Doubt,
    check_size,
    decoded,
    display,
    packets,
    rotation,
    short_of_memory,
)
from deepscan.records import Frame, Pixels, Source

# Demuxers that read one file only: a playlist or a file-name pattern must not open others.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,ogg,asf,mxf,gif,ivf,nut,"
    "h264,hevc,av1,obu,m4v,h263,mjpeg,dv,wtv,rm,y4m,yuv4mpegpipe,apng,swf,vob,mp3,wav,flac,aac,aiff,w64,caf,amr"
)

# Decoding on to the next instant is cheaper than seeking if at most this many frames lie between, since a
# seek empties the buffers of decoder and container, which must fill again.
SEEK_WORTH = 12

NO_TIME = -(2**63)  # AV_NOPTS_VALUE


@dataclass(frozen=True, slots=True)
class DamagedFrame:
    """A sampled frame that could not be decoded, or only by guessing it or a frame it depends on."""

    index: int
    time: Fraction


@dataclass(frozen=True, slots=True)
class _Index:
    """What the packets say. `pts` (n,) in display order; `keys` (m, 3): pts, dts and decoding position.

    `position` (n,) is each frame's place in decoding order, `size` (n,) its packet's bytes. `exact` is
    False when the container has no usable pts: then the k-th frame to leave the decoder is shown at the
    k-th of `pts`.
    """

    pts: np.ndarray
    position: np.ndarray
    size: np.ndarray
    keys: np.ndarray
    exact: bool
    last_duration: int


class VideoSource:
    """One video file, opened read-only.

    Attributes:
        source: the facts about it.
        declared_duration: seconds the header promises, or None; if fewer are there, the file is cut.

    Raises:
        UnreadableInput: missing, empty, an unknown container, damaged beyond decoding, or too large.
        NoVideoStream: media without a video stream.
    """

    def __init__(self, path: Path) -> None:
        check_readable(path)
        self._path = path
        with self._open() as (container, stream):
            self._pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
            check_size(path, stream.codec_context.width, stream.codec_context.height)
            container_name, codec = container.format.name, stream.codec_context.name
            rates = stream.guessed_rate, stream.time_base
            declared = stream.duration
            bit_rate = container.bit_rate or None
            tags = {**container.metadata, **stream.metadata}
            self._index = _read_index(container, stream, rates[0])
        self._time_base = rates[1]
        if len(self._index.pts) == 0:
            raise UnreadableInput(
                f"{path}: the video stream holds no frames; copy or export it again from its source"
            )
        first, pixels = self._first_frame()
        pts, base = self._index.pts, self._time_base
        span = int(pts[-1] - pts[0])
        gaps = np.diff(pts)
        average = Fraction(len(gaps), 1) / (span * base) if span else None
        self.declared_duration = declared * base if declared else None
        self.source = Source(
            path=path,
            kind="video",
            sha256=sha256(path),
            bytes=path.stat().st_size,
            container=container_name,
            codec=codec,
            pixel_format=first.format.name,
            width=pixels.shape[1],
            height=pixels.shape[0],
            rotation=rotation(first),
            frames=len(pts),
            start=int(pts[0]) * base,
            duration=(span + self._index.last_duration) * base,
            nominal_rate=rates[0],
            average_rate=average,
            # One tick of rounding, or a twentieth, is how constant rates look in coarse time bases.
            variable_rate=bool(
                len(gaps) and np.ptp(gaps) > max(2.0, 0.05 * float(np.median(gaps)))
            ),
            exact_times=self._index.exact,
            bit_rate=bit_rate,
            tags=tags,
        )

    def choose(self, sampling: Sampling) -> tuple[int, ...]:
        """Display-order indices of the frames to look at, ascending, each once.

        "uniform" and "every" name instants on the stream's clock and take the frame on display then:
        the last one whose pts is not later. "uniform" spreads them from the first frame to the last,
        both included, as DeepfakeBench's linspace(0, N-1) does for constant rates.
        """
        pts = self._index.pts
        if sampling.rule == "all" or (sampling.rule == "uniform" and len(pts) <= sampling.frames):
            return tuple(range(len(pts)))
        if sampling.rule == "keyframes":
            shown = np.isin(pts, self._index.keys[:, 0])
            return tuple(np.flatnonzero(shown).tolist()) or (0,)
        first, last = int(pts[0]), int(pts[-1])
        if sampling.rule == "every":
            assert sampling.seconds is not None
            step = sampling.seconds / self._time_base
            # The number of instants before each frame; where it grows, one falls on the frame shown.
            before = [-(-(t - first) * step.denominator // step.numerator) for t in pts.tolist()]
            before.append((last - first) * step.denominator // step.numerator + 1)
            return tuple(i for i in range(len(pts)) if before[i] < before[i + 1])
        if sampling.frames == 1:
            instants = [(first + last) // 2]
        else:
            instants = [
                first + (last - first) * i // (sampling.frames - 1) for i in range(sampling.frames)
            ]
        on_display = np.searchsorted(pts, np.array(instants, np.int64), side="right") - 1
        return tuple(np.unique(on_display).tolist())

    def split(self, indices: Sequence[int], ways: int) -> list[list[int]]:
        """Split ascending indices into at most `ways` lists that can be decoded in parallel.

        Frames that share a keyframe stay together, so nothing is decoded twice.
        """
        runs = [run for _, run in self._runs(indices)] if self._index.exact else [list(indices)]
        return [[i for run in runs[n::ways] for i in run] for n in range(min(ways, len(runs)))]

    def decode(self, indices: Sequence[int]) -> Iterator[Frame | DamagedFrame]:
        """Decode the frames with these ascending display-order indices; yield each once, in order.

        Decoding is fast until the first sign of trouble, then careful; where the container cannot seek
        exactly, it starts over from the first frame.
        """
        exact, done = self._index.exact, 0
        for seek, careful in ((exact, False), (exact, True), (False, True)):
            try:
                for item in self._decode(indices[done:], seek, careful):
                    yield item
                    done += 1
                return
            except Doubt:
                continue

    # -- decoding -------------------------------------------------------------------------------

    def _decode(
        self, indices: Sequence[int], seek: bool, careful: bool
    ) -> Iterator[Frame | DamagedFrame]:
        runs = self._runs(indices) if seek else [(0, list(indices))]
        with self._open(careful) as (container, stream):
            for n, (key, run) in enumerate(runs):
                # A "keyframe" may be where a gradual refresh only begins; one further back it is over.
                key = max(key - careful, 0)
                landing = int(self._index.keys[key, 1]) if key or n else None
                for i, frame in self._decode_run(container, stream, landing, run):
                    if frame is None and not careful:
                        raise Doubt
                    yield DamagedFrame(i, self._time(i)) if frame is None else self._frame(i, frame)

    def _runs(self, indices: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Group indices into (keyframe row, indices), each group decoded without another seek."""
        index = self._index
        runs: list[tuple[int, list[int]]] = []
        for i in indices:
            key = int(np.searchsorted(index.keys[:, 0], index.pts[i], side="right")) - 1
            key = max(key, 0)
            if runs:
                done = int(index.position[runs[-1][1][-1]])
                if int(index.keys[key, 2]) - done <= SEEK_WORTH:
                    runs[-1][1].append(i)
                    continue
            runs.append((key, [i]))
        return runs

    def _decode_run(
        self, container: Any, stream: Any, landing: int | None, run: list[int]
    ) -> Iterator[tuple[int, Any]]:
        """Decode on from here, or from the keyframe whose dts is `landing`.

        Yields each frame of `run` with its index, None if it is damaged. Some containers only infer times, so
        a frame that is missing after a seek may be there under another pts.
        """
        if landing is not None:
            try:
                container.seek(landing, stream=stream, backward=True)
            except av.error.FFmpegError as error:
                raise Doubt from error
        index = self._index
        index_of = {int(index.pts[i]): i for i in run} if index.exact else None
        pending = deque(run)
        wanted = set(index_of) if index_of else None
        frames = decoded(container, stream, wanted, landing, self._matches_index)
        for order, (frame, sound) in enumerate(frames):
            if not pending:
                return
            i = index_of.get(frame.pts, -1) if index_of else order
            while pending and pending[0] < i:
                if landing is not None:
                    raise Doubt
                yield pending.popleft(), None
            if pending and pending[0] == i:
                yield pending.popleft(), frame if sound else None
        if pending and landing is not None:
            raise Doubt
        for i in pending:
            yield i, None

    def _matches_index(self, packet: Any) -> bool:
        """Whether this packet is the one that had this pts in the first pass."""
        if packet.is_discard:
            return True
        if packet.pts is None:
            return False
        pts, size = self._index.pts, self._index.size
        i = int(np.searchsorted(pts, packet.pts))
        return i < len(pts) and bool(pts[i] == packet.pts and size[i] == packet.size)

    def _first_frame(self) -> tuple[Any, Pixels]:
        with self._open(careful=True) as (container, stream):
            for frame, _ in decoded(container, stream):
                return frame, display(frame, self._pixel_aspect, self._path)
        raise UnreadableInput(
            f"{self._path}: no frame of the video stream can be decoded; the file is damaged, cut short, or"
            f" its frames have more than {MAX_PIXELS} pixels"
        )

    def _time(self, i: int) -> Fraction:
        return int(self._index.pts[i]) * self._time_base

    def _frame(self, i: int, frame: Any) -> Frame:
        pixels = display(frame, self._pixel_aspect, self._path)
        return Frame(i, self._time(i), pixels, bool(frame.interlaced_frame))

    @contextmanager
    def _open(self, careful: bool = False) -> Iterator[tuple[Any, Any]]:
        """The container and its video stream, with FFmpeg's errors turned into deepscan's.

        The decoder has one thread. With more, FFmpeg may return a frame before marking it as patched up from
        the previous one, and a picture of another instant would pass as sound.
        """
        opened = False
        try:
            # "file:" keeps a name like `a:b.mp4` from being read as a protocol.
            with av.open(
                f"file:{self._path}",
                options={
                    "protocol_whitelist": "file",
                    "format_whitelist": CONTAINERS,
                    "max_pixels": str(MAX_PIXELS),  # FFmpeg's own probing decodes, too
                },
                metadata_errors="replace",
            ) as container:
                opened = True
                streams = [
                    s
                    for s in container.streams.video
                    if not s.disposition & type(s.disposition).attached_pic  # cover art
                ]
                if not streams:
                    names = {"video": "a cover picture"}
                    kinds = ", ".join(
                        sorted({names.get(s.type, str(s.type)) for s in container.streams})
                    )
                    raise NoVideoStream(
                        f"{self._path}: no video in it, "
                        + (f"only {kinds}" if kinds else "nor anything else")
                        + "; check that this is the file you mean"
                    )
                stream = streams[0]
                if stream.codec_context is None:
                    raise UnreadableInput(
                        f"{self._path}: this FFmpeg has no decoder for its video stream"
                    )
                stream.codec_context.thread_count = 1
                stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
                if careful:  # there is damage: do not excuse slices that end badly
                    stream.codec_context.options |= {"err_detect": "+aggressive"}
                yield container, stream
        except av.error.FFmpegError as error:
            if opened:
                short_of_memory(error)
            why = error.strerror
            if (
                error.errno == errno.ENOMEM
            ):  # FFmpeg believed a header that asks for too much memory
                why = "its header claims more than memory holds"
            raise UnreadableInput(
                f"{self._path}: not a readable video ({why}): {diagnose(self._path)}"
            ) from error


def _read_index(container: Any, stream: Any, rate: Fraction | None) -> _Index:
    """Walk all packets of the stream without decoding."""
    walked = array("q")
    for packet in packets(container, stream):
        pts, dts = (NO_TIME if t is None else t for t in (packet.pts, packet.dts))
        walked.extend((pts, dts, packet.duration or 0, packet.is_keyframe, packet.is_discard))
        walked.append(packet.size)
    pts, dts, durations, is_key, discarded, size = np.array(walked, np.int64).reshape(-1, 6).T
    place = np.arange(len(pts))
    # A frame outside the edit list is decoded only because others need it, and never shown.
    shown = place[discarded == 0]
    timed = bool((pts[shown] != NO_TIME).all())
    if "avi" in container.format.name.split(","):
        timed &= bool((pts == dts).all())  # AVI stores no pts: with B-frames they are made up
    exact = timed and len(np.unique(pts[shown])) == len(shown)
    if timed:
        clock = pts
    elif (dts != NO_TIME).all():
        clock = dts  # shown in another order, but at these instants
    else:  # no clock at all (a raw stream): one frame every 1/rate seconds
        tick = 1 / ((rate or Fraction(25)) * stream.time_base)
        clock = np.array([int(i * tick) for i in range(len(pts))], np.int64)
        durations = np.full(len(pts), int(tick))
    order = shown[np.argsort(clock[shown], kind="stable")]
    keys = place[(is_key == 1) & (clock != NO_TIME)]
    keys = keys[np.argsort(clock[keys], kind="stable")] if len(keys) else place[:1]
    key_dts = np.where(dts[keys] == NO_TIME, clock[keys], dts[keys])
    last = int(durations[shown[-1]]) if len(order) else 0
    if last <= 0 and len(order) > 1:
        last = int(np.median(np.diff(clock[order])))
    return _Index(
        clock[order],
        order,
        size[order],
        np.column_stack([clock[keys], key_dts, keys]),
        exact,
        max(last, 0),
    )
