"""Train a detector: one visible loop over the frozen tower's tokens, and everything it must answer for."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import deepscan
from deepscan import metrics
from deepscan.errors import DataError, SettingsError
from deepscan.files import check_free, part_folder, sha256
from deepscan.manifest import CropRow, read_crops, read_pairs
from deepscan.model import checkpoint, weights
from deepscan.model.detector import Detector
from deepscan.model.header import DetectorSettings, Header
from deepscan.training.data import (
    AugmentSettings,
    Progress,
    TokenBank,
    check_pictures,
    cut_pairs,
    read_pictures,
    token_bank,
)

# What the numbers and weights of a run depend on, beside deepscan itself.
PACKAGES = ("torch", "numpy", "scipy", "open_clip_torch", "facenet-pytorch", "av", "pillow")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """All that `train` can be told.

    `data` holds side-by-side clips (see manifest.read_pairs), `test` aligned crops (manifest.read_crops);
    `out` must not exist. `licence_note` is what the checkpoint says of the data's terms.
    """

    data: Path
    out: Path
    test: Path | None = None
    name: str = "detector"
    licence: str = "Apache-2.0"  # of the checkpoint
    licence_note: str = "not stated"
    adapter: str = "none"
    base: str = "clip-vit-b16"
    queries: int = 4
    heads: int = 8
    frames: int = 8  # a clip
    views: int = 4  # of each crop, the unaugmented one included
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    validation: float = 0.2  # share of the source groups
    epochs: int = 10
    batch: int = 16  # crops; half of them real, each beside its manipulation
    lr: float = 2e-4
    weight_decay: float = 0.0  # decoupled: a step takes lr times this share of every weight
    max_norm: float = 1.0  # of the gradient
    seed: int = 0
    device: str = "cpu"
    precision: str = "bfloat16"  # of the frozen tower's arithmetic
    offline: bool = False  # never fetch the base

    def __post_init__(self) -> None:
        if self.adapter != "none":
            raise SettingsError(
                f"adapter: {self.adapter!r}; this version trains on a frozen tower only (none)"
            )
        if self.precision not in ("float32", "bfloat16"):
            raise SettingsError(f"precision: {self.precision!r} is none of float32, bfloat16")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise SettingsError(f"device: {self.device!r} is none of cpu, cuda, cuda:N")
        if self.batch < 2 or self.batch % 2:
            raise SettingsError(
                f"batch: {self.batch}; half of a batch is real, so it is an even count"
            )
        for count in ("frames", "views", "epochs"):
            if getattr(self, count) < 1:
                raise SettingsError(f"{count}: {getattr(self, count)} is not a positive count")
        for rate in ("lr", "max_norm"):
            if not getattr(self, rate) > 0:
                raise SettingsError(f"{rate}: {getattr(self, rate)} is not above 0")
        if not self.weight_decay >= 0:
            raise SettingsError(f"weight_decay: {self.weight_decay} is below 0")
        if not 0 < self.validation < 1:
            raise SettingsError(f"validation: {self.validation} is no share between 0 and 1")

    def recipe(self) -> dict[str, Any]:
        """All that shapes the weights, without the places on this machine."""
        places = ("data", "test", "out", "name", "licence", "licence_note", "device", "offline")
        return {k: v for k, v in asdict(self).items() if k not in places}


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run."""

    folder: Path
    checkpoint: Path
    results: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One row of log.csv. Losses are means of the frames' binary cross-entropy."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_video_auc: float


