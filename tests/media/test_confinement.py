"""A process that was taken over can do nothing but compute, read its input, and lie about its own frames."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from builders import clips
from deepscan.config import Limits, Sampling
from deepscan.media.confinement import ARCHITECTURES, CALLS
from deepscan.media.isolation import decoder
from deepscan.records import Confinement

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ARCHITECTURES, reason="Linux's own"
)

NOBODY = 65534

# What anybody may try on his own files and processes, and would do with success in a process that is free.
ANYBODY = {
    "a socket": "socket.socket()",
    "a local socket": "socket.socket(socket.AF_UNIX)",
    "a pair of sockets": "socket.socketpair()",
    "a program": "os.execv('/bin/true', ['true'])",
    "a program by descriptor": "os.execve(os.open('/bin/true', os.O_RDONLY), ['true'], {})",
    "a fork": "os.fork() or os._exit(0)",
    "a process": "subprocess.run(['/bin/true'])",
    "a signal": "os.kill(parent, 0)",  # signal 0 reaches nobody, and is refused like the others
    "a signal to its group": "os.killpg(0, 0)",
    "a signal to a thread": "call('tgkill', parent, parent, 0)",
    "a signal by descriptor": "signal.pidfd_send_signal(os.pidfd_open(parent), 0)",
    "a signal with a value": "call('sigqueue', parent, 0, None)",
    "a signal from a file": "fcntl.fcntl(1, F_SETOWN, parent)",
    "a process's descriptor": "os.pidfd_open(parent)",
    "its parent's memory": "open(f'/proc/{parent}/mem')",
    "its parent's environment": "open(f'/proc/{parent}/environ').read(1)",
    "its parent's limits": "resource.prlimit(parent, resource.RLIMIT_NOFILE)",
    "its parent's processors": "os.sched_setaffinity(parent, os.sched_getaffinity(parent))",
    "its parent's priority": "os.setpriority(os.PRIO_PROCESS, parent, 19)",
    "another file": "open('/etc/passwd')",
    "its neighbours": "open(path + '.other').read()",
    "listing a folder": "os.listdir(folder)",
    "a new file": "open(path + '.new', 'w')",
    "a file without a name": "os.open(folder, os.O_TMPFILE | os.O_RDWR)",
    "a file in memory": "os.memfd_create('a')",
    "writing": "open(path, 'r+')",
    "appending": "open(path, 'a')",
    "emptying": "os.truncate(path, 3)",
    "emptying on opening": "os.open(path, os.O_RDONLY | os.O_TRUNC)",
    "its times": "os.utime(path, (1, 1))",
    "its times by descriptor": "os.utime(os.open(path, os.O_RDONLY), (1, 1))",
    "its mode": "os.chmod(path, 0o777)",
    "its mode by descriptor": "os.fchmod(os.open(path, os.O_RDONLY), 0o777)",
    "its owner": "os.chown(path, os.getuid(), os.getgid())",
    "its owner by descriptor": "os.fchown(os.open(path, os.O_RDONLY), os.getuid(), -1)",
    "a lock on it": "fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)",
    "a second name": "os.link(path, path + '.link')",
    "a link": "os.symlink('/etc', path + '.symlink')",
    "a pipe": "os.mkfifo(path + '.pipe')",
    "a folder": "os.mkdir(path + '.folder')",
    "removing a folder": "os.rmdir(folder + '/empty')",
    "moving": "os.rename(path, path + '.moved')",
    "removing": "os.unlink(path + '.other')",
    "shared memory": "call('shmget', 0, 4096, 0o1600)",
    "a queue": "call('msgget', 0, 0o1600)",
    "a semaphore": "call('semget', 0, 1, 0o1600)",
    "watching files": "call('inotify_init1', 0)",
    "outliving its parent": "call('prctl', PR_SET_PDEATHSIG, 0, 0, 0, 0)",
    "a terminal's keys": "open('/dev/ptmx')",
}
# What needs root, or a kernel that allows it to ordinary users. Nothing of it is tried without confinement.
PRIVILEGED = {
    "typing into a terminal": "fcntl.ioctl(int(sys.argv[4]), TIOCSTI, b'x')",
    "its attributes": "os.setxattr(path, 'user.a', b'1')",
    "a named queue": "call('mq_open', b'/deepscan-test', os.O_CREAT | os.O_RDWR, 0o600, None)",
    "tracing its parent": "call('ptrace', PTRACE_SEIZE, parent, 0, 0)",
    "reading its parent": "call('process_vm_readv', parent, None, 0, None, 0, 0)",
    "writing into its parent": "call('process_vm_writev', parent, None, 0, None, 0, 0)",
    "a device": "os.mknod(path + '.device', 0o600 | stat.S_IFCHR, os.makedev(1, 3))",
    "another user": "os.setuid(os.getuid())",
    "another root": "os.chroot('/')",
    "a name space": "call('unshare', CLONE_NEWUSER)",
    "mounting": "call('mount', b'none', b'/mnt', b'tmpfs', 0, None)",
    "more memory": "resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
    "more memory by process": "resource.prlimit(0, resource.RLIMIT_AS, (2**40, 2**40))",
    "the clock": "time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "the kernel's keys": "call('syscall', KEYCTL, 0, 0, 0, 0, 0)",
    "calls in a ring": "call('syscall', IO_URING_SETUP, 1, None)",
    "calls by 32-bit numbers": "call('syscall', X32 | 41, 1, 1, 0)",
    "faults of memory": "call('syscall', USERFAULTFD, 0)",
    "the kernel's programs": "call('syscall', BPF, 0, None, 0)",
    "counters": "call('syscall', PERF_EVENT_OPEN, None, 0, -1, -1, 0)",
}
TRIES = {**ANYBODY, **PRIVILEGED}

MAY = {
    "reading": "assert open(path).read() == 'evidence'",
    "importing": "import xml.dom.minidom",
    "threads": "import threading; t = threading.Thread(target=print); t.start(); t.join()",
    "memory": "bytearray(2**24)",
    "a clock": "time.sleep(0.001)",
    "chance": "os.urandom(8)",
    "aborting": "signal.signal(signal.SIGABRT, lambda *_: None); call('raise', signal.SIGABRT)",
}

# A process that is confined, or free, and prints what became of each try. What Python has no function for
# goes through the C library. When free, each try has a child of its own.
START = """
import ctypes, fcntl, json, os, resource, signal, socket, stat, subprocess, sys, time
from pathlib import Path
from deepscan.media.confinement import confine

