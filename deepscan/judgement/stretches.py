"""Finds the stretch in which a face stands out from its other frames, and judges it by a second look.

A manipulation of a part of a video is a step in a face's curve. How high faces score differs much from video
to video, so that a stretch, the highest of many, says little by its height. The same face's other frames
say more: they share its person, light, camera and compression. So two things are asked of a stretch: that it
reach the threshold of a face, and that it stand out of the face's other frames by several times as much as
single frames scatter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deepscan.judgement.findings import judge_frames, limits
from deepscan.judgement.timeline import stretch_of, unbroken
from deepscan.judgement.words import logit, rounded, time_code
from deepscan.records import (
    FEWEST_FRAMES,
    Contrast,
    Finding,
    FrameEvidence,
    SecondLook,
    Source,
    Stretch,
    Thresholds,
    TrackEvidence,
    Verdict,
    VerdictName,
)

# A tenth of a video holds three of the 32 instants sampled by default.
FEWEST_IN_STRETCH = 3

# How many times the scatter of single frames a stretch must stand out: to be looked at again, and to decide.
# Of 163 real clips of sources that their detector had not seen, 6 to 10 frames each, the stretch that stands
# out most of those that reach the threshold does so by 3.17 times in one half, by which CLEAR was chosen, and
# by 3.88 in the other. Of 110 of them, by another detector, it is 3.02. In 61 real clips of 24 to 64 frames,
# most of which their detector had learnt from, it is 3.05. docs/judgement.md says what it finds.
NOTICED, CLEAR = 2.0, 4.0
# For k faces CLEAR rises by log(k): the share of real clips that reach so much falls at least e-fold with it.

# The scatter is taken to be this share of the logits over which real scores get e-fold rarer, at least:
# frames that hardly change at all, as of a frozen picture, would make a step of any change. Real faces
# scatter by more: of 61 clips, 24 to 64 frames each, the lowest tenth by 1.4 times as much.
LEAST_SCATTER = 0.25


def outstanding(
    tracks: Sequence[TrackEvidence], instants: Sequence[int], source: Source, base: Thresholds
) -> Stretch | None:
    """The stretch of any of these faces that stands out most from the rest of its face; None if none does.

    Args:
        tracks: the faces judged.
        instants: display-order indices of all sampled frames, ascending.
        base: the detector's thresholds.
    """
    best, most = None, 0.0
    for track in tracks:
        found = highest(track.frames, instants, limits(track.frames, source, base).high)
        if found is None:
            continue
        inside = [f.logit for f in track.frames if found.start <= f.time <= found.end]
        rest = [f.logit for f in track.frames if not found.start <= f.time <= found.end]
        apart = contrast(inside, rest, limits(track.frames, source, base).fall, len(tracks))
        if apart is not None and apart.times >= NOTICED and apart.times > most:
            best, most = found, apart.times
    return best


def highest(
    frames: Sequence[FrameEvidence], instants: Sequence[int], high: float
) -> Stretch | None:
    """The stretch that exceeds `high` by the most in total, dips included; None under three frames.

    The maximum-sum segment of (logit - high). Source: J. Bentley, "Programming pearls: algorithm design
    techniques", Communications of the ACM 27, 1984 (Kadane's scan). Its mean is at or above `high`, and
    so are its first and its last frame.
    """
    best: list[FrameEvidence] = []
    most = 0.0
    for piece in unbroken(frames, instants):
        begin, total = 0, 0.0
        for i, frame in enumerate(piece):
            if total <= 0:
                begin, total = i, 0.0
            total += frame.logit - high
            if total > most:
                best, most = piece[begin : i + 1], total
    return stretch_of(best) if len(best) >= FEWEST_IN_STRETCH else None


def contrast(
    inside: Sequence[float], rest: Sequence[float], fall: float, judged: int
) -> Contrast | None:
    """How far the logits `inside` a stretch, or of a choice of frames, are above the face's other ones.

    Args:
        fall: logits over which real scores get e-fold rarer.
        judged: the faces of which this is one.

    Returns:
        None if the others are fewer than FEWEST_FRAMES.
    """
    if len(rest) < FEWEST_FRAMES:
        return None
    scatter = max(LEAST_SCATTER * fall, float(np.std(inside)), float(np.std(rest)))
    mean = rounded(float(np.mean(rest)))
    times = (rounded(float(np.mean(inside))) - mean) / scatter
    return Contrast(
        mean,
        len(rest),
        rounded(scatter),
        math.floor(round(10 * times, 6)) / 10,
        math.ceil(round(10 * (CLEAR + math.log(judged)), 6)) / 10,
    )


def tenth(track: TrackEvidence, source: Source, base: Thresholds, judged: int) -> Contrast | None:
    """How far the highest tenth of a face's frames, wherever they are, stands out of the others."""
    ranked = sorted((frame.logit for frame in track.frames), reverse=True)
    count = math.ceil(len(ranked) / 10)
    fall = limits(track.frames, source, base).fall
    return contrast(ranked[:count], ranked[count:], fall, judged)


