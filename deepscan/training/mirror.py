"""A run folder's files at any address that fsspec knows, so that a run outlives the machine it is on.

    state-3f2a96c01b7e44d2.safetensors    files by name and digest, each brought there once
    step-00000300-90ce5fd2a1b07c34.json   written last: which of them the folder held after that step

A list that is not whole, or that names a file which is not what it says, is passed over for an earlier one.
TensorBoard's events stay here; log.csv holds the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

from deepscan.errors import DeepscanError, OutputError, SettingsError
from deepscan.files import is_part, parse_json, part_folder, sha256, store

LIST = re.compile(r"step-\d{8}-[0-9a-f]{16}\.json")
FILE = re.compile(r"(\w[\w.-]*)-[0-9a-f]{16}(\.\w+)")


class Mirror:
    """What lies at `address`.

    Raises:
        SettingsError: fsspec, or what it needs for this address, is not installed.
        OutputError: of all methods that write, where that fails; what was whole stays whole.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._store, self._root = store(address)

    def check_new(self) -> None:
        """Raise OutputError where a run is already, or where nothing can be looked up."""
        if any(LIST.fullmatch(name) for name in self._there()):
            raise OutputError(
                f"{self._address}: holds a run already; --resume {self._address} goes on with it, another"
                " --mirror keeps both"
            )

    def push(self, folder: Path, step: int) -> None:
        """Bring what `folder` holds after `step` steps there, then take away its earlier files."""
        there = self._there()
        files = {}
        with self._reaching():
            self._store.makedirs(self._root, exist_ok=True)
            for path in sorted(folder.iterdir()):
                if not path.is_file() or is_part(path):
                    continue
                digest = sha256(path)
                name = _named(path.name, digest)
                if not FILE.fullmatch(name):  # none of a run's
                    continue
                files[path.name] = digest
                if there.get(name) != path.stat().st_size:  # another size: it was broken off
                    self._store.put_file(str(path), self._at(name))
            content = json.dumps({"files": files}).encode()
            listed = _named(f"step-{step:08d}.json", hashlib.sha256(content).hexdigest())
            self._store.pipe_file(self._at(listed), content)
            kept = {listed, *(_named(name, digest) for name, digest in files.items())}
            old = [name for name in there if name not in kept]
            lists = [name for name in old if LIST.fullmatch(name)]
            rest = [name for name in old if (m := FILE.fullmatch(name)) and m[1] + m[2] in files]
            for name in (*lists, *rest):  # no list is ever without its files
                self._store.rm_file(self._at(name))

    def pull(self, folder: Path) -> None:
        """Make `folder` what it was at the newest step of which all is there.

        Raises:
            SettingsError: no run is there, or none that is whole.
            OutputError: `folder` exists, or cannot be written.
        """
        if folder.exists():
            raise OutputError(
                f"{folder}: already there; --resume {folder} goes on with it, --out DIR brings"
                f" {self._address} elsewhere"
            )
        wrong = "no run of deepscan train is there"
        lists = sorted(name for name in self._there() if LIST.fullmatch(name))
        for listed in reversed(lists):
            try:
                files = self._read(listed)
                with part_folder(folder) as part:
                    for name, digest in files.items():
                        self._fetch(name, digest, part / name)
                return
            except ValueError as error:
                wrong = f"{listed}: {error}"
        raise SettingsError(f"{self._address}: nothing to go on with: {wrong}")

    def _read(self, listed: str) -> dict[str, str]:
        """The digests of a list's files by their names, which lead nowhere else."""
        with self._reaching():
            content = self._store.cat_file(self._at(listed))
        if not listed.endswith(f"-{hashlib.sha256(content).hexdigest()[:16]}.json"):
            raise ValueError("was not brought there whole")
        files = parse_json(content)["files"]
        for name, digest in files.items():
            if PurePath(name).name != name or not FILE.fullmatch(_named(name, digest)):
                raise ValueError(f"{name!r} is no file of a run")
        return files

    def _fetch(self, name: str, digest: str, path: Path) -> None:
        there = self._at(_named(name, digest))
        with self._reaching():
            known = self._store.exists(there)
            if known:
                self._store.get_file(there, str(path))
        if not known:
            raise ValueError(f"{name} is missing")
        if sha256(path) != digest:
            raise ValueError(f"{name} was not brought there whole")

    def _there(self) -> dict[str, int | None]:
        """Sizes by name; nothing where the address does not exist yet."""
        entries: list[dict[str, Any]] = []
        with self._reaching(), suppress(FileNotFoundError):
            self._store.invalidate_cache()
            entries = self._store.ls(self._root, detail=True)
        return {PurePath(entry["name"]).name: entry.get("size") for entry in entries}

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except DeepscanError:
            raise
        except Exception as error:  # each store has errors of its own
            raise OutputError(f"{self._address}: cannot be reached or written: {error}") from error


def bring_back(address: str, folder: Path) -> None:
    """`Mirror.pull` into `folder`; of torchrun's processes the first does it, for all."""
    if os.environ.get("RANK", "0") == "0":
        Mirror(address).pull(folder)
    while not folder.exists():
        time.sleep(0.1)


def _named(name: str, digest: str) -> str:
    path = PurePath(name)
    return f"{path.stem}-{digest[:16]}{path.suffix}"
