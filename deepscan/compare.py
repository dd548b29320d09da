"""The paper's six methods, MACL and no RAAL, trained alike and told side by side: `make compare`.

Training goes on where it was broken off; the table is made of what the runs' folders hold.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deepscan.training.run import resume, train
from deepscan.training.settings import TrainSettings

# Full fine-tuning at the method's 2e-4 leaves nothing of CLIP; a twentieth is what it is usually given.
RATES = {"effort": 2e-4, "lora": 2e-4, "full": 1e-5}

STUDIES: dict[str, dict[str, Any]] = {
    "effort": {"adapter": "effort", "token": "cls"},
    "effort+ours": {"adapter": "effort"},
    "lora": {"adapter": "lora", "token": "cls"},
    "lora+ours": {"adapter": "lora"},
    "full": {"adapter": "full", "token": "cls"},
    "full+ours": {"adapter": "full"},
    "lora+ours, MACL": {"adapter": "lora", "contrast": "macl"},
    "lora+ours, no RAAL": {"adapter": "lora", "alignment": "none"},
}


def folder_of(out: Path, study: str, seed: int) -> Path:
    """Where a study's run lies."""
    return out / f"{study.replace(', ', '-').replace(' ', '-')}-{seed}"


def run_all(data: Path, test: Path, out: Path, seeds: list[int], epochs: int, device: str) -> None:
    """Train every study with every seed; finished runs are left alone, broken ones gone on with."""
    for seed in seeds:
        for study, changes in STUDIES.items():
            folder = folder_of(out, study, seed)
            if (folder / "results.json").is_file():
                continue
            sys.stderr.write(f"{study}, seed {seed}\n")
            if folder.exists():
                resume(folder, say=_tell)
                continue
            settings = TrainSettings(
                data=data,
                out=folder,
                test=test,
                name=folder.name,
                lr=RATES[changes["adapter"]],
                epochs=epochs,
                seed=seed,
                device=device,
                workers=1,
                **changes,
            )
            train(settings, datetime.now(UTC).date().isoformat(), say=_tell)


def _tell(line: str) -> None:
    sys.stderr.write(f"  {line}\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m deepscan.compare", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0", help="as in 0,1,2")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args(arguments)
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    run_all(asked.data, asked.test, asked.out, seeds, asked.epochs, asked.device)


if __name__ == "__main__":
    main()
