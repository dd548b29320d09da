"""A run's copy at another address: what is there, when it counts, and what is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec", reason="the extra cluster is not installed")

from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from deepscan.errors import OutputError, SettingsError
from deepscan.training.mirror import Mirror


@pytest.fixture(params=["file", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place that nothing is at yet."""
    MemoryFileSystem.store.clear()
    return (
        (tmp_path / "there" / "run").as_uri() if request.param == "file" else "memory://bucket/run"
    )


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.txt").write_text(content, "utf-8")
    return folder


def read(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text("utf-8") for path in folder.iterdir()}


def names(address: str) -> list[str]:
    there = Mirror(address)
    return sorted(there._there())


def test_a_folder_comes_back_as_it_was_at_the_newest_step(address: str, tmp_path: Path) -> None:
    run = write(tmp_path / "run", settings="s", state="one", log="1")
    (run / "tensorboard").mkdir()
    (run / ".state.txt.part-7").write_text("half", "utf-8")
    Mirror(address).push(run, 100)
    there = Mirror(address)
    there._store.pipe_file(there._at("holiday-0123456789abcdef.jpg"), b"somebody else's")
    Mirror(address).push(write(run, state="two", log="1 2"), 200)
    Mirror(address).pull(tmp_path / "back")
    assert read(tmp_path / "back") == {"settings": "s", "state": "two", "log": "1 2"}
    kinds = [name.rpartition("-")[0] for name in names(address)]
    # Nothing of step 100 is left; what is not ours is.
    assert kinds == ["holiday", "log", "settings", "state", "step-00000200"]


def test_what_has_not_changed_is_not_brought_there_again(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought: list[str] = []
    for kind in (LocalFileSystem, MemoryFileSystem):
        real = kind.put_file

        def put(self: Any, here: str, there: str, real: Any = real, **more: Any) -> None:
            brought.append(Path(here).stem)
            real(self, here, there, **more)

        monkeypatch.setattr(kind, "put_file", put)
    run = write(tmp_path / "run", detector="large", state="one")
    Mirror(address).push(run, 100)
    Mirror(address).push(write(run, state="two"), 200)
    assert brought == ["detector", "state", "state"]


@pytest.mark.parametrize("broken", ["put_file", "pipe_file"])
def test_a_step_that_was_broken_off_is_passed_over(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """While a file, or the list of files, is half there: as a store shows it that writes in place."""
    run = write(tmp_path / "run", settings="s", state="one")
    Mirror(address).push(run, 100)
    there = Mirror(address)

    def half(self: Any, one: str, other: Any, **more: Any) -> None:
        place, content = (one, other) if broken == "pipe_file" else (other, Path(one).read_bytes())
        with self.open(place, "wb") as file:
            file.write(content[: len(content) // 2])
        raise ConnectionResetError("the line is dead")

    with monkeypatch.context() as patch:
        patch.setattr(type(there._store), broken, half)
        with pytest.raises(OutputError, match="the line is dead"):
            there.push(write(run, state="two"), 200)
    assert len(names(address)) > 3  # half of something is there
    Mirror(address).pull(tmp_path / "back")
    assert read(tmp_path / "back") == {"settings": "s", "state": "one"}
    Mirror(address).push(run, 200)
    Mirror(address).pull(tmp_path / "after")
    assert read(tmp_path / "after") == {"settings": "s", "state": "two"}
    assert len(names(address)) == 3


def test_a_file_that_is_not_what_was_brought_there_is_never_gone_on_with(
    address: str, tmp_path: Path
) -> None:
    there = Mirror(address)
    there.push(write(tmp_path / "run", state="one"), 100)
    (state,) = (name for name in names(address) if name.startswith("state"))
    there._store.pipe_file(there._at(state), b"two")
    with pytest.raises(SettingsError, match=r"state\.txt was not brought there whole"):
        there.pull(tmp_path / "back")
    there._store.rm_file(there._at(state))
    with pytest.raises(SettingsError, match=r"state\.txt is missing"):
        there.pull(tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir() if "back" in path.name] == []


def test_a_list_leads_nowhere_else(address: str, tmp_path: Path) -> None:
    import hashlib

    there = Mirror(address)
    there.push(write(tmp_path / "run", state="one"), 100)
    content = json.dumps({"files": {"../state.txt": "0" * 64}}).encode()
    digest = hashlib.sha256(content).hexdigest()[:16]
    there._store.pipe_file(there._at(f"step-00000200-{digest}.json"), content)
    there.pull(tmp_path / "back")
    assert read(tmp_path / "back") == {"state": "one"}


def test_nothing_is_written_over(address: str, tmp_path: Path) -> None:
    run = write(tmp_path / "run", state="one")
    there = Mirror(address)
    there.check_new()
    with pytest.raises(SettingsError, match="no run of deepscan train is there"):
        there.pull(tmp_path / "back")
    there.push(run, 100)
    with pytest.raises(OutputError, match="holds a run already; --resume"):
        there.check_new()
    with pytest.raises(OutputError, match="already there; --resume"):
        there.pull(run)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = write(tmp_path / "run", state="one")
    with pytest.raises(OutputError, match=r"file/run: cannot be reached or written"):
        Mirror((tmp_path / "file" / "run").as_uri()).push(run, 100)


def test_an_address_that_nobody_knows_is_said_before_anything_runs() -> None:
    with pytest.raises(SettingsError, match=r"nowhere://x: .*nowhere"):
        Mirror("nowhere://x")
