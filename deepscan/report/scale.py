"""Lays out the verdict's scale: where a score stands between and beyond its two limits.

The limits stand at a third and two thirds of the scale, whatever they are, so that every report reads alike.
Between them places are in proportion; beyond them the scale narrows and never ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from deepscan.judgement import words
from deepscan.judgement.agreement import DISAGREE

THIRD = 100 / 3
ZONES = "none indicated", "inconclusive", "indicated"


@dataclass(frozen=True, slots=True)
class Scale:
    """The score that decides, its limits (logits), and where it and the other faces stand, in percent.

    `zones` say what a score in each third means for this result. `part` is a stretch that stands out of a
    face without deciding for manipulation: its place and its label.
    """

    low: float
    high: float
    x: float
    label: str
    bar: tuple[float, float] | None  # where it could stand, had other instants been looked at
    others: tuple[float, ...]
    zones: tuple[str, str, str] = ZONES  # what a score means there
    part: tuple[float, str] | None = None

    @property
    def words(self) -> str:
        """What the scale shows, in words for screen readers."""
        low, between, high = self.zones
        marks = f"{self.label}; {self.part[1]}" if self.part else self.label
        return (
            f"Scale of scores: {marks}. Up to {words.logit(self.low)}: {low}. From"
            f" {words.logit(self.high)} on: {high}. Between them: {between}."
        )


def place(score: float, low: float, high: float) -> float:
    """The place of a score, in percent."""
    width = high - low
    if score >= high:
        x = 2 + (1 - math.exp((high - score) / width))
    elif score <= low:
        x = math.exp((score - low) / width)
    else:
        x = 1 + (score - low) / width
    return round(THIRD * x, 2)


def draw(document: dict[str, Any]) -> Scale | None:
    """The scale of a report; None if nothing was judged, or if two detectors disagree.

    A stretch that decides stands on it by itself; one that only stands out, beside its face as a whole.
    """
    scores, bounds, reason = (
        document["scores"],
        document["calibration"],
        document["verdict"]["reason"],
    )
    if scores is None or reason == DISAGREE:
        return None
    low, high, score, span = bounds["low"], bounds["high"], scores["video"], scores["interval"]
    several = (scores["faces_judged"] or 1) > 1
    own, part = scores["track"], None
    label = f"{words.logit(score)}, face {own}" if several else words.logit(score)
    if stretch := scores["stretch"]:
        own, found = stretch["track"], stretch.get("finding")
        mean = found["score"] if found else stretch["mean"]
        when = words.about(stretch["start"], stretch["end"])
        face = f", face {own}" if several else ""
        if reason == "stretch_high":
            low, high, score, span = found["low"], found["high"], mean, None
            label = f"{words.logit(mean)}{face} at {when}"
        else:
            label = f"{label} as a whole"
            part = (place(mean, low, high), f"{words.logit(mean)}{face} at {when}")
    whole = scores["track"] if part else own
    others = [
        (track["score"], track["finding"] or bounds)
        for track in document["tracks"]
        if track["enough"] and track["id"] != whole
    ]
    return Scale(
        low,
        high,
        place(score, low, high),
        label,
        (place(span["low"], low, high), place(span["high"], low, high)) if span else None,
        tuple(place(other, ends["low"], ends["high"]) for other, ends in others),
        zones(document),
        part,
    )


def zones(document: dict[str, Any]) -> tuple[str, str, str]:
    """The words of a scale's three parts: those of the verdict that a score there would have here."""
    low, between, high = ZONES
    reason = document["verdict"]["reason"]
    picture = document["input"]["kind"] == "image"
    measured = document["calibration"]["measured"]
    tried = measured is not None and measured["unseen"]
    if picture or not tried or reason == "untried":
        low = "low, clears nothing"
    if picture or reason == "few_frames":
        high = "high, decides nothing"
    return low, between, high
