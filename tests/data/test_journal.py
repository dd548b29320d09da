"""The journal: what was finished stays finished, whatever ended the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepscan.data.journal import Journal, PreparedVideo
from deepscan.errors import DataError, SettingsError

SETTINGS = {"frames": 8, "compression": "c23"}


def journal(folder: Path, **changes: object) -> Journal:
    return Journal(folder / "out" / ".prepare" / "s.jsonl", SETTINGS | changes)


def test_the_last_entry_of_a_video_counts(tmp_path: Path) -> None:
    first, second = (
        PreparedVideo("v", 10, "failed", reason="cut"),
        PreparedVideo("v", 12, "ok", {"v": ["000"]}),
    )
    for entry in (first, second):
        journal(tmp_path).append([entry])
    assert journal(tmp_path).entries == {"v": second}


def test_a_line_torn_by_a_kill_is_dropped_for_good(tmp_path: Path) -> None:
    journal(tmp_path).append([PreparedVideo("a", 1, "ok"), PreparedVideo("b", 1, "ok")])
    path = tmp_path / "out" / ".prepare" / "s.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    again = journal(tmp_path)
    assert list(again.entries) == ["a"]
    again.append([PreparedVideo("c", 1, "faceless")])  # begins a line of its own
    assert list(journal(tmp_path).entries) == ["a", "c"]


def test_a_torn_first_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "out" / ".prepare" / "s.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"form', "utf-8")
    assert journal(tmp_path).entries == {}
    assert journal(tmp_path).entries == {}


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    journal(tmp_path)
    with pytest.raises(
        SettingsError, match=r"out: started with frames 8, now requested with frames 32"
    ):
        journal(tmp_path, frames=32)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    journal(tmp_path).append([PreparedVideo("a", 1, "ok")])
    path = tmp_path / "out" / ".prepare" / "s.jsonl"
    path.write_text(path.read_text("utf-8").replace('"video"', '"film"'), "utf-8")
    with pytest.raises(DataError, match=r"s\.jsonl, line 2: damaged"):
        journal(tmp_path)
