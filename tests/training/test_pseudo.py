from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepscan.errors import DataError, SettingsError
from deepscan.faces.alignment import TEMPLATE, invert, similarity, warp
from deepscan.training.pseudo import MIN_CHANGE, PseudoSettings, self_blend
from deepscan.verification import sample as demo

# Eyes, nose and mouth corners of matplotlib's portrait, by eye.
LANDMARKS = np.array(
    [(217.0, 195.0), (303.0, 193.0), (263.0, 238.0), (236.0, 276.0), (305.0, 275.0)]
)
DEFAULT = PseudoSettings()
# Every change of colour and sharpness goes to the source: the target is the crop itself.
SOURCE_ONLY = PseudoSettings(to_source=1.0)
REGIONS = ("face", "inner", "lower", "mouth", "eyes")


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """A real crop, aligned as all crops are."""
    return warp(np.asarray(demo.portrait()), invert(similarity(LANDMARKS, TEMPLATE)), 256)


def one_region(name: str, **changes: Any) -> PseudoSettings:
    return PseudoSettings(**dict.fromkeys(REGIONS, 0.0) | {name: 1.0} | changes)


def dlib(points: int) -> np.ndarray:
    """68 or 81 points of a face on the template, in dlib's order: jaw, brows, nose, eyes, mouth, top."""
    jaw = [(128 - 70 * np.cos(a), 130 + 105 * np.sin(a)) for a in np.linspace(0, np.pi, 17)]
    brows = [(x, 100.0) for x in (76, 86, 96, 106, 116, 140, 150, 160, 170, 180)]
    nose = [(128, 120), (128, 132), (128, 144), TEMPLATE[2]]
    nostrils = [(x, 160.0) for x in (120, 124, 128, 132, 136)]
    eyes = [TEMPLATE[0]] * 6 + [TEMPLATE[1]] * 6
    mouth = [TEMPLATE[3]] + [(128.0, 185.0)] * 5 + [TEMPLATE[4]] + [(128.0, 200.0)] * 13
    top = [(128 - 70 * np.cos(a), 100 - 60 * np.sin(a)) for a in np.linspace(0, np.pi, 13)]
    return np.array([*jaw, *brows, *nose, *nostrils, *eyes, *mouth, *top], float)[:points]


def test_a_pseudo_fake_is_a_crop_with_its_mask(face: np.ndarray, rng: np.random.Generator) -> None:
    blended, mask = self_blend(face, None, rng, DEFAULT)
    assert (blended.shape, blended.dtype) == (face.shape, np.uint8)
    assert (mask.shape, mask.dtype) == (face.shape[:2], np.float32)
    assert mask.min() == 0
    assert mask.max() == 1
    assert not np.array_equal(blended, face)


