"""The page of `deepscan serve` in real Chromium, with the real detector behind it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builders.machine import SHARED
from deepscan.model import weights

pytest.importorskip("fastapi", reason="the extra serve is not installed")

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

# What Chromium itself says of an answer that refuses.
REFUSAL = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")

Visit = Callable[..., Any]

NAME = "<b>it's a clip &amp;.mp4"
KEPT = "_b_it's a clip &amp;.mp4"  # without what file systems act on


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server, as a user starts it; it takes 20 MB."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "weights").symlink_to(weights.cache_folder())
    with subprocess.Popen(
        [sys.executable, "-m", "deepscan", "serve", "--port", "0", "--offline", "--max-size", "20"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DEEPSCAN_CACHE": str(cache)},
    ) as process:
        assert process.stderr is not None
        yield process.stderr.readline().split()[1]
        process.terminate()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Footage from a camera where there is some, else the demo's clip; under a name that is markup."""
    path = tmp_path_factory.mktemp("clip") / NAME
    real = SHARED / "clips" / "real" / "liveportrait_d19.mp4"
    if real.exists():
        shutil.copy(real, path)
    else:
        from deepscan.verification import sample as demo

        demo.write(path)
    return path


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Visit]:
    """Opens the page; fails the test on any console message, error, alert or request elsewhere."""
    contexts, trouble = [], []

    def opened(viewport: dict[str, int] = DESK, **options: Any) -> Any:
        context = chromium.new_context(viewport=viewport, **options)
        contexts.append(context)
        view = context.new_page()
        view.on("console", lambda m: REFUSAL.match(m.text) or trouble.append(f"console: {m.text}"))
        view.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        view.on("dialog", lambda dialog: (trouble.append("dialog"), dialog.dismiss()))
        view.on(
            "request",
            lambda request: (
                request.url.startswith((address.partition("?")[0], "data:"))
                or trouble.append(f"request: {request.url}")
            ),
        )
        view.goto(address)
        return view

    yield opened
    for context in contexts:
        context.close()
    assert trouble == []


def card(view: Any, name: str) -> Any:
    """The newest clip of this name."""
    return view.locator(".job", has=view.get_by_role("heading", name=name, exact=True)).first


@pytest.mark.slow
def test_a_clip_is_dropped_watched_and_its_report_read(visit: Visit, clip: Path) -> None:
    view = visit()
    view.get_by_label("Case", exact=True).fill("12/26")
    # A drop from another program, as the page sees it.
    data = view.evaluate_handle("new DataTransfer()")
    data.evaluate(
        "(data, [name, bytes]) => data.items.add(new File([Uint8Array.from(bytes)], name))",
        [NAME, list(clip.read_bytes())],
    )
    view.dispatch_event("h1", "drop", {"dataTransfer": data})
    mine = card(view, KEPT)
    assert mine.get_by_role("progressbar").get_attribute("aria-label") == f"Progress of {KEPT}"
    mine.get_by_text("looking at the clip, frame").wait_for(timeout=120_000)
    mine.get_by_role("link", name="Read the report").wait_for(timeout=120_000)
    assert re.match(
        "Manipulation indicated|No manipulation indicated|Inconclusive",
        mine.locator(".finding").inner_text(),
    )
    assert KEPT in view.get_by_role("status").inner_text()  # said to screen readers
    with view.expect_download() as taken:
        mine.get_by_role("link", name="Download everything").click()
    assert taken.value.suggested_filename.endswith(".zip")
    mine.get_by_role("link", name="Read the report").click()
    report = view.frame_locator("#report")  # beside the list
    assert report.locator("h1").inner_text() == KEPT
    assert report.locator(".case dd").first.inner_text() == "12/26"
    assert mine.is_visible()
    report.get_by_role("button", name=re.compile("^Step through")).click()
    view.keyboard.press("m")  # its script runs under the policy it is served with
    assert report.locator("#map").get_attribute("aria-pressed") == "true"
    view.keyboard.press("Escape")
    (inner,) = (frame for frame in view.frames if frame.name or "report.html" in frame.url)
    assert inner.evaluate("self.origin") == "null"  # and can ask this server for nothing
    assert (
        report.locator("#files + .outputs a[href]").count() == 0
    )  # so its links would lead nowhere
    view.get_by_role("button", name="Back to the clips").click()
    assert view.locator("#reading").is_hidden()
    assert mine.get_by_role("link", name="Read the report").evaluate(
        "link => link === document.activeElement"
    )
    mine.get_by_role("button", name="Remove").click()
    mine.get_by_role("button", name="Yes, remove it").click()
    mine.get_by_role("button", name="Undo").click()
    mine.get_by_role("link", name="Read the report").wait_for()


