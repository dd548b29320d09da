"""The record of a batch: what is finished is known, whatever happened in between."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from builders import reports
from deepscan.batches.outcomes import NAME, Attempt, Outcome, Outcomes
from deepscan.errors import OutputError, UnreadableInput
from deepscan.records import VerdictName


def attempt(out: Path, name: str = "a.mp4") -> Attempt:
    return Attempt(out / name, 10, 123, "work")


def outcome(out: Path, name: str = "a.mp4", content: str = "00ff") -> Outcome:
    report, _ = reports.made(path=name)
    found = Outcome.of(Path(name), replace(report, folder=out / name))
    return replace(found, sha256=content)


def test_a_row_comes_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = Outcomes(tmp_path)
    path, kept = Path("a.mp4"), outcome(tmp_path)
    rows.begin(path, attempt(tmp_path))
    assert rows.attempt(path) == attempt(tmp_path)
    rows.finish(path, attempt(tmp_path), kept)
    rows.close()
    again = Outcomes(tmp_path).attempt(path)
    assert again is not None
    assert again.outcome == replace(kept, path=tmp_path / "a.mp4")
    assert again.outcome.score == pytest.approx(kept.score)
    assert Outcomes.attempt(Outcomes(tmp_path / "other"), path) is None


def test_a_failure_is_a_row_with_its_reason_and_without_a_score(tmp_path: Path) -> None:
    rows = Outcomes(tmp_path)
    failed = Outcome.of(Path("b.mp4"), UnreadableInput("b.mp4: empty"))
    rows.finish(Path("b.mp4"), attempt(tmp_path, "b.mp4"), failed)
    found = rows.attempt(Path("b.mp4"))
    assert found is not None
    assert found.outcome is not None
    assert found.outcome.verdict is VerdictName.ERROR
    assert (found.outcome.reason, found.outcome.folder) == ("UnreadableInput", None)
    assert found.outcome.score is None


def test_beginning_again_voids_what_was_finished(tmp_path: Path) -> None:
    rows, path = Outcomes(tmp_path), Path("a.mp4")
    rows.finish(path, attempt(tmp_path), outcome(tmp_path))
    rows.begin(path, attempt(tmp_path))
    found = rows.attempt(path)
    assert found is not None
    assert found.outcome is None


def test_the_same_bytes_are_found_by_the_same_work_only(tmp_path: Path) -> None:
    rows, path = Outcomes(tmp_path), tmp_path / "a.mp4"
    rows.finish(path, attempt(tmp_path), outcome(tmp_path, content="00ff"))
    duplicate = rows.duplicate("00ff", "work")
    assert duplicate is not None
    assert duplicate.path == path
    assert rows.duplicate("00ff", "other work") is None
    assert rows.duplicate("0000", "work") is None
    assert rows.sized(10, tmp_path / "b.mp4")
    assert not rows.sized(10, path)
    assert rows.owner(tmp_path / "a.mp4") == path


def test_names_that_are_no_text_are_kept_to_the_byte(tmp_path: Path) -> None:
    rows, odd = Outcomes(tmp_path), Path(os.fsdecode(b"a\xff\xfe.mp4"))
    failed = Outcome.of(odd, UnreadableInput(f"{odd}: empty"))
    rows.finish(odd, Attempt(tmp_path / odd, 0, 0, "work"), failed)
    found = rows.attempt(odd)
    assert found is not None
    assert found.outcome is not None
    assert found.outcome.path.name == odd.name


def test_anybodys_sql_reads_it(tmp_path: Path) -> None:
    rows = Outcomes(tmp_path)
    rows.finish(tmp_path / "a.mp4", attempt(tmp_path), outcome(tmp_path))
    rows.close()
    with sqlite3.connect(tmp_path / NAME) as plain:
        found = plain.execute("SELECT path, folder, verdict FROM inputs").fetchall()
    plain.close()
    assert found == [(str(tmp_path / "a.mp4"), "a.mp4", "inconclusive")]


def test_two_runs_do_not_write_into_one_batch(tmp_path: Path) -> None:
    rows = Outcomes(tmp_path)
    rows.begin(Path("a.mp4"), attempt(tmp_path))
    with pytest.raises(OutputError, match="another deepscan is using it"):
        Outcomes(tmp_path)


@pytest.mark.parametrize("content", [b"notes" * 400, b"SQLite format 3\0" + bytes(900)])
def test_another_programs_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(OutputError, match=r"batch\.sqlite: not the record of a batch"):
        Outcomes(tmp_path)
    assert (tmp_path / NAME).read_bytes() == content


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / NAME) as other:
        other.executescript("PRAGMA user_version = 9; CREATE TABLE notes (words)")
    other.close()
    with pytest.raises(OutputError, match="not a batch of this version"):
        Outcomes(tmp_path)


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).symlink_to(tmp_path / "elsewhere.sqlite")
    with pytest.raises(OutputError, match="is a link"):
        Outcomes(tmp_path / "out")
    assert not (tmp_path / "elsewhere.sqlite").exists()


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    rows = Outcomes(tmp_path)
    rows._rows.execute("PRAGMA max_page_count = 8")  # SQLite's own way of being full
    long = (Path(f"{i:0100d}.mp4") for i in range(1000))
    with pytest.raises(OutputError, match="full"):
        deque((rows.begin(path, attempt(tmp_path)) for path in long), maxlen=0)


def test_a_kill_loses_no_finished_row(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from deepscan.batches.outcomes import Attempt, Outcomes
out = Path(sys.argv[1])
rows = Outcomes(out)
for i in range(50):
    rows.begin(out / f"{i}", Attempt(out / f"r{i}", i, 0, "work"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    rows = Outcomes(tmp_path)
    assert [rows.attempt(tmp_path / f"{i}").bytes for i in range(50)] == list(range(50))  # type: ignore[union-attr]
