"""Reads prepared crops as rows; no other file knows how listings of crops name their files.

Two forms are read. DeepfakeBench's: a JSON for each set, {set: {label: {split: {video: {label, frames}}}}},
with one more level, c23 | c40 | raw, under the splits of FaceForensics++, FF-*, FaceShifter and
DeepFakeDetection; frames/, landmarks/ and masks/ lie side by side. And a flat folder with
real/<id>_<k>.jpg and fake/<target>_<source>_<k>.jpg, as FaceForensics++ numbers its videos.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deepscan.data.listings import SPLITS
from deepscan.errors import DataError
from deepscan.files import parse_json

# Where the JSONs, and the pictures they name, may be under the given folder.
LISTINGS_IN = ("", "dataset_json", "preprocessing/dataset_json")
PICTURES_IN = ("", "datasets/rgb", "rgb", "datasets")

# Where a prepared set may be under the user's data root, besides a folder of its own name.
PREPARED_IN = ("", "prepared", "DeepfakeBench")

STATED = ("source", "group", "method", "state")  # what deepscan's own JSONs add to an entry

CROP_NAME = {
    "real": re.compile(r"(?P<ids>\w+?)_(?P<frame>\d+)\.jpg"),
    "fake": re.compile(r"(?P<ids>[^\W_]+_[^\W_]+)_(?P<frame>\d+)\.jpg"),
}

# How data sets name forgeries: the id of the person seen, then of the one whose face was put there.
FORGERIES = {
    "FF-": re.compile(r"(?P<target>\d{3})(?:_(?P<other>\d{3}))?(?P<scene>)"),
    "DFD_": re.compile(r"(?P<target>\d+)(?:_(?P<other>\d+))?(?P<scene>__.+?)(?:__\w+)?"),
    "CelebDF": re.compile(r"(?P<target>id\d+)(?:_(?P<other>id\d+))?(?P<scene>_\d+)"),
}

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
class Identity:
    """Who and what is seen, by names that hold beyond the folder at hand.

    A listing's names begin with its set or data set; a flat folder's with the folder's own name.
    """

    video: str
    source: str  # "" where unknown
    people: tuple[str, ...]  # who is seen, and whose face was put there


@dataclass(frozen=True, slots=True)
class CropRow:
    """One aligned face crop in a file."""

    path: Path
    label: int  # 1 = manipulated
    video: str  # set, label, method and full relative path, because names repeat across methods
    source: str  # the same for a real video and the manipulations of it; "" if unknown
    group: (
        str  # people tied together by forgeries; one group must never be on both sides of a split
    )
    method: str  # "real", or what made the forgery: "FF-DF", "pairs_fake"
    split: str  # "train", "val", "test", or "" if the listing states none
    frame: int  # frame number; if files are not named by numbers, the place in sorted order
    mask: Path | None  # the forged region, white; crop pixels
    landmarks: Path | None  # .npy (5, 2) or (81, 2), x and y in crop pixels
    time: float | None = None  # seconds; only deepscan's own listings state this and the next
    face_size: float | None = None  # of the face in its frame, pixels
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Cropless:
    """A listed video without a crop; its fields mean the same as CropRow's."""

    label: int
    video: str
    method: str
    split: str
    state: str  # "faceless" or "failed"


def read_crops(
    folder: Path, sets: Sequence[str] | None = None, compression: str = "c23"
) -> list[CropRow]:
    """Rows of all crops prepared in `folder`, in DeepfakeBench's form or flat (see above).

    Label 0 is any label that ends in "real", upper or lower case. A video in several splits gives rows for
    each: Celeb-DF's and DFDCP's val equal their test, and Celeb-DF's train holds everything, so their val
    must never be used for selection. A picture that several sets list for one split (the FF-real of
    FaceShifter and FF-DF) is one row, of the first of these sets.

    Args:
        sets: names of JSONs without ".json", in the order wanted; None reads all there are, those
            of most labels first.
        compression: which level of those sets that have one.

    Returns:
        Rows by set, label name (real before manipulated), split, video and frame. There may be only one
        class; callers that need both must check.

    Raises:
        DataError: nothing of either form is there, a set is missing or malformed, lists files that are
            not there, or has other levels of compression only.
    """
    listed = _listed(folder, sets, compression)
    if listed is None:
        return _read_flat(folder)
    return _rows(folder, [video for video in listed if video.frames])


def read_cropless(
    folder: Path, sets: Sequence[str] | None = None, compression: str = "c23"
) -> list[Cropless]:
    """The videos that these listings name without a crop: no face was found, or they failed.

    Raises:
        DataError: as `read_crops`.
    """
    return [
        Cropless(v.label, v.identity, v.method, v.split, v.stated.get("state", "faceless"))
        for v in _listed(folder, sets, compression) or ()
        if not v.frames
    ]


