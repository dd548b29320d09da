"""Table 5: trainable parameters, operations and training time of the six methods.

Parameters and operations are counted from shapes. Time is measured on random weights and random crops,
which take as long as others: pairs of methods take steps in turn in one process, so that a slow moment of
the machine strikes both, and the result is the median of the ratios of neighbours. Reading and
augmenting crops is left out: other processes do it meanwhile, the same for all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepscan.benchmark.evaluation import ROUNDS, Estimate
from deepscan.benchmark.studies import RUNS, STUDIES
from deepscan.benchmark.tables import Cell, Table
from deepscan.errors import DataError
from deepscan.files import part_file
from deepscan.model.header import DetectorSettings
from deepscan.model.size import EXPLAINED, PUBLISHED_TOWER, size
from deepscan.shapes import UInt8
from deepscan.training.run import build
from deepscan.training.settings import TrainSettings
from deepscan.training.step import Learner, Ranks, Targets

EPOCH = 720 * 5 * 8  # crops of an epoch at the paper's setting
REFERENCE = "effort"


class Stepper:
    """A detector that takes timed training steps on any crops.

    On a GPU it is timed by the clock, on a processor by its own time (the sum over all threads), which other
    work on the machine does not affect.
    """

    def __init__(self, settings: TrainSettings, tower: str) -> None:
        self.settings = settings
        self._now = time.process_time if settings.device == "cpu" else time.perf_counter
        detector = build(settings, tower, None).to(settings.device).train()
        self._learner = Learner(detector, settings, Ranks(0, 1, settings.device))
        grid = detector.tower.size.image_size // detector.tower.size.patch_size
        self._targets = Targets(
            torch.zeros(settings.batch, grid * grid, dtype=torch.bool),
            torch.ones(settings.batch, dtype=torch.bool),
            torch.tensor([0.0, 1.0]).repeat(settings.batch // 2),
        )

    def step(self, crops: UInt8[Tensor, "b 256 256 3"]) -> float:
        """One optimizer step; its seconds."""
        self._wait()
        begun = self._now()
        self._learner.step(crops, self._targets, self.settings.lr)
        self._wait()
        return self._now() - begun

    def _wait(self) -> None:
        if self.settings.device != "cpu":
            torch.cuda.synchronize(self.settings.device)


def race(one: Stepper, other: Stepper, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of `steps` steps of each, in turn on the same crops, after two warm-up steps of each."""
    ways, settings = (one, other), one.settings
    rng = np.random.default_rng(0)
    taken: tuple[list[float], list[float]] = ([], [])
    for step in range(steps + 2):
        crops = torch.from_numpy(rng.integers(0, 256, (settings.batch, 256, 256, 3), np.uint8))
        crops = crops.to(settings.device)
        for way in (0, 1) if step % 2 else (1, 0):
            seconds = ways[way].step(crops)
            if step >= 2:
                taken[way].append(seconds)
    return taken


def ratio(seconds: Sequence[float], reference: Sequence[float]) -> Estimate:
    """Median of the ratios of neighbours; its rounds draw pairs of steps."""
    ratios = np.array(seconds) / np.array(reference)
    drawn = np.random.default_rng(0).choice(ratios, (ROUNDS, len(ratios)))
    return Estimate(float(median(ratios)), np.median(drawn, axis=1))


@dataclass(frozen=True, slots=True)
class Timing:
    """The result of `measure`: seconds of single steps, of each method and of the reference beside it."""

    tower: str
    device: str
    batch: int
    seconds: dict[str, tuple[list[float], list[float]]]  # (its own, the reference's)


