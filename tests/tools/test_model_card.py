"""A trained detector is measured on the people that its run held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import toy
from deepscan.cli import run
from deepscan.data import distortions
from deepscan.errors import SettingsError
from deepscan.model import tower, weights
from deepscan.model.header import read_header
from deepscan.training.folder import RunFolder
from deepscan.training.rows import shown
from tools import model_card


@pytest.fixture
def trained(tmp_path: Path) -> Iterator[Path]:
    before = toy.install(tmp_path / "base")
    config = tmp_path / "toy.toml"
    config.write_text(
        'base = "toy"\nheads = 4\nlr = 3e-3\nvalidation = 0.5\nprecision = "float32"\nbatch = 8\n'
        "epochs = 2\nworkers = 0\n",
        "utf-8",
    )
    data = toy.crops(tmp_path / "people", people=24, frames=2)
    flags = [f"--data={data}", f"--out={tmp_path / 'run'}"]
    assert run(["train", f"--config={config}", *flags, "-q"]) == 0
    yield tmp_path / "run"
    tower.tower_size, weights.catalogue = before  # type: ignore[assignment]


def test_it_is_measured_on_held_out_people_alone(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _, _ = RunFolder(trained).reopen()
    learnt, held = shown(settings)
    (crops,) = model_card.held_out(trained)
    assert {row.video for row in crops.rows} == {row.video for row in held}
    assert not {row.group for row in crops.rows} & {row.group for row in learnt}

    monkeypatch.setattr(distortions, "LEVELS", {"saturation": distortions.LEVELS["saturation"]})
    monkeypatch.setattr("deepscan.benchmark.request.LEVELS", distortions.LEVELS)
    monkeypatch.setattr("deepscan.benchmark.request.CROP_LEVELS", {})
    asked = [f"--run={trained}", f"--out={tmp_path / 'card'}", f"--docs={tmp_path / 'docs'}"]
    model_card.main([*asked, "--device=cpu"])
    page = (tmp_path / "docs/README.md").read_text("utf-8")
    for part in ("all measures", "Verdicts at the calibrated", "Where it is wrong", "saturation:5"):
        assert part in page, part
    assert "a share of the people out (0.5" in page
    assert not list((tmp_path / "docs").glob("errors.png"))  # others' pictures are not published
    with Image.open(tmp_path / "card/errors.png") as drawn:
        assert drawn.width > 0
    assert (tmp_path / "docs/robustness-lora-global.png").stat().st_size > 5000


def test_verdicts_and_errors_by_hand(trained: Path) -> None:
    header = read_header(trained / "detector.safetensors")
    assert header.calibration is not None
    low, high = header.calibration.low, header.calibration.high
    middle = (low + high) / 2
    answers = {
        "a": [
            model_card.Answer("a/0", 0, low - 1), model_card.Answer("a/1", 0, middle),
            model_card.Answer("a/2", 0, high), model_card.Answer("a/3", 0, high + 2),
            model_card.Answer("a/4", 1, low), model_card.Answer("a/5", 1, high + 1),
        ],
        "b": [model_card.Answer("b/0", 0, low)],
    }  # fmt: skip
    table = dict(model_card.verdicts(answers, header).rows)
    assert table == {
        "a, real": ("1 (25%)", "1 (25%)", "2 (50%)"),
        "a, manipulated": ("1 (50%)", "0 (0%)", "1 (50%)"),
        "b, real": ("1 (100%)", "0 (0%)", "0 (0%)"),
    }
    listed, wrong = model_card.errors(answers, header)
    assert [answer.video for answer in wrong] == [
        "a/3",
        "a/2",
        "a/4",
    ]  # worst first, false alarms before
    assert dict(listed.rows)["a/4"][0] == "manipulated"
    assert np.isclose(float(dict(listed.rows)["a/3"][1]), high + 2, atol=0.01)  # type: ignore[arg-type]


def test_an_uncalibrated_detector_has_no_verdicts_to_tell(trained: Path) -> None:
    header = replace(read_header(trained / "detector.safetensors"), calibration=None)
    with pytest.raises(SettingsError, match="not calibrated; its run held out too few videos"):
        model_card.verdicts({}, header)
