"""Where a crop is manipulated, by the real crop of the same frame."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from builders.evidence_material import decoded
from deepscan.faces.alignment import TEMPLATE, warp
from deepscan.records import Pixels
from tools.evidence.differences import Mask, difference, of_panels
from tools.evidence.sources import methods

SIDE = 256
FACE = (slice(90, 200), slice(85, 170))  # rows and columns of what a swap changes


def frame(seed: int) -> Pixels:
    """Something with soft edges everywhere, larger than a crop."""
    noise = np.random.default_rng(seed).normal(size=(400, 400, 3))
    soft = ndimage.gaussian_filter(noise, (6, 6, 0))
    return (128 + 40 * soft / soft.std()).clip(20, 235).astype(np.uint8)


def swapped(pixels: Pixels) -> Pixels:
    """A frame whose FACE is upside down and paler."""
    changed = pixels.copy()
    rows, columns = (slice(s.start + 72, s.stop + 72) for s in FACE)
    changed[rows, columns] = changed[rows, columns][::-1] // 2 + 60
    return changed


def cut(pixels: Pixels, turn: float = 0.0, shift: tuple[float, float] = (0, 0)) -> Pixels:
    """The crop around a frame's middle, moved as a misled face finder would; black outside it."""
    cos, sin = np.cos(turn), np.sin(turn)
    linear = np.array([(cos, -sin), (sin, cos)])
    middle = np.full(2, SIDE / 2)
    return warp(pixels, np.column_stack([linear, middle + 72 + shift - linear @ middle]), SIDE)


def overlap(mask: Mask) -> float:
    """Intersection over union with FACE."""
    wanted = np.zeros((SIDE, SIDE), bool)
    wanted[FACE] = True
    return float((mask & wanted).sum() / (mask | wanted).sum())


def test_crops_that_were_cut_alike_differ_where_the_face_is() -> None:
    mask = difference(cut(frame(0)), cut(swapped(frame(0))))
    assert mask is not None
    assert overlap(mask) > 0.75


@pytest.mark.parametrize(("turn", "shift"), [(0.05, (0, 0)), (0.0, (7, -5)), (-0.04, (-4, 6))])
def test_panels_are_laid_upon_each_other_by_what_is_around_the_face(
    turn: float, shift: tuple[float, float]
) -> None:
    """Each crop has its landmarks where all crops have them: those of a swapped face mislead."""
    real, fake = cut(frame(0), turn, shift), cut(swapped(frame(0)))
    assert difference(real, fake) is None
    mask = of_panels(real, TEMPLATE, fake, TEMPLATE)
    assert mask is not None
    assert overlap(mask) > 0.75


def test_what_lies_outside_one_frame_is_no_difference() -> None:
    """The real crop's left quarter is beyond its frame's edge."""
    real = cut(frame(0)[:, 72 + SIDE // 4 :], shift=(-72 - SIDE / 4, 0))
    assert (real[:, : SIDE // 4 - 2] == 0).all()
    mask = of_panels(real, TEMPLATE, cut(swapped(frame(0))), TEMPLATE)
    assert mask is not None
    assert not mask[:, : SIDE // 4 - 4].any()
    assert overlap(mask) > 0.75


@pytest.mark.parametrize(
    "fake", [cut(frame(0)), cut(swapped(frame(1))), np.zeros((SIDE, SIDE, 3), np.uint8)],
    ids=["nothing is changed", "another frame", "nothing is shown"],
)  # fmt: skip
def test_there_is_no_mask_where_none_would_be_sound(fake: Pixels) -> None:
    assert of_panels(cut(frame(0)), TEMPLATE, fake, TEMPLATE) is None
    assert difference(cut(frame(0)), fake) is None


def test_of_methods_swaps_have_masks_where_their_page_shows_the_same_frame(tmp_path: Path) -> None:
    clips = (
        ("real", "real", "", "a", 0), ("swap", "fake", "face_swap", "a", 0),
        ("later", "fake", "face_swap", "a", 7), ("alone", "fake", "face_swap", "b", 0),
        ("driven", "fake", "reenactment", "a", 0),
    )  # fmt: skip
    listed = dict[str, object]()
    for name, label, _, _, number in clips:
        path = tmp_path / "set" / "frames" / name / f"{number:03d}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(cut(frame(0) if label == "real" else swapped(frame(0)))).save(path)
        beside = tmp_path / "set" / "landmarks" / name / f"{number:03d}.npy"
        beside.parent.mkdir(parents=True)
        np.save(beside, TEMPLATE)
        listed[name] = {"frames": [path.relative_to(tmp_path).as_posix()]}
    (tmp_path / "methods.json").write_text(json.dumps({"methods": {"set": {"train": listed}}}))
    with (tmp_path / "methods.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("video", "label", "kind", "pair", "source", "method"))
        rows.writerows((*clip[:4], "page", "M") for clip in clips)
    found = {crop.video: crop for crop in methods(tmp_path, 90)}
    assert {name: crop.mask is not None for name, crop in found.items()} == {
        "real": False, "swap": True, "later": False, "alone": False, "driven": False,
    }  # fmt: skip
    mask, points = found["swap"].mask, found["swap"].points
    assert mask is not None
    assert overlap(mask) > 0.75
    assert (points == TEMPLATE).all()
    assert decoded(found["swap"].data).shape == (SIDE, SIDE, 3)
