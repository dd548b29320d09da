"""Writes the warnings: sentences about what weakens the evidence in the input, the faces or the scores.

Nobody reads a warning that always appears. So each threshold's comment says how often it is met on 40 clips
of our
own: 12 from various sources and both halves, original and swapped, of 14 face-swap demos. They are mostly
good footage; the thresholds lie where good footage ends, not where errors were measured to begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deepscan.judgement.words import (
    counted,
    faces,
    listed,
    logit,
    often,
    percent,
    rounded,
    time_code,
)
from deepscan.records import (
    FEWEST_FRAMES,
    Calibration,
    Contrast,
    CropQuality,
    DecodeCount,
    FrameEvidence,
    Scores,
    Source,
    Thresholds,
    TrackEvidence,
)

# Smaller faces are enlarged more than twice for the detector's 224 pixels, about half of which are the face.
SMALL_FACE = 64.0

# Medians over the deciding track, see CropQuality. On the 40 clips: sharpness 20 to 450, one below 25
# (faces in a crowded street); brightness 83 to 153, none below 60; turn 0.03 to 0.42, two above 0.35 (a man
# looking aside, original and swapped); share inside the frame 0.85 to 1, one below 0.9.
BLURRED = 25.0
DARK = 60.0
PROFILE = 0.35
OUTSIDE = 0.9

# Bits per pixel and frame: about what H.264 (libx264, veryfast) uses at a constant rate factor of 32. Three
# clips had 0.008 to 0.017 at 32 and 0.027 to 0.046 at the usual 23. None of the 40 is below.
HEAVY = 0.015
THRIFTY = ("hevc", "av1", "vp9", "vvc")  # these need about half as many for the same picture


def about_input(
    source: Source, decoding: DecodeCount, declared: float | None, interlaced: bool
) -> Iterator[str]:
    """Warnings about the file itself. `declared`: seconds its header promises."""
    found = float(source.duration)
    if decoding.damaged:
        were = "is damaged and was" if decoding.damaged == 1 else "are damaged and were"
        yield f"{decoding.damaged} of {counted(decoding.sampled, 'sampled frame')} {were} not judged."
    if declared is not None and found < 0.9 * declared - 0.5:
        yield (
            f"The file's header promises {declared:.1f} s but the video ends after {found:.1f} s, so it may"
            " have been cut."
        )
    if not source.exact_times:
        yield "Not every frame has a usable time stamp, so times follow the order of the frames."
    if source.restarts:
        places = listed([time_code(at) for at in source.restarts])
        yield (
            f"The file's clock restarts at {places}, as if recordings had been joined; times continue from"
            " there."
        )
    if source.others:
        yield f"The file contains more than was judged: {listed(source.others)}."
    if source.colour.conversion:
        yield f"The colours were converted ({source.colour.conversion}) for an ordinary screen."
    if not source.colour.exact:
        yield (
            f"This kind of colour is not converted exactly (matrix {source.colour.matrix}, transfer"
            f" {source.colour.transfer}), so tones may be off."
        )
    if source.variable_rate:
        yield "The frame rate varies, as in screen recordings, edited videos and phone videos."
    if interlaced:
        yield "The video is interlaced; one field of each frame was judged."
    if source.kind == "image":
        yield (
            "This is a picture by itself. What scores mean was measured on videos only, so a picture gets no"
            " probability and no clear verdict."
        )
    if source.kind == "video" and decoding.sampled < FEWEST_FRAMES:
        few = "too few for a clear low verdict or an interval"
        if decoding.sampled >= source.frames:
            yield f"The video has only {counted(source.frames, 'frame')}, {few}."
        else:
            were = "was" if decoding.sampled == 1 else "were"
            yield (
                f"Only {counted(decoding.sampled, 'frame')} of the video's {source.frames} {were} looked at,"
                f" {few}; --frames looks at more."
            )
    if source.kind == "video" and (bits := bits_per_pixel(source)) < heavy(source.codec):
        yield (
            f"The video is heavily compressed ({bits:.3f} bits per pixel and frame, {source.codec}),"
            " which can hide fine traces of manipulation and leave others that look like them."
        )


def weaknesses(source: Source, frames: Sequence[FrameEvidence]) -> Iterator[str]:
    """Why a face's score is less certain than the scores the calibration was fitted on."""
    if (size := _median(frames, "face_size")) < SMALL_FACE:
        yield f"a small face ({size:.0f} px)"
    if source.kind == "video" and bits_per_pixel(source) < heavy(source.codec):
        yield "heavy compression"


def untried(
    source: Source, frames: Sequence[FrameEvidence], calibration: Calibration | None
) -> Iterator[str]:
    """The kinds of evidence, in words, for which a low score has not been shown to mean anything."""
    if calibration is None or not calibration.unseen:
        yield "kinds of manipulation that it was not trained on"
    if source.kind == "image":
        yield "pictures by themselves"
    elif len(frames) < FEWEST_FRAMES:
        yield f"{counted(len(frames), 'frame')} of a video"
    if (
        source.kind == "video"
        and calibration is not None
        and source.codec not in calibration.codecs
    ):
        yield f"video in {source.codec}"
    yield from weaknesses(source, frames)
    if _median(frames, "sharpness") < BLURRED:
        yield "a blurred face"
    if _median(frames, "brightness") < DARK:
        yield "a dark face"
    if _median(frames, "turn") > PROFILE:
        yield "a face seen from the side"
    if _median(frames, "inside") < OUTSIDE:
        yield "a face cut by the frame's edge"


