"""Judges a video: frame logits -> tracks -> video scores -> a verdict with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deepscan.judgement import stretches, timeline
from deepscan.judgement.cautions import about_faces, about_input, about_scores
from deepscan.judgement.findings import PROVISIONAL, judge_frames
from deepscan.judgement.words import counted, faces, logit, rounded, span
from deepscan.records import (
    Calibration,
    Coverage,
    Evidence,
    FrameEvidence,
    Scores,
    SecondLook,
    Source,
    Thresholds,
    TrackEvidence,
    Verdict,
    VerdictName,
)

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
    second_look: SecondLook | None = None,
) -> Evidence:
    """Judge one input from its scored faces.

    Every face seen often enough has a finding of its own: the mean of its frame logits against thresholds for
    its number of frames, its weaknesses and the number of faces judged. The video's verdict is that of the
    face that decides (see `deciding`), or of the stretch that stood out, if a second look at it confirms
    it. The paper's rule, the mean over each frame's largest face, is reported too.

    Args:
        frames: scored faces, with the ids of their tracks.
        thresholds: the detector's own, see `thresholds_of`.
        second_look: further frames of the stretch that a first judgement of the same found to stand out.
    """
    tracks = build_tracks(frames, coverage, source, thresholds)
    scores = score(tracks, coverage.instants, source, thresholds)
    if scores is not None and scores.stretch is not None and second_look is not None:
        found = stretches.judge_stretch(scores.stretch, tracks, second_look, source, thresholds)
        scores = replace(scores, stretch_finding=found)
    (own,) = [t for t in tracks if scores is not None and t.id == scores.track] or (None,)
    used = thresholds if own is None or own.finding is None else own.finding.thresholds
    judged = 0 if scores is None else scores.judged
    tenth = None if own is None else stretches.tenth(own, source, thresholds, judged)
    return Evidence(
        coverage=coverage,
        tracks=tracks,
        scores=scores,
        thresholds=used,
        verdict=decide(scores, coverage, tracks),
        warnings=(
            *about_input(source, coverage.decoding, declared_duration, coverage.interlaced),
            *about_faces(
                tracks,
                scores,
                coverage.decoding.sampled,
                coverage.faces_too_small,
                coverage.faces_too_many,
            ),
            *about_scores(tracks, scores, used, tenth),
        ),
        second_look=second_look,
        declared_duration=declared_duration,
    )


def enough_instants(sampled: int) -> int:
    """How often a face must be seen to carry a video's score: 4 sampled instants, or a tenth of them."""
    return min(4, math.ceil(sampled / 10))


def build_tracks(
    frames: Sequence[FrameEvidence],
    coverage: Coverage,
    source: Source,
    thresholds: Thresholds = PROVISIONAL,
) -> tuple[TrackEvidence, ...]:
    """Group scored faces by track, each with its finding; ids ascending, times ascending within a track."""
    grouped: dict[int, list[FrameEvidence]] = {}
    for frame in sorted(frames, key=lambda f: (f.track, f.frame_index)):
        grouped.setdefault(frame.track, []).append(frame)
    needed = enough_instants(len(coverage.instants))
    able = {t for t, own in grouped.items() if len(own) >= needed and _clear(own)}
    return tuple(
        _track(own, coverage, source, thresholds, len(able) if track in able else 0)
        for track, own in grouped.items()
    )


def _track(
    own: Sequence[FrameEvidence],
    coverage: Coverage,
    source: Source,
    thresholds: Thresholds,
    judged: int,
) -> TrackEvidence:
    """One face; `judged`: how many faces are judged, 0 if it is not among them."""
    track = own[0].track
    finding = None
    if judged:
        finding = judge_frames(f"face {track}", own, source, thresholds, judged)
    logits = [f.logit for f in own]
    high = (finding.thresholds if finding else thresholds).high
    return TrackEvidence(
        id=track,
        frames=tuple(own),
        score=rounded(float(np.mean(logits))),
        maximum=max(logits),
        top10_mean=top10_mean(logits),
        enough=finding is not None,
        share_above=float(np.mean([rounded(logit) >= high for logit in logits])),
        runs=timeline.runs(own, coverage.instants, high),
        interval=timeline.interval(logits),
        cuts=tuple(cut for cut in coverage.cuts if own[0].time < cut <= own[-1].time),
        merged=tuple(sorted(i for i, person in coverage.joined.items() if person == track)),
        finding=finding,
    )


def _clear(frames: Sequence[FrameEvidence]) -> bool:
    return max(f.face.confidence for f in frames) >= CLEARLY_A_FACE


def top10_mean(logits: Sequence[float]) -> float:
    """Mean of the highest tenth, of one value at least: a short manipulation still shows in it."""
    count = math.ceil(len(logits) / 10)
    return float(np.mean(sorted(logits, reverse=True)[:count]))


