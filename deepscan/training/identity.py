"""Records what a detector was trained on, and refuses to evaluate or calibrate it on any of that.

A file is known by its bytes, whatever it is called and wherever it lies; a video, its source and the people
in it by the names their listing gives them. A copy that was re-encoded under another name is not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from deepscan.data.crops import CropRow
from deepscan.errors import DataError
from deepscan.files import sha256

SHORT = 16  # hex digits kept of a SHA-256: of a million files two agree with a chance of 3e-8


@dataclass(frozen=True, slots=True)
class Seen:
    """Crops by the hash of their bytes; videos, sources and people by that of their names."""

    files: frozenset[str] = frozenset()
    videos: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    people: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rows: Iterable[CropRow]) -> Seen:
        """Everything in these rows; reads every crop."""
        rows = list(rows)
        identities = [row.identity for row in rows if row.identity is not None]
        return cls(
            frozenset(crop_digest(row.path) for row in rows),
            frozenset(_hashed(one.video) for one in identities),
            frozenset(_hashed(one.source) for one in identities if one.source),
            frozenset(_hashed(person) for one in identities for person in one.people),
        )

    def __or__(self, other: Seen) -> Seen:
        return Seen(*(getattr(self, f.name) | getattr(other, f.name) for f in fields(Seen)))

    def plain(self) -> dict[str, list[str]]:
        """As a checkpoint's header holds it, one for each side; `stated` reads it back."""
        return {f.name: sorted(getattr(self, f.name)) for f in fields(Seen)}


SPLITS = ("train", "validation", "calibration")


def stated(training: Mapping[str, Any], splits: Sequence[str] = SPLITS) -> Seen | None:
    """What a header's `training` says that some sides showed; None where its version kept nothing."""
    kept: Mapping[str, Any] | None = training.get("seen")
    if kept is None:
        return None
    found = Seen()
    for side in splits:
        values = kept.get(side, {})
        found |= Seen(**{f.name: frozenset(values.get(f.name, ())) for f in fields(Seen)})
    return found


def refuse(seen: Seen, rows: Sequence[CropRow], what: str, people: bool = False) -> None:
    """Raise DataError if any row's crop or video, or with `people` source or person, is in `seen`.

    Official splits of Celeb-DF and DFD share people between training and test, so `people` is for material
    that must be of others.

    Args:
        what: names both sides, as in "x.safetensors was trained on".
    """
    reasons = {"file": "the same bytes", "video": "the same video", "person": "the same people"}
    found: dict[str, list[Path]] = {reason: [] for reason in reasons}
    for row in rows:
        if (reason := _shared(seen, row, people)) is not None:
            found[reason].append(row.path)
    for reason, paths in found.items():
        if paths:
            names = ", ".join(map(str, sorted(paths)[:3]))
            raise DataError(
                f"{what} {len(paths)} of these {len(rows)} crops ({reasons[reason]}), first {names};"
                f" leave them out, or use videos of other people"
            )


def _shared(seen: Seen, row: CropRow, people: bool) -> str | None:
    if crop_digest(row.path) in seen.files:
        return "file"
    if row.identity is None:
        return None
    if _hashed(row.identity.video) in seen.videos:
        return "video"
    shared = _hashed(row.identity.source) in seen.sources or any(
        _hashed(person) in seen.people for person in row.identity.people
    )
    return "person" if people and shared else None


def rows_digest(folder: Path, rows: Iterable[CropRow]) -> str:
    """SHA-256 over one line a row: its files' bytes and all that decides what becomes of it, sorted.

    It changes when a crop, a mask or landmarks change, and when a listing gives a row another label, split,
    group, source or video.
    """
    lines = sorted(
        "\t".join(
            (
                row.path.relative_to(folder).as_posix(),
                *(sha256(p) if p is not None else "" for p in (row.path, row.mask, row.landmarks)),
                *(str(row.label), row.split, row.group, row.source, row.video, row.method),
            )
        )
        for row in rows
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def crop_digest(path: Path) -> str:
    """The start of a file's SHA-256. Read once, as long as its size and time stay."""
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1 << 20)
def _digest(path: Path, size: int, changed: int) -> str:
    return sha256(path)[:SHORT]


@lru_cache(maxsize=1 << 20)
def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:SHORT]
