"""A training run from its settings to its results: data, base, the loop, and the final test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepscan.data.crops import CropRow
from deepscan.errors import DataError, SettingsError
from deepscan.files import sha256
from deepscan.judgement import metrics
from deepscan.model import adapters, checkpoint, weights
from deepscan.model.catalogue import BaseEntry
from deepscan.model.detector import Detector
from deepscan.model.header import Header, read_header
from deepscan.records import Calibration
from deepscan.shapes import Float
from deepscan.training import calibrate, identity
from deepscan.training.data import pictures
from deepscan.training.folder import Best, RunFolder, check_digests
from deepscan.training.identity import Seen
from deepscan.training.loop import TrainingProgress, fit, score
from deepscan.training.rows import Splits, own_crops, own_digest, read_splits
from deepscan.training.settings import TrainSettings
from deepscan.training.splits import BLENDED, blended, spread
from deepscan.training.step import Ranks, process_group

PROTOTYPE_CROPS = 128  # of each class, some 25,000 patches: enough for a mean

# Crops by which the layers that are read are brought to one scale.
SCALE_CROPS = 64


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run."""

    folder: Path
    checkpoint: Path
    results: dict[str, Any]


def train(
    settings: TrainSettings,
    date: str,
    progress: TrainingProgress | None = None,
    say: Callable[[str], None] | None = None,
) -> Trained:
    """Train on `settings.data`, select the epoch on its validation part, test once on `settings.test`.

    Args:
        date: UTC day of the run, "2026-01-31"; it goes into the checkpoint. The same settings, data and
            date give the same file on the same machine.
        say: called with a line after each epoch.

    Returns:
        The run folder, see `training.run`.

    Raises:
        DataError: data missing, unreadable, one-sided or too little to split, or training diverges.
        OutputError: `settings.out` exists or cannot be written.
        WeightsError: the base is unknown or cannot be obtained.
    """
    with process_group(settings.device) as ranks:
        folder = RunFolder(settings.out)
        splits, digests = read_splits(settings, ranks, say)
        base = _base(settings)
        if ranks.leads:
            folder.create(settings, digests, date)
            folder.write_seen(
                {"train": splits.train, "validation": splits.val, "test": splits.test}
            )
        return _run(settings, folder, splits, digests, date, base, ranks, progress, say)


def resume(
    folder: Path,
    progress: TrainingProgress | None = None,
    say: Callable[[str], None] | None = None,
    device: str | None = None,
) -> Trained:
    """Continue the run in `folder` from its newest state, to the same weights as without interruption.

    Args:
        device: another one than the run began on.

    Raises:
        SettingsError: `folder` is not a run.
        DataError: the data have changed since; and as `train`.
    """
    settings, stated, date = RunFolder(folder).reopen()
    settings = replace(settings, out=folder, device=device or settings.device)
    with process_group(settings.device) as ranks:
        splits, digests = read_splits(settings, ranks)
        if ranks.leads:
            check_digests(stated, digests)
        again = RunFolder(folder)
        return _run(settings, again, splits, stated, date, _base(settings), ranks, progress, say)


