"""VideoSource: probe a video, choose instants by exact pts, decode just those.

The only file that reads with PyAV.

A first walk over the container's packets, without decoding, lists every frame's pts and every
keyframe. From that list the instants are chosen and the decoder is sent straight to the keyframes
they need, so time and memory do not grow with the length of the video, and variable frame rates,
B-frames, edit lists and start offsets come out right by construction.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import numpy as np

from deepscan.config import Sampling
from deepscan.errors import NoVideoStream, UnreadableInput
from deepscan.files import check_readable, sha256
from deepscan.records import Frame, Pixels, Source

# An 8K frame has 33 million pixels; twice that is no camera's, and three bytes a pixel must fit memory.
MAX_PIXELS = 2**26

# Demuxers that read one file and nothing else: a playlist or a pattern must not open further files.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,ogg,asf,mxf,gif,ivf,nut,"
    "h264,hevc,av1,obu,m4v,h263,mjpeg,dv,wtv,rm,y4m,yuv4mpegpipe,apng,swf,vob,mp3,wav,flac,aac,aiff,w64,caf,amr"
)

# Decoding on to the next instant is cheaper than seeking when only this many frames lie between:
# a seek drains the decoder's pipeline of frame threads and fills it again.
SEEK_WORTH = 12

UNSPECIFIED_COLOUR = 2  # AVCOL_SPC_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class DamagedFrame:
    """A sampled frame that the decoder could not restore, or only by guessing."""

    index: int
    time: Fraction


@dataclass(frozen=True, slots=True)
class _Index:
    """What the packets say. `pts` (n,) in display order; `keys` (m, 3): pts, dts and decoding position.

    `position` (n,) is each frame's place in decoding order. `exact` is False when the container
    has no usable pts: then the k-th frame to leave the decoder is the k-th of `pts`.
    """

    pts: np.ndarray
    position: np.ndarray
    keys: np.ndarray
    exact: bool
    last_duration: int


class _SeekMissed(Exception):
    """The container landed after the keyframe it was sent to."""


class VideoSource:
    """One video file, opened read-only.

    Attributes:
        source: what is known of it.
        declared_duration: seconds the header promises, or None; more than is there means a cut file.

    Raises:
        UnreadableInput: missing, empty, no known container, damaged beyond decoding, too large.
        NoVideoStream: media without a video stream.
    """

    def __init__(self, path: Path) -> None:
        check_readable(path)
        self._path = path
        with self._open() as (container, stream):
            _check_size(path, stream.codec_context.width, stream.codec_context.height)
            container_name, codec = container.format.name, stream.codec_context.name
            rates = stream.guessed_rate, stream.time_base
            declared = stream.duration
            bit_rate = container.bit_rate or None
            tags = {**container.metadata, **stream.metadata}
            self._index = _read_index(container, stream, rates[0])
        self._time_base = rates[1] if self._index.exact or rates[1] else Fraction(1, 1)
        if len(self._index.pts) == 0:
            raise UnreadableInput(f"{path}: the video stream holds no frames")
        first = self._first_frame()
        pixels = _display(first)
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
            rotation=_rotation(first),
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
            instants = [first + int(i * step) for i in range(int((last - first) / step) + 1)]
        elif sampling.frames == 1:
            instants = [(first + last) // 2]
        else:
            instants = [
                first + (last - first) * i // (sampling.frames - 1) for i in range(sampling.frames)
            ]
        on_display = np.searchsorted(pts, np.array(instants, np.int64), side="right") - 1
        return tuple(np.unique(on_display).tolist())

    def decode(self, indices: Sequence[int]) -> Iterator[Frame | DamagedFrame]:
        """Decode the frames with these ascending display-order indices, each yielded once, in order."""
        if not self._index.exact:
            yield from self._decode_in_order(indices)
            return
        done = 0
        try:
            with self._open() as (container, stream):
                for key, run in self._runs(indices):
                    for item in self._decode_run(container, stream, key, run):
                        yield item
                        done += 1
        except _SeekMissed:  # this container cannot seek exactly: decode through what is left
            yield from self._decode_in_order(indices[done:])

    # -- decoding -------------------------------------------------------------------------------

    def _runs(self, indices: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Group indices into (keyframe row, indices) that are decoded in one go without seeking."""
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
        self, container: Any, stream: Any, key: int, run: list[int]
    ) -> Iterator[Frame | DamagedFrame]:
        """Decode from a keyframe until every frame of `run` was met by its pts."""
        key_dts = int(self._index.keys[key, 1]) if key else None
        if key_dts is not None:
            try:
                container.seek(key_dts, stream=stream, backward=True)
            except av.error.FFmpegError as error:
                raise _SeekMissed from error
        index_of = {int(self._index.pts[i]): i for i in run}
        pending = list(run)
        for frame in _decoded(container, stream, set(index_of), key_dts):
            i = index_of.get(frame.pts) if frame.pts is not None else None
            if i is None or i not in pending:
                continue
            while pending[0] != i:
                yield self._damaged(pending.pop(0))
            pending.pop(0)
            yield self._frame(i, frame)
        for i in pending:
            yield self._damaged(i)

    def _decode_in_order(self, indices: Sequence[int]) -> Iterator[Frame | DamagedFrame]:
        """Decode from the start and take frames by pts, or by their order where pts are no use."""
        pending = list(indices)
        with self._open() as (container, stream):
            for order, frame in enumerate(_decoded(container, stream)):
                if not pending:
                    return
                if self._index.exact:
                    place = np.searchsorted(self._index.pts, -1 if frame.pts is None else frame.pts)
                    order = int(place)
                while pending and pending[0] < order:
                    yield self._damaged(pending.pop(0))
                if pending and pending[0] == order:
                    pending.pop(0)
                    yield self._frame(order, frame)
        for i in pending:
            yield self._damaged(i)

    def _first_frame(self) -> Any:
        with self._open() as (container, stream):
            for frame in _decoded(container, stream):
                _check_size(self._path, frame.width, frame.height)
                return frame
        raise UnreadableInput(
            f"{self._path}: no frame of the video stream can be decoded; the file is damaged or cut short"
        )

    def _time(self, i: int) -> Fraction:
        return int(self._index.pts[i]) * self._time_base

    def _damaged(self, i: int) -> DamagedFrame:
        return DamagedFrame(i, self._time(i))

    def _frame(self, i: int, frame: Any) -> Frame | DamagedFrame:
        if frame.is_corrupt:
            return self._damaged(i)
        _check_size(self._path, frame.width, frame.height)
        return Frame(i, self._time(i), _display(frame), bool(frame.interlaced_frame))

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        """The container and its video stream, with FFmpeg's errors turned into deepscan's."""
        try:
            # "file:" keeps a name like `a:b.mp4` from being read as a protocol.
            with av.open(
                f"file:{self._path}",
                options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS},
                metadata_errors="replace",
            ) as container:
                streams = [
                    s
                    for s in container.streams.video
                    if not s.disposition & type(s.disposition).attached_pic  # cover art
                ]
                if not streams:
                    kinds = sorted({str(s.type) for s in container.streams})
                    raise NoVideoStream(
                        f"{self._path}: no video stream, only {', '.join(kinds) or 'nothing'}"
                    )
                stream = streams[0]
                if stream.codec_context is None:
                    raise UnreadableInput(
                        f"{self._path}: this FFmpeg has no decoder for its video stream"
                    )
                stream.thread_type = "AUTO"
                stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
                yield container, stream
        except av.error.FFmpegError as error:
            raise UnreadableInput(
                f"{self._path}: not a readable video ({error.strerror}); it may be cut short, damaged or"
                " no video at all"
            ) from error


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets in decoding order, up to the end or to where the file breaks off."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            return  # what could be read before the damage is still evidence
        if packet is None or packet.size == 0:
            return
        yield packet


