"""Train the shipped detector anew from the material it came from: `make train-default`.

The material is not part of deepscan: 53 side-by-side clips (pairs/) and face pictures (faces/) to learn from,
crops of FaceForensics++ (ffpp-crops/) to be judged and calibrated on; see weights/b16-lora.md. What is
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
from deepscan.files import part_file
from deepscan.model.weights import shipped_folder
from deepscan.prepare import PrepareSettings, prepare
from deepscan.training.run import calibrate_anew, resume, train
from deepscan.training.settings import TrainSettings, from_plain

PAIR_FRAMES = 8


def material(folder: Path, out: Path) -> tuple[Path, Path, Path]:
    """Pairs and faces prepared under `out`, and the crops as they are.

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
    with part_file(listing) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for path in sorted((folder / "faces").glob("*.jpg")):
            writer.writerow([path.resolve(), "real"])
    prepare(listing, out / "faces", PrepareSettings(frames=1))
    return out / "pairs", out / "faces", folder / "ffpp-crops"


def main(arguments: list[str] | None = None) -> None:
    """Prepare, train, calibrate, and say where the detector lies."""
    parser = argparse.ArgumentParser(prog="python -m deepscan.train_default", description=__doc__)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    recipe = load_toml(shipped_folder() / "recipe.toml")
    run = asked.out / "run"
    pairs, faces, crops = material(asked.material, asked.out)
    if run.exists():
        trained = resume(run, say=say)
    else:
        places = {"data": [str(pairs), str(faces)], "out": str(run)}
        today = datetime.now(UTC).date().isoformat()
        trained = train(from_plain(recipe | places, "recipe.toml"), today, say=say)
    name = str(recipe["name"])
    detector = asked.out / f"{name}.safetensors"
    calibrate_anew(trained.checkpoint, detector, TrainSettings((crops,), detector, name=name))
    sys.stdout.write(f"{detector}\n")


if __name__ == "__main__":
    main()
