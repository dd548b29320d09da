"""Says a verdict's reason in one or two plain sentences, for the first screen of page and terminal.

`Verdict.sentence` gives the figures behind it; this gives none, and no term of statistics. A headline stands
above it wherever it is shown, so it does not repeat the verdict.
"""

from __future__ import annotations

from deepscan.judgement.agreement import DISAGREE, agreement
from deepscan.judgement.cautions import untried
from deepscan.judgement.words import about, counted, listed
from deepscan.records import Evidence, Report, Scores, Source

PROVISIONAL = "This detector is not calibrated: nobody has measured what its scores mean."
NO_PROOF = "This does not show that the video is authentic."


def told(report: Report) -> str:
    """The summary of a report: of its detector, or of both."""
    if report.second is None:
        return summary(report.source, report.evidence)
    both = agreement(report, report.second)
    if report.verdict.reason == DISAGREE:
        return both
    return f"{summary(report.source, report.evidence)} {both}".strip()


def summary(source: Source, evidence: Evidence) -> str:
    """What was found and why it came to this verdict, or why nothing was judged."""
    scores, reason = evidence.scores, evidence.verdict.reason
    if scores is None:
        return evidence.verdict.sentence
    if scores.stretch is not None:
        return _stretch(scores, reason == "stretch_high", evidence.thresholds.provisional)
    face = _face(evidence, scores)
    if evidence.thresholds.provisional:
        level = {"score_high": "high", "score_low": "low", "untried": "low", "few_frames": "high"}
        return f"{face} scores {level.get(reason, 'neither high nor low')}. {PROVISIONAL}"
    # A picture is held against single frames of videos: calibrations know of no others.
    things = "videos’ frames" if source.kind == "image" else "videos"
    match reason:
        case "score_high":
            return (
                f"{face} scores as high as faces in manipulated {things} do. Real ones rarely do."
            )
        case "score_low":
            return (
                f"{face} scores as low as faces in real {things} do. Manipulated ones rarely do."
                f" {NO_PROOF}"
            )
        case "untried":
            (own,) = (track for track in evidence.tracks if track.id == scores.track)
            missing = listed(list(untried(source, own.frames, evidence.thresholds.calibration)))
            return (
                f"{face} scores low, but here a low score clears nothing: the detector was not tested on"
                f" {missing}."
            )
        case "few_frames" if source.kind == "image":
            return f"{face} scores high, but a picture decides nothing: only scores of videos were measured."
        case "few_frames":
            return (
                f"{face} scores high, but in too few frames to decide. Look at more with --frames."
            )
    return (
        f"{face} scores where real and manipulated {things} both lie, so the score decides nothing."
    )


def _face(evidence: Evidence, scores: Scores) -> str:
    """The face that decides, and of which ones it is the highest: weak ones may be higher and not count."""
    if scores.judged == 1:
        return "The face"
    able = [track for track in evidence.tracks if track.finding is not None]
    seen_well = [track for track in able if track.finding is not None and not track.finding.weak]
    highest = max(able, key=lambda track: track.score).score
    if highest == scores.video:
        return f"Face {scores.track}, the most suspicious of {counted(scores.judged, 'face')},"
    if scores.video == max((track.score for track in seen_well), default=None):
        if len(seen_well) == 1:
            return (
                f"Face {scores.track}, the only one of {scores.judged} seen well enough to decide,"
            )
        return f"Face {scores.track}, the most suspicious of the {len(seen_well)} faces seen well enough,"
    return f"Face {scores.track} of {counted(scores.judged, 'face')}"


def _stretch(scores: Scores, confirmed: bool, provisional: bool) -> str:
    """A stretch stands out of the video; `confirmed`: a second look decided by it."""
    assert scores.stretch is not None
    when = about(scores.stretch.start, scores.stretch.end)
    face = f"face {scores.stretch.track}" if scores.judged > 1 else "the face"
    if scores.stretch_finding is not None and not confirmed:
        words = (
            f"Look at {when}. There {face} scores higher than elsewhere, but a closer look did not"
        )
        words += " confirm a manipulation."
        return f"{words} {PROVISIONAL}" if provisional else words
    if not confirmed:
        words = f"Look at {when}. There {face} scores far higher than elsewhere, as in a short manipulation."
        return (
            f"{words} {PROVISIONAL}"
            if provisional
            else f"{words} Real videos have such parts, too."
        )
    words = f"From {when} {face} scores far higher than elsewhere, and a closer look confirmed it."
    return (
        f"{words} {PROVISIONAL}" if provisional else f"{words} Real videos rarely have such parts."
    )
