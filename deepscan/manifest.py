"""Data-set listings -> rows: the only file that knows how data sets name their files.

A row says where a picture or clip lies, whether it is manipulated (label 1), which video it belongs
to and which group. A video's identity is its label and id(s), so that a forgery never merges with its
original; videos of one group share a person and must not be split between training and judging.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deepscan.errors import DataError

PAIRS_COLUMNS = ("name", "kind", "source_group")
CROP_NAME = {
    "real": re.compile(r"(?P<ids>\w+?)_(?P<frame>\d+)\.jpg"),
    "fake": re.compile(r"(?P<ids>[^\W_]+_[^\W_]+)_(?P<frame>\d+)\.jpg"),
}


@dataclass(frozen=True, slots=True)
class PairRow:
    """A clip whose left half is the camera's picture and whose right half is the same, face swapped."""

    path: Path
    name: str
    source_group: str  # the person before the camera


@dataclass(frozen=True, slots=True)
class CropRow:
    """One aligned face crop."""

    path: Path
    label: int
    video: str  # "real/000" or "fake/000_003"
    group: str


def read_pairs(folder: Path) -> list[PairRow]:
    """The side-by-side clips that `folder`/pairs.csv lists, in its order.

    Rows of another `kind` than "pair" are left out: they show one picture only, so a forgery among them
    has no original of the same codec history to be compared with.

    Raises:
        DataError: no such folder or listing, columns or clips missing, a name twice, or no pair in it.
    """
    listing = folder / "pairs.csv"
    if not listing.is_file():
        raise DataError(f"{listing}: no such file; --data wants a folder of clips with a pairs.csv")
    with listing.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if missing := [c for c in PAIRS_COLUMNS if c not in (reader.fieldnames or ())]:
            raise DataError(
                f"{listing}: no column {', '.join(missing)}; needed are {', '.join(PAIRS_COLUMNS)}"
            )
        lines = [line for line in reader if line["kind"] == "pair"]
    if not lines:
        raise DataError(f"{listing}: lists no clip of kind pair; there is nothing to train on")
    rows = [PairRow(folder / f"{r['name']}.mp4", r["name"], r["source_group"]) for r in lines]
    if any(not row.name or not row.source_group for row in rows):
        raise DataError(f"{listing}: a pair without a name or a source_group; fill it in")
    if len({row.name for row in rows}) < len(rows):
        raise DataError(f"{listing}: a clip is listed twice; each name must stand once")
    if absent := [row.path.name for row in rows if not row.path.is_file()]:
        raise DataError(
            f"{folder}: {len(absent)} of {len(rows)} listed clips are not there, first {absent[0]};"
            " complete the folder or take them out of pairs.csv"
        )
    return rows


def read_crops(folder: Path) -> list[CropRow]:
    """Aligned crops lying in `folder` as real/<id>_<frame>.jpg and fake/<target>_<source>_<frame>.jpg.

    This is how FaceForensics++ numbers its videos: forgery a_b shows video a with the face or the
    expression of b. Videos tied by a forgery belong to one group, named by its smallest id.

    Returns:
        Rows sorted by label (real first), video and frame number.

    Raises:
        DataError: a folder is missing or empty, or a file name is of another form.
    """
    found: list[tuple[int, tuple[str, ...], int, Path]] = []
    for label, kind in enumerate(("real", "fake")):
        paths = sorted((folder / kind).glob("*.jpg"))
        if not paths:
            raise DataError(
                f"{folder / kind}: no such folder, or no .jpg in it; a crops folder holds"
                " real/<id>_<frame>.jpg and fake/<target>_<source>_<frame>.jpg"
            )
        for path in paths:
            match = CROP_NAME[kind].fullmatch(path.name)
            if match is None:
                raise DataError(
                    f"{path}: not named like {'<target>_<source>' if label else '<id>'}_<frame>.jpg"
                )
            ids = tuple(match["ids"].split("_")) if label else (match["ids"],)
            found.append((label, ids, int(match["frame"]), path))
    groups = _groups(ids for _, ids, _, _ in found)
    return [
        CropRow(path, label, f"{'fake' if label else 'real'}/{'_'.join(ids)}", groups[ids[0]])
        for label, ids, _, path in sorted(found)
    ]


def _groups(ties: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """Each id's group, the smallest id it is tied to directly or through others (union-find)."""
    parent: dict[str, str] = {}

    def root(i: str) -> str:
        while parent.setdefault(i, i) != i:
            i = parent[i]
        return i

    for ids in ties:
        low, *others = sorted({root(i) for i in ids})
        parent.update(dict.fromkeys(others, low))
    return {i: root(i) for i in parent}
