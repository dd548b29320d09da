"""What tests of pages in a real browser share: two windows, and how a page is asked about itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

Open = Callable[..., Any]


def sideways(view: Any) -> int:
    """Pixels by which the page is wider than its window."""
    return view.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def serious(found: Any) -> list[str]:
    """What axe-core calls serious or worse, of its results."""
    return [v["id"] for v in found.response["violations"] if v["impact"] in ("serious", "critical")]
