"""The command `deepscan prepare`: cuts data sets into crops."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from deepscan.cli import options
from deepscan.cli.console import Exit, progress_bars, say

if TYPE_CHECKING:
    from deepscan.data.prepare import Summary

TOLD = 10  # failures on stderr; --json has all of them


def prepare(
    source: Annotated[
        Path,
        Argument(help="A data set in its official layout, a folder with pairs.csv, or a CSV."),
    ],
    out: Annotated[
        Path, Option("--out", "-o", help="Folder for the crops; continues an earlier run in it.")
    ],
    frames: Annotated[int, Option(help="Frames to take, spread evenly over a video.")] = 32,
    compression: options.Compression = "c23",
    jobs: Annotated[int, Option(help="Number of processes; 0: one per core.")] = 0,
    json: Annotated[bool, Option("--json", help="The summary as JSON to stdout.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Cut data sets into aligned face crops, in DeepfakeBench's folders and JSON.

    A CSV has the columns path and label (0 or real, 1 or fake), and optionally method, split, mask,
    source and group; its paths are relative to its folder. An interrupted run continues where it stopped.

    Exit codes: 0 all prepared (videos without a face are no failures), 1 no crops at all, 2 usage error,
    3 some videos failed, 130 interrupted.
    """
    from deepscan.batches.pool import cores
    from deepscan.data.prepare import PrepareSettings
    from deepscan.data.prepare import prepare as run

    settings = PrepareSettings(frames, compression, jobs or cores())
    with progress_bars(quiet) as bars:
        summary = run(source, out, settings, bars.stages(source.name))
    if json:
        typer.echo(jsonlib.dumps(summary.to_dict(), indent=2))
    else:
        _print_table(summary)
    if not quiet:
        _say_failures(summary)
    raise typer.Exit(
        Exit.NOTHING_USABLE
        if not summary.total("crops")
        else Exit.SOME_FAILED
        if summary.failures
        else Exit.ANALYSED
    )


def _print_table(summary: Summary) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = ("videos", "ready", "faceless", "failed", "crops")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_footer=len(summary.counts) > 1)
    table.add_column("label", "all", overflow="fold")
    table.add_column("split")
    for name in names:
        table.add_column(name, str(summary.total(name)), justify="right")
    for count in summary.counts:
        cells = (str(getattr(count, name)) for name in names)
        table.add_row(Text(count.name), count.split or "-", *cells)
    Console().print(table)


def _say_failures(summary: Summary) -> None:
    for _, reason in summary.failures[:TOLD]:
        say(f"failed: {reason}")
    if len(summary.failures) > TOLD:
        say(f"and {len(summary.failures) - TOLD} more; --json lists them all")
    if summary.damaged_frames or summary.faceless_frames:
        say(
            f"of the frames looked at, {summary.faceless_frames} show no face and"
            f" {summary.damaged_frames} are damaged"
        )
    say(f"{summary.fresh} videos cut now; listed in {', '.join(map(str, summary.listings))}")
