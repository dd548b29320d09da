"""Removes from a report what identifies people, places and this machine.

Passwords in addresses are removed from every report. `--private` also removes folders, tags, signers'
names, the platform's details, words of the command line that may be paths or secrets; and pictures show the
deciding face only, and everything else as a mosaic too coarse to recognise anyone.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from deepscan.faces.alignment import align
from deepscan.media.video import DamagedFrame
from deepscan.records import Box, Credentials, Crop, Face, Frame, Output, Pixels, Report

WITHHELD = "(withheld)"

# Options of which the next word is a number or one of a list, and stays.
PLAIN = (
    "--frames",
    "--sampling",
    "--stream",
    "--device",
    "--precision",
    "--min-face",
    "--time-limit",
    "--jobs",
    "--map",
)

CELLS, FACE_CELLS = 16, 6  # of a mosaic: along a frame's longer side, and of a face's at most


def withheld(report: Report) -> Report:
    """The report without what `--private` removes."""
    source, origin = report.source, report.provenance
    settings = {
        stage: {
            name: PurePath(value).name if (stage, name) in PATHS else value
            for name, value in values.items()
        }
        for stage, values in origin.settings.items()
    }
    status = origin.credentials.status
    return replace(
        report,
        second=None if report.second is None else withheld(report.second),
        source=replace(source, path=Path(source.path.name), tags={}),
        provenance=replace(
            origin,
            versions=origin.versions | {"platform": platform.system()},
            settings=settings,
            request=replace(origin.request, argv=_words(origin.request.argv, source.path.name)),
            credentials=Credentials(status, f"{WITHHELD}: who signed is not stated."),
        ),
    )


PATHS = (("scoring", "weights"), ("output", "sign"))


def _words(argv: Sequence[str], name: str) -> tuple[str, ...]:
    """The command line with this input's name, options, and the values that are neither path nor text."""
    shown = list(argv[:2])
    last = argv.index("--") if "--" in argv else len(argv)  # what follows is not an option
    for at, (before, word) in enumerate(pairwise(argv[1:]), 2):
        option, equals, _ = word.partition("=")
        if word.startswith("-") and at <= last:
            keeps = not equals or option in PLAIN
            shown.append(word if keeps else f"{option}={WITHHELD}")
        elif before in PLAIN:
            shown.append(word)
        else:
            shown.append(name if PurePath(word).name == name else WITHHELD)
    return tuple(shown)


class Awaited:
    """Keeps the faces and output of each frame, without pixels, until it is known which face may be shown.

    Everything is then drawn from frames in which only that face is left.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[list[tuple[Face, int]], Output | None]] = {}

    def add(self, frame: Frame, crops: Sequence[Crop], output: Output | None) -> None:
        """Keep one scored frame."""
        self._seen[frame.index] = [(crop.face, crop.track) for crop in crops], output

    def draw(
        self,
        frames: Iterable[Frame | DamagedFrame],
        shown: Collection[int],
        watchers: Sequence[Any],
    ) -> None:
        """Pass the same frames, decoded again, to `watchers` with only the faces of `shown` left."""
        for frame in frames:
            if isinstance(frame, DamagedFrame) or frame.index not in self._seen:
                continue
            faces, output = self._seen[frame.index]
            own = [face.box for face, track in faces if track in shown]
            others = [face.box for face, track in faces if track not in shown]
            coarse = replace(frame, pixels=alone(frame.pixels, own, others))
            crops = [align(coarse, face, track) for face, track in faces]
            for watcher in watchers:
                watcher.add(coarse, crops, output)


def alone(pixels: Pixels, own: Sequence[Box], others: Sequence[Box]) -> Pixels:
    """A frame as a mosaic, except for the faces `own` where none of `others` overlaps them.

    No side of a face among `others` has more than FACE_CELLS cells; faces that were not found, and the place,
    are as coarse as a mosaic of CELLS cells along the frame's longer side.
    """
    image = Image.fromarray(pixels)
    largest = max((max(box.width, box.height) for box in others), default=0.0)
    cell = max(1, math.ceil(max(max(image.size) / CELLS, largest / FACE_CELLS)))
    few = max(1, image.width // cell), max(1, image.height // cell)
    small = image.resize(few, Image.Resampling.BOX)
    coarse = np.asarray(small.resize(image.size, Image.Resampling.NEAREST))
    out = coarse.copy()
    for boxes, source in ((own, pixels), (others, coarse)):
        for box in boxes:
            left, top, right, bottom = (
                max(0, int(v)) for v in (box.left, box.top, box.right, box.bottom)
            )
            out[top:bottom, left:right] = source[top:bottom, left:right]
    return out
