"""What stands at the terminal: the table, the reasons, the line of progress and what is printed above it."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from builders import terminal
from builders.language import terms
from builders.reports import CALIBRATED, made
from deepscan.batches.outcomes import Outcome
from deepscan.cli.terminal import summary
from deepscan.errors import UnreadableInput

CLIP = Path("inbox/interview-with-the-minister.mp4")


def raised(track: int, instant: int) -> float:
    """Face 1 scores high from instant 8 to 15 of 32."""
    return 9.0 if track == 1 and 8 <= instant < 16 else -4.0


@pytest.fixture(scope="module")
def results() -> list[Outcome]:
    """A stretch, a low score, nobody, and a file that is none."""
    calm = made(1, logit=lambda track, instant: -9.0, calibration=replace(CALIBRATED, unseen=True))
    return [
        Outcome.of(CLIP, made(2, logit=raised, calibration=CALIBRATED)[0]),
        Outcome.of(Path("calm.mp4"), calm[0]),
        Outcome.of(Path("wall.mp4"), made(0)[0]),
        Outcome.of(Path("notes.mp4"), UnreadableInput("notes.mp4: not media")),
    ]


def shown(results: list[Outcome], width: int) -> str:
    page = StringIO()
    Console(width=width, file=page).print(summary(results, width))
    return page.getvalue()


def test_each_input_has_a_row_and_its_reason_in_plain_words(results: list[Outcome]) -> None:
    text = shown(results, 100)
    flat = " ".join(text.split())
    assert "Look at 0:02 to 0:04. There face 1 scores far higher than elsewhere" in flat
    assert "UNCALIBRATED" not in flat.upper()
    assert "calm.mp4 The face scores as low as faces in real videos do." in flat
    assert "wall.mp4 No face was found in 32 frames; nothing was judged." in flat
    assert "notes.mp4: not media" in flat
    assert "No verdict says that a video is authentic." in flat
    assert terms(text) == []


@pytest.mark.parametrize("width", [40, 60, 72, 100])
def test_the_name_of_the_file_stays_on_narrow_terminals(results: list[Outcome], width: int) -> None:
    text = shown(results, width)
    assert max(map(len, text.splitlines())) <= width
    head, *rows = [line for line in text.split(f"\n{CLIP.name}  ")[0].splitlines() if line.strip()]
    column = "".join(line[1 : head.index("verdict")].strip() for line in rows)
    assert CLIP.name in column
    assert ("probability" in text) == (width >= 50)


SCRIPT = """
import sys, time
from deepscan.cli.console import progress_bars, put, say
with progress_bars(False) as bars:
    tell = bars.stages("out")
    for done in range(3):
        tell("inputs", done, 3)
        time.sleep(0.15)
        say(f"clip-{done}.mp4: no face")
        put(f'{{"clip": {done}}}\\n')
    tell("second look", 0, 0)
    time.sleep(0.15)
say("done")
"""


def test_messages_never_run_into_the_progress(tmp_path: Path) -> None:
    came, screen = terminal.run("-c", SCRIPT)
    assert "out: inputs finished" in came
    assert "2 of 3" in came
    assert "out: looking closer at one part" in came
    lines = [line for n in range(3) for line in (f"clip-{n}.mp4: no face", f'{{"clip": {n}}}')]
    assert [line for line in screen if line] == [*lines, "done"]


def test_results_reach_their_file_while_progress_is_at_the_terminal(tmp_path: Path) -> None:
    with (tmp_path / "rows.ndjson").open("w") as file:
        _, screen = terminal.run("-c", SCRIPT, stdout=file.fileno())
    assert (tmp_path / "rows.ndjson").read_text().splitlines() == [
        f'{{"clip": {n}}}' for n in range(3)
    ]
    assert [line for line in screen if line] == [
        *(f"clip-{n}.mp4: no face" for n in range(3)),
        "done",
    ]


def test_nothing_moves_off_a_terminal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        terminal.run("-c", SCRIPT, stdout=file.fileno(), stderr=file.fileno())
    log = (tmp_path / "log").read_text()
    assert "\x1b" not in log
    assert "inputs finished" not in log
    assert sorted(log.splitlines())[-1] == '{"clip": 2}'


def test_a_narrow_terminal_cuts_the_title_not_the_time() -> None:
    script = SCRIPT.replace('"out"', '"a-long-name-of-a-clip-from-the-archive-of-1998.mp4"')
    came, screen = terminal.run("-c", script, columns=60)
    assert "…" in came
    assert "2 of 3" in came
    assert [line for line in screen if line][-1] == "done"
