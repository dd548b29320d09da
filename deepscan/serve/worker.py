"""Analyses uploaded clips in a separate process, so that no clip can take the server down."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepscan.batches import pool
from deepscan.config import Settings
from deepscan.errors import DeepscanError, InputError
from deepscan.judgement.summary import told
from deepscan.records import Case, Report, Request

if TYPE_CHECKING:
    from deepscan.flow import Progress

# A clip that takes longer is stopped; a minute is usual, however long the clip is.
MOST_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Analysis:
    """The result of an analysis as the list of clips shows it; the report has the rest."""

    verdict: str
    sentence: str
    warnings: int

    @classmethod
    def of(cls, report: Report) -> Analysis:
        """What the list shows of a report."""
        return cls(report.verdict.name, told(report), len(report.evidence.warnings))


class Worker:
    """One process, started when first needed and restarted after it was stopped or died.

    It keeps the networks loaded for the next clip.
    """

    def __init__(self, settings: Settings, argv: tuple[str, ...] = ()) -> None:
        self._begin = partial(pool.Worker, partial(_scan, settings, argv), partial(_load, settings))
        self._worker: pool.Worker | None = None

    def start(self) -> None:
        """Load the networks now, so that the first clip does not wait for them."""
        self._started()

    def _started(self) -> pool.Worker:
        worker = self._worker
        if worker is None or not worker.process.is_alive():
            self._worker = worker = self._begin()
        return worker

    def run(self, clip: Path, out: Path, case: Case | None, progress: Progress) -> Analysis:
        """Analyse `clip` and write its results to `out`.

        Raises:
            InputError: the clip cannot be analysed, crashed the process, or took too long.
        """
        pipe = self._started().pipe
        ends = time.monotonic() + MOST_SECONDS
        try:
            pipe.send((clip, out, case))
            while pipe.poll(max(0.0, ends - time.monotonic())):
                message = pipe.recv()
                if isinstance(message, Analysis):
                    return message
                if isinstance(message, str):
                    raise InputError(message)
                progress(*message)
        except (EOFError, OSError) as error:
            self.stop()
            raise InputError(
                f"{clip.name}: the analysis stopped; the file may be built to break decoders, or"
                f" memory ran out. Try deepscan detect"
            ) from error
        self.stop()
        raise InputError(
            f"{clip.name}: not finished after {MOST_SECONDS / 60:.0f} minutes, so the analysis was stopped"
        )

    def stop(self) -> None:
        """End the process at once, whatever it is doing."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()


# --- in the process --------------------------------------------------------------------------------


def _load(settings: Settings) -> None:
    from deepscan.flow import keep_memory_level
    from deepscan.model.networks import load_models

    keep_memory_level()
    with suppress(DeepscanError):  # scan raises it again, when somebody waits for it
        load_models(settings.faces, settings.scoring)


def _scan(
    settings: Settings,
    argv: tuple[str, ...],
    task: tuple[Path, Path, Case | None],
    send: Callable[[Any], None],
) -> None:
    """Analyse one clip; send its stages as they advance, then its analysis or the reason for none."""
    from deepscan.pipeline import scan

    clip, out, case = task
    here = Path.cwd()
    # Run in the clip's folder, so that reports state only its name and no folder that will be gone.
    os.chdir(clip.parent)
    try:
        report = scan(
            clip.name,
            settings,
            out=out,
            request=Request(argv, settings.origins(), case),
            progress=lambda *stage: send(stage),
        )
    except DeepscanError as error:
        send(str(error))
    else:
        send(Analysis.of(report))
    finally:
        os.chdir(here)
