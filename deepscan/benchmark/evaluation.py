"""Turns predictions into numbers: two protocols, every measure with its interval, paired comparisons.

"deepscan": a video is its identity, its crops are spread evenly, its score is the mean of their logits.
"deepfakebench", for comparison with published numbers: videos are distinguished by their folder's name alone,
the first crops count, the score is the mean of probabilities, and a video merged of both labels is real
unless all its crops are manipulated (its code rounds the mean label down).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath

import numpy as np
from scipy.special import expit

from deepscan.benchmark.predictions import Scored
from deepscan.errors import DataError
from deepscan.judgement import metrics
from deepscan.shapes import Bool, Float, Int

FRAMES = 32  # of a video in testing
ROUNDS = 1000  # of the bootstrap
LEVELS = (0.025, 0.975)  # what its 95 % intervals run between

Rounds = Float[np.ndarray, " rounds"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval over videos, and the bootstrap's rounds.

    The interval is the rounds', unless `interval` says another: metrics.auc_interval's for few videos.

    Rounds of one set draw the same videos whatever detector or rule is judged: the difference of two
    estimates is a paired comparison.
    """

    value: float
    rounds: Rounds = field(repr=False, compare=False)
    interval: tuple[float, float] | None = None

    @property
    def low(self) -> float:
        return (
            float(np.quantile(self.rounds, LEVELS[0]))
            if self.interval is None
            else self.interval[0]
        )

    @property
    def high(self) -> float:
        return (
            float(np.quantile(self.rounds, LEVELS[1]))
            if self.interval is None
            else self.interval[1]
        )

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, self.rounds - other.rounds)


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over sets, whose rounds are independent, or over seeds, whose rounds are paired."""
    if len(estimates) == 1:
        return estimates[0]
    return Estimate(
        float(np.mean([e.value for e in estimates])),
        np.mean([e.rounds for e in estimates], axis=0),
    )


@dataclass(frozen=True, slots=True)
class Videos:
    """Video scores of one set under a protocol, v of them."""

    name: str  # of the set
    names: list[str]
    labels: Int[np.ndarray, " v"]
    scores: Float[np.ndarray, " v"]
    seed: int | None = None  # of the detector's training

    def draws(self) -> Int[np.ndarray, "rounds v"]:
        """The bootstrap's rounds: a function of the set and its videos' labels alone."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        return metrics.resample(self.labels, rng, ROUNDS)

    def only(self, kept: Bool[np.ndarray, " v"]) -> Videos:
        """Only the videos that are `kept`."""
        names = [name for name, keep in zip(self.names, kept, strict=True) if keep]
        return Videos(self.name, names, self.labels[kept], self.scores[kept], self.seed)


# --- rules -----------------------------------------------------------------------------------------


def chosen(scored: Scored, protocol: str, frames: int = FRAMES) -> Bool[np.ndarray, " n"]:
    """Which crops count: `frames` of each video spread evenly over those it has, or the first."""
    starts = np.searchsorted(scored.place, np.arange(len(scored.names)))
    counts = np.bincount(scored.place, minlength=len(scored.names))
    kept = np.zeros(len(scored.place), bool)
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        if protocol == "deepfakebench":
            kept[start : start + min(frames, count)] = True
        elif count:
            kept[start + np.linspace(0, count - 1, min(frames, count), dtype=int)] = True
    return kept


def videos(
    scored: Scored, protocol: str = "deepscan", frames: int = FRAMES, probabilities: bool = False
) -> Videos:
    """Score the videos that have crops.

    Args:
        probabilities: the mean of probabilities instead of logits, also under "deepscan".
    """
    kept = chosen(scored, protocol, frames)
    place, logits = scored.place[kept], scored.logits[kept]
    values = expit(logits) if probabilities or protocol == "deepfakebench" else logits
    if protocol == "deepscan":
        names, group = scored.names, place
    else:
        folders = [PurePosixPath(name).name for name in scored.names]
        names = list(dict.fromkeys(folders))
        index = {name: i for i, name in enumerate(names)}
        group = np.array([index[folder] for folder in folders], int)[place]
    counts = np.bincount(group, minlength=len(names))
    sums = np.bincount(group, values, minlength=len(names))
    forged = np.bincount(group, scored.labels[place], minlength=len(names))
    full = counts > 0
    return Videos(
        scored.name,
        [name for name, has in zip(names, full, strict=True) if has],
        forged[full].astype(int) // counts[full],
        sums[full] / counts[full],
        scored.seed,
    )