def _listed(folder: Path, sets: Sequence[str] | None, compression: str) -> list[_Video] | None:
    """The entries of the requested listings; None if all are requested and there are none."""
    found = _listings(folder)
    if sets is None:
        read = {name: labels for name, path in found.items() if (labels := _load(path))}
        read = dict(sorted(read.items(), key=lambda item: (-len(item[1]), item[0])))
        if not read:
            return None
    else:
        if absent := [name for name in sets if name not in found]:
            raise DataError(
                f"{folder}: no {absent[0]}.json here, nor in {' or '.join(LISTINGS_IN[1:])}; there"
                f" {'are ' + ', '.join(sorted(found)) if found else 'is no listing at all'}"
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
    whose = f"; the data set itself is had from {page}" if page else ""
    raise DataError(
        f"{root}: no prepared {name} here. Looked for {name}.json in {', '.join(map(str, places))}, and in"
        f" {' and '.join(LISTINGS_IN[1:])} of each. Prepare it with"
        f" `deepscan prepare {root / layout} --out {root / 'prepared'}`{whose}"
    )


def beside(folder: PurePosixPath, kind: str) -> PurePosixPath | None:
    """The "landmarks" or "masks" folder that belongs to .../frames/<video>; None for any other path."""
    outer, video = folder.parts[:-1], folder.name
    if "frames" not in outer:
        return None
    place = len(outer) - 1 - outer[::-1].index("frames")
    return PurePosixPath(*outer[:place], kind, *outer[place + 1 :], video)


# --- DeepfakeBench's form --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Video:
    """One entry of a JSON; `stated` holds what deepscan's own JSONs add to DeepfakeBench's."""

    set: str
    name: str  # of the label: "FF-real"
    split: str
    video: str
    frames: tuple[str, ...]  # normalised paths
    stated: dict[str, str]
    seen: dict[str, tuple[float, float]]  # time and face size by frame, where stated

    @property
    def label(self) -> int:
        return 0 if _is_real(self.name) else 1

    @property
    def method(self) -> str:
        return self.stated.get("method", self.name) if self.label else "real"

    @property
    def identity(self) -> str:
        if not self.frames:
            return f"{self.set}/{self.label}/{self.method}/{self.video}"
        folder = PurePosixPath(self.frames[0]).parent
        inner = folder if folder.name == self.video else folder / self.video
        return f"{self.set}/{self.label}/{self.method}/{inner}"

    def ties(self) -> tuple[str, tuple[str, ...], Identity]:
        """Source, the ids that this video ties into one group, and both by names that hold everywhere."""
        scope = self.set
        source = self.stated.get("source", "")
        ids: tuple[str, ...] = ()
        for start, form in FORGERIES.items():
            if self.name.startswith(start) and (match := form.fullmatch(self.video)):
                source = source or match["target"] + match["scene"]
                scope = start.rstrip("-_")
                ids = tuple(i for i in (match["target"], match["other"]) if i)
        if group := self.stated.get("group"):
            ids = (group,)
        ids = ids or (source or self.identity,)
        people = tuple(f"{scope}/{i}" for i in ids)
        return source, ids, Identity(self.identity, source and f"{scope}/{source}", people)


class _Pictures:
    """The folders where pictures may be. Each is listed once, as a set has 100,000 files and more."""

    def __init__(self, folder: Path) -> None:
        self._places = [folder / inner for inner in PICTURES_IN]
        self._listed: dict[str, tuple[Path, frozenset[str]]] = {}
        self._beside: dict[tuple[str, str], str | None] = {}

    def find(self, inner: str, name: str) -> Path | None:
        """The file `name` in the folder `inner`, in the first place that has this folder."""
        if inner not in self._listed:
            folder = next((p / inner for p in self._places if (p / inner).is_dir()), None)
            found = frozenset(os.listdir(folder) if folder else ())
            self._listed[inner] = (folder or self._places[0], found)
        place, names = self._listed[inner]
        return place / name if name in names else None

    def find_beside(self, inner: str, kind: str, name: str) -> Path | None:
        """The mask or landmarks of a frame in the folder `inner`."""
        if (inner, kind) not in self._beside:
            found = beside(PurePosixPath(inner), kind)
            self._beside[inner, kind] = str(found) if found else None
        place = self._beside[inner, kind]
        return self.find(place, name) if place else None


def _rows(folder: Path, videos: Sequence[_Video]) -> list[CropRow]:
    ties = [video.ties() for video in videos]
    groups = _groups(ids for _, ids, _ in ties)
    shelves = _Pictures(folder)
    rows: dict[tuple[Path, str], CropRow] = {}
    missing: list[str] = []
    for video, (source, ids, known) in zip(videos, ties, strict=True):
        identity, group = video.identity, groups[ids[0]]
        for number, frame in _numbered(video.frames):
            inner, _, name = frame.rpartition("/")
            stem = name.rpartition(".")[0]
            path = shelves.find(inner, name)
            if path is None:
                missing.append(frame)
            elif (path, video.split) in rows:
                if rows[path, video.split].label != video.label:
                    raise DataError(
                        f"{path}: listed as real and as manipulated ({rows[path, video.split].video},"
                        f" {identity}); correct the listing"
                    )
            else:
                time, face_size = video.seen.get(frame, (None, None))
                rows[path, video.split] = CropRow(
                    path,
                    video.label,
                    identity,
                    source,
                    group,
                    video.method,
                    video.split,
                    number,
                    shelves.find_beside(inner, "masks", f"{stem}.png"),
                    shelves.find_beside(inner, "landmarks", f"{stem}.npy"),
                    time,
                    face_size,
                    known,
                )
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} listed pictures are not there, first {missing[0]}; looked under"
            f" {', '.join(str(folder / inner) for inner in PICTURES_IN)}."
            " Complete the copy or prepare it again"
        )
    if not rows:
        raise DataError(f"{folder}: its listings name no picture at all; prepare the set again")
    return list(rows.values())


