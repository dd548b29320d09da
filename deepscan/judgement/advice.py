"""Words for the first screens: how likely manipulation is, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from deepscan.judgement.agreement import DISAGREE
from deepscan.judgement.cautions import bits_per_pixel, heavy
from deepscan.judgement.words import about, listed, percent, time_code
from deepscan.records import Evidence, Report

# Words for a probability from each of these on.
LIKELY = (
    (0.95, "very likely"),
    (0.8, "likely"),
    (0.6, "rather likely"),
    (0.4, "as likely as not"),
    (0.2, "rather unlikely"),
    (0.05, "unlikely"),
    (0.0, "very unlikely"),
)

# Sampling of a second scan: a frame each tenth of a second, or four times as many as usual.
CLOSE, MANY = 0.1, 128


def chance(report: Report) -> str:
    """The probability in words with its condition, or why there is none; empty if nothing was judged."""
    finding, probability = report.evidence.finding, report.probability
    if finding is None:
        return ""
    if report.verdict.reason == DISAGREE:
        return "No probability: the two detectors disagree."
    calibration = finding.thresholds.calibration
    if calibration is None:
        return "No probability: this detector is not calibrated, and its limits are stand-ins."
    if report.evidence.verdict.reason == "stretch_high":
        return "No probability: it was measured for whole faces, not for the part of one that stands out."
    if probability is None:
        return f"No probability: nothing was measured on such evidence ({listed(finding.weak)})."
    share = "half" if calibration.prior == 0.5 else percent(calibration.prior)
    words = f"Manipulation is {likely(probability)} ({percent(probability)})"
    if report.verdict.reason == "stretch_stands_out":
        words = f"Going by the whole, {words[0].lower()}{words[1:]}"
    return f"{words}, if {share} of such videos are manipulated."


def likely(probability: float) -> str:
    """A probability in words."""
    return next(words for least, words in LIKELY if probability >= least)


# --- what next -------------------------------------------------------------------------------------


def next_steps(report: Report) -> tuple[str, ...]:
    """Two or three next steps for this result, the most useful first.

    Where two detectors disagree, they follow the more suspicious one.
    """
    if report.second is not None and report.verdict.reason == DISAGREE:
        report = min(report, report.second, key=_trust)
    evidence, reason = report.evidence, report.evidence.verdict.reason
    steps = [*_looks(evidence), *_scans(report)]
    if reason == "frames_damaged":
        steps.append("Copy the file once more from where it was kept, and scan that copy.")
        steps.append("If it is damaged there too, ask for another one.")
    elif reason in ("no_face_found", "no_clear_face"):
        steps.append("If there is one, ask for a version in which it is larger and sharper.")
    else:
        steps.append(_original(report))
    if reason in ("score_high", "score_low", "untried") and len(steps) < 3:
        steps.append("Check by other means who recorded it, where and when.")
    return tuple(steps)


def _trust(report: Report) -> int:
    """How far a detector trusts what it saw: 0 if it indicates a manipulation."""
    order = ("manipulation_indicated", "inconclusive", "no_manipulation_indicated")
    return order.index(report.evidence.verdict.name)


def _looks(evidence: Evidence) -> Iterator[str]:
    """What to look at in this report."""
    scores = evidence.scores
    if scores is None and evidence.decoding.decoded:
        pictures = "frames in this report" if len(evidence.coverage.instants) > 1 else "picture"
        yield f"Look through the {pictures}: is there a face that deepscan missed?"
    if scores is None or evidence.verdict.name == "no_manipulation_indicated":
        return
    (own,) = (track for track in evidence.tracks if track.id == scores.track)
    run = scores.stretch or scores.longest_run
    number = scores.stretch.track if scores.stretch else own.id
    face = f"face {number}" if scores.judged > 1 else "the face"
    if run is not None and (scores.stretch is not None or len(own.frames) > run.frames):
        yield f"Look at {face} at {about(run.start, run.end)}, frame by frame."
    elif len(own.frames) > 1:
        best = max(own.frames, key=lambda frame: frame.logit)
        yield f"Look at {face}, above all at {time_code(best.time, 1)}."
    else:
        yield f"Look at {face} closely."


def _scans(report: Report) -> Iterator[str]:
    """How another scan could show more; nothing if this one was as thorough."""
    source, evidence, reason = report.source, report.evidence, report.evidence.verdict.reason
    if reason == "faces_too_small":
        least = int(_setting(report, "faces", "min_size", 40))
        if least > 24:
            yield "Scan again with --min-face 24; smaller faces give weaker results."
        return
    if source.kind != "video" or reason == "frames_damaged":
        return
    sampled = evidence.decoding.sampled
    if sampled >= source.frames:
        return
    spacing = float(source.duration) / max(1, sampled)
    if evidence.scores is not None and evidence.scores.stretch is not None:
        if spacing > CLOSE:
            yield f"Scan again with --sampling every:{CLOSE}, to see when it begins and ends."
    elif reason in ("score_between", "few_frames", "too_few_instants", "no_face_found"):
        if source.frames <= MANY:
            yield "Scan again with --sampling all, to look at every frame."
        elif sampled < MANY:
            yield f"Scan again with --frames {MANY}, to look at more of the video."
    elif reason in ("score_low", "untried") and sampled < MANY:
        many = "--sampling all" if source.frames <= MANY else f"--frames {MANY}"
        yield f"If you still doubt it, scan again with {many}: a short change may lie between the frames."


def _original(report: Report) -> str:
    """Advice to ask for the original, with the reason if this file shows one."""
    source, finding = report.source, report.evidence.finding
    weak: Sequence[str] = finding.weak if finding else ()
    kind = "video" if source.kind == "video" else "picture"
    if report.evidence.verdict.reason == "faces_too_small" or any("small face" in w for w in weak):
        return f"Ask for the original {kind}, in which faces may be larger."
    if source.kind == "video" and bits_per_pixel(source) < heavy(source.codec):
        return "Ask for the original video: this copy is heavily compressed."
    return f"Ask for the original {kind}, as the camera or the first post had it, and scan that."


def _setting(report: Report, stage: str, name: str, usual: Any) -> Any:
    return report.provenance.settings.get(stage, {}).get(name, usual)