def with_cropless(judged: Videos, scored: Scored, protocol: str = "deepscan") -> Videos:
    """The same, with every video without a crop counted as logit 0, as if the detector were undecided.

    Under "deepfakebench" that is a probability of 1/2, and a video whose folder's name another one has that
    was scored is part of that one.
    """
    called = {i: scored.names[i] for i, state in enumerate(scored.states) if state != "scored"}
    if protocol == "deepfakebench":
        called = {i: PurePosixPath(name).name for i, name in called.items()}
        called = {i: name for i, name in called.items() if name not in judged.names}
    neutral = 0.5 if protocol == "deepfakebench" else 0.0
    return Videos(
        judged.name,
        judged.names + list(called.values()),
        np.append(judged.labels, scored.labels[list(called)]),
        np.append(judged.scores, np.full(len(called), neutral)),
    )


# --- measures --------------------------------------------------------------------------------------


def auc(judged: Videos) -> Estimate:
    """Video AUC with its interval.

    Raises:
        DataError: one class only; names the set.
    """
    try:
        value = metrics.auc(judged.labels, judged.scores)
        few = min(np.bincount(judged.labels, minlength=2)) < metrics.FEW
        interval = metrics.auc_interval(judged.labels, judged.scores) if few else None
        return Estimate(value, metrics.aucs(judged.labels, judged.scores, judged.draws()), interval)
    except DataError as error:
        raise DataError(f"{judged.name}: {error}") from error


def frame_auc(scored: Scored, frames: int = FRAMES) -> Estimate:
    """AUC over crops; its interval resamples videos, because crops of one video are not independent."""
    kept = chosen(scored, "deepscan", frames)
    place, logits = scored.place[kept], scored.logits[kept]
    own, index = np.unique(place, return_inverse=True)
    drawn = Videos(scored.name, [], scored.labels[own], np.zeros(len(own))).draws()
    labels = scored.labels[place]
    return Estimate(metrics.auc(labels, logits), metrics.aucs(labels, logits, drawn, index))


def pooled(parts: Sequence[Videos]) -> Estimate:
    """AUC over the videos of all sets together: one threshold for all of them."""
    labels = np.concatenate([part.labels for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    counts = np.hstack([part.draws() for part in parts])
    return Estimate(metrics.auc(labels, scores), metrics.aucs(labels, scores, counts))


def gain(ours: Videos, theirs: Videos) -> tuple[Estimate, int]:
    """AUC of `ours` minus that of `theirs` on the videos that both scored (paired), and their number."""
    both = set(ours.names) & set(theirs.names)
    a, b = (v.only(np.array([name in both for name in v.names])) for v in (ours, theirs))
    order = {name: i for i, name in enumerate(b.names)}
    at = np.array([order[name] for name in a.names], int)
    b = Videos(b.name, a.names, b.labels[at], b.scores[at])
    if (a.labels != b.labels).any():
        raise DataError(
            f"{ours.name}: the two detectors were given different labels; score one of them again"
        )
    return auc(a) - auc(b), len(both)


Statistic = Callable[[Int[np.ndarray, " n"], Float[np.ndarray, " n"]], float]

MEASURES: dict[str, Statistic] = {
    "AP": metrics.average_precision,
    "EER": metrics.eer,
    "TPR at FPR 1 %": partial(metrics.tpr_at_fpr, fpr=0.01),
    "TPR at FPR 5 %": partial(metrics.tpr_at_fpr, fpr=0.05),
    "ECE": metrics.calibration_error,
    "Brier": metrics.brier,
    "Cllr": metrics.cllr,
}


def measures(scored: Scored, frames: int = FRAMES) -> dict[str, Estimate]:
    """All measures of a detector on a set under deepscan's protocol, each with its interval.

    ECE, Brier and Cllr take the mean logit for a statement of probability, as if as many real as
    manipulated videos were to be expected.
    """
    judged = videos(scored, frames=frames)
    found = {
        "video AUC": auc(judged),
        "AUC of mean probabilities": auc(videos(scored, frames=frames, probabilities=True)),
        "frame AUC": frame_auc(scored, frames),
    }
    if any(state != "scored" for state in scored.states):
        found["video AUC, faceless and failed as 0"] = auc(with_cropless(judged, scored))
    statistics = dict(MEASURES)
    thresholds = {"": 0.0} | (
        {} if scored.threshold is None else {", calibrated": scored.threshold}
    )
    for name, threshold in thresholds.items():
        for i, what in enumerate(("accuracy", "accuracy on real", "accuracy on manipulated")):
            statistics[what + name] = partial(_accuracy, threshold=threshold, which=i)
    draws = judged.draws()
    for name, statistic in statistics.items():
        rounds = metrics.resampled(statistic, judged.labels, judged.scores, draws)
        found[name] = Estimate(statistic(judged.labels, judged.scores), rounds)
    return found


def _accuracy(
    labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"], threshold: float, which: int
) -> float:
    return metrics.accuracies(labels, scores, threshold)[which]


def counts(scored: Scored) -> dict[str, int]:
    """How many videos were scored, had no face, and failed."""
    return {state: scored.states.count(state) for state in ("scored", "faceless", "failed")}
