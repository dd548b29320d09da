"""Reads and writes the listings of prepared crops in DeepfakeBench's form, and finds them.

A JSON for each set: {set: {label: {split: {video: {label, frames}}}}}, with one more level, c23 | c40 | raw,
under the splits of FaceForensics++, FF-*, FaceShifter and DeepFakeDetection. frames/, landmarks/ and masks/
lie side by side. `deepscan prepare` adds fields of its own to an entry: source, group, method, state, times,
sizes and, for videos without a split, split.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deepscan.data.journal import PreparedVideo
from deepscan.data.layouts import Layout
from deepscan.data.listings import SPLITS
from deepscan.errors import DataError
from deepscan.files import parse_json, part_file
from deepscan.plain import text_of

# Where the JSONs may be under the given folder.
LISTINGS_IN = ("", "dataset_json", "preprocessing/dataset_json")

# Where a prepared set may be under the user's data root, besides a folder of its own name.
PREPARED_IN = ("", "prepared", "DeepfakeBench")

STATED = ("source", "group", "method", "state")  # what deepscan's own JSONs add to an entry

# Names of sets, the folder of their official layout, and where the data set comes from.
ORIGINS = {
    r"FaceForensics\+\+|FF-.*|FaceShifter|DeepFakeDetection": (
        "FaceForensics++",
        "github.com/ondyari/FaceForensics",
    ),
    r"Celeb-DF-v1": ("Celeb-DF-v1", "github.com/yuezunli/celeb-deepfakeforensics"),
    r"Celeb-DF-v2": ("Celeb-DF-v2", "github.com/yuezunli/celeb-deepfakeforensics"),
    r"DFDC": ("DFDC", "ai.meta.com/datasets/dfdc"),
    r"DFDCP": ("DFDCP", "ai.meta.com/datasets/dfdc, the preview"),
    r"DeeperForensics-1\.0|test_DFR": (
        "DeeperForensics-1.0",
        "github.com/EndlessSora/DeeperForensics-1.0",
    ),
    r"UADFV": ("UADFV", "its authors, the University at Albany's media forensics group"),
    r"test_WDF": ("WildDeepfake", "github.com/OpenTAI/wild-deepfake"),
    r"test_FFIW": ("FFIW-10K", "github.com/tfzhou/FFIW"),
    r".*_ff": ("DF40", "github.com/YZY-stack/DF40"),
}


@dataclass(frozen=True, slots=True)
class ListedVideo:
    """One entry of a JSON; `stated` holds what deepscan's own JSONs add to DeepfakeBench's."""

    set: str
    label_name: str  # "FF-real"
    split: str
    video: str
    frames: tuple[str, ...]  # normalised paths
    stated: dict[str, str]
    seen: dict[str, tuple[float, float]]  # time and face size by frame, where stated

    @property
    def label(self) -> int:
        return 0 if _is_real(self.label_name) else 1

    @property
    def method(self) -> str:
        return self.stated.get("method", self.label_name) if self.label else "real"

    @property
    def unique_name(self) -> str:
        """Set, label, method and full relative path, because names repeat across methods."""
        if not self.frames:
            return f"{self.set}/{self.label}/{self.method}/{self.video}"
        folder = PurePosixPath(self.frames[0]).parent
        inner = folder if folder.name == self.video else folder / self.video
        return f"{self.set}/{self.label}/{self.method}/{inner}"


def read_listings(
    folder: Path, sets: Sequence[str] | None, compression: str
) -> list[ListedVideo] | None:
    """The entries of the requested listings; None if all are requested and there are none."""
    found = _paths(folder)
    if sets is None:
        read = {name: labels for name, path in found.items() if (labels := _load(path))}
        read = dict(sorted(read.items(), key=lambda item: (-len(item[1]), item[0])))
        if not read:
            return None
    else:
        if absent := [name for name in sets if name not in found]:
            raise DataError(
                f"{folder}: no {absent[0]}.json here, nor in {' or '.join(LISTINGS_IN[1:])}; there"
                f" {'are ' + ', '.join(sorted(found)) if found else 'is no listing'}"
            )
        read = {name: _load(found[name]) for name in sets}
    return [v for name, labels in read.items() for v in _videos(found[name], labels, compression)]


def locate(root: Path, name: str) -> Path:
    """The folder under the data root from which `read_crops` takes the prepared set `name`.

    Raises:
        DataError: it is nowhere; the message names the folders searched and how to prepare the set.
    """
    places = [root / inner for inner in (*PREPARED_IN, name, f"prepared/{name}")]
    for place in places:
        if any((place / inner / f"{name}.json").is_file() for inner in LISTINGS_IN):
            return place
    layout, page = next(
        (o for names, o in ORIGINS.items() if re.fullmatch(names, name)), (name, "")
    )
    whose = f"; get the data set itself from {page}" if page else ""
    raise DataError(
        f"{root}: no prepared {name} here. Looked for {name}.json in {', '.join(map(str, places))}, and in"
        f" {' and '.join(LISTINGS_IN[1:])} of each. Prepare it with"
        f" `deepscan prepare {root / layout} --out {root / 'prepared'}`{whose}"
    )


def sibling_folder(folder: PurePosixPath, kind: str) -> PurePosixPath | None:
    """The "landmarks" or "masks" folder that belongs to .../frames/<video>; None for any other path."""
    outer, video = folder.parts[:-1], folder.name
    if "frames" not in outer:
        return None
    place = len(outer) - 1 - outer[::-1].index("frames")
    return PurePosixPath(*outer[:place], kind, *outer[place + 1 :], video)


# --- reading -----------------------------------------------------------------------------------------


def _paths(folder: Path) -> dict[str, Path]:
    """The JSONs by name; if two have the same name, the one nearer to `folder`."""
    paths = [path for inner in LISTINGS_IN for path in (folder / inner).glob("*.json")]
    return {path.stem: path for path in reversed(paths)}


def _load(path: Path) -> Any:
    """The set in a JSON, or None if it lists no set: a data set's own files may be in the same folder."""
    try:
        document = parse_json(text_of(path.read_bytes()))
    except (OSError, ValueError) as error:  # ValueError: neither JSON nor text
        raise DataError(f"{path}: not readable JSON ({error}); copy or prepare it again") from error
    labels = document.get(path.stem) if isinstance(document, dict) else None
    if labels is not None and not isinstance(labels, dict):
        raise DataError(f"{path}: {path.stem!r} in it is not a table of labels; prepare it again")
    return labels


