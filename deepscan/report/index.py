"""index.html: a batch at a glance, one row an input, each leading to its own report.html."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from deepscan.errors import DeepscanError, OutputError
from deepscan.files import part_file
from deepscan.records import Report, VerdictName
from deepscan.report import page, rendering
from deepscan.report.json import UNCALIBRATED

NAME = "index.html"

# An index may be replaced by the next run's, another file of its name may not.
MARK = '<meta name="generator" content="deepscan">'


@dataclass(frozen=True, slots=True)
class Row:
    """One input. `link` is relative to the index and quoted; None for a failed input, which has no report."""

    name: str
    path: str
    link: str | None
    verdict: str
    words: str  # the verdict's sentence, or why there is none
    warnings: int
    score: float | None
    faces: int | None
    seen: tuple[int, int] | None  # frames with a face, frames sampled


def write(out: Path, results: Sequence[tuple[Path, Report | DeepscanError]]) -> Path:
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


def html(out: Path, results: Sequence[tuple[Path, Report | DeepscanError]]) -> str:
    """The page. Where an input has failed its row says why, and nothing else."""
    rows = [_row(out, path, result) for path, result in results]
    counts = Counter(row.verdict for row in rows)
    reports = [result for _, result in results if isinstance(result, Report)]
    return rendering.render(
        "index.html.jinja",
        "index.js",
        rows=rows,
        counts=[
            (rendering.HEADLINES[name], name.value, counts[name])
            for name in VerdictName
            if counts[name]
        ],
        headlines=rendering.HEADLINES,
        finished=max((report.provenance.finished for report in reports), default=None),
        uncalibrated=UNCALIBRATED
        if any(report.evidence.thresholds.provisional for report in reports)
        else None,
    )


def _row(out: Path, path: Path, result: Report | DeepscanError) -> Row:
    if isinstance(result, DeepscanError):
        words = str(result).removeprefix(f"{path}: ")
        return Row(path.name, str(path), None, VerdictName.ERROR, words, 0, None, None, None)
    evidence = result.evidence
    link = None
    if result.folder is not None:
        target = Path(os.path.relpath(result.folder, out), page.NAME)
        link = "/".join(quote(os.fsencode(part)) for part in target.parts)
    return Row(
        path.name,
        str(path),
        link,
        evidence.verdict.name,
        evidence.verdict.sentence,
        len(evidence.warnings),
        result.score,
        len(evidence.tracks),
        (evidence.frames_with_face, evidence.decoding.sampled),
    )
