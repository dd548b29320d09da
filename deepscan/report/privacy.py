"""Takes out of a report what tells of persons, places and this machine rather than of the input's faces.

Passwords in addresses go from every report. With `--private` the rest goes as well: folders, tags, signers'
names, the platform's details, words of the command line that may be paths or secrets; and pictures show the
deciding face alone, everything else as a mosaic too coarse to know anybody by.
"""

from __future__ import annotations

import io
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from deepscan.records import Box, Credentials, Report
from deepscan.report.pictures import FramePicture

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

CELLS = 16  # of a mosaic, along a picture's longer side


def without_userinfo(text: str) -> str:
    """The text with no user name or password in its addresses: "s3://me:secret@host" is "s3://host"."""
    return re.sub(r"(?<=://)[^/\s@]*@", "", text)


def withheld(report: Report) -> Report:
    """The report without what `--private` keeps back."""
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
    for before, word in pairwise(argv[1:]):
        option, equals, _ = word.partition("=")
        if word.startswith("-"):
            keeps = not equals or option in PLAIN
            shown.append(word if keeps else f"{option}={WITHHELD}")
        elif before in PLAIN:
            shown.append(word)
        else:
            shown.append(name if PurePath(word).name == name else WITHHELD)
    return tuple(shown)


def hidden(
    pictures: Sequence[FramePicture], track: int | None, boxes: Mapping[int, Box]
) -> list[FramePicture]:
    """The pictures as mosaics, but for the face `track`, at `boxes` by frame; None: no face stays."""
    return [
        replace(
            picture,
            jpeg=_mosaic(picture.jpeg, boxes.get(picture.index), (0, 0, picture.width)),
            faces=tuple(
                replace(
                    face,
                    jpeg=_mosaic(
                        face.jpeg,
                        boxes.get(picture.index) if face.track == track else None,
                        face.region[:3],
                    ),
                )
                for face in picture.faces
            ),
        )
        for picture in pictures
    ]


def _mosaic(jpeg: bytes, keep: Box | None, region: tuple[int, int, int]) -> bytes:
    """A picture of a frame's region (its left, top and width) as a mosaic, but for the box `keep`."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    cell = max(1, -(-max(image.size) // CELLS))
    small = image.resize(
        (max(1, image.width // cell), max(1, image.height // cell)), Image.Resampling.BOX
    )
    coarse = small.resize(image.size, Image.Resampling.NEAREST)
    if keep is not None:
        x, y, width = region
        sides = np.array([keep.left - x, keep.top - y, keep.right - x, keep.bottom - y])
        sides = sides * image.width / width
        left, top, right, bottom = (int(v) for v in sides)
        left, top = max(left, 0), max(top, 0)
        if right > left and bottom > top:
            coarse.paste(image.crop((left, top, right, bottom)), (left, top))
    out = io.BytesIO()
    coarse.save(out, "JPEG", quality=65)
    return out.getvalue()
