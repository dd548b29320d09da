"""The command line as people meet it: streams, exit codes, one line for each mistake."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from builders import clips
from deepscan import __version__
from deepscan.cli import run
from deepscan.report import json as report_json

QUICK = ["--frames", "4", "--offline"]


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def wall(tmp_path: Path) -> Path:
    """A picture with nobody in it."""
    path = tmp_path / "wall.png"
    Image.fromarray(np.full((200, 200, 3), 120, np.uint8)).save(path)
    return path


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == run(["-V"]) == 0
    assert capsys.readouterr().out == 2 * f"deepscan {__version__}\n"


def test_help_answers_at_once() -> None:
    """0.3 s is the bar; of processor time, which other people's load does not count towards."""
    took = []
    for _ in range(5):
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "deepscan", "--help"], check=True, capture_output=True
        )
        after = os.times()
        took.append(sum(after[2:4]) - sum(before[2:4]))  # children's, user and system
    assert min(took) < 0.3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "deepscan", "--version"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[0] == (
        "error: standard output cannot be written: No space left on device; make room and try again"
    )


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from deepscan.cli import run; run(['--help']); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert not {"torch", "numpy", "av", "rich", "scipy"} & set(loaded.stdout.split())


def test_one_input_gives_one_document(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["detect", str(sample), *QUICK, "--json", "--out", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    jsonschema.validate(document, report_json.schema())
    assert document == json.loads(
        (tmp_path / "out" / "sample.mp4" / "report.json").read_text("utf-8")
    )
    assert str(tmp_path / "out" / "sample.mp4") in captured.err


def test_the_table_says_what_its_numbers_are_worth(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enough = ["--frames", "8", "--offline"]  # with fewer there is no probability
    assert run(["detect", str(sample), *enough, "--out", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    assert "sample.mp4" in table
    assert "Probability: of manipulation, if half of all videos" in " ".join(table.split())
    assert "No verdict says that a video is authentic" in " ".join(table.split())


def test_earlier_results_stay_unless_forced(
    wall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["detect", str(wall), *QUICK, "--out", str(tmp_path / "out")]
    assert run(arguments) == 4
    assert run(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*arguments, "--force"]) == 4


def test_inputs_of_one_name_get_folders_of_their_own(wall: Path, tmp_path: Path) -> None:
    namesake = tmp_path / "other" / wall.name
    namesake.parent.mkdir()
    Image.new("L", (64, 64)).save(namesake)
    run(["detect", str(wall), str(namesake), *QUICK, "--out", str(tmp_path / "out")])
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [
        "batch.sqlite",
        "index.html",
        "inputs.csv",
        "inputs.parquet",
        "wall.png",
        "wall.png-2",
    ]


def test_an_input_may_be_called_as_the_index(wall: Path, tmp_path: Path) -> None:
    namesake = tmp_path / "index.html"
    Image.new("L", (64, 64)).save(namesake, "png")
    run(["detect", str(wall), str(namesake), *QUICK, "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "index.html").is_file()
    assert (tmp_path / "out" / "index.html-2" / "report.html").is_file()


def test_somebody_elses_index_is_left_alone(
    wall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "out" / "index.html"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    assert run(["detect", str(wall.parent), *QUICK, "--out", str(tmp_path / "out")]) == 4
    assert theirs.read_text() == "mine"
    assert "not written by deepscan" in capsys.readouterr().err


def test_case_and_origins_are_the_command_lines(
    wall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["detect", str(wall), *QUICK, "--json", "--out", str(tmp_path / "out")]
    arguments += ["--no-second-look", "--case", "K-7", "--examiner", "A. Person"]
    assert run(arguments) == 4
    stated = json.loads(capsys.readouterr().out)["run"]
    assert stated["argv"] == ["deepscan", *arguments]
    assert stated["case"]["examiner"] == "A. Person"
    given = {name for name, origin in stated["origins"].items() if origin == "flag"}
    assert given == {"sampling.frames", "sampling.second_look", "scoring.offline"}
    assert stated["settings"]["sampling"]["second_look"] is False


def test_every_setting_has_a_flag_that_is_known_as_its_origin() -> None:
    """A new option that changes a setting must be listed, or its origin would be called a call's."""
    from inspect import signature

    from deepscan.cli.detect import detect
    from deepscan.cli.options import SETTING_OF
    from deepscan.cli.preferences import defaults

    assert set(SETTING_OF) <= set(signature(detect).parameters)
    assert set(SETTING_OF.values()) <= set(defaults())


def test_a_flag_that_leaves_something_out_says_only_that(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command, flag in (("detect", "--no-second-look"), ("export-labels", "--no-images")):
        assert run([command, "--help"]) == 0
        assert re.search(rf"^  {flag}  +[A-Z]", capsys.readouterr().out, re.MULTILINE)


def test_a_folder_is_taken_whole(
    wall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "case" / "inner"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(wall.read_bytes())
    (folder / "notes.txt").write_text("left alone")
    out = tmp_path / "out"
    (folder / "._a.png").write_bytes(b"what macOS keeps beside a file")
    assert run(["detect", str(folder.parent), *QUICK, "--json", "--out", str(out)]) == 4
    (row,) = lines(capsys.readouterr().out)
    assert row["verdict"]["name"] == "no_face"  # type: ignore[index]
    assert (out / "inner" / "a.png" / "report.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sampling", "sometimes"], "uniform, keyframes, all, every:SECONDS"),
        (["--frames", "0"], "frames"),
        (["--device", "tpu"], "auto, cpu, cuda"),
        (["--min-face", "3"], "12 px"),
        (["--cls-map"], "--heatmap"),
        (["--no-such"], "--no-such"),
        (["--fail-on", "anything"], "manipulation"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_line_and_exit_code_2(
    wall: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["detect", str(wall), "--offline", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clip.mp4"], "No such command: clip.mp4. To analyse it: deepscan detect clip.mp4. See deepscan"),
        (["a b.mov", "-o", "x"], "deepscan detect 'a b.mov' -o x."),
        (["detct", "clip.mp4"], "No such command: detct. Did you mean detect? See deepscan --help."),
        (["weights", "fetsch"], "Did you mean fetch? See deepscan weights --help."),
        (["detect", "--heatmp", "x"], "No such option: --heatmp. Did you mean --heatmap? See"),
        (["detect", "-x", "clip.mp4"], "No such option: -x. See deepscan detect --help."),
        (["weights", "fetch", "gend"], "weights 'gend' are unknown; did you mean gend-clip-l14?"),
        (["detect", "{}/wall.pgn", "--offline"], "no such file; did you mean {}/wall.png?"),
        (["detect", "https://example.org/a/b.mp4", "--offline"], "https://example.org/a/b.mp4: an address;"),
        (["detect", "{}/wall.png", "--offline", "--weights", "b16-lorra"], "did you mean b16-lora?"),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_with_what_was_probably_meant(
    wall: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([word.format(wall.parent) for word in arguments]) in (1, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert words.format(wall.parent) in line


def test_an_empty_folder_is_one_error_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "inbox").mkdir()
    assert run(["detect", str(tmp_path / "inbox"), "--offline", "-o", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'inbox'}: is a folder")
    assert not (tmp_path / "out").exists()


def test_the_last_line_is_a_link_to_the_report(
    wall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["detect", str(wall), *QUICK, "-o", str(tmp_path / "a result")]) == 4
    report = tmp_path / "a result" / "wall.png" / "report.html"
    assert capsys.readouterr().err.splitlines()[-1] == f"Report: {report.as_uri()}"
    assert "a%20result" in report.as_uri()
    assert run(["detect", str(wall.parent), *QUICK, "-v", "-o", str(tmp_path / "all")]) == 4
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1] == f"All results: {(tmp_path / 'all' / 'index.html').as_uri()}"
    assert f"{wall}: no face found" in shown
    timings = shown[shown.index(f"{wall}: no face found") + 1]
    assert "loading" in timings
    assert "float32" in timings or "bfloat16" in timings


def test_missing_weights_stop_the_run_before_it_starts(
    wall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEEPSCAN_CACHE", str(tmp_path / "empty"))
    assert run(["detect", str(wall), "--offline", "--out", str(tmp_path / "out")]) == 1
    assert "deepscan weights import FILE" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_fail_on_manipulation(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepscan import pipeline
    from deepscan.records import Thresholds

    low = Thresholds(-1001.0, -1000.0)  # every score indicates manipulation
    monkeypatch.setattr(pipeline, "thresholds_of", lambda calibration: low)
    arguments = ["detect", str(sample), *QUICK, "--out", str(tmp_path / "out")]
    assert run(arguments) == 0
    assert run([*arguments, "--force", "--fail-on", "manipulation"]) == 10


def bad_inputs(folder: Path) -> list[Path]:
    """Two dozen things that cannot be analysed, each for a reason of its own."""
    folder.mkdir()
    video = clips.write(folder / "sound-video.mp4", 30).read_bytes()
    (folder / "sound-video.mp4").unlink()
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "JPEG")
    jpeg = picture.getvalue()
    Image.fromarray(clips.numbered(5, 300, 300)).save(folder / "cut.png")
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"this is no video\n" * 40,
        "text.jpg": b"this is no picture\n" * 40,
        "noise.mkv": np.random.default_rng(1).bytes(5000),
        "one-byte.avi": b"R",
        "head-only.mp4": video[:24],
        "zipped.mov": b"PK\x03\x04" + bytes(60),
        "document.pdf": b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n<<>>\nendobj\n",
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
        "playlist.m3u8": b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n",
        "list.ffconcat": b"ffconcat version 1.0\nfile /etc/hostname\n",
        "titles.srt": b"1\n00:00:01,000 --> 00:00:02,000\nHello\n",
        "cut.jpg": jpeg[: len(jpeg) // 2],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    clips.sound_only(folder / "sound.m4a")
    clips.sound_only(folder / "sound.wav", "pcm_s16le")
    clips.with_cover(folder / "cover.mp3", jpeg)
    clips.write(folder / "no-frames.mp4", 0)
    clips.cut(clips.write(folder / "cut.mp4", 30), 0.6)
    clips.cut(folder / "cut.png", 0.5)
    clips.huge_png(folder / "huge.png")
    clips.huge_h264(folder / "huge.h264")
    (folder / "small.h264").unlink(missing_ok=True)
    (folder / "folder.mp4").mkdir()
    (folder / "dangling.mp4").symlink_to(folder / "gone.mp4")
    # Reading it fails for root too, which no file mode can bring about.
    unreadable = [Path("/proc/self/mem")] if Path("/proc/self/mem").exists() else []
    return [*sorted(folder.iterdir()), folder / "missing.mp4", *unreadable]


@pytest.mark.slow
def test_a_good_file_among_twenty_bad_ones(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = bad_inputs(tmp_path / "bad")
    assert len(bad) >= 20
    half = len(bad) // 2
    paths = [*bad[:half], sample, *bad[half:]]
    out = tmp_path / "out"
    assert run(["detect", *map(str, paths), *QUICK, "--heatmap", "--json", "--out", str(out)]) == 3
    captured = capsys.readouterr()
    rows = lines(captured.out)
    assert [row["input"]["path"] for row in rows] == [str(path) for path in paths]  # type: ignore[index]
    for path, row in zip(paths, rows, strict=True):
        jsonschema.validate(row, report_json.schema())
        verdict: dict[str, str] = row["verdict"]  # type: ignore[assignment]
        if path == sample:
            assert verdict["name"] != "error"
        else:
            assert verdict["name"] == "error", path
            assert str(path) in verdict["sentence"]
            assert "scores" not in row
    assert "Traceback" not in captured.err
    assert sorted(p.name for p in out.iterdir()) == [
        "batch.sqlite",
        "index.html",
        "inputs.csv",
        "inputs.parquet",
        "sample.mp4",
    ]


def test_ctrl_c_keeps_what_is_finished(
    wall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from deepscan.batches.batch import Batch

    finish, second = Batch._finish, tmp_path / "second.png"
    second.write_bytes(wall.read_bytes())

    def interrupted(self: Batch, task: object, outcome: object) -> object:
        if task.path == second:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return finish(self, task, outcome)  # type: ignore[arg-type]

    monkeypatch.setattr(Batch, "_finish", interrupted)
    out = tmp_path / "out"
    assert run(["detect", str(wall), str(second), *QUICK, "--json", "--out", str(out)]) == 130
    captured = capsys.readouterr()
    assert len(lines(captured.out)) == 1
    assert "interrupted" in captured.err
    assert sorted(p.name for p in out.iterdir()) == [
        "batch.sqlite",
        "index.html",
        "inputs.csv",
        "inputs.parquet",
        "wall.png",
    ]


def test_names_that_would_drive_a_terminal_are_shown_as_text(
    wall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = tmp_path / "a\x1b[31m[red]b\nc.png"
    hostile.write_bytes(wall.read_bytes())
    assert run(["detect", str(hostile), *QUICK, "--out", str(tmp_path / "out")]) == 4
    captured = capsys.readouterr()
    assert "\x1b[31m" not in captured.out + captured.err
    assert "[red]" in captured.out


def test_weights_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["weights", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in rows} == {"base", "detector"}
    assert run(["weights", "verify"]) == 0
    assert run(["weights", "import", "no-such-file"]) == 1


# --- friendly ---------------------------------------------------------------------------------------


def test_folders_and_files_may_be_named_together(
    wall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.png").write_bytes(wall.read_bytes())
    out = str(tmp_path / "out")
    arguments = ["detect", str(wall), str(tmp_path / "folder"), *QUICK, "--json", "--out", out]
    assert run(arguments) == 4
    rows = lines(capsys.readouterr().out)
    assert [Path(row["input"]["path"]).name for row in rows] == ["wall.png", "b.png"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("https://example.org/v.mp4", None, "an address; save the file"),
        ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "save it as JPEG"),
        ("photo.heif", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99), "save it as JPEG"),
    ],
)
def test_what_people_try_gets_a_next_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes | None,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    assert run(["detect", name, *QUICK, "--json"]) == 1
    assert words in json.loads(capsys.readouterr().out)["verdict"]["sentence"]


def test_names_that_a_terminal_cannot_write_do_not_end_the_run(wall: Path, tmp_path: Path) -> None:
    """As Windows writes into files and pipes: in a code page of 256 characters."""
    named = tmp_path / "\u8138-\N{GRINNING FACE}.png"
    named.write_bytes(wall.read_bytes())
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "deepscan",
            "detect",
            str(named),
            *QUICK,
            "--out",
            str(tmp_path / "o"),
        ],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 4
    assert rb"\u8138" in done.stdout
    assert b"Traceback" not in done.stderr


def test_patterns_are_put_out_where_the_shell_does_not(tmp_path: Path) -> None:
    from deepscan.cli.console import expanded

    for name in ("a.mp4", "b.mp4", "c[1].mp4", "d.txt"):
        (tmp_path / name).touch()
    found = expanded([str(tmp_path / "*.mp4"), "--out", str(tmp_path / "none*"), "c[1].mp4"])
    names = [Path(argument).name for argument in found]
    assert names == ["a.mp4", "b.mp4", "c[1].mp4", "--out", "none*", "c[1].mp4"]
    assert expanded(["~"]) == [str(Path.home())]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["detct"], "Did you mean detect? See deepscan --help."),
        (["detect", "x", "--fraems", "3"], "--frames"),
        (["detect"], "See deepscan detect --help."),
        (["calibrate"], "See deepscan calibrate --help."),
        (["weights", "fetsh"], "See deepscan weights --help."),
    ],
)
def test_a_slip_of_the_pen_is_met_with_the_nearest_word(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize("arguments", [[], ["weights"], ["config"]])
def test_a_name_alone_shows_its_help(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"Usage: {' '.join(['deepscan', *arguments])} [OPTIONS]")


def test_verbose_adds_what_lies_beneath(
    tmp_path: Path, wall: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deepscan.toml").write_text("[sampling\n", "utf-8")
    assert run(["detect", str(wall)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert run(["detect", str(wall), "-v"]) == 2
    assert "  because of TOMLDecodeError: " in capsys.readouterr().err


def test_help_is_grouped_and_its_examples_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    import re

    from deepscan.cli.help import EXAMPLES, OPTION_GROUPS

    assert run(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(heading in output for heading in ("Look at media:", "This machine:", "Examples:"))
    assert run(["detect", "--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"\n{heading}:\n" in output for heading in OPTION_GROUPS)
    for example in (example for examples in EXAMPLES.values() for example in examples):
        words = re.sub(r"^[A-Z_]+=\S+ ", "", example).split()
        assert words[0] == "deepscan"
        nested = words[1] in ("weights", "config")
        assert run([*words[1 : 2 + nested], "--help"]) == 0
        offered = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
        assert {word for word in words if word.startswith("--")} <= offered


# --- completion -------------------------------------------------------------------------------------


def completed(shell: str, typed: str) -> str:
    """What a shell is told when TAB is pressed after `typed`."""
    words = typed.split(" ")
    environment = {
        **os.environ,
        "_DEEPSCAN_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": words[-1],
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    command = [str(Path(sys.executable).parent / "deepscan")]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_tab_completes_commands_options_and_weights(shell: str) -> None:
    assert "detect" in completed(shell, "deepscan det")
    assert "prepare" not in completed(shell, "deepscan det")
    assert "--sampling" in completed(shell, "deepscan detect --samp")
    assert "gend-clip-l14" in completed(shell, "deepscan weights fetch gen")
    assert "gend-clip-l14" in completed(shell, "deepscan detect --weights gen")


def test_tab_is_answered_without_heavy_imports() -> None:
    code = "import sys; from deepscan.cli.weights import everything; everything('b'); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert not {"torch", "numpy", "av", "rich"} & set(loaded.stdout.split())


def test_started_processes_have_streams_where_this_one_had_none(tmp_path: Path) -> None:
    """A pipe that took the number of stdout would get what a library prints, and wait for ever."""
    links = "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in range(3)], file=open('seen', 'w'))"
    code = (
        "import subprocess, sys; from deepscan.__main__ import _open_streams; _open_streams();"
        f' subprocess.run([sys.executable, "-c", {links!r}])'
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- >&- 2>&-"
    subprocess.run(["/bin/sh", "-c", command], check=True, cwd=tmp_path)
    assert (tmp_path / "seen").read_text() == f"{[os.devnull] * 3}\n"


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(wall: Path, tmp_path: Path, closed: str) -> None:
    """As a daemon, a service or pythonw starts it."""
    command = (
        f'"{sys.executable}" -m deepscan detect "{wall}" --frames 2 --out "{tmp_path}/out" {closed}'
    )
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (4, False)
    assert (tmp_path / "out" / "wall.png" / "report.json").is_file()


def test_a_pipe_that_nobody_reads_ends_quietly(wall: Path, tmp_path: Path) -> None:
    command = (
        f'"{sys.executable}" -m deepscan detect "{wall}" --frames 2 --json --out "{tmp_path}/out"'
    )
    command = f"({command}; echo $? > {tmp_path}/code) | true"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "code").read_text() == "4\n"
