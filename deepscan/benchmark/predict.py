"""Checkpoints + crops -> predictions; what is scored already is never scored again."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepscan.batches.pool import cores
from deepscan.benchmark import predictions
from deepscan.benchmark.datasets import Crops, official
from deepscan.benchmark.evaluation import FRAMES
from deepscan.benchmark.looks import (
    Looks,
    looked_at,
    looks_file,
    read_looks,
    shrunk,
    thumbnail,
    write_looks,
)
from deepscan.benchmark.predictions import AVERAGED, PLAIN
from deepscan.config import Scoring
from deepscan.data.crops import Cropless, CropRow, read_cropless, read_crops
from deepscan.data.distortions import Distortion
from deepscan.data.prepare import PrepareSettings, prepare
from deepscan.faces.alignment import seen
from deepscan.files import sha256
from deepscan.flow import Clock, Progress
from deepscan.model.detector import Detector
from deepscan.model.header import Header, read_header
from deepscan.model.networks import load_detector, weights_file
from deepscan.shapes import Float, UInt8
from deepscan.training import identity
from deepscan.training.data import picture, pictures
from deepscan.training.identity import Seen, crop_digest
from deepscan.training.losses import fake_leaning

# Crops between two parts written: what a killed run loses at most.
PART = 4096
ZOOM = 0.9  # share of the crop's side that the second scale of averaging keeps
VIEWS_AVERAGED = 4  # forward passes a crop: two scales, each mirrored too


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint to score with, and the name for its predictions."""

    name: str
    checkpoint: Path
    weights: str  # its SHA-256
    seed: int | None = None
    trained_on: str = ""  # what its checkpoint says
    seen: Seen | None = (
        None  # what it learnt from, was selected by and calibrated on; None: not stated
    )


def candidate(
    weights: str, name: str | None = None, seed: int | None = None, own_validation: bool = False
) -> Candidate:
    """The checkpoint that --weights means, under its own name or another.

    Args:
        own_validation: it may be judged on what it was selected by and calibrated on.

    Raises:
        WeightsError: it is not there or not deepscan's.
    """
    path = weights_file(weights)
    header = read_header(path)
    data = str(header.training.get("data", "data that its checkpoint does not name"))
    seen = identity.stated(header.training, ("train",) if own_validation else identity.SPLITS)
    return Candidate(name or header.name, path, sha256(path), seed, data, seen)


@dataclass(frozen=True, slots=True)
class Scored:
    """How many crops were scored, in how many seconds, and for which share of them the detector was busy."""

    crops: int
    seconds: float
    busy: float


@functools.lru_cache(maxsize=1)
def _loaded(asked: Candidate, scoring: Scoring) -> tuple[Detector, Header]:
    """The detector and its checkpoint's header, kept for the next set."""
    detector, header, _, _ = load_detector(
        replace(scoring, weights=str(asked.checkpoint)), pack=True
    )
    return detector, header


def missing(
    folder: Path, asked: Candidate, crops: Crops, view: str = PLAIN
) -> tuple[list[CropRow], list[Cropless]]:
    """The rows of a set, by whole videos, for which `folder` has no predictions.

    A video whose crops are others than those that were scored counts as missing.
    """
    before = predictions.done(folder, asked.weights, crops.short, view)
    now: dict[str, set[str | None]] = {video.video: {None} for video in crops.cropless}
    for row in crops.rows:
        now.setdefault(row.video, set()).add(crop_digest(row.path))
    there = {video for video, digests in now.items() if before.get(video) == digests}
    rows = [row for row in crops.rows if row.video not in there]
    return rows, [video for video in crops.cropless if video.video not in there]


def score(
    folder: Path,
    asked: Candidate,
    crops: Crops,
    scoring: Scoring,
    workers: int,
    view: str = PLAIN,
    change: Distortion | None = None,
    progress: Progress | None = None,
) -> Scored | None:
    """Add the missing scores of a set to the predictions in `folder`; None if none are missing.

    Frames of many videos share batches, read ahead by `workers` processes. An interrupted run has
    written its finished videos, except for the last few thousand crops.

    Args:
        view: the name its rows carry; AVERAGED averages over mirrored and zoomed copies.
        change: what is done to each crop first.

    Raises:
        DataError: a crop cannot be read, or the checkpoint learnt from it.
        WeightsError, OutputError.
    """
    if asked.seen is not None:
        identity.refuse(asked.seen, crops.rows, f"{crops.short}: {asked.name} was trained on")
    rows, cropless = missing(folder, asked, crops, view)
    if not rows and not cropless:
        return None
    rescored = {row.video for row in rows} | {video.video for video in cropless}
    predictions.drop(folder, asked.weights, crops.short, view, rescored)
    detector, header = _loaded(asked, scoring)
    own = {
        "set": crops.short, "detector": asked.name, "seed": asked.seed, "weights": asked.weights,
        "threshold": None if header.calibration is None else header.calibration.high, "view": view,
    }  # fmt: skip
    waiting: list[tuple[CropRow, float]] = []
    finished = 0
    began, clock = time.perf_counter(), Clock()
    for logits in _logits(detector, rows, scoring.batch, workers, view == AVERAGED, change, clock):
        waiting += zip(rows[finished : finished + len(logits)], logits.tolist(), strict=True)
        finished += len(logits)
        if len(waiting) >= PART and finished < len(rows):
            last = rows[finished].video  # its other crops are still to come
            ready = [pair for pair in waiting if pair[0].video != last]
            if ready:
                _write(folder, own, ready, ())
                waiting = waiting[len(ready) :]
        if progress is not None:
            progress(f"scoring {crops.short}", finished, len(rows))
    _write(folder, own, waiting, cropless)
    took = time.perf_counter() - began
    return Scored(len(rows), took, clock.seconds.get("scoring", 0.0) / took)


