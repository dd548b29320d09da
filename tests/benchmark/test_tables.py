"""One table in five forms, and the figures that go with it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepscan.benchmark import figures
from deepscan.benchmark.evaluation import Estimate
from deepscan.benchmark.looks import (
    Looks,
    activation_table,
    localisation,
    localisation_table,
    read_looks,
    write_looks,
)
from deepscan.benchmark.tables import (
    Cell,
    Table,
    to_csv,
    to_dict,
    to_latex,
    to_markdown,
    to_rich,
    write,
)
from deepscan.errors import DataError

TABLE = Table(
    "t",
    "A & B",
    ("cdf2", "gain", "over"),
    (
        (
            "ours_1",
            (Cell(0.9, 0.85, 0.95, 0.96, n=518), Cell(0.02, -0.01, 0.05, signed=True), "baseline"),
        ),
        ("paper only", (Cell(None, published=0.868), None, None)),
    ),
    ("50 % of it.",),
)


def test_a_cell_tells_value_interval_published_and_difference() -> None:
    assert TABLE.rows[0][1][0].lines() == ["0.900 [0.850, 0.950]", "paper 0.960, -0.060"]  # type: ignore[union-attr]
    assert TABLE.rows[0][1][1].lines() == ["+0.020 [-0.010, +0.050]"]  # type: ignore[union-attr]
    assert TABLE.rows[1][1][0].lines() == ["paper 0.868"]  # type: ignore[union-attr]


def test_markdown() -> None:
    assert to_markdown(TABLE).splitlines() == [
        "## A & B",
        "",
        "| | cdf2 | gain | over |",
        "|---|---|---|---|",
        "| ours_1 | 0.900 [0.850, 0.950]<br>paper 0.960, -0.060 | +0.020 [-0.010, +0.050] | baseline |",
        "| paper only | paper 0.868 |  |  |",
        "",
        "- 50 % of it.",
    ]


def test_csv_has_a_line_a_cell() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(TABLE))))
    assert [(line["row"], line["column"], line["value"]) for line in lines] == [
        ("ours_1", "cdf2", "0.9"),
        ("ours_1", "gain", "0.02"),
        ("ours_1", "over", "baseline"),
        ("paper only", "cdf2", ""),
    ]
    assert float(lines[0]["difference"]) == pytest.approx(-0.06)
    assert lines[0]["videos"] == "518"


def test_latex_escapes_and_has_as_many_columns() -> None:
    text = to_latex(TABLE)
    assert r"ours\_1" in text
    assert r"A \& B" in text
    assert r"50 \% of it." in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert [line.replace(r"\&", "").count(" &") for line in body] == [3, 3]
    assert all(line.endswith(r"\\") for line in body)


def test_json_and_the_files(tmp_path: Path) -> None:
    plain = to_dict(TABLE)["rows"]["ours_1"]
    assert plain["cdf2"]["published"] == 0.96
    assert plain["over"] == "baseline"
    assert [path.name for path in write(TABLE, tmp_path)] == ["t.md", "t.csv", "t.tex", "t.json"]
    assert json.loads((tmp_path / "t.json").read_text("utf-8")) == to_dict(TABLE)
    assert to_rich(TABLE).row_count == 2


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells, 2 columns"):
        Table("t", "t", ("a", "b"), (("r", (None,)),))


# --- attention -------------------------------------------------------------------------------------


def looks(rng: np.random.Generator, queries: int = 2) -> Looks:
    """Two real and two manipulated crops of 2 x 2 patches; the forged region is the upper left one."""
    labels = np.array([0, 0, 1, 1])
    masks = np.zeros((4, 64, 64), bool)
    masks[2:, :32, :32] = True
    cls = np.full((4, 4), 0.25)
    at = np.tile(np.array([0.7, 0.1, 0.1, 0.1]), (4, max(queries, 1), 1))
    return Looks(
        "d", ["r0", "r1", "f0", "f1"], labels, at if queries else np.zeros((0, 0, 0)), cls,
        np.where(labels[:, None] == 1, [0.1, 0.1, 0.1, 0.9], np.nan),
        np.tile([0.3, -0.1, -0.1, -0.1], (4, 1)) if queries else np.zeros((0, 0)), masks, labels == 1,
        rng.integers(0, 255, (4, 128, 128, 3), np.uint8),
    )  # fmt: skip


def test_localisation_by_hand(rng: np.random.Generator) -> None:
    """A map that peaks in the forged quarter finds all of it; one that peaks elsewhere points wrongly."""
    kept = looks(rng)
    right = localisation(kept.mean_attention("queries")[2:], kept.masks[2:])
    assert (right.pointing == 1).all()
    assert (right.auc > 0.99).all()
    assert (right.iou > 0.8).all()
    wrong = localisation(kept.delta[2:], kept.masks[2:])
    assert (wrong.pointing == 0).all()
    assert (wrong.auc < 0.5).all()


def test_tables_of_attention(rng: np.random.Generator) -> None:
    listed = dict(localisation_table("l", {"ours": looks(rng)}, "s").rows)
    assert list(listed) == [
        "ours: evidence",
        "ours: queries",
        "ours: [CLS]",
        "ours: fake likelihood",
    ]
    assert listed["ours: [CLS]"][0] == Cell(0.5, 0.5, 0.5)  # even everywhere: chance
    listed = dict(localisation_table("l", {"baseline": looks(rng, queries=0)}, "s").rows)
    assert list(listed) == ["baseline: [CLS]", "baseline: fake likelihood"]
    ((_, cells),) = activation_table("a", {"ours": looks(rng)}, "s").rows
    entropy, even, apart, peak, flat = (cell.value for cell in cells if isinstance(cell, Cell))
    assert even == pytest.approx(np.log(4), abs=1e-6)
    assert entropy == pytest.approx(-(0.7 * np.log(0.7) + 0.3 * np.log(0.1)), abs=1e-6)
    assert apart == pytest.approx(np.log(4) - (entropy or 0), abs=1e-6)  # KL from even
    assert (peak, flat) == (pytest.approx(2.8), pytest.approx(1))
    ((_, cells),) = activation_table("a", {"baseline": looks(rng, queries=0)}, "s").rows
    assert cells[0] is None


def test_no_masks_no_localisation(rng: np.random.Generator) -> None:
    kept = looks(rng)
    bare = replace(kept, masked=np.zeros(4, bool))
    with pytest.raises(DataError, match="none of its manipulated crops has a mask"):
        localisation_table("l", {"ours": bare}, "s")


def test_attention_is_kept(tmp_path: Path, rng: np.random.Generator) -> None:
    kept = looks(rng)
    write_looks(tmp_path / "a.npz", kept)
    again = read_looks(tmp_path / "a.npz")
    assert again.videos == kept.videos
    assert np.allclose(again.queries, kept.queries, atol=1e-3)
    assert (again.pictures == kept.pictures).all()
    (tmp_path / "b.npz").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"b\.npz: not a record of attention"):
        read_looks(tmp_path / "b.npz")


# --- figures ---------------------------------------------------------------------------------------


def estimate(value: float) -> Estimate:
    return Estimate(value, np.random.default_rng(0).normal(value, 0.02, 200))


def test_figures_are_written_twice_and_the_same_each_time(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    line = {w: estimate(v) for w, v in (("0", 0.7), ("0.14", 0.8), ("0.56", 0.75))}
    kept = looks(rng)
    drawn = {
        "curves": figures.curves({"fsh": line, "avg": line}, "the weight of FLCL", "0.14"),
        "robust": figures.robustness({"blur": line, "jpeg": line}, estimate(0.8), "distorted"),
        "attention": figures.attention({"[CLS]": (kept, "cls"), "queries": (kept, "queries")}, 2),
        "maps": figures.maps({"effort": looks(rng, 0), "effort+ours": kept}, 2),
    }
    for name, figure in drawn.items():
        paths = figures.save(figure, tmp_path, name)
        assert [path.suffix for path in paths] == [".png", ".svg"]
        assert all(path.stat().st_size > 5000 for path in paths)
    axes = drawn["curves"].axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["fsh", "avg"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "0.14", "0.56"]
    # Crops and two methods, two real and two manipulated; and the scale.
    assert len(drawn["maps"].axes) == 3 * 4 + 1
    assert [axes.get_title() for axes in drawn["maps"].axes[:4]] == ["real", "", "manipulated", ""]
    once = (tmp_path / "curves.svg").read_bytes()
    figures.save(
        figures.curves({"fsh": line, "avg": line}, "the weight of FLCL", "0.14"), tmp_path, "curves"
    )
    assert (tmp_path / "curves.svg").read_bytes() == once


def test_figures_without_faces_show_maps_alone(rng: np.random.Generator) -> None:
    """For pages about material that may be used but not published."""
    kept = looks(rng)
    columns = {"[CLS]": (kept, "cls"), "queries": (kept, "queries")}
    drawn = [
        figures.attention(columns, 2, faces=False),
        figures.maps({"ours": kept}, 2, faces=False),
    ]
    other = replace(kept, pictures=255 - kept.pictures)
    columns = {title: (other, which) for title, (_, which) in columns.items()}
    again = [
        figures.attention(columns, 2, faces=False),
        figures.maps({"ours": other}, 2, faces=False),
    ]
    for figure, same in zip(drawn, again, strict=True):
        shown = [image.get_array() for axes in figure.axes for image in axes.get_images()]
        assert len(shown) == 4
        assert all(
            (np.asarray(a) == np.asarray(image.get_array())).all()
            for a, image in zip(
                shown, (i for axes in same.axes for i in axes.get_images()), strict=True
            )
        )
