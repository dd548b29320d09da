"""What a report concludes follows from the numbers in it, and every field comes back from report.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builders import reports
from deepscan.errors import DataError
from deepscan.records import Report
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
