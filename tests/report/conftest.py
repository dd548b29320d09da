"""Opens pages in Debian's Chromium, for the tests of what is seen and operated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import reports
from builders.browser import DESK, Open
from deepscan.report import json as report_json
from deepscan.report import page


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """Opens a file as a user would; fails the test on any console message, error, alert or request."""
    contexts, trouble = [], []

    def opened(path: Path, viewport: dict[str, int] = DESK, **options: Any) -> Any:
        context = chromium.new_context(viewport=viewport, **options)
        contexts.append(context)
        view = context.new_page()
        view.on("console", lambda message: trouble.append(f"console: {message.text}"))
        view.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        view.on("dialog", lambda dialog: (trouble.append("dialog"), dialog.dismiss()))
        view.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:"))
                else trouble.append(f"request: {request.url}")
            ),
        )
        view.goto(path.as_uri())
        return view

    yield opened
    for context in contexts:
        context.close()
    assert trouble == []


@pytest.fixture(scope="module")
def report_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, 32 instants, face 1 raised from 2.50 s to 3.25 s."""
    report, kept = reports.made()
    return page.write(report_json.to_dict(report), tmp_path_factory.mktemp("page"), kept)
