"""Scans many inputs, any of which may be hostile, on a machine that may be switched off at any time.

    inputs -> plan (what is finished?) -> processes, each scanning one input at a time -> rows

As each input is finished its results appear, then its row in batch.sqlite (see `outcomes`). A killed run
continues with `resume`, whenever it was killed. Bytes that were scanned already with the same weights and
settings are not scanned again: their row points to the results that exist.
"""

from __future__ import annotations

import errno
import hashlib
import json
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import deepscan
from deepscan.batches import outcomes
from deepscan.batches.inputs import Input
from deepscan.batches.outcomes import Attempt, Outcome, Outcomes
from deepscan.batches.pool import Crew, Death, Pool, cores
from deepscan.config import Settings
from deepscan.errors import (
    DeepscanError,
    InputError,
    OutputError,
    ProcessDied,
    SettingsError,
    UnreadableInput,
    WeightsError,
)
from deepscan.files import check_free, check_inside, clear_parts, is_part, sha256, weights_sha256
from deepscan.flow import Progress, keep_memory_level
from deepscan.model.header import read_header
from deepscan.model.networks import each, limit_threads, sleep_for_gpu, weights_file
from deepscan.pipeline import examine, scan
from deepscan.records import Report, Request
from deepscan.search import Search

# Names in the batch's folder that no input's results may have.
RESERVED = {
    "index.html",
    *outcomes.TABLES,
    *(outcomes.NAME + suffix for suffix in ("", "-wal", "-shm", "-journal")),
}

# Errors with which the next input would fail, too.
HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(slots=True)
class _Task:
    """An input to scan.

    Attributes:
        replace: results in its folder may be replaced.
        then: the input that the same process will most likely scan next.
    """

    path: Path
    attempt: Attempt
    replace: bool
    then: Path | None = None


