"""Measures how well scores separate manipulated (label 1) from real (label 0); higher leans to 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import norm, rankdata

from deepscan.errors import DataError
from deepscan.shapes import Float, Int

FEW = 50  # of a class: with fewer, an AUC's interval is DeLong's on the logit scale

Labels = Int[np.ndarray, " n"]
Values = Float[np.ndarray, " n"]


def auc(labels: Labels, scores: Values) -> float:
    """Area under the ROC curve: P(a manipulated scores higher than a real one), ties counting half.

    Source: the Mann-Whitney statistic; J. A. Hanley and B. J. McNeil, "The meaning and use of the area
    under a receiver operating characteristic (ROC) curve", Radiology 143, 1982:
    (R1 - n1 (n1 + 1) / 2) / (n0 n1), R1 the sum of the manipulated ones' mid-ranks.

    Raises:
        DataError: one class only, or a score is not finite.
    """
    n0, n1 = _counts(labels, scores)
    ranks = rankdata(scores)
    return float((ranks[labels == 1].sum() - n1 * (n1 + 1) / 2) / (n0 * n1))


def roc(labels: Labels, scores: Values) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """False and true positive rates of the rule "score >= t", one point for each distinct score.

    Runs from (0, 0) to (1, 1), both ascending. Source: T. Fawcett, "An introduction to ROC analysis",
    Pattern Recognition Letters 27, 2006, algorithm 1: equal scores move together.
    """
    n0, n1 = _counts(labels, scores)
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(labels[order] == 1)[last_of_tie]
    alarms = np.cumsum(labels[order] == 0)[last_of_tie]
    return np.append(0.0, alarms / n0), np.append(0.0, hits / n1)


def eer(labels: Labels, scores: Values) -> float:
    """Equal error rate: where the ROC curve, joined by straight lines, has FPR = 1 - TPR.

    Source: ISO/IEC 19795-1 (detection error trade-off); straight lines between the points are the ROC's
    convex interpolation by randomised thresholds (Fawcett 2006, section 6).
    """
    fpr, tpr = roc(labels, scores)
    gap = fpr - (1 - tpr)  # ascends from -1 to 1
    after = int(np.argmax(gap >= 0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))


def tpr_at_fpr(labels: Labels, scores: Values, fpr: float) -> float:
    """The highest true positive rate of any threshold whose false positive rate is at most `fpr`.

    Without interpolation: the rate is that of a threshold set at one of the scores.
    """
    alarms, hits = roc(labels, scores)
    return float(hits[alarms <= fpr].max())


def average_precision(labels: Labels, scores: Values) -> float:
    """Mean precision over the manipulated ones, going down from the highest score: sum (R_n - R_n-1) P_n.

    Source: scikit-learn's average_precision_score; no interpolation, ties move together.
    """
    _, n1 = _counts(labels, scores)
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(labels[order] == 1)[last_of_tie]
    precision = hits / (np.flatnonzero(last_of_tie) + 1)
    return float((np.diff(hits, prepend=0) * precision).sum() / n1)


def accuracies(labels: Labels, scores: Values, threshold: float) -> tuple[float, float, float]:
    """Shares classified correctly by "score >= threshold": of all, of real and of manipulated ones."""
    n0, n1 = _counts(labels, scores)
    right = (scores >= threshold) == (labels == 1)
    real, manipulated = right[labels == 0].sum(), right[labels == 1].sum()
    return float(right.mean()), float(real / n0), float(manipulated / n1)


def calibration_error(labels: Labels, logits: Values, bins: int = 15) -> float:
    """Expected calibration error: mean gap between stated probability and share of manipulated, by bin.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 3, with the
    probability of label 1 in equal bins of [0, 1].
    """
    _counts(labels, logits)
    stated = expit(logits)
    place = np.minimum((stated * bins).astype(int), bins - 1)
    gaps = np.bincount(place, stated - labels, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def brier(labels: Labels, logits: Values) -> float:
    """Mean squared distance between probability and label. Source: G. W. Brier, 1950."""
    _counts(labels, logits)
    return float(((expit(logits) - labels) ** 2).mean())


def cllr(labels: Labels, logits: Values) -> float:
    """Cost of the log-likelihood ratios in bits: 0 is perfect, 1 says nothing, more misleads.

    A logit of a detector trained on as many real as manipulated crops is taken for a log-likelihood
    ratio. Source: N. Bruemmer and J. du Preez, "Application-independent evaluation of speaker
    detection", Computer Speech and Language 20, 2006.
    """
    _counts(labels, logits)
    of_fake = np.logaddexp(0, -logits[labels == 1]).mean()
    of_real = np.logaddexp(0, logits[labels == 0]).mean()
    return float((of_fake + of_real) / (2 * np.log(2)))


def video_scores(
    videos: Sequence[str], labels: Labels, logits: Values
) -> tuple[list[str], Int[np.ndarray, " v"], Float[np.ndarray, " v"]]:
    """Mean of the frame logits of each video (method.md: the video score).

    Returns:
        Videos in order of first appearance, their labels and scores.

    Raises:
        DataError: a video's frames carry two labels.
    """
    names = list(dict.fromkeys(videos))
    place = {name: i for i, name in enumerate(names)}
    index = np.array([place[video] for video in videos], int)
    of_video = np.zeros(len(names), int)
    of_video[index] = labels
    if (of_video[index] != labels).any():
        mixed = videos[int(np.argmax(of_video[index] != labels))]
        raise DataError(f"video {mixed}: its frames carry both labels; give the two other names")
    return names, of_video, np.bincount(index, logits) / np.bincount(index)


def bootstrap_interval(
    statistic: Callable[[Labels, Values], float],
    labels: Labels,
    scores: Values,
    videos: Sequence[str],
    rng: np.random.Generator,
    rounds: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `statistic` over videos, stratified by class.

    Each round draws as many real and as many manipulated videos as there are, with replacement, each with
    all its scores, because the frames of one video are not independent.
    Source: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.

    Args:
        videos: the video of each score; all different when the scores are videos'.

    Returns:
        The (1 - level) / 2 and (1 + level) / 2 quantiles over the rounds.
    """
    _, place = np.unique(np.asarray(videos), return_inverse=True)
    of_video = np.zeros(place.max() + 1, int)
    of_video[place] = labels
    found = resampled(statistic, labels, scores, resample(of_video, rng, rounds), place)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def auc_interval(labels: Labels, scores: Values, level: float = 0.95) -> tuple[float, float]:
    """Interval of the AUC for few scores: DeLong's variance on the logit scale.

    With a the AUC and v its variance, logit(a) +- z sqrt(v) / (a (1 - a)). The percentile bootstrap is too
    narrow below some 50 of a class, and at an AUC of 1 it is a point. There v is 0 as well; but then all of
    m = min(n0, n1) pairs that share no score agree, which happens with a probability of a^m: the lower end
    is Clopper and Pearson's, ((1 - level) / 2)^(1 / m), the upper 1. Likewise at 0.
    Source: E. R. DeLong et al., "Comparing the areas under two or more correlated receiver operating
    characteristic curves", Biometrics 44, 1988; G. Qin and L. Hotilovac, "Comparison of non-parametric
    confidence intervals for the area under the ROC curve of a continuous-scale diagnostic test",
    Statistical Methods in Medical Research 17, 2008 (the logit scale covers best).

    Raises:
        DataError: one class only, or a score is not finite.
    """
    n0, n1 = _counts(labels, scores)
    real, fake = scores[labels == 0], scores[labels == 1]
    wins = (fake[:, None] > real) + 0.5 * (fake[:, None] == real)
    a = float(wins.mean())
    variance = sum(
        side.var(ddof=1) / len(side) for side in (wins.mean(0), wins.mean(1)) if len(side) > 1
    )
    if a in (0.0, 1.0):
        end = ((1 - level) / 2) ** (1 / min(n0, n1))
        return (end, 1.0) if a else (0.0, 1 - end)
    half = float(norm.ppf((1 + level) / 2)) * float(np.sqrt(variance)) / (a * (1 - a))
    middle = np.log(a / (1 - a))
    return float(expit(middle - half)), float(expit(middle + half))


