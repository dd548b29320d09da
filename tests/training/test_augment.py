from __future__ import annotations

import random
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from deepscan.data.distortions import h264
from deepscan.errors import SettingsError
from deepscan.training.augment import AugmentSettings, augment, augmentation
from deepscan.verification import sample as demo

NEVER: dict[str, Any] = dict.fromkeys(("flip", "zoom", "colour", "blur", "resize", "jpeg"), 0.0)
SIDE = 96


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return np.asarray(demo.portrait().crop((70, 40, 470, 440)).resize((SIDE, SIDE)))


def only(**changes: Any) -> v2.Transform:
    """The transform in which nothing happens but these."""
    return augmentation(AugmentSettings(**NEVER | changes))


def square(top: int = 30, left: int = 50, side: int = 20) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def contrast(picture: np.ndarray) -> float:
    """Mean difference of horizontal neighbours, grey levels."""
    return float(np.abs(np.diff(picture.astype(float), axis=1)).mean())


# --- where the chance comes from -------------------------------------------------------------------


def test_a_seed_names_a_view_whatever_was_drawn_before(face: np.ndarray) -> None:
    transform = augmentation(AugmentSettings())
    views = [augment(face, square(), transform, seed) for seed in range(20)]
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    for seed in reversed(range(20)):
        image, mask = augment(face, square(), augmentation(AugmentSettings()), seed)
        assert np.array_equal(image, views[seed][0])
        assert np.array_equal(mask, views[seed][1])
    assert len({image.tobytes() for image, _ in views}) > 15


def _view(seed: int) -> bytes:
    face = np.asarray(demo.portrait().resize((SIDE, SIDE)))
    return augment(face, None, augmentation(AugmentSettings()), seed)[0].tobytes()


@pytest.mark.slow
def test_another_process_makes_the_same_view() -> None:
    with get_context("spawn").Pool(1) as pool:
        assert pool.map(_view, range(5)) == [_view(seed) for seed in range(5)]


def test_global_generators_are_left_as_found(face: np.ndarray) -> None:
    transform = augmentation(AugmentSettings())
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    for seed in range(20):
        augment(face, None, transform, seed)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_twins_change_alike(face: np.ndarray) -> None:
    """The twin differs in a square; so do the views, only there, and where the mask went.

    Each pixel by itself: only flip and zoom, as contrast is about the whole picture's mean.
    """
    twin, mask = face.copy(), square()
    twin[mask] = 255 - twin[mask]
    transform = only(flip=0.5, zoom=0.5)
    for seed in range(30):
        a, moved = augment(face, mask, transform, seed)
        b, same = augment(twin, mask, transform, seed)
        assert moved is not None
        assert np.array_equal(moved, same)
        near = np.asarray(torch.nn.functional.max_pool2d(torch.tensor(moved[None] * 1.0), 7, 1, 3))
        assert np.array_equal(a[near[0] == 0], b[near[0] == 0])


def test_a_mask_takes_no_part_in_the_draw(face: np.ndarray) -> None:
    transform = augmentation(AugmentSettings())
    for seed in range(20):
        alone, none = augment(face, None, transform, seed)
        assert none is None
        assert np.array_equal(alone, augment(face, square(), transform, seed)[0])


def test_shares_come_out(face: np.ndarray) -> None:
    small = np.ascontiguousarray(face[::4, ::4])
    for name in ("flip", "zoom", "colour", "blur", "resize", "jpeg"):
        transform = only(**{name: 0.3}, zoom_keeps=(0.5, 0.8), jpeg_quality=(40, 60))
        changed = [
            not np.array_equal(augment(small, None, transform, s)[0], small) for s in range(300)
        ]
        # 300 draws of 0.3: a standard deviation of 0.026
        assert 0.2 < np.mean(changed) < 0.4, name


# --- each change -----------------------------------------------------------------------------------


def test_probability_0_changes_nothing(face: np.ndarray) -> None:
    for seed in range(10):
        image, mask = augment(face, square(), only(), seed)
        assert np.array_equal(image, face)
        assert np.array_equal(mask, square())


def test_flip_mirrors_picture_and_mask(face: np.ndarray) -> None:
    image, mask = augment(face, square(), only(flip=1.0), 0)
    assert np.array_equal(image, face[:, ::-1])
    assert np.array_equal(mask, square()[:, ::-1])


def test_zoom_enlarges_picture_and_mask_alike() -> None:
    """Half of each side kept: a square of 20 pixels becomes one of 40, where the cut left it whole."""
    mask = square(38, 38)
    picture = np.repeat(mask[:, :, None] * np.uint8(255), 3, 2)
    transform = only(zoom=1.0, zoom_keeps=(0.5, 0.5))
    places = set()
    for seed in range(30):
        image, moved = augment(picture, mask, transform, seed)
        assert moved is not None
        shown = image[:, :, 0] > 127
        assert (shown != moved).sum() <= 2 * 40 + 2 * 40  # their edges agree to a pixel
        rows, columns = np.nonzero(moved)
        places.add((int(rows.min()), int(columns.min())))
        if not moved[[0, -1]].any() and not moved[:, [0, -1]].any():
            assert moved.sum() == 40 * 40
    assert len(places) > 20


