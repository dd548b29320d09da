"""The command `deepscan serve`: serves the web page on this machine."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from deepscan.cli import options
from deepscan.cli.console import fetch_weights, say
from deepscan.errors import SettingsError


def serve(
    context: typer.Context,
    paths: Annotated[list[Path] | None, Argument(hidden=True)] = None,
    host: Annotated[str, Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Option(help="Port to listen on; 0: any free port.")] = 8765,
    open_page: Annotated[bool, Option("--open", help="Open the page in a browser.")] = False,
    max_size: Annotated[
        int, Option(help="Largest clip accepted, in megabytes.", metavar="MB")
    ] = 2000,
    keep: Annotated[
        float, Option(help="How long reports are kept, in minutes.", metavar="MINUTES")
    ] = 60.0,
    weights: options.Weights = "default",
    device: options.Device = "auto",
    offline: options.Offline = False,
) -> None:
    """Serve a page to drop clips on and read their reports.

    Only this machine can reach it unless you set --host, and visitors need the key in the printed address.
    Clips are analysed one by one, with heatmaps, and then deleted; reports are deleted after --keep minutes.
    Ctrl-C stops the server and deletes everything.

    Needs the extra: pip install 'deepscan-forensics[serve]'.
    """
    try:
        from deepscan.serve.app import Limits
        from deepscan.serve.server import serve as serve_until_stopped
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in (
            "fastapi",
            "starlette",
            "uvicorn",
        ):
            raise
        raise SettingsError(
            f"deepscan serve needs {error.name}: pip install 'deepscan-forensics[serve]'"
        ) from error
    from deepscan.cli.preferences import gather
    from deepscan.config import seen_from

    if paths:  # what people try, with clips and with results of detect
        raise SettingsError(
            f"serve takes clips on its page, and no path. If {paths[0]} is a clip, use deepscan detect; if it"
            " holds results, open the report.html or index.html in it with a browser"
        )
    if max_size < 1:
        raise SettingsError(f"max-size: {max_size} MB would not accept any clip")
    if not (math.isfinite(keep) and keep > 0):
        raise SettingsError(f"keep: {keep} minutes is not a positive time")
    preferences = gather(options.given_flags(context))
    settings = preferences.settings
    if note := preferences.foreign_detector():
        say(note)
    settings = replace(
        settings,
        # Clips are analysed from folders of their own, where a relative path leads elsewhere.
        scoring=replace(settings.scoring, weights=seen_from(Path.cwd(), settings.scoring.weights)),
        heatmaps=replace(settings.heatmaps, draw=True),
    )
    fetch_weights(settings.scoring, quiet=False)

    def ready(address: str) -> None:
        say(
            f"Open {address} in a browser; Ctrl-C stops deepscan and deletes all clips and reports."
        )
        if open_page:
            import webbrowser

            webbrowser.open(address)

    serve_until_stopped(
        settings,
        host=host,
        port=port,
        limits=Limits(bytes=max_size * 10**6),
        keep=60 * keep,
        argv=("deepscan", *context.obj),
        ready=ready,
    )
    say("stopped; all clips and reports are deleted")
