"""Queues jobs: uploaded clips wait, are analysed one by one, and are removed after a while.

    receive -> submit -> (waiting) -> analysed -> results kept for a while -> gone

A clip is deleted as soon as its analysis ends. Its results are deleted after `keep` seconds, a minute after
someone removes them, or when the queue closes, whichever comes first. The next server deletes what a killed
one left.
"""

from __future__ import annotations

import queue
import secrets
import shutil
import tempfile
import threading
import time
import zipfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from deepscan.errors import DeepscanError, InputError, OutputError
from deepscan.files import alone, part_file
from deepscan.records import Case
from deepscan.serve.worker import Analysis

if TYPE_CHECKING:
    from deepscan.flow import Progress

LOCK = "in-use"

UNDO = 60.0  # seconds for which the removal of a clip that has ended can be undone

# Space to leave free on the disk: a report with all its pictures takes tens of megabytes.
ROOM = 256 * 2**20


class JobState(StrEnum):
    """The state of a clip."""

    RECEIVING = "receiving"
    WAITING = "waiting"
    ANALYSING = "analysing"
    FINISHED = "finished"
    FAILED = "failed"
    REMOVED = "removed"  # for UNDO seconds it can come back


@dataclass(frozen=True, slots=True)
class Job:
    """One clip at one moment. `id` cannot be guessed and names its folder; times are seconds since 1970."""

    id: str
    name: str
    bytes: int
    state: JobState = JobState.RECEIVING
    stage: str = ""
    done: int = 0
    total: int = 0
    analysis: Analysis | None = None
    words: str = ""  # why there is no analysis
    ended: float | None = None
    removed: float | None = None
    case: Case | None = None


class Busy(DeepscanError):
    """There is no room for another clip now; the message says why and what to do."""


@runtime_checkable
class Analyst(Protocol):
    """Analyses the clips: `worker.Worker`, or a stand-in in tests."""

    def start(self) -> None: ...
    def run(self, clip: Path, out: Path, case: Case | None, progress: Progress) -> Analysis: ...
    def stop(self) -> None: ...


