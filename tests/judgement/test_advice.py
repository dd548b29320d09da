"""What the first screens say of a result's probability and of what to do next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from builders import reports
from builders.evidence import coverage, seen, source
from builders.language import terms
from deepscan.judgement.advice import chance, likely, next_steps
from deepscan.judgement.verdict import judge, thresholds_of
from deepscan.records import Report

TESTED = replace(reports.CALIBRATED, unseen=True)


def constant(value: float) -> Callable[[int, int], float]:
    return lambda track, instant: value


def stated(**how: Any) -> Report:
    return reports.made(**{"people": 1, "calibration": TESTED, "heat": False, **how})[0]


def judged(evidence: Any, **changes: Any) -> Report:
    return replace(reports.made(1, 4)[0], evidence=evidence, source=source(**changes))


REPORTS = {
    "score_high": stated(logit=constant(4.0)),
    "score_low": stated(logit=constant(-5.0)),
    "score_between": stated(logit=constant(0.0)),
    "untried": stated(logit=constant(-5.0), calibration=reports.CALIBRATED),
    "few_frames": stated(logit=constant(9.0), instants=2),
    "stretch_stands_out": stated(calibration=None, people=2),
    "frames_damaged": judged(judge(source(), coverage(4, damaged=4), [])),
    "too_few_instants": judged(judge(source(), coverage(32), [seen(1, 0, 5.0)])),
    "no_clear_face": judged(judge(source(), coverage(4), [seen(1, 0, 5.0, confidence=0.95)])),
    "faces_too_small": judged(judge(source(), coverage(4, too_small=3), [])),
    "no_face_found": judged(judge(source(), coverage(4), [])),
}


@pytest.mark.parametrize("reason", REPORTS)
def test_each_result_is_followed_by_two_or_three_steps_in_plain_words(reason: str) -> None:
    report = REPORTS[reason]
    assert report.verdict.reason == reason
    steps = next_steps(report)
    assert 2 <= len(steps) <= 3
    assert len(set(steps)) == len(steps)
    assert terms(" ".join((chance(report), *steps))) == []


def test_what_stands_out_is_looked_at_first_and_scanned_more_closely() -> None:
    """32 frames of ten seconds: one each third of a second. Of a video of 32 frames there are no more."""
    frames = [seen(1, i, 6.0 if 10 <= i < 16 else -6.0) for i in range(32)]
    evidence = judge(source(frames=250), coverage(32), frames, thresholds_of(TESTED))
    assert next_steps(judged(evidence, frames=250)) == (
        "Look at the face at 0:01 to 0:02, frame by frame.",
        "Scan again with --sampling every:0.1, to see when it begins and ends.",
        "Ask for the original video, as the camera or the first post had it, and scan that.",
    )
    assert len(next_steps(judged(evidence, frames=32))) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": 100}, "--sampling all"),
        ({"frames": 5000}, "--frames 128"),
        ({"frames": 2000, "bytes": 10_000}, "this copy is heavily compressed"),
    ],
)
def test_advice_follows_from_the_file(changes: dict[str, Any], words: str) -> None:
    given = source(**changes)
    frames = [seen(1, i, 0.0) for i in range(32)]
    evidence = judge(given, coverage(32), frames, thresholds_of(TESTED))
    assert words in " ".join(next_steps(judged(evidence, **changes)))


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.99, "very likely"),
        (0.8, "likely"),
        (0.54, "as likely as not"),
        (0.39, "rather unlikely"),
        (0.049, "very unlikely"),
        (0.0, "very unlikely"),
    ],
)
def test_probabilities_in_words(share: float, words: str) -> None:
    assert likely(share) == words


def test_a_probability_is_told_with_its_condition_or_why_there_is_none() -> None:
    """Odds of e to 1: 73 %."""
    assert chance(REPORTS["score_between"]) == (
        "Manipulation is rather likely (73 %), if half of such videos are manipulated."
    )
    assert "not calibrated" in chance(REPORTS["stretch_stands_out"])
    assert "few frames (2)" in chance(REPORTS["few_frames"])
    assert chance(REPORTS["no_face_found"]) == ""
