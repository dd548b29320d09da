"""The loop on a tiny tower: what it learns, and what it leaves."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from builders import toy
from builders.runs import read_log, settings
from deepscan.errors import OutputError
from deepscan.files import sha256
from deepscan.judgement import metrics
from deepscan.model import checkpoint
from deepscan.training import loop, step
from deepscan.training.data import picture
from deepscan.training.rows import shown
from deepscan.training.run import build, train
from deepscan.training.settings import from_plain
from deepscan.training.step import Ranks

DATE = "2026-01-31"


def test_a_step_looks_at_a_share_of_the_patches_named_by_seed_and_step(tmp_path: Path) -> None:
    asked = settings(tmp_path, patches=0.5)
    one, two = (step.kept_patches(16, asked, n) for n in (1, 2))
    assert one is not None
    assert two is not None
    assert len(set(one.tolist())) == 8
    assert torch.equal(one, step.kept_patches(16, asked, 1))
    assert not torch.equal(one, two)
    assert step.kept_patches(16, settings(tmp_path), 1) is None


def test_the_average_follows_the_weights(base: Path, tmp_path: Path) -> None:
    """By hand: its first value is the weights', then it moves by 1 - min(decay, step / (step + 9))."""
    weight, average = torch.nn.Parameter(torch.tensor([1.0])), [torch.tensor([7.0])]
    for n, value in ((1, 1.0), (2, 3.0), (3, 5.0)):
        with torch.no_grad():
            weight.fill_(value)
        loop._average(average, [weight], 0.2, n)
    first = 1.0 + (1 - 2 / 11) * (3.0 - 1.0)  # 2 / 11 < 0.2
    expected = first + (1 - 0.2) * (5.0 - first)
    assert float(average[0]) == pytest.approx(expected)
    with loop._averaged(average, [weight]):
        assert weight.item() == pytest.approx(expected)
    assert weight.item() == 5


def test_what_is_stored_is_the_average(base: Path, tmp_path: Path) -> None:
    toy.crops(tmp_path / "data")
    done = train(settings(tmp_path, average=0.9, epochs=1), DATE)
    state = load_file(done.folder / "state.safetensors")
    stored = load_file(done.checkpoint)
    stored.pop("prototypes")  # computed with the average, not itself one
    for name, value in stored.items():
        torch.testing.assert_close(value.float(), state[f"average.{name}"], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(state["average.head.weight"], state["model.head.weight"])


def test_it_is_validated_as_often_as_asked_for(base: Path, tmp_path: Path) -> None:
    toy.crops(tmp_path / "data")
    done = train(settings(tmp_path, steps=8, epochs=9, validate_every=3, save_every=2), DATE)
    judged = [row["step"] for row in read_log(done.folder) if row["validation_video_auc"]]
    assert judged == ["3", "6", "8"]


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["effort", "lora", "full", "norm", "none"])
@pytest.mark.parametrize("token", ["cls", "global"])
def test_every_method_learns_what_can_be_told_apart(
    base: Path, tmp_path: Path, adapter: str, token: str
) -> None:
    toy.crops(tmp_path / "data")
    asked = settings(tmp_path, adapter=adapter, token=token, epochs=6)
    lines: list[str] = []
    done = train(asked, DATE, say=lines.append)
    assert done.results["validation"]["video_auc"]["value"] == 1
    rows = read_log(done.folder)
    assert [line.split(":")[0] for line in lines] == [f"epoch {i}/6" for i in range(1, 7)]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    ours = token == "global"
    assert all(bool(r[name]) == ours for r in rows for name in ("contrast", "alignment", "snr"))


def test_it_learns_nothing_from_nothing(base: Path, tmp_path: Path) -> None:
    toy.crops(tmp_path / "data", people=20, frames=1, signal=0)
    done = train(settings(tmp_path, validation=0.5, epochs=2), DATE)
    assert 0.2 < done.results["validation"]["video_auc"]["value"] < 0.8


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, {"contrast", "alignment", "snr"}),
        ({"contrast": "macl"}, {"contrast", "alignment"}),
        ({"contrast": "none"}, {"alignment"}),
        ({"alignment": "none"}, {"contrast", "snr"}),
        ({"adapter": "effort", "orthogonality": 1.0}, {"contrast", "alignment", "snr", "penalty"}),
    ],
)
def test_the_log_has_the_losses_that_have_a_part(
    base: Path, tmp_path: Path, changes: dict[str, Any], parts: set[str]
) -> None:
    """What each setting does to the weights: test_settings.py."""
    toy.prepared(tmp_path / "data")
    done = train(settings(tmp_path, steps=1, **changes), DATE)
    last = read_log(done.folder)[-1]
    assert {name for name in ("contrast", "alignment", "snr", "penalty") if last[name]} == parts


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_detector_learns_the_same(base: Path, tmp_path: Path) -> None:
    toy.crops(tmp_path / "data")
    plain = settings(tmp_path, steps=2)
    train(plain, DATE)
    train(replace(plain, compile=True, out=tmp_path / "compiled"), DATE)
    one, two = (read_log(tmp_path / name) for name in ("run", "compiled"))
    # Not its weights: Adam's first steps make a whole rate of any gradient, however near to zero.
    for name in ("loss", "classification", "contrast", "alignment", "gradient"):
        from_files = [[float(row[name]) for row in rows] for rows in (one, two)]
        assert from_files[1] == pytest.approx(from_files[0], rel=1e-3)


