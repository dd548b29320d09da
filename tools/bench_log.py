"""Shared by the parts of `make bench-gpu`: logs results and measures times."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Log:
    """Logs a section's results: as Markdown at once, and as plain values in a file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.found: dict[str, Any] = {}

    def line(self, text: str) -> None:
        """Print a line of Markdown at once."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def head(self, *columns: str) -> None:
        """The head of a table."""
        self.line(f"\n| {' | '.join(columns)} |\n|{'--:|' * len(columns)}")

    def row(self, *cells: object) -> None:
        """A row of it; of numbers three digits."""
        self.line(f"| {' | '.join(map(_cell, cells))} |")

    def keep(self, name: str, value: Any) -> None:
        """Write a plain value down, by its name."""
        self.found[name] = value
        if self._path is not None:
            self._path.write_text(json.dumps(self.found, indent=1) + "\n", "utf-8")


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def wait(device: torch.device) -> None:
    """Until all that was launched on the device is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def times(work: Callable[[], Any], device: torch.device, seconds: float = 0.3) -> list[float]:
    """Seconds of single runs one after the other, after three that warm up; on a GPU by its own clock."""
    import torch

    def once() -> float:
        began = time.perf_counter()
        work()
        wait(device)
        return time.perf_counter() - began

    runs = max(3, min(200, int(seconds / min(once() for _ in range(3)))))
    if device.type != "cuda":
        return [once() for _ in range(runs)]
    marks = [
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(runs + 1)
    ]
    marks[0].record()
    for mark in marks[1:]:
        work()
        mark.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) / 1e3 for before, after in pairwise(marks)]


def walls(work: Callable[[], Any], warm: int, seconds: float = 0.2) -> list[float]:
    """Seconds of single runs that end when their results are on the host, after `warm`."""

    def once() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    fastest = min(once() for _ in range(warm))
    return [once() for _ in range(max(3, min(200, int(seconds / fastest))))]


def matrix_rate(rows: int, columns: int, inner: int, device: torch.device) -> float:
    """FLOP/s of a bfloat16 product of random matrices, median."""
    import torch
    from torch.nn import functional

    with torch.inference_mode():
        a = torch.randn(rows, inner, device=device).bfloat16()
        b = torch.randn(columns, inner, device=device).bfloat16()
        taken = times(lambda: functional.linear(a, b), device, 0.5)
    return 2 * rows * columns * inner / median(taken)
