"""Reads a video: VideoSource probes it, chooses instants by exact pts and decodes only those.

A first pass over the container's packets, without decoding, lists every frame's pts and every keyframe. The
instants are chosen from that list and the decoder seeks straight to the keyframes they need. So time and
memory do not grow with the video's length, and variable frame rates, B-frames, edit lists and start offsets
come out right by construction.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from deepscan.config import Sampling
from deepscan.errors import UnreadableInput
from deepscan.files import check_readable, diagnose, sha256
from deepscan.media.decoding import DECODER_HOLDS, Doubt, decoded
from deepscan.media.display import MAX_PIXELS, Tags, check_size, colour_of, display, rotation
from deepscan.media.index import read_index
from deepscan.media.packets import packets, short_of_memory
from deepscan.media.recognise import picture_behind, recording_behind
from deepscan.media.stills import FIRST, is_motion_jpeg, picture_end
from deepscan.media.streams import choose_stream
from deepscan.records import Colour, Frame, Pixels, Source

# Demuxers that read one file only: a playlist or a file-name pattern must not open others.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,ogg,asf,mxf,gif,ivf,nut,"
    "h264,hevc,av1,obu,m4v,h263,mjpeg,dv,wtv,rm,y4m,yuv4mpegpipe,apng,swf,vob,mp3,wav,flac,aac,aiff,w64,caf,amr"
)

# Decoding on to the next instant is cheaper than seeking if at most this many frames lie between, since a
# seek empties the buffers of decoder and container, which must fill again.
SEEK_WORTH = 12

APNG_HEAD = 2**18  # first bytes of an APNG, up to its first picture's data


@dataclass(frozen=True, slots=True)
class DamagedFrame:
    """A sampled frame that could not be decoded, or only by guessing it or a frame it depends on."""

    index: int
    time: Fraction


def instants(
    sampling: Sampling, pts: np.ndarray, base: Fraction, keys: np.ndarray
) -> tuple[int, ...]:
    """Display-order indices of the frames to look at, ascending, each once.

    "uniform" and "every" name instants on the stream's clock and take the frame on display then:
    the last one whose pts is not later. "uniform" spreads them from the first frame to the last,
    both included, as DeepfakeBench's linspace(0, N-1) does for constant rates.

    Args:
        pts: times of the n frames, ascending, in ticks of `base` seconds.
        keys: indices of keyframes.
    """
    if sampling.rule == "all" or (sampling.rule == "uniform" and len(pts) <= sampling.frames):
        return tuple(range(len(pts)))
    if sampling.rule == "keyframes":
        return tuple(keys.tolist()) or (0,)
    first, last = int(pts[0]), int(pts[-1])
    if sampling.rule == "every":
        assert sampling.seconds is not None
        step = sampling.seconds / base
        # The number of instants before each frame; where it grows, one falls on the frame shown.
        before = [-(-(t - first) * step.denominator // step.numerator) for t in pts.tolist()]
        before.append((last - first) * step.denominator // step.numerator + 1)
        return tuple(i for i in range(len(pts)) if before[i] < before[i + 1])
    if sampling.frames == 1:
        wanted = [(first + last) // 2]
    else:
        wanted = [
            first + (last - first) * i // (sampling.frames - 1) for i in range(sampling.frames)
        ]
    on_display = np.searchsorted(pts, np.array(wanted, np.int64), side="right") - 1
    return tuple(np.unique(on_display).tolist())


def _hides_first(path: Path) -> bool:
    """Whether an APNG's first picture, which only older viewers show, is not part of the animation."""
    with path.open("rb") as file:
        head = file.read(APNG_HEAD)
    return not 0 <= head.find(b"fcTL") < head.find(b"IDAT")


