"""The doctor: well where all is well, and a name and a remedy for what is not."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import av
import pytest
import torch

from deepscan.cli import run
from deepscan.files import sha256
from deepscan.media import isolation
from deepscan.model import processor, weights
from deepscan.model.networks import load_scorer
from deepscan.verification import doctor


def test_values_are_of_the_shipped_detector_and_clip() -> None:
    """After training it anew: make selftest."""
    stored = json.loads(doctor.VALUES.read_text("utf-8"))
    known = weights.catalogue()
    assert stored["detector"] == known.detectors[known.default].sha256
    assert stored["clip"] == sha256(doctor.CLIP)
    real, fake = stored["logits"][:3], stored["logits"][3:]
    assert max(real) < min(fake)  # the second half is manipulated


@pytest.mark.slow
def test_all_is_well_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "deepscan.doctor/1"
    assert document["state"] == "ok"
    checks = {check["name"]: check for check in document["checks"]}
    assert {"python", "torch", "cuda", "ffmpeg", "codecs", "cache", "self-test"} <= checks.keys()
    assert "6 faces scored" in checks["self-test"]["found"]
    base = weights.catalogue().bases["clip-vit-b16"]
    assert base.sha256 in checks["weights clip-vit-b16"]["found"]


def by_name(*names: str) -> dict[str, doctor.Check]:
    """Those checks alone."""
    return {check.name: check for name in names for check in doctor.CHECKS[name]()}


def test_without_weights_it_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load_scorer.cache_clear()  # other tests' models
    monkeypatch.setenv("DEEPSCAN_CACHE", str(tmp_path))
    assert run(["doctor", "--quiet"]) == 1
    captured = capsys.readouterr()
    assert "failed   weights clip-vit-b16: not at" in captured.out
    assert "-> deepscan weights fetch clip-vit-b16" in captured.out
    assert "failed   self-test: not run: clip-vit-b16: not in" in captured.out
    assert "2 of" in captured.out
    assert captured.err == ""


def test_damaged_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSCAN_CACHE", str(tmp_path))
    base = weights.catalogue().bases["clip-vit-b16"]
    base.path.parent.mkdir()
    base.path.write_bytes(b"not it")
    check = by_name("weights")["weights clip-vit-b16"]
    assert check.state is doctor.Health.FAILED
    assert "delete it; deepscan weights fetch clip-vit-b16" in check.advice


@pytest.mark.slow
def test_other_numbers_are_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a broken processor, or another version of a package that changes pixels."""
    stored = json.loads(doctor.VALUES.read_text("utf-8"))
    stored["logits"][2] += 2 * doctor.TOLERANCE
    values = tmp_path / "values.json"
    values.write_text(json.dumps(stored))
    monkeypatch.setattr(doctor, "VALUES", values)
    check = by_name("self-test")["self-test"]
    assert check.state is doctor.Health.FAILED
    assert "allowed 0.05" in check.found


def test_a_damaged_clip_is_not_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(doctor.CLIP.read_bytes()[:-1])
    monkeypatch.setattr(doctor, "CLIP", clip)
    assert "is damaged" in by_name("self-test")["self-test"].found


def test_a_codec_that_is_not_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DECODERS", ("h264", "no-such-codec"))
    monkeypatch.setattr(doctor, "ENCODER", "no-such-encoder")
    found = by_name("ffmpeg")
    assert found["codecs"].state is found["film"].state is doctor.Health.WARNING
    assert "no-such-codec" in found["codecs"].found
    assert av.__version__ in found["ffmpeg"].found


def test_a_package_that_cannot_be_imported_is_a_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(doctor.CHECKS, "self-test")
    found = {check.name: check for check in doctor.examine()}
    assert found["ffmpeg"].state is doctor.Health.FAILED
    assert "av" in found["ffmpeg"].found
    assert found["torch"].state is doctor.Health.OK


def test_a_gpu_that_does_not_compute_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine's GPU computes")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check = by_name("torch")["cuda"]
    assert check.state is doctor.Health.FAILED
    assert "cannot compute" in check.found
    assert "--device cpu" in check.advice


@pytest.mark.parametrize(("native", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_it_says_what_the_processor_computes_in(
    native: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "computes_bfloat16", lambda: native)
    check = by_name("torch")["processor"]
    assert check.state is doctor.Health.OK
    assert f"auto means {chosen}" in check.found


@pytest.mark.parametrize(("held", "state"), [("full", "ok"), ("limits", "warning")])
def test_it_says_what_holds_a_decoder(
    held: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie = f"import deepscan.media.isolation as taken; taken.confine = lambda *_: {held!r}; main()"
    monkeypatch.setattr(isolation, "START", isolation.START.replace("main()", lie))
    check = by_name("confinement")["confinement"]
    assert check.state == state
    assert check.found.startswith(held)


def test_a_full_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    found = by_name("places")
    assert found["cache"].state is doctor.Health.WARNING
    assert "make room" in found["working folder"].advice
