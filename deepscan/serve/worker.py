"""The process that analyses uploaded clips, apart from the server so that no clip can take it down."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TypeAlias

from deepscan.config import Settings
from deepscan.errors import DeepscanError, InputError
from deepscan.records import Case, Request

# Called with a stage, how much of it is done, and how much there is.
Tell: TypeAlias = Callable[[str, int, int], None]

# A clip that takes longer than this is given up; a minute is usual, however long the clip is.
MOST_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Analysis:
    """What an analysis found, as the list of clips shows it; the report has the rest."""

    verdict: str
    sentence: str
    warnings: int


class Worker:
    """One process, started when it is first needed and again after it was stopped or died.

    It keeps the networks for the next clip.
    """

    def __init__(self, settings: Settings, argv: tuple[str, ...] = ()) -> None:
        self._settings, self._argv = settings, argv
        self._process: SpawnProcess | None = None
        self._line: Connection | None = None

    def start(self) -> None:
        """Have the process load the networks, so that the first clip need not wait for them."""
        if self._process is not None and self._process.is_alive():
            return
        spawn = multiprocessing.get_context("spawn")
        self._line, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=_work, args=(theirs, self._settings, self._argv), name="deepscan-worker"
        )
        self._process.daemon = True
        self._process.start()
        theirs.close()

    def run(self, clip: Path, out: Path, case: Case | None, tell: Tell) -> Analysis:
        """Analyse `clip` and write its results to `out`.

        Raises:
            InputError: it cannot be analysed, it broke the process, or it took too long.
        """
        self.start()
        assert self._line is not None
        ends = time.monotonic() + MOST_SECONDS
        try:
            self._line.send((clip, out, case))
            while self._line.poll(max(0.0, ends - time.monotonic())):
                message = self._line.recv()
                if isinstance(message, Analysis):
                    return message
                if isinstance(message, str):
                    raise InputError(message)
                tell(*message)
        except (EOFError, OSError) as error:
            self.stop()
            raise InputError(
                f"{clip.name}: the analysis broke off; the file may be made to break decoders, or memory"
                " ran out. Try it with deepscan detect"
            ) from error
        self.stop()
        raise InputError(
            f"{clip.name}: not finished after {MOST_SECONDS / 60:.0f} minutes; given up"
        )

    def stop(self) -> None:
        """End the process at once, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.join()


def _work(line: Connection, settings: Settings, argv: tuple[str, ...]) -> None:
    """Take clips from `line` one by one, and tell of them."""
    from deepscan.flow import keep_memory_level
    from deepscan.model.networks import load_models
    from deepscan.pipeline import scan

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to answer
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    keep_memory_level()
    with suppress(DeepscanError):  # scan says so again, to somebody who waits for it
        load_models(settings.faces, settings.scoring)
    here = Path.cwd()
    while True:
        try:
            clip, out, case = line.recv()
        except EOFError:
            return
        # From within its folder a clip has its name alone for a path: reports tell of no folder that is gone
        # when they are read.
        os.chdir(clip.parent)
        try:
            report = scan(
                clip.name,
                settings,
                out=out,
                request=Request(argv, settings.origins(), case),
                progress=lambda *stage: line.send(stage),
            )
        except DeepscanError as error:
            line.send(str(error))
        else:
            line.send(
                Analysis(
                    report.verdict.name, report.verdict.sentence, len(report.evidence.warnings)
                )
            )
        finally:
            os.chdir(here)


def _end_with_the_server() -> None:
    """A server that was killed leaves nobody behind who works on."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
