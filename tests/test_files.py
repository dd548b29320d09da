"""Inputs are only read, outputs appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import pytest

from deepscan import files
from deepscan.errors import OutputError, UnreadableInput
from deepscan.files import check_readable, part_file, part_folder, sha256, weights_sha256


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent", "no such file; "),
        ("folder", "is a folder, not a video or picture"),
        ("empty", "empty .0 bytes.; copy it again"),
        ("pipe", "not a regular file"),
        ("dangling", "no such file"),
    ],
)
def test_unreadable_inputs_are_told_apart(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    with pytest.raises(UnreadableInput, match=words) as caught:
        check_readable(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden(tmp_path: Path) -> None:
    path = tmp_path / "locked"
    path.write_text("secret")
    path.chmod(0)
    with pytest.raises(UnreadableInput, match="check its permissions"):
        check_readable(path)


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc" * 100_000)
    assert sha256(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
    path.write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_weights_are_read_once_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def reading(path: Path) -> str:
        read.append(path)
        return sha256(path)

    monkeypatch.setattr(files, "sha256", reading)
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert [weights_sha256(path) for _ in range(3)] == [sha256(path)] * 3
    assert len(read) == 1
    other = tmp_path / "b"
    other.write_bytes(b"abd")
    other.replace(path)  # of the same size: another inode
    assert weights_sha256(path) == sha256(path) == hashlib.sha256(b"abd").hexdigest()
    os.utime(path, ns=(0, 0))  # which sets the inode's own time
    weights_sha256(path)
    assert len(read) == 3


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    with part_file(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["report.json"]


@pytest.mark.parametrize("trouble", [ValueError, KeyboardInterrupt])
def test_after_an_error_nothing_is_left(tmp_path: Path, trouble: type[BaseException]) -> None:
    (tmp_path / "old.txt").write_text("old")
    with suppress(trouble), part_file(tmp_path / "old.txt") as part:
        part.write_text("half")
        raise trouble
    with suppress(trouble), part_folder(tmp_path / "results") as folder:
        (folder / "half.txt").write_text("half")
        raise trouble
    assert names(tmp_path) == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"


@pytest.mark.parametrize("name", ["file/below", "n" * 300])
def test_impossible_places_are_output_errors(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"), part_file(tmp_path / name) as part:
        part.write_text("never")
    with pytest.raises(OutputError, match="cannot be written"), part_folder(tmp_path / name):
        pass
    assert names(tmp_path) == ["file"]


def results(folder: Path, report: bool) -> Path:
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    if report:
        (folder / "report.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("report", "replace", "words"),
    [
        (True, False, "already exists; --force replaces it"),
        (False, False, "already exists"),
        (False, True, "does not replace it"),
    ],
)
def test_folders_in_use_are_kept(tmp_path: Path, report: bool, replace: bool, words: str) -> None:
    folder = results(tmp_path / "results", report)
    with pytest.raises(OutputError, match=words), part_folder(folder, replace):
        pytest.fail("the work had begun before the folder was checked")
    assert (folder / "old.txt").read_text() == "old"


def test_deepscans_own_results_are_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = results(tmp_path / "results", report=True)
    with part_folder(folder, replace=True) as part:
        (part / "report.json").write_text("new")
        assert (folder / "old.txt").exists()
    assert names(folder) == ["report.json"]
    assert names(tmp_path) == ["results"]


def test_a_folder_made_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    with pytest.raises(OutputError, match="already exists"), part_folder(folder):
        results(folder, report=True)
    assert names(folder) == ["old.txt", "report.json"]
    assert names(tmp_path) == ["results"]


def test_earlier_results_come_back_if_their_replacement_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = results(tmp_path / "results", report=True)
    real = os.replace

    def broken_off(source: Path, target: Path) -> None:
        if (source / "new.txt").exists():
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", broken_off)
    with pytest.raises(KeyboardInterrupt), part_folder(folder, replace=True) as part:
        (part / "new.txt").write_text("new")
    assert names(folder) == ["old.txt", "report.json"]
    assert names(tmp_path) == ["results"]
