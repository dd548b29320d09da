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

import numpy as np
import pytest
from PIL import Image

from builders import clips, reports
from builders.language import terms
from deepscan.batches import index
from deepscan.batches.outcomes import Outcome
from deepscan.errors import UnreadableInput
from deepscan.report import json as report_json
from deepscan.report import page
from deepscan.report.pictures import THUMBNAIL, thumbnail

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


# --- the frame viewer ------------------------------------------------------------------------------


def seen(view: Any) -> list[float]:
    """What of the frame the viewer shows: x, y, width, height."""
    return [float(v) for v in view.locator("#viewer .stage").get_attribute("viewBox").split()]


def test_a_frame_is_zoomed_dragged_and_shown_in_its_own_pixels(
    visit: Open, report_page: Path
) -> None:
    """Frames of 320 x 180; face 2 stands at 80, 50 and is 44 x 65."""
    view = visit(report_page)
    view.get_by_role("button", name="Step through 32 frames").click()
    assert seen(view) == [0, 0, 320, 180]
    view.keyboard.press("+")
    assert seen(view) == pytest.approx([60, 33.75, 200, 112.5])
    stage = view.locator("#viewer .stage").bounding_box()
    middle = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    view.mouse.move(*middle)
    view.mouse.down()
    view.mouse.move(middle[0] + 50, middle[1])
    view.mouse.up()
    assert seen(view)[0] < 60  # pulled to the right, more of the left is seen
    view.get_by_role("button", name="1:1").click()
    assert seen(view) == [0, 0, 320, 180]  # smaller than the viewer as it is
    view.mouse.move(*middle)
    view.mouse.wheel(0, -100)
    assert seen(view)[2] == pytest.approx(256)
    view.keyboard.press("0")
    assert seen(view) == [0, 0, 320, 180]


def test_a_face_opens_at_its_place_and_stays_in_view_while_one_steps(
    visit: Open, report_page: Path
) -> None:
    view = visit(report_page)
    view.locator("#face-2 summary").first.click()
    view.locator("#face-2 .cell").nth(3).click()
    x, y, width, height = seen(view)
    assert 0 == x < 80 < 124 < x + width < 320  # moved no further than to the frame's edge
    assert y + height / 2 == pytest.approx(82.5)
    before = seen(view)
    view.keyboard.press("ArrowRight")
    assert view.locator("#viewer-title").inner_text() == "0:01.000, frame 4"
    assert seen(view) == before
    for _ in range(40):
        view.keyboard.press("ArrowRight")
    assert view.locator("#viewer-title").inner_text() == "0:07.750, frame 31"
    assert view.locator("#later").get_attribute("aria-disabled") == "true"


def test_maps_and_boxes_are_switched_on_and_off(visit: Open, report_page: Path) -> None:
    view = visit(report_page)
    view.get_by_role("button", name=re.compile("^Examine the frame at .* with its map")).click()
    heat, switch = view.locator("#viewer .heat:visible"), view.locator("#map")
    assert heat.count() == 2
    assert switch.get_attribute("aria-pressed") == "true"
    view.keyboard.press("m")
    assert heat.count() == 0
    view.keyboard.press("b")
    assert view.locator("#viewer .boxes").is_hidden()
    view.get_by_role("button", name="Close").click()
    assert view.locator(".strip .heat:visible").count() == 0


def test_attention_is_a_switch_away_from_evidence(visit: Open, report_page: Path) -> None:
    view = visit(report_page)
    layers = view.locator("#face-1 .cell").first.locator(".heat use")
    assert [layers.nth(i).is_visible() for i in range(2)] == [False, False]
    view.get_by_label("evidence", exact=True).check()
    assert [layers.nth(i).is_visible() for i in range(2)] == [True, False]
    view.get_by_label("attention", exact=True).check()
    assert [layers.nth(i).is_visible() for i in range(2)] == [False, True]


def test_a_frame_is_saved_with_the_map_that_is_on(
    visit: Open, report_page: Path, tmp_path: Path
) -> None:
    view = visit(report_page)
    view.get_by_role("button", name="Step through 32 frames").click()
    saved = []
    for name in ("plain.png", "map.png"):
        with view.expect_download() as download:
            view.get_by_role("button", name="Save", exact=True).click()
        download.value.save_as(tmp_path / name)
        saved.append(np.asarray(Image.open(tmp_path / name).convert("RGB"), int))
        view.keyboard.press("m")
    assert download.value.suggested_filename.startswith("interview.mp4-0:0".replace(":", "_"))
    assert saved[0].shape == (180, 320, 3)
    reddened = saved[1][..., 0] - saved[0][..., 0] > 60
    rows, columns = np.nonzero(reddened)
    assert 50 <= rows.min() <= rows.max() <= 115  # on the faces: 50 to 115, from 20 and from 80 on
    assert 20 <= columns.min() <= columns.max() <= 124