def test_refusals_are_told_in_words(visit: Visit, tmp_path: Path) -> None:
    view = visit()
    (tmp_path / "letter.mp4").write_bytes(b"%PDF-1.7\n" + bytes(9_000_000))
    (tmp_path / "film.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(21_000_000))
    (tmp_path / "nothing.mp4").touch()
    view.locator("#files").set_input_files(sorted(tmp_path.iterdir()))
    for name, words in (
        ("letter.mp4", "not a video or picture that deepscan knows"),
        ("film.mp4", "larger than the 20.0 MB that this server accepts"),
        ("nothing.mp4", "The file is empty"),
    ):
        mine = card(view, name)
        mine.get_by_text("Not taken").wait_for()
        assert words in mine.locator(".sentence").inner_text()
        mine.get_by_role("button", name="Dismiss").click()
        mine.wait_for(state="detached")
    assert view.locator("#none").is_visible()


def test_a_file_that_cannot_be_analysed_says_why(visit: Visit, tmp_path: Path) -> None:
    view = visit()
    (tmp_path / "cut.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(9_000))
    view.locator("#files").set_input_files(tmp_path / "cut.mp4")
    mine = card(view, "cut.mp4")
    mine.get_by_text("Not analysed").wait_for(timeout=120_000)
    assert "without its index" in mine.locator(".sentence").inner_text()
    assert mine.get_by_role("link", name="Read the report").is_hidden()
    mine.get_by_role("button", name="Remove").click()
    mine.get_by_role("button", name="Yes, remove it").click()
    mine.get_by_text("Deleted in").wait_for()


def test_all_of_it_works_by_keyboard(visit: Visit, tmp_path: Path) -> None:
    view = visit()
    # From here on, not from when one is expected: a busy browser was told of that after the key.
    view.on("filechooser", lambda chooser: None)
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.7\n" + bytes(9_000))
    reached = []
    for _ in range(6):
        view.keyboard.press("Tab")
        reached.append(
            view.evaluate("document.activeElement.id || document.activeElement.className")
        )
    assert reached == ["skip", "case", "exhibit", "examiner", "notes", "files"]
    view.keyboard.press("Shift+Tab")
    view.keyboard.press("Tab")
    outline = "getComputedStyle(document.getElementById('drop')).outlineStyle"
    assert view.evaluate(outline) == "solid"  # focus is seen on the field that it stands in
    with view.expect_file_chooser() as chooser:
        view.keyboard.press("Space")
    chooser.value.set_files(tmp_path / "letter.pdf")
    button = card(view, "letter.pdf").get_by_role("button", name="Dismiss: letter.pdf")
    button.focus()
    view.keyboard.press("Enter")
    assert view.evaluate("document.activeElement.id") == "files"  # not lost with the card


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_window(visit: Visit, tmp_path: Path, viewport: Any, scheme: str) -> None:
    view = visit(viewport, color_scheme=scheme, reduced_motion="reduce")
    (tmp_path / f"{'w' * 90}.pdf").write_bytes(b"%PDF-1.7\n")
    view.locator("#files").set_input_files(tmp_path / f"{'w' * 90}.pdf")
    view.locator(".finding").get_by_text("Not taken").wait_for()
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert view.evaluate(wide) == 0
    paper = view.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) > 380) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit: Visit, tmp_path: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    view = visit(color_scheme=scheme, bypass_csp=True)
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.7\n")
    view.locator("#files").set_input_files(tmp_path / "letter.pdf")
    view.locator(".finding").get_by_text("Not taken").wait_for()
    found = axe.run(view).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


def test_without_script_it_says_what_to_do(visit: Visit) -> None:
    view = visit(java_script_enabled=False)
    assert view.get_by_text("switched off").is_visible()
    assert view.locator("#files").is_hidden()