def same_shots(stretch: Stretch, track: TrackEvidence) -> list[float]:
    """Logits of the face's other frames in the shots of the stretch: others have another light and size."""
    begin = max((cut for cut in track.cuts if cut <= stretch.start), default=-math.inf)
    end = min((cut for cut in track.cuts if cut > stretch.end), default=math.inf)
    return [
        f.logit
        for f in track.frames
        if begin <= f.time < end and not stretch.start <= f.time <= stretch.end
    ]


def judge_stretch(
    stretch: Stretch,
    tracks: Sequence[TrackEvidence],
    look: SecondLook,
    source: Source,
    base: Thresholds,
) -> Finding | None:
    """The finding about a stretch that stood out, by the second look: frames that did not choose it.

    It has no probability: what stands out of a face was chosen for that, which calibrations know nothing of.
    None if the face was found in none of the frames.
    """
    if not look.frames:
        return None
    (track,) = (track for track in tracks if track.id == stretch.track)
    what = f"face {stretch.track} from {time_code(stretch.start)} to {time_code(stretch.end)}"
    found = judge_frames(what, look.frames, source, base)
    logits = [frame.logit for frame in look.frames]
    judged, fall = sum(one.enough for one in tracks), limits(track.frames, source, base).fall
    apart = contrast(logits, same_shots(stretch, track), fall, judged)
    found = replace(found, probability=None, ratio=None, contrast=apart)
    if found.verdict.name is not VerdictName.MANIPULATION_INDICATED:
        return found
    reached = f"The mean logit of {what} is {logit(found.score)}, at or above the threshold of"
    reached += f" {logit(found.thresholds.high)}"
    if apart is None:
        return replace(
            found,
            verdict=Verdict(
                VerdictName.INCONCLUSIVE,
                "nothing_to_compare",
                f"{reached}, but of the same shots fewer than {FEWEST_FRAMES} other frames of this face were"
                " judged, too few to tell whether it stands out of them.",
            ),
        )
    above = (
        f"{found.score - apart.rest:.2f} above the mean of this face's {apart.frames} other frames, which is"
        f" {apart.times:.1f} times as much as single frames scatter; {apart.needed:.1f} times"
    )
    if apart.times < apart.needed:
        verdict = Verdict(
            VerdictName.INCONCLUSIVE, "not_apart", f"{reached}, but only {above} are asked."
        )
    else:
        verdict = replace(
            found.verdict,
            sentence=f"{reached}, and {above} are asked.",
        )
    return replace(found, verdict=verdict)


# Further frames of a stretch that stands out.
SECOND_LOOK = 32


def closer(
    stretch: Stretch, frames: Sequence[FrameEvidence], instants: Sequence[int]
) -> tuple[int, ...]:
    """Display-order indices of further frames to look at, evenly over a stretch.

    Args:
        frames: the face's.
        instants: of all sampled frames.

    Returns:
        At most SECOND_LOOK; none if fewer than FEWEST_FRAMES are left that were not looked at.
    """
    own = [f.frame_index for f in frames if stretch.start <= f.time <= stretch.end]
    known = set(instants)
    left = [index for index in range(own[0], own[-1] + 1) if index not in known]
    if len(left) < FEWEST_FRAMES:
        return ()
    places = np.linspace(0, len(left) - 1, min(SECOND_LOOK, len(left)))
    return tuple(left[round(place)] for place in places)
