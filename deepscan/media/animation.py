"""Reads an animated WebP with Pillow, because FFmpeg cannot: WebpAnimation, like VideoSource."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from deepscan.config import Sampling
from deepscan.errors import NoVideoStream, UnreadableInput
from deepscan.files import sha256
from deepscan.media.display import check_size
from deepscan.media.recognise import picture_behind
from deepscan.media.stills import BROKEN, opened, picture_end, pixels_of, reading
from deepscan.media.video import DamagedFrame, instants
from deepscan.records import Frame, Source

MILLISECOND = Fraction(1, 1000)

# As browsers do: a picture that is to be shown for up to 10 ms is shown for 100.
SHORTEST, USUAL = 10, 100


class WebpAnimation:
    """One animated WebP, opened read-only.

    Raises:
        UnreadableInput: damaged, cut short, or too large to decode.
        NoVideoStream: another stream than the only one is asked for.
    """

    declared_duration = None

    def __init__(self, path: Path, stream: int | None = None) -> None:
        if stream:
            raise NoVideoStream(f"{path}: stream {stream} is not a video stream; the only one is 0")
        self._path = path
        shown = _durations(path)
        self._times = np.concatenate([[0], np.cumsum(shown)])
        with reading(path) as image:
            check_size(path, *image.size)
            mode, frames = image.mode, getattr(image, "n_frames", 1)
            pixels, colours = pixels_of(path, image)
        if frames != len(shown):
            raise UnreadableInput(
                f"{path}: its list of pictures is damaged; copy it again from its source"
            )
        span = int(self._times[-2])
        self.source = Source(
            path=path,
            kind="video",
            sha256=sha256(path),
            bytes=path.stat().st_size,
            container="webp",
            codec="webp",
            pixel_format=mode,
            width=pixels.shape[1],
            height=pixels.shape[0],
            rotation=0,
            frames=frames,
            start=Fraction(0),
            duration=int(self._times[-1]) * MILLISECOND,
            nominal_rate=None,
            average_rate=Fraction(1000 * (frames - 1), span) if span else None,
            variable_rate=len(set(shown[:-1])) > 1,
            exact_times=True,
            bit_rate=None,
            colour=colours,
            others=("another picture behind it",) * picture_behind(path, picture_end(path, "WEBP")),
        )

    def choose(self, sampling: Sampling) -> tuple[int, ...]:
        """Display-order indices of the pictures to look at, ascending, each once."""
        return instants(sampling, self._times[:-1], MILLISECOND, np.array([0]))

    def split(self, indices: Sequence[int], ways: int) -> list[list[int]]:
        """One list: each picture is painted over the one before."""
        return [list(indices)]

    def decode(self, indices: Sequence[int]) -> Iterator[Frame | DamagedFrame]:
        """The pictures with these ascending indices; after damage there are none."""
        broken = False
        with opened(self._path) as image:
            for i in indices:
                time = int(self._times[i]) * MILLISECOND
                try:
                    image.seek(i)
                    pixels, _ = pixels_of(self._path, image)
                except BROKEN:
                    broken = True
                yield DamagedFrame(i, time) if broken else Frame(i, time, pixels)


def _durations(path: Path) -> list[int]:
    """Milliseconds that each picture is shown, from the file's list of chunks (WebP's container, "ANMF")."""
    durations = []
    with path.open("rb") as file:
        size = path.stat().st_size
        at = 12
        while at + 24 <= size:
            file.seek(at)
            head = file.read(24)
            if head[:4] == b"ANMF":
                stated = int.from_bytes(head[20:23], "little")
                durations.append(stated if stated > SHORTEST else USUAL)
            at += 8 + (length := int.from_bytes(head[4:8], "little")) + length % 2
    return durations
