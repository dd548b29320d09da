"""The command line: parses arguments, calls one function, turns errors into exit codes.

Arguments come in. Results go to stdout, everything else to stderr, and `run` returns the exit code. Only
`deepscan.__main__`, the tools and the tests may import this package, which may import every other one. Each
command has a file of its own and imports heavy modules inside its function, so that --help answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated

import typer
from typer import Option

from deepscan.cli import config, weights
from deepscan.cli.benchmark import benchmark
from deepscan.cli.calibrate import calibrate
from deepscan.cli.compare import compare
from deepscan.cli.console import Exit, causes, expanded, say, unread
from deepscan.cli.datasets import datasets
from deepscan.cli.demo import demo
from deepscan.cli.detect import detect
from deepscan.cli.doctor import doctor
from deepscan.cli.export import export
from deepscan.cli.export_labels import export_labels
from deepscan.cli.help import Command, Group
from deepscan.cli.keygen import keygen
from deepscan.cli.model import model
from deepscan.cli.prepare import prepare
from deepscan.cli.serve import serve
from deepscan.cli.train import train
from deepscan.cli.verify import verify
from deepscan.cli.watch import watch
from deepscan.errors import DeepscanError, SettingsError
from deepscan.plain import nearest

__all__ = ["app", "run"]

app = typer.Typer(
    name="deepscan",
    cls=Group,
    help="Inspect videos for manipulated faces, and record how each verdict was reached.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich would double what --help takes
    context_settings={"help_option_names": ["-h", "--help"]},
)


# Commands by what they are for, in the order of their need.
MEDIA, MACHINE, RESEARCH = "Look at media", "This machine", "Train and measure"
for heading, commands in (
    (MEDIA, (detect, watch, serve, verify, compare, keygen)),
    (MACHINE, (demo, doctor)),
    (RESEARCH, (export_labels, prepare, train, calibrate, export, model, datasets, benchmark)),
):
    for command in commands:
        app.command(cls=Command, rich_help_panel=heading)(command)
app.add_typer(weights.app, name="weights", rich_help_panel=MACHINE)
app.add_typer(config.app, name="config", rich_help_panel=MACHINE)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Expected failures are one line on stderr."""
    if arguments is None and os.name == "nt":
        arguments = expanded(sys.argv[1:])
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a file name must not end a run that cannot show it
            stream.reconfigure(errors="backslashreplace")
    try:
        # As context.obj the arguments reach the commands whole: reports state them as typed.
        code = int(app(args=given, prog_name="deepscan", obj=given, standalone_mode=False) or 0)
    except DeepscanError as error:
        say(f"error: {error}")
        if {"-v", "--verbose"} & set(given):
            for cause in causes(error):
                say(f"  because of {cause}")
        return Exit.USAGE if isinstance(error, SettingsError) else Exit.NOTHING_USABLE
    except typer.TyperException as error:  # a mistake in the arguments
        context = getattr(error, "ctx", None)
        command = "deepscan" if context is None else context.command_path
        say(f"error: {_mistake(error)} See {command} --help.")
        return error.exit_code
    except typer.Abort:
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        with unread(sys.stdout):
            raise
        return Exit.ANALYSED  # what was asked for was done, as far as anybody wanted to read
    except OSError as error:  # errors of files name them; what is left is a full disk behind stdout
        if error.errno != errno.ENOSPC or error.filename:
            raise
        say(f"error: standard output cannot be written: {error.strerror}; make room and try again")
        return Exit.NOTHING_USABLE
    if code == Exit.INTERRUPTED:
        say("interrupted; finished results are kept")
    return code


def _mistake(error: typer.TyperException) -> str:
    """A sentence about a mistake in the arguments, with a suggestion."""
    words = error.format_message()
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if option is not None and context is not None and words.startswith("No such option"):
        known = [
            o for p in context.command.get_params(context) for o in (*p.opts, *p.secondary_opts)
        ]
        near = nearest(option, known)
        words = f"No such option: {option}." + (f" Did you mean {near}?" if near else "")
    return words if words.endswith((".", "?", "!")) else f"{words}."


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, Option("--version", "-V", help="Show the version and leave.")] = False,
) -> None:
    if version:
        from deepscan import __version__

        typer.echo(f"deepscan {__version__}")
        raise typer.Exit
