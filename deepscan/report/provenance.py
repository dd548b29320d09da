"""Records the provenance of a result: the versions used, and manifest.json with the hash of every file.

manifest.json states the SHA-256 of every output and of itself, in one canonical form, so any changed byte is
found, even in the manifest. That guards against damage and careless edits. Anyone who can rewrite the folder
can rewrite the manifest too; only its SHA-256, noted elsewhere, or a signature reveals that (see `signing`).
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import av

from deepscan.errors import DataError, SettingsError, UnreadableInput
from deepscan.files import check_readable, parse_json, sha256
from deepscan.plain import read_value
from deepscan.records import Source

NAME, SIGNATURE = "manifest.json", "manifest.sig"
SCHEMA = "deepscan.manifest/1"

DISTRIBUTION = "deepscan-forensics"


def versions() -> dict[str, str]:
    """Versions of Python, the platform and all packages that touch pixels or numbers."""
    names = (
        DISTRIBUTION,
        "torch",
        "open_clip_torch",
        "facenet-pytorch",
        "av",
        "numpy",
        "pillow",
    )
    ffmpeg = " ".join(
        f"{k} {'.'.join(map(str, v))}" for k, v in sorted(av.library_versions.items())
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: metadata.version(name) for name in names},
        "ffmpeg": ffmpeg,
    }


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of manifest.json.

    `outputs`: SHA-256 and bytes of every other file, by its path within the folder.
    """

    tool: str
    input_sha256: str
    input_bytes: int
    outputs: dict[str, tuple[str, int]]

    def text(self) -> str:
        """The file's text, always the same for the same content: keys sorted, its own digest added."""
        plain: dict[str, Any] = {
            "schema": SCHEMA,
            "tool": self.tool,
            "input": {"sha256": self.input_sha256, "bytes": self.input_bytes},
            "outputs": {
                name: {"sha256": digest, "bytes": size}
                for name, (digest, size) in self.outputs.items()
            },
        }
        plain["sha256"] = hashlib.sha256(_canonical(plain).encode()).hexdigest()
        return _canonical(plain)


def _canonical(plain: Mapping[str, Any]) -> str:
    return json.dumps(plain, indent=1, sort_keys=True, allow_nan=False) + "\n"


def files(folder: Path) -> list[str]:
    """Sorted paths of all files and links under `folder`, except manifest.json and its signature."""
    found = (p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    names = (p.relative_to(folder).as_posix() for p in found)
    return sorted(name for name in names if name not in (NAME, SIGNATURE))


def write_manifest(folder: Path, source: Source) -> None:
    """Write manifest.json into a finished folder."""
    outputs = {
        name: (sha256(folder / name), (folder / name).stat().st_size) for name in files(folder)
    }
    tool = f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}"
    manifest = Manifest(tool, source.sha256, source.bytes, outputs)
    (folder / NAME).write_text(manifest.text(), "utf-8", newline="\n")


def read_manifest(path: Path) -> Manifest:
    """Read manifest.json and check it against its own digest and form.

    Raises:
        UnreadableInput: it cannot be read.
        DataError: it is not, byte for byte, what deepscan wrote.
    """
    try:
        check_readable(path)
        raw = path.read_bytes()
    except (UnreadableInput, OSError) as error:
        raise UnreadableInput(
            f"{error}; a folder of results cannot be checked without {NAME}"
        ) from error
    try:
        plain = parse_json(raw)
        manifest = Manifest(
            tool=read_value(str, plain["tool"], "tool"),
            input_sha256=read_value(str, plain["input"]["sha256"], "sha256"),
            input_bytes=read_value(int, plain["input"]["bytes"], "bytes"),
            outputs={
                name: read_value(tuple[str, int], (entry["sha256"], entry["bytes"]), name)
                for name, entry in plain["outputs"].items()
            },
        )
        same = manifest.text().encode() == raw
    except (ValueError, KeyError, TypeError, AttributeError, SettingsError) as error:
        raise DataError(f"{path}: not a manifest of deepscan ({error}); it was changed") from error
    if not same or any(not _inside(name) for name in manifest.outputs):
        raise DataError(
            f"{path}: does not match its own SHA-256; it was changed after it was written"
        )
    return manifest


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
