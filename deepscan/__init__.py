"""Inspects videos for manipulated faces and records how it reached each verdict.

    import deepscan
    report = deepscan.scan("video.mp4")
    print(report.verdict.name, report.score)

Names load on first use: importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepscan.config import Faces, Heatmaps, Sampling, Scoring, Settings
    from deepscan.errors import DeepscanError
    from deepscan.pipeline import scan
    from deepscan.records import Report

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

_HOMES = {
    "DeepscanError": "deepscan.errors",
    "Faces": "deepscan.config",
    "Heatmaps": "deepscan.config",
    "Report": "deepscan.records",
    "Sampling": "deepscan.config",
    "Scoring": "deepscan.config",
    "Settings": "deepscan.config",
    "scan": "deepscan.pipeline",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
