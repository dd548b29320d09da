"""Writes index.html: a batch at a glance, with one row for each input and a link to its report."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from deepscan.batches.outcomes import NAME as OUTCOMES
from deepscan.batches.outcomes import TABLES, Outcome
from deepscan.errors import OutputError
from deepscan.files import part_file
from deepscan.judgement.words import HEADLINES
from deepscan.records import VerdictName
from deepscan.report import page, rendering
from deepscan.report.pictures import THUMBNAIL, THUMBNAIL_BYTES

NAME = "index.html"

MOST_ROWS = 10_000  # more do not make a usable page; batch.sqlite holds them all

AT_ONCE = 60  # rows that a browser lays out first; the page answers while it does the others

# Marks our own index, which the next run may replace; another file with its name stays.
MARK = '<meta name="generator" content="deepscan">'


# The order of rows: what asks for attention first.
ORDER = (
    VerdictName.MANIPULATION_INDICATED,
    VerdictName.INCONCLUSIVE,
    VerdictName.NO_MANIPULATION_INDICATED,
    VerdictName.INSUFFICIENT,
    VerdictName.NO_FACE,
    VerdictName.ERROR,
)


def write(out: Path, results: Sequence[Outcome], private: bool = False) -> Path:
    """Write `out`/index.html, and the same rows as inputs.csv and inputs.parquet.

    With `private` they name files without folders.

    Raises:
        OutputError: something that is not deepscan's has one of these names, or it cannot be written.
    """
    from deepscan.batches import rows  # loads pyarrow

    path = out / NAME
    if path.is_dir() or (path.exists() and MARK not in path.read_text("utf-8", "replace")[:2000]):
        raise OutputError(
            f"{path}: not written by deepscan, so it is not replaced; choose another --out"
        )
    rows.write_beside(out, results, private)
    with part_file(path) as part:
        shown = [one.withheld() for one in results] if private else results
        part.write_text(html(out, shown), "utf-8", newline="\n")
    return path


def html(out: Path, results: Sequence[Outcome]) -> str:
    """The page. The row of a failed input says only why it failed."""
    counts = Counter(result.verdict for result in results)
    listed = sorted(results, key=_urgency)[:MOST_ROWS]
    return rendering.render(
        "index.html.jinja",
        "index.js",
        rows=[
            (
                result,
                _words(result),
                _link(out, result),
                _thumbnail(result) if n < AT_ONCE else None,
            )
            for n, result in enumerate(listed)
        ],
        at_once=AT_ONCE,
        pictures=[_thumbnail(result) for result in listed[AT_ONCE:]],
        total=len(results),
        record=OUTCOMES,
        tables=TABLES,
        counts=[(HEADLINES[name], name.value, counts[name]) for name in ORDER if counts[name]],
        headlines=HEADLINES,
        finished=max((result.finished for result in results if not result.failed), default=None),
        provisional=any(result.provisional and result.score is not None for result in results),
    )


def _urgency(result: Outcome) -> tuple[int, float, float]:
    probability, score = (-math.inf if v is None else v for v in (result.probability, result.score))
    return ORDER.index(result.verdict), -probability, -score


def _words(result: Outcome) -> str:
    """The reason in plain words."""
    words = result.sentence.removeprefix(f"{result.path}: ")
    return f"{words} The same bytes as {result.same_as}." if result.same_as else words


def _thumbnail(result: Outcome) -> str | None:
    """The picture that its results keep for lists, as a data URI."""
    if result.folder is None:
        return None
    try:
        data = (result.folder / THUMBNAIL).read_bytes()
    except OSError:
        return None  # of an earlier version, or deleted
    return rendering.picture_uri("jpeg", data) if len(data) <= THUMBNAIL_BYTES else None


def _link(out: Path, result: Outcome) -> str | None:
    """A relative, quoted link to the input's report; None for a failed input, which has none."""
    if result.folder is None:
        return None
    target = Path(os.path.relpath(result.folder, out), page.NAME)
    return "/".join(quote(os.fsencode(part)) for part in target.parts)
