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

TRIES = {
    "a socket": "import socket; socket.socket()",
    "a program": "os.execv('/bin/true', ['true'])",
    "a shell": "os.system('true') and fail()",
    "a fork": "os.fork()",
    "a process": "import subprocess; subprocess.run(['/bin/true'])",
    "a signal": "os.kill(os.getppid(), 9)",
    "a new file": "open(path + '.new', 'w')",
    "writing": "open(path, 'r+')",
    "emptying": "os.truncate(path, 0)",
    "removing": "os.unlink(path)",
    "moving": "os.rename(path, path + '.moved')",
    "a folder": "os.mkdir(path + '.folder')",
    "a link": "os.symlink('/etc', path + '.link')",
    "more memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
}
MAY = {
    "reading": "assert open(path).read() == 'evidence'",
    "listing": "assert os.listdir(os.path.dirname(path))",
    "threads": "import threading; t = threading.Thread(target=print); t.start(); t.join()",
    "memory": "bytearray(2**24)",
}


def confined(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "evidence"
    path.write_text("evidence")
    start = (
        "import os, sys; from deepscan.media.confinement import confine; path = sys.argv[1];"
        f" confine(2048, {os.getpid()})\ndef fail(): raise PermissionError\n{code}"
    )
    run = subprocess.run(
        [sys.executable, "-c", start, str(path)], capture_output=True, text=True, timeout=60
    )
    assert path.read_text() == "evidence"
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
