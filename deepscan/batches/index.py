"""Writes index.html: a batch at a glance, with one row for each input and a link to its report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from deepscan.batches.outcomes import NAME as OUTCOMES
from deepscan.batches.outcomes import Outcome
from deepscan.errors import OutputError
from deepscan.files import part_file
from deepscan.records import VerdictName
from deepscan.report import page, rendering
from deepscan.report.json import UNCALIBRATED

NAME = "index.html"

MOST_ROWS = 10_000  # more do not make a usable page; batch.sqlite holds them all

# Marks our own index, which the next run may replace; another file with its name stays.
MARK = '<meta name="generator" content="deepscan">'


def write(out: Path, results: Sequence[Outcome]) -> Path:
    """Write `out`/index.html.

    Raises:
        OutputError: something that is not deepscan's has that name, or it cannot be written.
    """
    path = out / NAME
    if path.is_dir() or (path.exists() and MARK not in path.read_text("utf-8", "replace")[:2000]):
        raise OutputError(f"{path}: is not deepscan's to replace; --out DIR writes elsewhere")
    with part_file(path) as part:
        part.write_text(html(out, results), "utf-8", newline="\n")
    return path


def html(out: Path, results: Sequence[Outcome]) -> str:
    """The page. The row of a failed input says only why it failed."""
    counts = Counter(result.verdict for result in results)
    listed = results
    if len(results) > MOST_ROWS:
        indicated = VerdictName.MANIPULATION_INDICATED
        listed = sorted(results, key=lambda result: result.verdict is not indicated)[:MOST_ROWS]
    return rendering.render(
        "index.html.jinja",
        "index.js",
        rows=[(result, _words(result), _link(out, result)) for result in listed],
        total=len(results),
        record=OUTCOMES,
        counts=[
            (rendering.HEADLINES[name], name.value, counts[name])
            for name in VerdictName
            if counts[name]
        ],
        headlines=rendering.HEADLINES,
        finished=max((result.finished for result in results if not result.failed), default=None),
        uncalibrated=UNCALIBRATED if any(result.provisional for result in results) else None,
    )


def _words(result: Outcome) -> str:
    """Why there is no score; empty if there is one."""
    if result.score is not None:
        return f"same bytes as {result.same_as}" if result.same_as else ""
    return result.sentence.removeprefix(f"{result.path}: ")


def _link(out: Path, result: Outcome) -> str | None:
    """A relative, quoted link to the input's report; None for a failed input, which has none."""
    if result.folder is None:
        return None
    target = Path(os.path.relpath(result.folder, out), page.NAME)
    return "/".join(quote(os.fsencode(part)) for part in target.parts)
