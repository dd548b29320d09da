"""Copies read at their own resolution: what is halved, what is spread, what adds up, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deepscan.errors import SettingsError
from deepscan.files import sha256
from deepscan.model import checkpoint
from deepscan.model.coarse import CoarseTower, shrunk
from deepscan.model.detector import Detector
from deepscan.model.header import DetectorSettings, Header
from deepscan.model.packed import pack
from deepscan.model.size import size
from deepscan.model.tower import Tower


@pytest.fixture
def detector(tiny_tower: str) -> Detector:
    """Of crops of 32 pixels by patches of 8; copies have 8 pixels, by patches of 4: two by two."""
    torch.manual_seed(0)
    chosen = DetectorSettings(
        tower=tiny_tower, heads=4, prior=True, layers=(2, 3), reference=0.5, coarse=True
    )
    made = Detector(chosen).eval()
    made.initialise(torch.Generator().manual_seed(0))
    return made


@pytest.fixture
def crops(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (3, 32, 32, 3), np.uint8)


def test_it_starts_as_the_tower_with_images_of_twice_the_size(detector: Detector) -> None:
    """A pixel weighs as much as the two by two of its size; LayerNorms are the tower's."""
    copies = torch.randn(2, 3, 8, 8)
    twice = copies.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(
        detector.coarse.embedding(copies), detector.tower.visual.conv1(twice)
    )
    norms = [n for block in detector.tower.visual.blocks() for n in (block.ln_1, block.ln_2)]
    for own, towers in zip(detector.coarse.norms, norms, strict=True):
        assert torch.equal(own.weight, towers.weight)
    assert detector.coarse.positions.shape == (1 + 4, detector.tower.width)
    assert detector.coarse.place is not None
    assert detector.aggregation.place is not None
    squares = detector.aggregation.place.view(4, 4, 4)
    torch.testing.assert_close(detector.coarse.place[:, 0], squares[:, :2, :2].mean((1, 2)))


def test_evidence_of_a_patch_is_spread_evenly_on_the_four_it_stands_for(detector: Detector) -> None:
    found = detector.coarse.spread(torch.tensor([[4.0, 8.0, -4.0, 0.0]]))
    row, below = [1.0, 1, 2, 2], [-1.0, -1, 0, 0]
    assert found.tolist() == [row + row + below + below]


def test_a_share_of_its_logit_is_taken_off_and_the_map_still_adds_up(
    detector: Detector, crops: np.ndarray
) -> None:
    found = detector.score(crops)
    images = detector.images(torch.from_numpy(crops))
    with torch.no_grad():
        alone, copy = detector.answer(images), detector.of_small_copy(shrunk(images))
    np.testing.assert_allclose(found.logit, alone.logit - copy.logit / 2, atol=1e-5)
    np.testing.assert_array_equal(found.query_attention, alone.query_attention)
    np.testing.assert_allclose(found.evidence.sum(1) + found.constant, found.logit, atol=1e-5)


def test_the_map_of_some_patches_adds_up_as_well(detector: Detector, crops: np.ndarray) -> None:
    with torch.no_grad():
        answer = detector(torch.from_numpy(crops), torch.tensor([0, 5, 6, 11]))
    assert answer.evidence is not None
    assert answer.constant is not None
    torch.testing.assert_close(answer.evidence.sum(1) + answer.constant, answer.logit)


def test_without_queries_cls_is_read(tiny_tower: str, crops: np.ndarray) -> None:
    chosen = DetectorSettings(
        tower=tiny_tower, token="cls", layers=(3,), reference=0.5, coarse=True
    )
    detector = Detector(chosen).eval()
    detector.initialise(torch.Generator().manual_seed(0))
    images = detector.images(torch.from_numpy(crops))
    with torch.no_grad():
        wanted = detector.answer(images).logit - detector.of_copy(images).logit / 2
    np.testing.assert_allclose(detector.score(crops).logit, wanted, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_kept_in_the_checkpoint_and_runs_packed(
    detector: Detector, crops: np.ndarray, tmp_path: Path, dtype: torch.dtype
) -> None:
    base = tmp_path / "base.safetensors"
    save_file({k: v.detach() for k, v in detector.tower.visual.state_dict().items()}, base)
    header = Header("tiny", detector.settings, {"name": "", "sha256": sha256(base)}, {"x": 1}, "")
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, detector, header)
    assert {name.split(".")[0] for name in load_file(path)} == {
        "aggregation", "coarse", "head", "readers",
    }  # fmt: skip
    again, _ = checkpoint.load(path, base, dtype)
    pack(again.tower)
    apart = 1e-5 if dtype == torch.float32 else 0.05
    np.testing.assert_allclose(again.score(crops).logit, detector.score(crops).logit, atol=apart)


def test_it_takes_a_quarter_of_the_operations() -> None:
    whole = DetectorSettings(reference=0.5, depth=10, layers=(6, 8, 10), view=0.6)
    alone = size(replace(whole, reference=0.0)).flops_complete
    copy = size(replace(whole, coarse=True)).flops_complete - alone
    assert size(whole).flops_complete == 2 * alone
    assert 0.22 < copy / alone < 0.25


def test_what_cannot_be_read_coarsely_is_refused() -> None:
    with pytest.raises(SettingsError, match="coarse: needs a reference"):
        DetectorSettings(coarse=True, layers=(12,))
    with pytest.raises(SettingsError, match="coarse: needs a reference"):
        DetectorSettings(coarse=True, reference=0.5)
    with torch.device("meta"):
        tower = Tower("ViT-B-32-quickgelu")
    with pytest.raises(SettingsError, match="patches of 32 pixels in 224 cannot be halved"):
        CoarseTower(tower, (12,), 8)
