"""Lays out the verdict's scale: where a score stands between and beyond its two limits.

The limits stand at a third and two thirds of the scale, whatever they are, so that every report reads alike.
Between them places are in proportion; beyond them the scale narrows and never ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from deepscan.judgement import words

THIRD = 100 / 3
ZONES = "none indicated", "inconclusive", "indicated"


@dataclass(frozen=True, slots=True)
class Scale:
    """The score that decides, its limits (logits), and where it and the other faces stand, in percent."""

    low: float
    high: float
    x: float
    label: str
    bar: tuple[float, float] | None  # where it could stand, had other instants been looked at
    others: tuple[float, ...]
    zones: tuple[str, str, str] = ZONES  # what a score means there

    @property
    def words(self) -> str:
        """What the scale shows, in words for screen readers."""
        low, between, high = self.zones
        return (
            f"Scale of scores: {self.label}. Up to {words.logit(self.low)}: {low}. From"
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
    """The scale of a report; None if nothing was judged. A stretch that decides stands on it by itself."""
    scores, bounds = document["scores"], document["calibration"]
    if scores is None:
        return None
    low, high, score, span = bounds["low"], bounds["high"], scores["video"], scores["interval"]
    several = (scores["faces_judged"] or 1) > 1
    label = f"{words.logit(score)}, face {scores['track']}" if several else words.logit(score)
    if stretch := scores["stretch"]:
        label = f"{words.logit(score)} as a whole"
    if document["verdict"]["reason"] == "stretch_high":
        found, span = stretch["finding"], None
        low, high, score = found["low"], found["high"], found["score"]
        label = f"{words.logit(score)} at {words.about(stretch['start'], stretch['end'])}"
    others = [
        (track["score"], track["finding"] or bounds)
        for track in document["tracks"]
        if track["enough"] and track["id"] != scores["track"]
    ]
    return Scale(
        low,
        high,
        place(score, low, high),
        label,
        (place(span["low"], low, high), place(span["high"], low, high)) if span else None,
        tuple(place(other, ends["low"], ends["high"]) for other, ends in others),
        zones(document),
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
