"""Confines the process that decodes hostile files, for good: it may compute and read its input, nothing else.

Limits on memory, files and descriptors hold on every POSIX system. On Linux two things more: the kernel opens
no other file for it but the code of Python's packages, which are imported as they are needed (Landlock, see
Documentation/userspace-api/landlock.rst of the kernel), and a filter lets through only the system calls
listed here (seccomp, see seccomp_filter.rst beside it). A file that takes over its decoder has gained a
process that can lie about its own frames, no more.

Whether all this holds is not assumed: `confine` tries what must not work, and returns what it found.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from deepscan.records import Confinement

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

LONGEST_FILE = 2**20  # bytes it may write to a file; the only one it writes is its stderr
MOST_FILES = 64  # open at a time
PACKAGES = ("site-packages", "dist-packages")  # folders of installed packages

# Of linux/prctl.h, linux/seccomp.h and linux/filter.h.
PARENT_DEATH_SIGNAL, NAME, SET_SECCOMP, NO_NEW_PRIVILEGES, FILTER = 1, 15, 22, 38, 2
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # places in struct seccomp_data
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # of linux/audit.h

# System calls by name: their numbers on x86-64 and ARM64, -1 where there is none. The test of this table
# compares it with libseccomp's.
# fmt: off
CALLS: dict[str, tuple[int, int]] = {
    # memory and threads
    "futex": (202, 98), "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216),
    "madvise": (28, 233), "brk": (12, 214), "clone": (56, 220), "set_robust_list": (273, 99),
    "rseq": (334, 293), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "gettid": (186, 178),
    "membarrier": (324, 283), "exit": (60, 93), "exit_group": (231, 94), "prctl": (157, 167),
    # what is open already, and opening to read
    "read": (0, 63), "readv": (19, 65), "pread64": (17, 67), "write": (1, 64), "writev": (20, 66),
    "lseek": (8, 62), "close": (3, 57), "fstat": (5, 80), "newfstatat": (262, 79), "stat": (4, -1),
    "lstat": (6, -1), "statx": (332, 291), "access": (21, -1), "faccessat": (269, 48), "open": (2, -1),
    "openat": (257, 56), "fadvise64": (221, 223), "fcntl": (72, 25), "ioctl": (16, 29), "dup": (32, 23),
    "getdents64": (217, 61), "dup2": (33, -1), "dup3": (292, 24), "getcwd": (79, 17),
    "poll": (7, -1), "ppoll": (271, 73),
    # clocks, signals to itself, facts
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, -1), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "tgkill": (234, 131), "getrandom": (318, 278), "getpid": (39, 172),
    "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "getrusage": (98, 165), "getrlimit": (97, 163), "prlimit64": (302, 261),
    "sysinfo": (99, 179), "uname": (63, 160),
}
# fmt: on

# Calls from this number on came with Linux 5.1 and later: to these the answer is "there is no such call", for
# which the C library has another way. To older ones it is "not permitted".
YOUNG = 424

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | getattr(os, "O_TRUNC", 0)
THREAD, THREADS_FLAGS = 0x00010000, 0x007D0F00  # CLONE_THREAD; all that C libraries ask for with it
IS_TERMINAL, CLOSE_ON_EXEC = 0x5401, 0x5451  # TCGETS, FIOCLEX: what Python asks of files it opens
COPY, GET_FLAGS, SET_FLAGS, GET_STATUS, COPY_CLOSED = (
    0,
    1,
    2,
    3,
    1030,
)  # F_DUPFD ... F_DUPFD_CLOEXEC

# Of linux/landlock.h. Numbers of system calls are the same on all machines.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION, BENEATH, READ_FILE, READ_FOLDER = 1, 1, 1 << 2, 1 << 3
# By version: how many rights of files it knows; rights of networks; scopes (abstract sockets, signals).
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
NETWORK_RIGHTS, SCOPES = 0b11, 0b11


def confine(path: Path, memory: int, parent: int) -> Confinement:
    """Confine this process, which may still read `path`, to `memory` MiB of address space.

    It ends when the process `parent` does. Call it before there are threads, which would stay free.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before it could be watched
    alone = _threads() == 1
    _limit(memory)
    if sys.platform == "linux":
        # A kernel that lacks one of these refuses it; `_holds` finds that.
        libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        _close_files(libc, path)
        if platform.machine() in ARCHITECTURES:
            code = _filter(platform.machine(), os.getpid())
            program = ctypes.create_string_buffer(code, len(code))
            head = struct.pack(
                "@HP", len(code) // 8, ctypes.addressof(program)
            )  # struct sock_fprog
            libc.prctl(SET_SECCOMP, FILTER, ctypes.create_string_buffer(head, len(head)), 0, 0)
    if not _fails(lambda: mmap.mmap(-1, memory * 2**20 + mmap.PAGESIZE).close()):
        return Confinement.NONE
    return Confinement.FULL if alone and _holds(parent) else Confinement.LIMITS


