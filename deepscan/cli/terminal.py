"""Shows outcomes at a terminal: a table, with sentences under it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from deepscan.batches.outcomes import Outcome
from deepscan.cli.console import printable
from deepscan.judgement.words import logit, percent
from deepscan.records import VerdictName
from deepscan.report.json import UNCALIBRATED

STYLES = {
    VerdictName.MANIPULATION_INDICATED: "bold red",
    VerdictName.INCONCLUSIVE: "yellow",
    VerdictName.NO_MANIPULATION_INDICATED: "green",
    VerdictName.NO_FACE: "dim",
    VerdictName.INSUFFICIENT: "dim",
    VerdictName.ERROR: "bold magenta",
}


def summary(results: Sequence[Outcome]) -> Group:
    """A row for each input, notes on each below, and the caption for all numbers.

    Names and messages are shown as text, whatever they hold.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("input", overflow="fold")
    columns = (("verdict", "left"), ("logit", "right"), ("prob.", "right"), ("faces", "right"))
    for column, justify in columns:
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("seen in", justify="right", no_wrap=True)
    notes: list[Text] = []
    for result in results:
        name, seen = result.verdict, result.seen
        cells = (
            "-" if result.score is None else logit(result.score),
            "-" if result.probability is None else percent(result.probability),
            "-" if result.faces is None else str(result.faces),
            "-" if seen is None else f"{seen[0]}/{seen[1]}",
        )
        verdict = Text(name.value.replace("_", " "), STYLES[name])
        table.add_row(Text(printable(result.path.name)), verdict, *cells)
        if result.failed:
            notes.append(Text(printable(result.sentence)))  # names the input itself
            continue
        same = () if result.same_as is None else (f"Of the same bytes as {result.same_as}.",)
        words = printable(" ".join((result.sentence, *same, *result.warnings)))
        notes.append(Text.assemble((f"{printable(result.path.name)}  ", "bold"), words))
    return Group(table, *notes, Text(), caption(results))


def caption(results: Sequence[Outcome]) -> Text:
    """What every number above stands under."""
    words = "A logit above 0 leans to manipulated; no verdict says that a video is authentic."
    if any(result.provisional for result in results):
        words = f"{UNCALIBRATED}: verdicts are stand-ins. {words}"
    if any(result.probability is not None for result in results):
        words += (
            " prob.: of manipulation, were half of all videos manipulated and all like those it was"
            " calibrated on."
        )
    return Text(words)
