"""Lays out the timeline: one lane for each face, all on the same scales of logits and time.

Positions are percentages of a lane's width and height, so the page can draw it at any size and keep text as
text. Curves use a sheet of 1000 x 100 that the page stretches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from deepscan.judgement import words
from deepscan.judgement.words import time_code

MOST_LANES = 24  # faces drawn; if there are more, those judged and seen longest
MOST_POINTS = (
    600  # instants drawn of one face; if there are more, the lowest and highest of each stretch
)
MOST_DOTS = 80  # with more instants the curve alone is clearer
MOST_LABELS = 3  # runs of one face labelled with their time codes


@dataclass(frozen=True, slots=True)
class Point:
    """One scored instant: its place in percent, and its values."""

    x: float
    y: float
    time: float
    logit: float
    index: int  # of the frame


@dataclass(frozen=True, slots=True)
class Run:
    """An unbroken run above the threshold; `label` is empty if there is no room for one."""

    x1: float
    x2: float
    label: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One face over time; `curves` are SVG point lists, one for each stretch without a gap."""

    track: int
    points: tuple[Point, ...]
    curves: tuple[str, ...]
    runs: tuple[Run, ...]
    cuts: tuple[float, ...]
    low: float  # heights of its own thresholds
    high: float
    stretch: Run | None = None  # the one that stands out, if it is this face's

    @property
    def dotted(self) -> bool:
        return len(self.points) <= MOST_DOTS


@dataclass(frozen=True, slots=True)
class Timeline:
    """All lanes on one scale, zero's height, and the ticks (place, label) under them."""

    lanes: tuple[Lane, ...]
    left_out: int  # faces not drawn
    zero: float
    top: float  # logits at the edges of every lane
    bottom: float
    ticks: tuple[tuple[float, str], ...]


def draw(document: dict[str, Any]) -> Timeline | None:
    """The timeline of a report; None for a picture, or if no face was scored."""
    source, tracks = document["input"], document["tracks"]
    if source["kind"] != "video" or not tracks:
        return None
    start = source["start"] or 0.0
    length = source["duration"] or 0.0
    frames = [frame for track in tracks for frame in track["frames"]]
    length = max(length, max(f["time"] for f in frames) - start, 1e-3)
    bounds = {track["id"]: thresholds(track, document) for track in tracks}
    bottom = min([0.0, *(low for low, _ in bounds.values()), *(f["logit"] for f in frames)])
    top = max([0.0, *(high for _, high in bounds.values()), *(f["logit"] for f in frames)])
    room = 0.08 * (top - bottom)
    bottom, top = bottom - room, top + room

    def across(time: float) -> float:
        return round(100 * min(max((time - start) / length, 0.0), 1.0), 2)

    def down(logit: float) -> float:
        return round(100 * (top - logit) / (top - bottom), 2)

    instants = sorted({f["index"]: f["time"] for f in frames}.items())
    looked = document["coverage"].get("instants") or [index for index, _ in instants]
    shown = sorted(tracks, key=lambda t: (not t["enough"], -len(t["frames"])))[:MOST_LANES]
    lanes = []
    for track in sorted(shown, key=lambda t: (not t["enough"], -t["score"])):
        pieces = [
            [
                Point(across(f["time"]), down(f["logit"]), f["time"], f["logit"], f["index"])
                for f in piece
            ]
            for piece in _unbroken(track["frames"], looked, instants)
        ]
        share = MOST_POINTS / max(MOST_POINTS, len(track["frames"]))
        pieces = [thin(piece, max(2, int(len(piece) * share))) for piece in pieces]
        lanes.append(
            Lane(
                track["id"],
                tuple(itertools.chain.from_iterable(pieces)),
                tuple(_curve(piece) for piece in pieces),
                tuple(_runs(track["runs"] or (), across)),
                tuple(across(cut) for cut in track["cuts"] or ()),
                down(bounds[track["id"]][0]),
                down(bounds[track["id"]][1]),
                _stretch(document["scores"], track["id"], across),
            )
        )
    step = _step(length / 6)
    first = math.ceil(start / step - 1e-6)
    last = math.floor((start + length) / step + 1e-6)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = tuple((across(n * step), time_code(n * step, digits)) for n in range(first, last + 1))
    return Timeline(tuple(lanes), len(tracks) - len(shown), down(0.0), top, bottom, ticks)


def thresholds(track: dict[str, Any], document: dict[str, Any]) -> tuple[float, float]:
    """A face's own lower and upper threshold; those of the report where it has none."""
    bounds = track.get("finding") or document["calibration"]
    return bounds["low"], bounds["high"]


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points: the lowest and the highest logit of each of most / 2 successive stretches."""
    if len(points) <= most:
        return list(points)
    stretches = most // 2
    kept: list[Point] = []
    for i in range(stretches):
        part = points[i * len(points) // stretches : (i + 1) * len(points) // stretches]
        ends = {min(part, key=lambda p: p.logit), max(part, key=lambda p: p.logit)}
        kept += sorted(ends, key=lambda p: p.index)
    return kept


def _unbroken(
    frames: Sequence[dict[str, Any]], looked: Sequence[int], instants: Sequence[tuple[int, float]]
) -> list[list[dict[str, Any]]]:
    """A face's frames, split at instants without it, and where time jumps.

    Reports of the first form do not say at which instants no face was seen; there the jump tells.
    """
    place = {index: n for n, index in enumerate(looked)}
    usual = median([b - a for (_, a), (_, b) in itertools.pairwise(instants)] or [0.0])
    pieces: list[list[dict[str, Any]]] = []
    for frame in frames:
        if (
            pieces
            and place[frame["index"]] == place[pieces[-1][-1]["index"]] + 1
            and frame["time"] - pieces[-1][-1]["time"] <= 3 * usual
        ):
            pieces[-1].append(frame)
        else:
            pieces.append([frame])
    return pieces


def _curve(points: Sequence[Point]) -> str:
    """An SVG point list; a lone point is written twice, so that round line ends draw a dot."""
    twice = points if len(points) > 1 else [*points, *points]
    return " ".join(f"{10 * p.x:.1f},{p.y:.1f}" for p in twice)


def _runs(runs: Sequence[dict[str, Any]], across: Callable[[float], float]) -> list[Run]:
    """Marks for all runs, with time codes for the longest ones whose labels do not collide."""
    labelled: list[dict[str, Any]] = []
    for run in sorted(runs, key=lambda r: -r["frames"]):
        middle = (run["start"] + run["end"]) / 2
        others = ((other["start"] + other["end"]) / 2 for other in labelled)
        if len(labelled) < MOST_LABELS and all(
            abs(across(middle) - across(other)) > 30 for other in others
        ):
            labelled.append(run)
    return [
        Run(across(r["start"]), across(r["end"]), span(r) if r in labelled else "") for r in runs
    ]


def _stretch(
    scores: dict[str, Any] | None, track: int, across: Callable[[float], float]
) -> Run | None:
    found = scores.get("stretch") if scores else None
    if not found or found["track"] != track:
        return None
    return Run(
        across(found["start"]), across(found["end"]), words.about(found["start"], found["end"])
    )


def span(run: dict[str, Any]) -> str:
    """A run's time codes."""
    return words.span(run["start"], run["end"])


# Seconds between ticks: steps that a clock or a ruler would have.
STEPS = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    15.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    900.0,
    1800.0,
)


def _step(least: float) -> float:
    """The smallest round number of seconds from `least` on."""
    for step in STEPS:
        if step >= least:
            return step
    return 3600.0 * math.ceil(least / 3600)
