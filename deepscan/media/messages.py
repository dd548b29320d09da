"""The messages of a decoder, and the one parser that reads them; anything else is nonsense.

A decoder that a file has taken over may say what it likes. So each message is a line of JSON read into a
record that checks names, types and bounds; no other code of the parent's looks at what was said.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from deepscan.errors import SettingsError
from deepscan.media.display import MAX_PIXELS
from deepscan.plain import read
from deepscan.records import Confinement, Credentials, Source

LONGEST_LINE = 2**26  # bytes; all indices of ten hours of video take a tenth of this
LONGEST_TEXT = 4000  # characters of an error or a signer's claims

LARGEST = 2**63  # seconds; a 64-bit clock of one tick a second holds no more


class Nonsense(Exception):
    """A message that no decoder of ours sends."""


@dataclass(frozen=True, slots=True)
class Held:
    """The first message, sent before a byte of the input is read."""

    confinement: str

    def __post_init__(self) -> None:
        Confinement(self.confinement)


@dataclass(frozen=True, slots=True)
class Opening:
    """What was learnt on opening the input."""

    source: Source
    declared_duration: float | None  # seconds the header promises
    indices: tuple[int, ...]  # display-order indices of the sampled frames, ascending

    def __post_init__(self) -> None:
        source, indices = self.source, self.indices
        clock = (source.start, source.duration, *source.restarts)
        rates = [r for r in (source.nominal_rate, source.average_rate) if r is not None]
        _check(source.kind in ("video", "image"), "neither video nor image")
        _check(re.fullmatch("[0-9a-f]{64}", source.sha256) is not None, "no SHA-256")
        _check(decodable(source.width, source.height), "a size that is never decoded")
        _check(source.rotation in (0, 90, 180, 270), "a rotation that no player makes")
        _check(source.bytes > 0 and source.frames > 0, "nothing in it")
        _check(all(abs(t) < LARGEST for t in clock) and source.duration >= 0, "impossible times")
        _check(all(0 < rate < LARGEST for rate in rates), "impossible rates")
        _check(len(indices) > 0 and indices[0] >= 0 and indices[-1] < source.frames, "other frames")
        _check(all(a < b for a, b in pairwise(indices)), "sampled frames are not in order")


@dataclass(frozen=True, slots=True)
class Header:
    """What comes before a frame's pixels; without a shape it was damaged and has none."""

    index: int
    time: Fraction
    shape: tuple[int, ...]
    interlaced: bool

    def __post_init__(self) -> None:
        _check(abs(self.time) < LARGEST, "an impossible time")
        if self.shape:
            height, width, colours = self.shape
            _check(colours == 3 and decodable(width, height), "a shape that no picture has")


@dataclass(frozen=True, slots=True)
class Ending:
    """The last message: Content Credentials, and what decoding cost."""

    status: str
    detail: str
    seconds: float
    peak: float  # MiB of resident memory

    def __post_init__(self) -> None:
        _check(len(self.detail) <= LONGEST_TEXT, "too long a text")
        _check(min(self.seconds, self.peak) >= 0, "a negative cost")
        _ = self.credentials  # raises ValueError for an unknown status

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.status, self.detail)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why no more messages follow; it may replace any other message."""

    error: str
    message: str

    def __post_init__(self) -> None:
        _check(len(self.message) <= LONGEST_TEXT, "too long a text")


Message = TypeVar("Message", Held, Opening, Header, Ending)


def parse(line: bytes, kind: type[Message], path: Path) -> Message | Failure:
    """Read one message about the input `path`.

    Raises:
        Nonsense: it is not of this kind, or says what cannot be.
    """
    try:
        said = json.loads(line, parse_constant=_refuse)
        _check(isinstance(said, dict), f"{type(said).__name__} in place of an object")
        wanted: type[Any] = Failure if "error" in said else kind
        # File names may contain bytes that are not text, and errors quote them. Nothing else may.
        bytes_in_text = "surrogateescape" if wanted is Failure else "strict"
        json.dumps(said, ensure_ascii=False).encode("utf-8", bytes_in_text)
        if kind is Opening and wanted is kind:
            _check("path" not in said["source"], "where the input lies")
            said["source"] = {**said["source"], "path": path}
        return read(wanted, said, "it", whole=True)
    except (
        KeyError,
        TypeError,
        ValueError,
        ArithmeticError,
        RecursionError,
        SettingsError,
    ) as error:
        raise Nonsense(f"{kind.__name__.lower()}: {error!s:.200}") from error


def decodable(width: int, height: int) -> bool:
    """Whether pictures of this size are ever decoded."""
    return min(width, height) > 0 and width * height <= MAX_PIXELS


def _check(sound: bool, words: str) -> None:
    if not sound:
        raise ValueError(words)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} in place of a number")
