"""VideoSource: probe a video, choose instants by exact pts, decode just those.

The only file that reads with PyAV.

A first walk over the container's packets, without decoding, lists every frame's pts and every
keyframe. From that list the instants are chosen and the decoder is sent straight to the keyframes
they need, so time and memory do not grow with the length of the video, and variable frame rates,
B-frames, edit lists and start offsets come out right by construction.
"""

from __future__ import annotations

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
import av.logging
import numpy as np
from av.video.frame import PictureType

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

# More frames than any decoder keeps back for reordering and in its threads.
DECODER_HOLDS = 256

UNSPECIFIED_COLOUR = 2  # AVCOL_SPC_UNSPECIFIED
NO_TIME = -(2**63)  # AV_NOPTS_VALUE

# In these a frame marked "not a reference" is one to all others. In HEVC it may still be one to higher
# temporal layers, so nothing is skipped there.
SKIPPABLE = ("h264", "mpeg1video", "mpeg2video", "mpeg4")


@dataclass(frozen=True, slots=True)
class DamagedFrame:
    """A sampled frame that the decoder could not restore, or only by guessing it or what it is built on."""

    index: int
    time: Fraction


@dataclass(frozen=True, slots=True)
class _Index:
    """What the packets say. `pts` (n,) in display order; `keys` (m, 3): pts, dts and decoding position.

    `position` (n,) is each frame's place in decoding order. `exact` is False when the container
    has no usable pts: then the k-th frame to leave the decoder is shown at the k-th of `pts`.
    """

    pts: np.ndarray
    position: np.ndarray
    keys: np.ndarray
    exact: bool
    last_duration: int


class _Doubt(Exception):
    """This way of decoding lost its way or met damage: a more careful one must say what is there."""


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
            self._pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
            _check_size(path, stream.codec_context.width, stream.codec_context.height)
            container_name, codec = container.format.name, stream.codec_context.name
            rates = stream.guessed_rate, stream.time_base
            declared = stream.duration
            bit_rate = container.bit_rate or None
            tags = {**container.metadata, **stream.metadata}
            self._index = _read_index(container, stream, rates[0])
        self._time_base = rates[1]
        if len(self._index.pts) == 0:
            raise UnreadableInput(f"{path}: the video stream holds no frames")
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
        """Decode the frames with these ascending display-order indices, each yielded once, in order.

        Fast at first: seeking, and several frames at a time. At the first sign of trouble one frame
        at a time, because threads lose sound frames along with broken ones; where the container
        cannot seek exactly, from the start.
        """
        exact, done = self._index.exact, 0
        for seek, threads in ((exact, 0), (exact, 1), (False, 1)):
            try:
                for item in self._decode(indices[done:], seek, threads):
                    yield item
                    done += 1
                return
            except _Doubt:
                continue

    # -- decoding -------------------------------------------------------------------------------

    def _decode(
        self, indices: Sequence[int], seek: bool, threads: int
    ) -> Iterator[Frame | DamagedFrame]:
        with self._open(threads) as (container, stream):
            for key, run in self._runs(indices) if seek else [(0, list(indices))]:
                # A "keyframe" may be where a gradual refresh only begins; one further back it is over.
                key = max(key - threads, 0)
                for i, frame in self._decode_run(container, stream, key, run):
                    if frame is None and threads != 1:
                        raise _Doubt
                    yield DamagedFrame(i, self._time(i)) if frame is None else self._frame(i, frame)

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
    ) -> Iterator[tuple[int, Any]]:
        """Decode from a keyframe on; give each frame of `run` with its index, None if it is damaged."""
        index = self._index
        key_dts = int(index.keys[key, 1]) if key else None
        if key_dts is not None:
            try:
                container.seek(key_dts, stream=stream, backward=True)
            except av.error.FFmpegError as error:
                raise _Doubt from error
        index_of = {int(index.pts[i]): i for i in run} if index.exact else None
        pending = deque(run)
        frames = _decoded(container, stream, set(index_of) if index_of else None, key_dts)
        for order, (frame, sound) in enumerate(frames):
            if not pending:
                return
            i = index_of.get(frame.pts, -1) if index_of else order
            while pending and pending[0] < i:
                yield pending.popleft(), None
            if pending and pending[0] == i:
                yield pending.popleft(), frame if sound else None
        for i in pending:
            yield i, None

    def _first_frame(self) -> tuple[Any, Pixels]:
        with self._open() as (container, stream):
            for frame, _ in _decoded(container, stream):
                return frame, _display(frame, self._pixel_aspect, self._path)
        raise UnreadableInput(
            f"{self._path}: no frame of the video stream can be decoded; the file is damaged or cut short"
        )

    def _time(self, i: int) -> Fraction:
        return int(self._index.pts[i]) * self._time_base

    def _frame(self, i: int, frame: Any) -> Frame:
        pixels = _display(frame, self._pixel_aspect, self._path)
        return Frame(i, self._time(i), pixels, bool(frame.interlaced_frame))

    @contextmanager
    def _open(self, threads: int = 0) -> Iterator[tuple[Any, Any]]:
        """The container and its video stream, with FFmpeg's errors turned into deepscan's.

        `threads` of the decoder: 0 leaves the number to FFmpeg.
        """
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
                    kinds = ", ".join(sorted({str(s.type) for s in container.streams}))
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
                stream.codec_context.thread_type = "AUTO"
                stream.codec_context.thread_count = threads
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
        if packet is None:
            return
        if packet.size:  # without content: the end, or in AVI "the last picture once more"
            yield packet


