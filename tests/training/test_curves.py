from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepscan.errors import DataError, OutputError
from deepscan.training.curves import draw, panels, read_log, running_mean

COLUMNS = (
    *("step", "epoch", "lr", "loss", "classification", "contrast", "alignment", "snr"),
    *("images_per_second", "memory_mb", "validation_video_auc", "validation_frame_auc"),
    "validation_loss",
)


def write(path: Path, *rows: dict[str, object]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def run(steps: int) -> list[dict[str, object]]:
    """A run whose every second step ends an epoch with validation."""
    rows: list[dict[str, object]] = []
    for step in range(1, steps + 1):
        row: dict[str, object] = {"step": step, "epoch": (step + 1) // 2, "lr": 2e-4}
        row |= {"loss": 1 / step, "classification": 0.5 / step, "snr": 2.5}
        row |= {"images_per_second": 40 + step}
        if step % 2 == 0:
            row |= {"validation_video_auc": 0.8, "validation_frame_auc": 0.7}
        rows.append(row)
    return rows


def drawn(log: Path) -> list[str]:
    """The first column of each panel."""
    return [panel.columns[0] for panel in panels(read_log(log))]


def test_a_log_becomes_a_picture_1200_pixels_wide(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", *run(6))
    target = tmp_path / "curves.png"
    draw(log, target)
    with Image.open(target) as picture:
        assert (picture.format, picture.size) == ("PNG", (1200, 840))
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "log.csv"]


@pytest.mark.parametrize("steps", [1, 500])
def test_a_run_of_any_length_is_drawn(tmp_path: Path, steps: int) -> None:
    draw(write(tmp_path / "log.csv", *run(steps)), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width == 1200


def test_panels_match_columns(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    losses, auc, snr, speed = "loss", "validation_video_auc", "snr", "images_per_second"
    assert drawn(write(log, *run(4))) == [losses, auc, snr, speed]
    assert drawn(write(log, *run(1))) == [losses, snr, speed]  # nothing validated yet
    assert drawn(write(log, {"step": 1, "loss": 0.7})) == [losses]
    assert drawn(write(log, {"step": 1, "validation_loss": 0.7})) == [losses]
    assert drawn(write(log, {"step": 1, "snr": "nan", "images_per_second": 9})) == [speed]
    draw(log, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1200, 420)


def test_columns_it_does_not_know_are_ignored(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss,gradient_norm,host\n1,0.7,3.5,here\n2,0.6,3.1,there\n")
    assert drawn(log) == ["loss"]
    assert set(read_log(log)) == {"step", "loss", "gradient_norm"}


def test_an_empty_cell_is_no_number(tmp_path: Path) -> None:
    log = read_log(write(tmp_path / "log.csv", *run(3)))
    assert np.isnan(log["validation_video_auc"]).tolist() == [True, False, True]
    assert np.isnan(log["contrast"]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column `step`"),
        ("epoch,loss\n1,0.5\n", "no column `step`"),
        ("step,loss\n", "no step is logged yet"),
        ("step,loss\n1,\n2,\n", "contains no measured value"),
        ("step,loss\n1,0.5\n2\n", "row 3 has 1 cells, not 2"),
        ("step,loss\n1,0.5\n,0.4\n", "column `step` has an empty cell"),
        ("step,loss\none,0.5\n", "column `step` contains something other"),
    ],
)
def test_a_log_without_anything_to_draw_is_refused(tmp_path: Path, text: str, message: str) -> None:
    log = tmp_path / "log.csv"
    log.write_text(text)
    with pytest.raises(DataError, match=message):
        draw(log, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_a_missing_log_and_a_forbidden_target_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a readable log"):
        draw(tmp_path / "log.csv", tmp_path / "curves.png")
    log = write(tmp_path / "log.csv", *run(2))
    with pytest.raises(OutputError, match="cannot be written"):
        draw(log, log / "curves.png")


def test_running_mean_by_hand() -> None:
    values = np.array([4.0, 2.0, 6.0, 1.0])
    assert running_mean(values, 1).tolist() == values.tolist()
    assert running_mean(values, 2).tolist() == [4, 3, 4, 3.5]
    assert running_mean(values, 9).tolist() == [4, 3, 4, 3.25]


def test_pyplot_is_left_alone(tmp_path: Path) -> None:
    from matplotlib import pyplot

    draw(write(tmp_path / "log.csv", *run(2)), tmp_path / "curves.png")
    assert pyplot.get_fignums() == []