def _numbered(frames: Iterable[str]) -> list[tuple[int, str]]:
    """Frames in order with their numbers; if some names are not numbers, sorted by name and counted."""
    frames = sorted(set(frames))
    stems = [frame.rpartition("/")[2].rpartition(".")[0] for frame in frames]
    if all(stem.isdecimal() for stem in stems):
        return sorted((int(stem), frame) for stem, frame in zip(stems, frames, strict=True))
    return list(enumerate(frames))


def _listings(folder: Path) -> dict[str, Path]:
    """The JSONs by name; if two have the same name, the one nearer to `folder`."""
    paths = [path for inner in LISTINGS_IN for path in (folder / inner).glob("*.json")]
    return {path.stem: path for path in reversed(paths)}


def _load(path: Path) -> Any:
    """The set in a JSON, or None if it lists no set: a data set's own files may be in the same folder."""
    try:
        document = parse_json(path.read_text("utf-8"))
    except (OSError, ValueError) as error:  # ValueError: neither JSON nor text
        raise DataError(f"{path}: not readable JSON ({error}); copy or prepare it again") from error
    labels = document.get(path.stem) if isinstance(document, dict) else None
    if labels is not None and not isinstance(labels, dict):
        raise DataError(f"{path}: {path.stem!r} in it is no table of labels; prepare it again")
    return labels


def _videos(path: Path, labels: Any, compression: str) -> Iterator[_Video]:
    """The entries of one set, real ones first."""
    if labels is None:
        raise DataError(f"{path}: no listing of crops: its outermost name is not {path.stem!r}")
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
                    yield _Video(path.stem, name, stands, video, frames, stated, seen)
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
        raise DataError(f"{path}: lists {frame}, which leads out of the data; prepare it again")
    return "/".join(part for part in parts if part not in ("", "."))


def _is_real(name: str) -> bool:
    return name.lower().endswith("real")


# --- flat folders ----------------------------------------------------------------------------------


def _read_flat(folder: Path) -> list[CropRow]:
    """Read crops named real/<id>_<frame>.jpg and fake/<target>_<other>_<frame>.jpg.

    Forgery a_b shows video a with the face or the expression of b. Videos tied by a forgery belong to one
    group, named by its smallest id. Landmarks, if any, are in landmarks/real/<id>_<frame>.npy.
    """
    found: list[tuple[int, tuple[str, ...], int, Path]] = []
    for label, kind in enumerate(("real", "fake")):
        for path in sorted((folder / kind).glob("*.jpg")):
            match = CROP_NAME[kind].fullmatch(path.name)
            if match is None:
                raise DataError(
                    f"{path}: not named like {'<target>_<source>' if label else '<id>'}_<frame>.jpg"
                )
            ids = tuple(match["ids"].split("_")) if label else (match["ids"],)
            found.append((label, ids, int(match["frame"]), path))
    if not found:
        raise DataError(
            f"{folder}: no crops here: neither a DeepfakeBench listing (<set>.json, here or in"
            f" {' or '.join(LISTINGS_IN[1:])}), nor real/<id>_<frame>.jpg, nor"
            " fake/<target>_<source>_<frame>.jpg; `deepscan prepare` makes crops from videos"
        )
    groups = _groups(ids for _, ids, _, _ in found)
    return [
        CropRow(
            path,
            label,
            f"{'fake' if label else 'real'}/{'_'.join(ids)}",
            source=ids[0],
            group=groups[ids[0]],
            method="fake" if label else "real",
            split="",
            frame=frame,
            mask=None,
            landmarks=_landmarks_of(path),
            identity=_flat_identity(folder.resolve().name, label, ids),
        )
        for label, ids, frame, path in sorted(found)
    ]


def _flat_identity(folder: str, label: int, ids: tuple[str, ...]) -> Identity:
    people = tuple(f"{folder}/{i}" for i in ids)
    return Identity(f"{folder}/{label}/{'_'.join(ids)}", people[0], people)


def _landmarks_of(crop: Path) -> Path | None:
    """The landmarks file of a crop in a flat folder."""
    kind = crop.parent
    path = kind.parent / "landmarks" / kind.name / f"{crop.stem}.npy"
    return path if path.is_file() else None


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
