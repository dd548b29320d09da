"""What an input is and shows: its facts, its frames, how many could be decoded, and what held the decoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

import numpy as np

from deepscan.shapes import UInt8

Pixels = UInt8[np.ndarray, "_height _width 3"]  # any two pictures, hence no sizes held equal


@dataclass(frozen=True, slots=True)
class Colour:
    """The colours of an input's first frame as its tags say, in FFmpeg's names, and what was made of them."""

    matrix: str = "unknown"
    transfer: str = "unknown"
    primaries: str = "unknown"
    range: str = "unknown"
    matrix_guessed: bool = False  # no tag: guessed from the size, as players do
    conversion: str = ""  # to the SDR of BT.709 that is judged; empty: none was needed
    exact: bool = True  # False: no player agrees with another on what this shows


@dataclass(frozen=True, slots=True)
class Source:
    """The facts about an input, before anything is judged.

    `width` and `height` are as displayed. `frames` counts the frames that a player shows, whatever the header
    claims; `start` and `duration` come from the first and last of them.
    """

    path: Path
    kind: str  # "video" or "image"
    sha256: str
    bytes: int
    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int  # degrees the stored picture is turned counter-clockwise for display
    frames: int
    start: Fraction  # seconds of the first frame
    duration: Fraction  # seconds from the first frame to the end of the last
    nominal_rate: Fraction | None  # frames per second the stream declares
    average_rate: Fraction | None  # frames per second it has
    variable_rate: bool
    exact_times: bool  # False: pts are missing or wrong, so times follow the order of frames
    bit_rate: int | None  # bits per second of the whole file
    tags: dict[str, str] = field(default_factory=dict)
    restarts: tuple[Fraction, ...] = ()  # seconds where the clock restarts; times count on
    stream: int = 0  # number of the stream that was judged, in the file
    others: tuple[str, ...] = ()  # what else the file shows or holds, and was not judged
    colour: Colour = field(default_factory=Colour)


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame as displayed. `index` counts in display order from 0."""

    index: int
    time: Fraction
    pixels: Pixels
    interlaced: bool = False

    def __repr__(self) -> str:
        return f"Frame(index={self.index}, time={float(self.time):.3f}, {self.pixels.shape})"


@dataclass(frozen=True, slots=True)
class DecodeCount:
    """How many of the sampled instants could be decoded; the others are damaged."""

    sampled: int
    decoded: int
    damaged: int  # concealed by the decoder or not decoded at all; never scored

    def __post_init__(self) -> None:
        if self.sampled != self.decoded + self.damaged:
            raise ValueError(f"counts do not add up: {self}")


class Confinement(StrEnum):
    """What held the process that decoded an input, as tried out before it read a byte of it."""

    FULL = "full"  # it could compute and read its input, nothing else
    LIMITS = "limits"  # a process of its own with limits, memory among them; no more is certain
    NONE = "none"  # a process of its own, without limits


@dataclass(frozen=True, slots=True)
class Credentials:
    """C2PA Content Credentials of an input.

    `status`: "not_checked", "absent", "present" (what they sign is unchanged) or "invalid".
    """

    status: str
    detail: str

    def __post_init__(self) -> None:
        if self.status not in ("not_checked", "absent", "present", "invalid"):
            raise ValueError(f"unknown status of content credentials: {self.status!r}")
