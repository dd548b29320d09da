"""What Ctrl-C does to work that is under way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from builders.machine import hear_signals
from deepscan import interrupt

# The second lock of a mutex waits for ever, in the C library, where no signal is heard. When the main thread
# has slept for a while, it does.
STUCK = """
import ctypes, sys, threading, time
from pathlib import Path
from deepscan.files import part_folder
from deepscan.interrupt import hear_signals

def tell():
    task = Path(f"/proc/self/task/{threading.main_thread().native_id}/stat")
    asleep = 0
    while asleep < 20:
        asleep = asleep + 1 if task.read_text().rpartition(")")[2].split()[0] == "S" else 0
        time.sleep(0.01)
    print("stuck", flush=True)

hear_signals()
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
with part_folder(Path(sys.argv[1])) as part:
    (part / "half.txt").write_text("half")
    libc.pthread_mutex_lock(mutex)
    threading.Thread(target=tell, daemon=True).start()
    libc.pthread_mutex_lock(mutex)
"""


FORK = """
import os, signal, time
from deepscan.interrupt import PATIENCE, hear_signals

hear_signals()
heard, told = os.pipe()
if not (child := os.fork()):
    os.write(told, b".")
    time.sleep(60)
    os._exit(0)
os.read(heard, 1)
os.kill(child, signal.SIGTERM)
os.waitpid(child, 0)
time.sleep(1.5 * PATIENCE)
print("alive")
"""


def started(
    code: str, *words: object, before: Callable[[], None] = hear_signals
) -> subprocess.Popen:  # type: ignore[type-arg]
    command = [sys.executable, "-c", code, *map(str, words)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, env=env, preexec_fn=before, process_group=0
    )


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_a_long_call_of_a_library_is_left_and_nothing_half_written_stays(
    tmp_path: Path, number: int
) -> None:
    with started(STUCK, tmp_path / "results") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"stuck\n"
        process.send_signal(number)
        assert process.wait() == 130
        assert process.stderr.read() == b"interrupted; finished results are kept\n"
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_again_does_not_break_off_the_tidying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_heard", -interrupt.DEAF)
    with pytest.raises(KeyboardInterrupt):
        interrupt.interrupt(signal.SIGINT, None)
    interrupt.interrupt(signal.SIGINT, None)
    monkeypatch.setattr(interrupt, "_heard", time.monotonic() - interrupt.DEAF)
    with pytest.raises(KeyboardInterrupt):  # lost, it seems
        interrupt.interrupt(signal.SIGINT, None)


def test_what_nohup_has_ignored_stays_ignored() -> None:
    code = (
        "import signal; from deepscan.interrupt import hear_signals; hear_signals();"
        " print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    )
    with started(code, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        assert process.communicate()[0] == b"True\n"


def test_signals_to_a_fork_are_not_its_parent_s() -> None:
    """As those by which torch ends the processes that read crops."""
    with started(FORK) as process:
        assert process.communicate()[0] == b"alive\n"


STARTING = """
import multiprocessing.util, os, signal, sys
from deepscan.interrupt import hear_signals

hear_signals()
real = multiprocessing.util._close_stdin

def interrupted():
    os.kill(os.getpid(), int(sys.argv[1]))
    real()

multiprocessing.util._close_stdin = interrupted
child = multiprocessing.get_context("fork").Process(target=print, args=("worked",))
child.start()
child.join()
print(child.exitcode)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "worked\n0\n"), (signal.SIGTERM, "0\n")]
)
def test_a_fork_that_is_just_starting_prints_no_traceback(number: int, said: str) -> None:
    with started(STARTING, number) as process:
        out, err = process.communicate(timeout=60)
    assert (out.decode(), err.decode()) == (said, "")