def _limit(memory: int) -> None:
    if resource is None:
        return
    for limit, most in (
        (resource.RLIMIT_AS, memory * 2**20),
        (resource.RLIMIT_FSIZE, LONGEST_FILE),
        (resource.RLIMIT_NOFILE, MOST_FILES),
        (resource.RLIMIT_CORE, 0),  # a core dump would leave a copy of the evidence behind
    ):
        _, hard = resource.getrlimit(limit)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(ValueError, OSError):  # macOS refuses some; `confine` finds whether they hold
            resource.setrlimit(limit, (most, most))


def _fails(action: Callable[[], Any]) -> bool:
    try:
        action()
    except (OSError, MemoryError, OverflowError, ValueError):
        return True
    return False


def _holds(parent: int) -> bool:
    """Whether the confinement holds: try each kind of forbidden action once."""
    tries: Sequence[Callable[[], Any]] = (
        lambda: os.close(os.open(sys.executable, os.O_RDONLY)),  # another file than the input
        lambda: os.listdir(os.sep),
        lambda: socket.socket().close(),
        lambda: os.kill(parent, 0),  # reaches nobody
        lambda: os.getpgid(parent),  # harmless, and not on the list
    )
    return all(map(_fails, tries))


def _threads() -> int:
    """How many threads this process has, those of libraries among them; 0 where that cannot be told."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def _close_files(libc: Any, path: Path) -> None:
    """Let this process only read `path` and Python's packages, where the kernel has Landlock."""
    version = libc.syscall(CREATE_RULESET, None, 0, ASK_VERSION)
    if version < 1:
        return
    rights = (1 << FILE_RIGHTS.get(version, 16)) - 1
    wanted = (rights, NETWORK_RIGHTS * (version >= 4), SCOPES * (version >= 6))
    held = struct.pack("=QQQ", *wanted)  # struct landlock_ruleset_attr
    held = held[: 8 * (1 + (version >= 4) + (version >= 6))]
    rules = libc.syscall(CREATE_RULESET, held, len(held), 0)
    if rules < 0:
        return
    # Of the import path, installed packages alone: deepscan's own checkout may have evidence beside it.
    packages = {Path(entry) for entry in sys.path if Path(entry).name in PACKAGES}
    packages |= {Path(os.__file__).parent, Path(__file__).parents[1]}
    code = READ_FILE | READ_FOLDER
    for place, right in ((path, READ_FILE), *((package, code) for package in packages)):
        with suppress(OSError):  # what is gone cannot be opened either
            file = os.open(place, os.O_PATH | os.O_CLOEXEC)
            beneath = struct.pack("=Qi", right, file)  # struct landlock_path_beneath_attr
            libc.syscall(ADD_RULE, rules, BENEATH, beneath, 0)
            os.close(file)
    libc.syscall(RESTRICT_SELF, rules, 0)
    os.close(rules)


def _filter(machine: str, pid: int) -> bytes:
    """The filter as a BPF program, 8 bytes an instruction: code, jumps if true and if false, operand."""
    refuse, absent = FAIL | errno.EPERM, FAIL | errno.ENOSYS

    def step(code: int, operand: int, true: int = 0, false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, true, false, operand & 0xFFFFFFFF)

    def argument(n: int, high: bool = False) -> bytes:
        return step(LOAD, ARGUMENTS + 8 * n + 4 * high)  # both machines are little-endian

    def one_of(n: int, *values: int) -> bytes:
        tests = (step(EQUAL, v, len(values) - i) for i, v in enumerate(values))
        return argument(n) + b"".join(tests) + step(RETURN, refuse) + step(RETURN, ALLOW)

    def none_of(n: int, bits: int) -> bytes:
        return argument(n) + step(ANY_BIT, bits, 0, 1) + step(RETURN, refuse) + step(RETURN, ALLOW)

    # The kernel, too, looks at no more than 32 bits of these, but for pointers.
    conditions = {
        "open": none_of(1, WRITING),
        "openat": none_of(2, WRITING),
        "ioctl": one_of(1, IS_TERMINAL, CLOSE_ON_EXEC),
        "fcntl": one_of(1, COPY, GET_FLAGS, SET_FLAGS, GET_STATUS, COPY_CLOSED),
        "prctl": one_of(0, NAME),  # of a thread
        "sched_getaffinity": one_of(0, 0),  # its own
        "tgkill": one_of(0, pid),  # abort()
        "clone": argument(0)
        + step(ANY_BIT, ~THREADS_FLAGS, 1, 0)
        + step(ANY_BIT, THREAD, 1, 0)
        + step(RETURN, refuse)
        + step(RETURN, ALLOW),
        "prlimit64": argument(2)  # asking, not setting: no pointer to new limits
        + step(EQUAL, 0, 0, 2)
        + argument(2, high=True)
        + step(EQUAL, 0, 1, 0)
        + step(RETURN, refuse)
        + one_of(0, 0, pid),
    }
    which = list(ARCHITECTURES).index(machine)
    out = step(LOAD, ARCHITECTURE) + step(EQUAL, ARCHITECTURES[machine], 1, 0)
    out += step(RETURN, refuse) + step(LOAD, NUMBER)
    for name, numbers in CALLS.items():
        if numbers[which] >= 0:
            block = conditions.get(name, step(RETURN, ALLOW))
            out += step(EQUAL, numbers[which], 0, len(block) // 8) + block
    return out + step(AT_LEAST, YOUNG, 0, 1) + step(RETURN, absent) + step(RETURN, refuse)
