"""Judges a video: frame logits -> tracks -> video scores -> a verdict with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from deepscan.judgement import timeline
from deepscan.judgement.cautions import about_faces, about_input, about_scores, weaknesses
from deepscan.records import (
    Calibration,
    Coverage,
    Evidence,
    FrameEvidence,
    Scores,
    Source,
    Stretch,
    Thresholds,
    TrackEvidence,
    Verdict,
    VerdictName,
)

# Used for a checkpoint without a calibration: a logit of 1 means odds of e to 1 in training, which says
# nothing about the world. Every output adds "uncalibrated, provisional".
PROVISIONAL = Thresholds(low=-1.0, high=1.0)

# The finder is this sure of a real face at least once in its track, but not of hands and patterns (folded
# hands in one of our test clips reached 0.988); a track that never reaches this has no score.
CLEARLY_A_FACE = 0.99


def thresholds_of(calibration: Calibration | None) -> Thresholds:
    """A detector's thresholds; provisional ones if it was not calibrated."""
    if calibration is None:
        return PROVISIONAL
    return Thresholds(calibration.low, calibration.high, calibration)


def judge(
    source: Source,
    coverage: Coverage,
    frames: Sequence[FrameEvidence],
    thresholds: Thresholds = PROVISIONAL,
    declared_duration: float | None = None,
) -> Evidence:
    """Judge one input from its scored faces.

    The video's score is the highest track score (mean of frame logits) among tracks with enough evidence; the
    paper's rule, the mean over each frame's largest face, is reported too. If the evidence is weak,
    calibrated thresholds move apart by as much as such material was measured to move scores.
    """
    tracks = build_tracks(frames, coverage.instants, thresholds, coverage.cuts)
    scores = score(tracks, coverage.instants, thresholds)
    weak: tuple[str, ...] = ()
    if scores is not None and (calibration := thresholds.calibration) is not None:
        (deciding,) = (track for track in tracks if track.id == scores.track)
        weak = tuple(weaknesses(source, deciding, coverage.decoding.sampled))
        if weak and calibration.widening:
            by = calibration.widening
            thresholds = Thresholds(thresholds.low - by, thresholds.high + by, calibration)
            tracks = build_tracks(frames, coverage.instants, thresholds, coverage.cuts)
            scores = score(tracks, coverage.instants, thresholds)
    verdict = decide(scores, coverage, tracks, thresholds, weak)
    return Evidence(
        coverage=coverage,
        tracks=tracks,
        scores=scores,
        thresholds=thresholds,
        verdict=verdict,
        warnings=(
            *about_input(source, coverage.decoding, declared_duration, coverage.interlaced),
            *about_faces(
                tracks,
                scores,
                coverage.decoding.sampled,
                coverage.faces_too_small,
                coverage.faces_too_many,
            ),
            *about_scores(tracks, scores, thresholds),
        ),
        declared_duration=declared_duration,
    )


def enough_instants(sampled: int) -> int:
    """How often a face must be seen to carry a video's score: 4 sampled instants, or a tenth of them."""
    return min(4, math.ceil(sampled / 10))


def build_tracks(
    frames: Sequence[FrameEvidence],
    instants: Sequence[int],
    thresholds: Thresholds = PROVISIONAL,
    cuts: Sequence[Fraction] = (),
) -> tuple[TrackEvidence, ...]:
    """Group scored faces by track; ids ascending, times ascending within a track.

    `instants` are the display-order indices of all sampled frames, `cuts` the scene cuts among them.
    """
    tracks = []
    for track in sorted({f.track for f in frames}):
        own = tuple(sorted((f for f in frames if f.track == track), key=lambda f: f.frame_index))
        logits = [f.logit for f in own]
        tracks.append(
            TrackEvidence(
                id=track,
                frames=own,
                score=float(np.mean(logits)),
                maximum=max(logits),
                top10_mean=top10_mean(logits),
                enough=len(own) >= enough_instants(len(instants)) and _clear(own),
                share_above=float(np.mean([logit >= thresholds.high for logit in logits])),
                runs=timeline.runs(own, instants, thresholds.high),
                interval=timeline.interval(logits),
                cuts=tuple(cut for cut in cuts if own[0].time < cut <= own[-1].time),
            )
        )
    return tuple(tracks)