def _decoded(
    container: Any, stream: Any, wanted: set[int] | None = None, landing: int | None = None
) -> Iterator[Any]:
    """Frames from here on in display order; broken packets are passed over.

    With `wanted` (pts), frames that no other frame refers to are skipped unless they are wanted, and
    decoding stops once every wanted packet was handed to the decoder: the decoder then gives out what
    it still holds. With `landing`, the first packet's dts must not be later.
    """
    context = stream.codec_context
    left = len(wanted) if wanted is not None else -1
    for packet in _packets(container, stream):
        if landing is not None and packet.dts is not None:
            if packet.dts > landing:
                raise _SeekMissed
            landing = None
        if wanted is not None:
            hit = packet.pts in wanted
            context.skip_frame = "DEFAULT" if hit else "NONREF"
            left -= hit
        try:
            yield from context.decode(packet)
        except av.error.FFmpegError:
            continue  # its frame never comes: the caller counts it as damaged
        if left == 0:
            break
    try:
        yield from context.decode(None)
    except av.error.FFmpegError:
        return


def _read_index(container: Any, stream: Any, rate: Fraction | None) -> _Index:
    """Walk all packets of the stream without decoding."""
    shown, places = array("q"), array("q")
    keys: list[tuple[int, int, int]] = []
    without_pts = duration = 0
    for place, packet in enumerate(_packets(container, stream)):
        pts = packet.pts
        if pts is None:
            without_pts += not packet.is_discard
            continue
        if packet.is_keyframe:
            keys.append((pts, packet.dts if packet.dts is not None else pts, place))
        if not packet.is_discard:  # outside an edit list: decoded for others' sake, never shown
            shown.append(pts)
            places.append(place)
            duration = packet.duration or duration
    pts_array = np.array(shown, np.int64)
    order = np.argsort(pts_array, kind="stable")
    exact = (
        without_pts == 0
        and "avi"
        not in container.format.name.split(",")  # AVI stores no pts: B-frames' are made up
        and len(np.unique(pts_array)) == len(pts_array)
    )
    if not exact and without_pts:
        # No clock at all (a raw stream): one frame every 1/rate seconds, in ticks of the time base.
        total = len(pts_array) + without_pts
        tick = 1 / ((rate or Fraction(25)) * stream.time_base)
        pts_array = np.array([int(i * tick) for i in range(total)], np.int64)
        order = np.arange(total)
        places = array("q", range(total))
        keys, duration = [(0, 0, 0)], int(tick)
    key_array = np.array(sorted(keys) or [(0, 0, 0)], np.int64)
    gap = int(np.median(np.diff(pts_array[order]))) if len(pts_array) > 1 else 0
    return _Index(
        pts_array[order], np.array(places, np.int64)[order], key_array, exact, duration or gap
    )


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableInput(
            f"{path}: claims {width} x {height} pixels; the limit is {MAX_PIXELS} in all"
        )


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display matrix: x' = a x + c y, y' = b x + d y; the identity if there is none."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    return a, b, c, d


