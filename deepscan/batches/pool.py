"""A few processes that work tasks off one at a time each, and may die of one without loss of the others.

    take() -> task --pipe--> work(task) in a process --pipe--> (task, result)

A task goes to a process only when that is idle, so nothing queues up; a process that dies is replaced, and
its task, which alone may be to blame, is tried again, until it has cost `tries` processes.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import Any, Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """How many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Death:
    """In place of a result: how the last process that tried ended, as in "SIGKILL" or "exit code 1"."""

    how: str
    tries: int


class _Worker:
    """A process, the parent's end of the pipe to it, and what it is at."""

    def __init__(self, work: Callable[[Any], Any], start: Callable[[], None]) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, start))
        self.process.start()
        theirs.close()  # so that the pipe ends with the process
        self.task: Any = None
        self.tried = 0

    def give(self, task: Any, tried: int) -> None:
        self.task, self.tried = task, tried
        with suppress(OSError):  # dead already, which receiving from it will tell
            self.pipe.send(task)

    def end(self) -> None:
        """Stop it, whatever it is at."""
        self.process.terminate()
        self.process.join(1)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.pipe.close()


class Pool(Generic[Task, Result]):
    """`jobs` processes, started as there are tasks for them, and ended by `close`.

    Args:
        work: called in a process with a task; it, tasks and results are pickled. What it raises ends the
            process.
        jobs: how many processes.
        start: called once in each.
        tries: processes that a task may cost.
        lost: called with a task that has cost one, before it is tried again: to clear up after it.
    """

    def __init__(
        self,
        work: Callable[[Task], Result],
        jobs: int,
        start: Callable[[], None],
        tries: int = 3,
        lost: Callable[[Task], None] = lambda task: None,
    ) -> None:
        self._work, self._jobs, self._start, self._tries = work, jobs, start, tries
        self._lost = lost
        self._idle: list[_Worker] = []
        self._busy: dict[Any, _Worker] = {}

    def run(self, take: Callable[[], Task | None]) -> Iterator[tuple[Task, Result | Death]]:
        """Work tasks off; each with its result, in the order they finish.

        `take` gives the next task, or None if there is none for now: it is asked again after the next
        result, and the end is when nothing is under way.
        """
        again: deque[tuple[Task, int]] = deque()
        while True:
            while len(self._busy) < self._jobs:
                task, tried = again.popleft() if again else (take(), 0)
                if task is None:
                    break
                worker = self._idle.pop() if self._idle else _Worker(self._work, self._start)
                self._busy[worker.pipe] = worker
                worker.give(task, tried + 1)
            if not self._busy:
                return
            (pipe, *_) = connection.wait(list(self._busy))
            worker = self._busy.pop(pipe)
            task = worker.task
            try:
                result = worker.pipe.recv()
            except (EOFError, OSError):
                worker.process.join()
                code = worker.process.exitcode or 0
                worker.end()
                self._lost(task)
                if worker.tried < self._tries:
                    again.append((task, worker.tried))
                    continue
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                yield task, Death(how, self._tries)
                continue
            self._idle.append(worker)
            yield task, result

    def close(self) -> None:
        """End all processes, whatever they are at."""
        for worker in self._busy.values():
            worker.process.terminate()
        for worker in (*self._idle, *self._busy.values()):
            worker.end()
        self._idle, self._busy = [], {}


def _serve(pipe: Any, work: Callable[[Any], Any], start: Callable[[], None]) -> None:
    """What a process does: deaf to Ctrl-C, which its parent hears, and gone when that is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(work(task))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
