"""report.pdf: two to four sheets, each with its head, by Chromium or by WeasyPrint."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest

from builders import reports
from builders.machine import CHROMIUM
from deepscan.errors import OutputError, SettingsError
from deepscan.judgement.words import logit
from deepscan.records import Case, Report
from deepscan.report import json as report_json
from deepscan.report import page, paper, provenance
from deepscan.report.pictures import FramePicture

CASE = Case('2026/114 "x"', "A-3", "E. Muster", "")


TESTED = replace(reports.CALIBRATED, unseen=True)


def stated(people: int = 2, **how: Any) -> tuple[Report, list[FramePicture]]:
    report, kept = reports.made(people, **how)
    request = replace(report.provenance.request, case=CASE)
    return replace(report, provenance=replace(report.provenance, request=request)), kept


def printed(folder: Path, report: Report, kept: list[FramePicture]) -> list[str]:
    """The text of each sheet."""
    document = report_json.to_dict(report)
    with pypdfium2.PdfDocument(paper.write(document, folder, kept)) as pdf:
        sheets = []
        for sheet in pdf:
            assert [round(v) for v in sheet.get_size()] == [595, 842]
            sheets.append(sheet.get_textpage().get_text_bounded())
    return sheets


@pytest.fixture(params=["chromium", "weasyprint"])
def printer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "weasyprint":
        try:
            import weasyprint  # noqa: F401
        except (ImportError, OSError) as error:  # OSError: Pango is missing
            pytest.skip(f"WeasyPrint cannot be used here: {error}")
        monkeypatch.setattr(paper, "browser", lambda: None)
    elif CHROMIUM is None:
        pytest.skip("chromium is not installed: make test-browser")
    return request.param


@pytest.mark.parametrize("people", [0, 2])
def test_each_sheet_has_case_exhibit_file_hash_and_number(
    tmp_path: Path, printer: str, people: int
) -> None:
    sheets = printed(tmp_path, *stated(people, instants=8))
    assert 2 <= len(sheets) <= 4
    for number, text in enumerate(sheets, 1):
        assert 'Case 2026/114 "x" \u00b7 Exhibit A-3 \u00b7 interview.mp4' in text
        assert f"SHA-256 {'ab' * 32}" in text
        assert f"{number} of {len(sheets)}" in text
    whole = "\n".join(sheets)
    assert "What to do next" in sheets[0]
    for folded in ("Calibration", "State", "deepscan verify", "manifest.json"):  # open on paper
        assert folded in whole


@pytest.mark.slow
def test_a_crowd_takes_four_sheets(tmp_path: Path, printer: str) -> None:
    assert 2 <= len(printed(tmp_path, *stated(5, instants=32))) <= 4


@pytest.mark.slow
def test_forty_faces_take_four_sheets(tmp_path: Path, printer: str) -> None:
    people = [reports.face(1 + t % 5) for t in range(40)]
    scene = np.full((reports.HEIGHT, reports.WIDTH, 3), 120, np.uint8), people
    report, kept = stated(scene=scene, instants=64, calibration=TESTED)
    sheets = printed(tmp_path, report, kept)
    assert len(sheets) <= 4
    whole = " ".join(" ".join(sheets).split())
    assert "Face 1 Inconclusive" in whole  # four of its scores stand out
    # The faces after the first five in a table, by their scores; the last fifteen in report.json.
    scores = {track.id: logit(track.score) for track in report.evidence.tracks}
    assert (
        f"6 No manipulation indicated {scores[6]} 0:00 to 0:08 at or below its lower limit" in whole
    )
    assert f"25 No manipulation indicated {scores[25]} 0:00" in whole
    assert f"26 No manipulation indicated {scores[26]} 0:00" not in whole
    assert "And 15 more; report.json has them all." in whole


def test_hostile_names_stay_text_in_the_head() -> None:
    report, kept = reports.made(1, 4, path='clips/a"; } body { display: none } \\a.mp4')
    html = page.html(report_json.to_dict(report), kept, paper=True)
    (rule,) = [line for line in html.splitlines() if "@top-left { content:" in line]
    assert rule.count(chr(34)) == 8  # of four strings
    assert "display: none } \\a" not in rule


def test_a_pdf_is_among_the_outputs_and_in_the_manifest(tmp_path: Path, printer: str) -> None:
    report, kept = stated(1, instants=4)
    report = replace(report, outputs=("report.html", "report.pdf"))
    printed(tmp_path, report, kept)
    made = page.write(report_json.to_dict(report), tmp_path, kept)
    assert '<a href="report.pdf">PDF</a>' in made.read_text("utf-8")
    provenance.write_manifest(tmp_path, report.source)
    listed = provenance.read_manifest(tmp_path / "manifest.json").outputs
    assert set(report.outputs) <= set(listed)


def test_without_a_printer_it_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "browser", lambda: None)
    monkeypatch.setitem(sys.modules, "weasyprint", None)  # as if it were not installed
    with pytest.raises(SettingsError, match=r"needs Chromium, or pip install"):
        paper.check()


def test_a_browser_that_fails_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper, "browser", lambda: "/bin/false")
    report, kept = stated(1, instants=4)
    with pytest.raises(OutputError, match="did not write it"):
        printed(tmp_path, report, kept)


def test_a_pdf_names_no_system_and_no_folder(tmp_path: Path, printer: str) -> None:
    report, kept = stated(1, instants=4)
    printed(tmp_path, replace(report, outputs=("heatmaps/overlay.mp4", "report.html")), kept)
    data = (tmp_path / "report.pdf").read_bytes()
    assert b"/URI" not in data
    assert str(tmp_path).encode() not in data
    with pypdfium2.PdfDocument(tmp_path / "report.pdf") as pdf:
        assert pdf.get_metadata_dict()["Creator"] == "deepscan"


def test_what_a_reader_prints_names_no_folder_either(chromium: Any, tmp_path: Path) -> None:
    report, kept = stated(1, instants=4)
    view = chromium.new_page()
    view.goto(page.write(report_json.to_dict(report), tmp_path, kept).as_uri())
    assert b"/URI (file" not in view.pdf(prefer_css_page_size=True)
    assert view.get_by_role("link", name="report.json").get_attribute("href") == "report.json"
