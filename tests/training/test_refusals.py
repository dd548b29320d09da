"""What training refuses before it runs, and where its settings come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import toy
from builders.runs import settings
from deepscan.cli import run as cli
from deepscan.errors import DataError, OutputError, SettingsError
from deepscan.model import processor
from deepscan.training.folder import RunFolder
from deepscan.training.run import train
from deepscan.training.settings import from_files, from_plain

DATE = "2026-01-31"


def test_missing_data_is_named_before_anything_runs(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data"):
        train(settings(tmp_path), DATE)
    toy.crops(tmp_path / "data")
    with pytest.raises(DataError, match="none"):
        train(settings(tmp_path, test=tmp_path / "none"), DATE)
    with pytest.raises(SettingsError, match="base: 'other' is not one of toy"):
        train(settings(tmp_path, base="other"), DATE)
    with pytest.raises(DataError, match=r"macl: none of the \d+ manipulated crops has a mask"):
        train(settings(tmp_path, contrast="macl"), DATE)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"adapter": "loro"},
        {"token": "mean"},
        {"contrast": "supcon"},
        {"alignment": "js"},
        {"batch": 15},
        {"batch": 8, "accumulate": 3},
        {"epochs": 0},
        {"steps": 0},
        {"lr": 0.0},
        {"flcl": -1.0},
        {"weight_decay": -1.0},
        {"validation": 1.0},
        {"pseudo": 1.5},
        {"precision": "float16"},
        {"device": "auto"},
        {"schedule": "linear"},
        {"orthogonality": 1.0, "adapter": "lora"},
        {"flcl": 0.14, "token": "cls"},
        {"reference": 1.5},
    ],
)
def test_senseless_settings_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(change))):
        settings(tmp_path, **change)


def test_the_precision_is_what_the_processor_computes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "computes_bfloat16", lambda: False)
    assert settings(tmp_path, precision="auto").precision == "float32"
    assert settings(tmp_path, precision="auto", device="cuda").precision == "bfloat16"
    assert settings(tmp_path, precision="bfloat16").recipe()["precision"] == "bfloat16"
    monkeypatch.setattr(processor, "computes_bfloat16", lambda: True)
    assert settings(tmp_path, precision="auto").recipe()["precision"] == "bfloat16"


def test_flags_overrule_a_config_file_and_that_the_projects(
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy.crops(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deepscan.toml").write_text("[train]\nepochs = 9\nseed = 5\n", "utf-8")
    config = tmp_path / "a.toml"
    config.write_text(
        f'data = "{tmp_path / "data"}"\nbase = "toy"\nheads = 4\nepochs = 1\nworkers = 0\nbatch = 8\n'
        "validation = 0.34\n[augment]\nflip = 0.0\nzoom_keeps = [0.5, 0.9]\n",
        "utf-8",
    )
    out = tmp_path / "run"
    assert cli(["train", f"--config={config}", f"--out={out}", "--batch=4", "-q", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["selected_epoch"] == 1  # data, which -q leaves
    stated = json.loads((out / "settings.json").read_text("utf-8"))["settings"]
    assert (stated["batch"], stated["epochs"], stated["seed"]) == (4, 1, 5)
    assert stated["name"] == "lora-global"
    assert stated["augment"]["zoom_keeps"] == [0.5, 0.9]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epoch = 3", "unknown key epoch; did you mean epochs"),
        ("batch = 'many'", "batch: 'many' is not a whole number"),
        ("epochs = true", "epochs: True is not a whole number"),
        ("batch = ", "not readable TOML"),
        ("[augment]\nflipp = 1", "unknown key flipp; did you mean flip"),
    ],
)
def test_a_config_file_with_a_mistake_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.toml").write_text(text, "utf-8")
    with pytest.raises(SettingsError, match=says):
        from_plain(from_files(tmp_path / "a.toml") | {"data": ".", "out": "run"}, "a.toml")


def test_without_data_the_error_says_where_it_looked_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPSCAN_DATA", raising=False)
    assert cli(["train", "--adapter", "lora", f"--root={tmp_path}"]) == 1
    said = capsys.readouterr().err
    assert "FaceForensics++.json" in said
    assert str(tmp_path / "prepared") in said
    assert "deepscan prepare" in said
    assert cli(["train", "--adapter", "lora"]) == 2
    assert "DEEPSCAN_DATA" in capsys.readouterr().err


def test_resume_takes_no_other_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["train", f"--resume={tmp_path}", "--epochs=3"]) == 2
    assert "uses the settings of the run" in capsys.readouterr().err


def test_the_folder_is_written_at_its_places(tmp_path: Path, base: Path) -> None:
    folder = RunFolder(tmp_path / "file" / "run")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be created"):
        folder.create(settings(tmp_path), {}, DATE)
