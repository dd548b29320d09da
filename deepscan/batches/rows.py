"""Writes a batch's outcomes as tables, one row for each input.

CSV and Parquet are written beside its index, and with --parquet to a folder or any address fsspec knows.

Parts appear complete: object stores work that way, and in a folder each part is renamed into place. They
are named by number, so writing the same batch again replaces the earlier parts.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from deepscan.batches.outcomes import TABLES, Outcome, as_text
from deepscan.errors import OutputError
from deepscan.files import part_file, store

PART = 100_000  # rows in one file

SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # bytes that are not text as backslash escapes
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("sentence", pa.string()),
        ("folder", pa.string()),
        ("score", pa.float64()),  # logit
        ("probability", pa.float64()),
        ("faces", pa.int32()),
        ("frames_with_face", pa.int32()),
        ("frames_sampled", pa.int32()),
        ("warnings", pa.list_(pa.string())),
        ("sha256", pa.string()),
        ("finished", pa.string()),
        ("same_as", pa.string()),
    ]
)


_MARK = {b"generator": b"deepscan"}


def write_beside(out: Path, outcomes: Sequence[Outcome], private: bool = False) -> None:
    """Write inputs.csv and inputs.parquet into the batch's folder; `private`: as `write`.

    Raises:
        OutputError: something that is not deepscan's has one of these names, or it cannot be written.
    """
    outcomes = [_nameless(one) for one in outcomes] if private else outcomes
    for path in (out / name for name in TABLES):
        if path.exists() and not _ours(path):
            raise OutputError(
                f"{path}: not written by deepscan, so it is not replaced; choose another --out"
            )
    with part_file(out / TABLES[0]) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, SCHEMA.names, lineterminator="\n")
        table.writeheader()
        for outcome in outcomes:
            row = _row(outcome)
            row["warnings"] = " ".join(row["warnings"])
            table.writerow({name: _inert(value) for name, value in row.items()})
    with part_file(out / TABLES[1]) as part:
        rows = [_row(outcome) for outcome in outcomes]
        parquet.write_table(pa.Table.from_pylist(rows, SCHEMA.with_metadata(_MARK)), part)


def _ours(path: Path) -> bool:
    try:
        if path.suffix == ".csv":
            with path.open("rb") as file:
                return file.readline().strip() == ",".join(SCHEMA.names).encode()
        return (parquet.read_schema(path).metadata or {}).get(b"generator") == b"deepscan"
    except (OSError, pa.ArrowException):
        return False


def _inert(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula, whatever a file is called."""
    return (
        f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value
    )


def write(outcomes: Iterable[Outcome], place: str, private: bool = False) -> list[str]:
    """Write part-00000.parquet and so on to a folder or an address ("s3://bucket/run"); return their names.

    With `private` the rows name no folders, neither of inputs nor of results.

    Raises:
        SettingsError: fsspec, or what it needs for this address, is not installed, or the kind is unknown.
        OutputError: it cannot be written.
    """
    names = []
    outcomes = map(_nameless, outcomes) if private else outcomes
    for number, table in enumerate(_tables(outcomes)):
        name = f"part-{number:05d}.parquet"
        if "://" in place:
            _put(table, f"{place.rstrip('/')}/{name}")
        else:
            with part_file(Path(place) / name) as part:
                parquet.write_table(table, part)
        names.append(name)
    return names


def _nameless(outcome: Outcome) -> Outcome:
    folder = outcome.folder
    return replace(outcome.withheld(), folder=None if folder is None else Path(folder.name))


def _put(table: pa.Table, address: str) -> None:
    there, place = store(address)
    try:
        there.makedirs(place.rpartition("/")[0], exist_ok=True)
        with there.open(place, "wb") as file:
            parquet.write_table(table, file)
    except (OSError, ValueError) as error:
        raise OutputError(f"{address}: cannot be written: {error}") from error


def _tables(outcomes: Iterable[Outcome]) -> Iterator[pa.Table]:
    rest = iter(outcomes)
    first = True
    while (part := list(islice(rest, PART))) or first:
        first = False
        yield pa.Table.from_pylist([_row(outcome) for outcome in part], SCHEMA)


def _row(outcome: Outcome) -> dict[str, Any]:
    with_face, sampled = outcome.seen or (None, None)
    return {
        "path": as_text(os.fspath(outcome.path)),
        "verdict": outcome.verdict.value,
        "reason": outcome.reason,
        "sentence": as_text(outcome.sentence),
        "folder": None if outcome.folder is None else as_text(os.fspath(outcome.folder)),
        "score": outcome.score,
        "probability": outcome.probability,
        "faces": outcome.faces,
        "frames_with_face": with_face,
        "frames_sampled": sampled,
        "warnings": list(outcome.warnings),
        "sha256": outcome.sha256,
        "finished": outcome.finished,
        "same_as": None if outcome.same_as is None else as_text(os.fspath(outcome.same_as)),
    }
