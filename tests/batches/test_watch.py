"""`deepscan watch`: what arrives is read once it is whole, and stopping leaves nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from builders.machine import hear_signals
from deepscan.batches.watch import Arrivals
from deepscan.cli import run


class Hands:
    """A clock whose hands are moved by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def arrivals(folder: Path, clock: Hands) -> Arrivals:
    return Arrivals(lambda: folder.rglob("*.mp4"), settle=3.0, now=clock)


def test_a_file_is_ready_when_it_has_stopped_growing(tmp_path: Path) -> None:
    clock = Hands()
    new = arrivals(tmp_path, clock)
    clip = tmp_path / "a.mp4"
    for size in range(1, 6):  # a copy under way: more of it every two seconds
        clip.write_bytes(bytes(size))
        assert new.ready() == []
        clock.time += 2
    clock.time += 0.5
    assert new.ready() == []  # looked at 2.5 s after it grew last
    clock.time += 0.5
    assert new.ready() == [clip]
    clock.time += 100
    assert new.ready() == []  # once


def test_an_empty_file_is_waited_for(tmp_path: Path) -> None:
    clock = Hands()
    new = arrivals(tmp_path, clock)
    (tmp_path / "a.mp4").touch()
    assert new.ready() == []
    clock.time += 100
    assert new.ready() == []


def test_a_file_that_changed_is_ready_again_and_one_that_went_is_forgotten(tmp_path: Path) -> None:
    clock = Hands()
    new = arrivals(tmp_path, clock)
    one, two = tmp_path / "a.mp4", tmp_path / "b.mp4"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    new.ready()
    clock.time = 3
    assert new.ready() == [one, two]
    one.write_bytes(b"changed")
    two.unlink()
    assert new.ready() == []
    clock.time = 6
    assert new.ready() == [one]
    two.write_bytes(b"2")
    new.ready()
    clock.time = 9
    assert new.ready() == [two]


@pytest.fixture
def wall(tmp_path: Path) -> Path:
    """A picture with nobody in it, in a folder of its own."""
    path = tmp_path / "inbox" / "wall.png"
    path.parent.mkdir()
    Image.fromarray(np.full((200, 200, 3), 120, np.uint8)).save(path)
    return path


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM there")
def test_a_clip_that_arrives_slowly_is_analysed_and_sigterm_ends_it(
    sample: Path, wall: Path, tmp_path: Path
) -> None:
    inbox, out = wall.parent, wall.parent / "results"  # results may lie below what is watched
    options = ["--settle", "1", "--heatmap", "--json", "--offline"]
    process = subprocess.Popen(
        [sys.executable, "-m", "deepscan", "watch", inbox, "--out", out, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert next_row(process.stdout)["verdict"]["name"] == "no_face"  # it was there already
        data = sample.read_bytes()
        with (inbox / "slow.mp4").open("wb") as file:  # as a copy over a network writes it
            for at in range(0, len(data), len(data) // 5 + 1):
                file.write(data[at : at + len(data) // 5 + 1])
                file.flush()
                time.sleep(0.5)
        (inbox / "notes.txt").write_text("left alone")
        row = next_row(process.stdout)
        assert row["input"]["path"] == str(inbox / "slow.mp4")
        assert row["input"]["bytes"] == len(data)
        (inbox / "broken.mp4").write_bytes(b"no video")
        assert next_row(process.stdout)["verdict"]["name"] == "error"
        time.sleep(3)  # the pictures and films it has written are not arrivals
        process.send_signal(signal.SIGTERM)
        rest, output = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 0
    assert rest == ""
    *_, stopped, link = output.splitlines()
    assert stopped == "stopped; 2 analysed, no result is left incomplete"
    assert link == f"All results: {(out / 'index.html').as_uri()}"
    assert {p.name for p in out.iterdir() if p.is_dir()} == {"slow.mp4", "wall.png"}
    assert run(["verify", str(out / "slow.mp4")]) == 0
    # What is there is known to a later run, and to detect.
    assert run(["detect", str(inbox), "--out", str(out), "--heatmap", "--offline", "--resume"]) == 3


# `watch` itself at a terminal; only the analysis is a stand-in, which ends when a file says so.
WATCH = """
import sys, time
from pathlib import Path
from deepscan.batches import batch
from deepscan.batches.outcomes import Outcome
from deepscan.cli import run
from deepscan.errors import UnreadableInput

class Batch:
    def __init__(self, *arguments, **options): pass
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def assess(self, inputs):
        (one,) = inputs
        while not one.path.with_suffix(".done").exists():
            time.sleep(0.01)
        yield Outcome.of(one.path, UnreadableInput(f"{one.path.name}: nothing in it"))

batch.Batch = Batch
sys.exit(run(["watch", *sys.argv[1:], "--settle", "0.1", "--offline"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="no such terminals there")
def test_two_lines_show_what_is_done_now_and_how_the_folder_stands(tmp_path: Path) -> None:
    from builders import terminal

    inbox = tmp_path / "inbox"
    inbox.mkdir()

    def user() -> Iterator[str]:
        yield "inbox: waiting for files"
        yield "0 seen, 0 waiting"
        for n in range(5):
            clip = inbox / f"clip-{n}.mp4"
            clip.write_bytes(b"a clip")
            yield f"clip-{n}.mp4: analysing"
            yield f"{n + 1} seen, 0 waiting"
            clip.with_suffix(".done").touch()
            yield "inbox: waiting for files"
            yield f"{n + 1} seen, 0 waiting, last ended "
        yield terminal.CTRL_C

    came, left = terminal.run(
        "-c", WATCH, str(inbox), "--out", str(tmp_path / "out"), columns=100, user=user()
    )
    messages = ["watching", *(f"error: clip-{n}.mp4: nothing in it" for n in range(5))]
    moving = [
        [
            line
            for line in terminal.screen(came[: drawn.start()])
            if " waiting" in line or ": analysing" in line
        ]
        for drawn in re.finditer(r"\r\x1b\[2K\x1b\[1A", came)
    ]
    assert max(map(len, moving)) == 2
    assert came.rindex("\x1b[?25h") > came.rindex("\x1b[?25l")  # the cursor is back
    lines = [line for line in left if line]
    assert [line[: len(words)] for line, words in zip(lines, messages, strict=False)] == messages
    assert lines[6] == "stopped; 0 analysed, no result is left incomplete"


def next_row(lines: IO[str] | None) -> dict:
    assert lines is not None
    return json.loads(lines.readline())


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
def test_ctrl_c_in_the_middle_leaves_nothing_half_written(sample: Path, tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    inbox.mkdir()
    shutil.copy(sample, inbox / "a.mp4")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "deepscan",
            "watch",
            inbox,
            "--out",
            out,
            "--settle",
            "0.1",
            "--offline",
        ],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_signals,
    )
    try:
        while not list(out.glob(".a.mp4.part-*")):  # in the middle indeed
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, output = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 0
    assert output.splitlines()[-1] == "stopped; 0 analysed, no result is left incomplete"
    assert not [path for path in out.iterdir() if not path.name.startswith("batch.sqlite")]


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [(["missing"], "no such folder", 1), ([".", "--settle", "0"], "not a positive time", 2)],
)
def test_mistakes_are_one_line(
    arguments: list[str], words: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["watch", "--offline", *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