def _median(frames: Sequence[FrameEvidence], name: str) -> float:
    return float(np.median([getattr(frame.quality, name) for frame in frames]))


def bits_per_pixel(source: Source) -> float:
    """The file's bits per pixel and frame; sound is included, so the picture has fewer."""
    return 8 * source.bytes / (source.frames * source.width * source.height)


def heavy(codec: str) -> float:
    """Bits per pixel and frame below which `codec` has dropped detail; newer codecs need half."""
    return HEAVY / 2 if codec in THRIFTY else HEAVY


def about_faces(
    tracks: Sequence[TrackEvidence],
    scores: Scores | None,
    sampled: int,
    too_small: int,
    too_many: int = 0,
) -> Iterator[str]:
    """Warnings about the faces, above all the deciding one."""
    # Counted frame by frame: nobody knows whether it is the same face each time.
    if too_small:
        yield f"A face too small to judge was left out {often(too_small)}."
    if too_many:
        yield f"A face was left out {often(too_many)}, because only the largest of each frame are judged."
    if scores is None:
        return
    (track,) = (t for t in tracks if t.id == scores.track)
    if len(track.frames) < FEWEST_FRAMES <= sampled:
        yield f"The face that decides was seen in only {len(track.frames)} of {sampled} frames."
    size, sharpness, brightness, turn, inside = (
        _median(track.frames, name) for name in CropQuality.__dataclass_fields__
    )
    if size < SMALL_FACE:
        yield f"The face that decides is small ({size:.0f} px), so there is little detail to judge."
    if sharpness < BLURRED:
        yield (
            f"The face that decides is blurred (sharpness {sharpness:.0f}), so there is little detail to"
            " judge."
        )
    if brightness < DARK:
        yield f"The face that decides is dark (mean grey level {brightness:.0f} of 255)."
    if turn > PROFILE:
        most = " most of the time" if len(track.frames) > 1 else ""
        yield f"The face that decides is seen from the side{most}."
    if inside < OUTSIDE:
        yield (
            f"The face that decides is cut by the frame's edge ({percent(inside)} of its crop is inside)."
        )
    for other in (t for t in tracks if t.enough and (t.cuts or t.merged)):
        times = listed([time_code(cut) for cut in other.cuts])
        before = f" across scene cuts (before {times})" if other.cuts else ""
        with_ = f", also as {faces(other.merged)} in drawings," if other.merged else ""
        yield (
            f"Face {other.id} was followed{before}{with_} by look alone; compare its pictures, because they"
            " may show two people."
        )


def about_scores(
    tracks: Sequence[TrackEvidence],
    scores: Scores | None,
    thresholds: Thresholds,
    tenth: Contrast | None = None,
) -> Iterator[str]:
    """Warnings where other scores disagree with the deciding face's.

    Args:
        thresholds: that face's.
        tenth: how far its highest tenth stands out of its other frames. The highest of many scattered frames
            are always high: in 52 unseen real clips the highest tenth reached the threshold in a quarter,
            and in 4 % it also stood out as far as is asked of a stretch; in 61 others in 11 % and in none.
    """
    if scores is None:
        return
    video, high = scores.video, thresholds.high
    apart = tenth is not None and tenth.times >= tenth.needed
    if video < high <= rounded(scores.top10_mean) and scores.stretch is None and apart:
        assert tenth is not None
        yield (
            f"The face scores {logit(video)} on average, but {logit(scores.top10_mean)} in the highest tenth"
            f" of its frames, {tenth.times:.1f} times as far above the others as single frames scatter. A"
            " short manipulation would look like this."
        )
    if video >= high and scores.share_above < 0.5:
        yield (
            f"Only {percent(scores.share_above)} of the frames reach the limit of {logit(high)}; they raise"
            f" the average to {logit(video)}."
        )
    if (other := _side(scores.largest_face, thresholds)) != (own := _side(video, thresholds)):
        yield (
            f"The largest face of each frame scores {logit(scores.largest_face)} on average, {other}, but the"
            f" face that decides scores {own}."
        )
    if video >= high:
        low = [
            t.id for t in tracks if t.finding is not None and t.score <= t.finding.thresholds.low
        ]
        if low:
            yield (
                f"Face {scores.track} decides alone: {faces(low)}"
                f" {'scores' if len(low) == 1 else 'score'} at or below"
                f" {'its' if len(low) == 1 else 'their'} lower limit."
            )
    if (spread := scores.interval) is not None:
        crossed = [t for t in (thresholds.low, high) if spread.low < t <= spread.high]
        if crossed:
            yield (
                "If other frames had been looked at, the score could lie on the other side of the"
                f" limit{'s' * (len(crossed) - 1)} of {listed([logit(t) for t in crossed])} (95 % range:"
                f" {logit(spread.low)} to {logit(spread.high)})."
            )


def _side(score: float, thresholds: Thresholds) -> str:
    if score >= thresholds.high:
        return "above the limits"
    return "below the limits" if score <= thresholds.low else "between the limits"
