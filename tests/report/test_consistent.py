"""Whatever decides a result: headline, reason, cards, scale and terminal say the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import unescape
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from builders import reports
from deepscan.batches.outcomes import Outcome
from deepscan.cli.terminal import summary
from deepscan.judgement import judge, thresholds_of
from deepscan.judgement.advice import chance, next_steps
from deepscan.judgement.agreement import DISAGREE, agreed
from deepscan.judgement.summary import told
from deepscan.judgement.words import HEADLINES
from deepscan.records import Report, SecondLook
from deepscan.report import json as report_json
from deepscan.report import page, scale
from deepscan.serve.worker import Analysis

TESTED = replace(reports.CALIBRATED, unseen=True)  # limits -3 and 2

Logit = Callable[[int, int], float]


def faces(*wholes: float, raised: int = 0) -> Logit:
    """Each face's score; of face `raised`, 5 from instant 10 to 15 of 32."""
    return lambda track, i: 5.0 if track == raised and 10 <= i < 16 else wholes[track - 1]


def made(logit: Logit, people: int = 1, instants: int = 32, tested: bool = True) -> Report:
    calibration = TESTED if tested else reports.CALIBRATED
    return reports.made(people, instants, logit=logit, calibration=calibration, heat=False)[0]


def judged_again(report: Report, look: float | None = None, small: int = 0) -> Report:
    """With a second look of this score at the stretch, or with the face `small` of 30 pixels."""
    frames = [
        replace(f, quality=replace(f.quality, face_size=30)) if f.track == small else f
        for f in report.evidence.crops()
    ]
    second, scores = None, report.evidence.scores
    if look is not None:
        assert scores is not None
        assert scores.stretch is not None
        inside = [f for f in frames if f.track == scores.stretch.track][:16]
        shown = [
            replace(f, logit=look, time=scores.stretch.start, frame_index=1000 + n)
            for n, f in enumerate(inside)
        ]
        second = SecondLook(scores.stretch.track, 16, 16, tuple(shown))
    evidence = judge(
        report.source, report.evidence.coverage, frames, thresholds_of(TESTED), second_look=second
    )
    return replace(report, evidence=evidence)


def both(first: Report, second: Report) -> Report:
    def named(report: Report, name: str) -> Report:
        detector = {**report.provenance.detector, "name": name}
        return replace(report, provenance=replace(report.provenance, detector=detector))

    first, second = named(first, "one"), named(second, "other")
    return replace(first, second=second, joint=agreed(first, second))


@dataclass(frozen=True)
class Shown:
    """What a report's cards say, face by face, and in which zones of the scale its marks stand."""

    report: Report
    headline: str
    reason: str
    cards: tuple[str, ...]
    zones: tuple[str, ...]


PART = "0:02 to 0:04"
INDICATED, OPEN, NONE = "Manipulation indicated", "Inconclusive", "No manipulation indicated"
DECIDES = "decides the result"

