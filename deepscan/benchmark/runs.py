"""A study's runs: found by their settings and data, or trained if they are missing."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from deepscan.benchmark.efficiency import Stepper
from deepscan.benchmark.studies import RUNS
from deepscan.benchmark.tables import plain_name
from deepscan.errors import DataError, SettingsError
from deepscan.model import weights
from deepscan.training.loop import TrainingProgress
from deepscan.training.rows import digests_of_data
from deepscan.training.run import resume, train
from deepscan.training.settings import TrainSettings, from_plain

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a study: its settings, its folder, and how far it is."""

    name: str
    settings: TrainSettings
    folder: Path
    state: str  # "finished", "interrupted", "missing"
    digests: Mapping[str, str] | None = None  # of its training data, None where unknown

    @property
    def checkpoint(self) -> Path:
        return self.folder / "detector.safetensors"


class RunStore:
    """The folder of all runs, and the recipe that they start from.

    Args:
        recipe: settings that every run shares; None where nothing can be trained, and finished runs are
            found by their names.
    """

    def __init__(self, folder: Path, recipe: TrainSettings | None) -> None:
        self._folder, self._recipe = folder, recipe
        self._digests: dict[tuple[Any, ...], dict[str, str]] = {}

    def run(self, name: str, seed: int) -> Run:
        """The run of that name.

        Raises:
            SettingsError: no such run, or without a recipe several that may be meant.
            DataError: the training data cannot be read.
        """
        if name not in RUNS:
            raise SettingsError(f"run {name!r} is not one of {', '.join(RUNS)}")
        if self._recipe is None:
            return self._by_name(name, seed)
        settings = replace(self._recipe, **RUNS[name], name=name, seed=seed)
        digest = self._digest(settings)
        wanted = _meaning(settings), digest
        for folder, stated, of in self._kept():
            if (_meaning(stated), of) == wanted:
                return Run(name, replace(stated, out=folder), folder, _state(folder), digest)
        key = hashlib.sha256(json.dumps(wanted, sort_keys=True, default=str).encode()).hexdigest()
        folder = self._folder / f"{plain_name(name)}-{seed}-{key[:8]}"
        return Run(name, replace(settings, out=folder), folder, "missing", digest)

    def _by_name(self, name: str, seed: int) -> Run:
        found = [
            Run(name, stated, folder, "finished", of)
            for folder, stated, of in self._kept()
            if (stated.name, stated.seed, _state(folder)) == (name, seed, "finished")
        ]
        if len(found) > 1:
            raise SettingsError(
                f"{self._folder}: {len(found)} finished runs are {name}, seed {seed}"
                f" ({', '.join(run.folder.name for run in found)}); --data, --config and --steps select"
                " one"
            )
        if found:
            return found[0]
        return Run(
            name, TrainSettings((Path(),), Path()), self._folder / plain_name(name), "missing"
        )

    def _kept(self) -> list[tuple[Path, TrainSettings, dict[str, str]]]:
        """All existing runs: folder, settings, digest of the data."""
        found = []
        for path in sorted(self._folder.glob("*/settings.json")):
            try:
                stated = json.loads(path.read_text("utf-8"))
                settings = from_plain(stated["settings"], str(path))
                digests = {k: v for k, v in stated["digests"].items() if k != "test"}
                found.append((path.parent, settings, digests))
            except (ValueError, KeyError, OSError, SettingsError):
                continue  # a run of another version of deepscan: it is not this one
        return found

    def _digest(self, settings: TrainSettings) -> dict[str, str]:
        """Of the files learnt from: seeds split them differently, but all of them are read."""
        key = settings.data, settings.dataset, settings.frames, settings.contrast == "macl"
        if key not in self._digests:
            self._digests[key] = digests_of_data(settings)
        return self._digests[key]


def complete(run: Run, date: str, progress: TrainingProgress | None, say: Say) -> Run:
    """Train a run to the end, from where it stopped.

    Raises:
        DataError, OutputError, WeightsError: see training.run.
    """
    if run.state == "finished":
        return run
    say(f"{run.name}, seed {run.settings.seed}: training into {run.folder}")
    listed = lambda line: say(f"  {line}")
    if run.state == "interrupted":
        resume(run.folder, progress, listed)
    else:
        train(run.settings, date, progress, listed)
    return replace(run, state="finished")


def _state(folder: Path) -> str:
    return "finished" if (folder / "results.json").is_file() else "interrupted"


def _meaning(settings: TrainSettings) -> dict[str, Any]:
    """A recipe with every default written out, so that two ways of saying the same are the same."""
    losses = settings.losses()
    recipe = settings.recipe() | {name: getattr(losses, name) for name in ("contrast", "alignment")}
    recipe["flcl"] = losses.flcl if losses.contrast != "none" else 0.0
    recipe["raal"] = losses.raal if losses.alignment != "none" else 0.0
    if settings.token == "cls":
        recipe |= {"queries": 0, "heads": 0}
    return json.loads(json.dumps(recipe))


# --- how long it takes -----------------------------------------------------------------------------


def steps_of(run: Run, crops: int) -> int:
    """The number of steps of a run on this many training crops."""
    whole = run.settings.epochs * max(1, crops // run.settings.batch)
    return min(run.settings.steps or whole, whole)


def seconds_a_step(runs: Sequence[Run]) -> dict[str, float]:
    """What a step takes, by run: from the logs of finished runs like it, else measured on two steps.

    Measured without reading and augmenting crops, which other processes do meanwhile.
    """
    seconds: dict[tuple[str, bool], float] = {}
    for run in runs:
        if run.state == "finished":
            seconds[_cost(run)] = run.settings.batch / _logged_speed(run.folder)
    for run in runs:
        if _cost(run) not in seconds:
            seconds[_cost(run)] = _measured(run.settings)
    return {run.name: seconds[_cost(run)] for run in runs}


def _cost(run: Run) -> tuple[str, bool]:
    return run.settings.adapter, run.settings.token == "cls"


def _logged_speed(folder: Path) -> float:
    """Median crops a second of a run's steps, reading and augmenting included."""
    try:
        with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
            return median(float(row["images_per_second"]) for row in csv.DictReader(file))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder / 'log.csv'}: not the log of a training run ({error})") from error


def _measured(settings: TrainSettings) -> float:
    tower = weights.catalogue().bases[settings.base].tower
    stepper = Stepper(settings, tower)
    rng = np.random.default_rng(0)
    crops = torch.from_numpy(rng.integers(0, 256, (settings.batch, 256, 256, 3), np.uint8))
    stepper.step(crops.to(settings.device))
    return stepper.step(crops.to(settings.device))
