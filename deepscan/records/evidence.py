"""What was judged about one input, from a scored crop up to the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

import numpy as np

from deepscan.records.calibration import Thresholds
from deepscan.records.faces import CropQuality, Face
from deepscan.records.media import DecodeCount


class VerdictName(StrEnum):
    """The six verdicts. None of them says that a video is authentic."""

    MANIPULATION_INDICATED = "manipulation_indicated"
    INCONCLUSIVE = "inconclusive"
    NO_MANIPULATION_INDICATED = "no_manipulation_indicated"
    NO_FACE = "no_face"
    INSUFFICIENT = "insufficient"
    ERROR = "error"

    @property
    def assessed(self) -> bool:
        """Whether this verdict is based on a score."""
        return self not in (self.NO_FACE, self.INSUFFICIENT, self.ERROR)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict with a fixed code for its reason and the sentence that explains it."""

    name: VerdictName
    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class FrameEvidence:
    """One scored crop without its pixels; a report keeps one for every face in every frame."""

    track: int
    frame_index: int
    time: Fraction
    face: Face
    quality: CropQuality
    logit: float


@dataclass(frozen=True, slots=True)
class Interval:
    """Where, in logits, a face's mean over its time lies with 95 % confidence, going by the instants seen."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"inside-out interval: {self}")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Successive sampled instants of one face that belong together, from `start` to `end`.

    In the video the stretch may begin any time after the instant sampled before `start`, and end any time
    before the one sampled after `end`.
    """

    track: int
    start: Fraction
    end: Fraction
    frames: int
    mean: float  # of the frame logits

    def __post_init__(self) -> None:
        if self.end < self.start or self.frames < 1:
            raise ValueError(f"inside-out stretch: {self}")


@dataclass(frozen=True, slots=True)
class Contrast:
    """How far a stretch of a face stands out of its other frames in the same shots."""

    rest: float  # mean logit of the other frames
    frames: int  # how many they are
    scatter: (
        float  # standard deviation of single frames, of the stretch's or the others': the larger
    )
    times: float  # the stretch's mean above `rest`, in units of the scatter
    needed: float  # as many units are asked


@dataclass(frozen=True, slots=True)
class Finding:
    """What is concluded about one face, or about one stretch of it.

    `thresholds` are its own, for its number of frames, its weaknesses and the number of faces judged.
    `probability` and `ratio` (the likelihood ratio) are None where nothing was measured on such evidence.
    """

    verdict: Verdict
    score: float  # mean of its frame logits, to two digits, as the thresholds
    frames: int
    thresholds: Thresholds
    weak: tuple[str, ...]  # why the thresholds stand apart, in words
    probability: float | None
    ratio: float | None
    contrast: Contrast | None = (
        None  # of a stretch; None of a face, or where too little is left of it
    )


@dataclass(frozen=True, slots=True)
class SecondLook:
    """Further frames, close together, of the stretch that stood out at first; never part of a face's mean."""

    track: int
    sampled: int
    decoded: int
    frames: tuple[FrameEvidence, ...]  # of that face, in order of time


@dataclass(frozen=True, slots=True)
class TrackEvidence:
    """One face followed over the sampled instants; `score` is the mean of its frame logits, to two digits."""

    id: int
    frames: tuple[FrameEvidence, ...]
    score: float
    maximum: float
    top10_mean: float
    enough: bool  # seen often enough to carry the video's score
    share_above: float  # share of `frames` at or above the high threshold
    # Unbroken above it, in order of time; only the longest if there are many.
    runs: tuple[Stretch, ...]
    interval: Interval | None  # of `score`; None with too few frames
    cuts: tuple[Fraction, ...]  # first sampled instants after scene cuts within this track
    merged: tuple[int, ...] = ()  # ids of tracks that are this person's by their look
    finding: Finding | None = None  # None if not `enough`

    @property
    def face_size(self) -> float:
        """Median face size in frame pixels."""
        return float(np.median([f.quality.face_size for f in self.frames]))

    @property
    def longest_run(self) -> Stretch | None:
        """The run with the most frames; if several have as many, the earliest."""
        return max(self.runs, key=lambda run: run.frames, default=None)


@dataclass(frozen=True, slots=True)
class Scores:
    """Video-level scores, all logits. `video` decides the verdict; the others are reported too."""

    video: float  # the mean of the face that decides
    track: int  # that face
    judged: int  # faces with enough evidence
    largest_face: float  # mean over each frame's largest face: the paper's and the benchmark's rule
    maximum: float  # highest frame logit among tracks with enough evidence
    top10_mean: float  # mean of their highest tenth
    interval: Interval | None  # of `video`; None with too few frames
    share_above: float  # of the deciding track, as is the run
    longest_run: Stretch | None
    stretch: Stretch | None  # one that stands out although no face's mean reaches its threshold
    stretch_finding: Finding | None = None  # of that stretch, by the second look; None without one


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was examined, apart from the scored faces themselves."""

    decoding: DecodeCount
    frames_with_face: int
    faces_too_small: int
    interlaced: bool
    instants: tuple[int, ...]  # display-order indices of the sampled frames, damaged ones included
    cuts: tuple[Fraction, ...] = ()  # times of the first sampled instants after a scene cut
    faces_too_many: int = 0  # left out in favour of larger ones
    joined: Mapping[int, int] = field(default_factory=dict)  # track -> whose person it is, by look


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was judged about one input."""

    coverage: Coverage
    tracks: tuple[TrackEvidence, ...]
    scores: Scores | None
    thresholds: Thresholds
    verdict: Verdict
    warnings: tuple[str, ...]
    second_look: SecondLook | None = None
    declared_duration: float | None = None  # seconds that the file's header promises

    @property
    def decoding(self) -> DecodeCount:
        return self.coverage.decoding

    @property
    def frames_with_face(self) -> int:
        return self.coverage.frames_with_face

    @property
    def faces_too_small(self) -> int:
        return self.coverage.faces_too_small

    @property
    def deciding(self) -> int | None:
        """The face that decides."""
        return self.scores.track if self.scores else None

    @property
    def finding(self) -> Finding | None:
        """What the verdict rests on: the deciding face, or its stretch."""
        if self.scores is None:
            return None
        if self.verdict.reason == "stretch_high":
            return self.scores.stretch_finding
        return next(track.finding for track in self.tracks if track.id == self.scores.track)

    def __post_init__(self) -> None:
        if self.verdict.name.assessed != (self.scores is not None):
            raise ValueError(f"{self.verdict.name} with scores {self.scores}")

    def crops(self) -> Iterator[FrameEvidence]:
        """All scored faces, track by track."""
        for track in self.tracks:
            yield from track.frames
