"""Thresholds, probabilities, and the measurements behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass

# With fewer frames neither an interval nor a low score says anything, and no calibration was ever of fewer.
FEWEST_FRAMES = 8


@dataclass(frozen=True, slots=True)
class Rung:
    """What the mean logit of so many frames of a face means, or of more; see Calibration."""

    frames: int
    slope: float
    intercept: float
    low: float
    high: float
    tail: float  # logits over which the share of real ones beyond `high` falls e-fold
    indicated: float | None = None  # share of the manipulated videos at or above `high`
    cleared: float | None = None  # share of the real videos at or below `low`

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
    rungs: tuple[Rung, ...] = ()  # for fewer frames than FEWEST_FRAMES, ascending
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

    def rung(self, frames: int) -> Rung | None:
        """The calibration for a mean over this many frames; None if so few were never measured."""
        if frames >= FEWEST_FRAMES:
            whole = self.slope, self.intercept, self.low, self.high, self.fall
            return Rung(FEWEST_FRAMES, *whole, self.indicated, self.cleared)
        fitting = [rung for rung in self.rungs if rung.frames <= frames]
        return max(fitting, key=lambda rung: rung.frames) if fitting else None

    @property
    def fall(self) -> float:
        """Logits over which the share of real scores above `high` falls by a factor of e or more.

        Where it was not measured it is taken from the slope, by two standard errors of five scores larger, as
        a measured one is (training.calibrate.tail).
        """
        return self.tail or (1 + 2 * 5**-0.5) / self.slope

    def ratio(self, score: float, rung: Rung) -> float:
        """Likelihood ratio: how many times more often manipulated videos get such a score than real ones.

        It is limited by the number of videos: a score beyond all n of the other class may
        still belong to one in n + 1.
        """
        odds = rung.slope * score + rung.intercept - math.log(self.prior / (1 - self.prior))
        most, least = math.log(self.real + 1), -math.log(self.manipulated + 1)
        return math.exp(max(least, min(most, odds)))

    def probability(self, ratio: float) -> float:
        """The probability of manipulation for a ratio, for videos like those of the fit."""
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
