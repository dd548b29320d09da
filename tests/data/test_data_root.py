"""Where the user's data sets lie: a flag, a variable, or the nearest deepscan.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepscan.config import data_root, project
from deepscan.errors import SettingsError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder two below tmp_path, with no data root set."""
    monkeypatch.delenv("DEEPSCAN_DATA", raising=False)
    folder = tmp_path / "project" / "runs"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name in ("flag", "variable", "project/file"):
        (tmp_path / name).mkdir()
    return folder


def test_the_flag_goes_before_the_variable_before_the_file(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A relative root starts at the file's folder, wherever deepscan is called from.
    (here.parent / "deepscan.toml").write_text('[data]\nroot = "file"\n', "utf-8")
    assert data_root(None) == here.parent / "file"
    monkeypatch.setenv("DEEPSCAN_DATA", str(tmp_path / "variable"))
    assert data_root(None) == tmp_path / "variable"
    assert data_root(tmp_path / "flag") == tmp_path / "flag"


def test_the_nearest_file_counts(here: Path, tmp_path: Path) -> None:
    for folder, root in ((tmp_path, "flag"), (here.parent, "variable")):
        text = f'[data]\nroot = "{tmp_path / root}"\n'
        (folder / "deepscan.toml").write_text(text, "utf-8")
    assert data_root(None) == tmp_path / "variable"


def test_without_any_the_three_ways_are_named(here: Path) -> None:
    with pytest.raises(SettingsError, match=r"--root, .*DEEPSCAN_DATA, .*under \[data\]$"):
        data_root(None)
    (here / "deepscan.toml").write_text("[train]\nlr = 1e-4\n", "utf-8")
    with pytest.raises(SettingsError, match=r"deepscan\.toml does not"):
        data_root(None)


def test_a_root_that_is_no_folder_says_where_it_was_set(here: Path) -> None:
    with pytest.raises(SettingsError, match=r"data root gone, from --root: no such folder"):
        data_root(Path("gone"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[dat]\n", "unknown key dat; did you mean data"),
        ("[data]\nroots = 'x'\n", r"\[data\]: unknown key roots; did you mean root"),
        ("[other]\n", "unknown key other; known are data, train, sampling"),
        ("[data]\nroot = 3\n", "3 is not a path in quotes"),
        ("data = 'x'\n", r"write \[data\] above its keys"),
        ("[data\n", "not readable TOML"),
    ],
)
def test_the_file_is_strict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deepscan.toml").write_text(text, "utf-8")
    with pytest.raises(SettingsError, match=says):
        project()


def test_what_trains_checks_its_own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "deepscan.toml"
    path.write_text("[train]\nanything = 1\n", "utf-8")
    assert project() == (path, {"train": {"anything": 1}})
