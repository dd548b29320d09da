"""Write the crops that the shipped detector was not trained on as folders that `deepscan benchmark` reads.

    python -m tools.evidence.held PACK OUT
    deepscan benchmark --datasets pairs=OUT/pairs,methods=OUT/methods --distortions h264,resize

OUT receives a folder for each collection, with the held fifth of its people: up to VIDEOS of each class, one
crop of each, from the middle. Crops are aligned as `detect` aligns them. The material is other people's: it
is not to be passed on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tools.evidence import material
from tools.evidence.decoders import Decoders
from tools.evidence.folds import HELD
from tools.evidence.material import Material, Rows

HELD_FOLD = 0  # of people
VIDEOS = 60  # of a class: DFDC has as many as all others together


def main() -> None:
    """Read the arguments and write the folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--decoders", type=Path, default=Path("../shared/tools/decoders.py"))
    asked = parser.parse_args()
    cpu = torch.device("cpu")

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    crops = material.load(asked.pack, cpu, Decoders(asked.decoders, cpu), say, copies=0)
    for group in HELD:
        write(crops, middles(crops, group), asked.out / group)


def middles(crops: Material, group: str) -> Rows:
    """The middle crop of each held video of a group, of up to VIDEOS of each class."""
    chosen = []
    for label in (0, 1):
        held = np.flatnonzero(
            (crops.group == group) & (crops.fold == HELD_FOLD) & (crops.label == label)
        )
        videos = np.array([f"{crops.source[row]}|{crops.video[row]}" for row in held])
        chosen += [
            held[videos == video][(videos == video).sum() // 2]
            for video in list(dict.fromkeys(videos))[:VIDEOS]
        ]
    return np.array(chosen, int)


def write(crops: Material, rows: Rows, folder: Path) -> None:
    """Each row's crop, named as FaceForensics++ names videos: real/<id>_0.jpg, fake/<id>_0_0.jpg."""
    for number, row in enumerate(rows):
        kind, ids = ("fake", f"{number}_0") if crops.label[row] else ("real", f"{number}")
        path = folder / kind / f"{ids}_0.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = crops.crops[row].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path, quality=98, subsampling=0)


if __name__ == "__main__":
    main()
