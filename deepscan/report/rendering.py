"""Renders pages from templates under a strict policy, and formats words and numbers in them."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from deepscan.judgement.words import logit, percent, time_code

UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # categories of characters that nobody sees

MOST_TEXT = 2_000  # characters shown of one tag or note; report.json keeps them all

# What held the process that decoded the input, by Confinement.
CONFINED = {
    "full": "the decoder could only compute and read the input",
    "limits": "the decoder had limits on memory and files; this system confirms no more",
    "none": "the decoder had its own process, but this system has no limits to set",
}


def render(template: str, script: str, connect: bool = False, **values: Any) -> str:
    """Render a template of this package with the common style, its script, and a policy naming both."""
    style, code = Markup(style_sheet()), Markup(_part(script))  # noqa: S704, files of this package
    return (
        _environment()
        .get_template(template)
        .render(policy=policy(script, connect), style=style, script=code, **values)
    )


def policy(script: str, connect: bool = False) -> str:
    """A page's policy: it may run this script and load nothing.

    With `connect` it may call its server, and hold its pages in frames.
    """
    return (
        "default-src 'none'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'; "
        + ("connect-src 'self'; frame-src 'self'; " if connect else "")
        + f"style-src '{_digest(style_sheet())}'; script-src '{_digest(_part(script))}'"
    )


def style_sheet() -> str:
    """The style of all pages."""
    return _part("page.css") + _part("drawing.css")


def drawing_sheet(points: float) -> str:
    """The style of drawings only, in light colours and pixels, for renderers without CSS variables.

    `points`: the size of the page's text.
    """
    values = dict(re.findall(r"(--\w+): ([^;]+);", _part("page.css").partition("@media")[0]))
    plain = re.sub(r"var\((--\w+)\)", lambda m: values[m[1]], _part("drawing.css"))
    return re.sub(r"([\d.]+)rem", lambda m: f"{float(m[1]) * points * 4 / 3:.1f}px", plain)


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
        percent=lambda share: percent(share).replace(" ", "\u202f"),
        number=number,
        size=size,
        time_code=time_code,
    )
    return environment


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def picture_uri(kind: str, data: bytes) -> str:
    """A picture as a data URI."""
    return data_uri(f"image/{kind}", data)


def data_uri(kind: str, data: bytes) -> str:
    """Bytes of a media type as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


# --- words and numbers -----------------------------------------------------------------------------


def shown(value: object) -> Markup:
    """Text from outside, made safe to show: its writing direction is isolated and nothing in it is invisible.

    Control, format and direction characters, and bytes that are not text, are shown as their codes.
    """
    text = str(value)
    rest = len(text) - MOST_TEXT
    pieces = []
    for character in text[:MOST_TEXT]:
        if character != "\n" and unicodedata.category(character) in UNSEEN:
            pieces.append(Markup('<span class="code">U+{:04X}</span>').format(ord(character)))
        else:
            pieces.append(escape(character))
    if rest > 0:
        pieces.append(Markup(' <span class="code">and {} more characters</span>').format(rest))
    return Markup("<bdi>{}</bdi>").format(Markup("").join(pieces))


def plain(value: object, most: int) -> str:
    """Text from outside as one line of at most `most` characters, for places that take no markup."""
    text = str(value)
    said = "".join(f"U+{ord(c):04X}" if unicodedata.category(c) in UNSEEN else c for c in text)
    return said if len(said) <= most else f"{said[: most - 1]}\u2026"


def number(value: float | int | None, digits: int = 0) -> str:
    """A number with thin spaces between thousands."""
    return "\u2013" if value is None else f"{value:,.{digits}f}".replace(",", "\u2009")


def size(count: int | None) -> str:
    """Bytes in a readable unit."""
    if count is None:
        return "\u2013"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
