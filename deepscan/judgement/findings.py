"""Judges one face, or one stretch of it: its own thresholds, its verdict, its probability, and why.

Everything follows from the logits of its frames, their quality, the file and the detector's calibration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepscan.judgement.cautions import untried, weaknesses
from deepscan.judgement.words import listed, logit, percent, rounded, rounded_down, rounded_up
from deepscan.records import (
    FEWEST_FRAMES,
    Calibration,
    Finding,
    FrameEvidence,
    Rung,
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


@dataclass(frozen=True, slots=True)
class Limits:
    """The scores between which nothing is decided about a face by itself."""

    low: float
    high: float
    fall: float  # logits over which the share of real scores beyond `high` falls e-fold
    rung: Rung | None  # of the calibration; None: there is none of so few frames, or of pictures
    weak: tuple[str, ...]  # why `low` and `high` stand apart, in words


def limits(frames: Sequence[FrameEvidence], source: Source, base: Thresholds) -> Limits:
    """The thresholds for a face, given the number and quality of its frames."""
    calibration = base.calibration
    weak = tuple(weaknesses(source, frames))
    if calibration is None:
        return Limits(base.low, base.high, 1.0, None, weak)
    # Calibrations know frames of videos only; what photographs score was never measured.
    rung = calibration.rung(len(frames)) if source.kind == "video" else None
    if rung is None:
        few = f"few frames ({len(frames)})" if source.kind == "video" else "a picture by itself"
        weak = (few, *weak)
    by = calibration.widening if weak else 0.0
    ends = rung or calibration
    fall = rung.tail if rung else calibration.fall
    return Limits(ends.low - by, ends.high + by, fall, rung, weak)


def judge_frames(
    what: str,
    frames: Sequence[FrameEvidence],
    source: Source,
    base: Thresholds = PROVISIONAL,
    judged: int = 1,
) -> Finding:
    """The finding about one face, or one stretch of it.

    Args:
        what: "face 2", or "face 2 from 0:02.000 to 0:04.000".
        frames: its scored frames.
        base: the detector's thresholds.
        judged: the faces judged, of which this is one. The upper threshold stands so much higher that the
            rate of false alarms of one face holds for the highest of them: by log(judged) times the logits
            over which it falls e-fold.
    """
    score = rounded(float(np.mean([f.logit for f in frames])))
    own, calibration = limits(frames, source, base), base.calibration
    raised = math.log(judged) * own.fall
    thresholds = Thresholds(rounded_down(own.low), rounded_up(own.high + raised), calibration)
    ratio = probability = None
    if calibration is not None and own.rung is not None and not own.weak:
        ratio = calibration.ratio(score, own.rung)
        probability = calibration.probability(ratio)
    verdict = _verdict(what, frames, source, score, thresholds, own, raised, judged)
    return Finding(verdict, score, len(frames), thresholds, own.weak, probability, ratio)


def _verdict(
    what: str,
    frames: Sequence[FrameEvidence],
    source: Source,
    score: float,
    thresholds: Thresholds,
    own: Limits,
    raised: float,
    judged: int,
) -> Verdict:
    low, high, calibration = thresholds.low, thresholds.high, thresholds.calibration
    weak, tried = own.weak, _rates(calibration, len(frames))
    said = f"The {'mean logit' if len(frames) > 1 else 'logit'} of {what} is {logit(score)}"
    apart = f" The thresholds stand further apart because of {listed(weak)}." if weak else ""
    if rounded(raised) and score > low:
        apart += (
            f" The upper threshold stands {raised:.2f} higher because {judged} faces were judged."
        )
    if score >= high:
        if source.kind == "video" and len(frames) < FEWEST_TO_INDICATE:
            return Verdict(
                VerdictName.INCONCLUSIVE,
                "few_frames",
                f"{said}, at or above the threshold of {logit(high)}, but over {len(frames)} of the video's"
                f" frames, and fewer than {FEWEST_TO_INDICATE} decide nothing.{apart}",
            )
        if source.kind == "image":
            return Verdict(
                VerdictName.INCONCLUSIVE,
                "few_frames",
                f"{said}, at or above the threshold of {logit(high)}, which indicates nothing here: what"
                f" scores of pictures by themselves mean was never measured.{apart}",
            )
        return Verdict(
            VerdictName.MANIPULATION_INDICATED,
            "score_high",
            f"{said}, at or above the threshold of {logit(high)}.{apart}{tried}",
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
            f"{said}, at or below the threshold of {logit(low)}.{apart}{tried} This does not"
            " show that the video is authentic.",
        )
    return Verdict(
        VerdictName.INCONCLUSIVE,
        "score_between",
        f"{said}, between the thresholds of {logit(low)} and {logit(high)}.{apart}",
    )


def _rates(calibration: Calibration | None, frames: int) -> str:
    """How many calibration videos score this far, or why this is unknown; empty without a calibration."""
    if calibration is None:
        return ""
    said = rates(calibration, frames)
    if not calibration.unseen:
        said += (
            " The thresholds were set on sources that the detector had learnt from; others may pass them"
            " oftener."
        )
    return f" {said.strip()}" if said else ""


def rates(calibration: Calibration, frames: int) -> str:
    """How often the thresholds for this many frames indicate and clear real and manipulated videos."""
    rung = calibration.rung(frames)
    if rung is None or rung.indicated is None or rung.cleared is None:
        return ""
    of = ""
    if rung.frames < FEWEST_FRAMES:
        of = "single frames of " if rung.frames == 1 else f"means of {rung.frames} frames of "
    return (
        f"On {of}{calibration.data} the detector's thresholds indicate {percent(calibration.fpr)} of the real"
        f" and {percent(rung.indicated)} of the manipulated videos, and clear {percent(rung.cleared)} of the"
        f" real and {percent(calibration.fnr)} of the manipulated ones."
    )
