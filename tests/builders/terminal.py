"""A terminal: runs Python in one and shows what stands on its screen in the end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

from builders.machine import hear_signals

ESCAPE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b\][^\x07]*\x07")


CTRL_C = "\x03"


def run(
    *arguments: str, columns: int = 80, user: Iterator[str] | None = None, **streams: int
) -> tuple[str, list[str]]:
    """Run Python with these arguments; return all that came to the terminal, and the screen it left.

    Streams that are not named lead to the terminal. A user sits at it: each time the words that they yield
    have come, since those before, they go on. CTRL_C is typed instead of waited for.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=theirs, stdout=streams.get("stdout", theirs), stderr=streams.get("stderr", theirs),
        env={**environment, "TERM": "xterm-256color"}, preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(theirs)
    came = bytearray()
    seen, wanted = 0, next(user, None) if user else None
    try:
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError as error:  # Linux's way to say that nobody writes any more
                if error.errno != errno.EIO:
                    raise
                break
            if not piece:
                break
            came += piece
            while user and wanted and (at := came.find(wanted.encode(), seen)) >= 0:
                seen = at + len(wanted.encode())
                while (wanted := next(user, None)) == CTRL_C:
                    os.write(ours, CTRL_C.encode())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.wait(60)
        os.close(ours)
    text = came.decode()
    return text, screen(text)


def _take_terminal() -> None:
    """In the new process: make the terminal at its standard input its own, so that Ctrl-C reaches it."""
    hear_signals()
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def screen(text: str) -> list[str]:
    """The lines that a terminal shows after this, which may return, erase and rewrite."""
    lines, row, column, at = [""], 0, 0, 0
    while at < len(text):
        if match := ESCAPE.match(text, at):
            at = match.end()
            count = int(match[1]) if (match[1] or "").isdecimal() else 1
            if match[2] == "A":
                row = max(0, row - count)
            elif match[2] == "K":
                lines[row] = "" if match[1] == "2" else lines[row][:column]
            continue
        character, at = text[at], at + 1
        if character == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif character == "\r":
            column = 0
        else:
            lines[row] = f"{lines[row][:column]:<{column}}{character}{lines[row][column + 1 :]}"
            column += 1
    return [line.rstrip() for line in lines]
