"""Makes the file names of uploads safe."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

MOST_NAME = 120  # bytes of a file's name; file systems allow 255, and results add to it

# Names that are devices on Windows, with any extension.
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?$")


def safe_name(given: str) -> str:
    """A file's name without folders and without anything that a file system or terminal would act on.

    >>> safe_name("../../etc/passwd")
    'passwd'
    """
    last = unicodedata.normalize("NFC", re.split(r"[/\\]", given)[-1])
    kept = "".join("_" if c in '<>:"|?*' or not c.isprintable() else c for c in last).strip(". ")
    suffix = PurePosixPath(kept).suffix if len(PurePosixPath(kept).suffix.encode()) <= 12 else ""
    stem = kept.removesuffix(suffix) if suffix else kept
    room = MOST_NAME - len(suffix.encode())
    stem = stem.encode()[:room].decode("utf-8", "ignore").strip(". ")
    kept = (stem or "clip") + suffix
    return f"_{kept}" if _DEVICE.match(kept) else kept
