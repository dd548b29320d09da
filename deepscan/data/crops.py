"""Reads prepared crops as rows: who is seen in each, and who must stay on one side of a split.

Two forms are read: DeepfakeBench's (see deepfakebench.py), and a flat folder with real/<id>_<k>.jpg and
fake/<target>_<source>_<k>.jpg, as FaceForensics++ numbers its videos.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deepscan.data.deepfakebench import LISTINGS_IN, ListedVideo, read_listings, sibling_folder
from deepscan.errors import DataError

# Where the pictures that listings name may be under the given folder.
PICTURES_IN = ("", "datasets/rgb", "rgb", "datasets")

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


@dataclass(frozen=True, slots=True)
class Identity:
    """Who and what is seen, by names that are valid beyond this folder.

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
    video: str  # unlike that of any other: set, label, method and full relative path
    source: str  # the same for a real video and the manipulations of it; "" if unknown
    group: str  # people tied together by forgeries; no group may be on both sides of a split
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
    listed = read_listings(folder, sets, compression)
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
        Cropless(v.label, v.unique_name, v.method, v.split, v.stated.get("state", "faceless"))
        for v in read_listings(folder, sets, compression) or ()
        if not v.frames
    ]


# --- DeepfakeBench's form --------------------------------------------------------------------------


class _Pictures:
    """The folders where pictures may be. Each is listed once, as a set has 100,000 files and more."""

    def __init__(self, folder: Path) -> None:
        self._places = [folder / inner for inner in PICTURES_IN]
        self._listed: dict[str, tuple[Path, frozenset[str]]] = {}
        self._siblings: dict[tuple[str, str], str | None] = {}

    def find(self, inner: str, name: str) -> Path | None:
        """The file `name` in the folder `inner`, in the first place that has this folder."""
        if inner not in self._listed:
            folder = next((p / inner for p in self._places if (p / inner).is_dir()), None)
            found = frozenset(os.listdir(folder) if folder else ())
            self._listed[inner] = (folder or self._places[0], found)
        place, names = self._listed[inner]
        return place / name if name in names else None

    def find_sibling(self, inner: str, kind: str, name: str) -> Path | None:
        """The mask or landmarks of a frame in the folder `inner`."""
        if (inner, kind) not in self._siblings:
            found = sibling_folder(PurePosixPath(inner), kind)
            self._siblings[inner, kind] = str(found) if found else None
        place = self._siblings[inner, kind]
        return self.find(place, name) if place else None


def _ties(video: ListedVideo) -> tuple[str, tuple[str, ...], Identity]:
    """Source, the ids that this video ties into one group, and both by names that hold everywhere."""
    scope = video.set
    source = video.stated.get("source", "")
    ids: tuple[str, ...] = ()
    for start, form in FORGERIES.items():
        if video.label_name.startswith(start) and (match := form.fullmatch(video.video)):
            source = source or match["target"] + match["scene"]
            scope = start.rstrip("-_")
            ids = tuple(i for i in (match["target"], match["other"]) if i)
    if group := video.stated.get("group"):
        ids = (group,)
    ids = ids or (source or video.unique_name,)
    people = tuple(f"{scope}/{i}" for i in ids)
    return source, ids, Identity(video.unique_name, source and f"{scope}/{source}", people)


def _rows(folder: Path, videos: Sequence[ListedVideo]) -> list[CropRow]:
    ties = [_ties(video) for video in videos]
    groups = _groups(ids for _, ids, _ in ties)
    pictures = _Pictures(folder)
    rows: dict[tuple[Path, str], CropRow] = {}
    missing: list[str] = []
    for video, (source, ids, identity) in zip(videos, ties, strict=True):
        name, group = video.unique_name, groups[ids[0]]
        for number, frame in _numbered(video.frames):
            inner, _, file = frame.rpartition("/")
            stem = file.rpartition(".")[0]
            path = pictures.find(inner, file)
            if path is None:
                missing.append(frame)
            elif (path, video.split) in rows:
                if rows[path, video.split].label != video.label:
                    raise DataError(
                        f"{path}: listed both as real and as manipulated ({rows[path, video.split].video},"
                        f" {name}); correct the listing"
                    )
            else:
                time, face_size = video.seen.get(frame, (None, None))
                rows[path, video.split] = CropRow(
                    path,
                    video.label,
                    name,
                    source,
                    group,
                    video.method,
                    video.split,
                    number,
                    pictures.find_sibling(inner, "masks", f"{stem}.png"),
                    pictures.find_sibling(inner, "landmarks", f"{stem}.npy"),
                    time,
                    face_size,
                    identity,
                )
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} listed pictures are missing, the first is {missing[0]}; looked under"
            f" {', '.join(str(folder / inner) for inner in PICTURES_IN)}. Complete the copy, or"
            f" prepare it again"
        )
    if not rows:
        raise DataError(f"{folder}: its listings name no pictures; prepare the set again")
    return list(rows.values())


def _numbered(frames: Iterable[str]) -> list[tuple[int, str]]:
    """Frames in order with their numbers; if some names are not numbers, sorted by name and counted."""
    frames = sorted(set(frames))
    stems = [frame.rpartition("/")[2].rpartition(".")[0] for frame in frames]
    if all(stem.isdecimal() for stem in stems):
        return sorted((int(stem), frame) for stem, frame in zip(stems, frames, strict=True))
    return list(enumerate(frames))


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
