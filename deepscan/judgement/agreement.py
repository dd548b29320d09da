"""Combines the conclusions of two detectors about the same faces.

Each keeps its own calibration and its own verdict. Scores of two detectors are not on one scale, and nobody
has calibrated the two together, so nothing is averaged: what both conclude is concluded, and where they
conclude different things the result is inconclusive, with both as the reason.
"""

from __future__ import annotations

from deepscan.judgement.words import HEADLINES
from deepscan.records import Report, Verdict, VerdictName

DISAGREE = "detectors_disagree"


def agreed(first: Report, second: Report) -> Verdict:
    """The verdict of two reports of one input, each by one detector."""
    one, other = first.evidence.verdict, second.evidence.verdict
    if not one.name.assessed:
        return one  # there was no face to judge, for either
    each = f"{_name(first)}: {one.sentence} {_name(second)}: {other.sentence}"
    if one.name is other.name:
        return Verdict(one.name, one.reason, f"Both detectors conclude this. {each}")
    return Verdict(VerdictName.INCONCLUSIVE, DISAGREE, f"The detectors disagree. {each}")


def agreement(first: Report, second: Report) -> str:
    """Whether they agree, in plain words; empty if nothing was judged."""
    one, other = (_said(report) for report in (first, second))
    if not first.evidence.verdict.name.assessed:
        return ""
    if one == other:
        return f"A second detector, {_name(second)}, concludes the same."
    return (
        f"Two detectors disagree, so the result is inconclusive: {_name(first)} says “{one}”,"
        f" {_name(second)} “{other}”."
    )


def _said(report: Report) -> str:
    return HEADLINES[report.evidence.verdict.name].lower()


def _name(report: Report) -> str:
    return str(report.provenance.detector["name"])