def test_the_rate_follows_its_schedule(tmp_path: Path) -> None:
    """Four steps up, then half a cosine: at its middle half the rate."""
    plain = settings(tmp_path, lr=1.0)
    assert [plain.rate(s, 10) for s in (0, 9)] == [1.0, 1.0]
    cosine = settings(tmp_path, lr=1.0, schedule="cosine", warmup=4)
    assert [cosine.rate(s, 12) for s in (0, 3, 4, 8)] == pytest.approx([0.25, 1.0, 1.0, 0.5])
    assert cosine.rate(11, 12) == pytest.approx(0.038, abs=1e-3)


def test_the_objective_is_the_sum_it_says(base: Path, tmp_path: Path) -> None:
    asked = settings(tmp_path, flcl=0.5, raal=2.0)
    detector = build(asked, "toy", base)
    crops = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    forged = torch.zeros(4, 16, dtype=torch.bool)
    ranks = Ranks(0, 1, "cpu")
    has_mask = torch.ones(4, dtype=torch.bool)
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0])
    total, terms = step.objective(detector, detector(crops), forged, has_mask, labels, asked, ranks)
    expected = terms["classification"] + 0.5 * terms["contrast"] + 2.0 * terms["alignment"]
    torch.testing.assert_close(total, expected)


# --- what is left ----------------------------------------------------------------------------------


def test_a_run_leaves_a_detector_and_all_that_tells_how_it_came_about(
    base: Path, tmp_path: Path
) -> None:
    toy.crops(tmp_path / "data")
    toy.crops(tmp_path / "crops", people=2)
    asked = settings(tmp_path, test=tmp_path / "crops", name="small")
    done = train(asked, DATE)
    names = {path.name for path in done.folder.iterdir()}
    assert names == {
        *("settings.json", "log.csv", "tensorboard", "state.safetensors", "detector.safetensors"),
        *(
            "crops.csv",
            "curves.png",
            "results.json",
            "predictions-validation.csv",
            "predictions-test.csv",
        ),
    }
    loaded, header = checkpoint.load(done.checkpoint, base)
    assert (
        header.training["results"]
        == done.results
        == json.loads((done.folder / "results.json").read_text("utf-8"))
    )
    assert (header.name, header.training["date"]) == ("small", DATE)
    assert done.results["test"]["videos"] == {"real": 2, "manipulated": 2}
    with (done.folder / "predictions-test.csv").open(encoding="utf-8", newline="") as file:
        from_files = list(csv.DictReader(file))
    labels = np.array([int(line["label"]) for line in from_files])
    logits = np.array([float(line["logit"]) for line in from_files])
    assert metrics.auc(labels, logits) == done.results["test"]["frame_auc"]["value"]
    assert str(tmp_path) not in json.dumps(header.training)  # no places of this machine
    assert loaded.score(np.zeros((1, 256, 256, 3), np.uint8)).logit.shape == (1,)
    learnt, _ = shown(asked)
    reals = torch.stack([torch.from_numpy(picture(r)[0]) for r in learnt if r.label == 0])
    assert loaded.prototypes is not None
    torch.testing.assert_close(loaded.prototypes[0], loaded(reals).patches.mean((0, 1)))
    stated = json.loads((done.folder / "settings.json").read_text("utf-8"))
    assert header.training["digests"] == stated["digests"]
    assert {"torch", "deepscan"} <= stated["versions"].keys()
    assert from_plain(stated["settings"], "here") == asked

    again = train(replace(asked, out=tmp_path / "again"), DATE)
    assert sha256(again.checkpoint) == sha256(done.checkpoint)
    with pytest.raises(OutputError, match="already exists; --resume"):
        train(asked, DATE)


def test_tensorboard_reads_the_events(base: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    toy.crops(tmp_path / "data")
    done = train(settings(tmp_path), DATE)
    events = EventAccumulator(str(done.folder / "tensorboard")).Reload()
    rows = read_log(done.folder)
    assert {"loss", "snr", "validation_video_auc"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("loss")] == [int(r["step"]) for r in rows]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(
        [float(r["loss"]) for r in rows]
    )
