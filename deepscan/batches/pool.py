"""Runs tasks on workers, one at a time on each; a task that kills its worker does not affect the others.

    take() -> task -> a worker of the crew: work(task) -> (task, result)

A task goes only to an idle worker, so nothing queues up. A worker that dies is replaced and its task is
tried again, until it has cost `tries` workers. The crew is made of processes on this machine, or actors of
a cluster (see `cluster`).
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection, get_context, parent_process, resource_tracker
from typing import Any, Generic, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Death:
    """Replaces a result: how the last worker that tried ended, such as "SIGKILL" or "exit code 1"."""

    how: str
    tries: int


class Crew(Protocol):
    """Workers that are started when there are tasks for them."""

    def room(self) -> bool:
        """Whether a worker is idle, or another may be started."""

    def give(self, task: Any, tried: int) -> None:
        """Start a task, counting this as try number `tried`; only while there is room."""

    def wait(self) -> tuple[Any, int, Any]:
        """Wait for the next finished task; return it with its `tried` and its result or `Death`."""

    def close(self) -> None:
        """End all workers, whatever they are doing."""


class Pool(Generic[Task, Result]):
    """`jobs` workers, started when there are tasks for them and ended by `close`.

    Args:
        work: called in a worker with a task; it, tasks and results are pickled. An exception ends the worker.
        jobs: number of workers.
        start: called once in each worker.
        tries: number of workers that a task may cost.
        lost: called with a task whose worker died, before it is tried again, to clean up.
        crew: makes the workers from `work`, `jobs` and `start`.
    """

    def __init__(
        self,
        work: Callable[[Task], Result],
        jobs: int,
        start: Callable[[], None],
        tries: int = 3,
        lost: Callable[[Task], None] = lambda task: None,
        crew: Callable[..., Crew] | None = None,
    ) -> None:
        self.crew = (crew or Processes)(work, jobs, start)
        self._tries, self._lost = tries, lost

    def run(self, take: Callable[[], Task | None]) -> Iterator[tuple[Task, Result | Death]]:
        """Run tasks; yield each with its result, in the order they finish.

        `take` returns the next task, or None if there is none at the moment; it is asked again after the next
        result. The run ends when nothing is under way.
        """
        again: deque[tuple[Task, int]] = deque()
        busy = 0
        while True:
            while self.crew.room():
                task, tried = again.popleft() if again else (take(), 0)
                if task is None:
                    break
                self.crew.give(task, tried + 1)
                busy += 1
            if not busy:
                return
            task, tried, result = self.crew.wait()
            busy -= 1
            if isinstance(result, Death):
                self._lost(task)
                if tried < self._tries:
                    again.append((task, tried))
                    continue
            yield task, result

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        self.crew.close()


class Worker:
    """A process on this machine, and our end of the pipe to it.

    It ignores Ctrl-C, which its parent handles, and ends with its parent.

    Args:
        work: called in the process with each task sent through `pipe` and a function that sends an answer
        back;
            both are pickled. An exception ends the process, and the pipe with it.
        start: called first in the process.
    """

    def __init__(
        self, work: Callable[[Any, Callable[[Any], None]], None], start: Callable[[], None]
    ) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, start), daemon=True)
        with _alone():
            self.process.start()
        theirs.close()  # so that the pipe closes with the process

    def end(self) -> None:
        """Stop it, whatever it is doing."""
        self.process.kill()
        self.process.join()

    def ended(self) -> str:
        """Wait until it has ended by itself; return how, in words."""
        self.process.join()
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


@contextmanager
def _alone() -> Iterator[None]:
    """Withhold from processes started in the block what they must not inherit.

    It does not hear Ctrl-C, not even while it imports; and it imports nothing from the working folder, which
    may be full of evidence, while Python starts it by `-c`, which would look there first.
    """
    was = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    if masks:  # the first process would start it, and it unblocks SIGINT once it runs
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masks else set()
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if was is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = was


def _serve(
    pipe: Any, work: Callable[[Any, Callable[[Any], None]], None], start: Callable[[], None]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        work(task, pipe.send)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _answer(work: Callable[[Any], Any], task: Any, send: Callable[[Any], None]) -> None:
    send(work(task))


class Processes:
    """A crew of processes on this machine; the arguments are those of `Pool`."""

    def __init__(self, work: Callable[[Any], Any], jobs: int, start: Callable[[], None]) -> None:
        self._begin, self._jobs = partial(Worker, partial(_answer, work), start), jobs
        self._idle: list[Worker] = []
        self._busy: dict[Any, tuple[Worker, Any, int]] = {}  # worker, task and tries, by pipe

    def room(self) -> bool:
        return len(self._busy) < self._jobs

    def give(self, task: Any, tried: int) -> None:
        worker = self._idle.pop() if self._idle else self._begin()
        self._busy[worker.pipe] = worker, task, tried
        with suppress(OSError):  # it is dead already; receiving from it will reveal that
            worker.pipe.send(task)

    def wait(self) -> tuple[Any, int, Any]:
        (pipe, *_) = connection.wait(list(self._busy))
        worker, task, tried = self._busy.pop(pipe)
        try:
            result = worker.pipe.recv()
        except (EOFError, OSError):
            return task, tried, Death(worker.ended(), tried)
        self._idle.append(worker)
        return task, tried, result

    def close(self) -> None:
        for worker in (*self._idle, *(busy[0] for busy in self._busy.values())):
            worker.end()
        self._idle, self._busy = [], {}
