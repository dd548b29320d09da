"""Keeps the pipeline moving: a clock, threads that run ahead, memory shared by threads, a quick exit."""

from __future__ import annotations

import atexit
import ctypes
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from heapq import merge
from itertools import islice
from typing import Any, TypeVar

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

M_ARENA_MAX = -8  # of glibc's malloc.h

T = TypeVar("T")


class Clock:
    """Records wall time by stage, and the process's peak memory at the end of each.

    Stages may overlap: each counts the time that any thread spends in it.

    Attributes:
        seconds: by stage.
        peak: MiB of resident memory by stage, the highest so far; empty if the platform cannot tell.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                spent = time.perf_counter() - began
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
                if resource is not None:
                    self.peak[stage] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def ahead(
    parts: Sequence[Iterator[T]], depth: int, order: Callable[[T], Any]
) -> Iterator[Iterator[T]]:
    """Run iterators in a thread each, together about `depth` items ahead of the consumer.

    Each part is sorted by `order`, and so is the merged result.
    """
    done = object()
    stop = threading.Event()

    def put(line: queue.Queue[Any], item: Any) -> bool:
        while not stop.is_set():
            try:
                line.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run(items: Iterator[T], line: queue.Queue[Any]) -> None:
        try:
            while True:
                item: Any = next(items, done)
                if not put(line, item) or item is done:
                    return
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def take(worker: Future[None], line: queue.Queue[Any]) -> Iterator[T]:
        while True:
            try:
                item = line.get(timeout=0.1)
            except queue.Empty:
                if worker.done():
                    worker.result()  # raises the error that stopped it
                continue
            if item is done:
                return
            yield item

    with ThreadPoolExecutor(len(parts), thread_name_prefix="ahead") as pool:
        lines: list[queue.Queue[Any]] = [queue.Queue(max(1, depth // len(parts))) for _ in parts]
        workers = [pool.submit(run, *both) for both in zip(parts, lines, strict=True)]
        try:
            yield merge(*map(take, workers, lines), key=order)
        finally:
            stop.set()


def timed(items: Iterator[T], clock: Clock, stage: str) -> Iterator[T]:
    """The same items; the time spent waiting for each is added to `clock`."""
    done = object()
    try:
        while True:
            with clock(stage):
                item: Any = next(items, done)
            if item is done:
                return
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Successive lists of up to `size` items (itertools.batched needs Python 3.12)."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


@contextmanager
def until_stopped() -> Iterator[None]:
    """Run a block until SIGINT or SIGTERM, its normal end; only in the main thread."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def keep_memory_level() -> None:
    """Let all threads share one heap; only for our own programs, since it affects the whole process.

    glibc gives every thread its own heap, and memory freed in one cannot be used by another: with frames
    decoded in one thread and dropped in the next, a long video's peak was a sixth above a short one's.
    """
    with suppress(OSError, AttributeError):  # another C library has no such heaps
        ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, 1)


def leave(code: int) -> None:
    """End the process like sys.exit, but without unloading torch's modules, which takes half a second.

    Returns if that is not possible: a thread that must be waited for is running, or streams cannot be
    flushed.
    """
    if any(not t.daemon for t in threading.enumerate() if t is not threading.main_thread()):
        return
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(code)
