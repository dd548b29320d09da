"""Reads text in the encoding that it states, and records from plain values, checked by their annotations."""

from __future__ import annotations

import codecs
import difflib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from deepscan.errors import SettingsError

T = TypeVar("T")

# A fraction as str() writes it, of times in 64-bit ticks of a 32-bit clock. Fraction itself would take
# "1e99999999", and the rest of the day for it.
FRACTION = re.compile(r"-?[0-9]{1,40}(/[0-9]{1,40})?")

TYPES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    Fraction: "a number",
}

# Byte order marks; that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def has_mark(content: bytes) -> bool:
    """Whether text begins with a byte order mark."""
    return any(content.startswith(mark) for mark, _ in _MARKS)


def text_of(content: bytes) -> str:
    """Decode text by its byte order mark, as Windows editors write it, else as UTF-8.

    Raises:
        UnicodeError: it is not; the message names the encoding and the place.
    """
    mark, name = next((m for m in _MARKS if content.startswith(m[0])), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(name)
    except UnicodeDecodeError as error:
        raise UnicodeError(
            f"not {name.upper()} (at byte {len(mark) + error.start}); save it as UTF-8"
        ) from error
    if "\0" in text and not mark:
        raise UnicodeError(
            "contains zero bytes, like UTF-16 without a byte order mark; save it as UTF-8"
        )
    return text


def read(kind: type[T], values: Any, where: str, whole: bool = False) -> T:
    """Make a record of dataclass `kind` from the values of its fields.

    Args:
        values: a table of plain values, with tables for nested records; or the record itself.
        where: begins every message: the file, and the table in it.
        whole: every field must be there, whatever has a default.

    Raises:
        SettingsError: a name is unknown (the message suggests the nearest) or missing, or a value has another
            type or is out of range.
    """
    if isinstance(values, kind):
        return values
    if not isinstance(values, Mapping):
        raise SettingsError(f"{where}: {values!r} is not a table")
    given = read_fields(kind, values, where, whole)
    for field in fields(kind):  # type: ignore[arg-type]
        needed = whole or (field.default is MISSING and field.default_factory is MISSING)
        if needed and field.name not in given:
            raise SettingsError(f"{where}: {field.name} is missing")
    return kind(**given)


def read_fields(
    kind: type, values: Mapping[str, Any], where: str, whole: bool = False
) -> dict[str, Any]:
    """Read some of a record's fields, as `read` does for all."""
    types, read_values = hints(kind), {}
    for name, value in values.items():
        check_known(name, types, where)
        hint = types[name]
        if isinstance(hint, type) and is_dataclass(hint):
            read_values[name] = read(hint, value, f"{where}: [{name}]", whole)
        else:
            read_values[name] = read_value(hint, value, f"{where}: {name}")
    return read_values


def read_value(hint: Any, value: Any, where: str) -> Any:
    """A value as a field annotated `hint` holds it: a path for text, a tuple for a list.

    Raises:
        SettingsError: it has another type.
    """
    try:
        return _converted(hint, value)
    except (ValueError, ArithmeticError) as error:
        raise SettingsError(f"{where}: {value!r:.60} is not {in_words(hint)}") from error


def _converted(hint: Any, value: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType:
        if value is None and NoneType in inner:
            return None
        (hint,) = (one for one in inner if one is not NoneType)
        return _converted(hint, value)
    if origin is tuple and isinstance(value, list | tuple):
        one_by_one = [inner[0]] * len(value) if inner[-1] is ... else inner
        return tuple(_converted(h, v) for h, v in zip(one_by_one, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {_converted(inner[0], k): _converted(inner[1], v) for k, v in value.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        return read(hint, value, hint.__name__)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is Fraction and isinstance(value, str) and FRACTION.fullmatch(value):
        return Fraction(value)
    if hint is Fraction:
        return Fraction(str(_converted(float, value)))
    wanted = (int, float) if hint is float else hint
    # In Python True is an int; in a settings file it is not.
    if (
        origin is not None
        or not isinstance(value, wanted)
        or isinstance(value, bool) != (hint is bool)
    ):
        raise ValueError("another type")
    if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < 2**63):
        raise ValueError("not a finite number of at most 64 bits")
    return value


def in_words(hint: Any) -> str:
    """What a field annotated `hint` takes, in words: "a whole number" for int, or int | None."""
    if isinstance(hint, UnionType):
        return " or ".join(in_words(one) for one in get_args(hint) if one is not NoneType)
    if get_origin(hint) is tuple:
        return "a list"
    return TYPES.get(hint, str(hint))


@cache
def hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, by their names."""
    return get_type_hints(kind)


def nearest(word: str, known: Collection[str]) -> str | None:
    """The known word that was probably meant, nearly equal or beginning with this one; else None."""
    near = difflib.get_close_matches(word, known, 1)
    begun = sorted(name for name in known if len(word) > 1 and name.startswith(word))
    return next(iter([*begun, *near]), None)


def check_known(key: str, allowed: Collection[str], where: str) -> None:
    """Raise SettingsError unless `key` is among `allowed`; the message names the nearest one."""
    if key not in allowed:
        near = nearest(key, allowed)
        hint = f"did you mean {near}?" if near else f"known are {', '.join(allowed)}"
        raise SettingsError(f"{where}: unknown key {key}; {hint}")
