"""Plays what the documentation shows being typed, and holds what comes out to what it shows.

A ```console block is a piece of a session: lines after "$ " are typed (a trailing backslash goes on), the
rest is what comes out. All blocks of a page are one session, which begins in an empty folder.

python tests/builders/sessions.py docs/tutorial.md ...    plays pages and writes what came out into them
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from deepscan.cli import run
from deepscan.verification import sample as demo

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
ANYTHING = "..."
HOME = "file:///home/you"  # where pages say that they are played


@dataclass(frozen=True)
class Step:
    """What is typed, and what the page says comes out."""

    typed: str
    shown: str


def steps(page: str) -> list[Step]:
    """The session of a page."""
    found: list[Step] = []
    for block in BLOCK.findall(page):
        parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
        assert parts[0] == "", f"a block begins with no command: {block}"
        for part in parts[1:]:
            match = re.match(r"((?:.*\\\n)*.*)\n", part)
            assert match is not None
            found.append(Step(match[1], part[match.end() :]))
    return found


def play(session: list[Step], folder: Path) -> Iterator[tuple[Step, str]]:
    """Each step with what really came out, typed in `folder`."""
    venv = folder / ".venv"
    if not venv.exists():
        venv.symlink_to(sys.prefix)
    for step in session:
        with chdir(folder):
            yield step, typed(step.typed)


def typed(line: str) -> str:
    """What comes out when this is typed in the working folder, both streams together."""
    words = shlex.split(line.replace("\\\n", " "), comments=True)
    if words[0] == "make":
        return "".join(typed(command) for command in recipe(words[1]))
    if words[:3] == ["python", "-m", "deepscan.verification.sample"]:
        demo.write(Path(words[3]))
        return ""
    if words[0] == "deepscan":
        if words[-2:-1] == [">"]:
            with Path(words[-1]).open("w") as file, redirect_stdout(file):
                run(words[1:-2])
            return ""
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            run(words[1:])
        return out.getvalue().replace(Path.cwd().as_uri(), HOME)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    output = subprocess.run(
        ["bash", "-c", line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": path},
    )
    return output.stdout


def recipe(target: str) -> list[str]:
    """What `make` runs for a target, in the environment that it has made."""
    text = (ROOT / "Makefile").read_text("utf-8")
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert found is not None, f"no target {target}"
    return [line.strip().lstrip("@").replace("$(BIN)/", "") for line in found[1].splitlines()]


def same(shown: str, came: str) -> bool:
    """Whether the words are the same; digits differ between processors, "..." stands for any lines."""
    pieces = [
        words(piece) for piece in re.split(rf"^{re.escape(ANYTHING)}$", shown, flags=re.MULTILINE)
    ]
    pattern = r"(?s:.*?)".join(re.escape(piece) for piece in pieces)
    return re.fullmatch(pattern, words(came)) is not None


def words(text: str) -> str:
    """Words alone, a space after each: no numbers, no digests, no rules of tables.

    bfloat16 is the same word as float32: which of them is computed in depends on the processor.
    """
    text = re.sub(r"\bbfloat16\b", "float32", text)
    text = re.sub(r"\b[0-9a-f]{16,}\b", " ", text)
    return "".join(f"{word} " for word in re.findall(r"[^\W\d]+", text))


def record(page: Path, folder: Path, prepare: Callable[[Path], None] | None = None) -> None:
    """Write what comes out into a page; where it shows "..." it is left alone."""
    if prepare is not None:
        prepare(folder)
    text = page.read_text("utf-8")
    for step, came in play(steps(text), folder):
        sys.stderr.write(f"$ {step.typed}\n{came}")
        if ANYTHING not in step.shown.splitlines():
            new = "".join(f"{line.rstrip()}\n" for line in came.rstrip().splitlines())
            text = text.replace(f"$ {step.typed}\n{step.shown}", f"$ {step.typed}\n{new}", 1)
    page.write_text(text, "utf-8")


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "80")
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as empty:
            record(Path(name), Path(empty))
