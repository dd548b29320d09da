"""Trains b16-lora again from its original material: `make train-lora`.

The material is not part of deepscan: 53 side-by-side clips (pairs/), crops of FaceForensics++ (ffpp-crops/)
and face pictures (faces/); see weights/b16-lora.md. Landmarks of real crops are detected, so that they can
be blended. A share of the people in each is held out, as the recipe says, to select, calibrate and, with
`make model-card`, measure the detector. Prepared data are reused and an interrupted run continues.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from deepscan.config import load_toml
from deepscan.data.crops import read_crops
from deepscan.data.prepare import PrepareSettings, prepare
from deepscan.errors import DataError
from deepscan.faces.alignment import CROP_SIDE
from deepscan.faces.mtcnn import Mtcnn
from deepscan.files import part_file, part_folder, sha256
from deepscan.model.weights import shipped_folder
from deepscan.training.data import picture
from deepscan.training.folder import RunFolder
from deepscan.training.run import Trained, resume, train
from deepscan.training.settings import TrainSettings, from_plain

PAIR_FRAMES = 8
HELD_OUT_FACES = 200  # of some 4,000 pictures, by chance of their hash: a fifth would say no more
SMALLEST_FACE = CROP_SIDE / 4  # pixels of a crop, which one face fills


def material(folder: Path, out: Path) -> tuple[Path, Path, Path]:
    """Pairs prepared under `out`, crops with landmarks, and faces prepared, a few of them as validation.

    Raises:
        DataError: a part of the material is missing, or of its videos or pictures one cannot be read.
    """
    for name in ("pairs", "faces", "ffpp-crops"):
        if not (folder / name).is_dir():
            raise DataError(
                f"{folder / name}: not there; --material names the folder that holds it"
            )
    _prepare_all(folder / "pairs", out / "pairs", PAIR_FRAMES)
    listing = out / "faces.csv"
    faces = sorted((folder / "faces").glob("*.jpg"), key=lambda path: sha256(path))
    with part_file(listing) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for i, path in enumerate(faces):
            writer.writerow([path.resolve(), "real", "val" if i < HELD_OUT_FACES else "train"])
    _prepare_all(listing, out / "faces", frames=1)
    if not (out / "ffpp-crops").exists():
        with_landmarks(folder / "ffpp-crops", out / "ffpp-crops")
    return out / "pairs", out / "ffpp-crops", out / "faces"


def _prepare_all(source: Path, out: Path, frames: int) -> None:
    """Every video of `source`: a detector trained on some of them is another one."""
    failures = prepare(source, out, PrepareSettings(frames=frames)).failures
    if failures:
        video, reason = failures[0]
        raise DataError(f"{source}: {len(failures)} not prepared, the first {video}: {reason}")


def with_landmarks(crops: Path, out: Path) -> None:
    """A flat folder that links to that of `crops` and has the landmarks of its real ones, where found.

    Raises:
        DataError: a picture cannot be read.
    """
    finder = Mtcnn()
    with part_folder(out) as part:
        for kind in ("real", "fake"):
            (part / kind).symlink_to((crops / kind).resolve())
        beside = part / "landmarks" / "real"
        beside.mkdir(parents=True)
        for row in read_crops(crops):
            if row.label == 0:
                found = finder.detect(picture(row)[0][None], SMALLEST_FACE)[0]
                if len(found.landmarks):
                    np.save(beside / f"{row.path.stem}.npy", found.landmarks[0])


def main(arguments: list[str] | None = None) -> None:
    """Prepare, train, and say where the detector lies."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_lora", description=__doc__)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    asked = parser.parse_args(arguments)

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    recipe = load_toml(shipped_folder() / "recipe.toml")
    run = asked.out / "run"
    folders = material(asked.material, asked.out)
    places = {"data": list(map(str, folders)), "out": str(run), "device": asked.device}
    settings = from_plain(recipe | places, "recipe.toml")
    sys.stdout.write(f"{trained(settings, say).checkpoint}\n")


def trained(settings: TrainSettings, say: Callable[[str], None]) -> Trained:
    """The run of `settings`: begun, or gone on with where its folder is there already.

    Raises:
        DataError: the folder's run has another recipe; and as training.run.
    """
    run = settings.out
    if not run.exists():
        return train(settings, datetime.now(UTC).date().isoformat(), say=say)
    if RunFolder(run).reopen()[0].recipe() != settings.recipe():
        raise DataError(f"{run}: started with another recipe; give another --out, or remove it")
    return resume(run, say=say, device=settings.device)


if __name__ == "__main__":
    main()
