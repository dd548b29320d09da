"""A decoder that was taken over is believed only what an honest one could have said."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscan.media.messages import (
    LONGEST_TEXT,
    Ending,
    Failure,
    Header,
    Held,
    Nonsense,
    Opening,
    parse,
)
from deepscan.records import Colour

PATH = Path("a.mp4")

# How many examples of each kind are made: EXAMPLES=2500 makes 10,000 in all.
EXAMPLES = int(os.environ.get("EXAMPLES", "100"))

HONEST: dict[type, dict[str, Any]] = {
    Held: {"confinement": "full"},
    Opening: {
        "source": {
            "kind": "video",
            "sha256": "ab" * 32,
            "bytes": 1000,
            "container": "mov,mp4",
            "codec": "h264",
            "pixel_format": "yuv420p",
            "width": 320,
            "height": 180,
            "rotation": 90,
            "frames": 3,
            "start": "1/3",
            "duration": "3/25",
            "nominal_rate": "25",
            "average_rate": None,
            "variable_rate": False,
            "exact_times": True,
            "bit_rate": None,
            "tags": {"title": "n\u00e4me"},
            "restarts": [],
            "stream": 0,
            "others": ["a second stream"],
            "colour": asdict(Colour()),
        },
        "declared_duration": 0.12,
        "indices": [0, 2],
    },
    Header: {"index": 2, "time": "2/25", "shape": [180, 320, 3], "interlaced": False},
    Ending: {"status": "absent", "detail": "None.", "seconds": 0.5, "peak": 80.0},
}


def line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


@pytest.mark.parametrize("kind", HONEST)
def test_what_honest_decoders_say_is_believed(kind: type) -> None:
    said = parse(line(HONEST[kind]), kind, PATH)
    assert isinstance(said, kind)
    if isinstance(said, Opening):
        assert said.source.start == Fraction(1, 3)
        assert said.source.path == PATH


def test_errors_may_quote_names_that_are_no_text() -> None:
    said = parse(b'{"error": "UnreadableInput", "message": "a\\udcff.mp4: no"}', Opening, PATH)
    assert said == Failure("UnreadableInput", "a\udcff.mp4: no")


LIES = [
    (Held, "confinement", "complete"),
    (Opening, "source.kind", "playlist"),
    (Opening, "source.sha256", "../etc"),
    (Opening, "source.rotation", 45),
    (Opening, "source.frames", 2),  # but frame 2, the third, is sampled
    (Opening, "source.width", 2**40),
    (Opening, "source.duration", "-1"),
    (Opening, "source.start", str(2**70)),
    (Opening, "source.nominal_rate", "0"),
    (Opening, "source.tags", {"title": "\ud800"}),  # half a character, which no page can hold
    (Opening, "source.path", "/etc/passwd"),
    (Opening, "indices", []),
    (Opening, "indices", [2, 0]),
    (Opening, "indices", [-1, 0]),
    (Opening, "more", 1),
    (Header, "shape", [180, 320]),
    (Header, "shape", [180, 320, 4]),
    (Header, "time", "1e99999999"),
    (Header, "interlaced", 1),
    (Ending, "status", "trusted"),
    (Ending, "detail", "a" * (LONGEST_TEXT + 1)),
    (Ending, "seconds", -1),
    (Ending, "peak", 10**400),
]


@pytest.mark.parametrize(("kind", "place", "lie"), LIES)
def test_a_lie_is_nonsense(kind: type, place: str, lie: Any) -> None:
    with pytest.raises(Nonsense):
        parse(line(changed(HONEST[kind], place.split("."), lie)), kind, PATH)


def changed(message: Any, place: list[str], value: Any) -> Any:
    if not place:
        return value
    return {**message, place[0]: changed(message.get(place[0], {}), place[1:], value)}


@pytest.mark.parametrize(
    "said", [b"", b"no json", b"[]", b"{}", b"[" * 100_000, b'{"error": []}', b"\xff\xfe{}", b"NaN"]
)
@pytest.mark.parametrize("kind", HONEST)
def test_what_is_no_message_is_nonsense(kind: type, said: bytes) -> None:
    with pytest.raises(Nonsense):
        parse(said, kind, PATH)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)  # with lone surrogates
    | st.sampled_from(["1/0", "inf", "1e99999999", "9" * 60, "-1/3", "full", "error"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def places(message: dict[str, Any]) -> list[list[str]]:
    """The ways to all values of a message, of its tables too."""
    found = []
    for name, value in message.items():
        found.append([name])
        found += [[name, *rest] for rest in places(value)] if isinstance(value, dict) else []
    return found


@pytest.mark.parametrize("kind", HONEST)
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_hypothesis_messages(kind: type, data: st.DataObject) -> None:
    """Each message is believed and then fit to be written as text and JSON, or it is nonsense."""
    message: Any = HONEST[kind]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from([*places(HONEST[kind]), ["error"], ["message"], []]))
        try:
            message = changed(message, place, data.draw(VALUES))
        except (AttributeError, TypeError):  # what lay there is gone already
            continue
    try:
        said = parse(json.dumps(message).encode(), kind, PATH)
    except Nonsense:
        return
    if isinstance(said, Failure):
        said.message.encode("utf-8", "surrogateescape")
    elif isinstance(said, Opening):
        json.dumps([float(said.source.start), float(said.source.duration)], allow_nan=False)
        repr(said.source).encode()
    elif isinstance(said, Header):
        assert not said.shape or 0 < said.shape[0] * said.shape[1] <= 2**26
        json.dumps(float(said.time), allow_nan=False)
    elif isinstance(said, Ending):
        json.dumps([said.seconds, said.peak, said.detail], allow_nan=False).encode()
