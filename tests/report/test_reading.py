"""What a report concludes follows from the numbers in it, and every field comes back from report.json."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from builders import reports
from deepscan.errors import DataError
from deepscan.records import Areas, Faithfulness, Report
from deepscan.report import page
from deepscan.report.json import to_dict
from deepscan.report.reading import differences, from_dict

MADE: dict[str, dict[str, Any]] = {
    "two faces": {},
    "calibrated": {"calibration": reports.CALIBRATED},
    "no face": {"people": 0},
    "hostile text": {"text": reports.HOSTILE},
    "a still": {"people": 1, "instants": 1},
}


def document(report: Report) -> dict[str, Any]:
    """report.json's content, as whoever verifies it reads it."""
    return json.loads(json.dumps(to_dict(report)))


@pytest.mark.parametrize("which", MADE)
def test_all_of_a_report_comes_back(which: str) -> None:
    """Whoever adds a field to report.json adds it to `reading`, or verify finds honest reports changed."""
    report, pictures = reports.made(**MADE[which])
    stated = document(report)
    assert differences(stated, to_dict(from_dict(stated))) == []
    assert page.same(stated, page.html(stated, pictures))


def test_what_explains_the_maps_comes_back_and_is_said_with_true_minus_signs() -> None:
    """Four patches add 0.2 each, 96 add 0.01 and 96 take it; 62 % of 1.76 lies on the face."""
    report, _ = reports.made(logit=lambda track, instant: -3.0)
    found = Faithfulness("evidence", 1, 7, Areas(-0.3, 0.2), Areas(0.1, 0.1), 0.0, 1.0)
    stated = document(replace(report, faithfulness=found))
    assert differences(stated, to_dict(from_dict(stated))) == []
    assert stated["faithfulness"]["sentence"] == (
        "Covering the patches that speak most for what it says first changes the logit's size by +0.30 on"
        " average, covering patches by lot by \u22120.10 (1 crop; more in 0 % of them): the heatmaps mark"
        " what the score does NOT depend on more than on other patches."
    )
    assert stated["evidence_sum"]["sentence"] == (
        "The mean logit of face 1, \u22123.00, is the sum of +1.76 from patches that speak for manipulation,"
        " \u22120.96 from patches that speak against it and a constant of \u22123.80; 62 % of what speaks for"
        " manipulation lies on the face."
    )


def test_differences_are_named_by_place() -> None:
    assert differences({"a": {"b": [1, 2.0]}}, {"a": {"b": [1, 2.0000001]}}) == []
    assert differences({"a": {"b": [1, 2.0]}}, {"a": {"b": [1, 2.1]}}) == ["a.b.1"]
    assert differences({"a": 1}, {"b": 1}) == ["a", "b"]
    assert differences({"a": True}, {"a": 1}) == ["a"]
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a"]


@pytest.mark.parametrize("name", ["input", "tracks", "coverage", "calibration", "tool", "run"])
@pytest.mark.parametrize("value", [None, 1, "text", [], {}, [[1]]])
def test_what_is_no_report_is_refused(name: str, value: object) -> None:
    stated = {**document(reports.made()[0]), name: value}
    if name == "tracks" and value in ([], {}):
        return  # a report without a face
    with pytest.raises(DataError, match="not a report"):
        from_dict(stated)