def _decoded(
    container: Any, stream: Any, wanted: set[int] | None = None, landing: int | None = None
) -> Iterator[tuple[Any, bool]]:
    """Frames from here on in display order, each with whether it is sound.

    A frame is not sound if the decoder reports it as corrupt, nor if it was decoded after such a one
    and before the next whole picture: what is predicted from a guess is a guess, though no decoder
    says so.

    With `wanted` (pts), frames that no other frame refers to are skipped unless they are wanted, and
    decoding stops once every wanted packet was handed to the decoder: the decoder then gives out what
    it still holds. With `landing`, the first packet's dts must not be later.
    """
    context = stream.codec_context
    left = len(wanted) if wanted is not None else -1
    places: dict[int | None, int] = {}  # of the latest packets in decoding order, by pts
    place = broken = NEVER = 2**62  # broken: where the damage began that later frames may build on

    def judged(packet: Any) -> Iterator[tuple[Any, bool]]:
        nonlocal broken
        try:
            frames = context.decode(packet)
        except av.error.FFmpegError:
            if context.thread_count != 1:
                raise _Doubt from None
            frames, broken = [], min(broken, place)
        for frame in frames:
            its_place = places.get(frame.pts, place)
            whole = frame.key_frame and frame.pict_type == PictureType.I
            if frame.is_corrupt:
                broken = min(broken, its_place)
            elif whole and its_place > broken:
                broken = NEVER
            yield frame, not frame.is_corrupt and its_place <= broken

    for place, packet in enumerate(_packets(container, stream)):
        places[packet.pts] = place
        if len(places) > DECODER_HOLDS:
            del places[next(iter(places))]
        if landing is not None and packet.dts is not None:
            if packet.dts > landing:
                raise _Doubt
            landing = None
        if wanted is not None:
            hit = packet.pts in wanted
            skip = not hit and context.name in SKIPPABLE
            context.skip_frame = "NONREF" if skip else "DEFAULT"
            left -= hit
        yield from judged(packet)
        if left == 0:
            break
    yield from judged(None)


def _read_index(container: Any, stream: Any, rate: Fraction | None) -> _Index:
    """Walk all packets of the stream without decoding."""
    walked = array("q")
    for packet in _packets(container, stream):
        pts, dts = (NO_TIME if t is None else t for t in (packet.pts, packet.dts))
        walked.extend((pts, dts, packet.duration or 0, packet.is_keyframe, packet.is_discard))
    pts, dts, durations, is_key, discarded = np.array(walked, np.int64).reshape(-1, 5).T
    place = np.arange(len(pts))
    # Outside an edit list a frame is decoded for others' sake and never shown.
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
        clock[order], order, np.column_stack([clock[keys], key_dts, keys]), exact, max(last, 0)
    )


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableInput(
            f"{path}: claims {width} x {height} pixels; the limit is {MAX_PIXELS} in all"
        )


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display matrix: x' = a x + c y, y' = b x + d y; the identity if there is none."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except (
        ValueError
    ):  # side data of a kind newer than PyAV hides all others; the turn it has apart
        a, b = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}.get(frame.rotation % 360, (1, 0))
        return a, b, -b, a
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    return a, b, c, d


def _rotation(frame: Any) -> int:
    """Degrees counter-clockwise, a multiple of 90; a mirrored picture is turned, then flipped sideways."""
    a, b, c, d = _matrix(frame)
    if a * d - b * c < 0:
        a = -a
    return int(round(np.degrees(np.arctan2(-b, a)) / 90) * 90) % 360


def _display(frame: Any, pixel_aspect: Fraction, path: Path) -> Pixels:
    """The frame as a player shows it: RGB, one progressive picture, square pixels, upright.

    `pixel_aspect` is a stored pixel's width over its height; beyond 4 it is taken for a mistake.
    """
    plausible = Fraction(1, 4) <= pixel_aspect <= 4
    width = max(round(frame.width * pixel_aspect), 1) if plausible else frame.width
    _check_size(path, width, frame.height)
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
