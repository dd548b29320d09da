"""`deepscan watch`."""

from __future__ import annotations

import json as jsonlib
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from deepscan.cli.console import progress_bars, say
from deepscan.cli.detect import STILL_SUFFIXES, VIDEO_SUFFIXES
from deepscan.errors import InputError, OutputError, SettingsError


def watch(
    context: typer.Context,
    folder: Annotated[Path, Argument(help="The folder that videos and pictures arrive in.")],
    out: Annotated[Path, Option(help="Folder for the results, one folder per input.")] = Path(
        "deepscan-out"
    ),
    settle: Annotated[
        float,
        Option(help="Seconds for which a file must stay the same to be whole.", metavar="SECONDS"),
    ] = 3.0,
    heatmap: Annotated[bool, Option("--heatmap", help="Draw where the detector looked.")] = False,
    weights: Annotated[
        str, Option(help="A shipped detector's name, or a checkpoint file.")
    ] = "default",
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, Option("--json", help="A line of JSON to stdout for each file.")] = False,
    offline: Annotated[bool, Option("--offline", help="Never fetch weights.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress and no messages.")] = False,
) -> None:
    """Analyse what is in a folder and below it, and what arrives there, until Ctrl-C or SIGTERM.

    A file is read once it has stopped growing, and again only when it has changed since; files whose results
    are there from an earlier run are left alone. Results are those of detect --out, whole or not at all.

    Exit code: 0, stopped.
    """
    from deepscan.config import Heatmaps, Scoring, Settings
    from deepscan.flow import keep_memory_level, until_told_to_stop
    from deepscan.pipeline import prepare_weights, scan
    from deepscan.records import Request
    from deepscan.report.json import error_dict, to_dict
    from deepscan.watch import Arrivals, results_folder

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the one that files arrive in")
    if not (math.isfinite(settle) and settle > 0):
        raise SettingsError(f"settle: {settle} seconds is not a positive time")
    settings = Settings(
        scoring=Scoring(weights=weights, device=device, offline=offline),
        heatmaps=Heatmaps(draw=heatmap),
    )
    request = Request(argv=("deepscan", *context.obj), origins=settings.origins())
    keep_memory_level()
    with progress_bars(quiet) as bars:
        prepare_weights(settings.scoring, bars.callback("fetching the CLIP base", "bytes"))
    arrivals = Arrivals(lambda: _media(folder, out.resolve()), settle)
    analysed = 0
    with until_told_to_stop():
        if not quiet:
            say(f"watching {folder}; Ctrl-C ends it")
        while True:
            for path in arrivals.ready():
                place = results_folder(path, out / path.relative_to(folder))
                if place is None:
                    continue
                with progress_bars(quiet) as bars:
                    try:
                        tell = bars.stages(path.name)
                        report = scan(path, settings, out=place, request=request, progress=tell)
                    except (InputError, OutputError) as error:
                        document, words = error_dict(path, error), f"error: {error}"
                    else:
                        analysed += 1
                        document = to_dict(report)
                        words = f"{path}: {report.verdict.name}; results in {place}"
                if json:
                    sys.stdout.write(jsonlib.dumps(document, allow_nan=False) + "\n")
                    sys.stdout.flush()
                if not quiet:
                    say(words)
            time.sleep(min(settle / 2, 1.0))
    if not quiet:
        say(f"stopped; {analysed} analysed, and nothing is left half-written")


def _media(folder: Path, out: Path) -> Iterator[Path]:
    """Videos and pictures, by their names; not those that deepscan itself has written."""
    suffixes = {*VIDEO_SUFFIXES.split(), *STILL_SUFFIXES.split()}
    for path in folder.rglob("*"):
        if path.suffix.lower() in suffixes and not path.resolve().is_relative_to(out):
            yield path
