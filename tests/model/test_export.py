"""ONNX: the same outputs in onnxruntime as in torch, for any number of crops; told what it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from deepscan.cli import run
from deepscan.config import Scoring
from deepscan.errors import SettingsError, WeightsMismatch
from deepscan.model import adapters, export, weights
from deepscan.model.detector import Detector
from deepscan.model.header import DetectorSettings, Header
from deepscan.model.networks import load_detector

Crops = Callable[[int], np.ndarray]


@pytest.fixture
def crops(rng: np.random.Generator) -> Crops:
    return lambda count: rng.integers(0, 256, (count, 256, 256, 3), np.uint8)


def made(**settings: Any) -> tuple[Detector, Header]:
    """A detector as after training and merging."""
    torch.manual_seed(0)
    detector = Detector(DetectorSettings(**settings))
    detector.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    adapters.merge(detector.tower)
    header = Header("tiny", detector.settings, {"name": "b", "sha256": "0"}, {"data": "x"}, "MIT")
    return detector.eval().requires_grad_(False), header


def same_in_both(detector: Detector, path: Path, crops: Crops) -> None:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 3):  # neither is the number it was exported with
        batch = crops(count)
        expected = detector.score(batch)
        found = session.run(None, {"crops": batch})
        for name, values in zip(export.OUTPUTS, found, strict=True):
            np.testing.assert_allclose(values, getattr(expected, name), atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"adapter": "lora"}, marks=pytest.mark.slow),
        {"adapter": "effort", "token": "cls"},
        pytest.param(
            {"adapter": "norm", "token": "cls", "normalise": True, "reference": 0.5},
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_onnxruntime_computes_what_torch_computes(
    tiny_tower: str, tmp_path: Path, crops: Crops, settings: dict[str, Any]
) -> None:
    detector, header = made(tower=tiny_tower, heads=4, **settings)
    path = tmp_path / "tiny.onnx"
    assert export.write(path, detector, header, "abc") < 1e-4
    same_in_both(detector, path, crops)
    (output,) = onnx.load(path).metadata_props
    assert output.key == "deepscan"
    stated = json.loads(output.value)
    assert (stated["checkpoint_sha256"], stated["licence"]) == ("abc", "MIT")
    assert stated["preprocessing"]["crop_side"] == 256


def test_a_file_that_computes_something_else_is_not_kept(
    tiny_tower: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, header = made(tower=tiny_tower, heads=4)
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(WeightsMismatch, match="no file is written"):
        export.write(tmp_path / "tiny.onnx", detector, header, "abc")
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_says_what_to_install(
    tiny_tower: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match=r"\(onnxruntime\); pip install .*\[onnx\]"):
        export.write(tmp_path / "tiny.onnx", *made(tower=tiny_tower, heads=4), "abc")


@pytest.mark.slow
def test_the_shipped_detector_is_exported(
    tmp_path: Path, crops: Crops, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "detector.onnx"
    assert run(["export", "--offline", "--out", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(path)
    assert "differ from torch" in captured.err
    scoring = Scoring(device="cpu", precision="float32", offline=True)
    same_in_both(load_detector(scoring)[0], path, crops)
    assert run(["export", "--offline", "--out", str(path)]) == 1
    assert "--force" in capsys.readouterr().err
    known = weights.catalogue()
    (output,) = onnx.load(path).metadata_props
    stated = json.loads(output.value)
    assert stated["checkpoint_sha256"] == known.detectors[known.default].sha256
