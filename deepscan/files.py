"""Reads inputs safely and writes outputs atomically: a file or folder appears complete or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from deepscan.errors import OutputError, SettingsError, UnreadableInput
from deepscan.plain import nearest

MOST_NAME = 200  # bytes of a name to which something is added; file systems allow 255
MOST_NAMES = 10_000  # files of a folder among which a mistyped one is looked for


def check_readable(path: Path) -> None:
    """Raise UnreadableInput unless `path` is a readable file that is not empty."""
    try:
        if path.is_dir():
            if not os.access(path, os.R_OK | os.X_OK):
                raise UnreadableInput(f"{path}: cannot be listed; check its permissions")
            raise UnreadableInput(
                f"{path}: is a folder, not a video or picture; name files, or a folder that contains some"
            )
        if not path.is_file():
            address = re.match(r"([a-z][a-z0-9+.-]+:)/+(.*)", str(path), re.DOTALL)
            if address:  # Path leaves one slash
                raise UnreadableInput(
                    f"{address[1]}//{address[2]}: an address; save the file, note where it came from, and"
                    " name the file"
                )
            what = "is not a regular file" if path.exists() else f"no such file; {_meant(path)}"
            raise UnreadableInput(f"{path}: {what}")
        with path.open("rb") as file:
            if not file.read(1):
                raise UnreadableInput(
                    f"{path}: the file is empty (0 bytes); copy it again from its source"
                )
    except OSError as error:
        raise UnreadableInput(
            f"{path}: cannot be read: {error.strerror}; check its permissions"
        ) from error


def _meant(path: Path) -> str:
    """Advice on a file that does not exist."""
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either; check the path"
    near = nearest(path.name, [entry.name for entry in islice(os.scandir(path.parent), MOST_NAMES)])
    return f"did you mean {path.parent / near}?" if near else "check the path"


# First bytes of files that people pass by mistake or in pieces, and what to tell them.
_HEADS = (
    (b"\xff\xd8\xff", "a JPEG picture, cut short or damaged"),
    (b"\x89PNG", "a PNG picture, cut short or damaged"),
    (b"%PDF", "a PDF document; take the video out of it first"),
    (b"PK\x03\x04", "a ZIP archive or office document; take the video out of it first"),
    (b"#EXTM3U", "a playlist; deepscan does not open files named in other files"),
    (b"ffconcat", "a playlist; deepscan does not open files named in other files"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM file, damaged or cut short near its start"),
)


def diagnose(path: Path) -> str:
    """Guess from the first bytes what an unreadable file is; only for error messages."""
    with path.open("rb") as file:
        head = file.read(1024)
    for start, words in _HEADS:
        if head.startswith(start):
            return words
    if head[4:8] == b"ftyp":
        return "an MP4 or MOV file without its index: recording or copying it was interrupted"
    with suppress(UnicodeDecodeError):
        text = head[:1000].decode("utf-8")
        if all(c.isprintable() or c.isspace() for c in text):
            return "text, not a video; check that this is the file you mean"
    return "not a video or picture that deepscan knows, or damaged from the start"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces so that memory does not grow with its length."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableInput(f"{path}: cannot be read to the end: {error.strerror}") from error


def weights_sha256(path: Path) -> str:
    """The SHA-256 of a file that one run needs checked several times, as weights: it is read once.

    It is read again if its inode, size or times changed; times of the inode cannot be set back.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise UnreadableInput(f"{path}: cannot be read: {error.strerror}") from error
    return _known(
        path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )


