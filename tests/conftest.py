"""What several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.machine import CHROMIUM, SHARED
from deepscan.cli import preferences
from deepscan.verification import sample as demo


@pytest.fixture(scope="session", autouse=True)
def nobodys_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and processes they start, see no settings of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("no-settings")))
        for name in [n for n in os.environ if n.startswith(preferences.PREFIX)]:
            if name not in preferences.OTHER_VARIABLES:
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """../shared/data, beside the checkout; tests that want it are skipped where it is not."""
    if not SHARED.is_dir():
        pytest.skip("../shared/data is not here")
    return SHARED


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's clip: one face, manipulated from 2 s to 4 s of 8."""
    path = tmp_path_factory.mktemp("sample") / "sample.mp4"
    demo.write(path)
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, one for all tests of a file."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: make test-browser"
    )
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: make test-browser")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def tiny_tower(monkeypatch: pytest.MonkeyPatch) -> str:
    """`toy.add_tiny_tower` for one test."""
    from builders import toy  # imports torch, which most tests do without

    return toy.add_tiny_tower(monkeypatch)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
