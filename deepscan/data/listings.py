"""Reads and checks the listings of data sets (lines, JSON, CSV); every error says where it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from deepscan.errors import DataError
from deepscan.files import parse_json
from deepscan.plain import text_of

SPLITS = ("train", "val", "test")


def read_text(path: Path) -> str:
    """A listing's text.

    Raises:
        DataError: it cannot be read, here as in all that follow.
    """
    try:
        return text_of(path.read_bytes())
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); it is part of the data set") from error


def read_lines(path: Path) -> list[str]:
    """A listing's lines, stripped, without blank ones."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_json(path: Path) -> Any:
    """The JSON in a listing."""
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); copy it again") from error


def read_entries(path: Path, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A JSON listing {file: {key: ...}} with at least these keys."""
    document = read_json(path)
    whole = isinstance(document, dict) and all(
        isinstance(entry, dict) and entry.keys() >= set(keys) for entry in document.values()
    )
    if not whole:
        raise DataError(f"{path}: not of the form {{file: {{{', '.join(keys)}}}}}; copy it again")
    return dict(document)


def read_table(path: Path, needed: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and stripped cells of each row of a CSV with at least the columns `needed`."""
    # Any of the line ends that systems write, whichever a file has.
    reader = csv.DictReader(io.StringIO(read_text(path), newline=None), restval="")
    if missing := [c for c in needed if c not in (reader.fieldnames or ())]:
        raise DataError(f"{path}: no column {', '.join(missing)}; it needs {', '.join(needed)}")
    try:
        for line in reader:
            yield reader.line_num, {key: value.strip() for key, value in line.items() if key}
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not CSV ({error})") from error


def parse_label(text: str, where: str) -> int:
    """0 for real and 1 for manipulated, in the spellings people use."""
    labels = {"0": 0, "real": 0, "1": 1, "fake": 1}
    if text.lower() not in labels:
        raise DataError(
            f"{where}: label {text!r} is not one of 0, 1, real, fake (1 and fake: manipulated)"
        )
    return labels[text.lower()]


def parse_split(text: str, where: str) -> str:
    """A split's name, or "" if none is stated."""
    if text not in ("", *SPLITS):
        raise DataError(f"{where}: split {text!r} is not one of {', '.join(SPLITS)}")
    return text
