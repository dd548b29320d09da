"""What the machine that runs the tests has, and how processes are started on it."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def hear_signals() -> None:
    """For Popen's preexec_fn: what a shell runs in the background, or nohup, hands down ignored signals."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
