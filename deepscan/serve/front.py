"""Makes the page of `deepscan serve`, where clips are dropped and their progress and reports appear."""

from __future__ import annotations

from deepscan.report import rendering

_TEMPLATE, _SCRIPT = "front.html.jinja", "front.js"


def html(most_bytes: int, keep: float) -> str:
    """The page, the same for everybody; its script fetches the list of clips.

    Args:
        most_bytes: size of the largest clip accepted.
        keep: seconds for which results are kept.
    """
    return rendering.render(
        _TEMPLATE, _SCRIPT, connect=True, most_bytes=most_bytes, keep=_words(keep)
    )


def policy() -> str:
    """The page's policy: what it may load and run."""
    return rendering.policy(_SCRIPT, connect=True)


def _words(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} seconds"
    if minutes % 60 or minutes < 120:
        return "an hour" if minutes == 60 else f"{minutes} minutes"
    return f"{minutes // 60} hours"
