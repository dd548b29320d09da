"""Runs `pool` on many machines: its crew are actors of a Ray cluster.

An actor holds the networks and does one task at a time. Only ready actors get tasks, so nothing queues up
in the cluster; actors that wait for room make an autoscaling cluster grow. An actor that dies, because of
its machine or its task, is replaced and the task is tried again elsewhere.

Every machine must have deepscan installed, and the inputs and the results' folder at the same paths.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from deepscan.batches.pool import Death
from deepscan.errors import SettingsError

STARTS = 3  # actors in a row that may fail to start


def connect(address: str | None) -> None:
    """Join the cluster at `address` ("auto", "host:6379", "ray://host:10001"), or start one on this machine.

    "auto" is the cluster that RAY_ADDRESS names, or the last one started on this machine.

    Raises:
        SettingsError: ray is not installed, or nothing answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # deepscan reports to nobody
    if address is not None:
        # Ray would try a silent address for a quarter of an hour; this limits it to a minute and a half.
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
        quiet["include_dashboard"] = False  # nobody else uses this cluster
    before = signal.getsignal(signal.SIGTERM)
    try:
        # Without this Ray would try RAY_ADDRESS, or an address that a killed cluster left in a file.
        ray.init(address=address or "local", **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address is None:
            raise SettingsError(f"--engine ray: no cluster can be started here: {error}") from error
        raise SettingsError(
            f"--engine ray={address}: no cluster answers at this address: {error}; check that it is"
            f" running and can be reached from this machine, or leave the address out to start one here"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(
            signal.SIGTERM, before
        )  # Ray's own handler would exit without finishing our files


def joined(engine: str, cpus: float, gpus: float) -> dict[str, Any]:
    """Arguments of `Batch` for where --engine runs a batch; connects to a cluster if need be.

    Args:
        engine: local, or ray[=ADDRESS].
        cpus, gpus: as for `Actors`.

    Raises:
        SettingsError: it is neither, or as `connect`.
    """
    name, _, address = engine.partition("=")
    if engine == "local":
        return {}
    if name != "ray" or (not address and "=" in engine):
        raise SettingsError(f"engine: {engine!r} is neither local nor ray[=ADDRESS]")
    connect(address or None)
    return {"crew": partial(Actors, cpus=cpus, gpus=gpus), "threads": max(1, int(cpus))}


class _Worker:
    """The object that lives in a process of the cluster."""

    def __init__(self, work: Callable[[Any], Any], start: Callable[[], None]) -> None:
        self._work = work
        start()

    def ready(self) -> None:
        """Returns once the actor is placed and started."""

    def work(self, task: Any) -> Any:
        return self._work(task)


class Actors:
    """A crew of actors on a cluster, for `Pool`.

    Args:
        work, jobs, start: as for `Pool`.
        cpus: cores that each actor claims.
        gpus: GPUs that each claims; 0.25 puts four actors on one.
    """

    def __init__(
        self,
        work: Callable[[Any], Any],
        jobs: int,
        start: Callable[[], None],
        *,
        cpus: float = 1,
        gpus: float = 0,
    ) -> None:
        import ray

        actor: Any = ray.remote(num_cpus=cpus, num_gpus=gpus)(_Worker)
        self._make, self._jobs = partial(actor.remote, work, start), jobs
        self._coming: dict[
            Any, Any
        ] = {}  # starting actors, by the reference that resolves when ready
        self._idle: list[Any] = []
        self._waiting: tuple[Any, int] | None = (
            None  # a task and its tries, for the next free actor
        )
        # Actor, task and tries by what tells the result.
        self._busy: dict[Any, tuple[Any, Any, int]] = {}

    def room(self) -> bool:
        return self._waiting is None and len(self._busy) < self._jobs

    def give(self, task: Any, tried: int) -> None:
        self._waiting = task, tried
        self._hand_on()

    def wait(self) -> tuple[Any, int, Any]:
        """See `Crew.wait`.

        Raises:
            SettingsError: several actors in a row failed to start.
        """
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        failed = 0
        while True:
            self._hand_on()
            coming = self._coming if self._waiting is not None else ()
            ((ready, *_), _) = ray.wait([*self._busy, *coming])
            result = died = None
            try:
                result = ray.get(ready)
            except (RayActorError, RayTaskError) as error:  # it died, or its work raised
                died = error
            if ready in self._busy:
                break
            actor = self._coming.pop(ready)
            failed = 0 if died is None else failed + 1
            if died is None:
                self._idle.append(actor)
            elif failed >= STARTS:
                raise SettingsError(
                    "--engine ray: its workers do not start; check that every machine has the same"
                    f" version of deepscan. {died}"
                )
        actor, task, tried = self._busy.pop(ready)
        if died is None:
            self._idle.append(actor)
            return task, tried, result
        ray.kill(actor)
        return task, tried, Death(type(died).__name__, tried)

    def _hand_on(self) -> None:
        """Give the waiting task to an idle actor; if there is none, ask for the missing actors."""
        if self._waiting is None:
            return
        if self._idle:
            actor, (task, tried) = self._idle.pop(), self._waiting
            self._busy[actor.work.remote(task)] = actor, task, tried
            self._waiting = None
            return
        for _ in range(self._jobs - len(self._busy) - len(self._coming)):
            actor = self._make()
            self._coming[actor.ready.remote()] = actor

    def close(self) -> None:
        """End all actors; the cluster stays unless this process started it."""
        import ray

        for actor in (*self._idle, *self._coming.values(), *(b[0] for b in self._busy.values())):
            ray.kill(actor)
        self._idle, self._coming, self._busy = [], {}, {}
