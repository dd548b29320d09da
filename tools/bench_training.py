"""`make bench-training`: measures crops a second in training, and what +Ours costs over its baseline.

Baseline and +Ours take steps in turn in one process on the same random crops, so that a slow moment of the
machine affects both; the result is the median of the ratios of neighbouring steps. Data loading and
augmentation are left
out: they run in other processes and are the same for both.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from deepscan.benchmark.efficiency import Stepper, race, ratio
from deepscan.training.settings import TrainSettings


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_training", description=__doc__)
    parser.add_argument("--adapters", default="effort,lora,full")
    parser.add_argument("--tower", default="ViT-B-16-quickgelu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="of each, after two that warm up")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args(arguments)
    table = Table("adapter", "baseline crops/s", "+Ours crops/s", "cost of +Ours", "[95 %]")
    for adapter in asked.adapters.split(","):
        common = TrainSettings(
            (Path(),), Path(), adapter=adapter, batch=asked.batch, device=asked.device
        )
        baseline, ours = (
            Stepper(replace(common, token=token), asked.tower, asked.compile)
            for token in ("cls", "global")
        )
        taken = race(baseline, ours, asked.steps)
        cost = ratio(taken[1], taken[0])
        speeds = [f"{asked.batch / median(way):.2f}" for way in taken]
        interval = f"{cost.low - 1:+.1%}, {cost.high - 1:+.1%}"
        table.add_row(adapter, *speeds, f"{cost.value - 1:+.1%}", interval)
    Console().print(table)


if __name__ == "__main__":
    main()
