"""Whatever is judged, nothing said of it contradicts anything else: verdict, faces, numbers, sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import jsonschema
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from builders import reports
from builders.evidence import coverage, seen, source
from deepscan.judgement import judge, thresholds_of
from deepscan.judgement.words import logit
from deepscan.model.header import read_header
from deepscan.model.weights import detector_file
from deepscan.records import Calibration, FrameEvidence, Report, SecondLook
from deepscan.report import json as report_json
from deepscan.report import reading, scale

SHIPPED = read_header(detector_file("default")).calibration
assert SHIPPED is not None
# As trained by a user: tried on no unseen source, and on no single frames.
OWN = replace(SHIPPED, unseen=False, rungs=(), tail=None, indicated=None, cleared=None)
BLANK, _ = reports.made(people=0, instants=1, heat=False)

CLEARED, INDICATED, OPEN = "no_manipulation_indicated", "manipulation_indicated", "inconclusive"


@dataclass(frozen=True)
class Curve:
    """A face from one instant to another; its curve is flat, scattered or has a step."""

    begins: float  # shares of the instants
    ends: float
    level: float
    scatter: float
    step: float  # higher by so much
    at: float  # from this share of the instants on,
    steps: int  # at so many
    size: float  # pixels
    confidence: float
    sharpness: float

    def frames(self, track: int, instants: int) -> Iterator[FrameEvidence]:
        first, last, at = (int(s * instants) for s in (self.begins, self.ends, self.at))
        for i in range(first, max(first + 1, last)):
            logit = self.level + self.scatter * (-1) ** i
            if at <= i < at + self.steps:
                logit += self.step
            one = seen(track, i, round(logit, 6), self.size, self.confidence)
            yield replace(one, quality=replace(one.quality, sharpness=self.sharpness))


@dataclass(frozen=True)
class Case:
    """What is judged, in plain values: records themselves are checked by lot, which hypothesis forbids."""

    kind: str
    instants: int
    codec: str
    size: int  # bytes
    curves: list[Curve]
    cut: bool
    calibration: Calibration | None
    above: float  # a second look's logits, above the stretch's mean,
    looked: int | None  # in so many frames


shares = st.floats(0, 0.99)
curves = st.builds(
    Curve,
    begins=st.just(0.0) | shares,
    ends=st.just(1.0) | shares,
    level=st.sampled_from([-12.0, -7.525, -3.0, 3.915, 3.93, 12.0]) | st.floats(-14, 14),
    scatter=st.sampled_from([0.0, 0.3, 2.0]),
    step=st.sampled_from([0.0, 8.0, 16.0]),
    at=shares,
    steps=st.sampled_from([2, 4, 10]),
    size=st.sampled_from([100.0] * 5 + [42.0]),
    confidence=st.sampled_from([0.999] * 5 + [0.9]),
    sharpness=st.sampled_from([100.0] * 5 + [9.0]),
)
cases = st.builds(
    Case,
    kind=st.sampled_from(["video"] * 5 + ["image"]),
    instants=st.sampled_from([32, 32, 32, 32, 10, 3]),
    codec=st.sampled_from(["h264"] * 5 + ["av1"]),
    size=st.sampled_from([100_000] * 5 + [500]),
    curves=st.lists(curves, max_size=4),
    cut=st.sampled_from([False, False, True]),
    calibration=st.sampled_from([SHIPPED] * 4 + [OWN, None]),
    above=st.floats(-6, 6),
    looked=st.sampled_from([16, 16, 16, None, 0, 3]),
)


def judged(case: Case) -> Report:
    """A report of a case; the second look is taken where a stretch stands out."""
    video = case.kind == "video"
    instants = case.instants if video else 1
    file = source(kind=case.kind, frames=100 if video else 1, codec=case.codec, bytes=case.size)
    whole = replace(coverage(instants), cuts=(Fraction(8, 10),) if case.cut else ())
    frames = [f for t, curve in enumerate(case.curves, 1) for f in curve.frames(t, instants)]
    asked = thresholds_of(case.calibration)
    evidence = judge(file, whole, frames, asked)
    stretch = evidence.scores.stretch if evidence.scores is not None else None
    if stretch is not None and case.looked is not None:
        logit = round(stretch.mean + case.above, 6)
        again = [seen(stretch.track, 1000 + i, logit) for i in range(case.looked)]
        found = tuple(replace(frame, time=stretch.start) for frame in again)
        look = SecondLook(stretch.track, 16, 16, found)
        evidence = judge(file, whole, frames, asked, second_look=look)
    return replace(BLANK, source=file, evidence=evidence)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True, phases=[Phase.generate])
@given(cases)
def test_nothing_said_contradicts_anything_else(case: Case) -> None:
    document = report_json.to_dict(judged(case))
    jsonschema.validate(document, report_json.schema())
    assert reading.differences(document, report_json.to_dict(reading.from_dict(document))) == []
    for text in sentences(document):
        well_put(text)
    scores, verdict = document["scores"], document["verdict"]
    found = [track["finding"] for track in document["tracks"] if track["finding"]]
    if scores is None:
        assert verdict["name"] in ("no_face", "insufficient")
        assert (found, verdict["probability"], scale.draw(document)) == ([], "", None)
        return
    for track in document["tracks"]:
        of_a_face(track)
    of_the_video(document, found)
    if scores["stretch"] is not None:
        of_a_stretch(document)


def of_a_face(track: dict[str, Any]) -> None:
    """A face's numbers, verdict and sentence say the same."""
    finding, interval = track["finding"], track["interval"]
    assert track["enough"] == (finding is not None)
    assert (track["share_above"] == 0) == (track["longest_run"] is None)
    if interval is not None:
        assert interval["low"] <= track["score"] <= interval["high"]
    if finding is None:
        return
    assert (finding["score"], finding["frames"]) == (track["score"], len(track["frames"]))
    assert logit(finding["score"]) in finding["sentence"]
    side = sided(finding)
    assert (side == "high") == (finding["reason"] in ("score_high", "few_frames"))
    assert (side == "low") == (finding["reason"] in ("score_low", "untried"))
    assert (side == "between") == ("between the thresholds" in finding["sentence"])
    assert (finding["name"] == OPEN) == (finding["reason"] not in ("score_high", "score_low"))
    if finding["weak"]:
        assert finding["probability"] is finding["likelihood_ratio"] is None
    if finding["probability"] is not None:
        assert 0 < finding["probability"] < 1
        assert finding["name"] != INDICATED or finding["probability"] > 0.5
        assert finding["name"] != CLEARED or finding["probability"] < 0.5


