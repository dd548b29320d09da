"""Judges one face, or one stretch of it: its own thresholds, its verdict, its probability, and why.

Everything follows from the logits of its frames, their quality, the file and the detector's calibration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from deepscan.judgement.cautions import untried, weaknesses
from deepscan.judgement.words import listed, logit, percent, rounded, rounded_down, rounded_up
from deepscan.records import (
    Calibration,
    Finding,
    FrameEvidence,
    Source,
    Thresholds,
    Verdict,
    VerdictName,
)

# Used for a checkpoint without a calibration: a logit of 1 means odds of e to 1 in training, which says
# nothing about the world. Every output adds "uncalibrated, provisional".
PROVISIONAL = Thresholds(low=-1.0, high=1.0)

# One frame of a video, or two, can be anything: a blink, a blur, a dissolve.
FEWEST_TO_INDICATE = 4


def judge_frames(
    what: str,
    frames: Sequence[FrameEvidence],
    source: Source,
    base: Thresholds = PROVISIONAL,
    places: float = 1.0,
    where: str = "",
) -> Finding:
    """The finding about one face, or one stretch of it.

    Args:
        what: "face 2", or "face 2 from 0:02.000 to 0:04.000".
        frames: its scored frames.
        base: the detector's thresholds.
        places: in how many places such a mean could have come out high: the faces judged, or the stretches
            as long as this one in all faces. The upper threshold stands so much higher that the rate of
            false alarms of one face holds for the highest of them: by log(places) times the logits over
            which it falls e-fold.
        where: what the places are, in words.
    """
    calibration = base.calibration
    count, score = len(frames), rounded(float(np.mean([f.logit for f in frames])))
    rung = None if calibration is None else calibration.rung(count)
    fall = rung.tail if rung else 1 / calibration.slope if calibration else 1.0
    ends = rung or base
    weak = list(weaknesses(source, frames))
    if calibration is not None and rung is None:
        few = f"few frames ({count})" if source.kind == "video" else "a picture by itself"
        weak.insert(0, few)
    by = calibration.widening if calibration is not None and weak else 0.0
    raised = math.log(places) * fall
    thresholds = Thresholds(
        rounded_down(ends.low - by), rounded_up(ends.high + by + raised), calibration
    )
    known = calibration is not None and rung is not None and not weak
    ratio = calibration.ratio(score, rung) if known and calibration and rung else None
    return Finding(
        _verdict(what, frames, source, score, thresholds, weak, raised, where),
        score,
        count,
        thresholds,
        tuple(weak),
        None if ratio is None or calibration is None else calibration.probability(ratio),
        ratio,
    )


def _verdict(
    what: str,
    frames: Sequence[FrameEvidence],
    source: Source,
    score: float,
    thresholds: Thresholds,
    weak: Sequence[str],
    raised: float,
    where: str,
) -> Verdict:
    low, high, calibration = thresholds.low, thresholds.high, thresholds.calibration
    said = f"The mean logit of {what} is {logit(score)}"
    apart = f" The thresholds stand further apart because of {listed(weak)}." if weak else ""
    if rounded(raised) and score > low:
        apart += f" The upper threshold stands {raised:.2f} higher because {where}."
    if score >= high:
        if source.kind == "video" and len(frames) < FEWEST_TO_INDICATE:
            return Verdict(
                VerdictName.INCONCLUSIVE,
                "few_frames",
                f"{said}, at or above the threshold of {logit(high)}, but over {len(frames)} of the video's"
                f" frames, and fewer than {FEWEST_TO_INDICATE} decide nothing.{apart}",
            )
        if source.kind == "image" and thresholds.calibration and weak:
            return Verdict(
                VerdictName.INCONCLUSIVE,
                "few_frames",
                f"{said}, at or above the threshold of {logit(high)}, but the detector was never calibrated"
                f" on such evidence: {listed(weak)}.",
            )
        return Verdict(
            VerdictName.MANIPULATION_INDICATED,
            "score_high",
            f"{said}, at or above the threshold of {logit(high)}.{apart}{_rates(calibration)}",
        )
    if score <= low:
        missing = list(untried(source, frames, calibration))
        if missing:
            return Verdict(
                VerdictName.INCONCLUSIVE,
                "untried",
                f"{said}, at or below the threshold of {logit(low)}, which clears nothing here: that a low"
                f" score means something was not shown for {listed(missing)}.{apart}",
            )
        return Verdict(
            VerdictName.NO_MANIPULATION_INDICATED,
            "score_low",
            f"{said}, at or below the threshold of {logit(low)}.{apart}{_rates(calibration)} This does not"
            " show that the video is authentic.",
        )
    return Verdict(
        VerdictName.INCONCLUSIVE,
        "score_between",
        f"{said}, between the thresholds of {logit(low)} and {logit(high)}.{apart}",
    )


def _rates(calibration: Calibration | None) -> str:
    """How often videos of the calibration came this far, in a sentence; empty if it does not say."""
    said = "" if calibration is None else rates(calibration)
    return f" {said}" if said else ""


def rates(calibration: Calibration) -> str:
    """How often the detector's thresholds indicate and clear, real and manipulated videos, in a sentence."""
    if calibration.indicated is None or calibration.cleared is None:
        return ""
    return (
        f"On {calibration.data} the detector's thresholds indicate {percent(calibration.fpr)} of the real and"
        f" {percent(calibration.indicated)} of the manipulated videos, and clear"
        f" {percent(calibration.cleared)} of the real and {percent(calibration.fnr)} of the manipulated ones."
    )
