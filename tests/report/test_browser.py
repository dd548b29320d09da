"""The pages in a real browser: Debian's Chromium, driven by Playwright. `make test-browser` installs it.

Where either is missing these tests skip themselves and say so.
"""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from builders import reports
from builders.browser import DESK, PHONE, Open, serious, sideways
from deepscan.report import json as report_json
from deepscan.report import page

# --- the timeline ----------------------------------------------------------------------------------


def test_pointing_at_a_curve_tells_time_score_and_shows_the_face(
    visit: Open, report_page: Path
) -> None:
    view = visit(report_page)
    plot = view.locator(".plot[data-track='1']")
    plot.scroll_into_view_if_needed()
    place = plot.bounding_box()
    view.mouse.move(place["x"] + place["width"] * 11 / 32, place["y"] + 20)
    tip = view.locator("#tip")
    assert tip.inner_text().split() == ["0:02.750", "+2.60"]
    assert tip.locator(".crop use:visible").count() == 1  # plain: no map was asked for
    assert view.locator(".cursor").count() == 2  # through both curves
    view.mouse.move(5, 5)
    assert tip.is_hidden()


def test_a_click_opens_the_frame_and_escape_goes_back(visit: Open, report_page: Path) -> None:
    view = visit(report_page)
    plot = view.locator(".plot[data-track='2']")
    plot.scroll_into_view_if_needed()
    width = plot.bounding_box()["width"]
    plot.click(position={"x": width * 8 / 32, "y": 10})
    viewer = view.locator("#viewer")
    assert viewer.locator("h2").inner_text() == "0:02.000, frame 8"
    assert viewer.locator(".boxes rect").count() == 2
    assert viewer.locator(".heat").count() == 2
    assert viewer.locator(".heat:visible").count() == 0
    view.keyboard.press("Escape")
    assert viewer.is_hidden()


def test_the_timeline_is_read_and_opened_from_the_keyboard(visit: Open, report_page: Path) -> None:
    view = visit(report_page)
    plot = view.get_by_role("slider", name=re.compile("Face 1: 32 scores"))
    plot.focus()
    view.keyboard.press("Home")
    assert plot.get_attribute("aria-valuetext") == "0:00.000, score \u22125.00, below the limits"
    for _ in range(11):
        view.keyboard.press("ArrowRight")
    assert plot.get_attribute("aria-valuetext") == "0:02.750, score +2.60, above the limits"
    assert view.locator("#tip").is_visible()
    view.keyboard.press("Enter")
    assert view.locator("#viewer-title").inner_text() == "0:02.750, frame 11"
    view.keyboard.press("ArrowRight")
    assert view.locator("#viewer-title").inner_text() == "0:03.000, frame 12"
    view.keyboard.press("Escape")
    assert plot.evaluate("element => element === document.activeElement")


def test_where_no_picture_was_kept_the_nearest_is_shown_and_named(
    visit: Open, tmp_path: Path
) -> None:
    report, kept = reports.made(1, 300, seconds=Fraction(60))
    view = visit(page.write(report_json.to_dict(report), tmp_path, kept))
    plot = view.locator(".plot")
    plot.focus()
    for key in ("Home", "ArrowRight"):  # instant 1; frame 0 is kept, and so is frame 10
        view.keyboard.press(key)
    assert "picture of 0:00.0, the nearest kept" in view.locator("#tip").inner_text()


def test_a_strip_is_one_stop_for_tab_and_arrows_go_along_it(visit: Open, report_page: Path) -> None:
    view = visit(report_page)
    cells = view.locator("#face-1 .cell")
    assert cells.count() == 32
    assert view.locator("#face-1 .cell[tabindex='-1']").count() == 31
    cells.first.focus()
    view.keyboard.press("ArrowRight")
    view.keyboard.press("Enter")
    assert view.locator("#viewer-title").inner_text() == "0:00.250, frame 1"


def test_everything_can_be_reached_by_tab_and_shows_its_focus(
    visit: Open, report_page: Path
) -> None:
    view = visit(report_page)
    reached = []
    for _ in range(14):
        view.keyboard.press("Tab")
        reached.append(
            view.evaluate(
                """() => { const e = document.activeElement, style = getComputedStyle(e);
                const name = e.id || e.getAttribute('class') || e.tagName;
                return [name, style.outlineStyle, style.outlineWidth] }"""
            )
        )
    kinds = [kind.split()[0] for kind, _, _ in reached]
    assert kinds == [
        "skip",
        *["A"] * 5,  # the contents
        "print",
        *["plain"] * 2,  # the face, without and with its map
        "plot",
        "map-none",
        "plain",  # the first card's picture
        "SUMMARY",
        "cell",
    ]
    assert {(style, width) for _, style, width in reached} == {("solid", "2px")}


