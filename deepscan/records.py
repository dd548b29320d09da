"""The records that packages hand on, and the conventions they all share.

Colour is RGB, uint8. Boxes and points are display pixels (rotation and pixel aspect applied), x to
the right, y down; a box is left, top, right, bottom, half-open. Label 1 means manipulated, and a
logit above 0 leans to manipulated. Times are seconds on the stream's own clock: pts x time base.

All records are frozen; those with pixels print shapes instead of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from deepscan.shapes import Float, UInt8

# With fewer frames neither an interval nor a low score says anything, and no calibration was ever of fewer.
FEWEST_FRAMES = 8

Pixels = UInt8[np.ndarray, "_height _width 3"]  # any two pictures, hence no sizes held equal


# --- video -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Colour:
    """The colours of an input's first frame as its tags say, in FFmpeg's names, and what was made of them."""

    matrix: str = "unknown"
    transfer: str = "unknown"
    primaries: str = "unknown"
    range: str = "unknown"
    matrix_guessed: bool = False  # no tag: guessed from the size, as players do
    conversion: str = ""  # to the SDR of BT.709 that is judged; empty: none was needed
    exact: bool = True  # False: no player agrees with another on what this shows


@dataclass(frozen=True, slots=True)
class Source:
    """The facts about an input, before anything is judged.

    `width` and `height` are as displayed. `frames` counts the frames that a player shows, whatever the header
    claims; `start` and `duration` come from the first and last of them.
    """

    path: Path
    kind: str  # "video" or "image"
    sha256: str
    bytes: int
    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int  # degrees the stored picture is turned counter-clockwise for display
    frames: int
    start: Fraction  # seconds of the first frame
    duration: Fraction  # seconds from the first frame to the end of the last
    nominal_rate: Fraction | None  # frames per second the stream declares
    average_rate: Fraction | None  # frames per second it has
    variable_rate: bool
    exact_times: bool  # False: pts are missing or wrong, so times follow the order of frames
    bit_rate: int | None  # bits per second of the whole file
    tags: dict[str, str] = field(default_factory=dict)
    restarts: tuple[Fraction, ...] = ()  # seconds where the clock restarts; times count on
    stream: int = 0  # number of the stream that was judged, in the file
    others: tuple[str, ...] = ()  # what else the file shows or holds, and was not judged
    colour: Colour = field(default_factory=Colour)


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame as displayed. `index` counts in display order from 0."""

    index: int
    time: Fraction
    pixels: Pixels
    interlaced: bool = False

    def __repr__(self) -> str:
        return f"Frame(index={self.index}, time={float(self.time):.3f}, {self.pixels.shape})"


@dataclass(frozen=True, slots=True)
class DecodeCount:
    """How many of the sampled instants could be decoded; the others are damaged."""

    sampled: int
    decoded: int
    damaged: int  # concealed by the decoder or not decoded at all; never scored

    def __post_init__(self) -> None:
        if self.sampled != self.decoded + self.damaged:
            raise ValueError(f"counts do not add up: {self}")


