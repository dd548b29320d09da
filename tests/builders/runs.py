"""Small trainings: their settings, rows of crops, and their log."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from deepscan.data.crops import CropRow
from deepscan.training.augment import AugmentSettings
from deepscan.training.settings import TrainSettings

PLAIN = AugmentSettings(flip=0, zoom=0, colour=0, blur=0, resize=0, jpeg=0)


def settings(tmp_path: Path, **changes: Any) -> TrainSettings:
    plain: dict[str, Any] = {
        "base": "toy",
        "heads": 4,
        "precision": "float32",
        "lr": 3e-3,
        "batch": 8,
        "epochs": 2,
        "workers": 0,
        "validation": 0.34,
        "augment": PLAIN,
    }
    return TrainSettings(
        **{"data": (tmp_path / "data",), "out": tmp_path / "run"} | plain | changes
    )


def row(name: str, label: int, frame: int = 0, **more: Any) -> CropRow:
    plain: dict[str, Any] = {
        "video": f"{label}/{name}",
        "source": name,
        "group": name,
        "method": "fake" if label else "real",
        "split": "",
        "mask": None,
        "landmarks": None,
    }
    return CropRow(
        path=Path(f"{label}_{name}_{frame}.png"), label=label, frame=frame, **plain | more
    )


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
