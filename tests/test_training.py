import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import clips
from deepscan.errors import DataError, OutputError, SettingsError
from deepscan.files import sha256
from deepscan.manifest import PairRow, read_crops, read_pairs
from deepscan.model import checkpoint, tower, weights
from deepscan.model.detector import Detector
from deepscan.model.header import DetectorSettings
from deepscan.training import loop
from deepscan.training.data import (
    MIN_CHANGE,
    Augmentation,
    AugmentSettings,
    CutCount,
    TokenBank,
    check_pictures,
    cut_pairs,
    token_bank,
)
from deepscan.training.loop import TrainSettings, fit, split_bank, split_groups, train

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
DATE = "2026-01-31"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of a base whose tower is tiny and random, known to the manifest and in the cache."""
    size = tower.TowerSize(32, 16, 32, 1, 16, head_width=16, quick_gelu=True)
    monkeypatch.setattr(tower, "tower_size", {"toy": size}.__getitem__)
    monkeypatch.setenv("DEEPSCAN_CACHE", str(tmp_path / "cache"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = Detector(DetectorSettings(tower="toy")).tower.visual.state_dict()
    file = tmp_path / "cache" / "weights" / "toy.safetensors"
    file.parent.mkdir(parents=True)
    save_file(state, file)
    entry = weights.BaseEntry(
        "toy", "toy", "tests", "none", "float32", file.name, sha256(file), file.stat().st_size, {}
    )
    known = weights.Manifest("toy", {"toy": entry}, {})
    monkeypatch.setattr(weights, "manifest", lambda: known)
    return "toy"


def detector(seed: int = 0) -> Detector:
    made = Detector(DetectorSettings(tower="toy", heads=2))
    loop.initialise(made, torch.Generator().manual_seed(seed))
    return made


def bank(signal: float, clips_: int = 10, frames: int = 4, views: int = 2) -> TokenBank:
    """Random patches; those of manipulated crops are shifted by `signal` along the first four axes."""
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(clips_ * frames, views, 2, 4, 32, generator=generator)
    patches[:, :, 1, :, :4] += signal
    names = tuple(f"clip{i // frames}" for i in range(clips_ * frames))
    return TokenBank(names, names, patches.half())


def settings(tmp_path: Path, **changes: Any) -> TrainSettings:
    plain: dict[str, Any] = {"epochs": 5, "heads": 2, "precision": "float32", "lr": 5e-3}
    return TrainSettings(tmp_path / "data", tmp_path / "run", **plain | changes)


# --- data ------------------------------------------------------------------------------------------


def portrait() -> np.ndarray:
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((256, 300)))


def swapped(picture: np.ndarray, amount: int = 60) -> np.ndarray:
    """The portrait with another complexion."""
    other = picture.astype(int)
    other[40:170, 70:190, 1] += amount
    return np.clip(other, 0, 255).astype(np.uint8)


def pair_clip(path: Path, left: np.ndarray, right: np.ndarray) -> None:
    clips.write(path, [np.hstack([left, right])] * 3)


def pairs_folder(folder: Path, count: int) -> Path:
    folder.mkdir()
    names = [f"c{i}" for i in range(count)]
    for i, name in enumerate(names):
        shaded = np.clip(portrait() * (0.8 + 0.1 * i), 0, 255).astype(np.uint8)
        pair_clip(folder / f"{name}.mp4", shaded, swapped(shaded))
    lines = [f"{name},pair,{name}" for name in names]
    (folder / "pairs.csv").write_text("\n".join(["name,kind,source_group", *lines]), "utf-8")
    return folder


def crops_folder(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("real/000_0", "real/001_0", "fake/000_001_0", "fake/001_000_0"):
        path = folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), np.uint8)).save(path)
    return folder


def test_both_halves_are_cut_at_the_same_place(tmp_path: Path) -> None:
    pair_clip(tmp_path / "a.mp4", portrait(), swapped(portrait()))
    pairs, count = cut_pairs([PairRow(tmp_path / "a.mp4", "a", "g")], 2, "cpu")
    assert count == CutCount(sampled=2, cut=2, damaged=0, faceless=0, unswapped=0)
    one = pairs[0]
    assert (one.name, one.group, one.real.shape) == ("a", "g", (256, 256, 3))
    change = one.fake[64:224, 48:208].astype(int) - one.real[64:224, 48:208]
    assert change[..., 1].mean() > 30 > abs(change[..., 0].mean())
    # Beside the face both halves show the same.
    assert np.abs(one.fake[:20].astype(int) - one.real[:20]).mean() < MIN_CHANGE


def test_frames_that_fail_are_counted(tmp_path: Path) -> None:
    pair_clip(tmp_path / "good.mp4", portrait(), swapped(portrait()))
    pair_clip(tmp_path / "same.mp4", portrait(), portrait())
    pair_clip(tmp_path / "empty.mp4", np.full_like(portrait(), 90), portrait())
    rows = [PairRow(tmp_path / f"{n}.mp4", n, n) for n in ("good", "same", "empty")]
    pairs, count = cut_pairs(rows, 2, "cpu")
    assert {pair.name for pair in pairs} == {"good"}
    assert count == CutCount(sampled=6, cut=2, damaged=0, faceless=2, unswapped=2)
    with pytest.raises(DataError, match="of 2 frames 0 are damaged, 2 show no face"):
        cut_pairs(rows[2:], 2, "cpu")


def test_a_clip_that_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"a\.mp4: .*take it out of pairs\.csv"):
        cut_pairs([PairRow(tmp_path / "a.mp4", "a", "g")], 2, "cpu")


def test_test_pictures_are_checked_before_training(tmp_path: Path) -> None:
    rows = read_crops(crops_folder(tmp_path))
    check_pictures(rows)
    Image.new("RGB", (100, 80)).save(rows[2].path)
    with pytest.raises(DataError, match=r"000_001_0\.jpg: 100 x 80 pixels, others are 256 x 256"):
        check_pictures(rows)
    rows[1].path.write_bytes(rows[1].path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"001_0\.jpg: not a readable picture"):
        check_pictures(rows)


def test_augmentation_comes_from_its_generator_and_may_do_nothing() -> None:
    picture = portrait()[:256, :256]
    assert np.array_equal(Augmentation().apply(picture), picture)
    drawn = [
        [Augmentation.draw(AugmentSettings(), rng) for _ in range(50)]
        for rng in map(np.random.default_rng, (3, 3, 4))
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    for one in drawn[0][:10]:
        changed = one.apply(picture)
        assert changed.shape == picture.shape
        assert np.array_equal(changed, one.apply(picture))
    flips = np.mean([one.flip for one in drawn[0]])
    assert 0.3 < flips < 0.7
    assert all(40 <= one.jpeg <= 100 for one in drawn[0] if one.jpeg is not None)


def test_each_change_does_what_its_name_says() -> None:
    picture = portrait()[:256, :256]
    assert np.array_equal(Augmentation(flip=True).apply(picture), picture[:, ::-1])
    corner = Augmentation(zoom=(0.5, 0.0, 0.0)).apply(picture)
    assert np.abs(corner[1::2, 1::2].astype(int) - picture[:128, :128]).mean() < 6
    detail = np.abs(np.diff(picture.astype(int), axis=0)).mean()
    for change in (Augmentation(blur=2.0), Augmentation(resize=0.3)):
        assert np.abs(np.diff(change.apply(picture).astype(int), axis=0)).mean() < 0.8 * detail
    grey = Augmentation(colour=(1.0, 1.0, 1e-6)).apply(picture).astype(int)
    assert np.abs(grey[..., 0] - grey[..., 1]).max() <= 1
    assert not np.array_equal(Augmentation(jpeg=40).apply(picture), picture)


@pytest.mark.parametrize("change", [{"flip": 1.5}, {"zoom_keeps": (0.9, 0.6)}])
def test_senseless_augmentation_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(change))):
        AugmentSettings(**change)


def test_the_bank_holds_view_0_unaugmented(toy: str, tmp_path: Path) -> None:
    pair_clip(tmp_path / "a.mp4", portrait(), swapped(portrait()))
    pairs, _ = cut_pairs([PairRow(tmp_path / "a.mp4", "a", "g")], 2, "cpu")
    made = detector().eval()
    found = token_bank(made, pairs, 3, AugmentSettings(), np.random.default_rng(0))
    assert found.patches.shape == (2, 3, 2, 4, 32)
    assert found.patches.dtype == torch.float16
    with torch.inference_mode():
        plain = made.tokens(torch.from_numpy(np.stack([pairs[1].real, pairs[1].fake]))).patches
    torch.testing.assert_close(found.patches[1, 0].float(), plain, atol=5e-3, rtol=1e-3)
    assert not torch.equal(found.patches[1, 0], found.patches[1, 1])


# --- loop ------------------------------------------------------------------------------------------


def test_the_loop_learns_what_can_be_told_apart(toy: str, tmp_path: Path) -> None:
    made, tokens = detector(), bank(signal=1.0)
    before = {k: v.clone() for k, v in made.tower.state_dict().items()}
    learning, validating = split_bank(tokens, {"clip8", "clip9"})
    log, selected = fit(
        made, tokens, learning, validating, settings(tmp_path), np.random.default_rng(0)
    )
    assert [row.epoch for row in log] == [1, 2, 3, 4, 5]
    assert log[selected - 1].validation_video_auc == 1
    assert log[-1].train_loss < 0.3 < log[0].train_loss
    ties = [row for row in log if row.validation_video_auc == 1]
    assert selected == min(ties, key=lambda row: row.validation_loss).epoch
    assert all(torch.equal(v, before[k]) for k, v in made.tower.state_dict().items())
    stored = made.trained_state()
    assert all(torch.equal(v, v.half().float()) for v in stored.values())


def test_the_loop_learns_nothing_from_nothing(toy: str, tmp_path: Path) -> None:
    made, tokens = detector(), bank(signal=0.0, clips_=40)
    learning, validating = split_bank(tokens, {f"clip{i}" for i in range(20)})
    log, _ = fit(
        made, tokens, learning, validating, settings(tmp_path, epochs=2), np.random.default_rng(0)
    )
    assert abs(np.mean([row.validation_video_auc for row in log]) - 0.5) < 0.2


def test_the_same_seed_gives_the_same_weights(toy: str, tmp_path: Path) -> None:
    def weights_of(seed: int) -> dict[str, torch.Tensor]:
        made, tokens = detector(seed), bank(signal=0.5)
        learning, validating = split_bank(tokens, {"clip8", "clip9"})
        rng = np.random.default_rng(seed)
        fit(made, tokens, learning, validating, settings(tmp_path, epochs=2), rng)
        return made.trained_state()

    first, again, other = weights_of(0), weights_of(0), weights_of(1)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_a_loss_that_is_no_number_stops_training(toy: str, tmp_path: Path) -> None:
    tokens = bank(signal=1.0)
    tokens.patches[0] = torch.nan
    learning, validating = split_bank(tokens, {"clip8", "clip9"})
    with pytest.raises(DataError, match=r"diverged: the loss is nan in epoch 1; lower --lr"):
        fit(detector(), tokens, learning, validating, settings(tmp_path), np.random.default_rng(0))


def test_groups_are_split_whole_by_seed() -> None:
    groups = [str(i % 10) for i in range(40)]
    held = split_groups(groups, 0.2, seed=0)
    assert len(held) == 2
    assert held == split_groups(reversed(groups), 0.2, seed=0)
    assert len({frozenset(split_groups(groups, 0.2, seed)) for seed in range(10)}) > 1
    learning, validating = split_bank(bank(1.0), {"clip3"})
    assert (len(learning), len(validating)) == (36, 4)


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 source group\(s\) cannot be split"):
        split_groups(["a", "a"], 0.2, seed=0)
    with pytest.raises(DataError, match="from any validation clip"):
        split_bank(bank(1.0), {"somebody else"})


@pytest.mark.parametrize(
    "change",
    [
        {"adapter": "lora"},
        {"batch": 15},
        {"epochs": 0},
        {"lr": 0.0},
        {"weight_decay": -1.0},
        {"validation": 1.0},
        {"precision": "float16"},
        {"device": "auto"},
    ],
)
def test_senseless_settings_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(change))):
        settings(tmp_path, **change)


# --- the whole run ---------------------------------------------------------------------------------


def test_a_run_from_clips_to_a_checkpoint(toy: str, tmp_path: Path) -> None:
    pairs_folder(tmp_path / "data", 3)
    crops_folder(tmp_path / "crops")
    asked = settings(
        tmp_path,
        base=toy,
        test=tmp_path / "crops",
        name="small",
        epochs=2,
        frames=2,
        views=2,
        licence_note="made for this test",
    )
    told: list[str] = []
    run = train(asked, DATE, lambda what, done, total: told.append(what.split(" (")[0]))
    assert list(dict.fromkeys(told)) == [
        "cutting clips",
        "frozen tower",
        "training",
        "judging the test set",
    ]
    made = {path.name for path in run.folder.iterdir()}
    assert made == {"detector.safetensors", "results.json", "settings.json", "log.csv"}
    assert json.loads((run.folder / "results.json").read_text("utf-8")) == run.results
    assert run.results["groups"] == {"train": 2, "validation": 1}
    assert run.results["crop_pairs"]["cut"] == 6
    assert run.results["test"]["videos"] == {"real": 2, "manipulated": 2}
    with (run.folder / "log.csv").open(encoding="utf-8", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    stated = json.loads((run.folder / "settings.json").read_text("utf-8"))
    assert stated["settings"]["seed"] == 0
    assert {"torch", "deepscan"} <= stated["versions"].keys()

    base = weights.base_file(weights.manifest().bases[toy], offline=True)
    loaded, header = checkpoint.load(run.checkpoint, base)
    assert header.training["results"] == run.results
    assert (header.name, header.training["date"]) == ("small", DATE)
    assert header.training["digests"] == stated["digests"]
    assert str(tmp_path) not in json.dumps(header.training)  # no places of this machine
    assert loaded.score(np.zeros((1, 256, 256, 3), np.uint8)).logit.shape == (1,)

    again = train(replace(asked, out=tmp_path / "again"), DATE)
    assert sha256(again.checkpoint) == sha256(run.checkpoint)
    with pytest.raises(OutputError, match="already there"):
        train(asked, DATE)


def test_missing_data_is_named_before_anything_runs(toy: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pairs\.csv: no such file"):
        train(settings(tmp_path, base=toy), DATE)
    pairs_folder(tmp_path / "data", 2)
    with pytest.raises(DataError, match="real: no such folder"):
        train(settings(tmp_path, base=toy, test=tmp_path / "none"), DATE)
    with pytest.raises(SettingsError, match="base: 'other' is none of toy"):
        train(settings(tmp_path, base="other"), DATE)
    assert not (tmp_path / "run").exists()


def test_the_digest_sees_every_byte_and_name(tmp_path: Path) -> None:
    for name in ("a", "b", "unused"):
        (tmp_path / name).write_text(name, "utf-8")
    used = [tmp_path / "b", tmp_path / "a"]
    digest = loop.data_digest(tmp_path, used)
    (tmp_path / "unused").write_text("other", "utf-8")
    assert loop.data_digest(tmp_path, reversed(used)) == digest
    (tmp_path / "a").write_text("other", "utf-8")
    assert loop.data_digest(tmp_path, used) != digest


@pytest.mark.shared
def test_of_two_people_the_swapped_one_is_cut() -> None:
    """In Tim_Chrys_2 two faces are seen, and the larger one is nobody's swap."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    rows = [row for row in read_pairs(SHARED / "pairs") if row.name == "Tim_Chrys_2"]
    _, count = cut_pairs(rows, 4, "cpu")
    assert count == CutCount(sampled=4, cut=4, damaged=0, faceless=0, unswapped=0)