def train(settings: TrainSettings, date: str, progress: Progress | None = None) -> Trained:
    """Train on `settings.data`, select by its held-out groups, judge once on `settings.test`.

    Args:
        date: UTC day of the run, "2026-01-31"; it goes into the checkpoint. The same settings, data and
            date give the same file on the same machine.

    Returns:
        The run folder, with detector.safetensors, results.json, settings.json and log.csv.

    Raises:
        DataError: data missing, malformed, one-sided or too little to split, or training diverges.
        OutputError: `settings.out` exists or cannot be written.
        WeightsError: the base is unknown or cannot be had.
    """
    check_free(settings.out, replace=False)
    rows = read_pairs(settings.data)
    test = read_crops(settings.test) if settings.test is not None else []
    check_pictures(test)  # now, rather than after the training
    base = _base(settings)
    held_out = split_groups([r.source_group for r in rows], settings.validation, settings.seed)
    listing = settings.data / "pairs.csv"
    digests = {"data": data_digest(settings.data, [listing, *(r.path for r in rows)])}
    if settings.test is not None:
        digests["test"] = data_digest(settings.test, [r.path for r in test])

    # Each purpose has its own stream, so that a change of one does not move the others.
    streams = np.random.SeedSequence(settings.seed).spawn(3)
    for_views, for_batches, for_intervals = (np.random.default_rng(s) for s in streams)
    detector = _detector(settings, base)
    pairs, count = cut_pairs(rows, settings.frames, settings.device, progress)
    bank = token_bank(detector, pairs, settings.views, settings.augment, for_views, progress)
    learning, validating = split_bank(bank, held_out)
    log, selected = fit(detector, bank, learning, validating, settings, for_batches, progress)
    results: dict[str, Any] = {
        "selected_epoch": selected,
        "selected_by": "validation video AUC, ties by the lower validation loss",
        "groups": {
            "train": len({bank.groups[i] for i in learning}),
            "validation": len(held_out & set(bank.groups)),
        },
        "crop_pairs": asdict(count) | {"train": len(learning), "validation": len(validating)},
        "validation": _judge_pairs(detector, bank, validating, settings, for_intervals),
    }
    if test:
        results["test"] = _judge_crops(detector, test, settings, for_intervals, progress)
    header = Header(
        name=settings.name,
        settings=detector.settings,
        base={"name": settings.base, "sha256": weights.manifest().bases[settings.base].sha256},
        training={
            "date": date,
            "data": settings.data.name,
            "test": settings.test.name if settings.test is not None else None,
            "licence_note": settings.licence_note,
            "digests": digests,
            "recipe": settings.recipe(),
            "results": results,
        },
        licence=settings.licence,
    )
    with part_folder(settings.out) as part:
        checkpoint.save(part / "detector.safetensors", detector, header, torch.float16)
        _write_log(part / "log.csv", log)
        _write_json(part / "results.json", results)
        _write_json(
            part / "settings.json",
            {"settings": asdict(settings), "date": date, "digests": digests} | _machine(),
        )
    return Trained(settings.out, settings.out / "detector.safetensors", results)


def split_groups(groups: Iterable[str], share: float, seed: int) -> set[str]:
    """The groups held out for validation, drawn by `seed`: `share` of them, at least one.

    Raises:
        DataError: fewer than two groups, so that one side would be empty.
    """
    names = sorted(set(groups))
    count = max(1, round(share * len(names)))
    if count >= len(names):
        raise DataError(
            f"{len(names)} source group(s) cannot be split into training and validation; add clips of"
            " other people, or hold out a smaller share"
        )
    return set(np.random.default_rng(seed).permutation(names)[:count].tolist())


def split_bank(bank: TokenBank, held_out: set[str]) -> tuple[list[int], list[int]]:
    """Indices of the bank's pairs to learn from and to validate on.

    Raises:
        DataError: no pair of one side could be cut.
    """
    learning = [i for i, group in enumerate(bank.groups) if group not in held_out]
    validating = [i for i, group in enumerate(bank.groups) if group in held_out]
    if not learning or not validating:
        side = "training" if not learning else "validation"
        raise DataError(
            f"no face could be cut from any {side} clip; add clips, or try another seed"
        )
    return learning, validating


