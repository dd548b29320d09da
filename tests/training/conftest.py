"""What the tests of training share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builders import toy
from deepscan.model import tower, weights


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """The toy base, known to this process for one test."""
    before = toy.install(tmp_path / "base")
    yield tmp_path / "base" / "toy.safetensors"
    tower.tower_size, weights.catalogue = before  # type: ignore[assignment]
