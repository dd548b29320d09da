"""The command `deepscan demo`: makes the sample clip and scans it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from deepscan.cli import options
from deepscan.cli.console import fetch_weights, progress_bars
from deepscan.errors import SettingsError


def demo(
    context: typer.Context,
    folder: Annotated[Path, Argument(help="Where the clip and its results go.")] = Path("demo"),
    force: Annotated[bool, Option("--force", help="Replace an earlier demo's files.")] = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a sample clip with a manipulated face, and analyse it.

    The clip is a public-domain portrait set in motion; its face is manipulated from 2 s to 4 s. Results are
    written next to it, as with `deepscan detect --heatmap`.

    Exit codes: 0 analysed, 1 not analysed, 2 usage error or existing files.
    """
    from deepscan.batches.outcomes import Outcome
    from deepscan.cli.preferences import gather
    from deepscan.cli.results import link, print_table
    from deepscan.files import check_free
    from deepscan.flow import keep_memory_level
    from deepscan.pipeline import scan
    from deepscan.records import Request
    from deepscan.verification import sample

    clip, results = folder / "sample.mp4", folder / "results" / "sample.mp4"
    preferences = gather(options.given_flags(context) | {"heatmaps.draw": True})
    for there in (clip, results):
        if there.exists() and not force:
            raise SettingsError(
                f"{there}: already exists; --force replaces it, deepscan demo FOLDER writes elsewhere"
            )
    check_free(results, force)
    keep_memory_level()
    fetch_weights(preferences.settings.scoring, quiet)
    sample.write(clip)
    with progress_bars(quiet) as bars:
        report = scan(
            clip,
            preferences.settings,
            out=results,
            force=force,
            request=Request(argv=("deepscan", *context.obj), origins=preferences.origins()),
            progress=bars.stages(clip.name),
        )
    outcome = Outcome.of(clip, report)
    print_table([outcome])
    if quiet:
        return
    typer.echo(f"The clip is {clip}. Its face is manipulated from 2 s to 4 s.")
    link("Report", results / "report.html")
