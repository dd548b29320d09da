"""What weakens the evidence is said, and nothing is said of what does not."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from builders.evidence import coverage, seen, source
from builders.language import terms
from deepscan.judgement.cautions import HEAVY, bits_per_pixel, heavy
from deepscan.judgement.verdict import judge
from deepscan.records import FrameEvidence, Thresholds, VerdictName


def face(track: int = 1, logits: object = -3.0, **quality: float) -> list[FrameEvidence]:
    """A face at 32 instants, of one logit or of a list of them, with some qualities changed."""
    values = logits if isinstance(logits, list) else [logits] * 32
    frames = [seen(track, i, value) for i, value in enumerate(values)]
    return [replace(f, quality=replace(f.quality, **quality)) for f in frames]


def said(scored: list[FrameEvidence], **changes: object) -> tuple[str, ...]:
    """The warnings; they stand near the first screen, and use none of the record's terms."""
    warnings = judge(source(**changes), coverage(), scored).warnings
    assert terms(" ".join(warnings)) == []
    return warnings


def test_a_sound_clip_is_told_nothing() -> None:
    assert said(face()) == ()
    assert said(face(logits=4.0)) == ()


@pytest.mark.parametrize(
    ("quality", "words"),
    [
        ({"face_size": 50.0}, "small (50 px)"),
        ({"sharpness": 12.0}, "blurred"),
        ({"brightness": 30.0}, "dark (mean grey level 30 of 255)"),
        ({"turn": 0.6}, "from the side"),
        ({"inside": 0.7}, "cut by the frame's edge (70 % of its crop is inside)"),
    ],
)
def test_weak_pictures_of_the_face_that_decides(quality: dict[str, float], words: str) -> None:
    (warning,) = said(face(**quality))
    assert words in warning


def test_other_faces_may_be_weak() -> None:
    assert said(face(1, logits=4.0) + face(2, logits=0.0, sharpness=1.0)) == ()


def test_few_weak_frames_are_no_matter() -> None:
    frames = face()
    frames[:8] = face(turn=0.9)[:8]
    assert said(frames) == ()


@pytest.mark.parametrize(
    ("codec", "size", "warned"),
    [("h264", 600, True), ("h264", 800, False), ("hevc", 300, True), ("hevc", 400, False)],
)
def test_heavy_compression_is_told_by_bits_per_pixel_and_frame(
    codec: str, size: int, warned: bool
) -> None:
    """64 x 64 pixels in 100 frames: 0.015 bits each are 768 bytes in all."""
    film = source(codec=codec, bytes=size)
    assert bits_per_pixel(film) == 8 * size / (64 * 64 * 100)
    assert (bits_per_pixel(film) < heavy(codec)) is warned
    assert any("compressed" in w for w in said(face(), codec=codec, bytes=size)) is warned
    assert heavy("h264") == HEAVY == 2 * heavy("av1")


def test_a_picture_is_not_measured_by_a_films_bits() -> None:
    (warning,) = said(face(), kind="image", frames=1, bytes=10)
    assert "a picture gets no probability and no clear verdict" in warning


def test_of_one_frame_nothing_is_said_of_its_mean_or_of_most_of_the_time() -> None:
    still = source(kind="image", frames=1)
    evidence = judge(still, coverage(1, too_small=1), face(turn=0.9)[:1])
    assert evidence.verdict.sentence.startswith("The logit of face 1 is \u22123.00, ")
    assert "The face that decides is seen from the side." in evidence.warnings
    assert "A face too small to judge was left out once." in evidence.warnings


def test_a_face_seen_in_few_instants() -> None:
    (warning,) = said(face(logits=[-3.0] * 5))
    assert "seen in only 5 of 32 frames" in warning


@pytest.mark.parametrize(
    ("sampled", "frames", "words"),
    [
        (1, 100, "Only 1 frame of the video's 100 was looked at, too few for a clear low verdict"),
        (
            4,
            100,
            "Only 4 frames of the video's 100 were looked at, too few for a clear low verdict",
        ),
        (1, 1, "The video has only 1 frame, too few for a clear low verdict or an interval."),
    ],
)
def test_few_frames_are_told(sampled: int, frames: int, words: str) -> None:
    evidence = judge(source(frames=frames), coverage(sampled), face()[:sampled])
    assert any(warning.startswith(words) for warning in evidence.warnings)


