"""The stretch that stands out of a face: found, compared with the rest of it, looked at again."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from builders.evidence import coverage, seen, source
from builders.reports import CALIBRATED
from deepscan.judgement import judge, thresholds_of
from deepscan.judgement.stretches import SECOND_LOOK, closer, highest
from deepscan.records import Evidence, FrameEvidence, SecondLook, Stretch, VerdictName

TRIED = replace(CALIBRATED, unseen=True, indicated=0.6, cleared=0.4)  # thresholds at -3 and 2


def face(logits: list[float | None], track: int = 1) -> list[FrameEvidence]:
    """A face at successive instants, a tenth of a second apart; None where it was not scored."""
    return [seen(track, i, logit) for i, logit in enumerate(logits) if logit is not None]


def judged(
    frames: list[FrameEvidence], look: SecondLook | None = None, **changes: object
) -> Evidence:
    found = replace(coverage(), **changes)  # type: ignore[arg-type]
    return judge(source(), found, frames, thresholds_of(TRIED), second_look=look)


def outstanding(frames: list[FrameEvidence]) -> Stretch | None:
    scores = judged(frames).scores
    assert scores is not None
    return scores.stretch


# --- the highest stretch ----------------------------------------------------------------------------


def test_a_stretch_may_hold_a_dip_which_a_run_may_not() -> None:
    frames = face([-3, -3, 4, 4, 0, 4, -3, -3])
    stretch = highest(frames, range(8), 1.0)
    assert stretch is not None
    assert (float(stretch.start), float(stretch.end), stretch.frames) == (0.2, 0.5, 4)
    assert stretch.mean == 3.0


def test_a_deep_dip_parts_two_stretches_and_the_stronger_is_told() -> None:
    stretch = highest(face([3, 3, 3, -20, 4, 4, 4]), range(7), 1.0)
    assert stretch is not None
    assert (float(stretch.start), float(stretch.end)) == (0.4, 0.6)


@pytest.mark.parametrize("logits", [[-3, 9, 9, -3], [9, 9, None, 9, 9], [0.9] * 8, []])
def test_two_frames_or_none_above_the_threshold_do_not_stand_out(
    logits: list[float | None],
) -> None:
    assert highest(face(logits), range(len(logits)), 1.0) is None


# --- what stands out ---------------------------------------------------------------------------------


def test_a_step_stands_out_and_scatter_does_not() -> None:
    """Both have eight frames of 32 about 5, above the threshold of 2, and the others about -1."""
    step = [5.0 + i % 2 if 8 <= i < 16 else -1.0 - i % 2 for i in range(32)]
    assert outstanding(face(list(step))) is not None
    scattered = [9.0 * (-1) ** i + (5.0 if 8 <= i < 16 else -1.0) for i in range(32)]
    found = highest(face(list(scattered)), range(32), 2.0)
    assert found is not None  # high enough for a face
    assert outstanding(face(list(scattered))) is None


def test_only_frames_of_the_same_shot_are_compared() -> None:
    """What changes at a cut is the picture: here the scene is cut before and after the stretch."""
    frames = face([5.0 if 8 <= i < 16 else -1.0 for i in range(32)])
    assert outstanding(frames) is not None
    cut = (Fraction(8, 10), Fraction(16, 10))
    look = SecondLook(1, 16, 16, tuple(seen(1, 1000 + i, 5.0) for i in range(16)))
    evidence = judged(frames, look, cuts=cut)
    assert evidence.scores is not None
    assert evidence.scores.stretch_finding is not None
    assert evidence.scores.stretch_finding.verdict.reason == "nothing_to_compare"
    assert evidence.scores.stretch_finding.contrast is None
    assert evidence.verdict.name is VerdictName.INCONCLUSIVE
    assert "fewer than 8 other frames of this face" in evidence.verdict.sentence


def test_of_two_faces_the_stretch_that_stands_out_more_is_told() -> None:
    """The first rises by 8 and the second by 7, but scatters a third as much."""
    first = face(
        [6.0 + 1.5 * (-1) ** i if 8 <= i < 16 else -2.0 + 1.5 * (-1) ** i for i in range(32)]
    )
    second = face(
        [5.5 + 0.5 * (-1) ** i if 8 <= i < 16 else -1.5 + 0.5 * (-1) ** i for i in range(32)], 2
    )
    found = outstanding(first + second)
    assert found is not None
    assert found.track == 2


# --- the second look's verdict -----------------------------------------------------------------------

QUARTER = [5.0 if 8 <= i < 16 else -1.0 + (-1) ** i for i in range(32)]


def look(*logits: float) -> SecondLook:
    frames = [replace(seen(1, 1000 + i, x), time=Fraction(8, 10)) for i, x in enumerate(logits)]
    return SecondLook(1, len(logits), len(logits), tuple(frames))


def test_a_stretch_by_hand() -> None:
    """The others average -1 and scatter by 1; the second look averages 4, which is 5 times as much."""
    evidence = judged(face(list(QUARTER)), look(*[3.5, 4.5] * 8))
    assert (evidence.verdict.name, evidence.verdict.reason) == (
        VerdictName.MANIPULATION_INDICATED,
        "stretch_high",
    )
    assert evidence.verdict.sentence.startswith(
        "Manipulation indicated at 0:00.800\u20130:01.500, not in the video as a whole. A second look: the"
        " mean logit of face 1 from 0:00.800 to 0:01.500 is +4.00, at or above the threshold of +2.00, and"
        " 5.00 above the mean of this face's 24 other frames, which is 5.0 times as much as single frames"
        " scatter; 4.0 times are asked."
    )
    assert evidence.finding is not None
    assert (evidence.finding.score, evidence.finding.frames) == (4.0, 16)
    assert (evidence.finding.probability, evidence.finding.ratio) == (None, None)
    own = evidence.finding.contrast
    assert own is not None
    assert (own.rest, own.frames, own.scatter, own.times, own.needed) == (-1.0, 24, 1.0, 5.0, 4.0)
    assert evidence.scores is not None
    assert evidence.scores.video == 0.5  # the whole face's mean has little of it


@pytest.mark.parametrize(
    ("logits", "reason", "words"),
    [
        ([1.0] * 16, "score_between", "A second look does not settle it: the mean logit of face 1"),
        (
            [6.5, -0.5] * 8,
            "not_apart",
            "but only 4.00 above the mean of this face's 24 other frames",
        ),
    ],
)
def test_a_second_look_that_does_not_confirm_leaves_the_video_inconclusive(
    logits: list[float], reason: str, words: str
) -> None:
    evidence = judged(face(list(QUARTER)), look(*logits))
    assert (evidence.verdict.name, evidence.verdict.reason) == (
        VerdictName.INCONCLUSIVE,
        "stretch_stands_out",
    )
    assert words in evidence.verdict.sentence
    assert evidence.scores is not None
    assert evidence.scores.stretch_finding is not None
    assert evidence.scores.stretch_finding.verdict.reason == reason


def test_more_is_asked_of_the_highest_of_many_faces() -> None:
    """4 + log(5) = 5.61, rounded up: five times the scatter do not suffice."""
    others = [frame for track in range(2, 6) for frame in face([-4.0] * 32, track)]
    evidence = judged(face(list(QUARTER)) + others, look(*[3.5, 4.5] * 8))
    assert evidence.verdict.reason == "stretch_stands_out"
    assert "which is 5.0 times as much as single frames scatter; 5.7 times are asked" in (
        evidence.verdict.sentence
    )


def test_a_frozen_picture_makes_no_step_of_a_small_change() -> None:
    """The scatter counts as a quarter of the logits over which real scores get e-fold rarer: 0.95 here."""
    frozen = [2.2 if 8 <= i < 16 else 1.0 for i in range(32)]
    assert outstanding(face(list(frozen))) is None


def test_stretches_of_real_faces_alarm_seldom(rng: np.random.Generator) -> None:
    """Faces whose frames correlate at 0.6 with the next, all just below the threshold: the worst place."""
    alarms = 0
    for _ in range(100):
        curve = rng.normal(size=62)
        for i in range(1, 62):
            curve[i] += 0.6 * curve[i - 1]
        evidence = judged(face((1.5 + curve[30:]).tolist()), look(*(3.5 + rng.normal(size=16))))
        alarms += evidence.verdict.reason == "stretch_high"
    assert alarms <= 1


# --- the second look -------------------------------------------------------------------------------


def sampled(every: int) -> tuple[list[FrameEvidence], range]:
    """A face at every so manyth frame of 25 a second, high from instant 4 to instant 6."""
    instants = range(0, 10 * every, every)
    frames = [
        replace(seen(1, i, 4.0 if 4 <= i // every <= 6 else -3.0), time=Fraction(i, 25))
        for i in instants
    ]
    return frames, instants


@pytest.mark.parametrize(("every", "count"), [(4, 0), (6, 10), (100, SECOND_LOOK)])
def test_a_second_look_takes_frames_of_the_stretch_that_were_not_seen_yet(
    every: int, count: int
) -> None:
    """Between three instants 6 frames apart lie 10 others; 4 apart only 6, too few to judge by."""
    frames, instants = sampled(every)
    stretch = highest(frames, instants, 1.0)
    assert stretch is not None
    found = closer(stretch, frames, instants)
    assert len(found) == count
    assert not set(found) & set(instants)
    assert all(4 * every < index < 6 * every for index in found)
