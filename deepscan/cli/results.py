"""Shows outcomes: messages on stderr, a table or JSON on stdout, an index page."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepscan.cli.console import say, unread
from deepscan.errors import OutputError

if TYPE_CHECKING:
    from deepscan.batches.outcomes import Outcome

# More inputs than this are counted, not shown one by one.
MOST_ROWS = 100


def write_index(out: Path, results: Sequence[Outcome], quiet: bool) -> None:
    """Write a batch's index.html; if that fails, report it and go on, since the results do not need it."""
    from deepscan.batches import index

    try:
        path = index.write(out, results)
    except OutputError as error:
        say(f"error: {error}")
        return
    if not quiet:
        say(f"all results: {path}")


def print_json(result: Outcome, indent: int | None) -> None:
    """Print the report from its folder under this input's name, or the reason why there is none."""
    if result.folder is None:
        document = _failed(result)
    else:
        document = jsonlib.loads((result.folder / "report.json").read_bytes())
        document["input"]["path"] = str(result.path)
    with unread(sys.stdout):
        sys.stdout.write(jsonlib.dumps(document, indent=indent, allow_nan=False) + "\n")


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
            console.print(summary(results))
        with unread(sys.stdout):
            sys.stdout.write(table.get())


def announce(result: Outcome) -> None:
    """Print one input's outcome as a line on stderr."""
    if result.failed:
        say(f"error: {result.sentence}")
        return
    same = f", of the same bytes as {result.same_as}" if result.same_as else ""
    say(f"{result.verdict}: results in {result.folder}{same}")