def _clear(frames: Sequence[FrameEvidence]) -> bool:
    return max(f.face.confidence for f in frames) >= CLEARLY_A_FACE


def top10_mean(logits: Sequence[float]) -> float:
    """Mean of the highest tenth, of one value at least: a short manipulation still shows in it."""
    count = math.ceil(len(logits) / 10)
    return float(np.mean(sorted(logits, reverse=True)[:count]))


def score(
    tracks: Sequence[TrackEvidence],
    instants: Sequence[int],
    thresholds: Thresholds = PROVISIONAL,
) -> Scores | None:
    """Video scores, or None when no track has enough evidence."""
    able = [track for track in tracks if track.enough]
    if not able:
        return None
    highest = max(able, key=lambda track: track.score)
    largest: dict[int, FrameEvidence] = {}
    for f in (f for track in tracks if _clear(track.frames) for f in track.frames):
        best = largest.get(f.frame_index)
        if best is None or f.quality.face_size > best.quality.face_size:
            largest[f.frame_index] = f
    logits = [f.logit for track in able for f in track.frames]
    return Scores(
        video=highest.score,
        track=highest.id,
        largest_face=float(np.mean([f.logit for f in largest.values()])),
        maximum=max(logits),
        top10_mean=top10_mean(logits),
        interval=highest.interval,
        share_above=highest.share_above,
        longest_run=highest.longest_run,
        stretch=_outstanding(able, instants, thresholds.high)
        if highest.score < thresholds.high
        else None,
    )


def _outstanding(
    tracks: Sequence[TrackEvidence], instants: Sequence[int], high: float
) -> Stretch | None:
    """The stretch, in any of these tracks, that exceeds the threshold by the most in total."""
    found = [timeline.outstanding(track.frames, instants, high) for track in tracks]
    return max(
        (stretch for stretch in found if stretch),
        key=lambda stretch: stretch.frames * (stretch.mean - high),
        default=None,
    )


def decide(
    scores: Scores | None,
    coverage: Coverage,
    tracks: Sequence[TrackEvidence],
    thresholds: Thresholds,
    weak: Sequence[str] = (),
) -> Verdict:
    """The verdict. Without scores it says why; a missing score never becomes a number.

    Args:
        weak: the reasons why calibrated thresholds moved apart.
    """
    decoding = coverage.decoding
    if scores is None:
        if decoding.decoded == 0:
            return Verdict(
                VerdictName.INSUFFICIENT,
                "frames_damaged",
                f"All {decoding.sampled} sampled frames are damaged; none was judged.",
            )
        if any(_clear(track.frames) for track in tracks):
            return Verdict(
                VerdictName.INSUFFICIENT,
                "too_few_instants",
                f"Faces were seen, but none in {enough_instants(decoding.sampled)} of the"
                f" {decoding.sampled} sampled instants; try more frames.",
            )
        if tracks:
            return Verdict(
                VerdictName.INSUFFICIENT,
                "no_clear_face",
                "What was found is nowhere clearly a face; nothing was judged.",
            )
        if coverage.faces_too_small:
            return Verdict(
                VerdictName.INSUFFICIENT,
                "faces_too_small",
                f"The {coverage.faces_too_small} faces seen are smaller than the smallest face judged.",
            )
        return Verdict(
            VerdictName.NO_FACE,
            "no_face_found",
            f"No face was found in {decoding.decoded} frames; nothing was judged.",
        )
    what = f"The mean logit of face {scores.track} is {scores.video:+.2f}"
    apart = f" The thresholds stand further apart because of {' and '.join(weak)}." if weak else ""
    if scores.video >= thresholds.high:
        return Verdict(
            VerdictName.MANIPULATION_INDICATED,
            "score_high",
            f"{what}, at or above the threshold of {thresholds.high:+.2f}.{apart}",
        )
    if scores.video <= thresholds.low:
        return Verdict(
            VerdictName.NO_MANIPULATION_INDICATED,
            "score_low",
            f"{what}, at or below the threshold of {thresholds.low:+.2f}."
            f"{apart} This does not show that the video is authentic.",
        )
    return Verdict(
        VerdictName.INCONCLUSIVE,
        "score_between",
        f"{what}, between the thresholds of {thresholds.low:+.2f} and {thresholds.high:+.2f}.{apart}",
    )