def fit(
    detector: Detector,
    bank: TokenBank,
    learning: Sequence[int],
    validating: Sequence[int],
    settings: TrainSettings,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> tuple[list[Epoch], int]:
    """Train aggregation and head in place; they end as they were after the best epoch, in float16's steps.

    Each epoch shows every pair once, by one view drawn from its cached ones. Adam with decoupled weight
    decay (AdamW; plain Adam at 0) on the binary cross-entropy of the frame logit.

    Returns:
        The log, and which epoch was best by validation video AUC.

    Raises:
        DataError: the loss is not finite.
    """
    trained = [*detector.aggregation.parameters(), *detector.head.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=settings.lr, weight_decay=settings.weight_decay)
    views = bank.patches.shape[1]
    held, labels = _crops(bank, validating)
    log: list[Epoch] = []
    best: tuple[tuple[float, float], int, dict[str, Tensor]] | None = None
    for epoch in range(1, settings.epochs + 1):
        detector.train()
        total = 0.0
        order = rng.permutation(np.asarray(learning))
        for start in range(0, len(order), settings.batch // 2):
            chosen = order[start : start + settings.batch // 2]
            patches = bank.patches[chosen, rng.integers(views, size=len(chosen))]
            target = torch.tensor((0.0, 1.0), device=settings.device).repeat(len(chosen))
            logit, _ = detector.classify(patches.flatten(0, 1).to(settings.device))
            loss = nn.functional.binary_cross_entropy_with_logits(logit, target)
            if not torch.isfinite(loss):
                raise DataError(
                    f"training diverged: the loss is {loss.item()} in epoch {epoch}; lower --lr, and look"
                    " for damaged pictures in the data"
                )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(trained, settings.max_norm)
            optimizer.step()
            total += loss.item() * len(chosen)
        logits = _score(detector, bank, validating, settings)
        _, of_video, scores = metrics.video_scores(held, labels, logits)
        row = Epoch(
            epoch,
            total / len(order),
            float(np.logaddexp(0, np.where(labels == 1, -logits, logits)).mean()),
            metrics.auc(of_video, scores),
        )
        log.append(row)
        rank = (row.validation_video_auc, -row.validation_loss)
        if best is None or rank > best[0]:
            state = {name: value.half().float() for name, value in detector.trained_state().items()}
            best = rank, epoch, state
        if progress is not None:
            what = f"training (validation video AUC {row.validation_video_auc:.3f})"
            progress(what, epoch, settings.epochs)
    assert best is not None
    # Rounded as it will be stored, so that what is judged from here on is what is shipped.
    detector.load_state_dict(best[2], strict=False)
    detector.eval()
    return log, best[1]


def _crops(bank: TokenBank, pairs: Sequence[int]) -> tuple[list[str], Int[np.ndarray, " n"]]:
    """Video identities and labels of these pairs' crops, real and manipulated in turn."""
    videos = [f"{kind}/{bank.names[i]}" for i in pairs for kind in ("real", "fake")]
    return videos, np.tile([0, 1], len(pairs))


@torch.inference_mode()
def _score(
    detector: Detector, bank: TokenBank, pairs: Sequence[int], settings: TrainSettings
) -> Float[np.ndarray, " n"]:
    """Logits of these pairs' unaugmented crops, in the order of `_crops`."""
    detector.eval()
    patches = bank.patches[list(pairs), 0].flatten(0, 1)
    logits = [
        detector.classify(part.to(settings.device))[0].cpu()
        for part in torch.split(patches, settings.batch)
    ]
    return torch.cat(logits).numpy().astype(float)


def _judge_pairs(
    detector: Detector,
    bank: TokenBank,
    pairs: Sequence[int],
    settings: TrainSettings,
    rng: np.random.Generator,
) -> dict[str, Any]:
    videos, labels = _crops(bank, pairs)
    return metrics.summary(videos, labels, _score(detector, bank, pairs, settings), rng)


def _judge_crops(
    detector: Detector,
    rows: Sequence[CropRow],
    settings: TrainSettings,
    rng: np.random.Generator,
    progress: Progress | None,
) -> dict[str, Any]:
    """Score a crops folder, one batch at a time; its pictures were checked."""
    logits: list[np.ndarray] = []
    for start in range(0, len(rows), settings.batch):
        pictures = list(read_pictures(rows[start : start + settings.batch]))
        logits.append(detector.score(np.stack(pictures)).logit)
        if progress is not None:
            progress("judging the test set", min(start + settings.batch, len(rows)), len(rows))
    labels = np.array([row.label for row in rows])
    return metrics.summary(
        [row.video for row in rows], labels, np.concatenate(logits).astype(float), rng
    )


def _base(settings: TrainSettings) -> Path:
    """The base's verified file."""
    known = weights.manifest().bases
    if settings.base not in known:
        raise SettingsError(f"base: {settings.base!r} is none of {', '.join(known)}")
    return weights.base_file(known[settings.base], settings.offline)


def _detector(settings: TrainSettings, base: Path) -> Detector:
    """A detector on its frozen base whose own part is drawn from the seed."""
    entry = weights.manifest().bases[settings.base]
    detector = Detector(
        DetectorSettings(
            tower=entry.tower,
            queries=settings.queries,
            heads=settings.heads,
            adapter=settings.adapter,
        )
    )
    detector.tower.visual.load_state_dict(checkpoint.read_base(base))
    detector.tower.to(getattr(torch, settings.precision)).requires_grad_(False)
    initialise(detector, torch.Generator().manual_seed(settings.seed))
    return detector.to(settings.device).eval()


def initialise(detector: Detector, generator: torch.Generator) -> None:
    """Draw what is trained from `generator`: torch's own initial laws, which otherwise use its global one."""
    attention = detector.aggregation.attention
    nn.init.normal_(detector.aggregation.query, std=0.02, generator=generator)
    nn.init.xavier_uniform_(attention.in_proj_weight, generator=generator)
    for linear in (attention.out_proj, detector.head):
        bound = linear.in_features**-0.5
        nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
        nn.init.zeros_(linear.bias)


def data_digest(folder: Path, paths: Iterable[Path]) -> str:
    """SHA-256 over the lines "<sha256>  <path within folder>" of the files, as sha256sum prints them, sorted.

    The lines are sorted by path. It changes with any byte of any file used, and with no other file.
    """
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in sorted(paths)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _machine() -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "versions": {"deepscan": deepscan.__version__, "python": platform.python_version()}
        | versions,
        "threads": torch.get_num_threads(),
    }


def _write_log(path: Path, log: Sequence[Epoch]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Epoch.__slots__)
        writer.writerows([getattr(row, name) for name in Epoch.__slots__] for row in log)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, default=str, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
