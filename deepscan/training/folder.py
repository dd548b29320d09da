"""The run folder: the results of a training run, and its state for continuing after an interruption.

settings.json         settings, versions, digests of the data; written first
crops.csv             each crop of each side: its hash (the first 16 digits), video, source, people
log.csv, tensorboard/ one row (event) a step
state.safetensors     the newest state to resume from: weights, Adam's moments, the step
detector.safetensors  the best so far by validation, ready for `detect --weights`
curves.png            the log, drawn after each epoch
results.json          written last
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import deepscan
from deepscan.data.crops import CropRow
from deepscan.errors import DataError, OutputError, SettingsError
from deepscan.files import part_file
from deepscan.model.detector import Detector
from deepscan.shapes import Float
from deepscan.training import curves
from deepscan.training.identity import crop_digest
from deepscan.training.settings import TrainSettings, from_plain

PREDICTION = ("video", "label", "method", "group", "frame", "logit")

# What the numbers and weights of a run depend on, beside deepscan itself.
PACKAGES = [
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "open_clip_torch",
    "facenet-pytorch",
    "av",
    "pillow",
]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of log.csv. Losses are unweighted; None was not measured at this step."""

    step: int
    epoch: int
    lr: float
    loss: float
    classification: float
    contrast: float | None
    alignment: float | None
    localisation: float | None
    penalty: float | None
    snr: float | None
    gradient: float  # its norm before clipping
    images_per_second: float
    memory_mb: float | None
    validation_video_auc: float | None = None
    validation_frame_auc: float | None = None
    validation_loss: float | None = None


