"""All settings of training, and how TOML files set them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from deepscan.config import files, load_toml
from deepscan.errors import SettingsError
from deepscan.model import processor
from deepscan.model.header import DetectorSettings
from deepscan.plain import read, read_fields
from deepscan.training.augment import AugmentSettings
from deepscan.training.losses import LossSettings
from deepscan.training.pseudo import PseudoSettings

SCHEDULES = ("constant", "cosine")
SAMPLINGS = ("pairs", "natural")
YARDSTICKS = ("own", "pretrained")
# Where a run's files are and how it is computed; two runs that differ only in these learn the same.
PLACES = (
    "data", "test", "out", "name", "licence", "licence_note", "device", "offline", "workers",
    "save_every", "recompute",
)  # fmt: skip


def default_workers() -> int:
    """The default number of processes that read crops."""
    return max(1, min(8, (os.cpu_count() or 1) - 1))


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The paper's recipe, except where a field says otherwise.

    `data` (one or more) and `test` are folders of aligned crops (see data.crops.read_crops); `out` is the run
    folder. Numbers of crops and steps are those of the whole run, however many processes share it.
    `contrast`, `flcl`, `alignment` and `raal` set the method's two losses (see LossSettings). A weight of
    None means the method's own: 0 for a detector without queries, as in the paper's baselines.
    """

    data: tuple[Path, ...]
    out: Path
    test: Path | None = None
    dataset: str | None = None  # the set in each of `data` to train on; None: all
    name: str = "detector"
    licence: str = "Apache-2.0"  # of the checkpoint
    licence_note: str = "not stated"  # on the terms of the data, for the checkpoint
    base: str = "clip-vit-b16"
    # the detector
    adapter: str = "lora"
    token: str = "global"
    queries: int = 4
    heads: int = 8
    patch_norm: bool = True
    lora_rank: int = 4
    lora_alpha: float = 8.0
    effort_rank: int = 1
    depth: int | None = None  # layers of the tower that run; None: all
    adapted: int | None = (
        None  # how many of these, counted from the last, the adapter changes; None: all
    )
    # Share of the logit of a crop's copy without detail that is subtracted from the crop's when scoring.
    reference: float = 0.0
    view: float = 1.0  # share of a crop's side that the tower sees, from near the face's middle
    # Layers whose tokens are read and averaged, as [6, 8, 10]; None: the last that runs.
    layers: tuple[int, ...] | None = None
    prior: bool = False  # whether queries learn where on the crop to look
    # the losses
    contrast: str = "flcl"
    flcl: float | None = None
    alignment: str = "kl"
    raal: float | None = None
    squared: bool = True  # token-l2: the squared distance; else the distance
    # Which [CLS] is the target of the alignment: that of the tower in training, or of the base.
    yardstick: str = "own"
    tau: float = 0.1
    temperature: float = 0.1
    localisation: float = 0.0  # weight of classifying manipulated patches, where there are masks
    forged_share: float = 0.5  # masked share from which a patch counts as manipulated
    orthogonality: float = 0.0  # weights of effort's two penalties
    keeping: float = 0.0
    # the crops
    frames: int = 8  # crops of each video, spread evenly; all of them in testing
    # pairs: as many real as manipulated crops, each with its original; natural: crops in the proportion
    # of the data.
    sampling: str = "pairs"
    pseudo: float = 0.0  # share of the manipulated crops that are self-blended from real ones
    blend: PseudoSettings = field(default_factory=PseudoSettings)  # how they are made
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    patches: float = 1.0  # share of the patches used in a step; fewer are faster. Scoring uses all
    validation: float = (
        0.2  # share of the groups in each of `data` to hold out, if it names no "val" split
    )
    epochs: int = 10  # each takes as many crops as there are
    steps: int | None = None  # stop after this many, if the epochs last longer
    validate_every: int | None = None  # steps between two validations; None: one epoch
    batch: int = 16  # crops per step; half of them real, each with its manipulation
    accumulate: int = 1  # parts that a batch is split into; the contrast sees one part at a time
    # how it learns
    lr: float = 2e-4
    schedule: str = "constant"  # or cosine: down to 0 at the last step
    warmup: int = 0  # steps of linear rise
    weight_decay: float = 0.0  # decoupled: a step subtracts lr times this share of every weight
    max_norm: float = 1.0  # of the gradient; inf: any
    average: float = (
        0.0  # decay of the running average of the weights, which is saved; 0: save the last ones
    )
    seed: int = 0
    # how it runs
    device: str = "cpu"
    # of autocast; float32 casts nothing; auto: bfloat16, unless the processor only emulates it
    precision: str = "auto"
    recompute: bool = False  # recompute layers in the backward pass: less memory, a third more time
    compile: bool = False  # torch.compile
    # Processes that read and augment; one keeps up with a CPU, a GPU needs several.
    workers: int = field(default_factory=default_workers)
    save_every: int = 100  # steps between two states to resume from
    offline: bool = False  # never download the base

    def __post_init__(self) -> None:
        others = self.contrast == "macl", self.alignment not in ("kl", "none")
        asked = (self.flcl, self.raal, self.localisation, self.prior, *others)
        if self.token == "cls" and any(asked):
            raise SettingsError(
                "token cls is the baseline without queries, which does not use flcl, raal, contrast,"
                " alignment, localisation and prior; leave them out, or choose another token"
            )
        self.detector("ViT-B-16-quickgelu")
        self.losses()
        if self.schedule not in SCHEDULES:
            raise SettingsError(f"schedule: {self.schedule!r} is not one of {', '.join(SCHEDULES)}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise SettingsError(
                f"precision: {self.precision!r} is not one of auto, float32, bfloat16"
            )
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise SettingsError(f"device: {self.device!r} is not one of cpu, cuda, cuda:N")
        if self.precision == "auto":  # settled here, so that a run's recipe says what it learnt in
            settled = (
                "bfloat16" if self.device != "cpu" or processor.computes_bfloat16() else "float32"
            )
            object.__setattr__(self, "precision", settled)
        for count in ("frames", "epochs", "accumulate", "save_every"):
            if getattr(self, count) < 1:
                raise SettingsError(f"{count}: {getattr(self, count)} is not a positive count")
        for count in ("steps", "validate_every"):
            if getattr(self, count) is not None and getattr(self, count) < 1:
                raise SettingsError(f"{count}: {getattr(self, count)} is not a positive count")
        for name, allowed in (("sampling", SAMPLINGS), ("yardstick", YARDSTICKS)):
            if getattr(self, name) not in allowed:
                raise SettingsError(
                    f"{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}"
                )
        if self.sampling == "natural" and self.pseudo:
            raise SettingsError(
                "pseudo: blends are made in pairs, so leave it out with natural sampling"
            )
        if self.batch < 2 or self.batch % (2 * self.accumulate):
            raise SettingsError(
                f"batch: {self.batch} crops in {self.accumulate} part(s); each part is half real, so"
                f" its size must be even"
            )
        if not 0 < self.lr < math.inf or not self.max_norm > 0:
            raise SettingsError(
                f"lr, max_norm: {self.lr}, {self.max_norm}: must be above 0, and lr finite"
            )
        for least in ("weight_decay", "orthogonality", "keeping", "warmup", "workers"):
            if not getattr(self, least) >= 0:
                raise SettingsError(f"{least}: {getattr(self, least)} is below 0")
        if not 0 < self.validation < 1:
            raise SettingsError(f"validation: {self.validation} is not a share between 0 and 1")
        if not 0 < self.patches <= 1:
            raise SettingsError(f"patches: {self.patches} is not a share above 0 and up to 1")
        if not 0 <= self.average < 1:
            raise SettingsError(f"average: {self.average} is not a decay from 0 to below 1")
        if not self.data or len({folder.name for folder in self.data}) < len(self.data):
            raise SettingsError(
                "data: needs at least one folder of crops, all with different names"
            )
        for part in ("pseudo", "forged_share"):
            if not 0 <= getattr(self, part) <= 1:
                raise SettingsError(f"{part}: {getattr(self, part)} is not a share from 0 to 1")
        if (self.orthogonality or self.keeping) and self.adapter != "effort":
            raise SettingsError(
                f"orthogonality, keeping: penalties of effort, not of {self.adapter}"
            )

    def detector(self, tower: str) -> DetectorSettings:
        """The detector to train, on the tower of the base."""
        elsewhere = {"tower", "normalise", "located"}
        names = {entry.name for entry in fields(DetectorSettings)} - elsewhere
        values = {name: getattr(self, name) for name in names}
        return DetectorSettings(tower=tower, located=self.localisation > 0, **values)

    def losses(self) -> LossSettings:
        """The method's losses, off for a baseline."""
        ours = LossSettings()
        off = self.token == "cls"
        return LossSettings(
            contrast="none" if off else self.contrast,
            alignment="none" if off else self.alignment,
            flcl=ours.flcl if self.flcl is None else self.flcl,
            raal=ours.raal if self.raal is None else self.raal,
            squared=self.squared,
            tau=self.tau,
            temperature=self.temperature,
            localisation=self.localisation,
        )

    def recipe(self) -> dict[str, Any]:
        """Everything that decides the weights, without paths on this machine."""
        return {k: _json(v) for k, v in asdict(self).items() if k not in PLACES}

    def plain(self) -> dict[str, Any]:
        """All settings as plain values for JSON; `from_plain` reads them back."""
        plain = {k: str(v) if isinstance(v, Path) else _json(v) for k, v in asdict(self).items()}
        return plain | {"data": [str(folder) for folder in self.data]}

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` of `steps`, counted from 0."""
        rate = self.lr
        if step < self.warmup:
            rate *= (step + 1) / self.warmup
        elif self.schedule == "cosine":
            done = (step - self.warmup) / max(1, steps - self.warmup)
            rate *= (1 + math.cos(math.pi * done)) / 2
        return rate


# Recipes by name: what --recipe changes in the defaults. qtfp is the paper's, as far as it is public: FF++
# c23, ViT-L/14, Adam at 2e-4, plain batches of 16 from one real to four manipulated videos, blur and
# compression. That each of these two is done to half of the crops is our decision.
RECIPES: dict[str, dict[str, Any]] = {
    "ours": {},
    "qtfp": {
        "base": "clip-vit-l14", "lr": 2e-4, "batch": 16, "frames": 8, "schedule": "constant",
        "weight_decay": 0.0, "sampling": "natural", "max_norm": math.inf, "average": 0.0, "pseudo": 0.0,
        "augment": {
            "flip": 0.0, "zoom": 0.0, "colour": 0.0, "cast": 0.0, "blur": 0.5, "resize": 0.0, "noise": 0.0,
            "h264": 0.0, "jpeg": 0.5,
        },
    },
}  # fmt: skip


def as_toml(settings: TrainSettings) -> str:
    """All settings as a --config file of them: a run that is given it learns the same."""
    plain = settings.plain()
    tables = {name: plain.pop(name) for name in ("augment", "blend")}
    lines = [f"{name} = {_toml(value)}" for name, value in plain.items() if value is not None]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # a TOML value, too, for what settings hold


def _json(value: Any) -> Any:
    """JSON has no infinity."""
    return "inf" if value == math.inf else value


def from_plain(values: Mapping[str, Any], where: str) -> TrainSettings:
    """Settings from plain values; unknown names are refused.

    Raises:
        SettingsError: an unknown name (the nearest known one is named), a wrong type, or out of range.
    """
    given, unclipped = _listed(values)
    given.pop("mirror", None)  # which runs of earlier versions state
    settings = read(TrainSettings, given, where)
    return replace(settings, max_norm=math.inf) if unclipped else settings


def from_files(config: Path | None) -> dict[str, Any]:
    """What files say: [train] of deepscan.toml and the user's file, overruled by a --config file.

    A --config file has TrainSettings' names at its top level and tables [augment] and [blend]; so has
    [train]. Its relative paths start at the working folder.

    Raises:
        SettingsError: a file cannot be read, or says what nobody asked for.
    """
    values: dict[str, Any] = {}
    for path, tables in files():
        values |= _fields(tables.get("train", {}), f"{path}: [train]")
    if config is not None:
        values |= _fields(load_toml(config), str(config))
    return values


def _fields(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    given, unclipped = _listed(values)
    found = read_fields(TrainSettings, given, where)
    return found | ({"max_norm": math.inf} if unclipped else {})


def _listed(values: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The values with `data` as a list, for it may name one folder alone; and whether max_norm was infinite.

    An infinite max_norm is left out: nothing else may be infinite, and JSON writes it as "inf".
    """
    given = dict(values)
    if isinstance(given.get("data"), str | Path):
        given["data"] = [given["data"]]
    unclipped = given.get("max_norm") in ("inf", math.inf)
    if unclipped:
        del given["max_norm"]
    return given, unclipped