# --- faces -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in display pixels, half-open; it may reach outside the frame."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not (self.right > self.left and self.bottom > self.top):
            raise ValueError(f"empty or inside-out box: {self}")

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def size(self) -> float:
        """Side of the square of equal area, in pixels: "the face size" everywhere in deepscan."""
        return float(np.sqrt(self.area))

    def iou(self, other: Box) -> float:
        """Intersection over union, 0 to 1."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        shared = max(across, 0.0) * max(down, 0.0)
        return shared / (self.area + other.area - shared)


@dataclass(frozen=True, slots=True)
class Face:
    """A detected face: where it is, how sure the finder is, and its five landmarks.

    `landmarks` (5, 2), x and y: left eye, right eye, nose, left and right mouth corner, left meaning
    left in the picture.
    """

    box: Box
    confidence: float
    landmarks: Float[np.ndarray, "5 2"]


@dataclass(frozen=True, slots=True)
class CropQuality:
    """Properties that can make a crop weak evidence."""

    face_size: float  # pixels in the frame, see Box.size
    sharpness: float  # variance of the Laplacian of the aligned grey crop (grey levels squared)
    brightness: float  # mean grey level of the aligned crop's inside, 0 to 255
    turn: float  # |nose offset from mid-eyes| / eye distance along the eye line: 0 frontal, 0.5+ profile
    inside: float  # share of the crop that lies within the frame, 0 to 1


@dataclass(frozen=True, slots=True)
class Crop:
    """An aligned face and the way back to the frame it was cut from.

    `to_frame` (2, 3) maps crop pixels to display pixels: (x, y) = to_frame @ (u, v, 1).
    """

    track: int
    frame_index: int
    time: Fraction
    face: Face
    pixels: Pixels
    to_frame: Float[np.ndarray, "2 3"]
    quality: CropQuality

    def __repr__(self) -> str:
        return f"Crop(track={self.track}, time={float(self.time):.3f}, {self.pixels.shape})"

    def corners(self) -> Float[np.ndarray, "4 2"]:
        """Corners of the crop in display pixels, clockwise from the top left."""
        side = self.pixels.shape[0]
        square = np.array([(0, 0, 1), (side, 0, 1), (side, side, 1), (0, side, 1)], float)
        return square @ self.to_frame.T


# --- detector --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Output:
    """The detector's output for a batch of crops, as numpy arrays.

    Both attentions are averaged over heads and sum to 1 over patches, which run row by row over a square
    grid. A detector without queries classifies [CLS], whose attention then stands in both.

    `evidence` is what each patch adds to the logit, and `constant` what none of them adds: together they
    are the logit. Without queries no part comes from a patch: evidence is (b, 0), the constant the logit.
    `likelihood` is the probability that each patch is manipulated, (b, 0) from a detector that was not taught
    to tell. `view` is the share of the crop's side that the patches cover (see faces.alignment.seen).
    """

    logit: Float[np.ndarray, " b"]
    query_attention: Float[np.ndarray, "b k p"]
    cls_attention: Float[np.ndarray, "b p"]
    evidence: Float[np.ndarray, "b e"]
    constant: Float[np.ndarray, " b"]
    likelihood: Float[np.ndarray, "b l"]
    view: float = 1.0

    def __len__(self) -> int:
        return len(self.logit)

    def part(self, crops: slice) -> Output:
        """Of some of the crops."""
        logit, query, cls, evidence, constant, likely = (values[crops] for values in self._arrays())
        return Output(logit, query, cls, evidence, constant, likely, self.view)

    @classmethod
    def joined(cls, parts: Sequence[Output]) -> Output:
        """Of all the parts' crops, one part after another."""
        columns = zip(*(part._arrays() for part in parts), strict=True)
        logit, query, attention, evidence, constant, likely = map(np.concatenate, columns)
        return cls(logit, query, attention, evidence, constant, likely, parts[0].view)

    def _arrays(self) -> tuple[np.ndarray, ...]:
        attentions = self.query_attention, self.cls_attention
        return self.logit, *attentions, self.evidence, self.constant, self.likelihood


# --- decoding's process ----------------------------------------------------------------------------


class Confinement(StrEnum):
    """What held the process that decoded an input, as tried out before it read a byte of it."""

    FULL = "full"  # it could compute and read its input, nothing else
    LIMITS = "limits"  # a process of its own with limits, memory among them; no more is certain
    NONE = "none"  # a process of its own, without limits


