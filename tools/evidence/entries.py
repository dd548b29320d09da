"""What an archive of `pack` says of its crops: index.json, one row for each, and masks.npy."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass

SETS = (
    "pairs",
    "ffpp",
    "dfdc",
    "faces",
)  # sources that are data sets; all others are pages of methods/
MASK_SIDE = 64  # pixels a side of a mask


@dataclass(frozen=True, slots=True)
class Entry:
    """One crop of the archive."""

    name: str
    """Its file in the archive."""
    sha256: str
    """Of that file."""
    label: int
    """1 for manipulated, 0 for real."""
    kind: str
    """real, face_swap, reenactment, lip_sync, talking_head, editing or expression."""
    source: str
    """One of SETS, or the page that its clip is from."""
    method: str
    person: str
    """Never on both sides of a split."""
    video: str
    """Its name within its source."""
    frame: int
    fold: int
    """0 to 4, by person; 0 is held out of the shipped detector."""
    points: list[list[float]]
    """Landmarks, x and y in the crop's pixels, in the order of the alignment's TEMPLATE."""
    mask: int
    """A row of masks.npy, or -1."""


def read_entries(archive: zipfile.ZipFile) -> list[Entry]:
    """All crops, in the archive's order."""
    return [Entry(**row) for row in json.loads(archive.read("index.json"))]