def of_the_video(document: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """The headline follows from the faces; no face says more than it does."""
    scores, verdict, bounds = document["scores"], document["verdict"], document["calibration"]
    (own,) = (track for track in document["tracks"] if track["id"] == scores["track"])
    names = [finding["name"] for finding in found]
    assert scores["faces_judged"] == len(found)
    assert (scores["video"], scores["interval"]) == (own["score"], own["interval"])
    assert (bounds["low"], bounds["high"]) == (own["finding"]["low"], own["finding"]["high"])
    by_stretch = verdict["reason"] == "stretch_high"
    assert (verdict["name"] == INDICATED) == (INDICATED in names or by_stretch)
    if scores["stretch"] is None:
        assert (verdict["name"], verdict["reason"]) == (
            own["finding"]["name"],
            own["finding"]["reason"],
        )
    if verdict["name"] == CLEARED:
        sound = [finding for finding in found if not finding["weak"]]
        assert {finding["name"] for finding in sound} == {CLEARED}
        assert document["input"]["kind"] == "video"
        assert bounds["state"] == "calibrated"
    if document["input"]["kind"] == "image":
        assert (verdict["name"], bounds["probability"], bounds["rates"]) == (OPEN, None, "")
    stated = None if by_stretch else own["finding"]["probability"]
    assert bounds["probability"] == stated
    assert verdict["probability"].startswith("No probability") == (stated is None)
    drawn = scale.draw(document)
    assert drawn is not None
    shown = drawn.zones[0 if drawn.x <= scale.THIRD else 2 if drawn.x >= 2 * scale.THIRD else 1]
    if verdict["reason"] != "stretch_stands_out":
        assert (shown == "indicated") == (verdict["name"] == INDICATED)
        assert (shown == "none indicated") == (verdict["name"] == CLEARED)
    if own["finding"]["weak"]:
        assert document["warnings"], "weak evidence, and nothing that warns of it"
    assert "too weak to decide" not in verdict["sentence"] or not own["finding"]["weak"]
    if "the most suspicious of" in verdict["summary"] and "seen well" not in verdict["summary"]:
        assert own["score"] == max(t["score"] for t in document["tracks"] if t["enough"])


def of_a_stretch(document: dict[str, Any]) -> None:
    """A stretch is told only where no face is indicated, and decides only by a second look."""
    verdict, stretch = document["verdict"], document["scores"]["stretch"]
    found = stretch["finding"]
    confirmed = found is not None and found["name"] == INDICATED
    assert verdict["reason"] == ("stretch_high" if confirmed else "stretch_stands_out")
    assert verdict["name"] == (INDICATED if confirmed else OPEN)
    (track,) = (t for t in document["tracks"] if t["id"] == stretch["track"])
    assert track["finding"]["name"] != INDICATED
    assert stretch["frames"] <= len(track["frames"])
    assert not any("tenth" in warning for warning in document["warnings"])
    if confirmed:
        assert found["contrast"]["times"] >= found["contrast"]["needed"]
        assert sided(found) == "high"
    if found is not None:
        assert (found["probability"], found["likelihood_ratio"]) == (None, None)


def sided(finding: dict[str, Any]) -> str:
    """Where the score is, by the numbers as they are stated."""
    if finding["score"] >= finding["high"]:
        return "high"
    return "low" if finding["score"] <= finding["low"] else "between"


def sentences(document: dict[str, Any]) -> Iterator[str]:
    """Everything that is said in words of this result."""
    verdict = document["verdict"]
    yield from (verdict["sentence"], verdict["summary"], verdict["probability"])
    yield from verdict["next"]
    yield from document["warnings"]
    yield from (track["finding"]["sentence"] for track in document["tracks"] if track["finding"])


WRONG = {
    "a hyphen for a minus": r"(?<![\w-])-\d",
    "a zero with a minus": "\u22120[.]0+(?!\\d)",
    "one, and a plural": r"\b1 (faces|frames|instants|videos|crops)\b",
    "many, and a singular": r"(?<![\d.:])(0|[2-9]|\d\d+) (face|frame|instant|crop)\b",
    "no space before per cent": r"\d%",
    "never quite certain": r"\b(0|100) % (of manipulation|\))|\((0|100) %\)",
    "a time of another form": r"\b\d+[.]\d+ ?s\b",
    "a gap": r"  | [.,;:]|\.\.",
}


def well_put(text: str) -> None:
    """Numbers and words have one form in all that is said."""
    assert text == text.strip()
    assert text == "" or text.endswith((".", "?"))
    for what, pattern in WRONG.items():
        assert not re.search(pattern, text), f"{what}: {text}"
