"""What the report page and the index share: templates under a strict policy, words, and numbers."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from deepscan.report.lanes import timecode

MOST_TEXT = 2_000  # characters shown of one tag or note; report.json keeps them all

HEADLINES = {
    "manipulation_indicated": "Manipulation indicated",
    "inconclusive": "Inconclusive",
    "no_manipulation_indicated": "No manipulation indicated",
    "no_face": "No face found",
    "insufficient": "Not enough to judge",
    "error": "Not analysed",
}


def render(template: str, script: str, connect: bool = False, **values: Any) -> str:
    """A template of this package with the common style and its script, under a policy that names both."""
    style, code = Markup(_part("page.css")), Markup(_part(script))  # noqa: S704, files of this package
    return (
        _environment()
        .get_template(template)
        .render(policy=policy(script, connect), style=style, script=code, **values)
    )


def policy(script: str, connect: bool = False) -> str:
    """What a page with this script may load and run: its own text, and with `connect` its own server."""
    return (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        + ("connect-src 'self'; " if connect else "")
        + f"style-src '{_digest(_part('page.css'))}'; script-src '{_digest(_part(script))}'"
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        shown=shown,
        logit=logit,
        percent=percent,
        number=number,
        size=size,
        timecode=timecode,
    )
    return environment


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def picture_uri(kind: str, data: bytes | None) -> str | None:
    """A picture's bytes as the address of itself."""
    return None if data is None else f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


# --- words and numbers -----------------------------------------------------------------------------


def shown(value: object) -> Markup:
    """Text from outside, isolated from the direction of its surroundings, with nothing invisible in it.

    Control, format and direction characters, and bytes that are no text, appear by their code.
    """
    text = str(value)
    rest = len(text) - MOST_TEXT
    pieces = []
    for character in text[:MOST_TEXT]:
        if character != "\n" and unicodedata.category(character) in (
            "Cc",
            "Cf",
            "Cs",
            "Co",
            "Cn",
            "Zl",
            "Zp",
        ):
            pieces.append(Markup('<span class="code">U+{:04X}</span>').format(ord(character)))
        else:
            pieces.append(escape(character))
    if rest > 0:
        pieces.append(Markup(' <span class="code">and {} more characters</span>').format(rest))
    return Markup("<bdi>{}</bdi>").format(Markup("").join(pieces))


def logit(value: float | int | None, digits: int = 2) -> str:
    """+2.31, with a minus sign that is one."""
    return "\u2013" if value is None else f"{value:+.{digits}f}".replace("-", "\u2212")


def percent(share: float | None) -> str:
    """Whole per cent, and tenths where few of them are left."""
    if share is None:
        return "\u2013"
    return f"{100 * share:.{1 if 0 < share < 0.1 else 0}f}\u202f%"


def number(value: float | int | None, digits: int = 0) -> str:
    """Thousands apart by thin spaces."""
    return "\u2013" if value is None else f"{value:,.{digits}f}".replace(",", "\u2009")


def size(count: int | None) -> str:
    """Bytes, in the unit that reads best."""
    if count is None:
        return "\u2013"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