def score(
    tracks: Sequence[TrackEvidence],
    instants: Sequence[int],
    source: Source,
    thresholds: Thresholds = PROVISIONAL,
) -> Scores | None:
    """Video scores, or None when no face has enough evidence."""
    able = [track for track in tracks if track.enough]
    if not able:
        return None
    own = deciding(able, thresholds)
    largest: dict[int, FrameEvidence] = {}
    for f in (f for track in tracks if _clear(track.frames) for f in track.frames):
        best = largest.get(f.frame_index)
        if best is None or f.quality.face_size > best.quality.face_size:
            largest[f.frame_index] = f
    logits = [f.logit for track in able for f in track.frames]
    indicated = _named(own) is VerdictName.MANIPULATION_INDICATED
    return Scores(
        video=own.score,
        track=own.id,
        judged=len(able),
        largest_face=rounded(float(np.mean([f.logit for f in largest.values()]))),
        maximum=max(logits),
        top10_mean=top10_mean([f.logit for f in own.frames]),
        interval=own.interval,
        share_above=own.share_above,
        longest_run=own.longest_run,
        stretch=None if indicated else stretches.outstanding(able, instants, source, thresholds),
    )


def deciding(able: Sequence[TrackEvidence], thresholds: Thresholds) -> TrackEvidence:
    """The face that decides: the most suspicious one whose evidence is sound.

    An indicated face decides before all others. A face whose evidence is weak (small, compressed, few
    instants) decides over sound ones only by that, or if it is above the detector's own upper threshold where
    no sound face leaves the question open.
    """
    indicated = [t for t in able if _named(t) is VerdictName.MANIPULATION_INDICATED]
    if indicated:
        return max(indicated, key=lambda t: (_margin(t), t.score))
    sound = [t for t in able if t.finding is not None and not t.finding.weak]
    undecided = [t for t in sound if _named(t) is VerdictName.INCONCLUSIVE]
    suspicious = [t for t in able if t.score >= thresholds.high]
    return max(undecided or suspicious or sound or able, key=lambda t: t.score)


def _named(track: TrackEvidence) -> VerdictName | None:
    return track.finding.verdict.name if track.finding else None


def _margin(track: TrackEvidence) -> float:
    assert track.finding is not None
    return track.score - track.finding.thresholds.high


def decide(scores: Scores | None, coverage: Coverage, tracks: Sequence[TrackEvidence]) -> Verdict:
    """The verdict. Without scores it says why; a missing score never becomes a number."""
    if scores is None:
        return _unjudged(coverage, tracks)
    (own,) = (track for track in tracks if track.id == scores.track)
    assert own.finding is not None
    verdict = own.finding.verdict
    whole = verdict.sentence
    if scores.judged > 1:
        whole = f"Of {scores.judged} faces judged face {own.id} decides. {whole}"
    weak = [t.id for t in tracks if t.finding is not None and t.finding.weak]
    if weak and not own.finding.weak:
        many = len(weak) > 1
        whole += f" {faces(weak).capitalize()} {'are' if many else 'is'} too weak to decide."
    if scores.stretch is None:
        return replace(verdict, sentence=whole)
    when = span(scores.stretch.start, scores.stretch.end)
    found = scores.stretch_finding
    if found is not None and found.verdict.name is VerdictName.MANIPULATION_INDICATED:
        return Verdict(
            found.verdict.name,
            "stretch_high",
            f"Manipulation indicated at {when}, not in the video as a whole. A second look:"
            f" {_lowered(found.verdict.sentence)} The whole: {_lowered(whole)}",
        )
    looked = (
        f" over {counted(scores.stretch.frames, 'successive instant')} face {scores.stretch.track} averages"
        f" {logit(scores.stretch.mean)}"
    )
    if found is not None:
        looked += f". A second look does not settle it: {_lowered(found.verdict.sentence)}"
    else:
        looked += "."
    return Verdict(
        VerdictName.INCONCLUSIVE,
        "stretch_stands_out",
        f"Inconclusive overall, but look at {when}:{looked} The whole: {_lowered(whole)}",
    )


def _lowered(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _unjudged(coverage: Coverage, tracks: Sequence[TrackEvidence]) -> Verdict:
    decoding = coverage.decoding
    if decoding.decoded == 0:
        return Verdict(
            VerdictName.INSUFFICIENT,
            "frames_damaged",
            f"All {decoding.sampled} sampled frames are damaged; none was judged."
            if decoding.sampled > 1
            else "The sampled frame is damaged; nothing was judged.",
        )
    if any(_clear(track.frames) for track in tracks):
        return Verdict(
            VerdictName.INSUFFICIENT,
            "too_few_instants",
            f"Faces were seen, but none in {enough_instants(decoding.sampled)} of the"
            f" {decoding.sampled} frames looked at; try more with --frames.",
        )
    if tracks:
        return Verdict(
            VerdictName.INSUFFICIENT,
            "no_clear_face",
            "What was found is nowhere clearly a face; nothing was judged.",
        )
    if coverage.faces_too_small:
        one = coverage.faces_too_small == 1
        return Verdict(
            VerdictName.INSUFFICIENT,
            "faces_too_small",
            f"The only {'face seen is' if one else 'faces seen are'} smaller than the smallest face judged.",
        )
    return Verdict(
        VerdictName.NO_FACE,
        "no_face_found",
        f"No face was found in {counted(decoding.decoded, 'frame')}; nothing was judged.",
    )
