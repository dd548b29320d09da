"""The command `deepscan compare`: two results of one input, side by side."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument

from deepscan.cli import options
from deepscan.cli.console import Exit, printable, put

if TYPE_CHECKING:
    from deepscan.verification.compare import MatchedFace


def compare(
    first: Annotated[Path, Argument(help="A folder of results, or the report.json in it.")],
    second: Annotated[Path, Argument(help="Another one, of the same input.")],
    json: options.Json = False,
) -> None:
    """Compare two results of one input: how they were made, and what they say.

    They may come from different weights, settings, versions or machines. Faces are matched by their place
    in frames that both results include.

    Exit codes: 0 both say the same, 1 one cannot be read, 3 they differ or are of different files.
    """
    from deepscan.verification.compare import DIFFERENT_INPUTS, SCHEMA
    from deepscan.verification.compare import compare as compared

    found = compared(first, second)
    warnings = [] if found.same_input else [DIFFERENT_INPUTS]
    if json:
        document = {"schema": SCHEMA, "same": found.same, "warnings": warnings, **asdict(found)}
        put(jsonlib.dumps(document, indent=2, default=str) + "\n")
        raise typer.Exit(0 if found.same else Exit.SOME_FAILED)
    for warning in warnings:
        put(f"WARNING: {warning}\n")
    for heading, rows in (("Made differently", found.done), ("Found differently", found.found)):
        if rows:
            put(f"{heading}:\n")
        for row in rows:
            put(printable(f"  {row.what}: {_shown(row.first)} | {_shown(row.second)}") + "\n")
    if found.faces:
        put("Faces:\n")
    for face in found.faces:
        put(f"  {_face(face)}\n")
    put("Both say the same.\n" if found.same else "They differ.\n")
    raise typer.Exit(0 if found.same else Exit.SOME_FAILED)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")


def _face(face: MatchedFace) -> str:
    from deepscan.judgement.words import logit

    (one, other), (before, after) = face.tracks, face.scores
    if one is None or other is None:
        there = "second" if one is None else "first"
        score = before if one is not None else after
        return (
            f"face {one if one is not None else other} of the {there} alone: score {logit(score)}"
        )
    name = f"face {one}" if one == other else f"face {one}, there {other}"
    verdicts = " | ".join(_shown(name or "not judged") for name in face.verdicts)
    assert before is not None
    assert after is not None
    most = (
        ""
        if face.largest is None
        else f"; largest difference in {face.frames} frames {face.largest:.3f}"
    )
    return f"{name}: score {logit(before)} | {logit(after)}, {verdicts}{most}"
