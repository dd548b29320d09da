"""Scores the faces of a search: a logit for each crop by each detector, or a closer look at one face."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from deepscan.flow import Progress, ahead, chunks
from deepscan.records import (
    Coverage,
    Crop,
    DecodeCount,
    Frame,
    FrameEvidence,
    Output,
    SecondLook,
    TrackEvidence,
)
from deepscan.search import CHUNK, Search

if TYPE_CHECKING:
    from deepscan.judgement.explain import Score
    from deepscan.model import Scorer
    from deepscan.model.detector import Detector


@runtime_checkable
class Watcher(Protocol):
    """Sees every sampled frame with its crops, and the first detector's output for them."""

    def add(self, frame: Frame, crops: Sequence[Crop], output: Output | None) -> None: ...


def score_faces(
    search: Search,
    scorers: Sequence[Callable[[], Scorer]],
    watchers: Sequence[Watcher],
    progress: Progress,
    found: Callable[[], None],
) -> tuple[Coverage, list[list[FrameEvidence]]]:
    """Score every face of the sampled frames by each detector, while the next frames are searched for faces.

    Args:
        search: its `parts` are used up.
        scorers: wait for their detectors, which may still be loading.
        watchers: see each frame once it is scored, before its pixels are dropped.
        progress: called with the stages "faces" and "scoring".
        found: as for `pipeline.examine`.

    Returns:
        What was looked at, and for each scorer the frames' evidence in the order they were seen.
    """
    instants, clock, batch = search.opened().indices, search.clock, search.settings.scoring.batch
    scored: list[list[FrameEvidence]] = [[] for _ in scorers]
    cuts: list[Fraction] = []
    sampled = len(instants)
    good = with_face = too_small = too_many = seen = 0
    interlaced = called = False
    progress("faces", 0, sampled)
    for part in search.parts:
        progress("scoring", seen, sampled)
        seen += part.seen
        if not called and sampled - seen <= CHUNK:
            called = True
            found()
        good += len(part.frames)
        interlaced = interlaced or any(frame.interlaced for frame in part.frames)
        with_face += sum(map(bool, part.crops))
        too_small += part.too_small
        too_many += part.too_many
        cuts += part.cuts
        detectors = [scorer().detector for scorer in scorers]
        with clock("scoring"):
            outputs = [_outputs(detector, part.crops, batch) for detector in detectors]
        progress("scoring", seen, sampled)
        for frames, of_detector in zip(scored, outputs, strict=True):
            for crops, output in zip(part.crops, of_detector, strict=True):
                frames += _evidence(crops, output.logit.tolist() if output else ())
        with clock("drawing"):
            for watcher in watchers:
                for frame, crops, output in zip(part.frames, part.crops, outputs[0], strict=True):
                    watcher.add(frame, crops, output)
    joined = search.follower.same()
    scored = [
        [replace(frame, track=joined.get(frame.track, frame.track)) for frame in frames]
        for frames in scored
    ]
    counts = DecodeCount(sampled=sampled, decoded=good, damaged=sampled - good)
    coverage = Coverage(
        counts, with_face, too_small, interlaced, tuple(instants), tuple(cuts), too_many, joined
    )
    return coverage, scored


def score_closer(
    search: Search, indices: Sequence[int], track: TrackEvidence, detector: Detector
) -> SecondLook:
    """Score one face in further frames, of these display-order indices. None of them is drawn."""
    batch = search.settings.scoring.batch
    frames: list[FrameEvidence] = []
    decoded = 0
    with ahead([search.further(indices, track)], batch, lambda _: 0) as coming:
        for some in chunks(coming, batch):
            decoded += len(some)
            if crops := [crop for _, crop in some if crop is not None]:
                frames += _evidence(crops, logits(detector, batch)(_pixels(crops)).tolist())
    return SecondLook(track.id, len(indices), decoded, tuple(frames))


def logits(detector: Detector, batch: int) -> Score:
    """The detector as a function from crops to logits, `batch` of them at a time."""
    return lambda crops: np.concatenate(
        [detector.score(crops[at : at + batch]).logit for at in range(0, len(crops), batch)]
    )


def _outputs(
    detector: Detector, crops: Sequence[Sequence[Crop]], batch: int
) -> list[Output | None]:
    """The detector's output for each frame's crops (None: no crops), run in batches across frames."""
    flat = [crop for of_frame in crops for crop in of_frame]
    if not flat:
        return [None] * len(crops)
    whole = Output.joined([detector.score(_pixels(group)) for group in chunks(flat, batch)])
    outputs: list[Output | None] = []
    at = 0
    for of_frame in crops:
        outputs.append(whole.part(slice(at, at + len(of_frame))) if of_frame else None)
        at += len(of_frame)
    return outputs


def _pixels(crops: Sequence[Crop]) -> np.ndarray:
    return np.stack([crop.pixels for crop in crops])


def _evidence(crops: Sequence[Crop], values: Iterable[float]) -> list[FrameEvidence]:
    return [
        FrameEvidence(c.track, c.frame_index, c.time, c.face, c.quality, value)
        for c, value in zip(crops, values, strict=True)
    ]
