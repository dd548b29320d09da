"""What a hostile file does to its decoder costs that file, and is told as what it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import clips
from deepscan.config import Limits, Sampling
from deepscan.errors import LimitExceeded, NoVideoStream, ProcessDied, UnreadableInput
from deepscan.flow import Clock
from deepscan.media import isolation
from deepscan.media.isolation import Decoder, decoder
from deepscan.media.video import VideoSource
from deepscan.records import Frame

ALL = Sampling("all")


def pid(one: Decoder) -> int:
    return one._process.pid


def gone(process: int) -> bool:
    """Whether a process has ended (or is only waiting to be noticed), within ten seconds."""
    for _ in range(100):
        with suppress(FileNotFoundError):
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.1)
                continue
        return True
    return False


@pytest.mark.parametrize("rule", ["uniform", "keyframes", "all", "every:0.2"])
def test_what_comes_out_is_what_decoding_here_gives(tmp_path: Path, rule: str) -> None:
    path = clips.write(tmp_path / "a.mp4", 12, tags={"title": "n\u00e4me"})
    here = VideoSource(path)
    sampling = Sampling.parse(rule, 5)
    clock = Clock()
    with decoder(path, sampling, Limits()) as one:
        opened = one.opened()
        frames = list(one.frames())
        credentials = one.credentials(clock)
    assert opened.source == here.source
    assert opened.indices == here.choose(sampling)
    for frame, expected in zip(frames, here.decode(opened.indices), strict=True):
        assert isinstance(frame, Frame)
        assert isinstance(expected, Frame)
        assert (frame.index, frame.time) == (expected.index, expected.time)
        assert np.array_equal(frame.pixels, expected.pixels)
    assert credentials.status in ("absent", "not_checked")
    assert clock.peak["decoding"] > 10
    assert gone(pid(one))


def test_further_frames_are_those_that_decoding_here_gives(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", 12)
    with decoder(path, Sampling(frames=2), Limits()) as one:
        assert [item.index for item in one.frames()] == [0, 11]
        one.credentials(Clock())
        for wanted in ([3, 4, 9], [2]):  # as often as wanted
            here = VideoSource(path).decode(wanted)
            for frame, expected in zip(one.further(wanted), here, strict=True):
                assert isinstance(frame, Frame)
                assert isinstance(expected, Frame)
                assert (frame.index, frame.time) == (expected.index, expected.time)
                assert np.array_equal(frame.pixels, expected.pixels)


def test_a_decoder_ahead_of_its_turn_has_its_whole_time(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", 12)
    with decoder(path, ALL, Limits(seconds=60)) as one:
        one.opened()
        one._began -= 100  # another input was looked at for so long
        with pytest.raises(LimitExceeded):
            next(one.frames())
        one.count_from_now()
        assert len(list(one.frames())) == 12


def test_damage_is_told_frame_by_frame(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", 20, options=clips.b_frames())
    clips.break_packets(path, range(11, 20))
    here = VideoSource(path)
    expected = [isinstance(item, Frame) for item in here.decode(range(20))]
    with decoder(path, ALL, Limits()) as one:
        assert [isinstance(item, Frame) for item in one.frames()] == expected
    assert not all(expected)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("text.mp4", UnreadableInput, "text, not a video"),
        ("sound.m4a", NoVideoStream, "contains no video"),
        ("absent.mp4", UnreadableInput, "no such file"),
    ],
)
def test_an_unusable_file_has_its_usual_error(
    tmp_path: Path, name: str, error: type[Exception], words: str
) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    clips.sound_only(tmp_path / "sound.m4a")
    with pytest.raises(error, match=words), decoder(tmp_path / name, ALL, Limits()) as one:
        one.opened()


@pytest.mark.parametrize("when", ["opening", "decoding"])
def test_a_crash_is_an_error_with_its_signal(tmp_path: Path, when: str) -> None:
    path = clips.write(tmp_path / "a.mp4", [clips.numbered(i, 1080, 1920) for i in range(20)])
    with decoder(path, ALL, Limits()) as one:
        frames = one.frames()
        if when == "decoding":
            next(frames)
        os.kill(pid(one), signal.SIGSEGV)
        with pytest.raises(ProcessDied, match=r"a\.mp4: the decoder crashed on it .SIGSEGV"):
            list(frames)


def test_a_hang_ends_at_the_time_limit(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", [clips.numbered(i, 1080, 1920) for i in range(20)])
    with decoder(path, ALL, Limits(seconds=30)) as one:
        frames = one.frames()
        next(frames)
        os.kill(pid(one), signal.SIGSTOP)
        one._began -= 29.5
        with pytest.raises(LimitExceeded, match=r"limit of 30 s .* of 20 frames.*--time-limit"):
            list(frames)  # a stopped process says nothing: without the limit this would never end
    assert one._process.returncode == -signal.SIGKILL


def test_a_hang_ends_without_a_time_limit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "SILENCE", 0.2)
    monkeypatch.setattr(isolation, "START", "import time; time.sleep(60)")
    path = clips.write(tmp_path / "a.mp4", 3)
    with (
        decoder(path, ALL, Limits()) as one,
        pytest.raises(LimitExceeded, match="gave nothing for 0 s"),
    ):
        one.opened()


@pytest.mark.skipif(sys.platform != "linux", reason="no limit of address space elsewhere")
def test_a_bomb_ends_at_the_memory_limit(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (8000, 8000)).save(path, compress_level=1)  # 64 MB, in colour 192 MB, and copies
    with (
        decoder(path, ALL, Limits(memory=512)) as one,
        pytest.raises(LimitExceeded, match="more than 512 MiB of memory"),
    ):
        one.opened()


@pytest.mark.parametrize(
    "answer",
    [
        b"no json\n",
        b"[" * 100_000 + b"\n",
        b"[]\n",
        b"{}\n",
        b'{"error": "SystemExit"}\n',
        b'{"error": []}\n',
        b'{"error": {"memory": 1}}\n',
        b'{"error": NaN}\n',
        b'{"source": {"sha256": "0"}, "indices": [0], "declared_duration": null}\n',
    ],
)
def test_nothing_that_no_decoder_of_ours_says_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    says(answer, monkeypatch)
    path = clips.write(tmp_path / "a.mp4", 3)
    with (
        decoder(path, ALL, Limits()) as one,
        pytest.raises(ProcessDied, match=r"a\.mp4: the decoder answered"),
    ):
        one.opened()


def says(answer: bytes, patch: pytest.MonkeyPatch) -> None:
    """Have every decoder say this and nothing else, once it has said how it is confined."""
    answer = b'{"confinement": "full"}\n' + answer
    start = f"import sys, time; sys.stdout.buffer.write({answer!r}); sys.stdout.flush(); time.sleep(600)"
    patch.setattr(isolation, "START", start.replace("{", "{{").replace("}", "}}"))


def opening(path: Path, lie: str = "", value: str = "") -> bytes:
    """What an honest decoder says of a file on opening it; with a lie, one value is this JSON instead."""
    found = VideoSource(path).source
    source = {name: value for name, value in asdict(found).items() if name != "path"}
    whole = {"source": source, "declared_duration": 0.12, "indices": [0, 1, 2]}
    if lie:
        (whole if lie in whole else source)[lie] = "LIE"
    return json.dumps(whole, default=str).replace('"LIE"', value).encode() + b"\n"


def test_an_honest_opening_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.write(tmp_path / "a.mp4", 3)
    says(opening(path), monkeypatch)
    with decoder(path, ALL, Limits()) as one:
        assert one.opened().source == VideoSource(path).source
        assert one.opened().indices == (0, 1, 2)


@pytest.mark.parametrize(
    ("of", "value"),
    [
        ("width", "Infinity"),
        ("height", "1e400"),
        ("rotation", "NaN"),
        ("bytes", "1" + 400 * "0"),
        ("frames", "[3]"),
        ("frames", "true"),
        ("start", '"1e99999999"'),  # hours of arithmetic, if it were computed
        ("start", "NaN"),
        ("duration", '"1/0"'),
        ("average_rate", "{}"),
        ("nominal_rate", '"inf"'),
        ("bit_rate", "-Infinity"),
        ("tags", '[["title", "a"]]'),
        ("source", "[]"),
        ("indices", "[0, Infinity]"),
        ("indices", "[[0]]"),
        ("indices", "{}"),
        ("declared_duration", "NaN"),
        ("declared_duration", '"inf"'),
        ("declared_duration", "1" + 400 * "0"),
    ],
)
def test_no_number_that_is_none_is_believed_of_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str, value: str
) -> None:
    path = clips.write(tmp_path / "a.mp4", 3)
    says(opening(path, of, value), monkeypatch)
    with (
        decoder(path, ALL, Limits()) as one,
        pytest.raises(ProcessDied, match=r"a\.mp4: the decoder answered of the opening"),
    ):
        one.opened()


def take_over(folder: Path, patch: pytest.MonkeyPatch, honest: str, lie: str) -> None:
    """Have every decoder lie in one place, after it has opened the file honestly."""
    source = Path(isolation.__file__).read_text("utf-8")
    assert honest in source
    (folder / "taken.py").write_text(source.replace(honest, lie), "utf-8")
    start = "import sys; sys.path[:] = [{folder!r}, *{{path!r}}]; from taken import main; main()"
    patch.setattr(isolation, "START", start.format(folder=str(folder)))


@pytest.mark.parametrize("lie", ['"1e99999999"', "float('nan')", "[]", '"1/0"'])
def test_no_time_that_is_none_is_believed_of_a_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    take_over(tmp_path, monkeypatch, '"time": item.time', f'"time": {lie}')
    path = clips.write(tmp_path / "a.mp4", 3)
    with decoder(path, ALL, Limits()) as one, pytest.raises(ProcessDied, match="of the header"):
        list(one.frames())


@pytest.mark.parametrize("lie", ["float('nan')", "'inf'", "10**400", "[]"])
@pytest.mark.parametrize(
    "honest", ['"peak": peak', '"seconds": clock.seconds.get("decoding", 0.0)']
)
def test_no_cost_that_is_none_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, honest: str, lie: str
) -> None:
    """NaN seconds would come out as a report that is no JSON."""
    take_over(tmp_path, monkeypatch, honest, f"{honest.partition(':')[0]}: {lie}")
    path = clips.write(tmp_path / "a.mp4", 3)
    with decoder(path, ALL, Limits()) as one:
        assert len(list(one.frames())) == 3
        with pytest.raises(ProcessDied, match="of the ending"):
            one.credentials(Clock())


@pytest.mark.parametrize(
    "lie",
    [
        "item.pixels.shape and (10**6, 10**6, 3)",
        "(-1, -1, 3)",
        "('a', 'b', 'c')",
        "(float('inf'), 4, 3)",
        "5",
    ],
)
def test_a_frame_of_impossible_shape_is_not_made_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    take_over(tmp_path, monkeypatch, '"shape": item.pixels.shape', f'"shape": {lie}')
    path = clips.write(tmp_path / "a.mp4", 3)
    with decoder(path, ALL, Limits()) as one, pytest.raises(ProcessDied, match="answered"):
        list(one.frames())


def test_a_decoder_has_no_life_of_its_own(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", 3)
    code = (
        "import os, signal, sys, time; from pathlib import Path;"
        " from deepscan.config import Limits, Sampling; from deepscan.media.isolation import Decoder;"
        " one = Decoder(Path(sys.argv[1]), Sampling(), Limits()); one.opened();"
        " os.kill(one._process.pid, signal.SIGSTOP); print(one._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not Path(f"/proc/{child}/stat").read_text().endswith("Z")
        parent.kill()
    assert gone(child)


def test_nothing_is_imported_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence may bring a numpy.py of its own."""
    path = clips.write(tmp_path / "a.mp4", 3)
    for name in ("numpy", "av", "json", "deepscan"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with decoder(Path(path.name), ALL, Limits()) as one:
        assert one.opened().source.frames == 3
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts threads by /proc")
def test_threads_do_not_add_up_over_a_dense_sampling(tmp_path: Path) -> None:
    """One picture's conversion leaves nothing running: hundreds of them once filled the address space."""
    path = clips.write(tmp_path / "a.mp4", [clips.numbered(i, 360, 640) for i in range(60)])
    with decoder(path, ALL, Limits()) as one:
        threads = []
        for frame in one.frames():
            assert isinstance(frame, Frame)
            status = Path(f"/proc/{pid(one)}/status").read_text()
            threads.append(int(status.partition("Threads:")[2].split()[0]))
            time.sleep(0.002)
    assert len(threads) == 60
    assert max(threads) <= 10
