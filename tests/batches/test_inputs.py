"""What is an input: files, media in folders, lists, and how their results are named."""

from __future__ import annotations

import codecs
import os
import subprocess
from pathlib import Path, PurePath

import pytest
from PIL import Image

from builders import clips
from builders.evidence import source
from deepscan.batches.inputs import Input, found, is_result, itself, listed
from deepscan.errors import SettingsError
from deepscan.files import part_folder, short_name
from deepscan.report import provenance


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64)).save(path, "PNG")
    return path


def test_folders_are_searched_and_named_alike(tmp_path: Path) -> None:
    for name in ("b.mp4", "inner/a.PNG", "out/old.mp4/heatmaps/x.png"):
        picture(tmp_path / name)
    (tmp_path / "inner" / "notes.txt").write_text("Not media.")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "b.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    inputs = list(found([tmp_path], tmp_path / "out"))
    assert [str(one.inner) for one in inputs] == ["b.mp4", "inner/a.PNG", "link.mp4"]


@pytest.mark.slow
def test_a_folder_nested_beyond_all_reason_is_searched(tmp_path: Path) -> None:
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1100):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    try:
        assert list(found([tmp_path], tmp_path / "out")) == [itself(tmp_path)]  # and will fail
    finally:
        subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)  # shutil's way recurses


def test_a_file_is_taken_once(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    given = [path, tmp_path, tmp_path / "." / "a.png", tmp_path / "x" / ".." / "a.png"]
    assert [one.path for one in found(given, tmp_path / "out")] == [path]


def test_lists_are_read_to_the_byte() -> None:
    assert listed(b"a.mp4\nb c.mp4\r\n\n") == [Path("a.mp4"), Path("b c.mp4")]
    assert listed(b"a\nb.mp4\0c.mp4\0") == [Path("a\nb.mp4"), Path("c.mp4")]
    assert listed(b"a.mp4\rb c.mp4\r") == [Path("a.mp4"), Path("b c.mp4")]  # as old Macs write
    assert listed(b"a\0b\0") == [Path("a"), Path("b")]
    assert os.fsencode(listed(b"\xff.mp4")[0]) == b"\xff.mp4"
    odd = "form\x0cfeed, line\u2028and paragraph\u2029.mp4"  # which Python takes for ends of lines
    assert listed(odd.encode()) == listed(codecs.BOM_UTF8 + odd.encode()) == [Path(odd)]


@pytest.mark.parametrize("inner", ["../a", "/a", "b/../../a", ""])
def test_no_results_lie_outside(inner: str) -> None:
    with pytest.raises(SettingsError, match="outside of --out"):
        Input(Path("a.mp4"), PurePath(inner))


@pytest.mark.parametrize("name", ["..", "../..", "/", ".", "x/../.."])
def test_no_name_leads_outside(name: str) -> None:
    one = itself(Path(name))
    assert one.inner.parts
    assert ".." not in one.inner.parts


def test_content_decides_where_a_name_says_nothing(tmp_path: Path) -> None:
    clips.write(tmp_path / "x.mp4", 3).rename(tmp_path / "no suffix")
    clips.write(tmp_path / "y.mp4", 3).rename(tmp_path / "a.ogg")
    picture(tmp_path / "b.jfif")
    picture(tmp_path / "c.dat")
    clips.sound_only(tmp_path / "song.m4a")
    (tmp_path / "notes.txt").write_text("BM is how a bitmap begins, and this note.")
    (tmp_path / "._b.jfif").write_bytes(bytes(100))
    said: list[str] = []
    inputs = found([tmp_path], tmp_path / "out", said.append)
    assert [str(one.inner) for one in inputs] == ["a.ogg", "b.jfif", "c.dat", "no suffix"]
    assert [message.split(": ", 1)[1] for message in said] == [
        "1 skipped (attributes that macOS stores for other files): ._b.jfif",
        "1 skipped (neither video nor picture): notes.txt",
        "1 skipped (sound only): song.m4a",
    ]


def test_earlier_results_are_no_inputs(tmp_path: Path) -> None:
    results = tmp_path / "results" / "clip.mp4"
    picture(results / "heatmaps" / "face.png")
    picture(results / "overlay.png")
    provenance.write_manifest(results, source())
    picture(results / "added later.png")  # by no run
    picture(tmp_path / "clip.png")
    said: list[str] = []
    inputs = list(found([tmp_path], tmp_path / "out", said.append))
    assert [one.path.name for one in inputs] == ["clip.png", "added later.png"]
    assert "3 skipped (written by an earlier run of deepscan" in said[0]


def test_folders_of_results_alone_hold_no_inputs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = out / "clip.mp4"
    picture(results / "heatmaps" / "face.png")
    provenance.write_manifest(results, source())
    picture(out / ".other.mp4.part-123" / "heatmaps" / "face.png")  # of a run that was killed
    for given in (out, results, results / "heatmaps", results / "heatmaps" / "face.png"):
        said: list[str] = []
        assert not list(found([given], tmp_path / "elsewhere", said.append))
        assert all("skipped (written by an earlier run of deepscan" in one for one in said)
    assert not list(found([out], out))  # the folder that results are to go to
    assert is_result(results / "heatmaps" / "face.png")
    (tmp_path / "empty").mkdir()
    assert [one.path.name for one in found([tmp_path / "empty"], out)] == ["empty"]


@pytest.mark.parametrize(
    "encoded",
    [
        codecs.BOM_UTF8 + "a.mp4\r\nb ü.mp4\r\n".encode(),
        codecs.BOM_UTF16_LE + "a.mp4\r\nb ü.mp4\r\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "a.mp4\nb ü.mp4".encode("utf-16-be"),
        codecs.BOM_UTF32_LE + "a.mp4\nb ü.mp4".encode("utf-32-le"),
        codecs.BOM_UTF8 + "a.mp4\0b ü.mp4\0".encode(),
        codecs.BOM_UTF16_LE + "a.mp4\rb ü.mp4\r".encode("utf-16-le"),
    ],
)
def test_lists_as_windows_writes_them(encoded: bytes) -> None:
    assert listed(encoded) == [Path("a.mp4"), Path("b ü.mp4")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["./clip ü.mp4\r\n.\r\n", "視頻證據資料夾一二三.mp4\r\n"])
def test_utf_16_without_a_mark_is_not_taken_for_names_of_one_letter(
    text: str, encoding: str
) -> None:
    with pytest.raises(SettingsError, match="UTF-16 without a byte order mark"):
        listed(text.encode(encoding))


def test_a_list_that_is_no_text_names_its_encoding() -> None:
    with pytest.raises(SettingsError, match=r"not UTF-16-LE \(at byte 4\); save it as UTF-8"):
        listed(codecs.BOM_UTF16_LE + "a".encode("utf-16-le") + b"\x00\xd8")


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127, "b" * 240 + ".mp4"])
def test_long_names_get_short_and_unique_results(tmp_path: Path, name: str) -> None:
    inner = itself(tmp_path / name).inner
    assert len(os.fsencode(inner.name)) <= 200
    assert inner != itself(tmp_path / (name[:-1] + "c")).inner
    with part_folder(tmp_path / inner.with_name(f"{inner.name}-2")) as folder:
        (folder / "report.json").write_text("{}")
    with part_folder(tmp_path / name) as folder:  # as `--out` may name it
        (folder / "report.json").write_text("{}")
    assert (tmp_path / name / "report.json").is_file()


def test_usual_names_stay(tmp_path: Path) -> None:
    assert short_name("clip.mp4") == "clip.mp4"
