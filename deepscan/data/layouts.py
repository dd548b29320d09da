"""Lists the videos of data sets as published; no other file knows their official layouts.

A video is listed whether or not its file exists; preparing reports which are missing. Folders are named as in
DeepfakeBench, so that either tool finds the other's crops.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deepscan.data.listings import (
    SPLITS,
    parse_label,
    parse_split,
    read_entries,
    read_json,
    read_lines,
    read_table,
)
from deepscan.errors import DataError

# Folders of FaceForensics++, and DeepfakeBench's names for their labels.
YOUTUBE = "original_sequences/youtube"
METHODS = {
    "manipulated_sequences/Deepfakes": "FF-DF",
    "manipulated_sequences/Face2Face": "FF-F2F",
    "manipulated_sequences/FaceSwap": "FF-FS",
    "manipulated_sequences/NeuralTextures": "FF-NT",
    "manipulated_sequences/FaceShifter": "FF-FH",
}
ACTORS = {
    "original_sequences/actors": "DFD_real",
    "manipulated_sequences/DeepFakeDetection": "DFD_fake",
}

CSV_COLUMNS = (
    "path",
    "label",
)  # and, where there is something to say, method, split, mask, source, group
PAIRS_COLUMNS = ("name", "kind", "source_group")

ARCHIVE = ".tar.gz"
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm")


@dataclass(frozen=True, slots=True)
class VideoRow:
    """One video of a data set, a still picture, or an archive of crops (WildDeepfake's).

    `source` and `group` mean the same as in CropRow. They stay empty if file names state them, as in
    FaceForensics++, DeepFakeDetection and Celeb-DF: they are read from there with the crops.
    """

    path: Path
    label: int  # 1 = manipulated
    name: str  # DeepfakeBench's of the label: "FF-DF", "CelebDFv2_fake"
    method: str  # "real", or what made the forgery
    split: str  # "train", "val", "test", or "" if not stated
    relative: PurePosixPath  # of its crops: "Celeb-DF-v2/Celeb-real/frames/id0_0000"
    compression: str | None = None  # of sets that come at several levels
    mask: Path | None = None  # video or picture of the forged region, bright where forged
    source: str = ""
    group: str = ""
    half: int | None = None  # of a side-by-side clip: 0 is the camera's, left, 1 the swapped one


@dataclass(frozen=True, slots=True)
class Layout:
    """The videos of a folder or listing, and the sets to list them as, each with its labels."""

    name: str
    sets: dict[str, tuple[str, ...]]
    rows: tuple[VideoRow, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise DataError(
                f"{self.name}: its listings name no videos; check that the copy is complete"
            )
        seen: dict[PurePosixPath, Path] = {}
        for row in self.rows:
            if row.relative.is_absolute() or ".." in row.relative.parts:
                raise DataError(f"{self.name}: lists {row.path}, which is outside the data set")
            if row.relative in seen:
                raise DataError(
                    f"{row.path} and {seen[row.relative]}: the crops of both would go to"
                    f" {row.relative}; list each once, and give the files in a folder different names"
                )
            seen[row.relative] = row.path

    def __repr__(self) -> str:
        return f"Layout({self.name}, {', '.join(self.sets)}, {len(self.rows)} videos)"


def read_layout(source: Path, compression: str = "c23") -> Layout:
    """Recognise a data set's official layout, a folder of pairs, or a CSV, and list its videos.

    Args:
        compression: which level of FaceForensics++.

    Raises:
        DataError: the layout is unknown (the message says what was looked for), or a listing is missing or
            malformed.
    """
    if source.suffix.lower() == ".csv" and source.is_file():
        return _read_csv(source)
    for _, markers, read in LAYOUTS:
        if any(next(source.glob(marker), None) for marker in markers):
            return read(source, compression)
    searched = "; ".join(f"{name} ({' or '.join(markers)})" for name, markers, _ in LAYOUTS)
    raise DataError(
        f"{source}: {'no layout known here' if source.is_dir() else 'no such folder or CSV'}."
        f" Looked for: {searched}; or name a CSV with the columns {', '.join(CSV_COLUMNS)}"
    )


# --- FaceForensics++ -------------------------------------------------------------------------------


def _faceforensics(root: Path, compression: str) -> Layout:
    """The four methods, together and each with the originals; FaceShifter and DeepFakeDetection apart."""

    def row(folder: str, name: str, split: str, stem: str) -> VideoRow:
        inner = f"{folder}/{compression}"
        path, mask = (root / f / "videos" / f"{stem}.mp4" for f in (inner, f"{folder}/masks"))
        return _row(
            path,
            name,
            split,
            _frames("FaceForensics++", inner, stem),
            compression=compression,
            mask=mask if mask.is_file() else None,
        )

    rows: list[VideoRow] = []
    sets: dict[str, tuple[str, ...]] = {}
    methods = {m: n for m, n in METHODS.items() if (root / m).is_dir()}
    if methods or (root / YOUTUBE).is_dir():
        for split in SPLITS:
            for a, b in _id_pairs(root / f"{split}.json"):
                rows += (row(YOUTUBE, "FF-real", split, stem) for stem in (a, b))
                for folder, name in methods.items():
                    rows += (row(folder, name, split, stem) for stem in (f"{a}_{b}", f"{b}_{a}"))
        own = [name for name in methods.values() if name != "FF-FH"]
        sets["FaceForensics++"] = ("FF-real", *own)
        sets |= {name: ("FF-real", name) for name in own}
    if "FF-FH" in methods.values():
        sets["FaceShifter"] = ("FF-real", "FF-FH")
    for folder, name in ACTORS.items():
        found = _stems(root / folder / compression / "videos")
        rows += (row(folder, name, "test", stem) for stem in found)
        if found:
            sets["DeepFakeDetection"] = tuple(ACTORS.values())
    return Layout("FaceForensics++", sets, tuple(rows))


def _id_pairs(path: Path) -> list[tuple[str, str]]:
    try:
        return [(str(a), str(b)) for a, b in read_json(path)]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: not a list of pairs of ids; copy it again") from error


# --- Celeb-DF --------------------------------------------------------------------------------------


def _celeb_df(root: Path, _: str) -> Layout:
    """List_of_testing_videos.txt names the test set (1 is REAL there); the rest is for training."""
    path = root / "List_of_testing_videos.txt"
    listed: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        match = re.fullmatch(r"([01])\s+([\w-]+/[\w-]+)\.mp4", line)
        if match is None:
            raise DataError(
                f"{path}, line {number}: {line!r} is not like '1 YouTube-real/00170.mp4'"
            )
        listed[match[2]] = 1 - int(match[1])
    version = re.search(r"v([12])", root.resolve().name)
    # v1 lists 100 videos, v2 518, which identifies a renamed folder.
    of = version[1] if version else "1" if len(listed) <= 100 else "2"
    name, real, fake = f"Celeb-DF-v{of}", f"CelebDFv{of}_real", f"CelebDFv{of}_fake"
    labels = {
        f"{folder}/{stem}": label
        for folder, label in (("Celeb-real", 0), ("YouTube-real", 0), ("Celeb-synthesis", 1))
        for stem in _stems(root / folder)
    }
    rows = []
    for video, label in sorted((labels | listed).items()):
        folder, stem = video.split("/")
        split = "test" if video in listed else "train"
        path = root / f"{video}.mp4"
        rows.append(_row(path, fake if label else real, split, _frames(name, folder, stem)))
    return Layout(name, {name: (real, fake)}, tuple(rows))


# --- DFDC ------------------------------------------------------------------------------------------


def _dfdc(root: Path, _: str) -> Layout:
    rows: list[VideoRow] = []
    names = ("DFDC_Real", "DFDC_Fake")

    def add(folder: Path, file: str, label: int, split: str, original: str | None) -> None:
        stem = PurePosixPath(file).stem
        source = PurePosixPath(original).stem if original else "" if label else stem
        relative = _frames("DFDC", folder.relative_to(root).as_posix(), stem)
        rows.append(_row(folder / file, names[label], split, relative, source=source))

    path = root / "test" / "labels.csv"
    if path.is_file():
        for number, line in read_table(path, ("filename", "label")):
            label = parse_label(line["label"], f"{path}, line {number}")
            add(path.parent, line["filename"], label, "test", None)
    for path in sorted(root.glob("train/dfdc_train_part_*/metadata.json")):
        for file, entry in sorted(read_entries(path, ("label",)).items()):
            label = parse_label(str(entry["label"]), f"{path}, {file}")
            add(path.parent, file, label, "train", entry.get("original"))
    return Layout("DFDC", {"DFDC": names}, tuple(rows))


def _dfdcp(root: Path, _: str) -> Layout:
    """The preview: <method>/<person seen>/<video>.mp4."""
    names = {"method_A": "DFDCP_FakeA", "method_B": "DFDCP_FakeB"}
    path, rows = root / "dataset.json", []
    for file, entry in sorted(read_entries(path, ("label", "set")).items()):
        inner, label = PurePosixPath(file), parse_label(str(entry["label"]), f"{path}, {file}")
        if label and inner.parts[0] not in names:
            raise DataError(f"{path}: {file} is fake, but in neither method_A nor method_B")
        name = names[inner.parts[0]] if label else "DFDCP_Real"
        split = parse_split(str(entry["set"]), f"{path}, {file}")
        relative = _frames("DFDCP", inner.parts[0], inner.stem)
        group = inner.parts[1] if len(inner.parts) > 2 else ""
        rows.append(_row(root / inner, name, split, relative, group=group))
    return Layout("DFDCP", {"DFDCP": ("DFDCP_Real", "DFDCP_FakeA", "DFDCP_FakeB")}, tuple(rows))


# --- DeeperForensics, WildDeepfake, UADFV ----------------------------------------------------------


def _deeperforensics(root: Path, _: str) -> Layout:
    """Forgeries of end_to_end by the split lists; its source videos have no split and are listed as test.

    000_M101 shows FaceForensics++'s video 000 with the face of actor M101.
    """
    name, rows = "DeeperForensics-1.0", []
    inner = "manipulated_videos/end_to_end"
    for split in SPLITS:
        for line in read_lines(root / "lists" / "splits" / f"{split}.txt"):
            stem = PurePosixPath(line).stem
            target, _, actor = stem.partition("_")
            path, relative = root / inner / f"{stem}.mp4", _frames(name, inner, stem)
            rows.append(_row(path, "DF_fake", split, relative, source=target, group=actor))
    for path in sorted(root.glob("source_videos/*/**/*.mp4")):
        folder = path.parent.relative_to(root)
        relative = _frames(name, folder.as_posix(), path.stem)
        rows.append(_row(path, "DF_real", "test", relative, group=folder.parts[1]))
    return Layout(name, {name: ("DF_real", "DF_fake")}, tuple(rows))


def _wild_deepfake(root: Path, _: str) -> Layout:
    """Archives of crops of 224 pixels, cut by the authors; they are used as they are."""
    inside = root / "deepfake_in_the_wild"
    rows = []
    for folder in sorted((inside if inside.is_dir() else root).glob("*_t*")):
        kind, _, split = folder.name.partition("_")
        if kind in ("real", "fake") and split in SPLITS:
            name = f"WDF_{kind.capitalize()}"
            for path in sorted(folder.glob(f"*{ARCHIVE}")):
                stem = path.name.removesuffix(ARCHIVE)
                rows.append(_row(path, name, split, _frames("WildDeepfake", folder.name, stem)))
    return Layout("WildDeepfake", {"test_WDF": ("WDF_Real", "WDF_Fake")}, tuple(rows))


def _uadfv(root: Path, _: str) -> Layout:
    """A test set only; forgery 0000_fake is made from 0000."""
    rows = [
        _row(
            root / kind / f"{stem}.mp4",
            f"UADFV_{kind.capitalize()}",
            "test",
            _frames("UADFV", kind, stem),
            source=stem.removesuffix("_fake"),
        )
        for kind in ("real", "fake")
        for stem in _stems(root / kind)
    ]
    return Layout("UADFV", {"UADFV": ("UADFV_Real", "UADFV_Fake")}, tuple(rows))


# --- the user's own --------------------------------------------------------------------------------


def _read_csv(path: Path) -> Layout:
    """Videos or still pictures that the user lists; paths are relative to the CSV."""
    name, rows = path.stem, []
    names = f"{name}_real", f"{name}_fake"
    for number, line in read_table(path, CSV_COLUMNS):
        where = f"{path}, line {number}"
        if not line["path"]:
            raise DataError(f"{where}: no path")
        label = parse_label(line["label"], where)
        listed = Path(line["path"])
        folders = listed.parent.parts
        if listed.is_absolute() or ".." in folders:  # the crops must stay within the set
            folders = tuple(p for p in folders[-1:] if p not in ("..", listed.anchor))
        rows.append(
            _row(
                path.parent / listed,
                names[label],
                parse_split(line.get("split", ""), where),
                _frames(name, "/".join(folders), listed.stem),
                method=line.get("method", "") if label else "",
                mask=path.parent / line["mask"] if line.get("mask") else None,
                source=line.get("source", ""),
                group=line.get("group", ""),
            )
        )
    return Layout(name, {name: names}, tuple(rows))


def _pairs(root: Path, _: str) -> Layout:
    """Side-by-side clips: the left half is the original, the right half the same with the face swapped.

    Rows of another `kind` than "pair" are skipped: they show one picture only, so a forgery among them has no
    original with the same codec history. No split is stated; everything is for training.
    """
    path, name = root / "pairs.csv", root.resolve().name
    rows = []
    for number, line in read_table(path, PAIRS_COLUMNS):
        if line["kind"] != "pair":
            continue
        clip, group = line["name"], line["source_group"]
        if not clip or not group or clip != Path(clip).name:
            raise DataError(f"{path}, line {number}: a pair needs a plain name and a source_group")
        for half, kind in enumerate(("real", "fake")):
            relative, file = _frames(name, kind, clip), root / f"{clip}.mp4"
            label = f"{name}_{kind}"
            rows.append(_row(file, label, "train", relative, source=clip, group=group, half=half))
    if not rows:
        raise DataError(f"{path}: lists no clip of kind pair; there is nothing to prepare")
    return Layout(name, {name: (f"{name}_real", f"{name}_fake")}, tuple(rows))


def _folders(root: Path, compression: str) -> Layout:
    """Videos in real/ and fake/, at any depth; nothing else is known about them, so no split is stated."""
    name = root.resolve().name
    if name.upper() == "UADFV":
        return _uadfv(root, compression)
    names, rows = (f"{name}_real", f"{name}_fake"), []
    for label, kind in zip(names, ("real", "fake"), strict=True):
        for path in sorted((root / kind).rglob("*")):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                inner = path.parent.relative_to(root).as_posix()
                rows.append(_row(path, label, "", _frames(name, inner, path.stem)))
    return Layout(name, {name: names}, tuple(rows))


Reader = Callable[[Path, str], Layout]

# Each layout's name, the files that identify it, and its reader; they are tried in this order.
LAYOUTS: tuple[tuple[str, tuple[str, ...], Reader], ...] = (
    ("side-by-side pairs", ("pairs.csv",), _pairs),
    ("FaceForensics++", ("original_sequences", "manipulated_sequences"), _faceforensics),
    ("Celeb-DF", ("List_of_testing_videos.txt",), _celeb_df),
    ("DFDC", ("test/labels.csv", "train/dfdc_train_part_*/metadata.json"), _dfdc),
    ("DFDC preview", ("dataset.json",), _dfdcp),
    ("DeeperForensics-1.0", ("lists/splits/test.txt",), _deeperforensics),
    ("WildDeepfake", ("deepfake_in_the_wild", "real_test", "fake_test"), _wild_deepfake),
    ("UADFV", ("fake/*_fake.mp4",), _uadfv),
    ("videos in real/ and fake/", tuple(f"fake/**/*{s}" for s in VIDEO_SUFFIXES), _folders),
)


# --- steps -----------------------------------------------------------------------------------------


def _row(
    path: Path, name: str, split: str, relative: PurePosixPath, *, method: str = "", **more: Any
) -> VideoRow:
    """A row with the label `name`, real if it ends in "real"; the method defaults to the label."""
    label = 0 if name.lower().endswith("real") else 1
    return VideoRow(
        path, label, name, method or (name if label else "real"), split, relative, **more
    )


def _frames(name: str, inner: str, stem: str) -> PurePosixPath:
    return PurePosixPath(name, inner, "frames", stem)


def _stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.mp4"))