def test_it_comes_from_its_generator_alone(face: np.ndarray) -> None:
    before = face.copy()
    results = [self_blend(face, None, np.random.default_rng(seed), DEFAULT) for seed in range(12)]
    again = [self_blend(face, None, np.random.default_rng(seed), DEFAULT) for seed in range(12)]
    for (a, mask_a), (b, mask_b) in zip(results, again, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(mask_a, mask_b)
    assert len({mask.tobytes() for _, mask in results}) == 12
    assert np.array_equal(face, before)


def test_outside_the_mask_the_target_is_untouched(face: np.ndarray) -> None:
    for seed in range(20):
        blended, mask = self_blend(face, None, np.random.default_rng(seed), SOURCE_ONLY)
        assert np.array_equal(blended[mask == 0], face[mask == 0])
        assert (mask == 0).mean() > 0.4


def test_a_change_of_the_target_is_the_same_all_over() -> None:
    """On a plain picture: one level around the region, the crop's own inside."""
    plain = np.full((256, 256, 3), (150, 120, 100), np.uint8)
    settings = PseudoSettings(to_source=0.0, colour=1.0, resize=0, sharpen=0, jpeg=0, partial=0.0)
    blended, mask = self_blend(plain, None, np.random.default_rng(0), settings)
    around = np.unique(blended[mask == 0], axis=0)
    assert len(around) == 1
    assert not np.array_equal(around[0], plain[0, 0])
    assert (blended[mask == 1] == plain[0, 0]).all()


def test_the_mask_is_half_where_the_seam_is_half_way(face: np.ndarray) -> None:
    """And it does not know the blend ratio: the same region at a tenth of the strength."""
    plain = np.full((256, 256, 3), 128, np.uint8)
    sure = {
        "to_source": 1.0,
        "colour": 1.0,
        "colour_shift": 60.0,
        "resize": 0,
        "sharpen": 0,
        "jpeg": 0,
    }
    full = PseudoSettings(**sure, partial=1.0, partial_ratio=(1.0, 1.0))
    tenth = PseudoSettings(**sure, partial=1.0, partial_ratio=(0.1, 0.1))
    blended, mask = self_blend(plain, None, np.random.default_rng(3), full)
    weakly, same = self_blend(plain, None, np.random.default_rng(3), tenth)
    assert np.array_equal(mask, same)
    change = blended[:, :, 0].astype(float) - 128
    middle = change[mask == 1][0]
    assert abs(middle) > 10
    assert np.abs(change - mask * middle).max() <= 0.5 + 1e-3  # rounding
    assert np.abs(weakly[:, :, 0] - 128.0 - 0.1 * mask * middle).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("region", "shown", "spared"),
    [  # x, y on the template
        ("face", [(128, 80), (128, 150), (128, 220), (80, 140)], [(10, 128), (128, 15)]),
        ("inner", [(128, 110), (128, 190)], [(128, 60), (20, 128)]),
        ("lower", [(128, 190), (128, 212)], [(128, 110), (97, 120)]),
        ("mouth", [(128, 191)], [(128, 130), (128, 245)]),
        ("eyes", [(97, 120), (159, 120)], [(128, 192), (128, 60)]),
    ],
)
def test_each_region_lies_where_its_name_says(
    face: np.ndarray, region: str, shown: list[tuple[int, int]], spared: list[tuple[int, int]]
) -> None:
    masks = [
        self_blend(face, None, np.random.default_rng(seed), one_region(region))[1]
        for seed in range(20)
    ]
    mean = np.mean([mask > 0.5 for mask in masks], axis=0)
    assert all(mean[y, x] > 0.8 for x, y in shown)
    assert all(mean[y, x] == 0 for x, y in spared)
    assert all((mask > 0.5).sum() > 200 for mask in masks)


def test_regions_come_in_their_shares(face: np.ndarray) -> None:
    sizes = np.array(
        [
            (self_blend(face[::4, ::4], None, np.random.default_rng(s), DEFAULT)[1] > 0.5).mean()
            for s in range(200)
        ]
    )
    whole = float((sizes > 0.22).mean())  # the inner face has 0.17 of the crop, the whole one 0.29
    assert 0.3 < whole < 0.5
    assert len(np.unique(sizes)) > 50


def test_the_change_is_seen_and_small(face: np.ndarray) -> None:
    """Edges move by a pixel or two, which is much on sharp glasses; the complexion hardly changes."""
    pixels, complexions = [], []
    for seed in range(40):
        blended, mask = self_blend(face, None, np.random.default_rng(seed), SOURCE_ONLY)
        change = blended[mask > 0.5].astype(float) - face[mask > 0.5]
        pixels.append(np.abs(change).mean())
        complexions.append(np.abs(change.mean(0)).max())
    assert min(pixels) >= MIN_CHANGE
    assert 5 < np.median(pixels) < 25
    assert 1 < np.median(complexions) < 10
    assert max(complexions) < 30


def test_a_larger_crop_gets_the_same_in_proportion(face: np.ndarray) -> None:
    large = np.asarray(Image.fromarray(face).resize((512, 512)))
    for seed in range(5):
        _, small_mask = self_blend(face, None, np.random.default_rng(seed), DEFAULT)
        _, mask = self_blend(large, None, np.random.default_rng(seed), DEFAULT)
        assert np.abs(mask[1::2, 1::2] - small_mask).mean() < 0.01


