"""Keeps the outcome of each input of a batch in batch.sqlite, which survives whatever ends the run.

The file is in the batch's folder and open to SQL queries after the run. A row is started before its input
is read and finished after its results are in place, each in a transaction of its own (SQLite's write-ahead
log). So after a kill or a power cut it is known what is finished and what was under way.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deepscan.errors import DeepscanError, OutputError
from deepscan.judgement.summary import told
from deepscan.records import Report, VerdictName

NAME = "batch.sqlite"
TABLES = ("inputs.csv", "inputs.parquet")  # its rows, beside index.html

APPLICATION, FORMAT = 0x64736361, 1  # "dsca": whose file it is, and in which version of the table


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a batch keeps of one input; its report.json has the rest."""

    path: Path
    verdict: VerdictName
    reason: str  # the verdict's code, or the class of the error
    sentence: str  # the reason in plain words
    folder: Path | None = None  # of the results; None for a failed input, which has none
    score: float | None = None  # logit
    probability: float | None = None
    provisional: bool = False  # the thresholds are not calibrated
    faces: int | None = None  # tracks
    seen: tuple[int, int] | None = None  # frames with a face, frames sampled
    warnings: tuple[str, ...] = ()
    sha256: str = ""  # of the input; empty if it could not be read
    finished: str = ""  # UTC, ISO 8601
    same_as: Path | None = None  # an input with the same bytes, whose results these are

    @classmethod
    def of(cls, path: Path, result: Report | DeepscanError) -> Outcome:
        """The outcome of a scan's report or error."""
        if isinstance(result, DeepscanError):
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            return cls(path, VerdictName.ERROR, type(result).__name__, str(result), finished=now)
        evidence = result.evidence
        return cls(
            path,
            result.verdict.name,
            result.verdict.reason,
            told(result),
            result.folder,
            result.score,
            result.probability,
            evidence.thresholds.provisional,
            len(evidence.tracks),
            (evidence.frames_with_face, evidence.decoding.sampled),
            evidence.warnings,
            result.source.sha256,
            result.provenance.finished,
        )

    @property
    def failed(self) -> bool:
        """Whether the input could not be analysed."""
        return self.verdict is VerdictName.ERROR

    def withheld(self) -> Outcome:
        """The outcome with file names instead of paths, for --private; `folder` is still a path."""
        return replace(
            self,
            path=Path(self.path.name),
            sentence=self.sentence.replace(str(self.path), self.path.name),
            same_as=None if self.same_as is None else Path(self.same_as.name),
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One row. `outcome` is None while the input is under way, or was when the run ended.

    `bytes` and `changed` (the file's time in ns) reveal a changed file. `work` is a digest of everything
    else that
    decides a result: weights, settings, version.
    """

    folder: Path
    bytes: int
    changed: int
    work: str
    outcome: Outcome | None = None


_TABLE = """
CREATE TABLE inputs (
  path PRIMARY KEY, folder NOT NULL, bytes INTEGER NOT NULL, changed INTEGER NOT NULL, work TEXT NOT NULL,
  verdict TEXT, reason TEXT, sentence TEXT, score REAL, probability REAL, provisional INTEGER, faces INTEGER,
  frames_with_face INTEGER, frames_sampled INTEGER, warnings TEXT, sha256 TEXT, finished TEXT, same_as
);
CREATE INDEX by_bytes ON inputs (bytes);
CREATE INDEX by_content ON inputs (sha256, work);
CREATE INDEX by_folder ON inputs (folder);
"""


class Outcomes:
    """The rows of the batch in `out`. Inputs are identified by their absolute paths.

    Every method may raise:
        OutputError: the file cannot be read or written (a full disk), is another program's, or another
            deepscan is at work in it.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._path = out, out / NAME
        with self._as_output_error():
            out.mkdir(parents=True, exist_ok=True)
            if self._path.is_symlink():
                raise OutputError(
                    f"{self._path}: is a link; deepscan does not follow links among its outputs"
                )
            self._rows = sqlite3.connect(self._path, timeout=1, isolation_level=None)
            # One writer and no shared memory, so that it works on a network share, too.
            self._rows.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._rows.execute("PRAGMA journal_mode = WAL")
            self._rows.execute("PRAGMA synchronous = FULL")
            (version,) = self._rows.execute("PRAGMA user_version").fetchone()
            (application,) = self._rows.execute("PRAGMA application_id").fetchone()
            if (version, application) == (0, 0):
                self._rows.executescript(
                    f"BEGIN; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT};"
                    f" {_TABLE} COMMIT;"
                )
            elif (version, application) != (FORMAT, APPLICATION):
                raise OutputError(
                    f"{self._path}: not a batch of this version of deepscan; choose another --out"
                )

    def close(self) -> None:
        """Merge the write-ahead log and close the file."""
        with suppress(sqlite3.Error):
            self._rows.close()

    def attempt(self, path: Path) -> Attempt | None:
        """The row of an input."""
        found = self._one("path = ?", _key(path))
        return None if found is None else self._attempt(found)

    def owner(self, folder: Path) -> Path | None:
        """The input whose results go to `folder`."""
        found = self._one("folder = ? AND same_as IS NULL", self._inner(folder))
        return None if found is None else Path(os.fsdecode(found["path"]))

    def sized(self, size: int, other_than: Path) -> bool:
        """Whether another input of this size has a row."""
        return self._one("bytes = ? AND path != ?", size, _key(other_than)) is not None

    def duplicate(self, sha256: str, work: str) -> Outcome | None:
        """The outcome of an input with this content and the same `work`, unless it failed."""
        found = self._one(
            "sha256 = ? AND work = ? AND verdict != 'error' AND same_as IS NULL", sha256, work
        )
        return None if found is None else self._attempt(found).outcome

    def begin(self, path: Path, attempt: Attempt) -> None:
        """Note that an input is about to be read; this replaces its row."""
        self._write(path, attempt, {})

    def finish(self, path: Path, attempt: Attempt, outcome: Outcome) -> None:
        """Note an input's outcome."""
        seen = outcome.seen or (None, None)
        self._write(
            path,
            replace(attempt, folder=outcome.folder or attempt.folder),
            {
                "verdict": outcome.verdict.value,
                "reason": outcome.reason,
                "sentence": as_text(outcome.sentence),
                "score": outcome.score,
                "probability": outcome.probability,
                "provisional": outcome.provisional,
                "faces": outcome.faces,
                "frames_with_face": seen[0],
                "frames_sampled": seen[1],
                "warnings": json.dumps(outcome.warnings),
                "sha256": outcome.sha256,
                "finished": outcome.finished,
                "same_as": None if outcome.same_as is None else _key(outcome.same_as),
            },
        )

    # -- rows -----------------------------------------------------------------------------------

    def _write(self, path: Path, attempt: Attempt, more: dict[str, Any]) -> None:
        values = {
            "path": _key(path),
            "folder": self._inner(attempt.folder),
            "bytes": attempt.bytes,
            "changed": attempt.changed,
            "work": attempt.work,
            **more,
        }
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        with self._as_output_error():
            self._rows.execute(
                f"INSERT OR REPLACE INTO inputs ({names}) VALUES ({marks})",  # noqa: S608 (names are ours)
                tuple(values.values()),
            )

    def _one(self, where: str, *values: Any) -> dict[str, Any] | None:
        with self._as_output_error():
            found = self._rows.execute(f"SELECT * FROM inputs WHERE {where} LIMIT 1", values)  # noqa: S608
            row = found.fetchone()
            names = [column[0] for column in found.description]
        return None if row is None else dict(zip(names, row, strict=True))

    def _attempt(self, row: dict[str, Any]) -> Attempt:
        folder = self._out / os.fsdecode(row["folder"])
        attempt = Attempt(folder, row["bytes"], row["changed"], row["work"])
        if row["verdict"] is None:
            return attempt
        verdict = VerdictName(row["verdict"])
        outcome = Outcome(
            Path(os.fsdecode(row["path"])),
            verdict,
            row["reason"],
            row["sentence"],
            None if verdict is VerdictName.ERROR else folder,
            row["score"],
            row["probability"],
            bool(row["provisional"]),
            row["faces"],
            None
            if row["frames_sampled"] is None
            else (row["frames_with_face"], row["frames_sampled"]),
            tuple(json.loads(row["warnings"])),
            row["sha256"],
            row["finished"],
            None if row["same_as"] is None else Path(os.fsdecode(row["same_as"])),
        )
        return replace(attempt, outcome=outcome)

    def _inner(self, folder: Path) -> str | bytes:
        return _stored(folder.relative_to(self._out))

    @contextmanager
    def _as_output_error(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            words = f"{error}; finished results are kept, and --resume continues the batch"
            if "locked" in words:
                words = "another deepscan is using it; wait until it has finished, or choose another --out"
            raise OutputError(f"{self._path}: cannot be written: {words}") from error
        except sqlite3.DatabaseError as error:
            raise OutputError(
                f"{self._path}: not the record of a batch, or damaged ({error}); choose another --out"
            ) from error
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error.strerror}") from error


def _key(path: Path) -> str | bytes:
    return _stored(Path(os.path.abspath(path)))


def _stored(path: Path) -> str | bytes:
    """A file name as text, which SQL can show, or as bytes if it is not text."""
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return name


def as_text(words: str) -> str:
    """Escape the bytes of file names that are not text."""
    return words.encode("utf-8", "backslashreplace").decode()
