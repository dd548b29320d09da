"""Frame logits in, verdicts out: worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from builders.evidence import coverage, seen, source
from builders.reports import CALIBRATED
from deepscan.judgement.findings import PROVISIONAL
from deepscan.judgement.verdict import (
    build_tracks,
    enough_instants,
    judge,
    score,
    thresholds_of,
    top10_mean,
)
from deepscan.records import (
    Calibration,
    Coverage,
    FrameEvidence,
    Rung,
    Scores,
    VerdictName,
)

INSTANTS = range(32)  # every sampled frame's index


def scored(frames: list[FrameEvidence]) -> Scores | None:
    return score(build_tracks(frames, coverage(), source()), INSTANTS, source())


@pytest.mark.parametrize(
    ("sampled", "needed"), [(1, 1), (10, 1), (11, 2), (32, 4), (40, 4), (1000, 4)]
)
def test_a_face_must_be_seen_in_4_instants_or_a_tenth_of_them(sampled: int, needed: int) -> None:
    assert enough_instants(sampled) == needed


def test_the_video_score_is_the_most_suspicious_faces_mean() -> None:
    frames = [seen(1, i, -2.0) for i in range(8)] + [
        seen(2, i, logit) for i, logit in enumerate((1, 2, 3, 4))
    ]
    scores = scored(frames)
    assert scores is not None
    assert (scores.video, scores.track) == (2.5, 2)
    assert scores.maximum == 4
    assert (scores.judged, scores.top10_mean) == (2, 4)


def test_the_papers_rule_takes_each_frames_largest_face() -> None:
    frames = [seen(1, i, -1.0, size=50) for i in range(4)]
    frames += [seen(2, i, 1.0, size=60 if i < 3 else 40) for i in range(4)]
    scores = scored(frames)
    assert scores is not None
    assert scores.largest_face == pytest.approx((1 + 1 + 1 - 1) / 4)


def test_with_one_face_the_rules_agree() -> None:
    frames = [seen(1, i, logit) for i, logit in enumerate((0.5, -1.5, 2.0, 3.0, 1.0))]
    scores = scored(frames)
    assert scores is not None
    assert scores.video == scores.largest_face == pytest.approx(1.0)


def test_a_face_seen_too_rarely_carries_no_score() -> None:
    frames = [seen(1, i, 9.0) for i in range(3)] + [seen(2, i, -2.0) for i in range(4)]
    scores = scored(frames)
    assert scores is not None
    assert (scores.track, scores.maximum) == (2, -2.0)


def test_what_is_nowhere_clearly_a_face_carries_no_score() -> None:
    """Folded hands, followed for ten instants: the finder was never sure of them."""
    hands = [seen(2, i, 9.0, size=300, confidence=0.95) for i in range(10)]
    face = [seen(1, i, -2.0, confidence=0.92 if i else 0.999) for i in range(10)]
    scores = scored(hands + face)
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
        (-1.0, VerdictName.INCONCLUSIVE),  # a low score of stand-in thresholds clears nothing
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
    evidence = judge(
        source(), coverage(), [seen(1, i, -5.0) for i in range(32)], thresholds_of(TRIED)
    )
    assert evidence.verdict.name is VerdictName.NO_MANIPULATION_INDICATED
    assert "does not show that the video is authentic" in evidence.verdict.sentence


@pytest.mark.parametrize(
    ("changes", "looked", "declared", "words"),
    [
        ({"variable_rate": True}, coverage(), None, "frame rate varies"),
        ({"exact_times": False}, coverage(), None, "a usable time stamp"),
        ({"restarts": (Fraction(62),)}, coverage(), None, "clock restarts at 1:02.000"),
        ({}, coverage(damaged=2), None, "2 of 32 sampled frames are damaged"),
        ({}, coverage(too_small=3), None, "A face too small to judge was left out 3 times."),
        (
            {},
            replace(coverage(), faces_too_many=9900),
            None,
            "A face was left out 9900 times, because",
        ),
        ({}, coverage(), 20.0, "promises 20.0 s but the video ends after 10.0 s"),
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


def test_a_short_manipulation_leaves_no_clear_verdict_when_the_mean_hides_it() -> None:
    frames = [seen(1, i, 3.0 if i < 4 else -3.0) for i in range(32)]
    evidence = judge(source(), coverage(), frames)
    assert (evidence.verdict.name, evidence.verdict.reason) == (
        VerdictName.INCONCLUSIVE,
        "stretch_stands_out",
    )


# --- calibration -----------------------------------------------------------------------------------


def test_a_calibrated_detectors_thresholds_and_probability_are_used() -> None:
    """slope 0.5, intercept 1: a score of -2 is even odds."""
    asked = thresholds_of(CALIBRATED)
    frames = [seen(1, i, -2.0) for i in range(32)]
    assert judge(source(), coverage(), frames).verdict.reason == "untried"  # below -1
    evidence = judge(source(), coverage(), frames, asked)
    assert evidence.verdict.name is VerdictName.INCONCLUSIVE
    assert not evidence.thresholds.provisional
    assert evidence.finding is not None
    assert (evidence.finding.ratio, evidence.finding.probability) == pytest.approx((1.0, 0.5))
    rung = CALIBRATED.rung(32)
    assert rung is not None
    assert CALIBRATED.ratio(2.0, rung) == pytest.approx(math.exp(2))
    assert CALIBRATED.probability(math.exp(2)) == pytest.approx(1 / (1 + math.exp(-2)))
    # 39 real videos and 40 manipulated ones carry no more than this, however far the score.
    assert CALIBRATED.ratio(1e9, rung) == pytest.approx(40)
    assert CALIBRATED.ratio(-1e9, rung) == pytest.approx(1 / 41)


@pytest.mark.parametrize(
    ("changes", "size", "count", "words"),
    [
        ({}, 40.0, 32, "a small face (40 px)"),
        ({"bytes": 500}, 200.0, 32, "heavy compression"),
        ({}, 200.0, 5, "few frames (5)"),
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


# --- every face by itself --------------------------------------------------------------------------


def person(track: int, logit: float, count: int = 32, **quality: float) -> list[FrameEvidence]:
    frames = [seen(track, i, logit) for i in range(count)]
    return [replace(f, quality=replace(f.quality, **quality)) for f in frames]


TRIED = replace(CALIBRATED, unseen=True, indicated=0.6, cleared=0.4)


def test_the_upper_threshold_rises_with_the_faces_judged() -> None:
    """By log(k) times 1.89 / slope: 2.0 for one face, 2 + 3.79 log(5) = 8.10 for five."""
    one = judge(source(), coverage(), person(1, 4.0), thresholds_of(TRIED))
    assert one.verdict.name is VerdictName.MANIPULATION_INDICATED
    others = [frame for track in range(2, 6) for frame in person(track, -4.0)]
    five = judge(source(), coverage(), person(1, 4.0) + others, thresholds_of(TRIED))
    assert five.verdict.name is VerdictName.INCONCLUSIVE
    assert five.thresholds.high == 8.1
    assert five.verdict.sentence.startswith("Of 5 faces judged face 1 decides.")
    assert "stands 6.10 higher because 5 faces were judged" in five.verdict.sentence
    named = [track.finding.verdict.name for track in five.tracks if track.finding]
    assert named == [VerdictName.INCONCLUSIVE] + 4 * [VerdictName.NO_MANIPULATION_INDICATED]


def test_five_independent_real_faces_alarm_no_oftener_than_one(rng: np.random.Generator) -> None:
    """Real scores around -6 and manipulated ones around 2, deviation 4: their log-odds are s / 2 + 1."""
    asked = thresholds_of(replace(TRIED, low=-4.6, high=-6 + 1.645 * 4, tail=2.0))
    for faces in (1, 5, 20):
        alarms = 0
        for _ in range(100):
            frames = [
                f for t in range(1, faces + 1) for f in person(t, float(rng.normal(-6, 4)), 8)
            ]
            verdict = judge(source(), coverage(8), frames, asked).verdict
            alarms += verdict.name is VerdictName.MANIPULATION_INDICATED
        assert alarms <= 11  # of 100 at 5 %, in 99.6 % of draws


def test_a_weak_face_does_not_decide_over_sound_ones() -> None:
    """A face of 42 pixels, seen five times, is higher than a sound one, but below its own threshold."""
    small = person(2, 1.5, count=5, face_size=42.0)
    evidence = judge(source(), coverage(), person(1, -1.0) + small, thresholds_of(TRIED))
    assert evidence.scores is not None
    assert evidence.scores.track == 1
    assert evidence.verdict.sentence.endswith("Face 2 is too weak to decide.")
    first, second = evidence.tracks
    assert first.finding is not None
    assert second.finding is not None
    assert first.finding.thresholds.low == -3.0  # its own, whatever the other's weakness
    assert second.finding.weak == ("few frames (5)", "a small face (42 px)")
    assert second.finding.probability is None
    assert first.finding.probability is not None


def test_a_weak_face_above_the_detectors_threshold_keeps_a_video_from_being_cleared() -> None:
    small = person(2, 3.0, face_size=42.0)
    evidence = judge(source(), coverage(), person(1, -5.0) + small, thresholds_of(TRIED))
    assert evidence.scores is not None
    assert (evidence.scores.track, evidence.verdict.name) == (2, VerdictName.INCONCLUSIVE)


# --- nothing is cleared without experience -----------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "quality", "count", "calibration", "missing"),
    [
        ({}, {}, 32, CALIBRATED, "kinds of manipulation that it was not trained on"),
        ({}, {}, 32, None, "kinds of manipulation that it was not trained on"),
        ({"codec": "av1"}, {}, 32, TRIED, "video in av1"),
        ({}, {"sharpness": 10.0}, 32, TRIED, "a blurred face"),
        ({}, {"brightness": 20.0, "turn": 0.9}, 32, TRIED, "a dark face and a face seen from the side"),
        ({}, {}, 6, TRIED, "6 frames of a video"),
        ({"kind": "image", "codec": "png"}, {}, 1, TRIED, "pictures by themselves"),
    ],
)  # fmt: skip
def test_a_low_score_clears_nothing_where_the_detector_was_never_tried(
    file: dict[str, object],
    quality: dict[str, float],
    count: int,
    calibration: Calibration | None,
    missing: str,
) -> None:
    frames = person(1, -9.0, count, **quality)
    evidence = judge(source(**file), coverage(count), frames, thresholds_of(calibration))
    assert (evidence.verdict.name, evidence.verdict.reason) == (VerdictName.INCONCLUSIVE, "untried")
    assert missing in evidence.verdict.sentence


def test_rates_stand_beside_a_clear_verdict() -> None:
    evidence = judge(source(), coverage(), person(1, -9.0), thresholds_of(TRIED))
    assert evidence.verdict.name is VerdictName.NO_MANIPULATION_INDICATED
    assert (
        "On made-up people the detector's thresholds indicate 5 % of the real and 60 % of the"
        " manipulated videos, and clear 40 % of the real and 5 % of the manipulated ones."
    ) in evidence.verdict.sentence


def test_a_detector_that_was_set_on_what_it_learnt_says_so_where_it_indicates() -> None:
    asked = thresholds_of(replace(CALIBRATED, unseen=False))
    sentence = judge(source(), coverage(), person(1, 9.0), asked).verdict.sentence
    assert sentence.endswith(
        "The thresholds were set on sources that the detector had learnt from; others may pass them oftener."
    )


def test_a_few_frames_are_judged_by_the_calibration_of_so_few() -> None:
    """The step for 4 frames holds for 7, and none of fewer is known."""
    steps = (Rung(4, 0.25, 0.5, -5.0, 4.0, 2.0, 0.4, 0.3),)
    asked = thresholds_of(replace(TRIED, rungs=steps))
    (four,) = judge(source(), coverage(), person(1, 4.5, 7), asked).tracks
    assert four.finding is not None
    assert (four.finding.thresholds.low, four.finding.thresholds.high) == (-5.0, 4.0)
    assert four.finding.verdict.name is VerdictName.MANIPULATION_INDICATED
    assert four.finding.ratio == pytest.approx(math.exp(0.25 * 4.5 + 0.5))
    assert four.finding.verdict.sentence.endswith(
        "On means of 4 frames of made-up people the detector's thresholds indicate 5 % of the real and 40 %"
        " of the manipulated videos, and clear 30 % of the real and 5 % of the manipulated ones."
    )
    (few,) = judge(source(), coverage(4), person(1, 9.0, 3), asked).tracks
    assert few.finding is not None
    assert (few.finding.verdict.reason, few.finding.probability) == ("few_frames", None)


@pytest.mark.parametrize("calibration", [TRIED, None])
def test_a_picture_is_never_clear_and_has_no_probability(calibration: Calibration | None) -> None:
    """Not even where single frames of videos are calibrated: nobody measured photographs."""
    if calibration is not None:
        calibration = replace(calibration, rungs=(Rung(1, 0.25, 0.5, -5.0, 4.0, 2.0, 0.4, 0.3),))
    picture = source(kind="image", codec="png", frames=1)
    evidence = judge(picture, coverage(1), person(1, 9.0, 1), thresholds_of(calibration))
    assert (evidence.verdict.name, evidence.verdict.reason) == (
        VerdictName.INCONCLUSIVE,
        "few_frames",
    )
    assert (
        "what scores of pictures by themselves mean was never measured" in evidence.verdict.sentence
    )
    assert evidence.finding is not None
    assert evidence.finding.probability is None


def test_of_faces_that_are_all_weak_none_is_said_to_be_weaker() -> None:
    frames = person(1, 1.0, face_size=42.0) + person(2, 0.0, face_size=42.0)
    assert (
        "too weak" not in judge(source(), coverage(), frames, thresholds_of(TRIED)).verdict.sentence
    )