@dataclass(frozen=True, slots=True)
class Best:
    """The best epoch so far, by validation."""

    epoch: int
    video_auc: float
    loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better: video AUC, ties by the lower loss."""
        return self.video_auc, -self.loss


class RunFolder:
    """A run's files, written atomically.

    Args:
        folder: a new folder, or with `resume` one of an earlier run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = folder / "detector.safetensors"
        self._state = folder / "state.safetensors"
        self._log = folder / "log.csv"
        self._events: Any = None

    # -- its life -----------------------------------------------------------------------------------

    def create(self, settings: TrainSettings, digests: dict[str, str], date: str) -> None:
        """Make the folder with its settings.json.

        Raises:
            OutputError: it exists, or cannot be made.
        """
        try:
            self.folder.mkdir(parents=True)
        except FileExistsError as error:
            raise OutputError(
                f"{self.folder}: already exists; --resume {self.folder} continues it, --out DIR"
                f" starts another"
            ) from error
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be created: {error.strerror}") from error
        facts = {"settings": settings.plain(), "date": date, "digests": digests} | _machine()
        self.write_json("settings.json", facts)

    def reopen(self) -> tuple[TrainSettings, dict[str, str], str]:
        """Settings, digests and date of the run to continue.

        Raises:
            SettingsError: this is not a run folder.
        """
        path = self.folder / "settings.json"
        try:
            stated = json.loads(path.read_text("utf-8"))
            return from_plain(stated["settings"], str(path)), stated["digests"], stated["date"]
        except (OSError, ValueError, KeyError) as error:
            raise SettingsError(f"{self.folder}: not a run of deepscan train ({error})") from error

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        with part_file(self.folder / name) as part:
            part.write_text(
                json.dumps(content, indent=2, default=str, allow_nan=False) + "\n", "utf-8"
            )

    def write_seen(self, splits: Mapping[str, Sequence[CropRow]]) -> None:
        """List every crop with its hash, for training, validation and test."""
        with (
            part_file(self.folder / "crops.csv") as part,
            part.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(("side", "sha256", "video", "source", "people", "label", "frame"))
            for side, rows in splits.items():
                for row in rows:
                    who = row.identity
                    writer.writerow(
                        [
                            *(side, crop_digest(row.path), who.video if who else row.video),
                            *(
                                who.source if who else row.source,
                                " ".join(who.people if who else ()),
                            ),
                            *(row.label, row.frame),
                        ]
                    )

    def write_predictions(
        self, name: str, rows: Sequence[CropRow], logits: Float[np.ndarray, " n"]
    ) -> None:
        """Write each crop's logit, so that any measure or comparison can be computed later."""
        with (
            part_file(self.folder / f"predictions-{name}.csv") as part,
            part.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(PREDICTION)
            for row, logit in zip(rows, logits.tolist(), strict=True):
                writer.writerow([row.video, row.label, row.method, row.group, row.frame, logit])

    # -- the log ------------------------------------------------------------------------------------

    def open_log(self, step: int) -> None:
        """Start the log, or continue one without its rows after `step`, because those steps are repeated."""
        from torch.utils.tensorboard import SummaryWriter  # brings protobuf and more along

        lines: list[list[str]] = []
        if self._log.is_file():
            with self._log.open(encoding="utf-8", newline="") as file:
                lines = [line for line in csv.reader(file) if line][1:]
        kept = [line for line in lines if int(line[0]) <= step]
        with part_file(self._log) as part, part.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([[entry.name for entry in fields(Row)], *kept])
        self._events = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)

    def add(self, row: Row) -> None:
        """Append a row to log.csv and TensorBoard's events."""
        try:
            with self._log.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file).writerow(asdict(row).values())
            if self._events is not None:
                for name, value in asdict(row).items():
                    if value is not None and name not in ("step", "epoch"):
                        self._events.add_scalar(name, value, row.step)
        except OSError as error:
            raise OutputError(
                f"{self._log}: cannot be written: {error.strerror or error}"
            ) from error

    def draw(self) -> None:
        """Draw the log."""
        if self._events is not None:
            self._events.flush()
        curves.draw(self._log, self.folder / "curves.png")

    def close(self) -> None:
        if self._events is not None:
            with suppress(OSError):  # a full disk is reported where it stops the run
                self._events.close()

    # -- the state ----------------------------------------------------------------------------------

    def save(
        self,
        detector: Detector,
        optimizer: torch.optim.Optimizer,
        step: int,
        best: Best | None,
        average: Sequence[Tensor] = (),
    ) -> None:
        """Write the state after `step` steps. All chance of a run comes from its seed and the step."""
        tensors = {f"model.{name}": value for name, value in detector.trained_state().items()}
        for name, parameter in detector.named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = value
        tensors |= {f"average.{n}": v for n, v in zip(_trained(detector), average, strict=False)}
        header = {"step": step, "best": None if best is None else asdict(best)}
        with part_file(self._state) as part:
            whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
            save_file(whole, part, {"state": json.dumps(header)})

    def restore(
        self,
        detector: Detector,
        optimizer: torch.optim.Optimizer,
        average: Sequence[Tensor] = (),
    ) -> tuple[int, Best | None]:
        """Load the newest state into all of them.

        Returns:
            The step it was saved at, 0 without any, and the best so far.
        """
        if not self._state.is_file():
            return 0, None
        tensors = load_file(self._state)
        with safe_open(self._state, "pt") as file:
            header = json.loads(file.metadata()["state"])
        with torch.no_grad():
            for name, value in detector.trained_state().items():
                value.copy_(tensors[f"model.{name}"])
        groups = optimizer.state_dict()["param_groups"]
        trained = _trained(detector)
        for name, value in zip(trained, average, strict=False):
            value.copy_(tensors[f"average.{name}"])
        keys = {name.split(".")[0] for name in tensors} - {"model", "average"}
        state = {
            i: {key: tensors[f"{key}.{name}"] for key in keys}
            for i, name in enumerate(trained)
            if any(f"{key}.{name}" in tensors for key in keys)
        }
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        best = header["best"]
        return header["step"], None if best is None else Best(**best)


def _trained(detector: Detector) -> list[str]:
    return [name for name, p in detector.named_parameters() if p.requires_grad]


def check_digests(stated: dict[str, str], found: dict[str, str]) -> None:
    """Raise DataError if the data of a run has changed since it began."""
    for name, digest in stated.items():
        if found.get(name) != digest:
            raise DataError(
                f"{name}: its files or its listing have changed since the run began (digest"
                f" {found.get(name)}, not {digest}); restore them, or start a new run"
            )


def _machine() -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "versions": {"deepscan": deepscan.__version__, "python": platform.python_version()}
        | versions,
        "threads": torch.get_num_threads(),
    }