def test_zoom_keeps_the_face_in_view() -> None:
    """Anywhere that shows all of it, and no nearer than that, even where a quarter is asked for."""
    face = np.array([(30.0, 20.0), (70.0, 22.0), (50.0, 60.0)])
    mask = square(20, 30, 40)
    picture = np.repeat(mask[:, :, None] * np.uint8(255), 3, 2)
    for keeps, shown in ((0.25, SIDE * SIDE), (0.5, 80 * 80)):
        transform = only(zoom=1.0, zoom_keeps=(keeps, keeps), flip=0.5)
        views = [augment(picture, mask, transform, seed, face)[1] for seed in range(30)]
        for view in views:
            assert view is not None
            assert abs(int(view.sum()) - shown) < 2 * SIDE  # whole, but for its edges' half pixels
    assert len({tuple(np.argwhere(view)[0]) for view in views if view is not None}) > 20


def test_a_face_beyond_the_edge_is_shown_as_far_as_it_goes(face: np.ndarray) -> None:
    points = np.array([(-20.0, -5.0), (130.0, 110.0)])
    image, _ = augment(face, None, only(zoom=1.0, zoom_keeps=(0.5, 0.5)), 0, points)
    assert np.array_equal(image, face)


def test_zoom_keeps_proportions_and_size() -> None:
    tall = np.zeros((120, 60, 3), np.uint8)
    mask = np.zeros((120, 60), bool)
    mask[50:70, 20:40] = True
    transform = only(zoom=1.0, zoom_keeps=(0.8, 0.8))
    image, moved = augment(tall, mask, transform, 3)
    assert image.shape == tall.shape
    assert moved is not None
    rows, columns = np.nonzero(moved)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (25, 25)


@pytest.mark.parametrize("change", ["colour", "cast", "blur", "resize", "noise", "h264", "jpeg"])
def test_appearance_leaves_the_mask(face: np.ndarray, change: str) -> None:
    image, mask = augment(face, square(), only(**{change: 1.0}, jpeg_quality=(50, 50)), 1)
    assert not np.array_equal(image, face)
    assert np.array_equal(mask, square())
    assert image.dtype == np.uint8


def test_colour_keeps_hue_and_range() -> None:
    """Grey stays grey, without any hue, within the factors of brightness and contrast."""
    grey = np.full((SIDE, SIDE, 3), 100, np.uint8)
    transform = only(colour=1.0, colour_factor=(0.8, 1.25))
    levels = [augment(grey, None, transform, seed)[0] for seed in range(50)]
    assert all(len(np.unique(image)) == 1 for image in levels)  # contrast: about its own mean
    found = np.array([image[0, 0, 0] for image in levels])
    assert 79 <= found.min() < 90
    assert 110 < found.max() <= 125


def test_cast_changes_each_channel_by_its_own_factor() -> None:
    grey = np.full((SIDE, SIDE, 3), 100, np.uint8)
    transform = only(cast=1.0, cast_gain=(0.8, 1.25))
    levels = np.array([augment(grey, None, transform, seed)[0][0, 0] for seed in range(100)])
    assert levels.min() >= 80
    assert levels.max() <= 125
    assert (levels.min(0) < 85).all()
    assert (levels.max(0) > 118).all()
    assert abs(np.corrcoef(levels.T)[0, 1]) < 0.3


def test_blur_and_resize_take_detail(face: np.ndarray) -> None:
    for weak, strong in [
        (only(blur=1.0, blur_sigma=(0.5, 0.5)), only(blur=1.0, blur_sigma=(2.0, 2.0))),
        (only(resize=1.0, resize_to=(0.9, 0.9)), only(resize=1.0, resize_to=(0.3, 0.3))),
    ]:
        lightly, heavily = (augment(face, None, transform, 0)[0] for transform in (weak, strong))
        assert contrast(heavily) < contrast(lightly) < contrast(face)
        assert abs(heavily.mean() - face.mean()) < 1


def test_jpeg_loses_more_at_lower_quality(face: np.ndarray) -> None:
    def loss(quality: int) -> float:
        image = augment(face, None, only(jpeg=1.0, jpeg_quality=(quality, quality)), 0)[0]
        return float(np.abs(image.astype(float) - face).mean())

    assert 0 < loss(95) < loss(60) < loss(30) < 12


def test_noise_has_the_deviation_asked_for() -> None:
    grey = np.full((SIDE, SIDE, 3), 100, np.uint8)
    image = augment(grey, None, only(noise=1.0, noise_sigma=(5.0, 5.0)), 0)[0].astype(float)
    assert image.std() == pytest.approx(5, rel=0.05)
    assert image.mean() == pytest.approx(100, abs=0.2)


def test_h264_is_drawn_from_its_range(face: np.ndarray) -> None:
    image = augment(face, None, only(h264=1.0, h264_crf=(30, 30)), 0)[0]
    assert np.array_equal(image, h264(face, 30))


@pytest.mark.parametrize(
    "change",
    [
        {"h264_crf": (20, 52)},
        {"flip": 1.5},
        {"jpeg": -0.1},
        {"zoom_keeps": (0.0, 1.0)},
        {"zoom_keeps": (0.5, 1.2)},
        {"cast_gain": (0.0, 1.0)},
        {"resize_to": (0.9, 0.3)},
        {"jpeg_quality": (40, 101)},
    ],
)
def test_senseless_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"augment {next(iter(change))}: "):
        AugmentSettings(**change)
