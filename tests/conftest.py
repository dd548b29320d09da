"""What several test files share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deepscan import demo

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {},
}


@pytest.fixture(scope="session")
def shared() -> Path:
    """../shared/data, beside the checkout; tests that want it are skipped where it is not."""
    if not SHARED.is_dir():
        pytest.skip("../shared/data is not here")
    return SHARED


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's clip: one face, manipulated from 2 s to 4 s of 6."""
    path = tmp_path_factory.mktemp("sample") / "sample.mp4"
    demo.write(path)
    return path


@pytest.fixture(scope="session")
def tiny_tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of a plain ViT of three small layers, known to open_clip for this session."""
    import open_clip

    folder = tmp_path_factory.mktemp("towers")
    (folder / "tiny-vit.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    return "tiny-vit"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
