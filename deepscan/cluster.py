"""`pool` on many machines: the same tasks, worked off by actors of a Ray cluster.

An actor holds the networks and does one task at a time; only actors that are ready get one, so nothing queues
up in the cluster, and actors that wait for room are what an autoscaling cluster grows by. An actor that dies, with
its machine or of its task, is replaced, and the task tried again elsewhere.

Every machine must have deepscan installed, and the inputs and the results' folder in the same places.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic

from deepscan.errors import SettingsError
from deepscan.pool import Death, Result, Task


def connect(address: str | None) -> None:
    """Join the cluster at `address` ("auto", "host:6379", "ray://host:10001"), or begin one on this machine.

    Raises:
        SettingsError: ray is not installed, or nothing answers there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # deepscan tells nobody what it does
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
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
        quiet["include_dashboard"] = False  # of a cluster on this machine, which serves nobody else
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SettingsError(f"--engine ray={address}: no cluster answers there: {error}") from error


class RayPool(Generic[Task, Result]):
    """`pool.Pool`, with actors for processes.

    Args:
        work, jobs, start, tries: as for `Pool`.
        cpus: cores that each actor claims.
        gpus: GPUs that each claims; 0.25 puts four on one.
    """

    def __init__(
        self,
        work: Callable[[Task], Result],
        jobs: int,
        start: Callable[[], None],
        tries: int = 3,
        *,
        cpus: float = 1,
        gpus: float = 0,
    ) -> None:
        import ray

        class Worker:
            def __init__(self) -> None:
                start()

            def ready(self) -> None:
                """Answers once it is placed and started."""

            def work(self, task: Any) -> Any:
                return work(task)

        self._make = ray.remote(num_cpus=cpus, num_gpus=gpus)(Worker)
        self._jobs, self._tries = jobs, tries
        self._coming: dict[Any, Any] = {}  # actors by what tells that they are ready
        self._idle: list[Any] = []
        self._busy: dict[
            Any, tuple[Any, Task, int]
        ] = {}  # actor, task and tries by what tells its result

    def run(self, take: Callable[[], Task | None]) -> Iterator[tuple[Task, Result | Death]]:
        """Work tasks off; each with its result, in the order they finish. See `Pool.run`."""
        import ray
        from ray.exceptions import RayActorError

        again: deque[tuple[Task, int]] = deque()
        task: Task | None = None
        tried = 0
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
            except RayActorError as error:
                died = error
            if ready[0] in self._coming:
                actor = self._coming.pop(ready[0])
                if died is None:
                    self._idle.append(actor)
                continue  # one that was lost while it started is asked for again
            actor, done, count = self._busy.pop(ready[0])
            if died is None:
                self._idle.append(actor)
                yield done, result
            elif count < self._tries:
                again.append((done, count))
            else:
                yield done, Death(type(died).__name__, count)

    def _grow(self) -> None:
        """Ask for as many actors as are missing."""
        for _ in range(self._jobs - len(self._busy) - len(self._coming) - len(self._idle)):
            actor = self._make.remote()
            self._coming[actor.ready.remote()] = actor

    def close(self) -> None:
        """End all actors, whatever they are at; the cluster stays, unless this process began it."""
        import ray

        for actor in (*self._idle, *self._coming.values(), *(b[0] for b in self._busy.values())):
            ray.kill(actor)
        self._idle, self._coming, self._busy = [], {}, {}
