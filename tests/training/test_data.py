"""What a detector is shown: splits, order, blends and views of crops."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from builders import toy
from builders.runs import PLAIN, row, settings
from deepscan.data.crops import read_crops
from deepscan.errors import DataError, SettingsError
from deepscan.training.augment import AugmentSettings
from deepscan.training.data import CropSampler, TrainingCrops, batches, picture
from deepscan.training.run import train
from deepscan.training.splits import blended, split, thin

DATE = "2026-01-31"


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
    with pytest.raises(DataError, match=r"a\.png: .*landmarks.*; remove it from the listing"):
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
    with pytest.raises(SettingsError, match="all with different names"):
        settings(tmp_path, data=(tmp_path / "a" / "x", tmp_path / "b" / "x"))
