"""Writes report.json: a Report for programs, as report.schema.json beside this file describes it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib import resources
from typing import Any

import numpy as np

from deepscan.errors import without_userinfo
from deepscan.judgement.advice import chance, next_steps
from deepscan.judgement.findings import rates
from deepscan.judgement.summary import summary, told
from deepscan.judgement.timeline import LEVEL
from deepscan.judgement.words import counted, logit, percent, rounded
from deepscan.records import (
    FEWEST_FRAMES,
    Box,
    Calibration,
    CropQuality,
    EvidenceSum,
    Face,
    Faithfulness,
    Finding,
    FrameEvidence,
    Interval,
    Report,
    SecondLook,
    Stretch,
    TrackEvidence,
)
from deepscan.report.heatmap import ATTENTION, EVIDENCE
from deepscan.report.performance import performance

SCHEMA = "deepscan.report/2"

DIRECTION = "logit > 0 leans to manipulated"
RULE = "mean of frame logits of the face that decides: the most suspicious of those with sound evidence"
UNCALIBRATED = "uncalibrated, provisional"
INTERVAL_METHOD = "equal-weighted cosines over time, Student's t"
INTERVAL_NOTE = "by which instants were looked at only, not by the detector's errors"
LIMITATIONS = (
    "Generators the detector was not trained on may go unnoticed.",
    "A low score does not show that a video or a picture is authentic.",
    "Detectors lose 45 to 50 % of their performance from academic to operational data (NIST, GenAI:"
    " Deepfakes 2026, ai-challenges.nist.gov/forensics).",
)


def to_dict(report: Report) -> dict[str, Any]:
    """The report as plain values; times in seconds, sizes in pixels of the frame as displayed."""
    source, evidence, provenance = report.source, report.evidence, report.provenance
    scores, decoding, coverage = evidence.scores, evidence.decoding, evidence.coverage
    calibration, look = evidence.thresholds.calibration, evidence.second_look
    judged = evidence.finding.frames if evidence.finding else FEWEST_FRAMES
    return {
        "schema": SCHEMA,
        "input": {
            "path": str(source.path),
            "kind": source.kind,
            "sha256": source.sha256,
            "sha256_after": provenance.sha256_after,
            "bytes": source.bytes,
            "container": source.container,
            "codec": source.codec,
            "pixel_format": source.pixel_format,
            "width": source.width,
            "height": source.height,
            "rotation": source.rotation,
            "frames": source.frames,
            "start": _number(source.start),
            "duration": _number(source.duration),
            "nominal_rate": _number(source.nominal_rate),
            "average_rate": _number(source.average_rate),
            "variable_rate": source.variable_rate,
            "exact_times": source.exact_times,
            "restarts": [_number(at) for at in source.restarts],
            "stream": source.stream,
            "colour": asdict(source.colour),
            "bit_rate": source.bit_rate,
            "tags": source.tags,
        },
        "verdict": {
            "name": report.verdict.name.value,
            "reason": report.verdict.reason,
            "sentence": report.verdict.sentence,
            "summary": told(report),
            "probability": chance(report),
            "next": list(next_steps(report)),
        },
        "scores": None
        if scores is None
        else {
            "video": _number(scores.video),
            "track": scores.track,
            "faces_judged": scores.judged,
            "largest_face": _number(scores.largest_face),
            "maximum": _number(scores.maximum),
            "top10_mean": _number(scores.top10_mean),
            "interval": _interval(scores.interval),
            "share_above": _number(scores.share_above),
            "longest_run": None if scores.longest_run is None else _run(scores.longest_run),
            "stretch": None
            if scores.stretch is None
            else {
                "track": scores.stretch.track,
                **_run(scores.stretch),
                "mean": _number(scores.stretch.mean),
                "finding": _finding(scores.stretch_finding),
            },
            "rule": RULE,
            "direction": DIRECTION,
        },
        "calibration": {
            "state": UNCALIBRATED if evidence.thresholds.provisional else "calibrated",
            "low": evidence.thresholds.low,
            "high": evidence.thresholds.high,
            "probability": _number(report.probability),
            "likelihood_ratio": _number(evidence.finding.ratio if evidence.finding else None),
            "rates": rates(calibration, judged) if calibration and source.kind == "video" else "",
            "measured": None if calibration is None else _calibration(calibration),
        },
        "performance": performance(provenance.detector["training"]),
        "coverage": {
            "sampled": decoding.sampled,
            "decoded": decoding.decoded,
            "damaged": decoding.damaged,
            "frames_with_face": evidence.frames_with_face,
            "faces_scored": sum(1 for _ in evidence.crops()),
            "faces_too_small": evidence.faces_too_small,
            "not_judged": list(source.others),
            "faces_too_many": coverage.faces_too_many,
            "interlaced": coverage.interlaced,
            "declared_duration": _number(evidence.declared_duration),
            "instants": list(coverage.instants),
            "cuts": [_number(cut) for cut in coverage.cuts],
            "second_look": None if look is None else _second_look(look),
        },
        "tracks": [_track(track) for track in evidence.tracks],
        "warnings": list(evidence.warnings),
        "heatmaps": _heatmaps(report),
        "evidence_sum": _evidence_sum(report.evidence_sum),
        "faithfulness": _faithfulness(report.faithfulness),
        "c2pa": {
            "status": provenance.credentials.status,
            "detail": provenance.credentials.detail,
        },
        "limitations": list(LIMITATIONS),
        "tool": {
            "versions": provenance.versions,
            "detector": provenance.detector,
            "device": provenance.device,
            "precision": provenance.precision,
            "threads": provenance.threads,
            "confinement": provenance.confinement.value,
        },
        "run": {
            "argv": [without_userinfo(word) for word in provenance.request.argv],
            "case": None if provenance.request.case is None else asdict(provenance.request.case),
            "settings": provenance.settings,
            "origins": provenance.request.origins,
            "started": provenance.started,
            "finished": provenance.finished,
            "seconds": provenance.seconds,
        },
        "outputs": list(report.outputs),
        "opinions": [] if report.second is None else [_opinion(report), _opinion(report.second)],
        "second_opinion": None if report.second is None else to_dict(report.second),
    }


def _opinion(report: Report) -> dict[str, Any]:
    """The result of one of two detectors."""
    evidence, finding = report.evidence, report.evidence.finding
    return {
        "detector": report.provenance.detector["name"],
        "name": evidence.verdict.name.value,
        "reason": evidence.verdict.reason,
        "summary": summary(report.source, evidence),
        "score": None if finding is None else _number(finding.score),
        "low": evidence.thresholds.low if finding is None else finding.thresholds.low,
        "high": evidence.thresholds.high if finding is None else finding.thresholds.high,
        "probability": None if finding is None else _number(finding.probability),
    }


def as_stated(frame: FrameEvidence) -> FrameEvidence:
    """The frame with its numbers as report.json states them.

    These are judged, so that report.json is enough to judge again (see `reading`).
    """
    stated = _frame(frame)
    face = Face(Box(*stated["box"]), stated["confidence"], np.array(stated["landmarks"]))
    quality = CropQuality(**stated["quality"])
    return replace(frame, face=face, quality=quality, logit=stated["logit"])


def text(report: Report) -> str:
    """report.json's content."""
    return json.dumps(to_dict(report), indent=2, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of a report and of an error."""
    return json.loads(
        resources.files(__package__).joinpath("report.schema.json").read_text("utf-8")
    )


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    """None if there were too few frames (see timeline.FEWEST_FRAMES)."""
    if interval is None:
        return None
    return {
        "low": _number(interval.low),
        "high": _number(interval.high),
        "level": LEVEL,
        "method": INTERVAL_METHOD,
        "note": INTERVAL_NOTE,
    }


def _run(run: Stretch) -> dict[str, Any]:
    return {"start": _number(run.start), "end": _number(run.end), "frames": run.frames}


def _heatmaps(report: Report) -> dict[str, Any] | None:
    """The kinds of maps that were drawn, the most informative first."""
    if not any(name.startswith("heatmaps/") for name in report.outputs):
        return None
    kinds = [ATTENTION] if report.evidence_sum is None else [EVIDENCE, ATTENTION]
    return {
        "maps": [
            {
                "name": scale.name,
                "unit": scale.unit,
                "scale": [scale.bottom, scale.top],
                "caveat": scale.caveat,
            }
            for scale in kinds
        ]
    }


def _evidence_sum(found: EvidenceSum | None) -> dict[str, Any] | None:
    if found is None:
        return None
    numbers = {name: _number(value, 4) for name, value in asdict(found).items()}
    numbers |= {"track": found.track, "crops": found.crops}
    # From the numbers as stated, so that the sentence can be made again from them.
    return {**numbers, "sentence": evidence_sentence(EvidenceSum(**numbers))}  # type: ignore[arg-type]


def evidence_sentence(found: EvidenceSum) -> str:
    """A sentence on the parts that add up to a face's score."""
    where = (
        "nothing points to manipulation"
        if found.on_face is None
        else f"{percent(found.on_face)} of what speaks for manipulation lies on the face"
    )
    return (
        f"The mean logit of face {found.track}, {logit(found.logit)}, is the sum of"
        f" {logit(found.speaking_for)} from patches that speak for manipulation,"
        f" {logit(found.speaking_against)} from patches that speak against it and a constant of"
        f" {logit(found.constant)}; {where}."
    )


def _faithfulness(found: Faithfulness | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "map": found.map,
        "crops": found.crops,
        "seed": found.seed,
        "marked": {k: _number(v) for k, v in asdict(found.marked).items()},
        "random": {k: _number(v) for k, v in asdict(found.random).items()},
        "deletion_wins": _number(found.deletion_wins),
        "insertion_wins": _number(found.insertion_wins),
        "sentence": faithfulness_sentence(found),
    }


def faithfulness_sentence(found: Faithfulness) -> str:
    """A sentence on whether these heatmaps explain the score."""
    more = rounded(found.marked.deletion) > rounded(found.random.deletion)
    first = {
        "attention": "the most attended patches",
        "evidence": "the patches that speak most for what it says",
    }[found.map]
    return (
        f"Covering {first} first changes the logit's size by {logit(-found.marked.deletion)} on average,"
        f" covering patches by lot by {logit(-found.random.deletion)} ({counted(found.crops, 'crop')}; more"
        f" in {percent(found.deletion_wins)} of them): the heatmaps mark what the score "
        + ("depends on." if more else "does NOT depend on more than on other patches.")
    )


def _finding(finding: Finding | None) -> dict[str, Any] | None:
    if finding is None:
        return None
    return {
        "name": finding.verdict.name.value,
        "reason": finding.verdict.reason,
        "sentence": finding.verdict.sentence,
        "score": _number(finding.score),
        "frames": finding.frames,
        "low": finding.thresholds.low,
        "high": finding.thresholds.high,
        "weak": list(finding.weak),
        "probability": _number(finding.probability),
        "likelihood_ratio": _number(finding.ratio),
        "contrast": None if finding.contrast is None else asdict(finding.contrast),
    }


def _second_look(look: SecondLook) -> dict[str, Any]:
    return {
        "track": look.track,
        "sampled": look.sampled,
        "decoded": look.decoded,
        "frames": [_frame(frame) for frame in look.frames],
    }


def _calibration(calibration: Calibration) -> dict[str, Any]:
    plain = asdict(calibration)
    return plain | {"rungs": list(plain["rungs"]), "codecs": list(calibration.codecs)}


def _track(track: TrackEvidence) -> dict[str, Any]:
    return {
        "id": track.id,
        "merged": list(track.merged),
        "enough": track.enough,
        "finding": _finding(track.finding),
        "score": _number(track.score),
        "maximum": _number(track.maximum),
        "top10_mean": _number(track.top10_mean),
        "face_size": _number(track.face_size, 1),
        "share_above": _number(track.share_above),
        "longest_run": None if track.longest_run is None else _run(track.longest_run),
        "runs": [_run(run) for run in track.runs],
        "interval": _interval(track.interval),
        "cuts": [_number(cut) for cut in track.cuts],
        "frames": [_frame(frame) for frame in track.frames],
    }


def _frame(frame: FrameEvidence) -> dict[str, Any]:
    box, quality = frame.face.box, frame.quality
    return {
        "index": frame.frame_index,
        "time": _number(frame.time),
        "logit": _number(frame.logit),
        "box": [_number(side, 1) for side in (box.left, box.top, box.right, box.bottom)],
        "landmarks": [[_number(v, 1) for v in point] for point in frame.face.landmarks.tolist()],
        "confidence": _number(frame.face.confidence, 4),
        "quality": {
            "face_size": _number(quality.face_size, 1),
            "sharpness": _number(quality.sharpness, 1),
            "brightness": _number(quality.brightness, 1),
            "turn": _number(quality.turn, 3),
            "inside": _number(quality.inside, 3),
        },
    }


def _number(value: Any, digits: int = 6) -> float | None:
    return None if value is None else round(float(value), digits)
