"""Table 5: counts as method.md has them, and time measured in turn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepscan.benchmark import efficiency
from deepscan.benchmark.efficiency import (
    Stepper,
    Timing,
    race,
    ratio,
    read_timing,
    table,
    write_timing,
)
from deepscan.benchmark.tables import Cell
from deepscan.cli import run
from deepscan.errors import DataError
from deepscan.training.settings import TrainSettings


def test_table_5_counts_as_method_md_does(tmp_path: Path) -> None:
    """196,704 for effort, 1,769,472 for lora, 303,966,208 of full; 4,202,496 more of ours; heads."""
    assert run(["benchmark", "--table=5", f"--out={tmp_path}", "--quiet"]) == 0
    rows = json.loads((tmp_path / "table-5.json").read_text("utf-8"))["rows"]
    trained = {row: round(cells["trainable, M"]["value"] * 1e6) for row, cells in rows.items()}
    head, ours = 1025, 4_198_400 + 4 * 1024
    assert trained == {
        "effort": 196_704 + head, "effort+ours": 196_704 + head + ours,
        "lora": 1_769_472 + head, "lora+ours": 1_769_472 + head + ours,
        "full": 303_966_208 + head, "full+ours": 303_966_208 + head + ours,
    }  # fmt: skip
    assert rows["effort"]["GFLOPs as fvcore counts"]["value"] == pytest.approx(155.66, abs=0.01)
    assert rows["lora"]["trainable, M"]["published"] == 1.77
    assert rows["full+ours"]["time per epoch, ratio to Effort"]["published"] == pytest.approx(
        651 / 512
    )


def test_steps_are_taken_in_turn(tiny_tower: str) -> None:
    one, other = (
        Stepper(
            TrainSettings((Path(),), Path(), batch=4, precision="float32", **changes), tiny_tower
        )
        for changes in ({"token": "cls"}, {"heads": 4})
    )
    first, second = race(one, other, 3)
    assert len(first) == len(second) == 3
    assert min(first + second) > 0


def test_a_ratio_by_hand() -> None:
    """Neighbours' ratios 2, 2 and 3 have the median 2; a slow moment that strikes both changes nothing."""
    found = ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0])
    assert found.value == 2
    assert 2 <= found.low <= found.high <= 3


def test_a_measurement_is_kept_and_told(tmp_path: Path) -> None:
    names = [name for name in efficiency.STUDIES["table-5"].rows if name != "effort"]
    timing = Timing("tiny", "cpu", 16, {name: ([1.1, 1.1], [1.0, 1.0]) for name in names})
    path = tmp_path / "timing.json"
    assert read_timing(path) is None
    write_timing(path, timing)
    assert read_timing(path) == timing
    rows = dict(table(timing).rows)
    cell, seconds = rows["lora"][-2:]
    assert isinstance(cell, Cell)
    assert (cell.value, cell.low, cell.high) == (1.1, 1.1, 1.1)
    assert cell.published == pytest.approx(621 / 512)
    assert isinstance(seconds, Cell)
    assert seconds.value == pytest.approx(
        28_800 / 16 * 1.1
    )  # a step of 16 crops takes Effort a second
    assert seconds.published == 621
    path.write_text("[]", "utf-8")
    with pytest.raises(DataError, match="not a measurement by deepscan"):
        read_timing(path)
