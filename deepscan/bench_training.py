"""`make bench-training`: crops a second in training, and what +Ours costs over its baseline.

Baseline and +Ours take steps in turn in one process, on the same random crops, so that a slow moment of
the machine strikes both; what is told is the median of the ratios of neighbours. Data loading and
augmentation are left out: they go on in other processes and are the same for both.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from deepscan.training.loop import Ranks, objective
from deepscan.training.run import build
from deepscan.training.settings import TrainSettings


class Stepper:
    """One detector that takes training steps on whatever crops it is given."""

    def __init__(self, settings: TrainSettings, tower: str, compiled: bool) -> None:
        self._settings, self._us = settings, Ranks(0, 1, settings.device)
        self._detector = build(settings, tower, None).to(settings.device).train()
        self._model = torch.compile(self._detector) if compiled else self._detector
        self._trained = [p for p in self._detector.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._trained, lr=settings.lr, weight_decay=0.0)
        grid = self._detector.tower.size.image_size // self._detector.tower.size.patch_size
        self._forged = torch.zeros(settings.batch, grid * grid, dtype=torch.bool)
        self._known = torch.ones(settings.batch, dtype=torch.bool)

    def step(self, crops: torch.Tensor) -> float:
        """One optimizer step; its seconds."""
        self._wait()
        begun = time.perf_counter()
        self._optimizer.zero_grad(set_to_none=True)
        kind = self._us.device.split(":")[0]
        bf16 = self._settings.precision == "bfloat16"
        with torch.autocast(kind, torch.bfloat16, enabled=bf16):
            answer = self._model(crops)
        loss, _ = objective(
            self._detector, answer, self._forged, self._known, self._settings, self._us
        )
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._trained, self._settings.max_norm)
        self._optimizer.step()
        self._wait()
        return time.perf_counter() - begun

    def _wait(self) -> None:
        if self._us.device != "cpu":
            torch.cuda.synchronize(self._us.device)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m deepscan.bench_training", description=__doc__)
    parser.add_argument("--adapters", default="effort,lora,full")
    parser.add_argument("--tower", default="ViT-B-16-quickgelu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="of each, after two that warm up")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args(arguments)
    table = Table("adapter", "baseline crops/s", "+Ours crops/s", "cost of +Ours", "[95 %]")
    rng = np.random.default_rng(0)
    for adapter in asked.adapters.split(","):
        common = TrainSettings(
            (Path(),), Path(), adapter=adapter, batch=asked.batch, device=asked.device, token="cls"
        )
        ways = [
            Stepper(settings, asked.tower, asked.compile)
            for settings in (common, replace(common, token="global"))
        ]
        taken: list[list[float]] = [[], []]
        for step in range(asked.steps + 2):
            crops = torch.from_numpy(rng.integers(0, 256, (asked.batch, 256, 256, 3), np.uint8))
            crops = crops.to(asked.device)
            for way in (0, 1) if step % 2 else (1, 0):
                seconds = ways[way].step(crops)
                if step >= 2:
                    taken[way].append(seconds)
        ratios = np.array([ours / plain for plain, ours in zip(*taken, strict=True)])
        draws = np.median(rng.choice(ratios, (1000, len(ratios))), axis=1)
        low, high = np.quantile(draws, [0.025, 0.975])
        speeds = [f"{asked.batch / median(way):.2f}" for way in taken]
        cost = f"{median(ratios) - 1:+.1%}"
        table.add_row(adapter, *speeds, cost, f"{low - 1:+.1%}, {high - 1:+.1%}")
        del ways
    Console().print(table)


if __name__ == "__main__":
    main()
