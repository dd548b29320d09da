"""Writes results as labels of frames, for tools in which people look through data and curate it.

The folder is a COCO detection data set: data/ holds each frame that was looked at, labels.json a detection
for each face in it. FiftyOne imports it as COCODetectionDataset; pycocotools and others read labels.json.
Format: https://cocodataset.org/#format-data, boxes as left, top, width, height in pixels, ids from 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from deepscan.config import Settings
from deepscan.errors import DataError, SettingsError, UnreadableInput
from deepscan.files import parse_json, part_folder, sha256
from deepscan.media import decoder
from deepscan.records import Frame

# What is concluded of a face is its category; a frame has no verdict of its own.
CATEGORIES = ("manipulation_indicated", "inconclusive", "no_manipulation_indicated", "not_judged")

MEANING = (
    "Faces found by deepscan. category: the verdict on this face in its whole video. score:"
    " 1 / (1 + exp(-logit)) of this face in this frame, for sorting; it is not a probability. track: the"
    " face's number."
)


def write(results: Sequence[Path], out: Path, force: bool = False, images: bool = True) -> int:
    """Write the labels of all results in and below these folders; return the number of frames.

    Args:
        results: folders with a report.json, or folders of such, as a batch's.
        out: the data set's folder; it appears once it is whole.
        force: replace an earlier one.
        images: decode the inputs again and write their frames; without, the data set has labels alone.

    Raises:
        UnreadableInput: there are no results, one is unreadable, or its input is another file now.
        OutputError: `out` exists already, or cannot be written.
    """
    found = list(_reports(results))
    listed: list[dict[str, Any]] = []
    faces: list[dict[str, Any]] = []
    with part_folder(out, force) as folder:
        (folder / "data").mkdir()
        for number, (path, report) in enumerate(found, 1):
            try:
                frames = _frames(report)
                stem = f"{number:04d}-{Path(report['input']['path']).stem[:80]}"
                for index, boxes in sorted(frames.items()):
                    listed.append(
                        {
                            "id": len(listed) + 1,
                            "file_name": f"{stem}-{index:06d}.jpg",
                            "width": report["input"]["width"],
                            "height": report["input"]["height"],
                            "video": report["input"]["path"],
                            "frame": index,
                        }
                    )
                    faces += [
                        {"id": len(faces) + n, "image_id": len(listed), **face}
                        for n, face in enumerate(boxes, 1)
                    ]
                if images:
                    _write_frames(report, folder / "data", stem)
            except (KeyError, TypeError, ValueError, AttributeError, SettingsError) as error:
                raise UnreadableInput(
                    f"{path}: not a report of this version of deepscan ({error!r:.100})"
                ) from error
        document = {
            "info": {"description": MEANING},
            "licenses": [],
            "categories": [
                {"id": n, "name": name, "supercategory": "face"}
                for n, name in enumerate(CATEGORIES, 1)
            ],
            "images": listed,
            "annotations": faces,
        }
        (folder / "labels.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return len(listed)


def _reports(results: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for given in results:
        places = sorted(given.rglob("report.json")) if given.is_dir() else [given]
        if not places:
            raise UnreadableInput(
                f"{given}: no report.json in it or below it; name a folder of results"
            )
        for path in places:
            try:
                report = parse_json(path.read_bytes())
            except (OSError, ValueError, DataError) as error:
                raise UnreadableInput(f"{path}: cannot be read: {error}") from error
            yield path, report


def _frames(report: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """The detections in each frame that was looked at; none in a frame without a face."""
    frames: dict[int, list[dict[str, Any]]] = {i: [] for i in report["coverage"]["instants"]}
    for track in report["tracks"]:
        name = track["finding"]["name"] if track["finding"] else "not_judged"
        for frame in track["frames"]:
            left, top, right, bottom = frame["box"]
            width, height = right - left, bottom - top
            frames[frame["index"]].append(
                {
                    "category_id": CATEGORIES.index(name) + 1,
                    "bbox": [round(v, 1) for v in (left, top, width, height)],
                    "area": round(width * height, 1),
                    "iscrowd": 0,
                    "score": round(1 / (1 + math.exp(-max(-50.0, frame["logit"]))), 6),
                    "logit": frame["logit"],
                    "track": track["id"],
                    "time": frame["time"],
                }
            )
    return frames


def _write_frames(report: dict[str, Any], folder: Path, stem: str) -> None:
    """Decode the input as it was decoded then; damaged frames are left out."""
    path, settings = Path(report["input"]["path"]), Settings.from_dict(report["run"]["settings"])
    if not path.is_file():
        raise UnreadableInput(f"{path}: the file is gone; --no-images writes only the labels")
    if sha256(path) != report["input"]["sha256"]:
        raise UnreadableInput(f"{path}: not the file that was analysed; its SHA-256 differs")
    with decoder(path, settings.sampling, settings.limits) as decoding:
        for item in decoding.frames():
            if isinstance(item, Frame):
                Image.fromarray(item.pixels).save(
                    folder / f"{stem}-{item.index:06d}.jpg", quality=92
                )