@pytest.mark.parametrize("points", [5, 68, 81])
def test_landmarks_move_the_region(face: np.ndarray, points: int) -> None:
    landmarks = TEMPLATE if points == 5 else dlib(points)
    centres = []
    for shift in (0, 30):
        moved = landmarks + np.array((shift, 0))
        _, mask = self_blend(face, moved, np.random.default_rng(1), one_region("face"))
        centres.append(float(np.nonzero(mask > 0.5)[1].mean()))
    assert centres[0] == pytest.approx(128, abs=8)
    assert centres[1] - centres[0] == pytest.approx(30, abs=3)


def test_the_hull_of_many_landmarks_is_the_face(face: np.ndarray) -> None:
    """81 points reach up to the hairline, 68 end at the brows."""
    plain = {"deform": 0.0, "stretch": 0.0, "grow": 0.0, "edge": (0.5, 0.5)}
    tops = {}
    for points in (68, 81):
        settings = one_region("face", **plain)
        _, mask = self_blend(face, dlib(points), np.random.default_rng(0), settings)
        tops[points] = int(np.nonzero((mask > 0.5).any(1))[0][0])
    assert tops == {68: pytest.approx(100, abs=2), 81: pytest.approx(40, abs=2)}


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((7, 2)), "7 points; 5, 68 or 81 are wanted"),
        (np.full((5, 2), np.nan), "all of them finite"),
        (np.zeros((81, 2)), "all on one line"),
        (TEMPLATE + 5000.0, "outside the crop"),
    ],
)
def test_useless_landmarks_are_refused(
    face: np.ndarray, landmarks: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        self_blend(face, landmarks, np.random.default_rng(0), DEFAULT)


def test_another_persons_face_takes_this_ones_place_and_colours(face: np.ndarray) -> None:
    """The donor is the same portrait mirrored, tinted and elsewhere: laid on, it has this one's colours."""
    right, down = 20, -10
    tinted = np.clip(face[:, ::-1] * 0.6 + (30, 0, 0), 0, 255).astype(np.uint8)
    donor = np.roll(tinted, (down, right), (0, 1)), TEMPLATE + np.array([right, down])
    unchanged = dict.fromkeys(
        ("colour", "resize", "sharpen", "jpeg", "shift", "scale", "bend"), 0.0
    )
    asked = one_region("inner", **unchanged, partial=0.0)
    blended, mask = self_blend(face, TEMPLATE, np.random.default_rng(0), asked, donor)
    assert np.array_equal(blended[mask == 0], face[mask == 0])
    inside = mask > 0.99
    assert np.abs(blended[inside].mean(0) - face[inside].mean(0)).max() < 5
    mirrored = face[:, ::-1][inside].astype(float)
    assert (
        np.abs(blended[inside] - mirrored).mean()
        < np.abs(blended[inside] - donor[0][inside].astype(float)).mean() / 2
    )


def test_nothing_to_be_seen_is_no_pseudo_fake(face: np.ndarray) -> None:
    never = dict.fromkeys(("colour", "resize", "sharpen", "jpeg", "shift", "scale", "bend"), 0.0)
    with pytest.raises(DataError, match="no visible self-blend in 20 draws"):
        self_blend(face, None, np.random.default_rng(0), PseudoSettings(**never))
    black = np.zeros_like(face)
    with pytest.raises(DataError, match="is the crop blank"):
        self_blend(black, None, np.random.default_rng(0), PseudoSettings(colour=0.0))


@pytest.mark.parametrize(
    "change",
    [
        {"colour": 1.5},
        {"partial_ratio": (0.5, 1.5)},
        {"jpeg_quality": (0, 50)},
        {"resize_to": (0.8, 0.3)},
        {"shift": -1.0},
        dict.fromkeys(REGIONS, 0.0),
    ],
)
def test_senseless_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="pseudo"):
        PseudoSettings(**change)