class Batch:
    """A folder of results, its outcomes and the processes that fill it; must be closed.

    Args:
        out: the folder. It is locked against other runs.
        settings: as for `scan`.
        jobs: number of processes that scan; each loads the networks.
        crew: as for `Pool`: this machine's processes, unless they are a cluster's `Actors`.
        threads: of each process; by default they share this machine's cores.
        resume: continue an earlier run. Finished inputs are skipped unless their file has changed; failed and
            unfinished ones are scanned again.
        force: replace earlier results.
        request: how the run was asked for, for the reports.

    Raises:
        WeightsError: the detector is missing or wrong.
        OutputError: `out` cannot be written, or another run is using it.
    """

    def __init__(
        self,
        out: Path,
        settings: Settings | None = None,
        *,
        jobs: int = 1,
        crew: Callable[..., Crew] | None = None,
        threads: int | None = None,
        resume: bool = False,
        force: bool = False,
        request: Request | None = None,
    ) -> None:
        settings = settings or Settings()
        self._out, self._resume, self._force = out, resume, force
        self._work = _work(settings)
        self._outcomes = Outcomes(out)
        start = partial(_start, threads or max(1, cores() // jobs))
        self._pool: Pool[_Task, Outcome | DeepscanError] = Pool(
            partial(_scan, settings, request),
            jobs,
            start,
            lost=_lost,
            crew=crew,
        )
        self._alone = jobs == 1  # else another process may take what comes next
        self._running: dict[Path, _Task] = {}
        self._digests: dict[Path, str] = {}  # of inputs under way, if needed

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything under way and delete its partial results."""
        self._pool.close()
        for task in self._running.values():
            clear_parts(task.attempt.folder)
        self._outcomes.close()

    def assess(self, inputs: Sequence[Input]) -> Iterator[Outcome]:
        """The outcome of each input: first those of earlier runs, then the others as they finish.

        An input that cannot be analysed, or that crashes three processes, has an outcome that says so.

        Raises:
            SettingsError: earlier results are in the way; raised before any work.
            OutputError: no more results can be written, as on a full disk; what is finished is kept.
        """
        taken: set[str] = set()
        plans = [self._plan(one, taken) for one in inputs]
        todo: deque[_Task] = deque()
        for plan in plans:
            if isinstance(plan, Outcome):
                yield plan
            else:
                todo.append(plan)
        waiting: deque[_Task] = deque()  # for an input with the same bytes that is under way
        ready: deque[Outcome] = deque()

        def take() -> _Task | None:
            for source in (waiting, todo):
                for _ in range(len(source)):
                    task = source.popleft()
                    if self._same_is_running(task):
                        waiting.append(task)
                        continue
                    same = self._duplicate(task)
                    if same is not None:
                        ready.append(self._finish(task, same))
                        continue
                    if self._alone and todo:
                        task.then = todo[0].path
                    self._outcomes.begin(task.path, task.attempt)
                    self._running[task.path] = task
                    return task
            return None

        for task, result in self._pool.run(take):
            del self._running[task.path]
            self._digests.pop(task.path, None)
            if isinstance(result, Death):
                result = Outcome.of(task.path, _quarantined(task.path, result))
            if isinstance(result, DeepscanError):
                raise result
            yield self._finish(task, result)
            while ready:
                yield ready.popleft()
        while ready:
            yield ready.popleft()

    # -- planning -------------------------------------------------------------------------------

    def _plan(self, one: Input, taken: set[str]) -> _Task | Outcome:
        """The task for an input, or its outcome from earlier."""
        try:
            stat = one.path.stat()
            size, changed = stat.st_size, stat.st_mtime_ns
        except OSError:
            size = changed = 0  # scanning it will say what is wrong
        row = self._outcomes.attempt(one.path)
        own = row is not None and (row.outcome is None or row.outcome.same_as is None)
        folder = row.folder if row is not None and own else self._name(one, taken)
        taken.add(_as_disks_compare(folder))
        attempt = Attempt(folder, size, changed, self._work)
        resumed = row is not None and self._resume
        if row is not None and row.outcome is not None and resumed and not self._force:
            same = (row.bytes, row.changed) == (size, changed)
            there = row.outcome.folder is not None and (row.folder / "report.json").is_file()
            if there and row.work != self._work:
                raise SettingsError(
                    f"{row.folder}: made with other weights, settings or another version; use the"
                    f" same ones to continue, replace it with --force, or choose another --out"
                )
            if there and same:
                return replace(row.outcome, path=one.path)
        replaceable = self._force or (resumed and own)
        try:
            check_inside(folder, self._out)
            check_free(folder, replaceable)
        except OutputError as error:
            hint = "; --resume continues a batch" if row is not None and not resumed else ""
            raise SettingsError(f"{error}{hint}") from error
        if row is not None and row.outcome is None:
            clear_parts(folder)
        return _Task(one.path, attempt, replaceable)

    def _name(self, one: Input, taken: set[str]) -> Path:
        """A folder for an input's results; names that some disk takes for equal get a number."""
        wanted = self._out / one.inner
        folder, number = wanted, 1
        while (
            _as_disks_compare(folder) in taken
            or (folder.parent == self._out and folder.name.casefold() in RESERVED)
            or is_part(folder)
            or self._outcomes.owner(folder) is not None
        ):
            number += 1
            folder = wanted.with_name(f"{wanted.name}-{number}")
        return folder

    # -- the same bytes twice -------------------------------------------------------------------

    def _same_is_running(self, task: _Task) -> bool:
        """Whether an input with the same bytes is under way."""
        peers = [t for t in self._running.values() if t.attempt.bytes == task.attempt.bytes]
        return any(self._digest(task) == self._digest(peer) != "" for peer in peers)

    def _duplicate(self, task: _Task) -> Outcome | None:
        """The outcome of an input with the same bytes, if any; bytes are compared only if sizes agree."""
        if self._force or not self._outcomes.sized(task.attempt.bytes, task.path):
            return None
        duplicate = self._outcomes.duplicate(self._digest(task), self._work)
        if (
            duplicate is None
            or duplicate.folder is None
            or not (duplicate.folder / "report.json").is_file()
        ):
            return None
        return replace(duplicate, path=task.path, same_as=duplicate.path)

    def _digest(self, task: _Task) -> str:
        if task.path not in self._digests:
            try:
                self._digests[task.path] = sha256(task.path)
            except UnreadableInput:
                self._digests[task.path] = ""  # unreadable: scanning it will report that
        return self._digests[task.path]

    def _finish(self, task: _Task, outcome: Outcome) -> Outcome:
        self._digests.pop(task.path, None)
        self._outcomes.finish(task.path, task.attempt, outcome)
        return outcome


def scan_or_error(
    path: Path,
    settings: Settings,
    out: Path,
    force: bool,
    request: Request | None,
    progress: Progress | None = None,
) -> Report | InputError | OutputError:
    """Scan one input into `out`; return its report, or the error that prevented one.

    Raises:
        WeightsError, SettingsError: every other input would fail too.
    """
    try:
        return scan(path, settings, out=out, force=force, request=request, progress=progress)
    except (InputError, OutputError) as error:
        return error


def _work(settings: Settings) -> str:
    """A digest of everything that decides a result, except the input."""
    paths = [weights_file(one.weights) for one in each(settings.scoring)]
    plain: dict[str, Any] = settings.to_dict()
    del plain["limits"], plain["scoring"]["offline"], plain["scoring"]["weights"]
    plain |= {
        "version": deepscan.__version__,
        "detector": [weights_sha256(path) for path in paths],
        "base": [read_header(path).base["sha256"] for path in paths],
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _quarantined(path: Path, death: Death) -> ProcessDied:
    return ProcessDied(
        f"{path}: {death.tries} processes died on it, the last from {death.how}; memory may be"
        f" short, or the file may be built to cause this. It is skipped until the batch is resumed"
    )


def _lost(task: _Task) -> None:
    """Clean up after a process that died, and try its input again by itself: it may not be the culprit."""
    clear_parts(task.attempt.folder)
    task.then = None


# --- in a process of the pool ----------------------------------------------------------------------


def _start(threads: int) -> None:
    keep_memory_level()
    sleep_for_gpu()
    limit_threads(threads)


def _scan(settings: Settings, request: Request | None, task: _Task) -> Outcome | DeepscanError:
    """The outcome of one input, or an error with which every other input would fail, too."""
    result: Report | DeepscanError
    try:
        with _search(task.path, settings) as search:
            result = examine(
                search,
                out=task.attempt.folder,
                force=task.replace,
                request=request,
                found=partial(_begin, task.then, settings),
            )
    except (InputError, OutputError) as error:
        result = error
    except (WeightsError, SettingsError) as error:
        return error
    cause = result.__cause__ if isinstance(result, OutputError) else None
    if isinstance(cause, OSError) and cause.errno in HOPELESS:
        return OutputError(f"{result}; finished results are kept; continue with --resume")
    return Outcome.of(task.path, result)


_begun: dict[Path, Search] = {}  # the next input's, in a process that scans one after the other


def _begin(path: Path | None, settings: Settings) -> None:
    """Begin the search of the next input, while the one before is scored."""
    if path is not None:
        with suppress(InputError):  # its turn will say why
            _begun[path] = Search(path, settings)


def _search(path: Path, settings: Settings) -> Search:
    """The search of an input, which may have started; a search of another input is ended."""
    own = _begun.pop(path, None)
    for other in _begun.values():
        other.close()
    _begun.clear()
    return own or Search(path, settings)


def _as_disks_compare(path: Path) -> str:
    """A path as the disks of Windows and macOS compare it: without case, and accents in one form."""
    return unicodedata.normalize("NFC", str(path)).casefold()