def measure(settings: TrainSettings, tower: str, steps: int, say: Callable[[str], None]) -> Timing:
    """Time the six methods in one run, each in turn with Effort."""

    def stepper(name: str) -> Stepper:
        machine = {what: getattr(settings, what) for what in ("batch", "device", "precision")}
        return Stepper(TrainSettings((Path(),), Path(), **machine, **RUNS[name]), tower)

    seconds, reference = {}, stepper(REFERENCE)
    for name in STUDIES["table-5"].rows.values():
        if name == REFERENCE:
            continue
        say(f"timing {name} against {REFERENCE}, {steps} steps of each")
        first, second = race(reference, stepper(name), steps)
        seconds[name] = second, first
    device = settings.device
    if device.startswith("cuda"):
        device = torch.cuda.get_device_name(device)
    return Timing(tower, device, settings.batch, seconds)


def write_timing(path: Path, timing: Timing) -> None:
    """Write a measurement.

    Raises:
        OutputError: it cannot be written.
    """
    with part_file(path) as part:
        part.write_text(json.dumps(asdict(timing), indent=1) + "\n", "utf-8")


def read_timing(path: Path) -> Timing | None:
    """Read a measurement; None if there is none.

    Raises:
        DataError: the file is something else.
    """
    if not path.is_file():
        return None
    try:
        values: dict[str, Any] = json.loads(path.read_text("utf-8"))
        seconds = {name: (own, other) for name, (own, other) in values.pop("seconds").items()}
        return Timing(**values, seconds=seconds)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a measurement by deepscan ({error}); delete it") from error


def table(timing: Timing | None) -> Table:
    """Counts for the paper's tower, and time as ratios to Effort where it was measured."""
    study = STUDIES["table-5"]
    assert study.published is not None
    figures = study.published.figures()
    columns = (
        "trainable, M",
        "GFLOPs as fvcore counts",
        "GFLOPs, complete",
        "time per epoch, ratio to Effort",
        "time per epoch, s",
    )
    base = figures[REFERENCE]["epoch_seconds"]
    epoch = None if timing is None else _epoch(timing)
    rows: list[tuple[str, tuple[Cell | str | None, ...]]] = []
    for row, run in study.rows.items():
        changes = {k: v for k, v in RUNS[run].items() if k in ("adapter", "token")}
        counted, stated = size(DetectorSettings(tower=PUBLISHED_TOWER, **changes)), figures[row]
        times = Cell(1.0 if run == REFERENCE else None, published=stated["epoch_seconds"] / base)
        if timing is not None and run != REFERENCE:
            times = Cell.of(ratio(*timing.seconds[run]), times.published)
        seconds = None if epoch is None or times.value is None else epoch * times.value
        cells = (
            Cell(counted.trained / 1e6, published=stated["trainable_millions"], digits=4),
            Cell(counted.flops_fvcore / 1e9, published=stated["gflops"], digits=2),
            Cell(counted.flops_complete / 1e9, digits=2),
            times,
            Cell(seconds, published=stated["epoch_seconds"], digits=0),
        )
        rows.append((row, cells))
    notes = [
        f"Counted for {PUBLISHED_TOWER}, including heads and query tokens. As fvcore counts: two"
        f" FLOPs per multiply-accumulate, without scaled_dot_product_attention; complete: with it.",
        *(f"{adapter}: {why}." for adapter, why in EXPLAINED.items()),
        f"In the paper, an epoch with Effort takes {base:.0f} s ({EPOCH:,} crops).",
    ]
    if timing is None:
        notes.append("Time was not measured; --train measures it.")
    else:
        own_seconds = " (the processor's own, of all threads)" if timing.device == "cpu" else ""
        notes.append(
            f"Time{own_seconds} measured with {timing.tower} on {timing.device}, batches of {timing.batch},"
            " steps of each method in turn with Effort's; brackets: 95 % intervals of the median ratio."
            " Reading crops is not included. Seconds depend on the machine; ratios can be compared with the"
            " paper's."
        )
    return Table("table-5", study.title, columns, tuple(rows), tuple(notes))


def _epoch(timing: Timing) -> float:
    """Seconds of an epoch with Effort."""
    every = [seconds for _, reference in timing.seconds.values() for seconds in reference]
    return median(every) / timing.batch * EPOCH