def test_a_cut_within_a_track_is_told_with_its_time() -> None:
    cut = replace(coverage(), cuts=(Fraction(5, 2), Fraction(99)))
    evidence = judge(source(), cut, face())
    assert evidence.tracks[0].cuts == (Fraction(5, 2),)
    (warning,) = evidence.warnings
    assert "Face 1 was followed across scene cuts (before 0:02.500)" in warning


def test_a_cut_where_a_face_comes_or_goes_is_within_no_track() -> None:
    first = [seen(1, i, -3.0) for i in range(16)]
    second = [seen(2, i, -3.0) for i in range(16, 32)]
    cut = replace(coverage(), cuts=(Fraction(16, 10),))
    evidence = judge(source(), cut, first + second)
    assert [track.cuts for track in evidence.tracks] == [(), ()]


# --- scores that disagree --------------------------------------------------------------------------


def test_a_stretch_is_pointed_at_by_its_time_codes() -> None:
    """Three of 32 instants, the tenth of a video."""
    evidence = judge(
        source(), coverage(), face(logits=[5.0 if i in (10, 11, 12) else -3.0 for i in range(32)])
    )
    assert evidence.verdict.name is VerdictName.INCONCLUSIVE
    assert evidence.verdict.reason == "stretch_stands_out"
    assert evidence.verdict.sentence.startswith(
        "Inconclusive overall, but look at 0:01.000\u20130:01.200: over 3 successive instants face 1 averages"
        " +5.00. The whole: the mean logit of face 1 is \u22122.25, at or below the threshold of \u22121.00,"
        " which clears nothing here: "
    )
    assert evidence.scores is not None
    assert evidence.scores.share_above == 3 / 32
    assert evidence.scores.longest_run == evidence.tracks[0].runs[0]


def test_the_stretch_may_be_another_faces() -> None:
    short = face(2, [5.0 if i < 4 else -9.0 for i in range(32)])
    evidence = judge(source(), coverage(), face(1) + short)
    assert evidence.scores is not None
    assert evidence.scores.stretch is not None
    assert (evidence.scores.track, evidence.scores.stretch.track) == (1, 2)


def test_where_the_mean_says_it_already_nothing_stands_out() -> None:
    evidence = judge(source(), coverage(), face(logits=4.0))
    assert evidence.scores is not None
    assert evidence.scores.stretch is None
    assert evidence.scores.longest_run is not None


def test_single_frames_that_stand_out_are_told_and_the_highest_of_a_scatter_are_not() -> None:
    """Both means are below the threshold of 5 and both highest tenths above it.

    Four frames of 32 reach 9, the others 0.5 and -0.5 in turn: far above what they scatter by. Of frames that
    are 6.5 and 1.5 in turn the highest tenth are four that lie 1.2 times the scatter above the others.
    """
    asked = Thresholds(-5.0, 5.0)
    single = [9.0 if i in (3, 10, 18, 26) else 0.5 * (-1) ** i for i in range(32)]
    (warning,) = judge(source(), coverage(), face(logits=single), asked).warnings
    assert warning == (
        "The face scores +1.09 on average, but +9.00 in the highest tenth of its frames, 18.1 times as far"
        " above the others as single frames scatter. A short manipulation would look like this."
    )
    scattered = [4.0 + 2.5 * (-1) ** i for i in range(32)]
    assert not any(
        "tenth" in w for w in judge(source(), coverage(), face(logits=scattered), asked).warnings
    )


def test_a_mean_carried_by_few_frames() -> None:
    warnings = said(face(logits=[9.0 if i % 4 == 0 else 0.0 for i in range(32)]))
    assert any("Only 25 % of the frames reach the limit" in warning for warning in warnings)


def test_the_papers_rule_may_disagree() -> None:
    large = [replace(f, quality=replace(f.quality, face_size=200.0)) for f in face(1, -3.0)]
    warnings = said(large + face(2, 3.0))
    assert any("frame scores \u22123.00 on average, below the limits" in w for w in warnings)
    assert any(
        "Face 2 decides alone: face 1 scores at or below its lower limit" in w for w in warnings
    )


def test_an_interval_across_a_threshold() -> None:
    (warning,) = said(face(logits=[-1.4] * 16 + [-0.4] * 16))
    assert "on the other side of the limit of \u22121.00 (95 % range:" in warning
