"""A batch's rows as Parquet."""

from __future__ import annotations

import csv
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from builders import reports
from deepscan.batches import rows
from deepscan.batches.outcomes import Outcome
from deepscan.cli import run
from deepscan.errors import OutputError, SettingsError, UnreadableInput


def outcomes() -> list[Outcome]:
    report, _ = reports.made(path="a.mp4")
    judged = Outcome.of(Path("a.mp4"), replace(report, folder=Path("out/a.mp4")))
    odd = Path(os.fsdecode(b"b\xff.mp4"))
    return [judged, Outcome.of(odd, UnreadableInput(f"{odd}: empty"))]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_one_row_an_input(tmp_path: Path, scheme: str) -> None:
    if scheme:
        pytest.importorskip("fsspec")
    assert rows.write(outcomes(), f"{scheme}{tmp_path / 'rows'}") == ["part-00000.parquet"]
    table = parquet.read_table(tmp_path / "rows").to_pylist()
    assert [row["path"] for row in table] == ["a.mp4", r"b\udcff.mp4"]
    assert table[0]["score"] == pytest.approx(outcomes()[0].score)
    assert (table[1]["verdict"], table[1]["score"]) == ("error", None)
    assert [p.name for p in (tmp_path / "rows").iterdir()] == ["part-00000.parquet"]


def test_csv_and_parquet_beside_the_index_say_the_same(tmp_path: Path) -> None:
    formula = Path("=HYPERLINK(1).mp4")
    given = [*outcomes(), Outcome.of(formula, UnreadableInput(f"{formula}: empty"))]
    rows.write_beside(tmp_path, given)
    rows.write_beside(tmp_path, given)  # an earlier run's are replaced
    table = parquet.read_table(tmp_path / "inputs.parquet").to_pylist()
    with (tmp_path / "inputs.csv").open(newline="", encoding="utf-8") as file:
        same = list(csv.DictReader(file))
    assert [row["verdict"] for row in same] == [row["verdict"] for row in table]
    assert same[0]["sentence"] == table[0]["sentence"] == given[0].sentence
    assert float(same[0]["score"]) == table[0]["score"]
    assert (same[1]["score"], table[1]["score"]) == ("", None)
    assert table[2]["path"] == str(formula)
    assert same[2]["path"] == f"'{formula}"  # no formula in a spreadsheet


@pytest.mark.parametrize("name", ["inputs.csv", "inputs.parquet"])
def test_somebody_elses_table_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="not written by deepscan"):
        rows.write_beside(tmp_path, outcomes())
    assert (tmp_path / name).read_text() == "mine"


def test_many_rows_are_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PART", 2)
    names = rows.write(outcomes() * 2 + outcomes()[:1], str(tmp_path))
    assert names == [f"part-0000{i}.parquet" for i in range(3)]
    assert parquet.read_table(tmp_path).num_rows == 5


def test_no_rows_are_a_table_all_the_same(tmp_path: Path) -> None:
    rows.write([], str(tmp_path))
    assert parquet.read_table(tmp_path).num_rows == 0


def test_an_address_that_nobody_knows_is_named_and_so_is_a_missing_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(SettingsError, match=r"nowhere://x.*not known: nowhere"):
        rows.write(outcomes(), "nowhere://x")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SettingsError, match=r"s3://bucket/run/.*s3fs"):
        rows.write(outcomes(), "s3://bucket/run")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(SettingsError, match=r"pip install deepscan-forensics\[cluster\]"):
        rows.write(outcomes(), "s3://bucket/run")


def test_an_address_is_looked_at_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fsspec")
    out = tmp_path / "out"
    assert run(["detect", str(tmp_path), f"--out={out}", "--parquet=nowhere://x"]) == 2
    assert "not known: nowhere" in capsys.readouterr().err
    assert not out.exists()


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        rows.write(outcomes(), (tmp_path / "file" / "rows").as_uri())
