"""The shipped detector is what its recipe makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepscan.config import load_toml
from deepscan.errors import DataError
from deepscan.model import weights
from deepscan.model.header import read_header
from deepscan.train_default import material
from deepscan.training.settings import from_plain


def test_the_shipped_detector_was_trained_by_the_recipe_that_lies_beside_it() -> None:
    recipe = load_toml(weights.shipped_folder() / "recipe.toml")
    asked = from_plain(recipe | {"data": "data", "out": "out"}, "recipe.toml")
    header = read_header(weights.detector_file("default"))
    assert header.name == recipe["name"]
    # As JSON, in which the header keeps it: ranges are lists there.
    assert json.loads(json.dumps(asked.recipe())) == header.training["recipe"]


def test_material_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    with pytest.raises(DataError, match="faces: not there; --material names the folder"):
        material(tmp_path, tmp_path / "out")
