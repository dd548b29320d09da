"""How a shipped detector learns to read copies without detail by a quarter of the tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import evidence_material as made
from deepscan.files import sha256
from deepscan.model import checkpoint, tower, weights
from deepscan.model.catalogue import BaseEntry
from deepscan.model.detector import Detector, without_detail
from deepscan.model.header import DetectorSettings, Header
from tools.evidence import coarse, train
from tools.evidence.material import Material

CPU = torch.device("cpu")
MIXTURES = 4  # a few


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow tower of three layers with CLIP's number of patches, in float32."""
    size = tower.TowerSize(224, 16, 32, 3, 16, head_width=8, quick_gelu=True)
    monkeypatch.setattr(tower, "tower_size", {"tiny-vit": size}.__getitem__)
    monkeypatch.setattr(train, "computes_bfloat16", lambda: False)
    monkeypatch.setattr(coarse, "MIXTURES", MIXTURES)
    torch.manual_seed(0)


@pytest.fixture
def crops(tmp_path: Path) -> Material:
    return made.material(tmp_path / "pack.zip")


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkpoint that reads copies at full size, of logits as wide as a trained detector's."""
    chosen = DetectorSettings(
        tower="tiny-vit",
        heads=4,
        adapter="lora",
        layers=(2, 3),
        prior=True,
        reference=0.5,
        view=0.6,
    )
    detector = Detector(chosen)
    detector.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        detector.head.weight.mul_(30)
    base = tmp_path / "base.safetensors"
    plain = tower.Tower("tiny-vit").visual.state_dict()
    own = detector.tower.visual.state_dict()
    save_file({name: own[name] for name in plain}, base)
    size, digest = base.stat().st_size, sha256(base)
    entry = BaseEntry("tiny", "tiny-vit", "tests", "none", "float32", str(base), digest, size, {})
    monkeypatch.setattr(weights, "base_by_hash", {digest: entry}.__getitem__)
    monkeypatch.setattr(weights, "base_file", lambda entry: Path(entry.file))
    header = Header("tiny", chosen, {"name": "tiny", "sha256": digest}, {"data": "made up"}, "")
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, detector, header)
    return path


def test_what_is_told_is_what_the_detector_finds_in_copies_at_full_size(
    shipped: Path, crops: Material
) -> None:
    """Of people that are not held out twice, as they are and changed, and mixed; of those held out once."""
    detector = coarse.coarse_of(shipped, CPU)
    learnt, held = coarse.told_of(detector, crops)
    assert len(learnt) == 2 * (crops.fold != 0).sum() + MIXTURES
    assert len(held) == (crops.fold == 0).sum() > 0
    whole = torch.nn.functional.interpolate(held.copies, (224, 224), mode="bilinear") / 255
    with torch.no_grad():
        wanted = detector.answer(whole)
    torch.testing.assert_close(held.logit, wanted.logit, atol=1e-4, rtol=1e-4)
    assert wanted.evidence is not None
    first = wanted.evidence.view(-1, 14, 14)[:, :2, :2].sum((1, 2))
    torch.testing.assert_close(held.evidence[:, 0], first, atol=1e-4, rtol=1e-3)


def test_mixtures_have_the_larger_part_of_one_copy_and_are_mirrored_half_of_the_time() -> None:
    """Of two copies, one black, one white on its left: a quarter are white with white."""
    left = torch.zeros(3, 56, 56)
    left[:, :, :28] = 255
    mixed = coarse.mixtures(torch.stack([left, 0 * left]), 200)
    bright = mixed[:, 0, 0, [0, -1]]
    assert torch.equal(mixed * 16, (mixed * 16).round())
    assert (bright.min(1).values == 0).all()
    of_itself = bright.max(1).values == 255  # white with white
    assert 0.1 < of_itself.float().mean() < 0.4
    assert 0.3 < (bright[of_itself, 0] == 255).float().mean() < 0.7


def test_views_are_kept_to_the_bit(tmp_path: Path) -> None:
    copies = torch.randint(0, 255 * 16, (2, 3, 56, 56)) / 16
    told = coarse.Told(copies, torch.randn(2), torch.randn(2, 49))
    coarse.write(tmp_path / "views.npz", told, told.of(torch.tensor([1])))
    learnt, held = coarse.read(tmp_path / "views.npz")
    assert torch.equal(learnt.copies, copies)
    assert torch.equal(learnt.evidence, told.evidence)
    assert torch.equal(held.logit, told.logit[1:])


def test_it_learns_to_say_the_same_and_nothing_else_changes(shipped: Path, crops: Material) -> None:
    detector = coarse.coarse_of(shipped, CPU)
    learnt, held = coarse.told_of(detector, crops)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    _, at_first = coarse.against(detector, learnt)
    rows = list(coarse.teach(detector, learnt, held, steps=60))
    assert [row[0] for row in rows] == [0, 59]
    correlation, in_the_end = coarse.against(detector, learnt)
    assert in_the_end < 0.7 * at_first
    assert correlation > 0.9
    changed = {
        name
        for name, value in detector.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {f"coarse.{name}" for name in detector.coarse.state_dict()}


def test_the_command_keeps_what_it_learnt_for_ship(
    shipped: Path, crops: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coarse.material, "load", lambda *_, **__: crops)
    monkeypatch.setattr(coarse, "Decoders", lambda *_: None)
    out = tmp_path / "out"
    coarse.main([str(tmp_path / "pack.zip"), str(out), "--weights", str(shipped), "--steps", "2"])
    assert (out / "log.csv").read_text().startswith("step,loss,held_correlation")
    monkeypatch.setattr(coarse.material, "load", None)  # the second time views are there
    first = load_file(out / "coarse.safetensors")
    coarse.main([str(tmp_path / "pack.zip"), str(out), "--weights", str(shipped), "--steps", "2"])
    again = load_file(out / "coarse.safetensors")
    assert first.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    start = ["--start", str(out / "coarse.safetensors")]
    coarse.main(
        [str(tmp_path / "pack.zip"), str(out), "--weights", str(shipped), "--steps", "2", *start]
    )
    on = load_file(out / "coarse.safetensors")
    assert not torch.equal(on["positions"], first["positions"])


def test_copies_at_full_size_are_what_small_ones_are_brought_back_to() -> None:
    image = torch.rand(1, 3, 224, 224)
    small = coarse.shrunk(image)
    again = torch.nn.functional.interpolate(small, (224, 224), mode="bilinear")
    assert torch.equal(again, without_detail(image))
