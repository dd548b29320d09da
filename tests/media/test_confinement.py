"""A process that was taken over can do nothing but compute, read, and lie about its own frames."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from deepscan.media.confinement import CALLS

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in CALLS, reason="Linux's own"
)

PTRACE_SEIZE = 0x4206  # of linux/ptrace.h; unlike attaching, it stops nobody

TRIES = {
    "a socket": "import socket; socket.socket()",
    "a program": "os.execv('/bin/true', ['true'])",
    "a shell": "os.system('true') and fail()",
    "a fork": "os.fork()",
    "a process": "import subprocess; subprocess.run(['/bin/true'])",
    # Signal 0 reaches nobody, and is refused like the others.
    "a signal": "os.kill(os.getppid(), 0)",
    "a signal to its group": "os.killpg(0, 0)",
    "a signal to a thread": "call('tgkill', os.getppid(), os.getppid(), 0)",
    "a signal by descriptor": "signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0)",
    "tracing its parent": f"call('ptrace', {PTRACE_SEIZE}, os.getppid(), 0, 0)",
    "its parent's memory": "call('process_vm_writev', os.getppid(), None, 0, None, 0, 0)",
    "its parent's limits": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
    "a pair of sockets": "import socket; socket.socketpair()",
    "a new file": "open(path + '.new', 'w')",
    "writing": "open(path, 'r+')",
    "emptying": "os.truncate(path, 0)",
    "removing": "os.unlink(path)",
    "moving": "os.rename(path, path + '.moved')",
    "a folder": "os.mkdir(path + '.folder')",
    "a link": "os.symlink('/etc', path + '.link')",
    "a second name": "os.link(path, path + '.link')",
    "a pipe": "os.mkfifo(path + '.pipe')",
    "its mode": "os.chmod(path, 0o777)",
    "its mode by descriptor": "os.fchmod(os.open(path, os.O_RDONLY), 0o777)",
    "removing a folder": "os.rmdir(os.path.dirname(path))",
    "more memory": "resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
}
MAY = {
    "reading": "assert open(path).read() == 'evidence'",
    "listing": "assert os.listdir(os.path.dirname(path))",
    "threads": "import threading; t = threading.Thread(target=print); t.start(); t.join()",
    "memory": "bytearray(2**24)",
}


# What tries begin with: calls that Python has no function for are made through the C library.
START = """
import ctypes, os, resource, signal, sys
from deepscan.media.confinement import confine

def fail():
    raise PermissionError

def call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

path = sys.argv[1]
confine(2048, int(sys.argv[2]))
"""


def confined(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "evidence"
    path.write_text("evidence")
    mode = path.stat().st_mode
    command = [sys.executable, "-c", START + code, str(path), str(os.getpid())]
    run = subprocess.run(command, capture_output=True, text=True)
    assert path.read_text() == "evidence"
    assert path.stat().st_mode == mode
    assert [p.name for p in tmp_path.iterdir()] == ["evidence"]
    return run


@pytest.mark.parametrize("what", TRIES)
def test_it_may_not(tmp_path: Path, what: str) -> None:
    run = confined(tmp_path, TRIES[what])
    assert run.returncode == 1
    assert "PermissionError" in run.stderr or "not allowed" in run.stderr


@pytest.mark.parametrize("what", MAY)
def test_it_may(tmp_path: Path, what: str) -> None:
    assert confined(tmp_path, MAY[what]).returncode == 0


def test_memory_is_bounded(tmp_path: Path) -> None:
    assert "MemoryError" in confined(tmp_path, "bytearray(3 * 2**30)").stderr
