"""Broken-off runs go on as if nothing had happened, and failures lose nothing."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from builders import toy
from builders.runs import read_log, settings
from deepscan.cli import run as cli
from deepscan.errors import DataError, OutputError, SettingsError
from deepscan.files import sha256
from deepscan.training import step
from deepscan.training.augment import AugmentSettings
from deepscan.training.run import resume, train

DATE = "2026-01-31"


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": "lora"},
        {"adapter": "effort"},
        {"adapter": "full", "average": 0.9},  # CLIP's projection to text never gets a gradient
        {"adapter": "norm", "patch_norm": False, "token": "cls", "average": 0.9},
        {"adapter": "lora", "sampling": "natural", "max_norm": math.inf, "average": 0.5},
    ],
)
def test_a_run_killed_at_any_step_ends_as_if_it_had_not_been(
    base: Path, tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off after every number of steps, in this process; a real kill -9 follows below."""
    toy.crops(tmp_path / "data")
    asked = settings(tmp_path, save_every=2, augment=AugmentSettings(), **changes)
    train(asked, DATE)
    whole = load_file(asked.out / "state.safetensors")
    steps = len(read_log(asked.out))
    real = step.objective
    for stop in (1, steps // 2 + 1):
        left = stop

        def breaks(*args: Any) -> Any:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            return real(*args)

        broken = replace(asked, out=tmp_path / f"broken{stop}")
        monkeypatch.setattr(step, "objective", breaks)
        if stop < steps:
            with pytest.raises(KeyboardInterrupt):
                train(broken, DATE)
        else:
            train(broken, DATE)
        monkeypatch.setattr(step, "objective", real)
        done = resume(broken.out)
        again = load_file(broken.out / "state.safetensors")
        assert all(torch.equal(whole[name], again[name]) for name in whole)
        assert sha256(done.checkpoint) == sha256(asked.out / "detector.safetensors")
        assert [r["step"] for r in read_log(broken.out)] == [str(i + 1) for i in range(steps)]
        assert [r["loss"] for r in read_log(broken.out)] == [r["loss"] for r in read_log(asked.out)]


def arguments(tmp_path: Path, out: str, **more: Any) -> list[str]:
    config = tmp_path / "toy.toml"
    config.write_text(
        'base = "toy"\nheads = 4\nlr = 3e-3\nvalidation = 0.34\nsave_every = 3\n'
        "average = 0.9\npatches = 0.75\n",
        "utf-8",
    )
    plain = {
        "config": config, "data": tmp_path / "data", "out": tmp_path / out, "precision": "float32",
        "batch": 8, "epochs": 4, "workers": 1, "name": "toy",
    } | more  # fmt: skip
    return ["train", *(f"--{k.replace('_', '-')}={v}" for k, v in plain.items())]


@pytest.mark.slow
def test_kill_9_and_resume(base: Path, tmp_path: Path) -> None:
    toy.crops(tmp_path / "data", people=8)
    script = [sys.executable, str(Path(toy.__file__)), str(base.parent)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*script, *arguments(tmp_path, "whole")], check=True, env=environment)
    killed = environment | {toy.KILLED_AT: "5"}  # from outside it might come late, or too late
    victim = subprocess.run([*script, *arguments(tmp_path, "killed")], env=killed)
    assert victim.returncode == -signal.SIGKILL
    assert len(read_log(tmp_path / "killed")) == 5 < len(read_log(tmp_path / "whole"))
    again = ["train", f"--resume={tmp_path / 'killed'}", "-q"]
    subprocess.run([*script, *again], check=True, env=environment)
    one, two = (load_file(tmp_path / n / "state.safetensors") for n in ("whole", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    shas = {sha256(tmp_path / n / "detector.safetensors") for n in ("whole", "killed")}
    assert len(shas) == 1


def test_a_run_goes_on_from_a_copy_of_its_folder(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off, its folder gone with the disk: what was copied goes on to the same bytes."""
    toy.crops(tmp_path / "data")
    asked = settings(tmp_path, save_every=2)
    whole = train(asked, DATE).folder.rename(tmp_path / "whole")
    real, left = step.objective, 5

    def breaks(*args: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(step, "objective", breaks)
    with pytest.raises(KeyboardInterrupt):
        train(asked, DATE)
    monkeypatch.setattr(step, "objective", real)
    copied = asked.out.rename(tmp_path / "elsewhere")
    shutil.rmtree(copied / "tensorboard")
    assert cli(["train", f"--resume={copied}", "-q"]) == 0
    for name in ("state.safetensors", "detector.safetensors"):
        assert sha256(copied / name) == sha256(whole / name)
    assert read_log(copied)[4]["step"] == "5"


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(base: Path, tmp_path: Path) -> None:
    """torchrun over gloo, the same global batch: equal to 1e-5, MACL and pseudo-fakes included."""
    toy.crops(tmp_path / "data")
    more = {"contrast": "macl", "pseudo": 1.0, "steps": 6, "seed": 3}
    cli_one = arguments(tmp_path, "one", **more)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    script = [str(Path(toy.__file__)), str(base.parent)]
    subprocess.run([sys.executable, *script, *cli_one], check=True, env=environment)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    two = arguments(tmp_path, "two", **more)
    subprocess.run([sys.executable, *torchrun, *script, *two], check=True, env=environment)
    one, both = (load_file(tmp_path / n / "state.safetensors") for n in ("one", "two"))
    for name in one:
        torch.testing.assert_close(both[name], one[name], atol=1e-5, rtol=1e-5)
    for a, b in zip(read_log(tmp_path / "one"), read_log(tmp_path / "two"), strict=True):
        for term in ("loss", "classification", "contrast", "alignment", "gradient"):
            assert float(b[term]) == pytest.approx(float(a[term]), abs=1e-5)
        assert a["validation_loss"] == "" or float(b["validation_loss"]) == pytest.approx(
            float(a["validation_loss"]), abs=1e-5
        )


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_last_good_state(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.crops(tmp_path / "data")
    asked = settings(tmp_path, save_every=1, epochs=3)
    real, calls = step.objective, 0

    def poisoned(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        total, terms = real(*args)
        if calls == 5:
            return total * torch.nan, terms | {"loss": terms["loss"] * torch.nan}
        return total, terms

    monkeypatch.setattr(step, "objective", poisoned)
    with pytest.raises(DataError, match=r"diverged at step 5 .*loss nan.*lower --lr"):
        train(asked, DATE)
    assert all(torch.isfinite(v).all() for v in load_file(asked.out / "state.safetensors").values())
    assert (asked.out / "detector.safetensors").is_file()
    assert len(read_log(asked.out)) == 4


# TensorBoard's own thread may meet the limit, too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_said_and_loses_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing really fails, at a limit the system sets; safetensors has an error of its own for that."""
    resource = pytest.importorskip("resource", reason="no such limits on Windows")
    toy.crops(tmp_path / "data")
    asked = settings(tmp_path, save_every=1)
    from deepscan.training import folder

    real, calls = folder.save_file, 0

    def full(*args: Any) -> None:
        nonlocal calls
        calls += 1
        was = resource.getrlimit(resource.RLIMIT_FSIZE)
        if calls == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, was[1]))
        try:
            real(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, was)

    monkeypatch.setattr(folder, "save_file", full)
    with pytest.raises(OutputError, match=r"state\.safetensors: cannot be written: .*too large"):
        train(asked, DATE)
    assert not list(asked.out.glob(".*part*"))
    monkeypatch.undo()
    toy.install(base.parent)
    resume(asked.out)
    train(replace(asked, out=tmp_path / "whole"), DATE)
    one, two = (load_file(tmp_path / n / "state.safetensors") for n in ("run", "whole"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_goes_on_with_its_own_data_only(base: Path, tmp_path: Path) -> None:
    toy.crops(tmp_path / "data")
    asked = settings(tmp_path, epochs=1)
    train(asked, DATE)
    victim = next(iter(sorted((tmp_path / "data" / "real").iterdir())))
    Image.new("RGB", (256, 256)).save(victim)
    with pytest.raises(DataError, match="have changed since the run began"):
        resume(asked.out)
    with pytest.raises(SettingsError, match="not a run of deepscan train"):
        resume(tmp_path / "data")
