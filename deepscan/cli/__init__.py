"""The command line: parse, call one function, turn errors into exit codes.

Results go to stdout, everything else to stderr. Heavy imports stay inside the commands, so that
--help answers at once. One file per command (or family of commands).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer import Option
from typer.core import TyperCommand

from deepscan.cli import weights
from deepscan.cli.benchmark import benchmark
from deepscan.cli.calibrate import calibrate
from deepscan.cli.console import Exit, say
from deepscan.cli.datasets import datasets
from deepscan.cli.detect import detect
from deepscan.cli.model import model
from deepscan.cli.prepare import prepare
from deepscan.cli.serve import serve
from deepscan.cli.train import train
from deepscan.cli.verify import verify
from deepscan.cli.watch import watch
from deepscan.errors import DeepscanError, SettingsError

app = typer.Typer(
    name="deepscan",
    help="Inspect videos for manipulated faces, and keep evidence of how it was judged.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich would double what --help takes
    context_settings={"help_option_names": ["-h", "--help"]},
)


class WithContext(TyperCommand):
    """A command that is handed a context of the type its signature names."""

    context_class = typer.Context


app.command(cls=WithContext)(detect)
app.command()(verify)
app.command(cls=WithContext)(watch)
app.command(cls=WithContext)(serve)
app.command()(prepare)
app.command()(train)
app.command()(calibrate)
app.command()(model)
app.command()(datasets)
app.command()(benchmark)
app.add_typer(weights.app, name="weights")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Expected failures are one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # As context.obj the arguments reach the commands whole: reports state them as typed.
        code = int(app(args=given, obj=given, standalone_mode=False) or 0)
    except DeepscanError as error:
        say(f"error: {error}")
        return Exit.USAGE if isinstance(error, SettingsError) else Exit.NOTHING_USABLE
    except typer.TyperException as error:  # a mistake in the arguments
        say(f"error: {error.format_message()} See deepscan COMMAND --help.")
        return error.exit_code
    except typer.Abort:
        code = Exit.INTERRUPTED
    if code == Exit.INTERRUPTED:
        say("interrupted; finished results are kept")
    return code


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, Option("--version", help="Show the version and leave.")] = False,
) -> None:
    if version:
        from deepscan import __version__

        typer.echo(f"deepscan {__version__}")
        raise typer.Exit
