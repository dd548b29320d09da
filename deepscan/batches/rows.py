"""Writes a batch's outcomes as Parquet, one row for each input, to a folder or any address fsspec knows.

Parts appear complete: object stores work that way, and in a folder each part is renamed into place. They
are named by number, so writing the same batch again replaces the earlier parts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from deepscan.batches.outcomes import Outcome, as_text
from deepscan.errors import OutputError
from deepscan.files import part_file, store

PART = 100_000  # rows in one file

SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # bytes that are no text as backslash escapes
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


def write(outcomes: Iterable[Outcome], place: str) -> list[str]:
    """Write part-00000.parquet and so on to a folder or an address ("s3://bucket/run"); return their names.

    Raises:
        SettingsError: fsspec, or what it needs for this address, is not installed, or the kind is unknown.
        OutputError: it cannot be written.
    """
    names = []
    for number, table in enumerate(_tables(outcomes)):
        name = f"part-{number:05d}.parquet"
        if "://" in place:
            _put(table, f"{place.rstrip('/')}/{name}")
        else:
            with part_file(Path(place) / name) as part:
                parquet.write_table(table, part)
        names.append(name)
    return names


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
