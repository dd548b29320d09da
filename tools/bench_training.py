"""`make bench-training`: measures crops a second, what +Ours costs over its baseline, and what data cost.

Baseline and +Ours take steps in turn in one process on the same random crops, so that a slow moment of the
machine affects both; the result is the median of the ratios of neighbouring steps. GFLOP are a step's,
forward and backward, by torch.utils.flop_counter. On a processor the steps take one thread, and its own
seconds count, which other work on the machine leaves alone. Reading and augmenting crops goes on in other
processes and is the same for both: a second table says what it takes of one core for each crop shown.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from deepscan.benchmark.efficiency import Stepper, race, ratio
from deepscan.config import load_toml
from deepscan.data.crops import CropRow
from deepscan.model.tower import tower_size
from deepscan.model.weights import shipped_folder
from deepscan.training.data import CropSampler, TrainingCrops
from deepscan.training.settings import RECIPES, TrainSettings, from_plain


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
    if asked.device == "cpu":
        torch.set_num_threads(1)
    columns = "adapter", "baseline crops/s", "+Ours crops/s", "cost of +Ours", "[95 %]"
    table = Table(*columns, "baseline GFLOP/crop", "+Ours GFLOP/crop")
    for adapter in asked.adapters.split(","):
        common = TrainSettings(
            (Path(),),
            Path(),
            adapter=adapter,
            batch=asked.batch,
            device=asked.device,
            compile=asked.compile,
        )
        baseline, ours = (
            Stepper(replace(common, token=token), asked.tower) for token in ("cls", "global")
        )
        taken = race(baseline, ours, asked.steps)
        cost = ratio(taken[1], taken[0])
        speeds = [f"{asked.batch / median(way):.2f}" for way in taken]
        interval = f"{cost.low - 1:+.1%}, {cost.high - 1:+.1%}"
        work = [f"{gflop(way):.1f}" for way in (baseline, ours)]
        table.add_row(adapter, *speeds, f"{cost.value - 1:+.1%}", interval, *work)
    Console().print(table)
    data = Table("crops shown", "ms of one core a crop")
    for name, settings in recipes().items():
        data.add_row(name, f"{cost_of_data(settings):.1f}")
    Console().print(data)


def gflop(stepper: Stepper) -> float:
    """Floating-point operations of a training step, in 10^9 a crop."""
    batch = stepper.settings.batch
    crops = torch.zeros(batch, 256, 256, 3, dtype=torch.uint8, device=stepper.settings.device)
    with FlopCounterMode(display=False) as counted:
        stepper.step(crops)
    return counted.get_total_flops() / batch / 1e9


def recipes() -> dict[str, TrainSettings]:
    """What is shown without any change, by default, by the paper's recipe and by the shipped detector's."""
    names = {"data": [Path()], "out": Path()}
    still = dict.fromkeys(("flip", "zoom", "colour", "blur", "resize", "jpeg"), 0.0)
    return {
        "as they are": from_plain({"augment": still} | names, "plain"),
        "by default": from_plain(names, "default"),
        "by default, all blended": from_plain({"pseudo": 1.0} | names, "blended"),
        "--recipe qtfp": from_plain(RECIPES["qtfp"] | names, "qtfp"),
        "recipe.toml": from_plain(load_toml(shipped_folder() / "recipe.toml") | names, "recipe"),
    }


def cost_of_data(settings: TrainSettings, units: int = 60) -> float:
    """Milliseconds of one core that a crop takes to be read, blended, changed and cut to patches."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        rows = []
        for i in range(16):
            path = Path(name) / f"{i}.png"
            small = Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8))
            small.resize((256, 256), Image.Resampling.BICUBIC).save(path)
            label, frame = i % 2, i // 2
            rows.append(CropRow(path, label, str(label), "", "", "m", "", frame, None, None))
        order = CropSampler(
            rows, settings.pseudo, 0, settings.blend.swap, settings.sampling == "natural"
        )
        size = tower_size("ViT-B-16-quickgelu")
        dataset = TrainingCrops(
            order, settings.augment, size, settings.forged_share, settings.blend
        )
        dataset[0]
        begun = time.process_time()
        for n in range(units):
            dataset[n]
        taken = time.process_time() - begun
    torch.set_num_threads(threads)
    return 1000 * taken / units / order.size


if __name__ == "__main__":
    main()
