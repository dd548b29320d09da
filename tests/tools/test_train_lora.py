"""The shipped detector is what its recipe makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import toy
from deepscan.config import load_toml
from deepscan.data.crops import read_crops
from deepscan.errors import DataError
from deepscan.model import tower, weights
from deepscan.model.header import read_header
from deepscan.training.settings import TrainSettings, from_plain
from deepscan.verification import sample as demo
from tools import train_lora
from tools.train_lora import material, trained, with_landmarks


def test_b16_lora_was_trained_by_the_recipe_that_lies_beside_it() -> None:
    recipe = load_toml(weights.shipped_folder() / "recipe.toml")
    asked = from_plain(recipe | {"data": "data", "out": "out"}, "recipe.toml")
    header = read_header(weights.detector_file("b16-lora"))
    assert header.name == recipe["name"]
    # Settings that have come since are at their defaults, which change nothing.
    kept = from_plain(header.training["recipe"] | {"data": "data", "out": "out"}, "the header")
    assert asked.recipe() == kept.recipe()


def test_material_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    with pytest.raises(DataError, match="faces: not there; --material names the folder"):
        material(tmp_path, tmp_path / "out")


def test_real_crops_get_the_landmarks_of_their_faces(tmp_path: Path) -> None:
    portrait = demo.portrait().resize((256, 256))
    for kind, name in (("real", "000_0"), ("fake", "000_001_0")):
        (tmp_path / "crops" / kind).mkdir(parents=True)
        portrait.save(tmp_path / "crops" / kind / f"{name}.jpg", quality=95)
    Image.new("RGB", (256, 256)).save(tmp_path / "crops" / "real" / "002_0.jpg")
    with_landmarks(tmp_path / "crops", tmp_path / "out")
    found = {row.path.stem: row.landmarks for row in read_crops(tmp_path / "out")}
    assert found["002_0"] is None  # black: nobody is there
    assert found["000_001_0"] is None
    assert found["000_0"] is not None
    left_eye, right_eye, nose, *mouth = np.load(found["000_0"])
    assert left_eye[0] < nose[0] < right_eye[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(corner[1] for corner in mouth)


@pytest.fixture
def recipe(tmp_path: Path) -> Iterator[TrainSettings]:
    """A recipe of seconds on made-up people."""
    before = toy.install(tmp_path / "base")
    data = toy.crops(tmp_path / "data")
    yield TrainSettings(
        (data,), tmp_path / "run", base="toy", heads=4, epochs=1, batch=8, workers=0, validation=0.34,
        precision="float32",
    )  # fmt: skip
    tower.tower_size, weights.catalogue = before  # type: ignore[assignment]


def broken_off(recipe: TrainSettings) -> None:
    """Begin the run and end it at the first line it says."""

    class Enough(Exception): ...

    def enough(line: str) -> None:
        raise Enough

    with pytest.raises(Enough):
        trained(recipe, enough)
    assert not (recipe.out / "results.json").exists()


def test_a_run_goes_on_only_by_the_recipe_it_began_with(recipe: TrainSettings) -> None:
    broken_off(recipe)
    with pytest.raises(DataError, match="started with another recipe; give another --out"):
        trained(replace(recipe, lr=1e-3), print)
    with pytest.raises(DataError, match="started with another recipe"):
        trained(replace(recipe, augment=replace(recipe.augment, blur=0.9)), print)
    assert trained(replace(recipe, workers=1), print).checkpoint.is_file()


def test_a_run_goes_on_on_the_device_asked_for(
    recipe: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder says cpu, where it began."""
    broken_off(recipe)
    asked: list[str | None] = []
    monkeypatch.setattr(
        train_lora, "resume", lambda run, say, device=None: asked.append(device) or run
    )
    for device in ("cpu", "cuda:1"):
        trained(replace(recipe, device=device), print)
    assert asked == ["cpu", "cuda:1"]