# --- evidence and verdict --------------------------------------------------------------------------


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
        """Whether a score stands behind this verdict."""
        return self not in (self.NO_FACE, self.INSUFFICIENT, self.ERROR)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict with a fixed code for its reason and the sentence that explains it."""

    name: VerdictName
    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Rung:
    """What the mean logit of so many frames of a face means, or of more; see Calibration."""

    frames: int
    slope: float
    intercept: float
    low: float
    high: float
    tail: float  # logits over which the share of real ones beyond `high` falls e-fold

    def __post_init__(self) -> None:
        numbers = (self.slope, self.intercept, self.low, self.high, self.tail)
        sound = self.frames >= 1 and min(self.slope, self.tail) > 0 and self.low < self.high
        if not (sound and all(map(math.isfinite, numbers))):
            raise ValueError(f"no calibration: {self}")


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a detector's video scores mean, measured on videos that it was not trained on.

    `ece` and `cllr` are cross-validated: measured on each group of people with a map fitted on the others.
    What later versions measure has a default, which claims nothing.
    """

    slope: float  # the log-odds of manipulation are slope * score + intercept,
    intercept: float
    prior: float  # where this share of all videos is manipulated
    low: float  # thresholds of the score
    high: float
    fpr: float  # intended share of real videos at or above `high`
    fnr: float  # intended share of manipulated videos at or below `low`
    widening: float  # logits by which both thresholds move apart if the evidence is weak
    data: str
    real: int  # videos
    manipulated: int
    ece: float  # expected calibration error, 0 to 1
    cllr: float  # cost of the log-likelihood ratios, bits; 1 is no knowledge
    rungs: tuple[Rung, ...] = ()  # for fewer frames than most videos have, ascending
    unseen: bool = False  # whether the videos are of sources that it was not trained on
    indicated: float | None = None  # share of the manipulated videos at or above `high`
    cleared: float | None = None  # share of the real videos at or below `low`
    codecs: tuple[str, ...] = ("h264",)  # of the videos
    tail: float | None = None  # logits over which the share of real ones beyond `high` falls e-fold

    def __post_init__(self) -> None:
        numbers = (self.slope, self.intercept, self.low, self.high, self.widening)
        sound = (
            self.slope > 0 and self.widening >= 0 and 0 < self.prior < 1 and self.low < self.high
        )
        if not (sound and all(map(math.isfinite, numbers))):
            raise ValueError(f"no calibration: {self}")

    @classmethod
    def read(cls, stated: Mapping[str, Any]) -> Calibration:
        """From plain values, as a checkpoint or report.json keeps them.

        Raises:
            TypeError, ValueError: they are no calibration.
        """
        rungs = tuple(Rung(**rung) for rung in stated.get("rungs", ()))
        codecs = tuple(map(str, stated.get("codecs", ("h264",))))
        return cls(**{**stated, "rungs": rungs, "codecs": codecs})

    def rung(self, frames: int) -> Rung | None:
        """What a mean of so many frames means; None if so few were never looked at."""
        fitting = [rung for rung in self.rungs if rung.frames <= frames]
        if fitting:
            return max(fitting, key=lambda rung: rung.frames)
        if self.rungs or frames < FEWEST_FRAMES:
            return None
        tail = self.tail or 1 / self.slope
        return Rung(FEWEST_FRAMES, self.slope, self.intercept, self.low, self.high, tail)

    def ratio(self, score: float, rung: Rung) -> float:
        """Likelihood ratio: how much oftener such a score comes of manipulated than of real videos.

        It goes no further than the number of videos can carry: a score beyond all n of the other class may
        still come of one in n + 1.
        """
        odds = rung.slope * score + rung.intercept - math.log(self.prior / (1 - self.prior))
        most, least = math.log(self.real + 1), -math.log(self.manipulated + 1)
        return math.exp(max(least, min(most, odds)))

    def probability(self, ratio: float) -> float:
        """The probability of manipulation that a ratio comes to, for videos like those of the fit."""
        odds = ratio * self.prior / (1 - self.prior)
        return odds / (1 + odds)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Video scores at or above `high` indicate manipulation; at or below `low` they do not.

    Without a `calibration` both are provisional.
    """

    low: float
    high: float
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low threshold {self.low} is not under high threshold {self.high}")

    @property
    def provisional(self) -> bool:
        """Whether they were set without measurements."""
        return self.calibration is None


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
class Finding:
    """What is concluded about one face, or about one stretch of it.

    `thresholds` are its own, for its number of frames, its weaknesses and the number of places looked at.
    `probability` and `ratio` (the likelihood ratio) are None where nothing was measured on such evidence.
    """

    verdict: Verdict
    score: float  # mean of its frame logits, to two digits, as the thresholds
    frames: int
    thresholds: Thresholds
    weak: tuple[str, ...]  # why the thresholds stand apart, in words
    probability: float | None
    ratio: float | None


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
    runs: tuple[
        Stretch, ...
    ]  # unbroken above it, in order of time; only the longest if there are many
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


# --- report ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """An examiner's notes on a run, as typed; empty if there were none."""

    case: str = ""
    exhibit: str = ""
    examiner: str = ""
    notes: str = ""

    @classmethod
    def noted(cls, *fields: str) -> Case | None:
        """None where nothing was typed."""
        return cls(*fields) if any(fields) else None


