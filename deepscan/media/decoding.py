"""Decodes with PyAV: packets in; frames out, marked sound or damaged, with pixels as players show them."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.error
import numpy as np
from av.video.frame import PictureType

from deepscan.errors import UnreadableInput
from deepscan.records import Pixels

# An 8K frame has 33 million pixels. No camera makes twice that, and three bytes a pixel must fit in memory.
MAX_PIXELS = 2**26

# No decoder holds back more frames than this for reordering: a frame later than that is lost.
DECODER_HOLDS = 48

NEVER = 2**62

UNSPECIFIED_COLOUR = 2  # AVCOL_SPC_UNSPECIFIED

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


def short_of_memory(error: av.error.FFmpegError) -> None:
    """Raise MemoryError if FFmpeg ran out of memory, which is not the file's fault."""
    if error.errno == errno.ENOMEM:
        raise MemoryError from error


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets in decoding order, up to the end or to where the file breaks off."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            short_of_memory(error)
            return  # what could be read before the damage is still evidence
        if packet is None:
            return
        if packet.size:  # without content: the end, or in AVI "the last picture once more"
            yield packet


def decoded(
    container: Any,
    stream: Any,
    wanted: set[int] | None = None,
    landing: int | None = None,
    matches_index: Callable[[Any], bool] = lambda packet: True,
) -> Iterator[tuple[Any, bool]]:
    """Frames from here on in display order, each with a flag: is it sound?

    A frame is unsound if the decoder reports it as corrupt, or if it comes after a corrupt frame and before
    the next whole picture: it was then predicted from a guess, although no decoder says so.

    With `wanted` (pts), frames that nothing depends on are skipped unless wanted, and decoding stops once the
    decoder has every wanted packet; it then flushes what it still holds.

    `landing` is given after a seek. The first packet's dts must not be later, and every packet must satisfy
    `matches_index`, because some containers infer wrong times after a seek. The first frames may depend on
    frames before the seek: they count as sound from the first whole picture on or, with gradual refresh, from
    the second "keyframe" on, when the first refresh is complete.
    """
    context = stream.codec_context
    left = len(wanted) if wanted is not None else -1
    coming: dict[
        int | None, int
    ] = {}  # places in decoding order, by pts, of frames not yet given out
    held: deque[_Held] = deque()  # decoded frames that may still prove to depend on damage
    place, broken = 0, NEVER  # broken: where damage began that later frames may depend on
    sought = landing is not None
    keys, founded = (
        0,
        NEVER if sought else 0,
    )  # founded: where frames stop depending on what lies before the seek

    def judged(packet: Any) -> Iterator[tuple[Any, bool]]:
        nonlocal broken, founded
        try:
            frames = context.decode(packet)
        except av.error.FFmpegError as error:
            short_of_memory(error)
            frames, broken = [], min(broken, place)
        for frame in frames:
            one = _Held(frame, coming.pop(frame.pts, place))
            if wanted is not None:
                # Frames come in display order: any that was due before this one was skipped or lost.
                for late in [t for t in coming if t is not None and t < (frame.pts or 0)]:
                    del coming[late]
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
        while held and (packet is None or min(coming.values(), default=NEVER) > held[0].place):
            yield held[0].frame, held.popleft().sound

    for place, packet in enumerate(packets(container, stream)):
        coming[packet.pts] = place
        keys += packet.is_keyframe
        if keys == 2:
            founded = min(founded, place)
        while coming and (oldest := next(iter(coming.items())))[1] < place - DECODER_HOLDS:
            del coming[oldest[0]]
        if sought and not matches_index(packet):
            raise Doubt
        if landing is not None and packet.dts is not None:
            if packet.dts > landing:
                raise Doubt
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


def check_size(path: Path, width: int, height: int) -> None:
    """Raise UnreadableInput if a picture has too many pixels to decode."""
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


def rotation(frame: Any) -> int:
    """Rotation for display in degrees counter-clockwise, a multiple of 90; mirroring is applied after it."""
    a, b, c, d = _matrix(frame)
    if a * d - b * c < 0:
        a = -a
    return int(round(np.degrees(np.arctan2(-b, a)) / 90) * 90) % 360


def display(frame: Any, pixel_aspect: Fraction, path: Path) -> Pixels:
    """The frame as a player shows it: RGB, one progressive picture, square pixels, upright.

    `pixel_aspect` is the width of a stored pixel over its height; above 4 it is treated as a mistake.
    """
    plausible = Fraction(1, 4) <= pixel_aspect <= 4
    width = max(round(frame.width * pixel_aspect), 1) if plausible else frame.width
    check_size(path, width, frame.height)
    colours: dict[str, Any] = {}
    if frame.colorspace == UNSPECIFIED_COLOUR and not frame.format.is_rgb:
        # As players do: untagged high definition is BT.709, anything smaller BT.601.
        colours["src_colorspace"] = "ITU709" if frame.height >= 720 else "ITU601"
    # One thread: more would live as long as the frame's scaler, which only the garbage collector frees, and
    # pile up until no new ones could start.
    pixels = frame.reformat(
        width=width, height=frame.height, format="rgb24", threads=1, **colours
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
