"""The small study on toy material: prepared, trained, judged, told; and what it reads out of its tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders import footage, toy
from deepscan.benchmark.tables import Cell, Table
from deepscan.data.crops import read_crops
from deepscan.errors import DataError
from deepscan.model import tower, weights
from tools import small_study


@pytest.fixture
def base(tmp_path: Path) -> Iterator[None]:
    before = toy.install(tmp_path / "base")
    yield
    tower.tower_size, weights.catalogue = before  # type: ignore[assignment]


def pairs(folder: Path) -> Path:
    """Prepared pairs of eight people, as deepscan prepare lists them."""
    toy.prepared(folder, people=8)
    (folder / folder.name).rename(folder / "pairs")
    text = (folder / "toy.json").read_text("utf-8").replace("toy", "pairs")
    text = text.replace(f'"{folder.name}/', '"pairs/')
    (folder / "toy.json").unlink()
    (folder / "pairs.json").write_text(text, "utf-8")
    return folder


def test_a_share_of_the_people_is_held_out(tmp_path: Path) -> None:
    folder = small_study.hold_out(pairs(tmp_path / "in"), tmp_path / "out")
    rows = read_crops(folder)
    people = {split: {r.group for r in rows if r.split == split} for split in ("train", "test")}
    assert (len(people["train"]), len(people["test"])) == (6, 2)
    assert not people["train"] & people["test"]
    assert {r.label for r in rows if r.split == "test"} == {0, 1}
    assert all(row.mask is not None for row in rows if row.label)
    assert small_study.hold_out(tmp_path / "in", tmp_path / "out") == folder  # and again
    (tmp_path / "in/pairs.json").write_text('{"pairs": {"pairs_real": {}}}', "utf-8")
    with pytest.raises(DataError, match="not a listing of pairs as deepscan prepare writes it"):
        small_study.hold_out(tmp_path / "in", tmp_path / "other")


@pytest.mark.slow
def test_it_goes_from_material_to_a_page(base: None, tmp_path: Path) -> None:
    clips, one = tmp_path / "clips", footage.portrait()
    footage.film(clips / "real/a.mp4", one)
    footage.film(clips / "fake/b.mp4", footage.swapped(one))
    asked = [
        f"--pairs={pairs(tmp_path / 'pairs')}", f"--crops={toy.crops(tmp_path / 'crops', people=4)}",
        f"--clips={clips}", f"--out={tmp_path / 'out'}", f"--docs={tmp_path / 'docs'}",
        "--only=table-2,figure-1", "--steps=2", "--epochs=1", "--base=toy",
    ]  # fmt: skip
    small_study.main(asked)
    page = (tmp_path / "docs/README.md").read_text("utf-8")
    assert "at most 2 steps of 16 crops a run" in page
    assert "| Table 2: macl over flcl | +0.005 |" in page
    assert "![Figure 1: attention on real faces, with and without RAAL](figure-1.png)" in page
    assert {path.name for path in (tmp_path / "docs").iterdir()} >= {"figure-1.png", "table-2.csv"}
    table = json.loads((tmp_path / "out/benchmark/table-2.json").read_text("utf-8"))
    assert list(table["rows"]["flcl"])[:3] == ["pairs", "ffpp", "clips"]
    assert table["rows"]["flcl"]["pairs"]["videos"] == 4
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.safetensors")}
    small_study.main(asked)
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize(
    ("gain", "says"),
    [
        (Cell(0.02, 0.01, 0.03), "same direction"),
        (Cell(0.02, -0.01, 0.05), "same direction, within chance"),
        (Cell(-0.02, -0.03, -0.01), "other direction"),
        (Cell(-0.02, -0.05, 0.01), "other direction, within chance"),
        (Cell(0.0, -0.01, 0.01), "no difference"),
    ],
)
def test_directions_by_hand(gain: Cell, says: str) -> None:
    """The paper's MACL is 0.919 - 0.914 = 0.005 above FLCL."""
    columns = ("s", "gain, on average", "over")
    rows = (("flcl", (None, None, None)), ("macl", (None, gain, "flcl")))
    ((name, cells),) = small_study.directions([Table("table-2", "Table 2: x", columns, rows)]).rows
    assert name == "Table 2: macl over flcl"
    assert cells == ("+0.005", gain, says)
