"""The commands `deepscan config ...`: show the settings and where each is set, or write a deepscan.toml."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from deepscan.cli import options
from deepscan.cli.console import printable, say
from deepscan.cli.help import Command, Group

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Show the settings in force, and write a settings file."
)


@app.command("show", cls=Command)
def config_show(json: options.Json = False) -> None:
    """Show every setting of detect, its value, and where it was set.

    From weakest to strongest: defaults, deepscan.toml in the working folder or above it, the user's own file,
    DEEPSCAN_* variables, flags.
    """
    from deepscan.cli.preferences import gather
    from deepscan.config import files, project, user_file

    preferences = gather().keys.values()
    if json:
        rows = [
            {"key": p.key, "value": p.value, "origin": p.origin, "place": p.place}
            for p in preferences
        ]
        document = {"settings": rows, "files": [str(path) for path, _ in files()]}
        typer.echo(jsonlib.dumps(document, indent=2))
        return
    for one in preferences:
        typer.echo(printable(f"{one.key:<21} {_shown(one.value):<12} {one.set_by}"))
    nearest, own = project()[0], user_file()
    say(f"deepscan.toml: {nearest or 'none here or above'}")
    say(f"the user's file: {own}{'' if own.is_file() else ' (not there)'}")


def _shown(value: object) -> str:
    """A value as its file would say it."""
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)


@app.command("init", cls=Command)
def config_init(
    user: Annotated[
        bool, Option("--user", help="Write your own settings file, which holds in all folders.")
    ] = False,
    force: options.Force = False,
) -> None:
    """Write a deepscan.toml here with every key, its meaning and its default, for you to edit."""
    from deepscan.cli.preferences import example
    from deepscan.config import user_file
    from deepscan.errors import OutputError
    from deepscan.files import part_file

    path = user_file() if user else Path("deepscan.toml")
    if path.exists() and not force:
        raise OutputError(f"{path}: already exists; --force overwrites it")
    with part_file(path) as part:
        part.write_text(example(), "utf-8")
    typer.echo(path)
