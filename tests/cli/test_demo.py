"""`deepscan demo`: a clip, its results, and what they show; an earlier demo is replaced only when asked."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepscan.cli import run
from deepscan.files import sha256


@dataclass
class Demo:
    """What one run of the demo left and said."""

    folder: Path
    code: int
    table: str
    messages: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        out, messages = folder.parent / "out", folder.parent / "messages"
        with (
            out.open("w") as stdout,
            messages.open("w") as stderr,
            redirect_stdout(stdout),
            redirect_stderr(stderr),
        ):
            code = run(["demo", str(folder), "--offline"])
    return Demo(folder, code, out.read_text(), messages.read_text())


@pytest.mark.slow
def test_it_leaves_the_sample_and_its_results_with_heatmaps(demo: Demo, sample: Path) -> None:
    assert demo.code == 0
    assert sha256(demo.folder / "sample.mp4") == sha256(sample)
    results = demo.folder / "results" / "sample.mp4"
    assert (results / "report.html").is_file()
    assert (results / "heatmaps" / "overlay.mp4").is_file()
    document = json.loads((results / "report.json").read_text("utf-8"))
    stretch = document["scores"]["stretch"]
    assert 2 <= stretch["start"] < stretch["end"] < 4


@pytest.mark.slow
def test_it_says_where_clip_and_results_are(demo: Demo) -> None:
    _, _, pointers = demo.table.partition("The clip is ")
    assert pointers.splitlines() == [
        f"{demo.folder / 'sample.mp4'}. Its face is manipulated from 2 s to 4 s."
    ]
    report = demo.folder / "results" / "sample.mp4" / "report.html"
    assert demo.messages == f"Report: {report.as_uri()}\n"


@pytest.mark.slow
def test_an_earlier_demo_stays_unless_forced(
    demo: Demo, capsys: pytest.CaptureFixture[str]
) -> None:
    report = demo.folder / "results" / "sample.mp4" / "report.json"
    before = report.read_bytes()
    assert run(["demo", str(demo.folder), "--offline"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {demo.folder / 'sample.mp4'}: already exists; --force")
    assert report.read_bytes() == before


def test_results_without_their_clip_stay_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results" / "sample.mp4"
    results.mkdir(parents=True)
    assert run(["demo", str(tmp_path), "--offline"]) == 2
    assert f"error: {results}: already exists" in capsys.readouterr().err
    assert run(["demo", str(tmp_path), "--offline", "--force"]) == 1
    assert "does not replace it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_folder_that_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(["demo", str(tmp_path / "file"), "--offline"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