@cache
def _known(path: Path, *_: int) -> str:
    return sha256(path)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is not JSON, or nested so deeply that it must be an attack.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def store(address: str) -> tuple[Any, str]:
    """The fsspec file system for an address ("s3://bucket/run"), and the path in it.

    Raises:
        SettingsError: fsspec, or what it needs for this address, is not installed, or the kind is unknown.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise SettingsError(
            f"{address}: fsspec is not installed; pip install deepscan-forensics[cluster]"
        ) from error
    try:
        return url_to_fs(address)
    except (ImportError, ValueError) as error:  # names the missing package or the unknown kind
        raise SettingsError(f"{address}: {error}") from error


_UNFINISHED: set[Path] = set()  # what is being written, under temporary names


@contextmanager
def _unfinished(*paths: Path) -> Iterator[None]:
    """Remove these at the end of the block, except what has been renamed by then."""
    _UNFINISHED.update(paths)
    try:
        yield
    finally:
        remove_unfinished(*paths)


def remove_unfinished(*paths: Path) -> None:
    """Remove these incomplete outputs, or all of them, in a process that is about to end."""
    for path in paths or tuple(_UNFINISHED):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # it is gone already, or never existed
            path.unlink()
        _UNFINISHED.discard(path)


@contextmanager
def part_file(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` if the block succeeds and is removed if it fails."""
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished(part):
            yield part
            os.replace(part, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    except SafetensorError as error:  # raised by its writer for any trouble, even a full disk
        raise OutputError(f"{path}: cannot be written: {error}") from error


@contextmanager
def part_folder(folder: Path, replace: bool = False) -> Iterator[Path]:
    """Like `part_file` for a folder of results.

    Raises:
        OutputError: `folder` exists and `replace` is False, or deepscan did not write it.
    """
    check_free(folder, replace)
    part = _part(folder)
    earlier = folder.with_name(_part_name(folder, 0))  # no process has this number
    try:
        with _unfinished(part):
            part.mkdir(parents=True)
            yield part
            check_free(folder, replace)
            if folder.exists():
                _exchange(folder, part, earlier)
            else:
                os.replace(part, folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _exchange(folder: Path, new: Path, earlier: Path) -> None:
    """Replace `folder` by `new`; if interrupted, `folder` is restored."""
    with _unfinished(earlier):
        remove_unfinished(earlier)
        try:
            os.replace(folder, earlier)
            os.replace(new, folder)
        finally:
            if not os.path.lexists(folder):
                os.replace(earlier, folder)


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Let one process at a time write the file `path`. Yields False, without effect, if there are no locks.

    Raises:
        OutputError: another process is at work there, or the folder cannot be written.
    """
    with _locked(path, wait=False) as locked:
        yield locked


@contextmanager
def waiting(path: Path) -> Iterator[bool]:
    """Let one process or thread at a time make the file `path`; others wait.

    Yields whether the file system has locks; without locks nobody waits.

    Raises:
        OutputError: the folder cannot be written.
    """
    with _locked(path, wait=True) as locked:
        yield locked


@contextmanager
def _locked(path: Path, wait: bool) -> Iterator[bool]:
    """Lock a hidden file beside `path`. It is not removed, because all must wait for the same file."""
    from filelock import FileLock, Timeout  # here, since few need it and every decoder imports this

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    lock = FileLock(path.with_name(f".{short_name(path.name)}.lock"))
    try:
        lock.acquire(blocking=wait)
    except Timeout as error:
        raise OutputError(
            f"{path}: another process is using it; wait until it has finished, or choose another --out"
        ) from error
    except PermissionError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    except (NotImplementedError, OSError):  # a file system without locks
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def clear_parts(folder: Path) -> None:
    """Remove what a killed `part_folder` left next to `folder`."""
    with suppress(OSError):  # there is nothing, or nothing can be done about it
        for entry in list(os.scandir(folder.parent)):
            begins = _part(folder).name.rpartition("-")[0]
            ours = entry.name.startswith(f"{begins}-") and is_part(Path(entry.name))
            if ours and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)


def short_name(name: str) -> str:
    """A name for the results of the file `name`: itself, unless nothing could be added to it.

    A long one is cut and ends with a digest of the whole, so that it stays unique.
    """
    whole = os.fsencode(name)
    if len(whole) <= MOST_NAME:
        return name
    kept = whole[: MOST_NAME - 17].decode("utf-8", "ignore")
    return f"{kept}~{hashlib.sha256(whole).hexdigest()[:16]}"


def _part(path: Path) -> Path:
    return path.with_name(_part_name(path, os.getpid()))


def _part_name(path: Path, process: int) -> str:
    return f".{short_name(path.name)}.part-{process}"


def is_part(path: Path) -> bool:
    """Whether this is a temporary name of `part_file` or `part_folder`."""
    return re.fullmatch(r"\..*\.part-\d+", path.name) is not None


def check_inside(folder: Path, out: Path) -> None:
    """Raise OutputError if writing to `folder`, which is under `out`, would follow a link."""
    inner = folder.relative_to(out)
    if ".." in inner.parts:
        raise OutputError(f"{folder}: lies outside {out}")
    for part in (folder, *folder.parents):
        if part == out:
            return
        if part.is_symlink():
            raise OutputError(
                f"{part}: is a link, and results would go where it points; remove it, or choose another --out"
            )


def check_free(folder: Path, replace: bool) -> None:
    """Raise OutputError unless results may be written to `folder`."""
    try:
        if not folder.exists():
            return
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
    if not replace:
        raise OutputError(
            f"{folder}: already exists; --force replaces it, and --out DIR writes to another folder"
        )
    if not (folder / "report.json").is_file():
        raise OutputError(f"{folder}: contains no report.json, so deepscan does not replace it")
