"""The command `deepscan watch`: scans files as they arrive in a folder."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from deepscan.cli import options
from deepscan.cli.console import fetch_weights, progress_bars, say
from deepscan.cli.results import announce, link, print_json, write_index
from deepscan.errors import InputError, SettingsError

if TYPE_CHECKING:
    from deepscan.batches.inputs import Input
    from deepscan.batches.outcomes import Outcome


def watch(
    context: typer.Context,
    folder: Annotated[Path, Argument(help="The folder that videos and pictures arrive in.")],
    out: options.Results = Path("deepscan-out"),
    settle: Annotated[
        float,
        Option(
            help="Seconds without a change after which a file counts as complete.",
            metavar="SECONDS",
        ),
    ] = 3.0,
    heatmap: options.Heatmap = False,
    weights: options.Weights = "default",
    device: options.Device = "auto",
    json: Annotated[
        bool, Option("--json", help="Write one line of JSON per file to stdout.")
    ] = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Analyse the files in a folder, and new ones as they arrive, until Ctrl-C or SIGTERM.

    A file is analysed once it has stopped growing, and again if it changes. The results are a batch in
    --out, as from detect; what is finished there is not analysed again.

    Exit code: 0 when stopped.
    """
    from deepscan.batches.batch import Batch
    from deepscan.batches.inputs import found
    from deepscan.batches.watch import Arrivals
    from deepscan.cli.preferences import gather
    from deepscan.flow import keep_memory_level
    from deepscan.interrupt import until_stopped
    from deepscan.records import Request

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the folder that files arrive in")
    if not (math.isfinite(settle) and settle > 0):
        raise SettingsError(f"settle: {settle} seconds is not a positive time")
    preferences = gather(options.given_flags(context))
    request = Request(argv=("deepscan", *context.obj), origins=preferences.origins())
    if not quiet and (note := preferences.foreign_detector()):
        say(note)
    keep_memory_level()
    fetch_weights(preferences.settings.scoring, quiet)
    inputs: dict[Path, Input] = {}  # what is there, and where its results belong

    def media() -> Iterator[Path]:
        inputs.clear()
        inputs.update((one.path, one) for one in found([folder], out) if one.path != folder)
        return iter(inputs)

    arrivals = Arrivals(media, settle)
    waiting: dict[Path, Input] = {}
    outcomes: list[Outcome] = []
    ended = ""
    idle = False  # and said so
    name = folder.resolve().name
    with (
        Batch(out, preferences.settings, resume=True, request=request) as batch,
        progress_bars(quiet) as bars,
        until_stopped(),
    ):
        tell_folder = bars.lasting()
        if not quiet:
            say(f"watching {folder}; press Ctrl-C to stop")
        while True:
            waiting |= {path: inputs[path] for path in arrivals.ready()}
            one = waiting.pop(next(iter(waiting))) if waiting else None
            left = len(waiting) + arrivals.unsettled
            tell_folder(f"{len(inputs)} seen, {left} waiting{ended}")
            if one is None:
                if not idle:
                    bars.stages(name)("waiting for files", 0, 0)
                idle = True
                time.sleep(min(settle / 2, 1.0))
                continue
            idle = False
            bars.stages(one.path.name)("analysing", 0, 0)
            for outcome in batch.assess([one]):
                outcomes.append(outcome)
                if json:
                    print_json(outcome, indent=None)
                if not quiet:
                    announce(outcome)
            ended = f", last ended {time.strftime('%H:%M:%S')}"
    index = write_index(out, outcomes, preferences.settings.output.private) if outcomes else None
    if not quiet:
        say(f"stopped; {_analysed(outcomes)} analysed, no result is left incomplete")
    if index is not None and not quiet:
        link("All results", index)


def _analysed(outcomes: list[Outcome]) -> int:
    return sum(not outcome.failed for outcome in outcomes)
