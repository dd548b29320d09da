"""Reads report.json into a Report, and judges its logits again.

All that `judge` needs stands in report.json: every face's logit and quality, which instants were looked at,
the facts about the input, the detector's calibration. So everything that was concluded of them can be
concluded again from the document alone.
"""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import numpy as np

from deepscan.errors import DataError, SettingsError
from deepscan.judgement import judge, thresholds_of
from deepscan.judgement.agreement import agreed
from deepscan.plain import read, read_value
from deepscan.records import (
    Areas,
    Box,
    Calibration,
    Case,
    Confinement,
    Coverage,
    Credentials,
    CropQuality,
    DecodeCount,
    EvidenceSum,
    Face,
    Faithfulness,
    FrameEvidence,
    Provenance,
    Report,
    Request,
    SecondLook,
    Source,
)


def from_dict(document: dict[str, Any]) -> Report:
    """The report in a report.json document, with its evidence judged again.

    Raises:
        DataError: something in it has another type than deepscan writes, is missing, or cannot be.
    """
    try:
        return _report(document)
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        SettingsError,
    ) as error:
        raise DataError(f"not a report of this version of deepscan: {error!r:.200}") from error


def _report(document: dict[str, Any]) -> Report:
    coverage = document["coverage"]
    source = _record(Source, {**document["input"], "others": coverage["not_judged"]})
    counts = _record(DecodeCount, coverage)
    looked = Coverage(
        counts,
        read_value(int, coverage["frames_with_face"], "frames_with_face"),
        read_value(int, coverage["faces_too_small"], "faces_too_small"),
        read_value(bool, coverage["interlaced"], "interlaced"),
        read_value(tuple[int, ...], coverage["instants"], "instants"),
        read_value(tuple[Fraction, ...], coverage["cuts"], "cuts"),
        read_value(int, coverage["faces_too_many"], "faces_too_many"),
        {
            other: read_value(int, track["id"], "track")
            for track in document["tracks"]
            for other in read_value(tuple[int, ...], track["merged"], "merged")
        },
    )
    frames = [
        _frame(track["id"], frame) for track in document["tracks"] for frame in track["frames"]
    ]
    measured, summed = document["calibration"]["measured"], document["evidence_sum"]
    evidence = judge(
        source,
        looked,
        frames,
        thresholds_of(None if measured is None else read(Calibration, measured, "calibration")),
        declared_duration=read_value(float | None, coverage["declared_duration"], "duration"),
        second_look=_second_look(coverage["second_look"]),
    )
    stated = document["second_opinion"]
    second = None if stated is None else _report({**stated, "second_opinion": None})
    report = Report(
        source,
        evidence,
        _provenance(document),
        evidence_sum=None if summed is None else _record(EvidenceSum, summed),
        faithfulness=_faithfulness(document["faithfulness"]),
        outputs=read_value(tuple[str, ...], document["outputs"], "outputs"),
        second=second,
    )
    return report if second is None else replace(report, joint=agreed(report, second))


def _record(kind: type[Any], values: dict[str, Any]) -> Any:
    """A record from those of the values that it has fields for."""
    return read(kind, {f.name: values[f.name] for f in fields(kind)}, kind.__name__)


def _frame(track: int, stated: dict[str, Any]) -> FrameEvidence:
    box = read_value(tuple[float, float, float, float], stated["box"], "box")
    landmarks = read_value(tuple[tuple[float, float], ...], stated["landmarks"], "landmarks")
    confidence = read_value(float, stated["confidence"], "confidence")
    return FrameEvidence(
        read_value(int, track, "track"),
        read_value(int, stated["index"], "index"),
        read_value(Fraction, stated["time"], "time"),
        Face(Box(*box), confidence, np.array(landmarks, float)),
        _record(CropQuality, stated["quality"]),
        float(read_value(float, stated["logit"], "logit")),
    )


def _second_look(stated: dict[str, Any] | None) -> SecondLook | None:
    if stated is None:
        return None
    frames = tuple(_frame(stated["track"], frame) for frame in stated["frames"])
    track, sampled, decoded = (
        read_value(int, stated[name], name) for name in ("track", "sampled", "decoded")
    )
    return SecondLook(track, sampled, decoded, frames)


def _provenance(document: dict[str, Any]) -> Provenance:
    tool, run = document["tool"], document["run"]
    case = run["case"]
    return Provenance(
        versions=read_value(dict[str, str], tool["versions"], "versions"),
        detector=dict(tool["detector"]),
        device=read_value(str, tool["device"], "device"),
        precision=read_value(str, tool["precision"], "precision"),
        threads=read_value(int, tool["threads"], "threads"),
        settings=dict(run["settings"]),
        started=read_value(str, run["started"], "started"),
        finished=read_value(str, run["finished"], "finished"),
        sha256_after=read_value(str, document["input"]["sha256_after"], "sha256_after"),
        seconds=read_value(dict[str, float], run["seconds"], "seconds"),
        confinement=Confinement(tool["confinement"]),
        request=Request(
            read_value(tuple[str, ...], run["argv"], "argv"),
            read_value(dict[str, str], run["origins"], "origins"),
            None if case is None else _record(Case, case),
        ),
        credentials=_record(Credentials, document["c2pa"]),
    )


def _faithfulness(stated: dict[str, Any] | None) -> Faithfulness | None:
    if stated is None:
        return None
    areas = {name: _record(Areas, stated[name]) for name in ("marked", "random")}
    return _record(Faithfulness, {**stated, **areas})


def differences(stated: Any, found: Any, place: str = "") -> list[str]:
    """Where two documents differ, as "scores.video"; numbers may by what rounding to six digits makes."""
    if isinstance(stated, dict) and isinstance(found, dict):
        names = sorted(stated.keys() | found.keys(), key=str)
        missing = [_at(place, n) for n in names if n not in stated or n not in found]
        both = (n for n in names if n in stated and n in found)
        return missing + [d for n in both for d in differences(stated[n], found[n], _at(place, n))]
    if isinstance(stated, list | tuple) and isinstance(found, list | tuple):
        if len(stated) != len(found):
            return [place]
        pairs = enumerate(zip(stated, found, strict=True))
        return [d for n, (a, b) in pairs for d in differences(a, b, _at(place, n))]
    numbers = isinstance(stated, int | float) and isinstance(found, int | float)
    if numbers and bool not in (type(stated), type(found)):
        return [] if abs(stated - found) <= 2e-6 * max(1.0, abs(found)) else [place]
    return [] if type(stated) is type(found) and stated == found else [place]


def _at(place: str, name: object) -> str:
    return f"{place}.{name}" if place else str(name)
