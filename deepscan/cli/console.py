"""Messages and progress bars on stderr, exit codes, and other things that all commands share."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from deepscan.errors import without_userinfo

if TYPE_CHECKING:
    from rich.console import Console

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


# The console on which progress is drawn now, if any: what else is printed goes above it.
_drawing: list[Console] = []


def say(message: str) -> None:
    """Print a message on stderr; bytes of file names that are not text appear as escapes."""
    with unread(sys.stderr):
        if _drawing:
            _above(printable(message))
        else:
            typer.echo(printable(without_userinfo(message)), err=True)


def put(text: str) -> None:
    """Print results on stdout."""
    with unread(sys.stdout):
        if _drawing and sys.stdout.isatty():
            _above(text.removesuffix("\n"))
        else:
            sys.stdout.write(text)


def _above(text: str) -> None:
    from rich.text import Text

    _drawing[-1].print(Text(text), soft_wrap=True)


@contextmanager
def unread(stream: Any) -> Iterator[None]:
    """Run a block that prints to `stream`; if nobody reads it any more, discard the output from then on.

    A closed pipe, as after `head`, must not end an analysis or change its exit code.
    """
    try:
        yield
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def printable(text: str) -> str:
    """Escape control characters and bytes that are not text."""
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


# What is under way, in words, for the stages that `scan` names.
STAGES = {
    "loading": "loading the detector",
    "faces": "finding faces",
    "scoring": "scoring faces",
    "second look": "looking closer at one part",
    "explaining": "testing the maps",
    "writing": "writing results",
    "inputs": "inputs finished",
}


class Bars:
    """The current work in one line on stderr: a title, the stage, its progress and the time left.

    Another line stays above it if asked for.
    """

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def callback(self, title: str, stage: str) -> Callable[[int, int], None]:
        tell = self.stages(title)
        return lambda done, total: tell(stage, done, total)

    def stages(self, title: str) -> Callable[..., None]:
        """A function of (stage, done, total, note=""); a total of 0 is not known."""
        from rich.markup import escape

        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks = {}

        def tell(stage: str, done: int, total: int, note: str = "") -> None:
            words = f"{STAGES.get(stage, stage)} {note}".strip()
            text = f"{escape(printable(title))}: {escape(words)}"
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(text, total=total or None)
            for other, task in self._tasks.items():
                self._progress.update(task, visible=other == stage)
            self._progress.update(
                self._tasks[stage], completed=done, total=total or None, description=text
            )

        return tell

    def lasting(self) -> Callable[[str], None]:
        """A function that sets the words of a line of its own, which stays whatever the work is."""
        from rich.markup import escape

        task = self._progress.add_task("", total=None)
        return lambda words: self._progress.update(task, description=escape(printable(words)))


def _columns() -> list[Any]:
    """How a line of progress looks: ⠋ clip.mp4: scoring faces ━━━━╸── 8 of 32, 0:14 left."""
    from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Left(ProgressColumn):
        """The progress and the time left, or the time so far if the total is unknown."""

        def render(self, task: Task) -> Text:
            from deepscan.judgement.words import time_code

            if task.total is None:
                return Text(time_code(int(task.elapsed or 0), 0))
            left = task.time_remaining
            ends = "" if left is None or task.finished else f", {time_code(int(left), 0)} left"
            share = f"{task.completed:.0f} of {task.total:.0f}"
            large = task.total >= 100_000  # bytes, of which nobody wants to read the number
            return Text((f"{task.percentage:.0f} %" if large else share) + ends)

    title = TextColumn(
        "{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
    )
    return [SpinnerColumn("line"), title, BarColumn(16), Left()]


@contextmanager
def progress_bars(quiet: bool) -> Iterator[Bars]:
    """A line of progress that disappears when the block ends; none if `quiet` or not on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal  # no animation off a terminal
    # stdout keeps to itself: it may be a file of results.
    with Progress(
        *_columns(),
        console=console,
        transient=True,
        disable=hidden,
        redirect_stdout=False,
        expand=True,
    ) as progress:
        if not hidden:
            _drawing.append(console)
        try:
            yield Bars(progress)
        finally:
            if not hidden:
                _drawing.pop()


def fetch_weights(scoring: Scoring, quiet: bool) -> None:
    """Make sure that the detector and its base are here before a scan, and print any note on its speed."""
    from deepscan.model.networks import caution, prepare_weights

    with progress_bars(quiet) as bars:
        prepare_weights(scoring, bars.callback("fetching the CLIP base", "bytes"))
    if not quiet and (note := caution(scoring)):
        say(note)
