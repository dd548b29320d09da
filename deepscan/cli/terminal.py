"""Shows outcomes at a terminal: a table, with sentences under it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from deepscan.batches.outcomes import Outcome
from deepscan.cli.console import printable
from deepscan.judgement.words import HEADLINES, counted, logit, percent
from deepscan.records import VerdictName

STYLES = {
    VerdictName.MANIPULATION_INDICATED: "bold red",
    VerdictName.INCONCLUSIVE: "yellow",
    VerdictName.NO_MANIPULATION_INDICATED: "green",
    VerdictName.NO_FACE: "dim",
    VerdictName.INSUFFICIENT: "dim",
    VerdictName.ERROR: "bold magenta",
}


# Columns beside the input and its verdict, and the narrowest terminal on which they leave the name room.
COLUMNS = {"probability": 50, "faces": 80, "score": 80}


def summary(results: Sequence[Outcome], width: int) -> Group:
    """A row for each input, its reason below, and the caption for all numbers; `width`: of the terminal.

    Names and messages are shown as text, whatever they hold.
    """
    shown = [name for name, narrowest in COLUMNS.items() if width >= narrowest]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("input", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    reasons: list[Text] = []
    for result in results:
        cells = {
            "probability": "-" if result.probability is None else percent(result.probability),
            "faces": "-" if result.faces is None else str(result.faces),
            "score": "-" if result.score is None else logit(result.score),
        }
        verdict = Text(HEADLINES[result.verdict].lower(), STYLES[result.verdict])
        row = [cells[name] for name in shown]
        table.add_row(Text(printable(result.path.name)), verdict, *row)
        reasons += [_reason(result), Text()]
    return Group(table, *reasons, caption(results))


def _reason(result: Outcome) -> Text:
    if result.failed:
        return Text(printable(result.sentence))  # names the input itself
    words = [result.sentence]
    if result.same_as is not None:
        words.append(f"Of the same bytes as {result.same_as}.")
    if result.warnings:
        words.append(f"{counted(len(result.warnings), 'caution')} in the report.")
    name = printable(result.path.name)
    return Text.assemble((f"{name}  ", "bold"), printable(" ".join(words)))


def caption(results: Sequence[Outcome]) -> Text:
    """The conditions under which the numbers hold."""
    words = "No verdict says that a video is authentic."
    if any(result.provisional and result.score is not None for result in results):
        words = f"The detector is not calibrated, so its verdicts are provisional. {words}"
    if any(result.probability is not None for result in results):
        words += (
            " Probability: of manipulation, if half of all videos were manipulated and all were like those"
            " used for calibration."
        )
    return Text(words)