def _videos(path: Path, labels: Any, compression: str) -> Iterator[ListedVideo]:
    """The entries of one set, real ones first."""
    if labels is None:
        raise DataError(f"{path}: not a listing of crops: its outermost name is not {path.stem!r}")
    try:
        for name in sorted(labels, key=lambda name: (not _is_real(name), name)):
            for split, inner in labels[name].items():
                for video, entry in sorted(_level(path, inner, compression).items()):
                    frames = tuple(_normalised(path, frame) for frame in entry["frames"])
                    if entry.get("split", split) != split and split != SPLITS[0]:
                        continue  # without a split it is listed in each: one is enough
                    stated = {key: str(entry[key]) for key in STATED if key in entry}
                    stands = str(entry.get("split", split))
                    placed = zip(entry.get("times", ()), entry.get("sizes", ()), strict=True)
                    seen = dict(zip(frames, placed, strict=False))
                    yield ListedVideo(path.stem, name, stands, video, frames, stated, seen)
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not of the form {{set: {{label: {{split: {{video: {{label, frames}}}}}}}}}}"
            f" ({type(error).__name__}: {error}); prepare it again"
        ) from error


def _level(path: Path, videos: dict[str, Any], compression: str) -> dict[str, Any]:
    """The videos of a split; if there are levels, those at `compression`.

    Anything that is not an entry is skipped: DeepfakeBench writes DFDC's val as one nameless video.
    """
    entries = {name: entry for name, entry in videos.items() if isinstance(entry, dict)}
    if not entries or any("frames" in entry for entry in entries.values()):
        return entries
    if compression not in entries:
        raise DataError(
            f"{path}: holds {', '.join(sorted(entries))}, not {compression}; prepare that level, or ask for"
            " one of these"
        )
    return dict(entries[compression])


def _normalised(path: Path, frame: str) -> str:
    """A listed path relative to the pictures' folder, by one rule for all dialects in use.

    Backslashes become slashes; everything up to datasets/rgb/ is dropped, and so is a leading "./" or "/".
    """
    parts = frame.replace("\\", "/").rpartition("datasets/rgb/")[2].split("/")
    if ".." in parts:
        raise DataError(f"{path}: lists {frame}, which is outside the data; prepare it again")
    return "/".join(part for part in parts if part not in ("", "."))


def _is_real(name: str) -> bool:
    return name.lower().endswith("real")


# --- writing -----------------------------------------------------------------------------------------


def write_listing(
    out: Path, name: str, layout: Layout, entries: Mapping[str, PreparedVideo]
) -> Path:
    """Write one set's JSON as DeepfakeBench reads it with rgb_dir = `out`, with some fields of our own.

    Every label has every split, because DeepfakeBench asks for each. A video without a split is listed in
    all three, as in DeepfakeBench, with "split": "" to mark it. A video without a crop has no frames, so
    DeepfakeBench skips it, and a "state" that says why; evaluation counts it.
    """
    labels: dict[str, dict[str, dict[str, Any]]] = {
        label: {split: {} for split in SPLITS} for label in layout.sets[name]
    }
    rows = sorted((r for r in layout.rows if r.name in labels), key=lambda row: row.relative)
    found = {row: entries[str(row.relative)] for row in rows}
    crops_of = {row: found[row].crops or {str(row.relative): []} for row in rows}
    stems = Counter(
        (row.name, PurePosixPath(folder).name) for row in rows for folder in crops_of[row]
    )
    for row in rows:
        for folder, crops in crops_of[row].items():
            entry: dict[str, Any] = {
                "label": row.name,
                "frames": [f"{folder}/{crop}.png" for crop in crops],
            }
            stated = {"source": row.source, "group": row.group}
            if row.label and row.method != row.name:
                stated["method"] = row.method
            entry |= {key: value for key, value in stated.items() if value}
            if seen := found[row].seen.get(folder):
                entry["times"], entry["sizes"] = (
                    list(values) for values in zip(*seen, strict=True)
                )
            if not crops:
                entry["state"] = found[row].state
            if not row.split:
                entry["split"] = ""
            stem = PurePosixPath(folder).name
            # A video without frames is identified by its name alone.
            video = stem if crops and stems[row.name, stem] == 1 else folder
            for split in [row.split] if row.split else SPLITS:
                videos = labels[row.name][split]
                if row.compression:
                    videos = videos.setdefault(row.compression, {})
                videos[video] = entry
    if any(row.compression for row in rows):
        for splits in labels.values():
            for videos in splits.values():
                videos.setdefault(next(r.compression for r in rows if r.compression), {})
    path = out / f"{name}.json"
    with part_file(path) as part:
        part.write_text(json.dumps({name: labels}, indent=1) + "\n", "utf-8")
    return path
