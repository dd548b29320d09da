"""The scale of a verdict and the curves over time: where everything stands."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from builders import reports
from deepscan.report import json as report_json
from deepscan.report import lanes, page, scale


def test_the_limits_stand_at_thirds_and_nothing_leaves_the_scale() -> None:
    """Limits of -3 and 1, four apart. Four beyond a limit lies 1 - 1/e of the way to the edge."""
    places = [scale.place(score, -3.0, 1.0) for score in (-1e3, -7, -3, -1, 1, 5, 1e3)]
    assert places == pytest.approx([0, 12.26, 33.33, 50, 66.67, 87.74, 100], abs=0.01)


def test_the_scale_names_what_decides_and_marks_the_other_faces() -> None:
    """Face 1 scores -4.00 as a whole, face 2 below; two faces' limits are -1 and 1 + log 2."""
    drawn = scale.draw(report_json.to_dict(reports.made()[0]))
    assert drawn is not None
    assert drawn.label == "\u22124.00, face 1 as a whole"
    assert drawn.x == scale.place(-4.0, -1.0, 1.7)
    assert len(drawn.others) == 1
    assert drawn.others[0] < drawn.x
    assert drawn.words.endswith(
        "Up to \u22121.00: low, clears nothing. From +1.70 on: indicated. Between them: inconclusive."
    )


@pytest.mark.parametrize(
    ("kind", "reason", "ends"),
    [
        ("video", "score_between", ("none indicated", "indicated")),
        ("video", "untried", ("low, clears nothing", "indicated")),
        ("video", "few_frames", ("none indicated", "high, decides nothing")),
        ("image", "score_between", ("low, clears nothing", "high, decides nothing")),
    ],
)
def test_a_part_of_the_scale_promises_no_verdict_that_a_score_there_would_not_have(
    kind: str, reason: str, ends: tuple[str, str]
) -> None:
    tried = replace(reports.CALIBRATED, unseen=True)
    document = report_json.to_dict(reports.made(1, calibration=tried)[0])
    document["input"]["kind"], document["verdict"]["reason"] = kind, reason
    drawn = scale.draw(document)
    assert drawn is not None
    assert (drawn.zones[0], drawn.zones[2]) == ends


def test_a_stretch_that_decides_stands_against_its_own_limits() -> None:
    document = report_json.to_dict(reports.made(1)[0])
    finding = {"low": -5.0, "high": 4.0, "score": 4.0}
    document["scores"]["stretch"]["finding"] = finding
    document["verdict"]["reason"] = "stretch_high"
    drawn = scale.draw(document)
    assert drawn is not None
    assert (drawn.low, drawn.high, drawn.x) == (-5.0, 4.0, 66.67)
    assert drawn.label == "+4.00 at 0:02 to 0:03"


# --- the timeline ----------------------------------------------------------------------------------


def test_a_page_stops_growing_with_the_instants_looked_at(tmp_path: Path) -> None:
    """Five people: of more than 600 instants each, only what can be seen of a curve is drawn."""
    sizes = []
    for instants in (600, 2400):
        report, kept = reports.made(5, instants, seconds=Fraction(600))
        text = page.write(report_json.to_dict(report), tmp_path, kept).read_text("utf-8")
        sizes.append((len(text), text.count("<")))
    (few, few_elements), (many, many_elements) = sizes
    assert many < 1.1 * few < 3e6
    assert many_elements < 1.1 * few_elements < 20_000


def test_lanes_share_one_scale_and_mark_the_run() -> None:
    timeline = lanes.draw(report_json.to_dict(reports.made()[0]))
    assert timeline is not None
    first, second = timeline.lanes
    assert (first.track, second.track) == (1, 2)
    (run,) = first.runs
    assert (run.x1, run.x2, run.label) == (
        100 * 10 / 32,
        round(100 * 13 / 32, 2),
        "0:02.500\u20130:03.250",
    )
    above = {p.index for p in first.points if p.y < first.high}
    assert above == {10, 11, 12, 13}
    assert not second.runs
    assert timeline.ticks[1] == (25.0, "0:02")


def test_thinning_keeps_every_peak() -> None:
    points = [
        lanes.Point(i / 100, 50.0, float(i), 9.0 if i == 4321 else -float(i % 7), i)
        for i in range(10_000)
    ]
    kept = lanes.thin(points, 600)
    assert len(kept) <= 600
    assert 4321 in {p.index for p in kept}
    assert [p.index for p in kept] == sorted(p.index for p in kept)


def test_a_curve_breaks_where_the_face_was_not_seen() -> None:
    document = report_json.to_dict(reports.made()[0])
    del document["tracks"][1]["frames"][8:12]
    timeline = lanes.draw(document)
    assert timeline is not None
    assert [len(lane.curves) for lane in timeline.lanes] == [1, 2]
