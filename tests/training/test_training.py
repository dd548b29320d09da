"""The loop on a tiny tower: what it shows, what it learns, what it leaves, and what it survives."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from builders import toy
from deepscan.cli import run as cli
from deepscan.data.crops import CropRow, read_crops
from deepscan.errors import DataError, OutputError, SettingsError
from deepscan.files import sha256
from deepscan.judgement import metrics
from deepscan.model import checkpoint, processor, tower, weights
from deepscan.training import loop, step
from deepscan.training.augment import AugmentSettings
from deepscan.training.data import CropSampler, TrainingCrops, batches, picture
from deepscan.training.folder import RunFolder
from deepscan.training.rows import shown
from deepscan.training.run import build, resume, train
from deepscan.training.settings import TrainSettings, from_files, from_plain
from deepscan.training.splits import blended, split, thin
from deepscan.training.step import Ranks

DATE = "2026-01-31"
PLAIN = AugmentSettings(flip=0, zoom=0, colour=0, blur=0, resize=0, jpeg=0)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """The toy base, known to this process for one test."""
    before = toy.install(tmp_path / "base")
    yield tmp_path / "base" / "toy.safetensors"
    tower.tower_size, weights.catalogue = before  # type: ignore[assignment]


def settings(tmp_path: Path, **changes: Any) -> TrainSettings:
    plain: dict[str, Any] = {
        "base": "toy",
        "heads": 4,
        "precision": "float32",
        "lr": 3e-3,
        "batch": 8,
        "epochs": 2,
        "workers": 0,
        "validation": 0.34,
        "augment": PLAIN,
    }
    return TrainSettings(
        **{"data": (tmp_path / "data",), "out": tmp_path / "run"} | plain | changes
    )


def row(name: str, label: int, frame: int = 0, **more: Any) -> CropRow:
    plain: dict[str, Any] = {
        "video": f"{label}/{name}",
        "source": name,
        "group": name,
        "method": "fake" if label else "real",
        "split": "",
        "mask": None,
        "landmarks": None,
    }
    return CropRow(
        path=Path(f"{label}_{name}_{frame}.png"), label=label, frame=frame, **plain | more
    )


# --- what is shown ---------------------------------------------------------------------------------


def test_videos_are_thinned_evenly() -> None:
    rows = [row("a", 0, i) for i in range(9)] + [row("b", 1, i) for i in range(2)]
    assert [(r.video, r.frame) for r in thin(reversed(rows), 3)] == [
        ("1/b", 0),
        ("1/b", 1),
        ("0/a", 0),
        ("0/a", 4),
        ("0/a", 8),
    ]


def test_the_datas_own_splits_are_kept() -> None:
    rows = [row(s, label, split=s) for s in ("train", "val", "test") for label in (0, 1)]
    learn, val = split([rows], 0.5, seed=0)
    assert {r.split for r in learn} == {"train"}
    assert {r.split for r in val} == {"val"}


def test_a_video_that_is_tested_on_is_neither_learnt_nor_selected_by() -> None:
    """As DeepfakeBench lists Celeb-DF: val equals test, and train holds everything."""
    everything = [row(str(i), label, split="train") for i in range(8) for label in (0, 1)]
    shown_again = [replace(r, split=s) for r in everything[:4] for s in ("val", "test")]
    learn, val = split([everything + shown_again], 0.34, seed=0)
    assert not {r.video for r in everything[:4]} & {r.video for r in learn + val}
    assert {r.group for r in learn} | {r.group for r in val} == set("234567")
    assert not {r.group for r in learn} & {r.group for r in val}


def test_without_splits_whole_groups_are_held_out_by_seed() -> None:
    rows = [row(str(i % 10), label, i) for i in range(40) for label in (0, 1)]
    learn, val = split([rows], 0.2, seed=0)
    assert len({r.group for r in val}) == 2
    assert not {r.group for r in val} & {r.group for r in learn}
    assert split([rows[::-1]], 0.2, seed=0)[1][::-1] == val
    assert len({frozenset(r.group for r in split([rows], 0.2, s)[1]) for s in range(10)}) > 1
    with pytest.raises(DataError, match=r"1 group\(s\) of people cannot be split"):
        split([[row("a", 0), row("a", 1)]], 0.2, seed=0)
    with pytest.raises(DataError, match="both classes are needed"):
        split([[row(str(i), 0) for i in range(5)]], 0.2, seed=0)


def test_each_manipulation_comes_once_a_pass_beside_its_own_original() -> None:
    reals = [row(n, 0, f) for n in "abc" for f in (0, 1)]
    fakes = [row(n, 1, f) for n in "abc" for f in (0, 1)] + [row("a", 1, 7), row("z", 1)]
    order = CropSampler(reals + fakes, pseudo=0.0, seed=0)
    first, second = ([order.unit(n) for n in range(k, k + 8)] for k in (0, 8))
    for units in (first, second):
        assert Counter(u.fake for u in units) == Counter(fakes)
    assert [u.fake for u in first] != [u.fake for u in second]
    for unit in first:
        if unit.fake.source == "z":  # no original here: any real crop
            continue
        assert unit.real.source == unit.fake.source
        if unit.fake.frame != 7:  # not cut from the original
            assert unit.real.frame == unit.fake.frame
    assert [order.unit(n) for n in range(8)] == first
    assert [CropSampler(reals + fakes, 0.0, seed=1).unit(n).fake for n in range(8)] != [
        u.fake for u in first
    ]


def test_pseudo_fakes_are_blended_from_real_crops_alone() -> None:
    reals, fakes = [row(n, 0) for n in "abcd"], [row("a", 1)]
    units = [CropSampler(reals + fakes, 0.5, seed=0).unit(n) for n in range(200)]
    assert 70 < sum(unit.fake.method == "self-blended" for unit in units) < 130
    alone = CropSampler(reals, 1.0, seed=0)
    assert {alone.unit(n).real.source for n in range(4)} == set("abcd")
    with pytest.raises(DataError, match="both classes are needed"):
        CropSampler(reals, 0.5, seed=0)


def test_real_crops_alone_are_enough(base: Path, tmp_path: Path) -> None:
    """With --pseudo 1 both sides get their manipulated crops from the real ones, the same in every run."""
    shutil.rmtree(toy.crops(tmp_path / "data") / "fake")
    (tmp_path / "data" / "fake").mkdir()
    with pytest.raises(DataError, match="0 manipulated crops; both classes are needed"):
        train(settings(tmp_path), DATE)
    done = train(settings(tmp_path, pseudo=1.0, epochs=1), DATE)
    assert done.results["validation"]["videos"] == {"real": 2, "manipulated": 2}
    one = blended(read_crops(tmp_path / "data")[0])
    pixels, forged = picture(one)
    assert np.array_equal(pixels, picture(one)[0])
    assert 0 < forged.mean() < 0.6


def test_batches_are_the_same_for_all_who_share_them(tmp_path: Path) -> None:
    """Two processes, one worker, or a start in the middle: each unit is what it is."""
    rows = read_crops(toy.crops(tmp_path))
    dataset = TrainingCrops(CropSampler(rows, 0.25, 0), AugmentSettings(), toy.SIZE)
    torch.manual_seed(7)
    whole = list(batches(dataset, 0, 3, units=4, rank=0, world=1, workers=0))
    left, right = (list(batches(dataset, 0, 3, 4, rank, 2, workers=0)) for rank in (0, 1))
    late = list(batches(dataset, 2, 3, units=4, rank=0, world=1, workers=1))
    for (crops, forged, *_), (a, fa, *_), (b, fb, *_) in zip(whole, left, right, strict=True):
        assert crops.shape == (8, 256, 256, 3)
        assert torch.equal(crops, torch.cat([a, b]))
        assert torch.equal(forged, torch.cat([fa, fb]))
        assert not forged[::2].any()  # real crops come first of each two
    assert torch.equal(late[0][0], whole[2][0])
    assert torch.random.initial_seed() == 7


def test_a_mask_is_told_patch_by_patch(tmp_path: Path) -> None:
    Image.new("RGB", (256, 256)).save(tmp_path / "crop.png")
    mask = np.zeros((256, 256), np.uint8)
    mask[64:128, :100] = 255  # in a grid of 4 x 4: the second row, one patch whole and one 56 %
    Image.fromarray(mask).save(tmp_path / "mask.png")
    real = replace(row("a", 0), path=tmp_path / "crop.png")
    fake = replace(row("a", 1), path=tmp_path / "crop.png", mask=tmp_path / "mask.png")
    _, forged, has_mask, _ = TrainingCrops(CropSampler([real, fake], 0.0, 0), PLAIN, toy.SIZE)[0]
    assert has_mask.tolist() == [True, True]
    assert forged.nonzero().tolist() == [[1, 4], [1, 5]]


def test_a_view_shows_the_face_wherever_its_landmarks_say_it_is(tmp_path: Path) -> None:
    """A face in a corner, all of it manipulated: the closest view shows it and no more."""
    mask = np.zeros((256, 256), np.uint8)
    mask[180:244, 180:244] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.new("RGB", (256, 256), (90, 90, 90)).save(tmp_path / "crop.png")
    np.save(tmp_path / "face.npy", np.array([(180.0, 180.0), (243.9, 200.0), (210.0, 243.9)]))
    real = replace(row("a", 0), path=tmp_path / "crop.png", landmarks=tmp_path / "face.npy")
    fake = replace(row("a", 1), path=tmp_path / "crop.png", mask=tmp_path / "mask.png")
    near = replace(PLAIN, zoom=1.0, zoom_keeps=(0.25, 0.25))
    _, forged, _, _ = TrainingCrops(CropSampler([real, fake], 0.0, 0), near, toy.SIZE)[0]
    assert forged[1].all()


def test_a_crop_that_cannot_be_blended_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (256, 256)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.zeros((7, 2)))  # of no known kind
    real = replace(row("a", 0), path=tmp_path / "a.png", landmarks=tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"a\.png: .*landmarks.*; take it out of the listing"):
        picture(blended(real))


def test_an_unreadable_crop_is_named(tmp_path: Path) -> None:
    rows = read_crops(toy.crops(tmp_path, people=2, frames=1))
    rows[0].path.write_bytes(rows[0].path.read_bytes()[:300])
    dataset = TrainingCrops(CropSampler(rows[::2], 0.0, 0), PLAIN, toy.SIZE)
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"^\S*real/000_0\.jpg: not a readable picture[^\n]*$"):
            list(batches(dataset, 0, 1, 1, 0, 1, workers))


def test_each_folder_is_divided_by_itself(base: Path, tmp_path: Path) -> None:
    """Two folders that name their people alike stay apart; each gives some to validation."""
    folders = (toy.crops(tmp_path / "one"), toy.crops(tmp_path / "two"))
    done = train(settings(tmp_path, data=folders, epochs=1), DATE)
    with (done.folder / "predictions-validation.csv").open(encoding="utf-8", newline="") as file:
        videos = {line["video"] for line in csv.DictReader(file)}
    assert len(videos) == 2 * 2 * 2  # of each folder one of 3 groups: two people, both classes
    assert {video.split("/")[0] for video in videos} == {"one", "two"}
    stated = json.loads((done.folder / "settings.json").read_text("utf-8"))
    assert set(stated["digests"]) == {"data/one", "data/two"}
    with pytest.raises(SettingsError, match="all named differently"):
        settings(tmp_path, data=(tmp_path / "a" / "x", tmp_path / "b" / "x"))


# --- what is learnt --------------------------------------------------------------------------------


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


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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
    with pytest.raises(OutputError, match="already there; --resume"):
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


# --- what it survives ------------------------------------------------------------------------------


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
    with pytest.raises(DataError, match="not those the run began with"):
        resume(asked.out)
    with pytest.raises(SettingsError, match="not a run of deepscan train"):
        resume(tmp_path / "data")


# --- what is refused -------------------------------------------------------------------------------


def test_missing_data_is_named_before_anything_runs(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data"):
        train(settings(tmp_path), DATE)
    toy.crops(tmp_path / "data")
    with pytest.raises(DataError, match="none"):
        train(settings(tmp_path, test=tmp_path / "none"), DATE)
    with pytest.raises(SettingsError, match="base: 'other' is none of toy"):
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
        ("batch = 'many'", "batch: 'many' is no int"),
        ("epochs = true", "epochs: True is no int"),
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
    assert "the run's own settings" in capsys.readouterr().err


def test_the_folder_is_written_at_its_places(tmp_path: Path, base: Path) -> None:
    folder = RunFolder(tmp_path / "file" / "run")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        folder.create(settings(tmp_path), {}, DATE)
