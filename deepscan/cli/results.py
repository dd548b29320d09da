"""Shows outcomes: messages on stderr, a table or JSON on stdout, an index page."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepscan.cli.console import put, say
from deepscan.errors import OutputError

if TYPE_CHECKING:
    from deepscan.batches.outcomes import Outcome

# More inputs than this are counted, not shown one by one.
MOST_ROWS = 100


def write_index(out: Path, results: Sequence[Outcome], private: bool) -> Path | None:
    """Write a batch's index.html; a failure is reported but not fatal, because results do not need it."""
    from deepscan.batches import index

    try:
        return index.write(out, results, private)
    except OutputError as error:
        say(f"error: {error}")
        return None


def link(what: str, path: Path) -> None:
    """Print where a page is, as an address that terminals open."""
    say(f"{what}: {path.resolve().as_uri()}")


def print_json(result: Outcome, indent: int | None) -> None:
    """Print the report from its folder under this input's name, or the reason why there is none."""
    if result.folder is None:
        document = _failed(result)
    else:
        document = jsonlib.loads((result.folder / "report.json").read_bytes())
        document["input"]["path"] = str(result.path)
    put(jsonlib.dumps(document, indent=indent, allow_nan=False) + "\n")


def _failed(result: Outcome) -> dict[str, Any]:
    """The JSON line for an input that could not be analysed: a reason and no score."""
    from deepscan.report.json import SCHEMA

    return {
        "schema": SCHEMA,
        "input": {"path": str(result.path)},
        "verdict": {
            "name": result.verdict.value,
            "reason": result.reason,
            "sentence": result.sentence,
        },
    }


def print_table(results: Sequence[Outcome]) -> None:
    """Print a row for each input, or counts if there are very many."""
    from rich.console import Console

    from deepscan.cli.terminal import summary

    if len(results) <= MOST_ROWS:
        console = Console()
        with console.capture() as table:  # rich would end the process at a closed pipe
            console.print(summary(results, console.width))
        put(table.get())


def announce(result: Outcome, verbose: bool = False, reason: bool = True) -> None:
    """Print one input's outcome as a line on stderr.

    Args:
        verbose: with how long each stage took.
        reason: of a failure; False where a table follows that gives it.
    """
    from deepscan.judgement.words import HEADLINES

    if result.failed:
        say(f"error: {result.sentence}" if reason else f"{result.path}: not analysed")
        return
    same = f", the same bytes as {result.same_as}" if result.same_as else ""
    say(f"{result.path}: {HEADLINES[result.verdict].lower()}{same}")
    if verbose:
        say(f"  {timings(result)}")


def timings(result: Outcome) -> str:
    """How long each stage took, and where the detector ran, as report.json states it."""
    assert result.folder is not None
    document = jsonlib.loads((result.folder / "report.json").read_bytes())
    spent = ", ".join(f"{stage} {took:.2f} s" for stage, took in document["run"]["seconds"].items())
    return f"{spent}; {document['tool']['device']}, {document['tool']['precision']}"