class JobQueue:
    """All clips of one server. Every method may be called from any thread."""

    def __init__(
        self, analyst: Analyst, folder: Path, waiting: int = 8, keep: float = 3600.0
    ) -> None:
        """Open the queue.

        Args:
            analyst: analyses the clips.
            folder: holds clips and results, in a subfolder that only this user may enter.
            waiting: how many clips may be arriving or waiting at a time.
            keep: seconds for which results are kept.

        Raises:
            OutputError: `folder` cannot be written to.
        """
        self._analyst, self._waiting, self.keep = analyst, waiting, keep
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            self._folder = Path(tempfile.mkdtemp(prefix="deepscan-serve-", dir=folder))
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
        self._in_use = ExitStack()
        self._in_use.enter_context(alone(self._folder / LOCK))
        self._jobs: dict[str, Job] = {}
        self._lock = threading.RLock()
        self._line: queue.Queue[str | None] = queue.Queue()
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=t) for t in (self._analyse_all, self._expire_all)]

    def __enter__(self) -> JobQueue:
        self._analyst.start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._line.put(None)
        for thread in self._threads:
            while thread.is_alive():
                self._analyst.stop()  # more than once: it may just have been given a clip
                thread.join(0.1)
        self._in_use.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- what the server asks for ---

    def receive(self, name: str, size: int, case: Case | None = None) -> Job:
        """Reserve a place for a clip of `size` bytes that is about to arrive.

        Raises:
            Busy: the queue or the disk is full.
        """
        with self._lock:
            if not self._threads[0].is_alive():  # a bug ended it; better said than waited for
                raise Busy("the analysis has stopped working; restart deepscan serve")
            ahead = sum(
                j.state in (JobState.RECEIVING, JobState.WAITING) for j in self._jobs.values()
            )
            if ahead >= self._waiting:
                raise Busy(f"{ahead} clips are waiting already; try again when one is done")
            if shutil.disk_usage(self._folder).free < size + ROOM:
                raise Busy("the disk has no room for this clip; make room and try again")
            job = Job(secrets.token_urlsafe(16), name, size, case=case)
            self._jobs[job.id] = job
        self.clip(job).parent.mkdir(parents=True)
        return job

    def clip(self, job: Job) -> Path:
        """The path for a clip's bytes; its name comes from `uploads.safe_name`."""
        return self._folder / job.id / "clip" / job.name

    def submit(self, job: Job) -> Job | None:
        """Queue a clip that has arrived; None if it was removed meanwhile."""
        with self._lock:
            if job.id not in self._jobs:
                return None
            size = self.clip(job).stat().st_size
            self._jobs[job.id] = waiting = replace(job, state=JobState.WAITING, bytes=size)
            self._line.put(job.id)
        return waiting

    def jobs(self) -> list[Job]:
        """All clips in the queue, in order of arrival."""
        with self._lock:
            return list(self._jobs.values())

    def job(self, name: str) -> Job | None:
        """The clip with this id, if there is one."""
        return self._jobs.get(name)

    def results(self, job: Job) -> Path:
        """The folder of a finished clip's results."""
        return self._folder / job.id / "results"

    def archive(self, job: Job) -> Path:
        """A finished clip's results as one file to download."""
        return self._folder / job.id / "results.zip"

    def remove(self, name: str) -> bool:
        """Delete a clip and its files, after UNDO seconds if it has ended; False if there is none."""
        with self._lock:
            job = self._jobs.get(name)
            if job is None or job.state is JobState.REMOVED:
                return False
            if job.state in (JobState.FINISHED, JobState.FAILED):
                self._change(name, state=JobState.REMOVED, removed=time.time())
                return True
        return self._delete(name)

    def restore(self, name: str) -> bool:
        """Undo the removal of a clip that had ended; False if it is too late."""
        with self._lock:
            job = self._jobs.get(name)
            if job is None or job.state is not JobState.REMOVED:
                return False
            state = JobState.FINISHED if job.analysis else JobState.FAILED
            return self._change(name, state=state, removed=None) is not None

    def _delete(self, name: str) -> bool:
        """Delete a clip and all its files at once, whatever its state."""
        with self._lock:
            job = self._jobs.pop(name, None)
            if job is None:
                return False
            if job.state is JobState.ANALYSING:
                self._analyst.stop()
        shutil.rmtree(self._folder / job.id, ignore_errors=True)
        return True

    # --- the line ---

    def _analyse_all(self) -> None:
        while (name := self._line.get()) is not None and not self._closing.is_set():
            job = self._change(name, state=JobState.ANALYSING)
            if job is not None:
                self._analyse(job)

    def _analyse(self, job: Job) -> None:
        def advance(stage: str, done: int, total: int) -> None:
            self._change(job.id, stage=stage, done=done, total=total)

        clip = self.clip(job)
        try:
            analysis = self._analyst.run(clip, self.results(job), job.case, advance)
            _pack(self.results(job), self.archive(job), clip.stem)
        except (InputError, OutputError) as error:
            words = str(error).removeprefix(f"{job.name}: ")
            ended = {"state": JobState.FAILED, "words": words, "ended": time.time()}
        except DeepscanError as error:  # weights: the next clip would fail too
            ended = {"state": JobState.FAILED, "words": str(error), "ended": time.time()}
        except OSError as error:  # a full disk, or the clip was removed while results were written
            words = f"its results could not be written: {error.strerror}"
            ended = {"state": JobState.FAILED, "words": words, "ended": time.time()}
        else:
            ended = {"state": JobState.FINISHED, "analysis": analysis, "ended": time.time()}
        shutil.rmtree(clip.parent, ignore_errors=True)
        if self._change(job.id, **ended) is None:  # removed meanwhile
            shutil.rmtree(self._folder / job.id, ignore_errors=True)

    def _change(self, name: str, **values: object) -> Job | None:
        """Change a clip and return it; None if it was removed."""
        with self._lock:
            if name not in self._jobs:
                return None
            self._jobs[name] = changed = replace(self._jobs[name], **values)  # type: ignore[arg-type]
            return changed

    # --- what is over ---

    def _expire_all(self) -> None:
        while not self._closing.wait(min(1.0, self.keep / 4)):
            for job in self.jobs():
                now = time.time()
                removed = job.removed is not None and now - job.removed >= UNDO
                if removed or (job.ended is not None and now - job.ended >= self.keep):
                    self._delete(job.id)


def _pack(folder: Path, archive: Path, name: str) -> None:
    """Zip all results, in a folder with the clip's name; pictures and films are compressed already."""
    with part_file(archive) as part, zipfile.ZipFile(part, "w") as packed:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            packed.write(path, f"{name}/{path.relative_to(folder).as_posix()}")


def _sweep(folder: Path) -> None:
    """Delete the folders of killed servers, whose locks nobody holds."""
    for left in folder.glob("deepscan-serve-*"):
        if not (left / f".{LOCK}.lock").is_file():
            continue  # that queue is just opening or closing
        with suppress(OutputError, OSError):  # that queue is open
            with alone(left / LOCK) as locked:
                pass
            if locked:
                shutil.rmtree(left)
