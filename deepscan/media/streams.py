"""Chooses the video stream that a player shows, and lists the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepscan.errors import NoVideoStream, UnreadableInput


def choose_stream(path: Path, container: Any, number: int | None) -> tuple[Any, tuple[str, ...]]:
    """The stream with this number in the file, or the one that players show; and the other video streams.

    FFmpeg's rule is used (av_find_best_stream): enabled or default streams first, then the one with more
    frames and bits. Where the container states no bits, the largest picture of equals is taken. Covers and
    thumbnails are never taken for the video.

    Raises:
        NoVideoStream: there is no video, or no such stream.
        UnreadableInput: FFmpeg has no decoder for it.
    """
    videos = [s for s in container.streams.video if not _is_cover(s)]
    if not videos:
        names = {"video": "a cover picture"}
        kinds = ", ".join(sorted({names.get(s.type, str(s.type)) for s in container.streams}))
        raise NoVideoStream(
            f"{path}: contains no video, "
            + (f"only {kinds}" if kinds else "nor anything else")
            + "; check that this is the file you mean"
        )
    if number is not None:
        stream = next((s for s in videos if s.index == number), None)
        if stream is None:
            raise NoVideoStream(
                f"{path}: stream {number} is not a video stream; its video streams are"
                f" {', '.join(str(s.index) for s in videos)}"
            )
    else:
        stream = _shown(videos, container.streams.best("video"))
    if stream.codec_context is None:
        raise UnreadableInput(f"{path}: FFmpeg has no decoder here for its video stream")
    others = tuple(_words(s) for s in container.streams.video if s.index != stream.index)
    return stream, others


def _is_cover(stream: Any) -> bool:
    flags = type(stream.disposition)
    return bool(stream.disposition & (flags.attached_pic | flags.timed_thumbnails))


def _is_default(stream: Any) -> bool:
    return bool(stream.disposition & type(stream.disposition).default)


def _area(stream: Any) -> int:
    context = stream.codec_context
    return 0 if context is None else context.width * context.height


def _bits(stream: Any) -> int:
    return 0 if stream.codec_context is None else stream.codec_context.bit_rate or 0


def _shown(videos: list[Any], best: Any) -> Any:
    if best is None or best.index not in {s.index for s in videos}:
        best = max(videos, key=lambda s: (_is_default(s), _area(s)))
    if _bits(best):
        return best
    equals = [s for s in videos if _is_default(s) == _is_default(best) and not _bits(s)]
    return max([best, *equals], key=_area)


def _words(stream: Any) -> str:
    context = stream.codec_context
    what = "cover picture" if _is_cover(stream) else "video stream"
    if context is None:
        return f"{what} {stream.index} (no decoder)"
    return f"{what} {stream.index} ({context.name}, {context.width} x {context.height})"