path, how, user, parent = sys.argv[1], sys.argv[2], int(sys.argv[3]), os.getppid()
tries = json.load(sys.stdin)
folder = os.path.dirname(path)
F_SETOWN, TIOCSTI, PTRACE_SEIZE, PR_SET_PDEATHSIG, CLONE_NEWUSER = 8, 0x5412, 0x4206, 1, 0x10000000
X32 = 2**30
x86 = os.uname().machine == "x86_64"
KEYCTL, IO_URING_SETUP, USERFAULTFD, BPF, PERF_EVENT_OPEN = (
    (250, 425, 323, 321, 298) if x86 else (219, 425, 282, 280, 241))
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

def attempt(code):
    try:
        exec(code)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "done"

if user != os.getuid():
    os.setgroups([]), os.setgid(user), os.setuid(user)
    libc.prctl(4, 1, 0, 0, 0)  # changing the user had hidden /proc/self from it
if how == "confined":
    if child := os.fork():  # so that its parent is the same user's
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    parent = os.getppid()
    held, found = confine(Path(path), 2048, parent), {}
    for name, code in tries.items():
        found[name] = attempt(code)
    print(json.dumps([held, found]))
else:
    found = {}
    for name, code in tries.items():
        child = os.fork()
        if not child:
            parent = os.getppid()
            os._exit(attempt(code) != "done")
        found[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps(["free", found]))
