"""Two detectors on the same faces: what they conclude together, and where that is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from builders.language import terms
from builders.reports import CALIBRATED, made
from deepscan.batches.outcomes import Outcome
from deepscan.config import Scoring
from deepscan.errors import SettingsError
from deepscan.judgement.agreement import agreed
from deepscan.judgement.summary import told
from deepscan.model.networks import each
from deepscan.records import Report, VerdictName
from deepscan.report import json as report_json
from deepscan.report import page, reading

UNSEEN = replace(CALIBRATED, unseen=True)


def report(name: str, logit: float) -> Report:
    """Of one face, whose frames all have this logit."""
    found, _ = made(1, logit=lambda track, instant: logit, calibration=UNSEEN)
    detector = {**found.provenance.detector, "name": name}
    return replace(found, provenance=replace(found.provenance, detector=detector))


def both(one: float, other: float) -> Report:
    first, second = report("a", one), report("b", other)
    return replace(first, second=second, joint=agreed(first, second))


@pytest.mark.parametrize(
    ("one", "other", "name", "reason"),
    [
        (9.0, 8.0, VerdictName.MANIPULATION_INDICATED, "score_high"),
        (-9.0, -8.0, VerdictName.NO_MANIPULATION_INDICATED, "score_low"),
        (0.0, 0.5, VerdictName.INCONCLUSIVE, "score_between"),
        (9.0, -9.0, VerdictName.INCONCLUSIVE, "detectors_disagree"),
        (9.0, 0.0, VerdictName.INCONCLUSIVE, "detectors_disagree"),  # their mean would be indicated
        (0.0, -9.0, VerdictName.INCONCLUSIVE, "detectors_disagree"),
    ],
)
def test_only_what_both_conclude_is_concluded(
    one: float, other: float, name: VerdictName, reason: str
) -> None:
    verdict = both(one, other).verdict
    assert (verdict.name, verdict.reason) == (name, reason)


def test_agreement_and_disagreement_are_said_in_plain_words() -> None:
    same, unlike = both(9.0, 8.0), both(9.0, -9.0)
    assert told(same).endswith("A second detector, b, concludes the same.")
    assert told(unlike) == (
        "Two detectors disagree, so the result is inconclusive: a says “manipulation indicated”,"
        " b “no manipulation indicated”."
    )
    assert terms(told(same) + told(unlike)) == []
    assert same.probability is not None
    assert unlike.probability is None  # neither is the probability of both
    assert Outcome.of(Path("a.mp4"), unlike).sentence == told(unlike)


def test_the_report_holds_both_side_by_side_and_can_be_judged_again() -> None:
    document = report_json.to_dict(both(9.0, -9.0))
    jsonschema.validate(document, report_json.schema())
    assert [(o["detector"], o["name"], o["score"]) for o in document["opinions"]] == [
        ("a", "manipulation_indicated", 9.0),
        ("b", "no_manipulation_indicated", -9.0),
    ]
    again = report_json.to_dict(reading.from_dict(document))
    assert reading.differences(document, again) == []
    document["opinions"][1]["name"] = "manipulation_indicated"  # somebody's wish
    again = report_json.to_dict(reading.from_dict(document))
    assert reading.differences(document, again) == ["opinions.1.name"]


def test_the_page_shows_both(tmp_path: Path) -> None:
    found = both(9.0, -9.0)
    page.write(report_json.to_dict(found), tmp_path, [])
    text = (tmp_path / page.NAME).read_text("utf-8")
    assert "Two detectors disagree" in text
    table = text.split('<table class="opinions">')[1].split("</table>")[0]
    assert table.index(": manipulation indicated") < table.index(": no manipulation indicated")
    assert "+9.00" in table
    assert "−9.00" in table


def test_a_comma_names_two_detectors() -> None:
    assert each(Scoring(weights="x")) == (Scoring(weights="x"),)
    assert each(Scoring(weights="a, b")) == (Scoring(weights="a"), Scoring(weights="b"))
    for wrong in ("a,b,c", "a,a", "a,"):
        with pytest.raises(SettingsError, match="nor two different ones"):
            each(Scoring(weights=wrong))
