"""Reports files that arrive in a folder: each once, as soon as it has stopped growing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Look:
    """A file at one moment: its size in bytes and when it was last written, in nanoseconds."""

    size: int
    written: int

    @classmethod
    def at(cls, path: Path) -> Look | None:
        """The file now; None if it is gone."""
        try:
            status = path.stat()
        except OSError:
            return None
        return cls(status.st_size, status.st_mtime_ns)


class Arrivals:
    """Reports new files.

    A file is ready once it has stayed the same, and not empty, for `settle` seconds. It is reported once,
    and again each time it has changed.

    Attributes:
        unsettled: number of files that were there at the last look and may still grow.
    """

    def __init__(
        self,
        find: Callable[[], Iterator[Path]],
        settle: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without looking at anything yet.

        Args:
            find: lists the files that exist.
            settle: seconds.
            now: a clock that never goes backwards, in seconds.
        """
        self._find, self._settle, self._now = find, settle, now
        self._seen: dict[Path, tuple[Look, float]] = {}  # how each file looks, and since when
        self._named: dict[Path, Look] = {}
        self.unsettled = 0

    def ready(self) -> list[Path]:
        """The files that have become ready, those unchanged for longest first."""
        there: dict[Path, tuple[Look, float]] = {}
        for path in self._find():
            look = Look.at(path)
            if look is not None:
                before = self._seen.get(path)
                there[path] = before if before and before[0] == look else (look, self._now())
        self._seen = there
        self._named = {path: look for path, look in self._named.items() if path in there}
        ready = [
            (since, path)
            for path, (look, since) in there.items()
            if look.size and self._now() - since >= self._settle and self._named.get(path) != look
        ]
        for _, path in ready:
            self._named[path] = there[path][0]
        self.unsettled = sum(self._named.get(path) != look for path, (look, _) in there.items())
        return [path for _, path in sorted(ready)]