def _run(
    settings: TrainSettings,
    folder: RunFolder,
    splits: Splits,
    digests: dict[str, str],
    date: str,
    base: tuple[BaseEntry, Path],
    ranks: Ranks,
    progress: TrainingProgress | None,
    say: Callable[[str], None] | None,
) -> Trained:
    entry, base_path = base
    seen: dict[str, Any] = {}
    if ranks.leads:
        seen = {"train": Seen.of(splits.train).plain(), "validation": Seen.of(splits.val).plain()}
    detector = build(settings, entry.tower, base_path, splits.train).to(ranks.device)

    def header(results: dict[str, Any], calibration: Calibration | None = None) -> Header:
        return Header(
            name=settings.name,
            settings=detector.settings,
            base={"name": entry.name, "sha256": entry.sha256},
            training={
                "date": date,
                "data": ", ".join(folder.name for folder in settings.data),
                "test": settings.test.name if settings.test is not None else None,
                "licence_note": settings.licence_note,
                "digests": digests,
                "seen": seen,
                "recipe": settings.recipe(),
                "results": results,
            },
            licence=settings.licence,
            calibration=calibration,
        )

    def keep(best: Best) -> None:
        found = {"selected_epoch": best.epoch, "validation_video_auc": best.video_auc}
        checkpoint.save(folder.checkpoint, detector, header(found), torch.float16)

    try:
        best = fit(detector, splits, settings, folder, ranks, keep, progress, say)
    finally:
        folder.close()
    results: dict[str, Any] = {
        "selected_epoch": best.epoch,
        "selected_by": "validation video AUC, ties by the lower validation loss",
        "crops": {"train": len(splits.train), "validation": len(splits.val)},
    }
    if ranks.leads:
        # Judged as it was stored and as `detect` loads it: rounded, merged, in the tower's own type.
        dtype = getattr(torch, settings.precision)
        stored, _ = checkpoint.load(folder.checkpoint, base_path, dtype)
        stored.to(ranks.device)
        rng = np.random.default_rng(settings.seed)
        judged: dict[str, Float[np.ndarray, " n"]] = {}
        for name, rows in (("validation", splits.val), ("test", splits.test)):
            if rows:
                logits = score(stored, rows, settings, progress, f"judging {name}")
                judged[name] = logits
                folder.write_predictions(name, rows, logits)
                labels = np.array([row.label for row in rows])
                results[name] = metrics.summary([row.video for row in rows], labels, logits, rng)
        what = "held-out people of " + ", ".join(folder.name for folder in settings.data)
        found = _calibration(stored, splits.val, settings, progress, what, judged["validation"])
        means = _prototypes(stored, splits.train, settings)
        checkpoint.write(
            folder.checkpoint,
            {**checkpoint.read_tensors(folder.checkpoint), checkpoint.PROTOTYPES: means},
            header(results, None if found is None else found[0]),
        )
        folder.write_json("results.json", results)
    return Trained(folder.folder, folder.checkpoint, results)


def calibrate_anew(
    weights_file: Path,
    out: Path,
    settings: TrainSettings,
    progress: TrainingProgress | None = None,
    say: Callable[[str], None] | None = None,
) -> Calibration:
    """Write a copy of a checkpoint to `out`, calibrated and judged on `settings.data`.

    It must have learnt nothing of these. The copy goes by `settings.name`; of the other settings those
    matter that say how it is carried out.

    Raises:
        DataError: it was trained on these data, or there are fewer than ten videos of a class.
        OutputError: `out` cannot be written.
        WeightsError: see `checkpoint.load`.
    """
    header = read_header(weights_file)
    base = weights.base_file(weights.base_by_hash(header.base["sha256"]), settings.offline)
    stored, _ = checkpoint.load(weights_file, base, getattr(torch, settings.precision))
    stored.to(settings.device)
    rows = [row for folder in settings.data for row in own_crops(folder, None)]
    seen = identity.stated(header.training, ("train", "validation"))
    if seen is not None:
        identity.refuse(seen, rows, f"{weights_file.name} was trained on", people=True)
    elif say is not None:
        say(
            f"{weights_file.name} is of a version that kept no list of what it was trained on: that"
            f" these are different videos is not checked"
        )
    names = ", ".join(folder.name for folder in settings.data)
    learnt = str(header.training.get("data", "")).split(", ")
    unseen = not {folder.name for folder in settings.data} & set(learnt)
    found = _calibration(stored, rows, settings, progress, names, unseen=unseen)
    if found is None:
        raise DataError(
            f"{names}: fewer than {calibrate.FEWEST} real or manipulated videos, so no error rate"
            f" can be stated"
        )
    calibration, judged = found
    training = header.training | {
        "test": names,
        "results": header.training.get("results", {}) | {"test": judged},
        "digests": header.training.get("digests", {})
        | {"test": ", ".join(own_digest(folder, rows) for folder in settings.data)},
    }
    if seen is not None:
        training["seen"] = header.training["seen"] | {"calibration": Seen.of(rows).plain()}
    checkpoint.write(
        out,
        checkpoint.read_tensors(weights_file),
        replace(header, name=settings.name, training=training, calibration=calibration),
    )
    return calibration


