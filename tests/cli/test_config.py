"""Settings are checked where they are made, and say what they would have liked."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest

from deepscan.config import Faces, Sampling, Scoring, Settings
from deepscan.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "sampling"),
    [
        ("uniform", Sampling("uniform", 8)),
        ("keyframes", Sampling("keyframes", 8)),
        ("all", Sampling("all", 8)),
        ("every:2", Sampling("every", 8, Fraction(2))),
        ("every:0.1", Sampling("every", 8, Fraction(1, 10))),  # a tenth, not the float beside it
    ],
)
def test_sampling_is_parsed(text: str, sampling: Sampling) -> None:
    assert Sampling.parse(text, 8) == sampling


@pytest.mark.parametrize(
    "text", ["", "Uniform", "every:", "every:-1", "every:1e3", "every:x", "fps:2"]
)
def test_unknown_rules_name_the_known_ones(text: str) -> None:
    with pytest.raises(SettingsError, match="not one of uniform, keyframes, all, every:SECONDS"):
        Sampling.parse(text)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sampling.parse("every"), "every needs seconds, as in every:0.5"),
        (lambda: Sampling.parse("every:0"), "not a positive time"),
        (lambda: Sampling("all", seconds=Fraction(1)), "the other rules take none"),
        (lambda: Sampling.parse("uniform", 0), "frames: 0 is not a positive count"),
        (lambda: Faces(min_size=11), "smallest face MTCNN can see is 12 px"),
        (lambda: Faces(min_confidence=1.0), "not between 0 and 1"),
        (lambda: Faces(working_side=63), "too small to find faces in"),
        (lambda: Scoring(device="gpu"), "not one of auto, cpu, cuda, cuda:N"),
        (lambda: Scoring(device="cuda:"), "not one of auto, cpu, cuda, cuda:N"),
        (lambda: Scoring(precision="float16"), "not one of auto, float32, bfloat16"),
        (lambda: Scoring(batch=0), "batch: 0 is not a positive count"),
    ],
)
def test_settings_without_meaning(make: Callable[[], object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make()


def test_settings_as_plain_values() -> None:
    plain = Settings(sampling=Sampling.parse("every:0.5")).to_dict()
    assert plain["sampling"] == {
        "rule": "every",
        "frames": 32,
        "seconds": 0.5,
        "stream": None,
        "second_look": True,
    }
    assert plain["faces"]["min_size"] == 40
    assert plain["scoring"]["device"] == "auto"
