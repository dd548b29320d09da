"""The comparison on a tiny tower: trained once, told from what the run folders hold."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import toy
from deepscan import compare
from deepscan.model import tower, weights


@pytest.fixture
def base(tmp_path: Path) -> Iterator[None]:
    before = toy.install(tmp_path / "base")
    yield
    tower.tower_size, weights.manifest = before  # type: ignore[assignment]


def test_it_trains_once_and_tells_what_the_runs_hold(
    base: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {"base": "toy", "heads": 4, "batch": 8, "validation": 0.34, "precision": "float32"}
    studies = {k: v | tiny for k, v in compare.STUDIES.items() if "lora" in k}
    monkeypatch.setattr(compare, "STUDIES", studies)
    data, test = toy.prepared(tmp_path / "data"), toy.crops(tmp_path / "test", people=4)
    asked = [f"--data={data}", f"--test={test}", f"--out={tmp_path / 'out'}", "--epochs=1"]
    compare.main(asked)
    told = capsys.readouterr().out
    assert told == (tmp_path / "out" / "comparison.md").read_text("utf-8")
    rows = [line.split("|")[1:-1] for line in told.splitlines() if line.startswith("| lora")]
    assert len(rows) == 5 + 5 + 4  # who tells best; who finds the mask; who looks where
    against = {row[0].strip(): row[5].strip() for row in rows[:5]}
    assert against == {
        "lora": "",
        "lora + ours": "lora",
        "lora + ours, MACL": "lora + ours",
        "lora + ours, no RAAL": "lora + ours",
        "lora + ours, no norm": "lora + ours",
    }
    assert (tmp_path / "out" / "attention.png").stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("detector.safetensors")}
    compare.main(asked)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def scored(folder: Path, logits: list[float]) -> Path:
    """Predictions of two real and two manipulated videos of one crop each."""
    folder.mkdir()
    with (folder / "predictions-test.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "label", "logit"])
        for i, logit in enumerate(logits):
            writer.writerow([f"v{i}", int(i >= 2), logit])
    return folder


def test_a_gain_by_hand(tmp_path: Path) -> None:
    """One of four pairs in the wrong order is an AUC of 3/4; none wrong, of 1."""
    good = scored(tmp_path / "good", [-1.0, 0.0, 1.0, 2.0])
    worse = scored(tmp_path / "worse", [-1.0, 1.5, 1.0, 2.0])
    value, low, high = compare.gain(good, worse, np.random.default_rng(0))
    assert value == pytest.approx(0.25)
    assert 0 <= low <= value <= high <= 1
    assert compare.gain(good, good, np.random.default_rng(0)) == (0.0, 0.0, 0.0)


def test_entropy_and_divergence_by_hand() -> None:
    """Even over four patches: ln 4 nats; all on one: none; and KL(one || even) is ln 4 again."""
    even, one = np.full((1, 4), 0.25), np.array([[[1.0, 0.0, 0.0, 0.0]]])
    seen = compare.Looks(queries=one, cls=even)
    assert seen.entropies == pytest.approx((0.0, np.log(4)), abs=1e-6)
    assert seen.divergence == pytest.approx(np.log(4), abs=1e-6)