CASES = {
    "a face scores high": Shown(
        made(faces(5.0)), INDICATED, "score_high",
        (f"{INDICATED} {DECIDES}",), ("indicated",),
    ),
    "of two faces one scores high": Shown(
        made(faces(-9.0, 5.0), 2), INDICATED, "score_high",
        (NONE, f"{INDICATED} {DECIDES}"), ("indicated",),
    ),
    "a face scores between": Shown(
        made(faces(0.0)), OPEN, "score_between",
        (f"{OPEN} {DECIDES}",), ("inconclusive",),
    ),
    "a face scores low": Shown(
        made(faces(-5.0)), NONE, "score_low",
        (f"{NONE} {DECIDES}",), ("none indicated",),
    ),
    "low, and the detector was never tried": Shown(
        made(faces(-5.0), tested=False), OPEN, "untried",
        (f"{OPEN} {DECIDES}",), ("low, clears nothing",),
    ),
    "high, in two frames": Shown(
        made(faces(9.0), instants=2), OPEN, "few_frames",
        (f"{OPEN} {DECIDES} weak evidence",), ("high, decides nothing",),
    ),
    "a stretch decides": Shown(
        judged_again(made(faces(-5.0, raised=1)), look=5.0), INDICATED, "stretch_high",
        (f"{INDICATED} at {PART} {DECIDES}",), ("indicated",),
    ),
    "a stretch of a face decides that would not by itself": Shown(
        judged_again(made(faces(0.0, -5.0, raised=2), 2), look=5.0), INDICATED, "stretch_high",
        (OPEN, f"{INDICATED} at {PART} {DECIDES}"), ("indicated",),
    ),
    "a stretch stands out of a low face": Shown(
        made(faces(-5.5, raised=1)), OPEN, "stretch_stands_out",
        (f"{OPEN} because of {PART} {DECIDES}",), ("none indicated", "indicated"),
    ),
    "a stretch stands out, and a second look does not settle it": Shown(
        judged_again(made(faces(-5.5, raised=1)), look=1.0), OPEN, "stretch_stands_out",
        (f"{OPEN} because of {PART} {DECIDES}",), ("none indicated", "inconclusive"),
    ),
    "a weak face beside a sound one": Shown(
        judged_again(made(faces(-5.0, 1.0), 2), small=2), NONE, "score_low",
        (f"{NONE} {DECIDES}", f"{OPEN} too weak to decide"), ("none indicated",),
    ),
    "a weak face decides": Shown(
        judged_again(made(faces(-5.0, 9.0), 2), small=2), INDICATED, "score_high",
        (NONE, f"{INDICATED} {DECIDES} weak evidence"), ("indicated",),
    ),
    "two detectors disagree": Shown(
        both(made(faces(5.0)), made(faces(-5.0))), OPEN, DISAGREE,
        ("one: manipulation indicated",), (),
    ),
    "two detectors disagree about a stretch": Shown(
        both(made(faces(-5.0)), judged_again(made(faces(-5.0, raised=1)), look=5.0)), OPEN, DISAGREE,
        ("one: no manipulation indicated",), (),
    ),
    "two detectors agree, the first by a stretch": Shown(
        both(judged_again(made(faces(-5.0, raised=1)), look=5.0), made(faces(5.0))),
        INDICATED, "stretch_high",
        (f"{INDICATED} at {PART} {DECIDES}",), ("indicated",),
    ),
    "nobody is there": Shown(made(faces(), 0), "No face found", "no_face_found", (), ()),
}  # fmt: skip


def cards(html: str) -> Iterator[str]:
    """The words beside each face's number, in the order of numbers."""
    found = re.findall(r'<h3 id="face-(\d+)-title">Face \d+(.*?)</h3>', html, re.DOTALL)
    for _, inner in sorted(found, key=lambda pair: int(pair[0])):
        yield " ".join(unescape(re.sub("<[^>]*>", " ", inner)).split())


def marks(document: dict) -> tuple[str, ...]:
    """The zones in which the scale's marks stand, beginning with the main one."""
    drawn = scale.draw(document)
    if drawn is None:
        return ()
    places = [drawn.x, *([drawn.part[0]] if drawn.part else [])]
    return tuple(drawn.zones[min(2, int(x // 33.33))] for x in places)


@pytest.mark.parametrize("case", CASES)
def test_cards_and_scale_say_what_the_headline_says(case: str) -> None:
    expected = CASES[case]
    report = expected.report
    assert (HEADLINES[report.verdict.name], report.verdict.reason) == (
        expected.headline,
        expected.reason,
    )
    document = report_json.to_dict(report)
    assert marks(document) == expected.zones
    for paper in (False, True):
        html = page.html(document, paper=paper)
        assert tuple(cards(html)) == expected.cards
        assert re.search(rf'<h2 id="verdict"[^>]*>{expected.headline}</h2>', html)


@pytest.mark.parametrize("case", CASES)
def test_page_terminal_and_serve_give_the_same_reason(case: str) -> None:
    report = CASES[case].report
    said = told(report)
    assert unescape(page.html(report_json.to_dict(report))).count(said) >= 1
    outcome = Outcome.of(Path("clip.mp4"), report)
    text = StringIO()
    Console(width=400, file=text).print(summary([outcome], 400))
    assert said in " ".join(text.getvalue().split())
    assert CASES[case].headline.lower() in text.getvalue()
    analysis = Analysis.of(report)
    assert (HEADLINES[analysis.verdict], analysis.sentence) == (CASES[case].headline, said)


@pytest.mark.parametrize("case", CASES)
def test_only_a_result_that_indicates_is_followed_as_one(case: str) -> None:
    """No probability of the whole for a part, and no step that takes the other detector's side."""
    report = CASES[case].report
    words, steps = chance(report), " ".join(next_steps(report))
    if report.verdict.reason in (DISAGREE, "stretch_high"):
        assert words.startswith("No probability")
    if report.verdict.reason == "stretch_stands_out":
        assert words.startswith("Going by the whole, manipulation is")
    if report.evidence.scores is not None:
        looks = report.verdict.name != "no_manipulation_indicated"
        assert steps.startswith("Look at") == looks


def test_of_two_detectors_the_more_suspicious_says_where_to_look() -> None:
    report = CASES["two detectors disagree about a stretch"].report
    assert next_steps(report)[0] == f"Look at the face at {PART}, frame by frame."
