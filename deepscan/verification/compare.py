"""Compares two results of one input: what was done differently, and what came out differently.

It reads two report.json files and nothing else, so the results may come from other machines, versions,
weights or settings. Faces are matched by where they are in frames that both looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepscan.errors import DataError, UnreadableInput
from deepscan.files import parse_json
from deepscan.records import Box

SCHEMA = "deepscan.compare/1"
OVERLAP = 0.5  # intersection over union from which two boxes in one frame are one face

DIFFERENT_INPUTS = (
    "The two results are of different files (by SHA-256); their scores cannot be compared."
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact that differs between the two results."""

    what: str
    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class MatchedFace:
    """One face in both results, by its number in each; None where it was not found.

    `scores` are the means of its frame logits, `verdicts` None where it was not judged. `largest` is the
    largest difference between its logits in a frame that both scored, None without such a frame.
    """

    tracks: tuple[int | None, int | None]
    scores: tuple[float | None, float | None]
    verdicts: tuple[str | None, str | None]
    frames: int  # scored in both
    largest: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two results of one input have in common, and what not."""

    folders: tuple[Path, Path]
    same_input: bool
    done: tuple[Difference, ...]  # how they were made: version, weights, settings ...
    found: tuple[Difference, ...]  # what they say: verdict, score, probability ...
    faces: tuple[MatchedFace, ...]

    @property
    def same(self) -> bool:
        """Whether both say the same of the same input, logit by logit."""
        return self.same_input and not self.found and all(face.largest == 0 for face in self.faces)


def compare(first: Path, second: Path) -> Comparison:
    """Compare two folders of results, or the report.json in them.

    Raises:
        UnreadableInput: one holds no report of deepscan's.
    """
    one, other = _read(first), _read(second)
    try:
        return Comparison(
            (first, second),
            one["input"]["sha256"] == other["input"]["sha256"],
            tuple(_differences(_done(one), _done(other))),
            tuple(_differences(_found(one), _found(other))),
            tuple(_faces(one["tracks"], other["tracks"])),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UnreadableInput(
            f"{first} and {second}: not two reports that this version can compare ({error!r:.100})"
        ) from error


def _read(folder: Path) -> dict[str, Any]:
    path = folder if folder.name == "report.json" else folder / "report.json"
    try:
        document = parse_json(path.read_bytes())
    except OSError as error:
        raise UnreadableInput(
            f"{path}: cannot be read: {error.strerror}; name a folder of results"
        ) from error
    except (ValueError, DataError) as error:
        raise UnreadableInput(f"{path}: not written by deepscan: {error}") from error
    if not isinstance(document, dict) or "tracks" not in document:
        raise UnreadableInput(f"{path}: not a report of deepscan")
    return document


def _done(report: dict[str, Any]) -> dict[str, Any]:
    """How a result was made."""
    tool = report["tool"]
    settings = {
        f"settings: {stage}.{name}": value
        for stage, values in report["run"]["settings"].items()
        for name, value in values.items()
    }
    return {
        "SHA-256 of the input": report["input"]["sha256"],
        "version of deepscan": tool["versions"].get("deepscan-forensics"),
        "detector": tool["detector"]["name"],
        "SHA-256 of the detector": tool["detector"]["sha256"],
        "SHA-256 of the base": tool["detector"]["base_sha256"],
        "device": tool["device"],
        "precision": tool["precision"],
        **settings,
    }


def _found(report: dict[str, Any]) -> dict[str, Any]:
    """The findings of a result."""
    scores, calibration = report["scores"] or {}, report["calibration"]
    return {
        "verdict": report["verdict"]["name"],
        "reason": report["verdict"]["reason"],
        "score": scores.get("video"),
        "probability": calibration["probability"],
        "lower threshold": calibration["low"],
        "upper threshold": calibration["high"],
        "faces": len(report["tracks"]),
        "frames with a face": report["coverage"]["frames_with_face"],
    }


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[Difference]:
    names = [*one, *(name for name in other if name not in one)]
    return [
        Difference(name, one.get(name), other.get(name))
        for name in names
        if one.get(name) != other.get(name)
    ]


def _faces(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[MatchedFace]:
    """Every face of either; a pair shares the most frames in which its boxes overlap."""
    shared = {
        (a, b): n
        for a, one in enumerate(ours)
        for b, other in enumerate(theirs)
        if (n := _met(one, other))
    }
    pairs: dict[int, int] = {}
    for a, b in sorted(shared, key=lambda pair: -shared[pair]):
        if a not in pairs and b not in pairs.values():
            pairs[a] = b
    matched = [_face(one, theirs[pairs[a]] if a in pairs else None) for a, one in enumerate(ours)]
    alone = [other for b, other in enumerate(theirs) if b not in pairs.values()]
    return matched + [_face(None, other) for other in alone]


def _met(one: dict[str, Any], other: dict[str, Any]) -> int:
    there = {frame["index"]: Box(*frame["box"]) for frame in other["frames"]}
    return sum(
        frame["index"] in there and Box(*frame["box"]).iou(there[frame["index"]]) >= OVERLAP
        for frame in one["frames"]
    )


def _face(one: dict[str, Any] | None, other: dict[str, Any] | None) -> MatchedFace:
    logits: list[dict[int, float]] = [
        {frame["index"]: frame["logit"] for frame in track["frames"]} if track else {}
        for track in (one, other)
    ]
    both = logits[0].keys() & logits[1].keys()
    return MatchedFace(
        (one["id"] if one else None, other["id"] if other else None),
        (one["score"] if one else None, other["score"] if other else None),
        (_verdict(one), _verdict(other)),
        len(both),
        max((abs(logits[0][i] - logits[1][i]) for i in both), default=None),
    )


def _verdict(track: dict[str, Any] | None) -> str | None:
    return track["finding"]["name"] if track and track["finding"] else None
