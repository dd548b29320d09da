"""Keeps the pipeline moving: a clock, threads that run ahead, memory shared by threads."""

from __future__ import annotations

import ctypes
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from heapq import merge
from itertools import islice
from typing import Any, TypeVar

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

M_ARENA_MAX = -8  # of glibc's malloc.h

T = TypeVar("T")

# Called with a stage, the amount done, and the total, 0 where it is not known. The stages of a scan are
# "loading", "faces", "scoring" (of sampled frames), "second look", "explaining" and "writing", in this order.
Progress = Callable[[str, int, int], None]


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
def beside(*work: Callable[[], None]) -> Iterator[None]:
    """Run each function in a thread beside the block; the end of the block waits for them.

    It does not wait after Ctrl-C, because the process is about to end, and its threads with it.
    """
    threads = [threading.Thread(target=one, daemon=True) for one in work]
    for thread in threads:
        thread.start()
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        for thread in threads:
            thread.join()
        raise
    for thread in threads:
        thread.join()


def _into(result: Future[T], call: Callable[[], T]) -> None:
    try:
        result.set_result(call())
    except BaseException as error:
        result.set_exception(error)


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

    lines: list[queue.Queue[Any]] = [queue.Queue(max(1, depth // len(parts))) for _ in parts]
    runs = [partial(run, *both) for both in zip(parts, lines, strict=True)]
    workers: list[Future[None]] = [Future() for _ in parts]
    with beside(*(partial(_into, *both) for both in zip(workers, runs, strict=True))):
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


def keep_memory_level() -> None:
    """Let all threads share one heap; only for our own programs, since it affects the whole process.

    glibc gives every thread its own heap, and memory freed in one cannot be used by another: with frames
    decoded in one thread and dropped in the next, a long video's peak was a sixth above a short one's.
    """
    with suppress(OSError, AttributeError):  # another C library has no such heaps
        ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, 1)
