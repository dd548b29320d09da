"""A verdict's reason in plain words: what each kind of result says first."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from builders.evidence import coverage, seen, source
from builders.language import terms
from builders.reports import CALIBRATED
from deepscan.judgement import judge, thresholds_of
from deepscan.judgement.summary import PROVISIONAL, summary
from deepscan.records import Evidence, FrameEvidence, SecondLook, Source

UNSEEN = replace(CALIBRATED, unseen=True)  # calibrated on sources that the detector had not learnt


def face(track: int, logit: float, count: int = 32) -> list[FrameEvidence]:
    return [seen(track, i, logit) for i in range(count)]


def judged(frames: list[FrameEvidence], given: Source | None = None, **more: object) -> Evidence:
    calibration = more.pop("calibration", UNSEEN)
    bounds = thresholds_of(calibration)  # type: ignore[arg-type]
    return judge(given or source(), coverage(), frames, bounds, **more)  # type: ignore[arg-type]


RAISED = [seen(1, i, 4.0 if 10 <= i < 14 else -4.0) for i in range(32)]


@pytest.mark.parametrize(
    ("evidence", "reason", "said"),
    [
        (
            judged(face(1, 5.0)),
            "score_high",
            "The face scores as high as faces in manipulated videos do. Real ones rarely do.",
        ),
        (
            judged(face(1, -9.0) + face(2, 9.0) + face(3, -8.0)),
            "score_high",
            "Face 2, the most suspicious of 3 faces, scores as high as faces in manipulated videos do."
            " Real ones rarely do.",
        ),
        (
            judged(face(1, 0.0)),
            "score_between",
            "The face scores where real and manipulated videos both lie, so the score decides nothing.",
        ),
        (
            judged(face(1, -9.0)),
            "score_low",
            "The face scores as low as faces in real videos do. Manipulated ones rarely do."
            " This does not show that the video is authentic.",
        ),
        (
            judged(face(1, -9.0), calibration=CALIBRATED),
            "untried",
            "The face scores low, but here a low score clears nothing: the detector was not tested on kinds"
            " of manipulation that it was not trained on.",
        ),
        (
            judged(RAISED),
            "stretch_stands_out",
            "Look at 0:01.0 to 0:01.3. There the face scores far higher than elsewhere, as in a short"
            " manipulation. Real videos have such parts, too.",
        ),
        (
            judged(RAISED, second_look=SecondLook(1, 8, 8, tuple(face(1, 40.0, 8)))),
            "stretch_high",
            "From 0:01.0 to 0:01.3 the face scores far higher than elsewhere, and a closer look confirmed it."
            " Real videos rarely have such parts.",
        ),
        (
            judged(RAISED, second_look=SecondLook(1, 8, 8, tuple(face(1, -4.0, 8)))),
            "stretch_stands_out",
            "Look at 0:01.0 to 0:01.3. There the face scores higher than elsewhere, but a closer look did not"
            " confirm a manipulation.",
        ),
        (judged([]), "no_face_found", "No face was found in 32 frames; nothing was judged."),
        (
            judged(face(1, 5.0, 3)),
            "too_few_instants",
            "Faces were seen, but none in 4 of the 32 frames looked at; try more with --frames.",
        ),
        (
            judged(face(1, 5.0), calibration=None),
            "score_high",
            f"The face scores high. {PROVISIONAL}",
        ),
    ],
)
def test_the_reason_is_said_in_plain_words(evidence: Evidence, reason: str, said: str) -> None:
    assert evidence.verdict.reason == reason
    found = summary(source(), evidence)
    assert found == said
    assert terms(found) == []


def test_a_still_is_a_picture() -> None:
    still = source(kind="image", frames=1, duration=Fraction(0))
    evidence = judge(still, coverage(1), face(1, 0.0, 1), thresholds_of(None))
    assert summary(still, evidence) == f"The face scores neither high nor low. {PROVISIONAL}"