def _write(
    folder: Path,
    own: dict[str, Any],
    pairs: Sequence[tuple[CropRow, float]],
    cropless: Sequence[Cropless],
) -> None:
    rows = [
        {
            **own, "video": r.video, "label": r.label, "method": r.method, "split": r.split, "frame": r.frame,
            "crop": crop_digest(r.path), "time": r.time, "face_size": r.face_size, "logit": logit,
            "state": "scored", "track": None,
        }
        for r, logit in pairs
    ] + [
        {
            **own, "video": v.video, "label": v.label, "method": v.method, "split": v.split, "frame": None,
            "crop": None, "time": None, "face_size": None, "logit": None, "state": v.state, "track": None,
        }
        for v in cropless
    ]  # fmt: skip
    predictions.append(
        folder, {name: [row[name] for row in rows] for name in predictions.SCHEMA.names}
    )


def _logits(
    detector: Detector,
    rows: Sequence[CropRow],
    batch: int,
    workers: int,
    averaged: bool,
    change: Distortion | None,
    clock: Clock,
) -> Iterator[Float[np.ndarray, " b"]]:
    """Logits of all rows' crops, a batch at a time; what the detector takes goes to `clock` as "scoring"."""
    for crops in pictures(rows, batch, workers, change):
        looks = averaged_views(crops) if averaged else [crops]
        with clock("scoring"):
            found = [detector.score(look.numpy()).logit for look in looks]
        yield np.mean(found, axis=0).astype(float)


def averaged_views(crops: UInt8[Tensor, "b h w 3"]) -> list[UInt8[Tensor, "b _h _w 3"]]:
    """Each crop as it is and its middle, both also mirrored; the detector brings them to its own size."""
    side = crops.shape[1]
    margin = round(side * (1 - ZOOM) / 2)
    scales = [crops, crops[:, margin : side - margin, margin : side - margin].contiguous()]
    return [view for scale in scales for view in (scale, scale.flip(2))]


# --- where a detector looks ------------------------------------------------------------------------


def look(folder: Path, asked: Candidate, crops: Crops, scoring: Scoring, workers: int) -> Looks:
    """A detector's attention on some crops of a set, computed once and kept in `folder`.

    FLCL's delta is by the prototypes in its checkpoint, nan where there are none.
    """
    path = looks_file(folder, asked.name, asked.seed, crops.short, asked.weights)
    if path.is_file():
        return read_looks(path)
    rows = looked_at(crops.rows)
    detector, _ = _loaded(asked, scoring)
    queries, cls, delta, evidence = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    with torch.inference_mode():
        for batch in pictures(rows, scoring.batch, workers):
            answer = detector(batch)
            cls.append(answer.cls_attention.float().cpu())
            if answer.query_attention is not None:
                queries.append(answer.query_attention.float().cpu())
            if answer.evidence is not None:
                evidence.append(answer.evidence.float().cpu())
            delta.append(_delta(answer.patches, detector.prototypes).cpu())
    pixels = [picture(row) for row in rows]
    left, top, size = seen(detector.settings.view)
    here = np.s_[top : top + size, left : left + size]
    found = Looks(
        asked.name,
        [row.video for row in rows],
        np.array([row.label for row in rows]),
        torch.cat(queries).numpy() if queries else np.zeros((0, 0, 0), np.float32),
        torch.cat(cls).numpy(),
        torch.cat(delta).numpy(),
        torch.cat(evidence).numpy() if evidence else np.zeros((0, 0), np.float32),
        np.stack([shrunk(mask[here]) for _, mask in pixels]),
        np.array([row.mask is not None for row in rows]),
        np.stack([thumbnail(crop[here]) for crop, _ in pixels]),
    )
    write_looks(path, found)
    return found


def _delta(
    patches: Float[Tensor, "b p d"], prototypes: Float[Tensor, "2 d"] | None
) -> Float[Tensor, "b p"]:
    if prototypes is None:
        return torch.full(patches.shape[:2], torch.nan)
    return fake_leaning(patches, *prototypes)


# --- how long it takes -----------------------------------------------------------------------------


def speed(asked: Candidate, crops: Crops, scoring: Scoring, workers: int) -> float:
    """Crops per second, measured on two batches after a warm-up batch, for estimates."""
    detector, _ = _loaded(asked, scoring)
    rows = (crops.rows * (3 * scoring.batch))[: 3 * scoring.batch]
    begun, count = 0.0, 0
    for i, logits in enumerate(
        _logits(detector, rows, scoring.batch, workers, False, None, Clock())
    ):
        if i == 0:
            begun = time.perf_counter()
        else:
            count += len(logits)
    return count / (time.perf_counter() - begun)


def distorted(
    crops: Crops, distortion: Distortion, root: Path | None, folder: Path, progress: Progress | None
) -> Crops:
    """The same test videos, cut again from distorted frames and kept in `folder`.

    At as many instants as the undistorted ones have crops, up to the FRAMES that count.

    Raises:
        DataError: the set's videos are not there in its official layout.
    """
    source = official(crops.test_set, root)
    out = folder / f"{distortion.kind}-{distortion.level}"
    most = max(Counter(row.video for row in crops.rows).values(), default=FRAMES)
    settings = PrepareSettings(min(most, FRAMES), jobs=cores(), distortion=distortion)
    prepare(source, out, settings, progress)
    wanted = {row.video for row in crops.rows} | {video.video for video in crops.cropless}
    names = [n for n in crops.test_set.listings if (out / f"{n}.json").is_file()]
    rows = [r for r in read_crops(out, names) if r.video in wanted and r.split == "test"]
    without = [v for v in read_cropless(out, names) if v.video in wanted and v.split == "test"]
    return Crops(crops.test_set, out, rows, without)
