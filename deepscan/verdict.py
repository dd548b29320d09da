"""Frame logits -> tracks -> video scores -> a verdict with its reason. Numbers in, words out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from deepscan.records import (
    DecodeCount,
    Evidence,
    FrameEvidence,
    Scores,
    Source,
    Thresholds,
    TrackEvidence,
    Verdict,
    VerdictName,
)

# Stand-ins until a checkpoint carries a calibration: a logit of 1 is odds of e to 1 as trained, which
# is no statement about the world. Every output says "uncalibrated, provisional" beside them.
PROVISIONAL = Thresholds(low=-1.0, high=1.0, provisional=True)

# The finder is this sure of a face at least once while it is followed; of hands and patterns it is not
# (folded hands in one of our test clips reached 0.988): such a track carries no score.
CLEARLY_A_FACE = 0.99

# Faces smaller than this are enlarged more than twice for the detector's 224 pixels, of which the
# face itself takes about half.
SMALL_FACE = 64.0


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was looked at, beside the scored faces themselves."""

    decoding: DecodeCount
    frames_with_face: int
    faces_too_small: int
    interlaced: bool


def judge(
    source: Source,
    coverage: Coverage,
    frames: Sequence[FrameEvidence],
    thresholds: Thresholds = PROVISIONAL,
    declared_duration: float | None = None,
) -> Evidence:
    """All evidence about one input.

    The video's score is the highest track score (mean of frame logits) among tracks with enough
    evidence; the mean over each frame's largest face, the paper's rule, stands beside it.
    """
    tracks = build_tracks(frames, coverage.decoding.sampled)
    scores = score(tracks)
    verdict = decide(scores, coverage, tracks, thresholds)
    return Evidence(
        decoding=coverage.decoding,
        frames_with_face=coverage.frames_with_face,
        faces_too_small=coverage.faces_too_small,
        tracks=tracks,
        scores=scores,
        thresholds=thresholds,
        verdict=verdict,
        warnings=tuple(_warnings(source, coverage, tracks, scores, thresholds, declared_duration)),
    )


def enough_instants(sampled: int) -> int:
    """How often a face must be seen to carry a video's score: 4 sampled instants, or a tenth of them."""
    return min(4, math.ceil(sampled / 10))


def build_tracks(frames: Sequence[FrameEvidence], sampled: int) -> tuple[TrackEvidence, ...]:
    """Group scored faces by track; ids ascending, times ascending within a track."""
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
                enough=len(own) >= enough_instants(sampled) and _clear(own),
            )
        )
    return tuple(tracks)


def _clear(frames: Sequence[FrameEvidence]) -> bool:
    return max(f.face.confidence for f in frames) >= CLEARLY_A_FACE


def top10_mean(logits: Sequence[float]) -> float:
    """Mean of the highest tenth, at least one value: what a short manipulation cannot dilute."""
    count = math.ceil(len(logits) / 10)
    return float(np.mean(sorted(logits, reverse=True)[:count]))


def score(tracks: Sequence[TrackEvidence]) -> Scores | None:
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
    )


def decide(
    scores: Scores | None,
    coverage: Coverage,
    tracks: Sequence[TrackEvidence],
    thresholds: Thresholds,
) -> Verdict:
    """The verdict. Without scores it says why there are none; a missing score is never a number."""
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
    if scores.video >= thresholds.high:
        return Verdict(
            VerdictName.MANIPULATION_INDICATED,
            "score_high",
            f"{what}, at or above the threshold of {thresholds.high:+.2f}.",
        )
    if scores.video <= thresholds.low:
        return Verdict(
            VerdictName.NO_MANIPULATION_INDICATED,
            "score_low",
            f"{what}, at or below the threshold of {thresholds.low:+.2f}."
            " This does not show that the video is authentic.",
        )
    return Verdict(
        VerdictName.INCONCLUSIVE,
        "score_between",
        f"{what}, between the thresholds of {thresholds.low:+.2f} and {thresholds.high:+.2f}.",
    )


def _warnings(
    source: Source,
    coverage: Coverage,
    tracks: Sequence[TrackEvidence],
    scores: Scores | None,
    thresholds: Thresholds,
    declared: float | None,
) -> Iterable[str]:
    """Sentences about whatever weakens the evidence."""
    decoding, found = coverage.decoding, float(source.duration)
    if decoding.damaged:
        yield f"{decoding.damaged} of {decoding.sampled} sampled frames are damaged and were not judged."
    if declared is not None and found < 0.9 * declared - 0.5:
        yield f"The file announces {declared:.1f} s but ends after {found:.1f} s: it may be cut."
    if not source.exact_times:
        yield "The container keeps no usable time stamps; times follow the order of the frames."
    if source.variable_rate:
        yield "The frame rate varies, as after screen recording, editing or phone capture."
    if coverage.interlaced:
        yield "The video is interlaced; one field of each frame was judged."
    if coverage.faces_too_small:
        yield f"{coverage.faces_too_small} faces too small to judge were passed over."
    if scores is None:
        return
    if source.kind == "video" and decoding.sampled < 8:
        yield f"Only {decoding.sampled} frames were looked at."
    (track,) = (t for t in tracks if t.id == scores.track)
    if track.face_size < SMALL_FACE:
        yield f"The face that decides is small ({track.face_size:.0f} px): little detail to judge by."
    if scores.video < thresholds.high <= scores.top10_mean:
        yield (
            f"The mean is {scores.video:+.2f} but the highest tenth of frames averages"
            f" {scores.top10_mean:+.2f}: a short manipulation would look like this."
        )