"""

USERS = (os.getuid(), NOBODY) if os.getuid() == 0 else (os.getuid(),)


@cache
def tried(how: str, user: int, which: str = "TRIES") -> tuple[str, dict[str, str]]:
    """What became of all tries, with files and a terminal that are the user's own."""
    folder = Path(tempfile.mkdtemp())
    master, slave = pty.openpty()
    try:
        (folder / "empty").mkdir()
        for path in (folder / "evidence", folder / "evidence.other"):
            path.write_text("evidence")
        for path in (folder, *folder.iterdir()):
            os.chown(path, user, -1)
        before = (folder / "evidence").stat()
        run = subprocess.run(
            [sys.executable, "-c", START, folder / "evidence", how, str(user), str(slave)],
            input=json.dumps(globals()[which]),
            capture_output=True,
            text=True,
            pass_fds=[slave],
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert run.returncode == 0, run.stderr
        if how == "confined":
            after = (folder / "evidence").stat()
            for fact in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_ctime_ns", "st_size"):
                assert getattr(after, fact) == getattr(before, fact)
            assert {p.name for p in folder.iterdir()} == {"empty", "evidence", "evidence.other"}
        return tuple(json.loads(run.stdout.splitlines()[-1]))
    finally:
        os.close(master)
        os.close(slave)
        shutil.rmtree(folder)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("what", TRIES)
def test_it_may_not(what: str, user: int) -> None:
    found = tried("confined", user)[1][what]
    assert found.startswith(
        ("PermissionError", "OSError: [Errno 38]", "ValueError: not allowed")
    ), found


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("what", ANYBODY)
def test_it_could_if_it_were_free(what: str, user: int) -> None:
    """Or the test above would show nothing."""
    assert tried("free", user, "ANYBODY")[1][what] == 0


@pytest.mark.parametrize("what", MAY)
def test_it_may(what: str) -> None:
    assert tried("confined", os.getuid(), "MAY")[1][what] == "done"


@pytest.mark.parametrize("user", USERS)
def test_what_holds_is_measured(user: int) -> None:
    assert tried("confined", user)[0] == Confinement.FULL


# A stand-in for a kernel without it: the call that asks for it does nothing.
LACKING = {
    "Landlock": ("confinement._close_files = lambda libc, path: None", "limits"),
    "a filter": ("confinement.SET_SECCOMP = 0", "limits"),
    "limits": ("confinement._limit = lambda memory: None", "none"),
    "one thread": ("threading.Thread(target=time.sleep, args=(9,), daemon=True).start()", "limits"),
}


@pytest.mark.parametrize("what", LACKING)
def test_what_does_not_hold_is_said(tmp_path: Path, what: str) -> None:
    path = tmp_path / "evidence"
    path.write_text("evidence")
    code = (
        "import os, sys, threading, time; from pathlib import Path; from deepscan.media import confinement;"
        f" {LACKING[what][0]}; print(confinement.confine(Path(sys.argv[1]), 2048, os.getppid()), flush=True)"
    )
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, env=env
    )
    assert run.stdout.strip() == LACKING[what][1], run.stderr


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Path]:
    """/proc of a decoder that has opened its input."""
    # A picture of more bytes than a pipe holds: the decoder waits for its reader, and doesn't end meanwhile.
    path = clips.write(tmp_path / "a.mp4", [np.zeros((480, 640, 3), np.uint8)] * 3)
    with decoder(path, Sampling(), Limits()) as one:
        assert one.opened().confinement is Confinement.FULL
        yield Path(f"/proc/{one._process.pid}")


def test_decoders_have_a_session_of_their_own_without_a_terminal(alive: Path) -> None:
    of = (alive / "stat").read_text().rpartition(")")[2].split()
    session, terminal = int(of[3]), int(of[4])
    assert (session, terminal) == (int(alive.name), 0)


def test_decoders_inherit_nothing(alive: Path, tmp_path: Path) -> None:
    environment = (alive / "environ").read_bytes().split(b"\0")
    names = {entry.partition(b"=")[0].decode() for entry in environment if entry}
    assert names <= {"LD_LIBRARY_PATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    files = {os.readlink(entry) for entry in (alive / "fd").iterdir()}
    strange = {
        f for f in files if not f.startswith(("pipe:", "/dev/null", "/tmp/#", str(tmp_path)))
    }
    assert not {f for f in strange if "(deleted)" not in f}, files


def test_memory_is_bounded(tmp_path: Path) -> None:
    tries = {"memory": "bytearray(3 * 2**30)"}
    globals()["MEMORY"] = tries
    assert tried("confined", os.getuid(), "MEMORY")[1]["memory"].startswith("MemoryError")


def test_the_table_of_calls_is_the_kernel_s() -> None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("no libseccomp to compare with")
    resolve = library.seccomp_syscall_resolve_name_arch
    for name, numbers in CALLS.items():
        for architecture, number in zip(ARCHITECTURES.values(), numbers, strict=True):
            assert max(resolve(architecture, name.encode()), -1) == number, name
