"""Fits what a detector's video scores mean, on videos of people it was not trained on.

A logistic map makes probabilities of scores (Platt's), and two thresholds hold the two kinds of error to
stated rates. How far weak material moves scores is measured on the same videos, made weak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from scipy.optimize import minimize

from deepscan.data.distortions import h264
from deepscan.errors import DataError
from deepscan.judgement import metrics
from deepscan.records import FEWEST_FRAMES, Calibration, Pixels, Rung
from deepscan.shapes import Float, Int

PRIOR = 0.5
FPR = FNR = 0.05
FEWEST = 10  # videos of each class; with fewer, 5 % and 20 % look alike
ENOUGH = 5  # videos of each class that a map to judge others by is fitted on
DRAWS = 15
GRADE = 0.9  # of the shifts that weak material causes, the share that the widening covers

Labels = Int[np.ndarray, " v"]
Scores = Float[np.ndarray, " v"]
Frames = Float[np.ndarray, " _frames"]  # of one video


def _compressed(pixels: Pixels) -> Pixels:
    return h264(pixels, 35)


def _small(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    shrunk = image.resize((64, 64), Image.Resampling.BILINEAR)
    return np.asarray(shrunk.resize(image.size, Image.Resampling.BICUBIC))


# A crop of 64 pixels holds a face of about 35: below what cautions.SMALL_FACE calls small.
WEAK: dict[str, Callable[[Pixels], Pixels]] = {
    "H.264 at crf 35": _compressed,
    "64 pixels a crop": _small,
}


def fit(
    labels: Labels,
    scores: Scores,
    ties: Sequence[Sequence[str]],
    weak: Sequence[Scores],
    data: str,
    frames: Sequence[Frames] = (),
    unseen: bool = False,
) -> Calibration | None:
    """Fit the calibration of a detector to these video scores.

    Args:
        ties: what no map may be judged on that was fitted on it, by video: first the groups of people tied
            together, then the next best, for material where people chain into one group.
        weak: the same videos' scores when made weak, one array for each way.
        data: what they are, in words.
        frames: the logits of each video's frames, for what a mean of few of them means.
        unseen: whether the videos are of sources that the detector was not trained on.

    Returns:
        None with fewer than 10 videos of a class, in which case nothing can be said.

    Raises:
        DataError: no part of the videos can be left out so that enough of both classes remain.
    """
    real, manipulated = int((labels == 0).sum()), int((labels == 1).sum())
    if min(real, manipulated) < FEWEST:
        return None
    slope, intercept = platt(labels, scores)
    low, high = bounds(labels, scores)
    tries = (_cross_fitted(labels, scores, np.array(names)) for names in ties)
    level, judged = next(((i, j) for i, j in enumerate(tries) if j is not None), (0, None))
    if judged is None:
        raise DataError(
            f"{data}: these videos are all of one group of people, so no part can be held out; add"
            f" videos of other people"
        )
    if level:
        data += (
            " (people tied together in one group: judged by maps fitted on other videos of theirs)"
        )
    shifts = [float(np.quantile(np.abs(s - scores), GRADE)) for s in weak]
    return Calibration(
        slope=slope,
        intercept=intercept,
        prior=PRIOR,
        low=low,
        high=high,
        fpr=max(FPR, 1 / (real + 1)),
        fnr=max(FNR, 1 / (manipulated + 1)),
        widening=max(shifts, default=0.0),
        data=data,
        real=real,
        manipulated=manipulated,
        ece=metrics.calibration_error(labels, judged, bins=10),
        cllr=metrics.cllr(labels, judged),
        rungs=rungs(labels, frames),
        unseen=unseen,
        indicated=float((scores[labels == 1] >= high).mean()),
        cleared=float((scores[labels == 0] <= low).mean()),
        tail=tail(scores[labels == 0]),
    )


def rungs(labels: Labels, frames: Sequence[Frames]) -> tuple[Rung, ...]:
    """Map and thresholds for the means of 1, 2 and 4 frames of each video.

    A mean of few frames scatters more than a video's, so its thresholds lie further apart and its odds rise
    more slowly. Maps and thresholds are medians over DRAWS draws. A step needs FEWEST videos of each class
    with so many frames. From FEWEST_FRAMES on, the map of whole videos holds.
    """
    rng = np.random.default_rng(0)
    found: list[Rung] = []
    count = 1
    while count < FEWEST_FRAMES:
        able = np.array([len(own) >= count for own in frames], bool)
        if not len(able) or min((labels[able] == label).sum() for label in (0, 1)) < FEWEST:
            break
        of = labels[able]
        drawn = []
        for _ in range(DRAWS):
            means = np.array(
                [
                    rng.choice(own, count, replace=False).mean()
                    for own in frames
                    if len(own) >= count
                ]
            )
            low, high = bounds(of, means)
            shares = (means[of == 1] >= high).mean(), (means[of == 0] <= low).mean()
            drawn.append((*platt(of, means), low, high, tail(means[of == 0]), *shares))
        found.append(Rung(count, *(float(v) for v in np.median(drawn, 0))))
        count *= 2
    return tuple(found)


def tail(real: Scores) -> float:
    """Logits over which the share of real scores above a high threshold falls by a factor of e.

    The mean excess of the highest tenth, at least five, over the one below them, by two standard errors
    larger than found. Where the tail is exponential, or falls faster, log(k) times as much holds the rate
    of one face for the highest of k. Source: S. Coles, "An Introduction to Statistical Modeling of Extreme
    Values", 2001, chapter 4 (peaks over a threshold, shape 0).
    """
    ranked = np.sort(real)[::-1]
    count = max(5, len(ranked) // 10)
    excess = float(ranked[:count].mean() - ranked[count])
    return max(excess, 1e-3) * (1 + 2 * count**-0.5)


def platt(labels: Labels, scores: Scores) -> tuple[float, float]:
    """Slope (above 0) and intercept of the log-odds, both classes weighing the same.

    Source: J. Platt, "Probabilistic outputs for support vector machines", 1999: targets (n1 + 1) / (n1 + 2)
    and 1 / (n0 + 2) instead of 1 and 0, so that classes that do not overlap give no infinite slope.
    """
    counts = np.array([(labels == 0).sum(), (labels == 1).sum()])
    target = np.where(labels == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))
    weight = 0.5 / counts[labels]
    middle, scale = float(np.median(scores)), max(float(scores.std()), 1e-6)

    def loss(x: Float[np.ndarray, 2]) -> float:
        odds = math.exp(min(x[0], 50.0)) * (scores - middle) / scale + x[1]
        return float(weight @ (np.logaddexp(0, odds) - target * odds))

    found = minimize(
        loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}
    )
    slope = math.exp(min(float(found.x[0]), 50.0)) / scale
    return slope, float(found.x[1]) - slope * middle


def bounds(
    labels: Labels, scores: Scores, fpr: float = FPR, fnr: float = FNR
) -> tuple[float, float]:
    """Two thresholds: a share `fpr` of new real videos reaches the upper, `fnr` of manipulated the lower.

    The k-th highest of n real scores is reached by a new one with a probability of k / (n + 1): k is the
    largest that keeps this within `fpr`, at least 1: with fewer than 19 videos the rate is 1 / (n + 1), not
    5 %. Likewise the lowest manipulated ones.
    Source: V. Vovk, A. Gammerman and G. Shafer, "Algorithmic Learning in a Random World", 2005 (conformal
    prediction). Where the classes are so far apart that the two cross, what lies between is inconclusive.
    """
    real, manipulated = np.sort(scores[labels == 0])[::-1], np.sort(scores[labels == 1])
    high = float(real[max(1, math.floor(fpr * (len(real) + 1))) - 1])
    low = float(manipulated[max(1, math.floor(fnr * (len(manipulated) + 1))) - 1])
    low, high = min(low, high), max(low, high)
    return low, high if high > low else math.nextafter(low, math.inf)


def _cross_fitted(labels: Labels, scores: Scores, groups: np.ndarray) -> Scores | None:
    """Each video's log-odds by a map fitted on the other groups.

    None where a group leaves fewer than ENOUGH videos of a class, or half of all: no map comes of these.
    """
    _, sizes = np.unique(groups, return_counts=True)
    if sizes.max() > len(groups) / 2:
        return None
    judged = np.empty(len(scores))
    for group in np.unique(groups):
        own = groups == group
        if min((labels[~own] == label).sum() for label in (0, 1)) < ENOUGH:
            return None
        slope, intercept = platt(labels[~own], scores[~own])
        judged[own] = slope * scores[own] + intercept
    return judged
