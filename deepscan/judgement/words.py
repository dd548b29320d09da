"""Puts numbers into words, the same way at the terminal, on the page and in report.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

MOST_NAMED = 5  # times or faces listed in one sentence

# Verdicts as people read them, by their names.
HEADLINES = {
    "manipulation_indicated": "Manipulation indicated",
    "inconclusive": "Inconclusive",
    "no_manipulation_indicated": "No manipulation indicated",
    "no_face": "No face found",
    "insufficient": "Not enough to judge",
    "error": "Not analysed",
}


def rounded(value: float) -> float:
    """A logit rounded to two digits as shown, never -0.0, so that what is compared is what is read."""
    return round(float(value), 2) + 0.0


def rounded_up(value: float) -> float:
    """To two digits, upwards: an upper threshold that is shown is never easier to reach than the true one."""
    return math.ceil(round(100 * value, 6)) / 100 + 0.0


def rounded_down(value: float) -> float:
    """To two digits, downwards."""
    return math.floor(round(100 * value, 6)) / 100 + 0.0


def logit(value: float | int | None, digits: int = 2) -> str:
    """A logit such as +2.31, with a real minus sign if negative; 0 always has a plus sign."""
    if value is None:
        return "\u2013"
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "\u2212")


def percent(share: float | None) -> str:
    """Whole per cent, below 10 and above 99 with tenths; what is not all is not called all."""
    if share is None:
        return "\u2013"
    if 0.99 < share < 1:
        return f"{math.floor(1000 * share) / 10:.1f} %"
    return f"{100 * share:.{1 if share < 0.0995 else 0}f}".removesuffix(".0") + " %"


def counted(count: int, one: str, many: str = "") -> str:
    """1 face, 2 faces."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def often(count: int) -> str:
    """once, 2 times."""
    return "once" if count == 1 else f"{count} times"


def listed(words: Sequence[str]) -> str:
    """a, b and c; of more than MOST_NAMED the first, and how many more."""
    rest = len(words) - MOST_NAMED
    if rest > 0:
        return ", ".join(words[:MOST_NAMED]) + f" and {rest} more"
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1] if words else "")))


def faces(ids: Sequence[int]) -> str:
    """face 1; faces 1, 2 and 5."""
    return f"{'face' if len(ids) == 1 else 'faces'} {listed([str(i) for i in ids])}"


def time_code(seconds: Fraction | float, digits: int = 3) -> str:
    """m:ss.mmm, or h:mm:ss.mmm from an hour on; rounded first, so that 59.9999 s is 1:00.000.

    Times of frames have three digits wherever they are shown; a scale may do with fewer.
    """
    ticks = round(abs(Fraction(seconds)) * 10**digits)
    whole, part = divmod(ticks, 10**digits)
    minutes, secs = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    sign = "\u2212" if seconds < 0 and ticks else ""
    clock = f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
    return sign + clock + (f".{part:0{digits}d}" if digits else "")


def span(start: Fraction | float, end: Fraction | float) -> str:
    """Two times, or one if they are the same."""
    first, last = time_code(start), time_code(end)
    return first if first == last else f"{first}\u2013{last}"


def about(start: Fraction | float, end: Fraction | float) -> str:
    """A stretch for people who look for it in a player: 0:02 to 0:04; with tenths where it is shorter."""
    for digits in (0, 1, 3):
        first, last = time_code(start, digits), time_code(end, digits)
        if first != last:
            return f"{first} to {last}"
    return first
