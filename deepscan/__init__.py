"""deepscan: inspect videos for manipulated faces, and say how it knows.

The package's own imports are light; `scan` and its models load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepscan.config import Faces, Heatmaps, Sampling, Scoring, Settings
from deepscan.errors import DeepscanError
from deepscan.records import Report

if TYPE_CHECKING:
    from deepscan.pipeline import scan

__version__ = "0.1.0"
__all__ = [
    "DeepscanError",
    "Faces",
    "Heatmaps",
    "Report",
    "Sampling",
    "Scoring",
    "Settings",
    "__version__",
    "scan",
]


def __getattr__(name: str) -> Any:
    """Load `scan` on first use: it brings torch along."""
    if name == "scan":
        from deepscan.pipeline import scan

        return scan
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
