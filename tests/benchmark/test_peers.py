"""MesoNet, the tool that comparison with others is shown with."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deepscan.judgement import metrics

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "peers" / "mesonet.py"


@pytest.fixture(scope="module")
def mesonet() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mesonet", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.shared
def test_meso4_on_the_shared_crops(mesonet: ModuleType, shared: Path, tmp_path: Path) -> None:
    """Its probabilities were once held against Keras' own, equal to 2e-7; these are the AUCs they give.

    The notes with the weights say 0.855 for these crops, near its frame AUC.
    """
    out = tmp_path / "meso4.csv"
    mesonet.main(str(shared / "peers/mesonet/Meso4_F2F.h5"), str(out), str(shared / "ffpp-crops"))
    lines = [line.split(",") for line in out.read_text("utf-8").splitlines()]
    assert lines[0] == ["video", "frame", "logit"]
    videos = [line[0] for line in lines[1:]]
    labels = np.array([int(video.startswith("fake")) for video in videos])
    logits = np.array([float(line[2]) for line in lines[1:]])
    assert metrics.auc(labels, logits) == pytest.approx(0.863, abs=0.002)
    _, of_video, scores = metrics.video_scores(videos, labels, logits)
    assert metrics.auc(of_video, scores) == pytest.approx(0.922, abs=0.002)
