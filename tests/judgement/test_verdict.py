"""Frame logits in, verdicts out: worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest

from builders.evidence import coverage, seen, source
from builders.reports import CALIBRATED
from deepscan.judgement.verdict import (
    PROVISIONAL,
    Coverage,
    build_tracks,
    enough_instants,
    judge,
    score,
    thresholds_of,
    top10_mean,
)
from deepscan.records import VerdictName

INSTANTS = range(32)  # every sampled frame's index


@pytest.mark.parametrize(
    ("sampled", "needed"), [(1, 1), (10, 1), (11, 2), (32, 4), (40, 4), (1000, 4)]
)
def test_a_face_must_be_seen_in_4_instants_or_a_tenth_of_them(sampled: int, needed: int) -> None:
    assert enough_instants(sampled) == needed


def test_the_video_score_is_the_highest_track_mean() -> None:
    frames = [seen(1, i, -2.0) for i in range(8)] + [
        seen(2, i, logit) for i, logit in enumerate((1, 2, 3, 4))
    ]
    scores = score(build_tracks(frames, INSTANTS), INSTANTS)
    assert scores is not None
    assert (scores.video, scores.track) == (2.5, 2)
    assert scores.maximum == 4
    assert scores.top10_mean == pytest.approx((4 + 3) / 2)  # 12 logits: the highest two


def test_the_papers_rule_takes_each_frames_largest_face() -> None:
    frames = [seen(1, i, -1.0, size=50) for i in range(4)]
    frames += [seen(2, i, 1.0, size=60 if i < 3 else 40) for i in range(4)]
    scores = score(build_tracks(frames, INSTANTS), INSTANTS)
    assert scores is not None
    assert scores.largest_face == pytest.approx((1 + 1 + 1 - 1) / 4)


def test_with_one_face_the_rules_agree() -> None:
    frames = [seen(1, i, logit) for i, logit in enumerate((0.5, -1.5, 2.0, 3.0, 1.0))]
    scores = score(build_tracks(frames, INSTANTS), INSTANTS)
    assert scores is not None
    assert scores.video == scores.largest_face == pytest.approx(1.0)


def test_a_face_seen_too_rarely_carries_no_score() -> None:
    frames = [seen(1, i, 9.0) for i in range(3)] + [seen(2, i, -2.0) for i in range(4)]
    scores = score(build_tracks(frames, INSTANTS), INSTANTS)
    assert scores is not None
    assert (scores.track, scores.maximum) == (2, -2.0)


def test_what_is_nowhere_clearly_a_face_carries_no_score() -> None:
    """Folded hands, followed for ten instants: the finder was never sure of them."""
    hands = [seen(2, i, 9.0, size=300, confidence=0.95) for i in range(10)]
    face = [seen(1, i, -2.0, confidence=0.92 if i else 0.999) for i in range(10)]
    scores = score(build_tracks(hands + face, INSTANTS), INSTANTS)
    assert scores is not None
    assert (scores.track, scores.video, scores.largest_face) == (1, -2.0, -2.0)
    verdict = judge(source(), coverage(), hands).verdict
    assert (verdict.name, verdict.reason) == (VerdictName.INSUFFICIENT, "no_clear_face")


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 10.0), (10, 10.0), (11, 9.5), (20, 9.5), (21, 9.0)]
)
def test_the_top_tenth_is_rounded_up(count: int, expected: float) -> None:
    logits = [10.0 - i for i in range(count)]
    assert top10_mean(logits) == expected


@pytest.mark.parametrize(
    ("logit", "name"),
    [
        (1.0, VerdictName.MANIPULATION_INDICATED),
        (0.99, VerdictName.INCONCLUSIVE),
        (-0.99, VerdictName.INCONCLUSIVE),
        (-1.0, VerdictName.NO_MANIPULATION_INDICATED),
    ],
)
def test_thresholds_include_their_own_value(logit: float, name: VerdictName) -> None:
    evidence = judge(source(), coverage(), [seen(1, i, logit) for i in range(32)])
    assert evidence.verdict.name is name
    assert evidence.thresholds.provisional


@pytest.mark.parametrize(
    ("faces", "looked", "name", "reason"),
    [
        (0, coverage(), VerdictName.NO_FACE, "no_face_found"),
        (0, coverage(too_small=7), VerdictName.INSUFFICIENT, "faces_too_small"),
        (3, coverage(), VerdictName.INSUFFICIENT, "too_few_instants"),
        (0, coverage(damaged=32), VerdictName.INSUFFICIENT, "frames_damaged"),
    ],
)
def test_what_cannot_be_judged_has_a_reason_and_no_score(
    faces: int, looked: Coverage, name: VerdictName, reason: str
) -> None:
    evidence = judge(source(), looked, [seen(1, i, 5.0) for i in range(faces)])
    assert (evidence.verdict.name, evidence.verdict.reason) == (name, reason)
    assert evidence.scores is None


def test_a_low_score_is_never_called_authentic() -> None:
    evidence = judge(source(), coverage(), [seen(1, i, -5.0) for i in range(32)])
    assert "does not show that the video is authentic" in evidence.verdict.sentence


@pytest.mark.parametrize(
    ("changes", "looked", "declared", "words"),
    [
        ({"variable_rate": True}, coverage(), None, "frame rate varies"),
        ({"exact_times": False}, coverage(), None, "no usable time stamps"),
        ({"restarts": (Fraction(62),)}, coverage(), None, "clock restarts at 1:02.000"),
        ({}, coverage(damaged=2), None, "2 of 32 sampled frames are damaged"),
        ({}, coverage(too_small=3), None, "3 faces too small"),
        ({}, replace(coverage(), faces_too_many=9900), None, "9900 faces were passed over"),
        ({}, coverage(), 20.0, "announces 20.0 s but ends after 10.0 s"),
        ({}, replace(coverage(), interlaced=True), None, "interlaced"),
    ],
)
def test_what_weakens_the_evidence_is_said(
    changes: dict[str, object], looked: Coverage, declared: float | None, words: str
) -> None:
    frames = [seen(1, i, 0.0) for i in range(32)]
    plain = judge(source(), coverage(), frames)
    weak = judge(source(**changes), looked, frames, declared_duration=declared)
    assert plain.warnings == ()
    assert any(words in warning for warning in weak.warnings)


def test_a_short_manipulation_raises_a_warning_when_the_mean_hides_it() -> None:
    frames = [seen(1, i, 3.0 if i < 4 else -3.0) for i in range(32)]
    evidence = judge(source(), coverage(), frames)
    assert evidence.verdict.name is VerdictName.NO_MANIPULATION_INDICATED
    assert any("highest tenth" in warning for warning in evidence.warnings)


# --- calibration -----------------------------------------------------------------------------------


def test_a_calibrated_detectors_thresholds_and_probability_are_used() -> None:
    """slope 0.5, intercept 1: a score of -2 is even odds."""
    asked = thresholds_of(CALIBRATED)
    frames = [seen(1, i, -2.0) for i in range(32)]
    assert judge(source(), coverage(), frames).verdict.name is VerdictName.NO_MANIPULATION_INDICATED
    evidence = judge(source(), coverage(), frames, asked)
    assert evidence.verdict.name is VerdictName.INCONCLUSIVE
    assert not evidence.thresholds.provisional
    assert CALIBRATED.probability(-2.0) == pytest.approx(0.5)
    assert CALIBRATED.probability(2.0) == pytest.approx(1 / (1 + math.exp(-2)))
    assert CALIBRATED.probability(-1e9) < 1e-9


@pytest.mark.parametrize(
    ("changes", "size", "count", "words"),
    [
        ({}, 40.0, 32, "a small face (40 px)"),
        ({"bytes": 500}, 200.0, 32, "heavy compression"),
        ({}, 200.0, 5, "few instants (5)"),
    ],
)
def test_weak_evidence_moves_calibrated_thresholds_apart(
    changes: dict[str, object], size: float, count: int, words: str
) -> None:
    """By 1.5 logits: 3.0 is above the upper threshold of 2.0, but not above 3.5."""
    frames = [seen(1, i, 3.0) for i in range(count)]
    frames = [replace(f, quality=replace(f.quality, face_size=size)) for f in frames]
    asked = thresholds_of(CALIBRATED)
    sound = judge(source(), coverage(), [seen(1, i, 3.0) for i in range(32)], asked)
    assert sound.verdict.name is VerdictName.MANIPULATION_INDICATED
    weak = judge(source(**changes), coverage(), frames, asked)
    assert weak.verdict.name is VerdictName.INCONCLUSIVE
    assert f"further apart because of {words}" in weak.verdict.sentence
    assert (weak.thresholds.low, weak.thresholds.high) == (-4.5, 3.5)
    (track,) = weak.tracks
    assert track.runs == ()  # above 3.5 there are none


def test_stand_in_thresholds_have_no_measure_to_move_by() -> None:
    frames = [seen(1, i, 3.0) for i in range(5)]
    assert judge(source(bytes=500), coverage(), frames).thresholds == PROVISIONAL