def resample(
    labels: Labels, rng: np.random.Generator, rounds: int = 1000
) -> Int[np.ndarray, "rounds n"]:
    """How often each video is drawn in each round of a bootstrap, stratified by the classes there are."""
    counts = np.zeros((rounds, len(labels)), int)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        counts[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), rounds)
    return counts


def resampled(
    statistic: Callable[[Labels, Values], float],
    labels: Labels,
    scores: Values,
    counts: Int[np.ndarray, "rounds v"],
    video: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " rounds"]:
    """`statistic` in each round of `resample`, where score i appears counts[r, video[i]] times in round r.

    Without `video` each score is a video's own.
    """
    _counts(labels, scores)
    found = np.empty(len(counts))
    for r, drawn in enumerate(counts):
        times = drawn if video is None else drawn[video]
        found[r] = statistic(np.repeat(labels, times), np.repeat(scores, times))
    return found


def aucs(
    labels: Labels,
    scores: Values,
    counts: Int[np.ndarray, "rounds v"],
    video: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " rounds"]:
    """The same as `resampled` with `auc`, faster: the scores are sorted once.

    Two detectors, or two rules, compared in the same rounds make a paired comparison.
    """
    _counts(labels, scores)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))  # of ties
    found = np.empty(len(counts))
    for r, drawn in enumerate(counts):  # round by round: all at once would take gigabytes
        weights = drawn[order if video is None else video[order]]
        is_fake = labels[order] == 1
        fake = np.add.reduceat(np.where(is_fake, weights, 0), starts)
        real = np.add.reduceat(np.where(is_fake, 0, weights), starts)
        below = np.cumsum(real) - real / 2
        found[r] = (fake * below).sum() / (fake.sum() * real.sum())
    return found


