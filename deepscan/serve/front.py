"""The page of `deepscan serve`: clips are dropped on it, their progress and reports are found there."""

from __future__ import annotations

from deepscan.report import rendering

_TEMPLATE, _SCRIPT = "front.html.jinja", "front.js"


def html(most_bytes: int, keep: float) -> str:
    """The page, the same for everybody; its script asks for the clips.

    Args:
        most_bytes: the largest clip taken.
        keep: seconds for which results are kept.
    """
    return rendering.render(
        _TEMPLATE, _SCRIPT, connect=True, most_bytes=most_bytes, keep=_words(keep)
    )


def policy() -> str:
    """What the page may load and run."""
    return rendering.policy(_SCRIPT, connect=True)


def _words(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} seconds"
    if minutes % 60 or minutes < 120:
        return "an hour" if minutes == 60 else f"{minutes} minutes"
    return f"{minutes // 60} hours"
