"""Ends the process soon after Ctrl-C or SIGTERM, whatever it is doing.

Python hears a signal between two of its own steps, in the main thread. KeyboardInterrupt ends the work then,
and every block removes what it has half-written. But one call into a library (a backward pass, the search for
a server's address) may take longer than anybody waits. So a thread watches: if the main one has not heard a
signal after a second, it removes what is half-written and ends the process.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from deepscan.files import remove_unfinished

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP
)
PATIENCE = 1.0  # seconds until a signal must have been heard
DEAF = 2.0  # seconds for the clean-up; further signals are ignored meanwhile

_heard = -DEAF
_process = os.getpid()  # whose signals these are


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as the handler of a signal.

    A second Ctrl-C would interrupt the removal of incomplete files, so only the first one counts. Forks, as
    torch makes to read crops, leave Ctrl-C to their parent, which hears it too and ends them: one that is
    just starting would print the exception. Other signals end them at once, without a word.
    """
    global _heard
    if os.getpid() != _process:
        if number != signal.SIGINT:
            os._exit(0)  # torch takes any other code for a crash
        return
    before, _heard = _heard, time.monotonic()
    if _heard - before >= DEAF:
        raise KeyboardInterrupt


def hear_signals() -> None:
    """End at SIGINT, SIGTERM and SIGHUP, except for those that this process ignores, as under nohup."""
    global _process
    _process = os.getpid()  # it may be a fork of one that had imported this
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    # A fork has the same pipe, and signals to it are not for its parent.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_watch, args=(heard,), name="signals", daemon=True).start()


def _watch(heard: int) -> None:
    while number := os.read(heard, 1):
        came = time.monotonic()
        if number[0] not in SIGNALS or signal.getsignal(number[0]) is not interrupt:
            continue  # another library's to answer, as uvicorn's
        time.sleep(PATIENCE)
        if _heard < came - PATIENCE:
            _end()


def _end() -> None:
    """End the process while its main thread is busy, without leaving incomplete files."""
    remove_unfinished()
    if (multiprocessing := sys.modules.get("multiprocessing")) is not None:
        for child in multiprocessing.active_children():
            child.kill()
    with suppress(OSError):
        os.write(2, b"interrupted; finished results are kept\n")
    os._exit(130)


@contextmanager
def until_stopped() -> Iterator[None]:
    """Run a block until SIGINT or SIGTERM, its normal end; only in the main thread."""
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave(code: int, interrupted: bool) -> None:
    """End the process like sys.exit, but without unloading torch's modules, which takes half a second.

    Returns if that is not possible: a thread that must be waited for is running, unless Ctrl-C came, or
    streams cannot be flushed.
    """
    others = (t for t in threading.enumerate() if t is not threading.main_thread())
    if not interrupted and any(not t.daemon for t in others):
        return
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(code)