def summary(
    videos: Sequence[str], labels: Labels, logits: Values, rng: np.random.Generator
) -> dict[str, Any]:
    """The measures of a detector on one data set, from its frame logits.

    Returns:
        Counts, and for each measure {"value", "low", "high"}. The interval is a bootstrap; below 50
        videos of a class that of the video AUC comes from `auc_interval`. EER and TPR are those of video
        scores.
    """
    names, of_video, scores = video_scores(videos, labels, logits)

    def with_interval(
        statistic: Callable[[Labels, Values], float], at: Sequence[str], of: Labels, s: Values
    ) -> dict[str, float]:
        low, high = bootstrap_interval(statistic, of, s, at, rng)
        if statistic is auc and len(set(at)) == len(at) and min(np.bincount(of, minlength=2)) < FEW:
            low, high = auc_interval(of, s)
        return {"value": statistic(of, s), "low": low, "high": high}

    return {
        "videos": {"real": int((of_video == 0).sum()), "manipulated": int((of_video == 1).sum())},
        "frames": {"real": int((labels == 0).sum()), "manipulated": int((labels == 1).sum())},
        "video_auc": with_interval(auc, names, of_video, scores),
        "frame_auc": with_interval(auc, videos, labels, logits),
        "eer": with_interval(eer, names, of_video, scores),
        "tpr_at_fpr_5": with_interval(
            lambda of, s: tpr_at_fpr(of, s, 0.05), names, of_video, scores
        ),
    }


def _counts(labels: Labels, scores: Values) -> tuple[int, int]:
    """Count the real and the manipulated; raise unless there are both and all scores are finite."""
    n0, n1 = int((labels == 0).sum()), int((labels == 1).sum())
    if n0 + n1 != len(labels) or not n0 or not n1:
        raise DataError(
            f"{len(labels)} scores, {n0} of real and {n1} of manipulated: both classes are needed, as 0 and 1"
        )
    if not np.isfinite(scores).all():
        raise DataError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite"
        )
    return n0, n1
