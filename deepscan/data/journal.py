"""Records which videos are prepared, one line each, so that a later run does only the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deepscan.errors import DataError, OutputError, SettingsError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class PreparedVideo:
    """The result of preparing one video.

    `crops`: by folder, the crops' files without their suffix, relative to the output folder. Only archives
    have several folders; each is a video of its own. `seen`: for each of these files, if known, the time in
    seconds and the face's size in pixels of its frame.
    """

    video: str  # its row's relative path
    bytes: int  # of the file, to notice when it has changed; 0 if it is missing
    state: str  # "ok", "faceless" or "failed"
    crops: dict[str, list[str]] = field(default_factory=dict)
    damaged: int = 0  # frames
    faceless: int = 0
    reason: str = ""  # of a failure
    seen: dict[str, list[list[float]]] = field(default_factory=dict)


class Journal:
    """An append-only file of entries under a line of settings; a line torn by a kill is dropped.

    Attributes:
        entries: the last entry of each video.

    Raises:
        SettingsError: it was started with other settings.
        DataError: a line in its middle is damaged.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path = path
        self.entries: dict[str, PreparedVideo] = {}
        settings = {"format": FORMAT, **settings}
        try:
            text = path.read_bytes() if path.exists() else b""
            whole = text[: text.rfind(b"\n") + 1]
            if whole:
                self._read(whole.decode("utf-8"), settings)
                with path.open("r+b") as file:
                    file.truncate(len(whole))
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(settings) + "\n", "utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error

    def append(self, entries: Iterable[PreparedVideo]) -> None:
        """Add the entries of videos that were finished together."""
        entries = list(entries)
        lines = "".join(json.dumps(asdict(entry)) + "\n" for entry in entries)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error.strerror}") from error
        self.entries |= {entry.video: entry for entry in entries}

    def _read(self, text: str, settings: dict[str, Any]) -> None:
        for number, line in enumerate(text.splitlines(), 1):
            try:
                values = json.loads(line)
                begun, entry = (
                    (dict(values), None) if number == 1 else ({}, PreparedVideo(**values))
                )
            except (ValueError, TypeError) as error:
                raise DataError(
                    f"{self._path}, line {number}: damaged ({error}); remove the line, and that"
                    f" video is prepared again"
                ) from error
            if entry is not None:
                self.entries[entry.video] = entry
            elif begun != settings:
                was = ", ".join(f"{k} {v}" for k, v in begun.items() if settings.get(k) != v)
                now = ", ".join(f"{k} {v}" for k, v in settings.items() if begun.get(k) != v)
                raise SettingsError(
                    f"{self._path.parent.parent}: started with {was}, now requested with {now};"
                    f" continue with the same settings, or choose another --out"
                )
