"""Messages and progress bars on stderr, exit codes, and what else all commands share."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from deepscan.config import Scoring


class Exit:
    """Exit codes of `detect`; --json never changes them."""

    ANALYSED = 0  # every input was analysed, whatever the verdict
    NOTHING_USABLE = 1  # no input could be analysed, or the tool itself cannot run
    USAGE = 2
    SOME_FAILED = 3
    NOTHING_ASSESSABLE = 4  # all analysed, but no face, or not enough of one, in any
    MANIPULATION = 10  # with --fail-on manipulation
    INTERRUPTED = 130


def say(message: str) -> None:
    """Print a message on stderr; bytes of file names that are not text appear as escapes."""
    with unread(sys.stderr):
        typer.echo(printable(message), err=True)


@contextmanager
def unread(stream: Any) -> Iterator[None]:
    """A block that prints to `stream`, which leads nowhere from then on if nobody reads it any more.

    A pipe that is closed, as by `head`, must neither end an analysis nor change its exit code.
    """
    try:
        yield
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def printable(text: str) -> str:
    """Control characters, and bytes that are no text, as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def causes(error: BaseException) -> Iterator[str]:
    """The errors of other libraries behind an expected failure, for -v."""
    while (cause := error.__cause__) is not None:
        yield printable(f"{type(cause).__name__}: {cause}")
        error = cause


def expanded(arguments: Sequence[str]) -> list[str]:
    """Expand patterns (*, ?) and ~ as Unix shells do; Windows' shells do not."""
    found: list[str] = []
    for argument in arguments:
        path = argument if argument.startswith("-") else os.path.expanduser(argument)
        pattern = path.replace("[", "[[]") if {"*", "?"} & set(path) else ""
        found += sorted(glob.glob(pattern)) or [path]
    return found


class Bars:
    """Progress bars on stderr, one for each stage, made when it first reports."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}
        self._title = ""

    def callback(self, title: str, stage: str) -> Callable[[int, int], None]:
        tell = self.stages(title)
        return lambda done, total: tell(stage, done, total)

    def stages(self, title: str) -> Callable[..., None]:
        """A function of (stage, done, total, note=""): one bar a stage."""
        from rich.markup import escape

        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks = {}

        def tell(stage: str, done: int, total: int, note: str = "") -> None:
            text = f"{escape(title)} [dim]{stage} {escape(note)}[/]"
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(text, total=total)
            self._progress.update(self._tasks[stage], completed=done, total=total, description=text)

        return tell


@contextmanager
def progress_bars(quiet: bool) -> Iterator[Bars]:
    """Bars that disappear when the block ends; none if `quiet` or not on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal  # no animation off a terminal
    with Progress(console=console, transient=True, disable=hidden) as progress:
        yield Bars(progress)


def fetch_weights(scoring: Scoring, quiet: bool) -> None:
    """Have the detector and its base here before any scan, and say what is to know of how it will run."""
    from deepscan.model.networks import caution, prepare_weights

    with progress_bars(quiet) as bars:
        prepare_weights(scoring, bars.callback("fetching the CLIP base", "bytes"))
    if not quiet and (note := caution(scoring)):
        say(note)