class VideoSource:
    """One video file, opened read-only; `stream` is the number of the one to judge, if not what players show.

    Attributes:
        source: the facts about it.
        declared_duration: seconds the header promises, or None; if fewer are there, the file is cut.

    Raises:
        UnreadableInput: missing, empty, an unknown container, damaged beyond decoding, or too large.
        NoVideoStream: media without a video stream.
    """

    def __init__(self, path: Path, stream: int | None = None) -> None:
        check_readable(path)
        self._path, self._stream = path, stream
        # FFmpeg may take it for a picture otherwise.
        self._format = "mjpeg" if is_motion_jpeg(path) else None
        self._others: tuple[str, ...] = ()
        with self._open() as (container, chosen):
            self._pixel_aspect = chosen.sample_aspect_ratio or Fraction(1)
            self._colour_tags = Tags.of(chosen)
            check_size(path, chosen.codec_context.width, chosen.codec_context.height)
            container_name, codec = container.format.name, chosen.codec_context.name
            rates = chosen.guessed_rate, chosen.time_base
            declared = chosen.duration
            bit_rate = container.bit_rate or None
            tags = {**container.metadata, **chosen.metadata}
            number, listed = chosen.index, chosen.frames
        # FFmpeg gives HEVC's fields one by one, and those of all other codecs in pairs, as frames.
        self._by_fields = codec == "hevc"
        self._index = read_index(self._open, rates[0])
        self._time_base = rates[1]
        if len(self._index.pts) == 0:
            raise UnreadableInput(
                f"{path}: the video stream contains no frames; copy or export it again from its source"
            )
        more: tuple[str, ...] = ()
        count = self._index.hidden
        known = set(self._index.places.tolist())
        if listed > len(known):  # an edit list may leave out packets, too
            with self._open(edits=False) as (container, chosen):
                count += len({packet.pos for packet in packets(container, chosen)} - known - {None})
        if codec == "apng" and _hides_first(path):
            count += 1
        if count > 0:
            more = (f"{count} frame{'s' * (count > 1)} that it does not show",)
        if recording_behind(path, max(*known, FIRST)):
            more += ("another recording behind it",)
        if codec == "apng" and picture_behind(path, picture_end(path, "PNG")):
            more += ("another picture behind it",)
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
            restarts=tuple(at * base for at in self._index.restarts),
            stream=number,
            others=self._others + more,
            colour=self._colour(first),
        )

    def choose(self, sampling: Sampling) -> tuple[int, ...]:
        """Display-order indices of the frames to look at, ascending, each once; see `instants`."""
        keys = np.flatnonzero(np.isin(self._index.pts, self._index.keys[:, 0]))
        return instants(sampling, self._index.pts, self._time_base, keys)

    def split(self, indices: Sequence[int], ways: int) -> list[list[int]]:
        """Split ascending indices into at most `ways` lists that can be decoded in parallel.

        Frames that share a keyframe stay together, so nothing is decoded twice.
        """
        runs = [run for _, run in self._runs(indices)]
        return [[i for run in runs[n::ways] for i in run] for n in range(min(ways, len(runs)))]

    def decode(self, indices: Sequence[int]) -> Iterator[Frame | DamagedFrame]:
        """Decode the frames with these ascending display-order indices; yield each once, in order.

        Decoding is fast until the first sign of trouble, then careful, and at last starts over from the first
        frame.
        """
        seek, done = self._index.seekable, 0
        for how in ((seek, False, False), (seek, True, False), (False, True, True)):
            try:
                for item in self._decode(indices[done:], *how):
                    yield item
                    done += 1
                return
            except Doubt:
                continue

    # -- decoding -------------------------------------------------------------------------------

    def _decode(
        self, indices: Sequence[int], seek: bool, careful: bool, start: bool
    ) -> Iterator[Frame | DamagedFrame]:
        index = self._index
        runs = [(0, list(indices))] if start else self._runs(indices)
        with self._open(careful) as (container, stream):
            reading = None if seek else enumerate(packets(container, stream))
            for key, run in runs:
                # A "keyframe" may be where a gradual refresh only begins; one further back it is over.
                first = 0 if start else int(index.keys[max(key - careful, 0), 1])
                if key == 0 and not seek:
                    first = 0
                for i, frame in self._decode_run(container, stream, first, reading, run, start):
                    if frame is None and not start:
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
                done = int(index.packet[runs[-1][1][-1]])
                if int(index.keys[key, 1]) - done <= SEEK_WORTH:
                    runs[-1][1].append(i)
                    continue
            runs.append((key, [i]))
        return runs

    def _decode_run(
        self,
        container: Any,
        stream: Any,
        first: int,
        reading: Iterator[tuple[int, Any]] | None,
        run: list[int],
        last_try: bool,
    ) -> Iterator[tuple[int, Any]]:
        """Decode on from packet `first`; yield each frame of `run` with its index, None if it is damaged.

        Times may put frames in another order than the decoder does: then they wait for each other.
        """
        index = self._index
        place_of = {int(index.packet[i]): i for i in run}
        pending = deque(run)
        ready: dict[int, Any] = {}
        for place, frame, sound in decoded(container, stream, index, set(place_of), first, reading):
            if (i := place_of.get(place)) is not None:
                ready.setdefault(i, frame if sound else None)
            while pending and (
                pending[0] in ready or int(index.packet[pending[0]]) < place - DECODER_HOLDS
            ):
                yield pending[0], ready.pop(pending.popleft(), None)
        for i in pending:
            yield i, ready.get(i)

    def _first_frame(self) -> tuple[Any, Pixels]:
        with self._open(careful=True) as (container, stream):
            for packet in chain(packets(container, stream), [None]):
                try:
                    frames = stream.codec_context.decode(packet)
                except av.error.FFmpegError as error:
                    short_of_memory(error)
                    continue
                for frame in frames:
                    return frame, self._display(frame)
        raise UnreadableInput(
            f"{self._path}: no frame of the video stream can be decoded; the file is damaged, cut short, or"
            f" its frames have more than {MAX_PIXELS} pixels"
        )

    def _time(self, i: int) -> Fraction:
        return int(self._index.pts[i]) * self._time_base

    def _frame(self, i: int, frame: Any) -> Frame:
        return Frame(i, self._time(i), self._display(frame), bool(frame.interlaced_frame))

    def _display(self, frame: Any) -> Pixels:
        single = self._by_fields and bool(frame.interlaced_frame)
        frame = self._colour_tags.complete(frame)
        return display(frame, self._pixel_aspect, self._path, single)

    def _colour(self, frame: Any) -> Colour:
        found = colour_of(frame)
        if self._colour_tags.dolby and found.transfer == "unknown":
            return replace(found, transfer="Dolby Vision", exact=False)
        return found

    @contextmanager
    def _open(self, careful: bool = False, edits: bool = True) -> Iterator[tuple[Any, Any]]:
        """The container and its video stream, with FFmpeg's errors turned into deepscan's.

        `edits`: follow the edit list of MP4 and MOV, as players do.

        The decoder has one thread. With more, FFmpeg may return a frame before marking it as patched up from
        the previous one, and a picture of another instant would pass as sound.
        """
        opened = False
        try:
            # "file:" keeps a name like `a:b.mp4` from being read as a protocol.
            with av.open(
                f"file:{self._path}",
                format=self._format,
                options={
                    "protocol_whitelist": "file",
                    "format_whitelist": CONTAINERS,
                    "max_pixels": str(MAX_PIXELS),  # FFmpeg's own probing decodes, too
                    "ignore_editlist": str(int(not edits)),
                },
                metadata_errors="replace",
            ) as container:
                opened = True
                stream, self._others = choose_stream(self._path, container, self._stream)
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
                why = "its header promises more than fits into memory"
            raise UnreadableInput(
                f"{self._path}: not a readable video ({why}): {diagnose(self._path)}"
            ) from error
