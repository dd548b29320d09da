"""Checkpoints: they round-trip, hold nothing of the base, and are refused where they differ."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deepscan.errors import WeightsMismatch
from deepscan.files import sha256
from deepscan.model import checkpoint, weights
from deepscan.model.detector import Detector
from deepscan.model.header import FORMAT, PREPROCESSING, DetectorSettings, Header, read_header


@pytest.fixture
def saved(tiny_tower: str, tmp_path: Path) -> tuple[Path, Path, Detector]:
    """A tiny detector's checkpoint, its base file, and the detector itself."""
    torch.manual_seed(0)
    detector = Detector(DetectorSettings(tower=tiny_tower, heads=4)).eval()
    base = tmp_path / "base.safetensors"
    save_file({k: v.detach() for k, v in detector.tower.visual.state_dict().items()}, base)
    header = Header(
        name="tiny",
        settings=detector.settings,
        base={"name": "tiny", "sha256": sha256(base)},
        training={"data": "made up"},
        licence="Apache-2.0",
    )
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, detector, header)
    return path, base, detector


def test_a_checkpoint_round_trips(
    saved: tuple[Path, Path, Detector], rng: np.random.Generator
) -> None:
    path, base, detector = saved
    again, header = checkpoint.load(path, base)
    crops = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_allclose(again.score(crops).logit, detector.score(crops).logit, atol=1e-6)
    assert header == read_header(path)
    assert header.training == {"data": "made up"}


def test_a_checkpoint_holds_what_was_trained_and_nothing_of_the_base(
    saved: tuple[Path, Path, Detector],
) -> None:
    names = load_file(saved[0]).keys()
    assert {name.split(".")[0] for name in names} == {"aggregation", "head"}


def test_prototypes_are_kept_where_there_are_any(saved: tuple[Path, Path, Detector]) -> None:
    path, base, detector = saved
    assert checkpoint.load(path, base)[0].prototypes is None
    means = torch.arange(2.0 * detector.tower.width).view(2, -1)
    checkpoint.write(path, {**load_file(path), "prototypes": means}, read_header(path))
    again, _ = checkpoint.load(path, base)
    assert again.prototypes is not None
    assert torch.equal(again.prototypes, means)


def test_int8_bases_are_multiplied_out(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    codes = torch.tensor([[1, -2], [3, 127]], dtype=torch.int8)
    save_file({"w": codes, "w.scale": torch.tensor([0.5, 2.0]), "b": torch.tensor([1.0])}, path)
    base = checkpoint.read_base(path)
    torch.testing.assert_close(base["w"], torch.tensor([[0.5, -1.0], [6.0, 254.0]]))
    assert base.keys() == {"w", "b"}


def rewritten(path: Path, tensors: dict[str, torch.Tensor], **changes: Any) -> None:
    """Write the checkpoint anew with other tensors or header fields."""
    header = {
        "format": FORMAT,
        "preprocessing": PREPROCESSING,
        **asdict(read_header(path)),
        **changes,
    }
    save_file(tensors, path, {"deepscan": json.dumps(header)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "deepscan.checkpoint/2"}, "deepscan.checkpoint/2"),
        (
            {"preprocessing": {**PREPROCESSING, "crop_side": 224}},
            "aligned or normalised differently",
        ),
        ({"settings": {"tower": "ViT-B-16", "colour": 3}}, "colour"),
        ({"settings": {"token": "none"}}, "token"),
        ({"training": {}}, "does not score with untrained weights"),
        ({"base": {"name": "other", "sha256": "0" * 64}}, "needs a base with SHA-256 0000"),
    ],
)
def test_a_header_that_differs_is_refused(
    saved: tuple[Path, Path, Detector], changes: dict[str, Any], words: str
) -> None:
    path, base, _ = saved
    rewritten(path, load_file(path), **changes)
    with pytest.raises(WeightsMismatch, match=words):
        checkpoint.load(path, base)


def test_tensors_that_differ_are_refused(saved: tuple[Path, Path, Detector]) -> None:
    path, base, _ = saved
    good = load_file(path)
    without = {name: value for name, value in good.items() if name != "head.bias"}
    for tensors, words in (
        (without, "missing: .*head.bias"),
        ({**good, "head.extra": torch.zeros(1)}, "unexpected: .*head.extra"),
        ({**good, "head.bias": torch.zeros(2)}, "head.bias has shape"),
        ({**good, "head.bias": torch.tensor([float("nan")])}, "not finite"),
        ({**good, "prototypes": torch.zeros(2, 3)}, "prototypes has shape"),
    ):
        rewritten(path, tensors)
        with pytest.raises(WeightsMismatch, match=words):
            checkpoint.load(path, base)


def test_pickles_and_broken_files_are_never_opened(
    saved: tuple[Path, Path, Detector], tmp_path: Path
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    path, base, _ = saved
    whole = path.read_bytes()
    for content in (pickle.dumps(Bomb()), b"", whole[:-10], b"\xff" * 64, whole[:9]):
        path.write_bytes(content)
        with pytest.raises(WeightsMismatch, match="not a safetensors file"):
            checkpoint.load(path, base)
    assert not (tmp_path / "exploded").exists()


def test_another_tools_safetensors_file_is_refused(
    saved: tuple[Path, Path, Detector],
) -> None:
    path, base, _ = saved
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsMismatch, match="not a deepscan checkpoint"):
        checkpoint.load(path, base)


def test_a_checkpoint_needs_no_import(saved: tuple[Path, Path, Detector]) -> None:
    with pytest.raises(
        WeightsMismatch, match=r"a deepscan checkpoint \(tiny\), .* use it with --weights"
    ):
        weights.import_file(saved[0])