def test_links_open_what_is_folded(visit: Open, report_page: Path) -> None:
    view = visit(report_page)
    assert view.locator("#calibration dl").is_hidden()
    view.goto(f"{report_page.as_uri()}#calibration")
    assert view.locator("#calibration dl").is_visible()
    view.get_by_role("link", name="report.json").scroll_into_view_if_needed()
    assert view.get_by_role("link", name="report.json").is_visible()


def test_all_headings_and_pictures_have_words(visit: Open, report_page: Path) -> None:
    view = visit(report_page)
    assert view.locator("img:not([alt])").count() == 0
    assert view.locator("main svg:not([aria-hidden]):not([role]):not(svg svg)").count() == 0
    levels = view.locator("h1, h2, h3").evaluate_all("all => all.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert view.locator("button").evaluate_all(
        "all => all.every(b => b.getAttribute('aria-label') || b.textContent.trim())"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit: Open, report_page: Path, scheme: str) -> None:
    """axe-core, in the page as it opens, with everything unfolded, and in the viewer."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    view = visit(report_page, color_scheme=scheme, bypass_csp=True)
    view.locator("details").evaluate_all("all => all.forEach(d => d.open = true)")
    assert serious(axe.run(view)) == []
    view.get_by_role("button", name="Step through 32 frames").click()
    assert serious(axe.run(view)) == []


# --- any reader ------------------------------------------------------------------------------------


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_window(visit: Open, report_page: Path, viewport: Any, scheme: str) -> None:
    view = visit(report_page, viewport, color_scheme=scheme, reduced_motion="reduce")
    assert sideways(view) == 0
    paper = view.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) > 380) == (scheme == "light")
    assert view.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_without_script_the_page_is_whole(visit: Open, report_page: Path) -> None:
    view = visit(report_page, java_script_enabled=False)
    assert view.locator(".curve").count() >= 2
    assert view.locator(".run-label").first.text_content() == "0:02 to 0:03"
    assert view.locator("#face-1 .cell .crop:visible").count() == 32
    assert view.locator(".only-live:visible").count() == 0


def test_it_prints_on_a4_with_nothing_to_operate(visit: Open, report_page: Path) -> None:
    view = visit(report_page, color_scheme="dark")
    data = view.pdf(prefer_css_page_size=True, print_background=True)
    assert data.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", data)) <= 9
    (box,) = set(re.findall(rb"/MediaBox \[([^\]]*)\]", data))
    assert [round(float(v)) for v in box.split()] == [0, 0, 595, 842]
    view.emulate_media(media="print")
    for leftover in (".only-live", "#tip", "#viewer", "nav", ".film"):
        assert view.locator(f"{leftover}:visible").count() == 0, leftover
    assert view.locator(".plot").first.is_visible()
    ink = view.evaluate("getComputedStyle(document.body).color")
    assert sum(map(int, re.findall(r"\d+", ink))) < 150  # dark ink, though the screen is dark


@pytest.mark.slow
def test_ten_minutes_and_five_people_open(visit: Open, tmp_path: Path) -> None:
    """What makes it quick is in test_page.py: the page stops growing with the instants looked at."""
    report, kept = reports.made(5, 1200, seconds=Fraction(600))
    view = visit(page.write(report_json.to_dict(report), tmp_path, kept))
    assert view.evaluate("document.readyState") == "complete"
    assert view.locator(".plot").first.is_visible()


# --- hostile input ---------------------------------------------------------------------------------


def test_names_tags_and_notes_are_text_and_nothing_else(visit: Open, tmp_path: Path) -> None:
    name = reports.HOSTILE.replace("/", "")
    report, kept = reports.made(text=reports.HOSTILE, path=f"clips/{name}.mp4")
    path = page.write(report_json.to_dict(report), tmp_path, kept)
    for viewport in (PHONE, DESK):
        view = visit(path, viewport)
        shown = reports.HOSTILE.replace("\u202e", "U+202E").replace("\u2066", "U+2066")
        shown = shown.replace("\x07", "U+0007")
        assert view.locator(".notes dd").evaluate("e => e.textContent") == f"{shown}\nsecond line"
        assert "<img src=x onerror=alert(2)>" in view.locator("h1").inner_text()
        assert view.locator("script").count() == 2
        assert view.locator("img[src=x]").count() == 0
        assert view.title().startswith("<script>alert(1)<script>")
        assert sideways(view) == 0
