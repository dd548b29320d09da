"""Numbers in words: one way for the terminal, the page and report.json."""

from __future__ import annotations

from fractions import Fraction

import pytest

from deepscan.judgement.words import (
    about,
    counted,
    faces,
    listed,
    logit,
    often,
    percent,
    rounded,
    rounded_down,
    rounded_up,
    span,
    time_code,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.314, "+2.31"), (-0.93, "\u22120.93"), (-0.001, "+0.00"), (0, "+0.00"), (None, "\u2013")],
)
def test_logits_have_a_true_minus_and_zero_has_none(value: float | None, text: str) -> None:
    assert logit(value) == text


def test_what_is_compared_is_what_is_read() -> None:
    """A score of -0.927 is shown as -0.93, and a lower threshold of -0.9251 as -0.93: it is reached."""
    assert rounded(-0.927) <= rounded_down(-0.9251) == -0.93
    assert rounded_up(1.1506) == 1.16
    assert str(rounded(-0.001)) == "0.0"
    assert rounded_up(1.15) == 1.15  # which is 1.149999... in binary


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.95, "95"),
        (0.05, "5"),
        (0.057, "5.7"),
        (0.0996, "10"),
        (0.0, "0"),
        (1.0, "100"),
        (0.9996, "99.9"),
    ],
)
def test_per_cents(share: float, text: str) -> None:
    assert percent(share) == f"{text} %"


def test_one_and_many() -> None:
    assert (counted(1, "face"), counted(2, "face")) == ("1 face", "2 faces")
    assert (often(1), often(2)) == ("once", "2 times")
    assert (faces([3]), faces([1, 2, 5])) == ("face 3", "faces 1, 2 and 5")
    assert listed([str(i) for i in range(8)]) == "0, 1, 2, 3, 4 and 3 more"
    assert listed([]) == ""


@pytest.mark.parametrize(
    ("seconds", "digits", "code"),
    [
        (Fraction(0), 3, "0:00.000"),
        (Fraction(167, 2), 3, "1:23.500"),
        (Fraction(59_9996, 10_000), 3, "1:00.000"),
        (3600.25, 3, "1:00:00.250"),
        (-0.04, 3, "\u22120:00.040"),
        (-0.0001, 3, "0:00.000"),
        (75.5, 1, "1:15.5"),
        (3725.0, 0, "1:02:05"),
    ],
)
def test_time_codes(seconds: Fraction | float, digits: int, code: str) -> None:
    assert time_code(seconds, digits) == code


def test_a_span_of_one_instant_is_one_time() -> None:
    assert span(2, 4) == "0:02.000\u20130:04.000"
    assert span(2, 2) == "0:02.000"


def test_a_stretch_is_named_as_a_player_shows_it() -> None:
    assert about(Fraction("2.04"), Fraction("3.84")) == "0:02 to 0:04"
    assert about(Fraction("1.1"), Fraction("1.3")) == "0:01.1 to 0:01.3"
    assert about(Fraction(5), Fraction(5)) == "0:05.000"