def _rotation(frame: Any) -> int:
    """Degrees counter-clockwise, a multiple of 90 (mirrored pictures: of the unmirrored part)."""
    a, b, _, _ = _matrix(frame)
    return int(round(np.degrees(np.arctan2(-b, a)) / 90) * 90) % 360


def _display(frame: Any) -> Pixels:
    """The frame as a player shows it: RGB, one progressive picture, square pixels, upright."""
    sar = getattr(frame, "sample_aspect_ratio", None) or Fraction(1)
    width = round(frame.width * sar) if Fraction(1, 4) <= sar <= 4 else frame.width
    colours: dict[str, Any] = {}
    if frame.colorspace == UNSPECIFIED_COLOUR and not frame.format.is_rgb:
        # As players do: untagged high definition is BT.709, anything smaller BT.601.
        colours["src_colorspace"] = "ITU709" if frame.height >= 720 else "ITU601"
    pixels = frame.reformat(
        width=width, height=frame.height, format="rgb24", **colours
    ).to_ndarray()
    if frame.interlaced_frame and frame.height > 2:
        pixels = _one_field(pixels)
    a, b, c, d = _matrix(frame)
    if abs(b) > abs(a):
        pixels, flip_x, flip_y = pixels.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    pixels = pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(pixels)


def _one_field(pixels: Pixels) -> Pixels:
    """Keep the top field and interpolate the lines between: no combing, half the vertical detail."""
    out = pixels.copy()
    above, below = pixels[0:-2:2], pixels[2::2]
    lines = min(len(above), len(below))
    middle = (above[:lines].astype(np.uint16) + below[:lines] + 1) // 2
    out[1 : 1 + 2 * lines : 2] = middle
    if len(pixels) % 2 == 0:
        out[-1] = pixels[-2]
    return out
