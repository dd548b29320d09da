"""A finished scan: its evidence, how it was made, and where its outputs are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepscan.records.evidence import Evidence, Verdict
from deepscan.records.media import Confinement, Credentials, Source


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
    """How a run was requested.

    `origins` says where each setting ("sampling.frames") gets its value, such as "default" or "flag".
    """

    argv: tuple[str, ...] = ()  # the command line; empty for a call from Python
    origins: dict[str, str] = field(default_factory=dict)
    case: Case | None = None


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
    """The parts that add up to one face's score, as means over its crops, in logits."""

    track: int
    crops: int
    logit: float
    speaking_for: float  # of the patches that speak for manipulation
    speaking_against: float  # of those that speak against, below 0
    constant: float  # what no patch adds
    # Share of what speaks for manipulation that lies on the face; None: nothing does.
    on_face: float | None


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
    # Of the deciding face; None: no score, or no evidence of patches.
    evidence_sum: EvidenceSum | None = None
    faithfulness: Faithfulness | None = None  # measured with --explain only
    folder: Path | None = None  # where outputs were written
    outputs: tuple[str, ...] = ()  # their names within it, without report.json and manifest.json
    second: Report | None = None  # a second detector's result for the same faces
    joint: Verdict | None = None  # of both detectors; None with one

    @property
    def verdict(self) -> Verdict:
        """The verdict on the input, with its reason."""
        return self.joint or self.evidence.verdict

    @property
    def score(self) -> float | None:
        """The deciding score, a logit of a face or of a stretch; None if nothing could be judged."""
        return self.evidence.finding.score if self.evidence.finding else None

    @property
    def probability(self) -> float | None:
        """The probability of manipulation; None if none was measured on such evidence, or if two detectors
        disagree."""
        if (
            self.second is not None
            and self.second.evidence.verdict.name is not self.evidence.verdict.name
        ):
            return None
        return self.evidence.finding.probability if self.evidence.finding else None
