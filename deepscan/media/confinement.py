"""Confines the process that decodes hostile files, for good: it may compute and read, nothing else.

Limits on memory and on file size hold on every POSIX system. On Linux a filter of system calls (seccomp, see
Documentation/userspace-api/seccomp_filter.rst of the kernel) also forbids sockets, programs, child processes,
signals to others, and writing, creating, moving or removing files; and the process ends with its parent. A
file that takes over its decoder has gained a process that can lie about the frames, no more.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import sys

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

LONGEST_FILE = 2**20  # bytes it may write to a file; the only one it writes is its stderr

# Of linux/prctl.h, linux/seccomp.h and linux/filter.h.
PARENT_DEATH_SIGNAL, SET_SECCOMP, NO_NEW_PRIVILEGES, FILTER = 1, 22, 38, 2
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # places in struct seccomp_data

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | getattr(os, "O_TRUNC", 0)
THREAD = 0x00010000  # CLONE_THREAD

# By machine: the architecture's number for the filter, and those of system calls (asm/unistd.h).
# fmt: off
CALLS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (0xC000003E, {
        "open": 2, "clone": 56, "openat": 257, "clone3": 435, "socket": 41, "connect": 42, "socketpair": 53,
        "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "truncate": 76, "setrlimit": 160,
        "prlimit64": 302, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87,
        "symlink": 88, "chmod": 90, "fchmod": 91, "chown": 92, "ptrace": 101, "mknod": 133, "tkill": 200,
        "tgkill": 234, "mkdirat": 258, "mknodat": 259, "unlinkat": 263, "renameat": 264, "linkat": 265,
        "symlinkat": 266, "fchmodat": 268, "process_vm_writev": 311, "renameat2": 316, "execveat": 322,
        "pidfd_send_signal": 424, "io_uring_setup": 425, "openat2": 437, "fchmodat2": 452,
    }),
    "aarch64": (0xC00000B7, {
        "clone": 220, "openat": 56, "clone3": 435, "socket": 198, "socketpair": 199, "connect": 203,
        "execve": 221, "kill": 129, "truncate": 45, "prlimit64": 261, "fchmod": 52, "ptrace": 117,
        "tkill": 130, "tgkill": 131, "mkdirat": 34, "mknodat": 33, "unlinkat": 35, "renameat": 38,
        "linkat": 37, "symlinkat": 36, "fchmodat": 53, "process_vm_writev": 271, "renameat2": 276,
        "execveat": 281, "pidfd_send_signal": 424, "io_uring_setup": 425, "openat2": 437, "fchmodat2": 452,
    }),
}
# fmt: on


def confine(memory: int, parent: int) -> None:
    """Confine this process as above, with `memory` MiB of address space; it ends when `parent` does."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before it could be watched
    if resource is not None:
        for limit, most in (
            (resource.RLIMIT_AS, memory * 2**20),
            (resource.RLIMIT_FSIZE, LONGEST_FILE),
            (resource.RLIMIT_CORE, 0),  # a core dump would leave a copy of the evidence behind
        ):
            _, hard = resource.getrlimit(limit)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(limit, (most, most))
    if sys.platform == "linux" and platform.machine() in CALLS:
        code = _filter(*CALLS[platform.machine()])
        program = ctypes.create_string_buffer(code, len(code))
        head = struct.pack("@HP", len(code) // 8, ctypes.addressof(program))  # struct sock_fprog
        # A kernel without seccomp refuses this; then only the limits above hold.
        libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        libc.prctl(SET_SECCOMP, FILTER, ctypes.create_string_buffer(head, len(head)), 0, 0)


def _filter(architecture: int, calls: dict[str, int]) -> bytes:
    """The filter as a BPF program, 8 bytes an instruction: code, jumps if true and if false, operand."""
    out = bytearray()

    def add(code: int, operand: int, true: int = 0, false: int = 0) -> None:
        out.extend(struct.pack("=HBBI", code, true, false, operand))

    refuse = FAIL | errno.EPERM
    add(LOAD, ARCHITECTURE)
    add(EQUAL, architecture, 1, 0)
    add(RETURN, refuse)
    add(LOAD, NUMBER)
    add(AT_LEAST, 0x40000000, 0, 1)  # x86's second set of numbers for the same calls
    add(RETURN, refuse)
    for name, number in calls.items():
        if name in ("open", "openat"):
            add(EQUAL, number, 0, 4)
            add(LOAD, ARGUMENTS + 8 * (name == "openat") + 8)
            add(ANY_BIT, WRITING, 0, 1)
            add(RETURN, refuse)
            add(RETURN, ALLOW)
        elif name == "clone":
            add(EQUAL, number, 0, 4)
            add(LOAD, ARGUMENTS)
            add(ANY_BIT, THREAD, 1, 0)
            add(RETURN, refuse)
            add(RETURN, ALLOW)
        else:  # the filter cannot see clone3's arguments; without it the C library falls back to clone
            add(EQUAL, number, 0, 1)
            add(RETURN, FAIL | errno.ENOSYS if name == "clone3" else refuse)
    add(RETURN, ALLOW)
    return bytes(out)
