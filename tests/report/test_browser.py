"""The pages in a real browser: Debian's Chromium, driven by Playwright. `make test-browser` installs it.

Where either is missing these tests skip themselves and say so.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from builders import reports
from deepscan.batches import index
from deepscan.batches.outcomes import Outcome
from deepscan.errors import UnreadableInput
from deepscan.report import json as report_json
from deepscan.report import page

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

Open = Callable[..., Any]


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


def sideways(view: Any) -> int:
    """Pixels by which the page is wider than its window."""
    return view.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


# --- the timeline ----------------------------------------------------------------------------------


def test_pointing_at_a_curve_tells_time_logit_and_shows_the_crop(
    visit: Open, report_page: Path
) -> None:
    view = visit(report_page)
    plot = view.locator(".plot[data-track='1']")
    plot.scroll_into_view_if_needed()
    place = plot.bounding_box()
    view.mouse.move(place["x"] + place["width"] * 11 / 32, place["y"] + 20)
    tip = view.locator("#tip")
    assert tip.inner_text().split() == ["0:02.750", "+2.60"]
    assert tip.locator("img:visible").count() == 2  # the crop, and its evidence
    assert view.locator(".cursor").count() == 2  # through both lanes
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
    assert viewer.locator(".heat image.first").count() == 2
    view.keyboard.press("Escape")
    assert viewer.is_hidden()


def test_the_timeline_is_read_and_opened_from_the_keyboard(visit: Open, report_page: Path) -> None:
    view = visit(report_page)
    plot = view.get_by_role("slider", name=re.compile("Face 1: 32 logits"))
    plot.focus()
    view.keyboard.press("Home")
    assert (
        plot.get_attribute("aria-valuetext") == "0:00.000, logit \u22125.00, below the thresholds"
    )
    for _ in range(11):
        view.keyboard.press("ArrowRight")
    assert plot.get_attribute("aria-valuetext") == "0:02.750, logit +2.60, above the thresholds"
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
    for key in ("Home", "ArrowRight"):  # instant 1; frame 0 is kept, and so is frame 7
        view.keyboard.press(key)
    assert "picture of 0:00.000, the nearest kept" in view.locator("#tip").inner_text()


# --- frames, strips, slider ------------------------------------------------------------------------


def test_the_slider_uncovers_the_frame(visit: Open, report_page: Path) -> None:
    view = visit(report_page)
    slide = view.locator("#heatmaps .slide")
    slide.focus()
    view.keyboard.press("End")
    clip = "element => getComputedStyle(element).clipPath"
    heat = view.locator("#heatmaps .heat")
    assert heat.evaluate(clip) == "inset(0px 0px 0px 100%)"  # frame alone
    view.keyboard.press("Home")
    assert heat.evaluate(clip) == "inset(0px 0px 0px 0%)"
    stack = view.locator("#heatmaps .stack")
    stack.click(position={"x": stack.bounding_box()["width"] / 4, "y": 50})
    assert slide.input_value() == "25"


def test_attention_is_a_switch_away_from_evidence(visit: Open, report_page: Path) -> None:
    view = visit(report_page)
    layers = view.locator("#heatmaps .heat image")
    caveat = view.locator("#heatmaps .caveat:visible")
    assert [layers.nth(i).is_visible() for i in range(2)] == [True, False]
    assert "adds up to the score" in caveat.inner_text()
    view.get_by_label("Attention", exact=True).check()
    assert [layers.nth(i).is_visible() for i in range(2)] == [False, True]
    assert "where the model looked" in caveat.inner_text()
    assert view.locator("#face-1 .cell").first.locator(".over:visible").count() == 1


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
                return [e.getAttribute('class') || e.tagName, style.outlineStyle, style.outlineWidth] }"""
            )
        )
    kinds = [kind.split()[0] for kind, _, _ in reached]
    assert (
        kinds
        == [
            "skip",
            *["plain"] * 3,
            *["A", "plot"] * 2,
            *["cell"] * 2,
            "INPUT",  # the switch between the maps
            "slide",
            *kinds[12:],
        ]
    )
    assert {(style, width) for _, style, width in reached[:12]} == {("solid", "2px")}


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
    assert view.locator(".run-label").first.text_content() == "0:02.500\u20130:03.250"
    assert view.locator("#face-1 .cell img:visible").count() == 64
    assert view.locator(".only-live").is_hidden()


def test_it_prints_on_a4_with_nothing_to_operate(visit: Open, report_page: Path) -> None:
    view = visit(report_page, color_scheme="dark")
    data = view.pdf(prefer_css_page_size=True, print_background=True)
    assert data.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", data)) <= 9
    (box,) = set(re.findall(rb"/MediaBox \[([^\]]*)\]", data))
    assert [round(float(v)) for v in box.split()] == [0, 0, 595, 842]
    view.emulate_media(media="print")
    for leftover in (".slide", ".divider", ".only-live", "#tip", "#viewer"):
        assert view.locator(leftover).first.is_hidden(), leftover
    assert view.locator(".plot").first.is_visible()
    assert view.evaluate("getComputedStyle(document.querySelector('.heat')).clipPath") == "none"
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


# --- the index of a batch --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three reports that are there, one with a name that needs quoting, and a failure."""
    out = tmp_path_factory.mktemp("batch")
    results: list[Outcome] = []
    for name, people, raised in (
        ("b.mp4", 1, -9.0),
        ("a 50% <b>&#?.mp4", 2, 9.0),
        ("c.mp4", 0, 0.0),
    ):
        report, kept = reports.made(
            people, 12, path=name, logit=lambda track, i, raised=raised: raised - track
        )
        (out / name).mkdir()
        page.write(report_json.to_dict(report), out / name, kept)
        results.append(Outcome.of(Path(name), replace(report, folder=out / name)))
    failed = UnreadableInput("d.mp4: <script>alert(3)</script> no video")
    results.append(Outcome.of(Path("d.mp4"), failed))
    return index.write(out, results)


def names(view: Any) -> list[str]:
    """First words of the rows shown, from the top."""
    return [
        text.split()[0]
        for text in view.locator("tbody tr:visible td:first-child").all_inner_texts()
    ]


def test_the_index_sorts_filters_and_leads_to_each_report(visit: Open, batch: Path) -> None:
    view = visit(batch)
    assert names(view) == ["b.mp4", "a", "c.mp4", "d.mp4"]
    view.get_by_role("button", name="Input").click()
    assert names(view) == ["a", "b.mp4", "c.mp4", "d.mp4"]
    view.get_by_role("button", name="Score").click()
    assert names(view)[:2] == ["a", "b.mp4"]  # the highest first, those without a score last
    view.get_by_role("button", name="Score").click()
    assert names(view)[:2] == ["b.mp4", "a"]
    view.locator("#finding").select_option("error")
    assert names(view) == ["d.mp4"]
    assert view.locator("#found").inner_text() == "1 of 4 shown"
    view.locator("#finding").select_option("")
    view.locator("#words").fill("50%")
    assert names(view) == ["a"]
    view.get_by_role("link", name="a 50% <b>&#?.mp4").click()
    assert view.locator(".verdict").inner_text() == "Manipulation indicated"


def test_the_index_fits_a_phone_and_works_without_script(visit: Open, batch: Path) -> None:
    assert sideways(visit(batch, PHONE)) == 0
    view = visit(batch, java_script_enabled=False)
    assert len(names(view)) == 4
    assert view.locator(".filters").is_hidden()
