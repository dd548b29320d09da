"""Reports for people at a terminal: a table, and sentences under it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group
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


def summary(results: Sequence[tuple[Path, Report | DeepscanError]]) -> Group:
    """A row per input, what to know of each below, and what every number stands under.

    Names and messages are shown as text, whatever they hold.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("input", overflow="fold")
    columns = (("verdict", "left"), ("logit", "right"), ("prob.", "right"), ("faces", "right"))
    for column, justify in columns:
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("seen in", justify="right", no_wrap=True)
    notes: list[Text] = []
    for path, result in results:
        if isinstance(result, DeepscanError):
            name, cells = VerdictName.ERROR, ("-", "-", "-", "-")
            notes.append(Text(_printable(str(result))))  # names the input itself
        else:
            evidence = result.evidence
            name = evidence.verdict.name
            cells = (
                "-" if result.score is None else f"{result.score:+.2f}",
                "-" if result.probability is None else f"{result.probability:.0%}",
                str(len(evidence.tracks)),
                f"{evidence.frames_with_face}/{evidence.decoding.sampled}",
            )
            words = " ".join((evidence.verdict.sentence, *evidence.warnings))
            notes.append(Text.assemble((f"{_printable(path.name)}  ", "bold"), _printable(words)))
        verdict = Text(name.value.replace("_", " "), STYLES[name])
        table.add_row(Text(_printable(path.name)), verdict, *cells)
    return Group(table, *notes, Text(), caption(results))


def caption(results: Sequence[tuple[Path, Report | DeepscanError]]) -> Text:
    """What every number above stands under."""
    reports = [result for _, result in results if isinstance(result, Report)]
    words = "A logit above 0 leans to manipulated; no verdict says that a video is authentic."
    if any(report.evidence.thresholds.provisional for report in reports):
        words = f"{UNCALIBRATED}: verdicts are stand-ins. {words}"
    if any(report.probability is not None for report in reports):
        words += (
            " prob.: of manipulation, were half of all videos manipulated and all like those it was"
            " calibrated on."
        )
    return Text(words)


def _printable(text: str) -> str:
    """Control characters, and bytes that are no text, as escapes: a file name must not drive a terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