def test_the_film_plays_in_the_page(visit: Open, tmp_path: Path) -> None:
    """Two seconds, one grey and one white: what stands in the page is what is played."""
    clips.write(
        tmp_path / "film.mp4", [np.full((96, 128, 3), v, np.uint8) for v in (90, 255)], rate=1
    )
    report, kept = reports.made()
    film = (tmp_path / "film.mp4").read_bytes()
    view = visit(page.write(report_json.to_dict(report), tmp_path, kept, film))
    video = view.locator("video")
    video.evaluate("v => v.readyState >= 1 || new Promise(done => v.onloadedmetadata = done)")
    assert video.evaluate("v => [v.videoWidth, v.videoHeight, v.error]") == [128, 96, None]
    moved = (
        "v => new Promise(done => { v.onseeked = () => done(v.currentTime); v.currentTime = 1.5; })"
    )
    assert video.evaluate(moved) == pytest.approx(1.5)


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


def serious(found: Any) -> list[str]:
    return [v["id"] for v in found.response["violations"] if v["impact"] in ("serious", "critical")]


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
        small = thumbnail(kept, 1 if people else None, 0)
        assert small is not None
        (out / name / THUMBNAIL).write_bytes(small)
        results.append(Outcome.of(Path(name), replace(report, folder=out / name)))
    failed = UnreadableInput("d.mp4: <script>alert(3)</script> no video")
    results.append(Outcome.of(Path("d.mp4"), failed))
    return index.write(out, results)


def names(view: Any) -> list[str]:
    """First words of the rows shown, from the top."""
    return [
        text.split()[0]
        for text in view.locator("tbody tr:visible td:nth-child(2)").all_inner_texts()
    ]


def test_the_index_begins_with_what_is_most_suspicious(visit: Open, batch: Path) -> None:
    view = visit(batch)
    assert names(view) == ["a", "b.mp4", "c.mp4", "d.mp4"]
    first = view.locator("tbody tr").first
    assert first.locator("td").nth(2).inner_text().startswith("Manipulation indicated")
    assert "scores high" in first.inner_text()
    assert first.locator("img").evaluate("e => e.naturalWidth") <= 96
    assert view.locator("tbody tr").last.locator("img").count() == 0  # of what was not analysed
    assert terms(view.locator("body").inner_text()) == []


def test_the_index_sorts_filters_and_leads_to_each_report(visit: Open, batch: Path) -> None:
    view = visit(batch)
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


def test_what_is_chosen_in_the_index_stays_in_its_address(visit: Open, batch: Path) -> None:
    view = visit(batch)
    view.locator("#order").select_option("-input")
    view.locator("#words").fill("mp4")
    view.locator("#finding").select_option("no_face")
    assert view.url.endswith("#words=mp4&finding=no_face&order=-input")
    view.reload()
    assert names(view) == ["c.mp4"]
    assert view.locator("#words").input_value() == "mp4"
    view.locator("#finding").select_option("")
    assert names(view) == ["d.mp4", "c.mp4", "b.mp4", "a"]
    assert view.locator("th[aria-sort=descending]").inner_text().strip() == "Input"
    view.goto(f"{batch.as_uri()}#finding=nonsense")
    view.reload()
    assert len(names(view)) == 4


def test_the_index_has_no_serious_barrier(visit: Open, batch: Path) -> None:
    """By axe-core, on a desk and on a phone, light and dark."""
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text("utf-8")
    for viewport, scheme in ((DESK, "light"), (PHONE, "dark")):
        view = visit(batch, viewport, color_scheme=scheme)
        view.evaluate(script)
        found = view.evaluate("axe.run()")["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


def test_the_index_fits_a_phone_and_works_without_script(visit: Open, batch: Path) -> None:
    assert sideways(visit(batch, PHONE)) == 0
    view = visit(batch, java_script_enabled=False)
    assert len(names(view)) == 4
    assert view.locator(".filters").is_hidden()
