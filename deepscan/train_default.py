"""Train the shipped detector anew from the material it came from: `make train-default`.

The material is not part of deepscan: 53 side-by-side clips (pairs/), crops of FaceForensics++ (ffpp-crops/)
and face pictures (faces/); see weights/b16-lora.md. A share of the people of each, as the recipe says, is
held out; by them the detector is selected, calibrated and, with `make model-card`, judged. What is
prepared, and a run that was broken off, is gone on with.
"""

from __future__ import annotations

import argparse
import csv
import sys
from datetime import UTC, datetime
from pathlib import Path

from deepscan.config import load_toml
from deepscan.errors import DataError
from deepscan.files import part_file, sha256
from deepscan.model.weights import shipped_folder
from deepscan.prepare import PrepareSettings, prepare
from deepscan.training.run import resume, train
from deepscan.training.settings import from_plain

PAIR_FRAMES = 8
HELD_OUT_FACES = 200  # of some 4,000 pictures, by chance of their hash: a fifth would say no more


def material(folder: Path, out: Path) -> tuple[Path, Path, Path]:
    """Pairs prepared under `out`, crops as they are, and faces prepared, a few of them as validation.

    Raises:
        DataError: a part of the material is missing.
    """
    for name in ("pairs", "faces", "ffpp-crops"):
        if not (folder / name).is_dir():
            raise DataError(
                f"{folder / name}: not there; --material names the folder that holds it"
            )
    prepare(folder / "pairs", out / "pairs", PrepareSettings(frames=PAIR_FRAMES))
    listing = out / "faces.csv"
    faces = sorted((folder / "faces").glob("*.jpg"), key=lambda path: sha256(path))
    with part_file(listing) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for i, path in enumerate(faces):
            writer.writerow([path.resolve(), "real", "val" if i < HELD_OUT_FACES else "train"])
    prepare(listing, out / "faces", PrepareSettings(frames=1))
    return out / "pairs", folder / "ffpp-crops", out / "faces"


def main(arguments: list[str] | None = None) -> None:
    """Prepare, train, and say where the detector lies."""
    parser = argparse.ArgumentParser(prog="python -m deepscan.train_default", description=__doc__)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    recipe = load_toml(shipped_folder() / "recipe.toml")
    run = asked.out / "run"
    folders = material(asked.material, asked.out)
    if run.exists():
        trained = resume(run, say=say)
    else:
        places = {"data": list(map(str, folders)), "out": str(run)}
        today = datetime.now(UTC).date().isoformat()
        trained = train(from_plain(recipe | places, "recipe.toml"), today, say=say)
    sys.stdout.write(f"{trained.checkpoint}\n")


if __name__ == "__main__":
    main()