def _calibration(
    detector: Detector,
    rows: Sequence[CropRow],
    settings: TrainSettings,
    progress: TrainingProgress | None,
    what: str,
    logits: Float[np.ndarray, " n"] | None = None,
    unseen: bool = False,
) -> tuple[Calibration, dict[str, Any]] | None:
    """Calibration and performance of video scores on folders with manipulations.

    None with too few videos. `logits`: of the rows, where they were scored already.
    """
    every = rows
    rows = [row for row in rows if row.method != BLENDED]
    folder_of: Callable[[CropRow], str] = lambda row: row.video.split("/")[0]
    manipulated = {folder_of(row) for row in rows if row.label == 1}
    rows = [row for row in rows if folder_of(row) in manipulated]
    videos, labels = [row.video for row in rows], np.array([row.label for row in rows], int)
    counts = [len({row.video for row in rows if row.label == label}) for label in (0, 1)]
    if min(counts) < calibrate.FEWEST:
        return None
    if logits is None:
        logits = score(detector, rows, settings, progress, "calibrating")
    else:
        kept = set(map(id, rows))
        logits = logits[[id(row) in kept for row in every]]
    names, of_video, scores = metrics.video_scores(videos, labels, logits)
    shows = [{row.video: row for row in rows}[name] for name in names]
    ties = [
        [f"{folder_of(row)}/{row.group}" for row in shows],
        [row.source or row.video for row in shows],
    ]
    weak = [
        metrics.video_scores(
            videos,
            labels,
            score(detector, rows, settings, progress, f"calibrating: {name}", change),
        )[2]
        for name, change in calibrate.WEAK.items()
    ]
    own: dict[str, list[float]] = {}
    for video, logit in zip(videos, logits.tolist(), strict=True):
        own.setdefault(video, []).append(logit)
    frames = [np.array(own[name]) for name in names]
    found = calibrate.fit(of_video, scores, ties, weak, what, frames, unseen)
    assert found is not None
    rng = np.random.default_rng(settings.seed)
    return found, metrics.summary(videos, labels, logits, rng)


@torch.no_grad()
def _prototypes(
    detector: Detector, rows: Sequence[CropRow], settings: TrainSettings
) -> Float[Tensor, "2 d"]:
    """The mean patches of some real and some manipulated training crops."""
    of_label = [[row for row in rows if row.label == label] for label in (0, 1)]
    of_label[1] = of_label[1] or [blended(row) for row in of_label[0]]
    means = []
    for own in of_label:
        chosen = spread(own, PROTOTYPE_CROPS)
        total, count = torch.zeros(detector.tower.width, dtype=torch.float64), 0
        for crops in pictures(chosen, settings.batch, settings.workers, blend=settings.blend):
            patches = detector(crops).patches.double().cpu()
            total += patches.sum((0, 1))
            count += patches.shape[0] * patches.shape[1]
        means.append(total / count)
    return torch.stack(means).float()


def build(
    settings: TrainSettings,
    tower: str,
    base: Path | None,
    rows: Sequence[CropRow] = (),
) -> Detector:
    """The detector at the start of training, initialised from the seed.

    Args:
        base: the tower's weights; None: random ones.
        rows: crops of which some bring the layers that are read, where they are named, to one scale.
    """
    detector = Detector(settings.detector(tower))
    if base is not None:
        adapters.load_base(detector.tower, checkpoint.read_base(base))
    detector.initialise(torch.Generator().manual_seed(settings.seed))
    if rows and settings.layers is not None:
        crops = next(pictures(spread(rows, SCALE_CROPS), SCALE_CROPS, 0))
        detector.standardise(detector.tokens(detector.images(crops)))
    if settings.precision == "bfloat16":
        adapters.cast_frozen(detector.tower, torch.bfloat16)
    detector.tower.recompute = settings.recompute
    return detector


def _base(settings: TrainSettings) -> tuple[BaseEntry, Path]:
    """What `settings.base` means, a name or a file, and its verified file.

    Raises:
        SettingsError: neither; or the file is not a base that deepscan knows, so that no detector on it would
            find it again.
    """
    bases = weights.catalogue().bases
    if settings.base in bases:
        entry = bases[settings.base]
        return entry, weights.base_file(entry, settings.offline)
    path = Path(settings.base)
    if not path.is_file():
        raise SettingsError(
            f"base: {settings.base!r} is not one of {', '.join(bases)}, and not a file"
        )
    digest = sha256(path)
    for entry in bases.values():
        if entry.sha256 == digest:
            return entry, path
    raise SettingsError(f"base: {path} (SHA-256 {digest}) is not one of {', '.join(bases)}")
