"""`deepscan serve` with two detectors: both are found, both score the clip, and both are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from builders import toy
from builders.serving import served
from deepscan.batches import pool
from deepscan.cli import run
from deepscan.config import Sampling, Scoring, Settings
from deepscan.model import tower, weights
from deepscan.serve import server
from deepscan.serve.worker import Worker


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with two detectors that always disagree; one has a comma in its name."""
    before = toy.install(tmp_path / "base")
    folder = tmp_path / "case"
    folder.mkdir()
    toy.detector(folder / "high.safetensors", 8.0)
    toy.detector(folder / "low, old.safetensors", -8.0)
    monkeypatch.chdir(folder)
    yield folder
    tower.tower_size, weights.catalogue = before  # type: ignore[assignment]


@pytest.mark.parametrize("where", ["flag", "file"])
def test_both_are_found_from_the_folders_of_the_clips(
    case: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative to the working folder or, in deepscan.toml, to that file."""
    asked: list[Settings] = []
    monkeypatch.setattr(server, "serve", lambda settings, **how: asked.append(settings))
    named = "high.safetensors, low, old.safetensors"
    if where == "file":
        (case / "deepscan.toml").write_text(f'[scoring]\nweights = "{named}"\n', "utf-8")
        (case / "inner").mkdir()
        monkeypatch.chdir(case / "inner")
    assert run(["serve", *(["--weights", named] if where == "flag" else [])]) == 0
    (settings,) = asked
    both = f"{case / 'high.safetensors'},{case / 'low, old.safetensors'}"
    assert settings.scoring.weights == both


def test_a_path_is_answered_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results, of whatever version, are read without a server."""
    assert run(["serve", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"If {tmp_path} is a clip, use deepscan detect; if it holds results, open the" in line


@pytest.mark.slow
def test_a_clip_is_scored_by_both_and_both_are_shown(
    case: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pool.Worker

    def begun(work: Any, start: Any) -> pool.Worker:
        base = tmp_path / "base"
        return real(partial(toy.knowing, base, work), partial(toy.knowing, base, start))

    monkeypatch.setattr(pool, "Worker", begun)
    both = f"{case / 'high.safetensors'},{case / 'low, old.safetensors'}"
    settings = Settings(
        sampling=Sampling(frames=4), scoring=Scoring(weights=both, precision="float32")
    )
    with served(Worker(settings), tmp_path / "serve") as ask:
        job = ask.ended(ask.send("interview.mp4", sample.read_bytes())["id"])
        assert (job["state"], job["headline"]) == ("finished", "Inconclusive")
        assert job["sentence"] == (
            "Two detectors disagree, so the result is inconclusive: high says “manipulation indicated”,"
            " low, old “inconclusive”."  # nobody measured what its low scores mean
        )
        report = json.loads(ask("GET", f"/jobs/{job['id']}/report.json")[1])
        assert [(o["detector"], round(o["score"])) for o in report["opinions"]] == [
            ("high", 8),
            ("low, old", -8),
        ]
        page = ask("GET", f"/jobs/{job['id']}/report.html")[1]
        table = page.split('<table class="opinions">')[1].split("</table>")[0]
        assert table.index(">high<") < table.index(">low, old<")
