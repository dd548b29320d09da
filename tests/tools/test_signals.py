"""Some of `make signals`: after Ctrl-C or SIGTERM nothing of deepscan's runs or lies about for long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest

from tools.signals import MOST_SECONDS, stages

STAGES = (
    *("detect: importing torch", "detect: loading the detector", "detect: finding faces"),
    *("detect: scoring", "detect: writing the manifest", "fetch: through pip"),
    *("batch: 1 s", "batch: after a result", "verify: scanning", "serve: waiting"),
    *("train: reading a batch", "train: backward", "benchmark: scoring", "prepare"),
)


@pytest.mark.slow  # imports everything
def test_the_places_of_all_stages_are_there(tmp_path: Path) -> None:
    """They are named by text, and a function may get another name."""
    (tmp_path / "results").mkdir()  # so that no inputs are made
    for stage in stages(tmp_path):
        module, _, name = stage.place.partition(":")
        if name and module.startswith("deepscan"):
            attrgetter(name)(import_module(module))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands' inputs are, made once."""
    return tmp_path_factory.mktemp("signals")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts processes in /proc")
@pytest.mark.parametrize("stage", STAGES)
def test_nothing_runs_after_a_signal(folder: Path, stage: str) -> None:
    """Processor time is counted, which does not depend on what else the machine does."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tools.signals", str(folder), stage, "--json"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env)
    found = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert {left["signal"] for left in found} == {"SIGINT", "SIGTERM"}
    for left in found:
        assert left["processor"] <= MOST_SECONDS, left
        assert (left["over"], left["parts"], left["said"]) == ([], [], ""), left
    assert run.returncode == 0
