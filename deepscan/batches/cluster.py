"""`pool` on many machines: the same tasks, worked off by actors of a Ray cluster.

An actor holds the networks and does one task at a time; only actors that are ready get one, so nothing queues
up in the cluster, and actors that wait for room are what an autoscaling cluster grows by. An actor that dies,
with its machine or of its task, is replaced, and the task tried again elsewhere.

Every machine must have deepscan installed, and the inputs and the results' folder in the same places.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Generic

from deepscan.batches.pool import Death, Result, Task
from deepscan.errors import SettingsError


def connect(address: str | None) -> None:
    """Join the cluster at `address` ("auto", "host:6379", "ray://host:10001"), or begin one on this machine.

    "auto" is the one that RAY_ADDRESS names, or that was last started on this machine.

    Raises:
        SettingsError: ray is not installed, or nothing answers there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # deepscan tells nobody what it does
    if address is not None:
        # One that does not answer would be tried for a quarter of an hour; this is a minute and a half.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
    try:
        import ray
    except ImportError as error:
        raise SettingsError(
            "--engine ray: ray is not installed; pip install deepscan-forensics[cluster]"
        ) from error
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        quiet["include_dashboard"] = False  # it serves nobody else
    before = signal.getsignal(signal.SIGTERM)
    try:
        # Told nothing, Ray would try RAY_ADDRESS, and what a file says that a killed cluster leaves behind.
        ray.init(address=address or "local", **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address is None:
            raise SettingsError(f"--engine ray: no cluster can be begun here: {error}") from error
        raise SettingsError(
            f"--engine ray={address}: no cluster answers there: {error}; is it running, and can it be reached"
            " from this machine? Without an address one is begun here"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own would exit past all that is to be kept


class _Worker:
    """What lives in a process of the cluster."""

    def __init__(self, work: Callable[[Any], Any], start: Callable[[], None]) -> None:
        self._work = work
        start()

    def ready(self) -> None:
        """Answers once it is placed and started."""

    def work(self, task: Any) -> Any:
        return self._work(task)


class RayPool(Generic[Task, Result]):
    """`pool.Pool`, with actors for processes.

    Args:
        work, jobs, start, tries, lost: as for `Pool`.
        cpus: cores that each actor claims.
        gpus: GPUs that each claims; 0.25 puts four on one.
    """

    def __init__(
        self,
        work: Callable[[Task], Result],
        jobs: int,
        start: Callable[[], None],
        tries: int = 3,
        lost: Callable[[Task], None] = lambda task: None,
        *,
        cpus: float = 1,
        gpus: float = 0,
    ) -> None:
        import ray

        actor: Any = ray.remote(num_cpus=cpus, num_gpus=gpus)(_Worker)
        self._make = partial(actor.remote, work, start)
        self._jobs, self._tries, self._lost = jobs, tries, lost
        self._coming: dict[Any, Any] = {}  # actors by what tells that they are ready
        self._idle: list[Any] = []
        # Actor, task and tries by what tells the result.
        self._busy: dict[Any, tuple[Any, Task, int]] = {}

    def run(self, take: Callable[[], Task | None]) -> Iterator[tuple[Task, Result | Death]]:
        """Work tasks off; each with its result, in the order they finish. See `Pool.run`."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        again: deque[tuple[Task, int]] = deque()
        task: Task | None = None
        tried = failed = 0
        while True:
            if task is None:
                task, tried = again.popleft() if again else (take(), 0)
            if task is None and not self._busy:
                return
            if task is not None and self._idle:
                actor = self._idle.pop()
                self._busy[actor.work.remote(task)] = actor, task, tried + 1
                task = None
                continue
            if task is not None:
                self._grow()
            ready, _ = ray.wait([*self._busy, *(self._coming if task is not None else ())])
            try:
                result = ray.get(ready[0])
                died = None
            except (RayActorError, RayTaskError) as error:  # it died, or its work raised
                died = error
            if ready[0] in self._coming:
                actor = self._coming.pop(ready[0])
                failed = 0 if died is None else failed + 1
                if died is None:
                    self._idle.append(actor)
                elif failed >= self._tries:
                    raise SettingsError(
                        "--engine ray: its workers do not start; is the same deepscan installed on every"
                        f" machine? {died}"
                    )
                continue  # one that was lost while it started is asked for again
            actor, done, count = self._busy.pop(ready[0])
            if died is None:
                self._idle.append(actor)
                yield done, result
                continue
            ray.kill(actor)
            self._lost(done)
            if count < self._tries:
                again.append((done, count))
            else:
                yield done, Death(type(died).__name__, count)

    def _grow(self) -> None:
        """Ask for as many actors as are missing."""
        for _ in range(self._jobs - len(self._busy) - len(self._coming) - len(self._idle)):
            actor = self._make()
            self._coming[actor.ready.remote()] = actor

    def close(self) -> None:
        """End all actors, whatever they are at; the cluster stays, unless this process began it."""
        import ray

        for actor in (*self._idle, *self._coming.values(), *(b[0] for b in self._busy.values())):
            ray.kill(actor)
        self._idle, self._coming, self._busy = [], {}, {}
