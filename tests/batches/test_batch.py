"""A batch: one row an input, nothing lost, nothing twice, nothing outside of its folder."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.machine import hear_signals
from deepscan import Sampling, Scoring, Settings
from deepscan.batches import batch
from deepscan.batches.batch import Batch
from deepscan.batches.inputs import found
from deepscan.batches.outcomes import Attempt, Outcome, Outcomes
from deepscan.batches.pool import Death
from deepscan.cli import run
from deepscan.config import Limits
from deepscan.errors import OutputError, SettingsError
from deepscan.search import Search
from deepscan.verification.verify import verify
from tools import kills

QUICK = Settings(sampling=Sampling(frames=2), scoring=Scoring(offline=True))
OPTIONS = ["--frames", "2", "--offline", "-q"]


def picture(path: Path, grey: int = 120, side: int = 64) -> Path:
    """Nobody, in some grey; equal sides are equal sizes of file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), grey, np.uint8)).save(path, "BMP")
    return path


def assessed(out: Path, paths: list[Path], **more: object) -> dict[str, Outcome]:
    settings = more.pop("settings", QUICK)
    with Batch(out, settings, **more) as work:  # type: ignore[arg-type]
        return {o.path.name: o for o in work.assess(list(found(paths, out)))}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Scanning in this process, without the seconds that another one takes to load torch."""

    class Here:
        def __init__(self, work: object, *_: object, **__: object) -> None:
            self._work = work

        def run(self, take: object) -> Iterator[object]:
            while (task := take()) is not None:  # type: ignore[operator]
                yield task, self._work(task)  # type: ignore[operator]

        def close(self) -> None:
            pass

    monkeypatch.setattr(batch, "Pool", Here)
    return tmp_path


# --- rows ------------------------------------------------------------------------------------------


def test_every_input_has_its_outcome_and_the_next_run_does_the_rest(here: Path) -> None:
    files = [picture(here / "in" / "a.bmp", 1), picture(here / "in" / "b.bmp", 2, 65)]
    (here / "in" / "c.mp4").write_bytes(b"broken" * 100)
    out = here / "out"
    first = assessed(out, [here / "in"])
    assert {n: o.verdict.value for n, o in first.items()} == {
        "a.bmp": "no_face",
        "b.bmp": "no_face",
        "c.mp4": "error",
    }
    before = (out / "a.bmp" / "report.json").stat().st_mtime_ns
    picture(files[1], 3, 65)
    os.utime(files[1], ns=(1, 1))
    new = picture(here / "in" / "d.bmp", 4, 66)
    second = assessed(out, [here / "in"], resume=True)
    assert second["a.bmp"] == first["a.bmp"]
    assert (out / "a.bmp" / "report.json").stat().st_mtime_ns == before
    assert second["b.bmp"].sha256 != first["b.bmp"].sha256  # a changed file is another one
    assert second["c.mp4"].finished > first["c.mp4"].finished  # a failed one is tried again
    assert second[new.name].verdict.value == "no_face"
    rows = Outcomes(out)
    assert all(rows.attempt(path) is not None for path in (*files, new, here / "in" / "c.mp4"))
    rows.close()


def test_without_resume_earlier_results_are_in_the_way(here: Path) -> None:
    path = picture(here / "in" / "a.bmp")
    out = here / "out"
    assessed(out, [path])
    with pytest.raises(SettingsError, match=r"already exists.*--resume continues a batch"):
        assessed(out, [path])
    first = (out / "a.bmp" / "report.json").read_bytes()
    assessed(out, [path], force=True)
    assert (out / "a.bmp" / "report.json").read_bytes() != first


def test_other_settings_are_not_mixed_in(here: Path) -> None:
    path = picture(here / "in" / "a.bmp")
    out = here / "out"
    assessed(out, [path])
    other = replace(QUICK, sampling=Sampling(frames=3))
    with pytest.raises(SettingsError, match="other weights, settings or another version"):
        assessed(out, [path], resume=True, settings=other)
    limited = replace(QUICK, limits=Limits(60))  # which changes no result
    assert assessed(out, [path], resume=True, settings=limited)["a.bmp"].verdict == "no_face"


def test_the_same_bytes_are_judged_once(here: Path) -> None:
    picture(here / "in" / "a.bmp", 7)
    picture(here / "in" / "copy.bmp", 7)
    picture(here / "in" / "size.bmp", 8)
    out = here / "out"
    outcomes = assessed(out, [here / "in"])
    assert outcomes["copy.bmp"].same_as == here / "in" / "a.bmp"
    assert outcomes["copy.bmp"].folder == out / "a.bmp"
    assert outcomes["size.bmp"].same_as is None
    assert not (out / "copy.bmp").exists()
    again = assessed(out, [here / "in"], resume=True)
    assert again["copy.bmp"] == outcomes["copy.bmp"]


def test_a_row_that_was_begun_is_done_anew_and_its_leavings_go(here: Path) -> None:
    path = picture(here / "in" / "a.bmp")
    out = here / "out"
    assessed(out, [path])
    rows = Outcomes(out)  # as a kill leaves them: the results in place, the row not finished
    found_row = rows.attempt(path)
    assert found_row is not None
    rows.begin(path, replace(found_row, outcome=None))
    rows.close()
    (out / ".a.bmp.part-99").mkdir()
    (out / ".a.bmp.part-99" / "half").touch()
    assert assessed(out, [path], resume=True)["a.bmp"].verdict == "no_face"
    assert sorted(p.name for p in out.iterdir()) == ["a.bmp", "batch.sqlite"]


def test_names_that_some_disks_take_for_equal_get_folders_of_their_own(here: Path) -> None:
    names = [
        "x/a.bmp",
        "y/a.bmp",
        "x/A.BMP",
        "x/\u00e9.bmp",
        "x/e\u0301.bmp",
    ]  # the last two are both "é"
    paths = [picture(here / name, grey, 64 + grey) for grey, name in enumerate(names)]
    with Batch(here / "out", QUICK) as work:
        done = list(work.assess(list(found(paths, here / "out"))))
    assert [one.folder.name for one in done if one.folder is not None] == [
        "a.bmp", "a.bmp-2", "A.BMP-3", "\u00e9.bmp", "e\u0301.bmp-2",
    ]  # fmt: skip


def test_results_are_not_written_through_a_link(here: Path) -> None:
    picture(here / "in" / "inner" / "a.bmp")
    out, elsewhere = here / "out", here / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "inner").symlink_to(elsewhere)
    with pytest.raises(SettingsError, match="inner: is a link"):
        assessed(out, [here / "in"])
    assert list(elsewhere.iterdir()) == []


def test_what_killed_its_process_is_an_error_of_its_own(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(here / "in" / "a.bmp")
    picture(here / "in" / "b.bmp", 9, 65)

    def deadly(settings: object, request: object, task: batch._Task) -> object:
        return Death("SIGKILL", 3) if task.path.name == "a.bmp" else scan(settings, request, task)  # type: ignore[arg-type]

    scan = batch._scan
    monkeypatch.setattr(batch, "_scan", deadly)
    outcomes = assessed(here / "out", [here / "in"])
    assert (outcomes["a.bmp"].reason, outcomes["b.bmp"].verdict) == ("ProcessDied", "no_face")
    assert "3 processes died on it, the last from SIGKILL" in outcomes["a.bmp"].sentence


def test_the_next_input_is_begun_before_the_one_before_is_finished(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    class Heard(Search):
        def __init__(self, path: Path, settings: Settings) -> None:
            self.name = path.name
            heard.append(f"begin {path.name}")
            super().__init__(path, settings)

        def __exit__(self, *error: object) -> None:
            heard.append(f"end {self.name}")
            super().__exit__(*error)

    monkeypatch.setattr(batch, "Search", Heard)
    picture(here / "in" / "a.bmp", 1)
    picture(here / "in" / "b.bmp", 1)  # the same bytes: begun, and given up
    picture(here / "in" / "c.bmp", 2, 65)
    (here / "in" / "d.mp4").write_bytes(b"broken" * 100)
    outcomes = assessed(here / "out", [here / "in"])
    assert [outcomes[name].verdict for name in ("a.bmp", "b.bmp", "c.bmp")] == ["no_face"] * 3
    assert outcomes["d.mp4"].reason == "UnreadableInput"
    assert heard == [
        "begin a.bmp", "begin b.bmp", "end a.bmp", "end b.bmp",
        "begin c.bmp", "begin d.mp4", "end c.bmp", "end d.mp4",
    ]  # fmt: skip


def test_an_input_whose_process_died_is_tried_again_without_the_next_one() -> None:
    """Which may have been the culprit."""
    task = batch._Task(Path("a"), Attempt(Path("out/a"), 1, 1, "work"), False, Path("b"))
    batch._lost(task)
    assert task.then is None


# --- bad days --------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_ends_the_batch_with_what_was_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk, inputs = tmp_path / "disk", tmp_path / "in"
    disk.mkdir()
    for i in range(12):
        picture(inputs / f"{i:02d}.bmp", i, 64 + i)
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        code = run(["detect", str(inputs), *OPTIONS, "--json", "--out", str(disk / "out")])
        captured = capsys.readouterr()
        done = [Path(json.loads(line)["input"]["path"]).name for line in captured.out.splitlines()]
        assert code == 1
        assert 0 < len(done) < 12
        assert "cannot be written" in captured.err
        assert "--resume" in captured.err
        there = sorted(p.name for p in (disk / "out").iterdir() if p.is_dir())
        assert set(done) <= set(there)  # the last one's row may have found no room any more
        assert all(verify(disk / "out" / name).state != "differs" for name in there)
        assert not [p for p in (disk / "out").rglob("*") if ".part-" in p.name]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_trouble_that_strikes_every_input_ends_the_batch(
    here: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def hopeless(*_: object, **__: object) -> None:
        raise OutputError("out/a: cannot be written") from OSError(number, os.strerror(number))

    monkeypatch.setattr(batch, "examine", hopeless)
    picture(here / "in" / "a.bmp")
    with pytest.raises(OutputError, match="finished results are kept"):
        assessed(here / "out", [here / "in"])


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_stops_it_and_keeps_what_is_finished(tmp_path: Path, name: str) -> None:
    """Before the slow input is finished, which its missing results show."""
    quick, slow = picture(tmp_path / "a.bmp"), tmp_path / "b.bmp"
    picture(slow, 5, 7000)  # 147 MB
    out = tmp_path / "out"
    command = [sys.executable, "-m", "deepscan", "detect", str(quick), str(slow)]
    options = ["--json", *OPTIONS, "--min-face", "12", "--out", str(out)]
    with subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_signals,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(signal.Signals[name])
        assert process.wait() == 130
        assert b"Traceback" not in process.stderr.read()
    assert sorted(p.name for p in out.iterdir()) == [
        "a.bmp",
        "batch.sqlite",
        "index.html",
        "inputs.csv",
        "inputs.parquet",
    ]


@pytest.mark.slow
def test_kills_lose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make kills` does the same with 60 inputs and 20 kills."""
    kills.main([str(tmp_path / "work"), "--clips", "10", "--kills", "3"])
    output = capsys.readouterr().out
    assert "3 kills" in output
    assert "DIFFERENT" not in output
