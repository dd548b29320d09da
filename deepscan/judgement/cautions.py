"""Writes the warnings: sentences about what weakens the evidence in the input, the faces or the scores.

Nobody reads a warning that always appears. So each threshold's comment says how often it is met on 40 clips
of our
own: 12 from various sources and both halves, original and swapped, of 14 face-swap demos. They are mostly
good footage; the thresholds lie where good footage ends, not where errors were measured to begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deepscan.judgement.words import counted, faces, listed, logit, percent, time_code
from deepscan.records import (
    FEWEST_FRAMES,
    Calibration,
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
        yield f"The file announces {declared:.1f} s but ends after {found:.1f} s: it may be cut."
    if not source.exact_times:
        yield "Not every frame has a usable time stamp; times follow the order of the frames."
    if source.restarts:
        places = listed([time_code(at) for at in source.restarts])
        yield (
            f"The file's clock restarts at {places}, as where recordings were joined end to end; times"
            " count on there."
        )
    if source.others:
        yield f"The file holds more than was judged: {listed(source.others)}."
    if source.colour.conversion:
        yield f"The colours were converted ({source.colour.conversion}), as for an ordinary screen."
    if not source.colour.exact:
        yield (
            f"The colours are of a kind that is not converted exactly (matrix {source.colour.matrix},"
            f" transfer {source.colour.transfer}): tones may be off."
        )
    if source.variable_rate:
        yield "The frame rate varies, as after screen recording, editing or phone capture."
    if interlaced:
        yield "The video is interlaced; one field of each frame was judged."
    if source.kind == "video" and decoding.sampled < FEWEST_FRAMES:
        yield (
            f"Only {counted(decoding.sampled, 'frame')} of the video's {source.frames} were looked at: too"
            " few for a clear low verdict or an interval; --frames asks for more."
        )
    if source.kind == "video" and (bits := bits_per_pixel(source)) < heavy(source.codec):
        yield (
            f"The video is heavily compressed ({bits:.3f} bits per pixel and frame, {source.codec}):"
            " fine traces of manipulation may be lost, and blocks taken for some."
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
    """For what evidence like this face's nobody has shown that a low score means anything, in words."""
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
    if too_small:
        were = "face too small to judge was" if too_small == 1 else "faces too small to judge were"
        yield f"{too_small} {were} passed over."
    if too_many:
        were = "face was" if too_many == 1 else "faces were"
        yield f"{too_many} {were} passed over: only the largest of each frame are judged."
    if scores is None:
        return
    (track,) = (t for t in tracks if t.id == scores.track)
    if len(track.frames) < FEWEST_FRAMES <= sampled:
        yield f"The face that decides was seen in only {len(track.frames)} of {sampled} instants."
    size, sharpness, brightness, turn, inside = (
        _median(track.frames, name) for name in CropQuality.__dataclass_fields__
    )
    if size < SMALL_FACE:
        yield f"The face that decides is small ({size:.0f} px): little detail to judge by."
    if sharpness < BLURRED:
        yield f"The face that decides is blurred (sharpness {sharpness:.0f}): little detail to judge by."
    if brightness < DARK:
        yield f"The face that decides is dark (mean grey level {brightness:.0f} of 255)."
    if turn > PROFILE:
        yield "The face that decides is seen from the side most of the time."
    if inside < OUTSIDE:
        yield (
            f"The face that decides is cut by the frame's edge ({percent(inside)} of its crop is inside)."
        )
    for other in (t for t in tracks if t.enough and (t.cuts or t.merged)):
        times = listed([time_code(cut) for cut in other.cuts])
        before = f" across scene cuts (before {times})" if other.cuts else ""
        with_ = f", and as {faces(other.merged)} in drawings," if other.merged else ""
        yield (
            f"Face {other.id} was followed{before}{with_} by its look alone: compare its pictures, they may"
            " show two persons."
        )


def about_scores(
    tracks: Sequence[TrackEvidence], scores: Scores | None, thresholds: Thresholds
) -> Iterator[str]:
    """Warnings where other scores disagree with the deciding face's. `thresholds`: that face's."""
    if scores is None:
        return
    video, high = scores.video, thresholds.high
    if video < high <= scores.top10_mean and scores.stretch is None:
        yield (
            f"The mean is {logit(video)} but the highest tenth of frames averages"
            f" {logit(scores.top10_mean)}: a short manipulation would look like this."
        )
    if video >= high and scores.share_above < 0.5:
        yield (
            f"The mean of {logit(video)} is carried by {percent(scores.share_above)} of the frames; the"
            f" others lie below the threshold of {logit(high)}."
        )
    if (other := _side(scores.largest_face, thresholds)) != (own := _side(video, thresholds)):
        yield (
            f"Each frame's largest face averages {logit(scores.largest_face)}, {other}, while the face that"
            f" decides is {own}."
        )
    if video >= high:
        low = [
            t.id for t in tracks if t.finding is not None and t.score <= t.finding.thresholds.low
        ]
        if low:
            yield (
                f"Face {scores.track} decides alone: {faces(low)}"
                f" {'scores' if len(low) == 1 else 'score'} at or below"
                f" {'its' if len(low) == 1 else 'their'} lower threshold."
            )
    if (spread := scores.interval) is not None:
        crossed = [t for t in (thresholds.low, high) if spread.low < t <= spread.high]
        if crossed:
            yield (
                f"With other instants its score could lie across the threshold{'s' * (len(crossed) - 1)} of"
                f" {listed([logit(t) for t in crossed])} (95 % interval {logit(spread.low)} to"
                f" {logit(spread.high)})."
            )


def _side(score: float, thresholds: Thresholds) -> str:
    if score >= thresholds.high:
        return "above the thresholds"
    return "below the thresholds" if score <= thresholds.low else "between the thresholds"
