"""Trains a detector: one loop, with validation, averaged weights and a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, distributed

from deepscan.data.crops import CropRow
from deepscan.errors import DataError, SettingsError
from deepscan.judgement import metrics
from deepscan.model.detector import Detector
from deepscan.records import Pixels
from deepscan.shapes import Float
from deepscan.training.data import CropSampler, TrainingCrops, batches, pictures
from deepscan.training.folder import Best, Row, RunFolder
from deepscan.training.rows import Splits
from deepscan.training.settings import TrainSettings
from deepscan.training.step import Learner, Ranks, Targets, kept_patches

# On a GPU, steps between two looks at the losses: each look waits for the GPU to finish.
GPU_LOG_EVERY = 10


@runtime_checkable
class TrainingProgress(Protocol):
    """Called with what is being done, how much of it is done, how much there is, and a note."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None: ...


def fit(
    detector: Detector,
    splits: Splits,
    settings: TrainSettings,
    folder: RunFolder,
    ranks: Ranks,
    store: Callable[[Best], None],
    progress: TrainingProgress | None = None,
    say: Callable[[str], None] | None = None,
) -> Best:
    """Train in place, from the newest state in `folder` on; `store` is called when validation finds a best.

    With a running average of the weights, that is what stands in `detector` while it is validated and
    stored.

    Raises:
        DataError: a loss is not finite; the last good state and the best checkpoint stay.
    """
    sampler = CropSampler(
        splits.train,
        settings.pseudo,
        settings.seed,
        settings.blend.swap,
        settings.sampling == "natural",
    )
    units = settings.batch // sampler.size
    if units % (ranks.world * settings.accumulate):
        raise SettingsError(
            f"batch: {settings.batch} crops cannot be divided among {ranks.world} processes in"
            f" {settings.accumulate} part(s) of whole pairs"
        )
    per_epoch = max(1, len(splits.train) // settings.batch)
    steps = min(settings.steps or settings.epochs * per_epoch, settings.epochs * per_epoch)
    learner = Learner(detector, settings, ranks)
    average = [w.detach().clone() for w in learner.trained] if settings.average else []
    validate_every = settings.validate_every or per_epoch
    start, best = folder.restore(detector, learner.optimizer, average)
    if ranks.leads:
        folder.open_log(start)
    size = detector.tower.size
    patches = (size.image_size // size.patch_size) ** 2
    dataset = TrainingCrops(
        sampler, settings.augment, size, settings.forged_share, settings.blend, settings.view
    )
    meter, epoch = Meter(settings.batch, start), list[Row]()
    pin = ranks.device != "cpu"
    shown = batches(dataset, start, steps, units, ranks.rank, ranks.world, settings.workers, pin)
    for step, (crops, *targets) in enumerate(shown, start + 1):
        detector.train()
        lr = settings.rate(step - 1, steps)
        norm, terms = learner.step(
            crops, Targets(*targets), lr, kept_patches(patches, settings, step)
        )
        for part in terms:
            meter.add(part)
        if settings.average:
            _average(average, learner.trained, settings.average, step)

        judged = step % validate_every == 0 or step == steps
        saves = judged or step % settings.save_every == 0
        if not (ranks.device == "cpu" or saves or step % GPU_LOG_EVERY == 0):
            continue
        row = meter.read(step, -(-step // per_epoch), lr, norm, ranks)
        if judged:
            with _averaged(average, learner.trained) if settings.average else nullcontext():
                video_auc, frame_auc, loss_there = validate(detector, splits.val, settings, ranks)
                row = replace(
                    row,
                    validation_video_auc=video_auc,
                    validation_frame_auc=frame_auc,
                    validation_loss=loss_there,
                )
                here = Best(row.epoch, video_auc, loss_there)
                if best is None or here.rank > best.rank:
                    best = here
                    if ranks.leads:
                        store(best)
        epoch.append(row)
        if ranks.leads:
            folder.add(row)
            if saves:
                folder.save(detector, learner.optimizer, step, best, average)
            if judged:
                folder.draw()
                if say is not None:
                    say(_line(epoch, -(-steps // per_epoch)))
        if judged:
            epoch.clear()
        _tell(progress, "training", step, steps, _note(row, best))
        meter.pause()
    if best is None:
        raise DataError(
            "nothing was trained: the state in the run folder is already past the last step"
        )
    return best


@torch.no_grad()
def _average(average: list[Tensor], trained: Sequence[Tensor], decay: float, step: int) -> None:
    """Move the running average of the weights towards them; its first value is the weights' after a step.

    Early on it moves faster, so that the start, which nothing has learnt, is soon forgotten.
    """
    share = 1.0 if step == 1 else 1 - min(decay, step / (step + 9))
    torch._foreach_lerp_(average, list(trained), share)


@contextmanager
def _averaged(average: Sequence[Tensor], trained: Sequence[Tensor]) -> Iterator[None]:
    """The running average in the weights' place, for a while."""
    current = [weight.detach().clone() for weight in trained]
    with torch.no_grad():
        for weight, value in zip(trained, average, strict=True):
            weight.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(trained, current, strict=True):
                weight.copy_(value)


def validate(
    detector: Detector, rows: Sequence[CropRow], settings: TrainSettings, ranks: Ranks
) -> tuple[float, float, float]:
    """Video AUC, frame AUC and mean cross-entropy on all rows, which are shared out over the ranks."""
    mine = score(detector, rows[ranks.rank :: ranks.world], settings)
    gathered: list[Any] = [mine]
    if ranks.world > 1:
        gathered = [None] * ranks.world
        distributed.all_gather_object(gathered, mine)
    logits = np.empty(len(rows))
    for rank, part in enumerate(gathered):
        logits[rank :: ranks.world] = part
    labels = np.array([row.label for row in rows])
    _, of_video, scores = metrics.video_scores([row.video for row in rows], labels, logits)
    cross_entropy = np.logaddexp(0, np.where(labels == 1, -logits, logits)).mean()
    return metrics.auc(of_video, scores), metrics.auc(labels, logits), float(cross_entropy)


@torch.no_grad()
def score(
    detector: Detector,
    rows: Sequence[CropRow],
    settings: TrainSettings,
    progress: TrainingProgress | None = None,
    stage: str = "validating",
    change: Callable[[Pixels], Pixels] | None = None,
) -> Float[np.ndarray, " n"]:
    """Logits of all rows' crops in their order, unaugmented, or as `change` leaves them."""
    detector.eval()
    device = detector.mean.device.type
    found: list[Tensor] = []
    for crops in pictures(rows, settings.batch, settings.workers, change, settings.blend):
        with torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            found.append(detector(crops, patches=False).logit.float().cpu())
        _tell(progress, stage, sum(map(len, found)), len(rows))
    return torch.cat(found).numpy().astype(float) if found else np.empty(0)


class Meter:
    """Means of the terms since the last reading, and the speed."""

    def __init__(self, batch: int, step: int) -> None:
        self._batch, self._step = batch, step
        self._sums: dict[str, Tensor] = {}
        self._parts = 0
        self._since = time.perf_counter()

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add the terms of one part, without waiting for the device."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._parts += 1

    def read(self, step: int, epoch: int, lr: float, norm: Tensor, ranks: Ranks) -> Row:
        """The row of the log for the steps since the last one, averaged over ranks.

        Raises:
            DataError: a term is not finite (the SNR may be: it has no value without spread).
        """
        values = torch.stack([*self._sums.values(), norm]).double() / self._parts
        values[-1] *= self._parts
        if ranks.world > 1:
            distributed.all_reduce(values)
            values /= ranks.world
        means = dict(zip([*self._sums, "gradient"], values.tolist(), strict=True))
        snr = means.pop("snr", None)
        if not all(np.isfinite(value) for value in means.values()):
            found = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
            raise DataError(
                f"training diverged at step {step} ({found}); the last good state and the best checkpoint are"
                " kept; start again with a lower --lr, and check the data for damaged pictures"
            )
        now = time.perf_counter()
        row = Row(
            step=step,
            epoch=epoch,
            lr=lr,
            loss=means["loss"],
            classification=means["classification"],
            contrast=means.get("contrast"),
            alignment=means.get("alignment"),
            localisation=means.get("localisation"),
            penalty=means.get("penalty"),
            snr=snr if snr is not None and np.isfinite(snr) else None,
            gradient=means["gradient"],
            images_per_second=self._batch * (step - self._step) / (now - self._since),
            memory_mb=_memory(ranks.device),
        )
        self._sums, self._parts, self._step = {}, 0, step
        return row

    def pause(self) -> None:
        """Exclude the time since the last reading, which was not training."""
        self._since = time.perf_counter()


def _memory(device: str) -> float | None:
    """Peak memory of this process in MB; None if the system does not report it."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _line(rows: Sequence[Row], epochs: int) -> str:
    """What was done since the last validation in one line: means over its rows of what each measured."""
    names: tuple[str, ...] = ("loss", "classification", "contrast", "alignment", "localisation")
    names += ("penalty", "snr", "validation_video_auc", "validation_loss")
    words = []
    for name in names:
        measured = [value for row in rows if (value := getattr(row, name)) is not None]
        if measured:
            words.append(f"{name} {np.mean(measured):.3f}")
    return f"epoch {rows[-1].epoch}/{epochs}: {', '.join(words)}, {_speed(rows[-1])}"


def _note(row: Row, best: Best | None) -> str:
    """A step in a few words, beside the progress bar."""
    words = [f"loss {row.loss:.3f}", _speed(row)]
    if row.snr is not None:
        words.append(f"SNR {row.snr:.2f}")
    if best is not None:
        words.append(f"best AUC {best.video_auc:.3f}")
    return ", ".join(words)


def _speed(row: Row) -> str:
    memory = "" if row.memory_mb is None else f", {row.memory_mb:.0f} MB"
    return f"{row.images_per_second:.1f} images/s{memory}"


def _tell(
    progress: TrainingProgress | None, stage: str, done: int, total: int, note: str = ""
) -> None:
    if progress is not None:
        progress(stage, done, total, note)
