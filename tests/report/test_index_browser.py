"""The index of a batch in a real browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import reports
from builders.browser import DESK, PHONE, Open, sideways
from builders.language import terms
from deepscan.batches import index
from deepscan.batches.outcomes import Outcome
from deepscan.errors import UnreadableInput
from deepscan.report import json as report_json
from deepscan.report import page
from deepscan.report.pictures import THUMBNAIL, thumbnail


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


def test_the_index_is_read_by_keyboard_alone(visit: Open, batch: Path) -> None:
    """Past the links to the tables: filter, order, sort by a heading, open the first input."""
    view = visit(batch)

    def focus() -> str:
        return view.evaluate(
            "e => e.id || e.textContent.trim()", view.evaluate_handle("document.activeElement")
        )

    reached = []
    while "b.mp4" not in reached:
        view.keyboard.press("Tab")
        reached.append(focus())
    start = reached.index("words")
    assert reached[: start + 3] == [
        "Skip to the inputs", "inputs.csv", "inputs.parquet", "words", "finding", "order",
    ]  # fmt: skip
    headings = ["Input", "Finding", "Probability", "Score", "Faces", "Cautions"]
    assert reached[start + 3 :] == [*headings, "a 50% <b>&#?.mp4", "b.mp4"]
    while focus() != "Input":
        view.keyboard.press("Shift+Tab")
    view.keyboard.press("Enter")
    view.keyboard.press("Enter")
    assert names(view) == ["d.mp4", "c.mp4", "b.mp4", "a"]
    while focus() != "words":
        view.keyboard.press("Shift+Tab")
    view.keyboard.type("b.mp4")
    assert names(view) == ["b.mp4"]
    while focus() != "b.mp4":
        view.keyboard.press("Tab")
    view.keyboard.press("Enter")
    view.wait_for_url("**/b.mp4/report.html")
    assert view.locator("h1").inner_text() == "b.mp4"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of more inputs than are laid out at once, each with a picture; clip-000 scores highest."""
    out = tmp_path_factory.mktemp("many")
    report, kept = reports.made(1, 12, logit=lambda track, i: 9.0)
    small = thumbnail(kept, 1, 0)
    assert small is not None
    results = []
    for n in range(2 * index.AT_ONCE + 10):
        name = f"clip-{n:03d}.mp4"
        (out / name).mkdir()
        (out / name / THUMBNAIL).write_bytes(small)
        outcome = Outcome.of(Path(name), replace(report, folder=out / name))
        results.append(replace(outcome, score=900.0 - n))
    return index.write(out, results)


def test_rows_that_come_later_are_found_sorted_and_pictured_like_the_first(
    visit: Open, many: Path
) -> None:
    last = f"clip-{2 * index.AT_ONCE + 9:03d}.mp4"
    view = visit(many)
    view.get_by_role("link", name=last).wait_for()  # without being asked for
    rows = view.locator("tbody >> nth=0").locator("tr")
    assert rows.count() == 2 * index.AT_ONCE + 10
    assert names(view) == sorted(names(view))
    assert view.locator("tbody img").count() == rows.count()
    view.locator("#order").select_option("-input")
    assert names(view)[0] == last
    assert rows.first.locator("img").evaluate("e => e.decode().then(() => e.naturalWidth)") <= 96
    view.locator("#words").fill(last)
    assert names(view) == [last]
    assert view.locator("#found").inner_text() == f"1 of {2 * index.AT_ONCE + 10} shown"


def test_a_long_index_is_whole_on_paper_and_without_script(visit: Open, many: Path) -> None:
    view = visit(many, java_script_enabled=False)
    assert len(names(view)) == 2 * index.AT_ONCE + 10
    view = visit(many)
    view.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(names(view)) == 2 * index.AT_ONCE + 10


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
