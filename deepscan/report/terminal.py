"""Reports as a table on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from deepscan.errors import DeepscanError
from deepscan.records import Report, VerdictName
from deepscan.report.json import UNCALIBRATED

STYLES = {
    VerdictName.MANIPULATION_INDICATED: "bold red",
    VerdictName.INCONCLUSIVE: "yellow",
    VerdictName.NO_MANIPULATION_INDICATED: "green",
    VerdictName.NO_FACE: "dim",
    VerdictName.INSUFFICIENT: "dim",
    VerdictName.ERROR: "bold magenta",
}


def table(results: Sequence[tuple[Path, Report | DeepscanError]]) -> Table:
    """One row per input; names and messages are shown as text, whatever they hold."""
    out = Table(
        title="deepscan", caption=caption(results), title_justify="left", caption_justify="left"
    )
    out.add_column("input", overflow="fold")
    out.add_column("verdict")
    out.add_column("logit", justify="right")
    out.add_column("faces", justify="right")
    out.add_column("frames", justify="right")
    out.add_column("why, and what to know", overflow="fold")
    for path, result in results:
        if isinstance(result, DeepscanError):
            name, cells, words = VerdictName.ERROR, ("-", "-", "-"), [str(result)]
        else:
            evidence = result.evidence
            name = evidence.verdict.name
            cells = (
                "-" if result.score is None else f"{result.score:+.2f}",
                str(len(evidence.tracks)),
                f"{evidence.frames_with_face}/{evidence.decoding.sampled}",
            )
            words = [evidence.verdict.sentence, *evidence.warnings]
        verdict = Text(name.value.replace("_", " "), STYLES[name])
        out.add_row(Text(_printable(path.name)), verdict, *cells, Text(_printable(" ".join(words))))
    return out


def caption(results: Sequence[tuple[Path, Report | DeepscanError]]) -> Text:
    """What every number above stands under."""
    reports = [result for _, result in results if isinstance(result, Report)]
    words = "A logit above 0 leans to manipulated; no verdict says that a video is authentic."
    if any(report.evidence.thresholds.provisional for report in reports):
        words = f"{UNCALIBRATED}: verdicts are stand-ins. {words}"
    return Text(words)


def _printable(text: str) -> str:
    """Control characters, and bytes that are no text, as escapes: a file name must not drive a terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
