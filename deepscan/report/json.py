"""report.json: the machine's form of a Report, described by report.schema.json beside this file."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from deepscan.errors import DeepscanError
from deepscan.heatmap import CAVEAT, SCALE_TOP
from deepscan.records import FrameEvidence, Report, TrackEvidence, VerdictName

SCHEMA = "deepscan.report/1"

DIRECTION = "logit > 0 leans to manipulated"
RULE = "highest mean of frame logits among tracks with enough evidence"
UNCALIBRATED = "uncalibrated, provisional"
LIMITATIONS = (
    "Generators the detector was not trained on may go unnoticed.",
    "A low score does not show that the video is authentic.",
    "The shipped detector is a preview; its model card states how often it was right, and on what.",
)


def to_dict(report: Report) -> dict[str, Any]:
    """The report as plain values; times in seconds, sizes in pixels of the frame as displayed."""
    source, evidence, provenance = report.source, report.evidence, report.provenance
    scores, decoding = evidence.scores, evidence.decoding
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
            "bit_rate": source.bit_rate,
            "tags": source.tags,
        },
        "verdict": {
            "name": evidence.verdict.name.value,
            "reason": evidence.verdict.reason,
            "sentence": evidence.verdict.sentence,
        },
        "scores": None
        if scores is None
        else {
            "video": _number(scores.video),
            "track": scores.track,
            "largest_face": _number(scores.largest_face),
            "maximum": _number(scores.maximum),
            "top10_mean": _number(scores.top10_mean),
            "rule": RULE,
            "direction": DIRECTION,
        },
        "calibration": {
            "state": UNCALIBRATED if evidence.thresholds.provisional else "calibrated",
            "low": evidence.thresholds.low,
            "high": evidence.thresholds.high,
        },
        "coverage": {
            "sampled": decoding.sampled,
            "decoded": decoding.decoded,
            "damaged": decoding.damaged,
            "frames_with_face": evidence.frames_with_face,
            "faces_scored": sum(1 for _ in evidence.crops()),
            "faces_too_small": evidence.faces_too_small,
        },
        "tracks": [_track(track) for track in evidence.tracks],
        "warnings": list(evidence.warnings),
        "heatmaps": {
            "unit": "times uniform attention",
            "scale": [0, SCALE_TOP],
            "caveat": CAVEAT,
        }
        if any(name.startswith("heatmaps/") for name in report.outputs)
        else None,
        "limitations": list(LIMITATIONS),
        "tool": {
            "versions": provenance.versions,
            "detector": provenance.detector,
            "device": provenance.device,
            "precision": provenance.precision,
            "threads": provenance.threads,
        },
        "run": {
            "settings": provenance.settings,
            "started": provenance.started,
            "finished": provenance.finished,
            "seconds": provenance.seconds,
        },
        "outputs": list(report.outputs),
    }


def error_dict(path: Path, error: DeepscanError) -> dict[str, Any]:
    """The line that stands for an input which could not be analysed: a reason, and no score."""
    return {
        "schema": SCHEMA,
        "input": {"path": str(path)},
        "verdict": {
            "name": VerdictName.ERROR.value,
            "reason": type(error).__name__,
            "sentence": str(error),
        },
    }


def text(report: Report) -> str:
    """report.json's content."""
    return json.dumps(to_dict(report), indent=2, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of both forms."""
    return json.loads(
        resources.files(__package__).joinpath("report.schema.json").read_text("utf-8")
    )


def _track(track: TrackEvidence) -> dict[str, Any]:
    return {
        "id": track.id,
        "enough": track.enough,
        "score": _number(track.score),
        "maximum": _number(track.maximum),
        "top10_mean": _number(track.top10_mean),
        "face_size": _number(track.face_size, 1),
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
