"""The picture of evidence maps: which crops it shows, and that it shows no pixels of them unless asked."""

from __future__ import annotations

import numpy as np
import pytest

from tools.evidence import sheet
from tools.evidence.sheet import Scored


def scored(manipulated: bool, logit: float) -> Scored:
    pixels = np.full((154, 154, 3), (0, 255, 0), np.uint8)
    return Scored("pairs", manipulated, pixels, logit, np.zeros((14, 14), np.float32))


def test_rows_are_drawn_at_random_and_then_the_worst_errors() -> None:
    every = [scored(kind, float(logit)) for kind in (False, True) for logit in range(-20, 20)]
    found = sheet.chosen(every)
    assert [one.manipulated for one in found] == ([False] * 10 + [True] * 10) * 2
    assert [one.logit for one in found[20:30]] == list(range(19, 9, -1))
    assert [one.logit for one in found[30:]] == list(range(-20, -10))
    assert [one.logit for one in found[:10]] != list(range(-20, -10))
    assert found == sheet.chosen(every)


@pytest.mark.parametrize("pixels", [False, True])
def test_only_who_asks_sees_other_peoples_pixels(pixels: bool) -> None:
    cell = sheet.cell(scored(True, 1.0), 0.6, pixels)
    assert cell.shape == (sheet.SIDE, sheet.SIDE, 3)
    assert (cell == (0, 255, 0)).all() == pixels


def test_evidence_for_manipulation_is_red_and_against_it_blue() -> None:
    one = scored(True, 1.0)
    one.evidence[:7], one.evidence[7:] = 0.1, -0.1
    red, _, blue = sheet.cell(one, 0.6, False).astype(int).transpose(2, 0, 1)
    assert (red[:50] > blue[:50]).all()
    assert (red[-50:] < blue[-50:]).all()