@dataclass(frozen=True, slots=True)
class Request:
    """How a run was asked for.

    `origins` says where each setting ("sampling.frames") gets its value, such as "default" or "flag".
    """

    argv: tuple[str, ...] = ()  # the command line; empty for a call from Python
    origins: dict[str, str] = field(default_factory=dict)
    case: Case | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """C2PA Content Credentials of an input.

    `status`: "not_checked", "absent", "present" (what they sign is unchanged) or "invalid".
    """

    status: str
    detail: str

    def __post_init__(self) -> None:
        if self.status not in ("not_checked", "absent", "present", "invalid"):
            raise ValueError(f"unknown status of content credentials: {self.status!r}")


@dataclass(frozen=True, slots=True)
class Areas:
    """How far |logit| falls, or comes back, on average while more and more patches change.

    Larger is more faithful. A logit that crosses 0 keeps counting (see `explain`).
    """

    deletion: float  # by how much covering patches lowers it
    insertion: float  # how much of it comes back when patches of a covered crop are shown


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Whether the patches that a heatmap marks matter to the logit, compared with random patches."""

    map: str  # "evidence", or "attention" of a detector without evidence
    crops: int
    seed: int
    marked: Areas  # by the map
    random: Areas
    deletion_wins: float  # share of crops whose deletion area is above their random one's
    insertion_wins: float


@dataclass(frozen=True, slots=True)
class EvidenceSum:
    """Of which parts the score of one face is the sum, all means over its crops, in logits."""

    track: int
    crops: int
    logit: float
    speaking_for: float  # of the patches that speak for manipulation
    speaking_against: float  # of those that speak against, below 0
    constant: float  # what no patch adds
    on_face: (
        float | None
    )  # share of what speaks for manipulation that lies on the face; None: nothing does


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which detector judged, with which software, how and when."""

    versions: dict[str, str]
    detector: dict[str, Any]  # name, sha256, base, base sha256, training, licence
    device: str
    precision: str  # "float32" or "bfloat16": of the tower's arithmetic
    threads: int
    settings: dict[str, Any]
    started: str  # UTC, ISO 8601
    finished: str
    sha256_after: str
    seconds: dict[str, float]  # wall time by stage
    confinement: Confinement  # of the process that decoded the input
    request: Request = field(default_factory=Request)
    credentials: Credentials = field(
        default_factory=lambda: Credentials(
            "not_checked", "Content Credentials were not looked for."
        )
    )


@dataclass(frozen=True, slots=True)
class Report:
    """The result of `deepscan.scan`, which `deepscan.report` writes as files."""

    source: Source
    evidence: Evidence
    provenance: Provenance
    evidence_sum: EvidenceSum | None = (
        None  # of the deciding face; None: no score, or no evidence of patches
    )
    faithfulness: Faithfulness | None = None  # measured with --explain only
    folder: Path | None = None  # where outputs were written
    outputs: tuple[str, ...] = ()  # their names within it, without report.json and manifest.json

    @property
    def verdict(self) -> Verdict:
        return self.evidence.verdict

    @property
    def score(self) -> float | None:
        """The score that decides, a logit: a face's or its stretch's; None if nothing could be assessed."""
        return self.evidence.finding.score if self.evidence.finding else None

    @property
    def probability(self) -> float | None:
        """The probability of manipulation; None where nothing was measured on such evidence."""
        return self.evidence.finding.probability if self.evidence.finding else None
