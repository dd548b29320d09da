"""Every setting of training does something: another value gives other weights, other scores or other pixels.

The fields are the classes' own, so that a new one fails here until it is listed with a value and does
something, or is among PLACES.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from builders import toy
from deepscan.data.crops import CropRow
from deepscan.errors import SettingsError
from deepscan.model import tower, weights
from deepscan.model.detector import Detector
from deepscan.model.header import DetectorSettings
from deepscan.training import loop, losses
from deepscan.training.augment import AugmentSettings, augment, augmentation
from deepscan.training.data import CropSampler
from deepscan.training.folder import Best, Row, RunFolder
from deepscan.training.losses import LossSettings
from deepscan.training.pseudo import PseudoSettings, self_blend
from deepscan.training.rows import Splits, shown
from deepscan.training.run import _base, build
from deepscan.training.settings import PLACES, RECIPES, TrainSettings, as_toml, from_plain
from deepscan.training.step import Ranks

PLAIN = AugmentSettings(flip=0, zoom=0, colour=0, blur=0, resize=0, jpeg=0)
MACL = {"contrast": "macl"}
EFFORT = {"adapter": "effort"}
BLENDS = {"pseudo": 1.0}

# Another value of each field, and what must stand beside it for the field to have a part in anything.
TRAINING: dict[str, tuple[Any, dict[str, Any]]] = {
    "dataset": ("toy", {}),
    "adapter": ("norm", {}),
    "token": ("avg", {}),
    "queries": (2, {}),
    "heads": (2, {}),
    "patch_norm": (False, {}),
    "lora_rank": (2, {}),
    "lora_alpha": (16.0, {}),
    "effort_rank": (2, EFFORT),
    "depth": (1, {}),
    "adapted": (1, {}),
    "reference": (0.5, {}),
    "view": (0.5, {}),
    "layers": ((1, 2), {}),
    "prior": (True, {}),
    "localisation": (1.0, {}),
    "contrast": ("none", {}),
    "flcl": (5.0, {}),
    "alignment": ("none", {}),
    "raal": (5.0, {}),
    "squared": (False, {"alignment": "token-l2"}),
    "yardstick": ("pretrained", {"raal": 5.0, "adapter": "full"}),
    "tau": (0.5, {}),
    "temperature": (1.0, {}),
    "forged_share": (0.95, MACL | {"augment": replace(PLAIN, zoom=1.0)}),  # masks off the grid
    "orthogonality": (10.0, EFFORT),
    "keeping": (10.0, EFFORT),
    "frames": (1, {}),
    "sampling": ("natural", {}),
    "pseudo": (1.0, {}),
    "blend": (PseudoSettings(swap=1.0), BLENDS),
    "augment": (replace(PLAIN, jpeg=1.0), {}),
    "patches": (0.5, {}),
    "validation": (0.5, {}),
    "epochs": (1, {"steps": None}),
    "steps": (1, {}),
    "validate_every": (1, {}),
    "batch": (4, {}),
    "accumulate": (2, {}),
    "lr": (1e-3, {}),
    "schedule": ("cosine", {}),
    "warmup": (2, {}),
    "weight_decay": (1.0, {}),
    "max_norm": (math.inf, {}),
    "average": (0.9, {}),
    "seed": (1, {}),
    "precision": ("bfloat16", {}),
}
# Of each, its own test says what it does.
ELSEWHERE = {"base", "compile"}
# Values of one field that differ from one another, beyond the other value above.
KINDS: dict[str, Sequence[tuple[Any, Any, dict[str, Any]]]] = {
    "alignment": [("kl", "l1", {}), ("l1", "l2", {}), ("l2", "token-l2", {})],
    "contrast": [("flcl", "macl", {})],
    "tau": [(0.1, 0.5, MACL)],
}


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((tower, "tower_size"), (weights, "catalogue")):
        monkeypatch.setattr(module, name, getattr(module, name))  # put back afterwards
    toy.install(tmp_path / "base")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets in one folder, with masks."""
    folder = tmp_path_factory.mktemp("settings") / "data"
    toy.prepared(folder, people=6, frames=2)
    more = toy.prepared(folder.with_name("more"), people=4, frames=2)
    shutil.copytree(more / "more", folder / "more")
    text = (more / "toy.json").read_text("utf-8").replace('"toy', '"more')
    (folder / "more.json").write_text(text, "utf-8")
    return folder


class Nowhere(RunFolder):
    """A run folder that keeps nothing."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))

    def open_log(self, step: int) -> None: ...
    def add(self, row: Row) -> None: ...
    def draw(self) -> None: ...
    def save(self, *state: Any) -> None: ...


def settings(data: Path, **changes: Any) -> TrainSettings:
    plain: dict[str, Any] = {
        "data": (data,), "out": data / "run", "base": "toy", "heads": 4, "precision": "float32", "lr": 1e-2,
        "batch": 8, "epochs": 2, "steps": 3, "workers": 0, "validation": 0.34, "augment": PLAIN,
        "max_norm": 0.01,
    }  # fmt: skip
    return TrainSettings(**plain | changes)


def outcome(asked: TrainSettings) -> list[Tensor]:
    """The weights that training ends with, the scores of what it is judged by, and when it was."""
    folder = Path(weights.catalogue().bases["toy"].file)
    detector = build(asked, "toy", folder)
    learn, val = shown(asked)
    stored: list[Tensor] = []

    def store(best: Best) -> None:
        stored.extend(v.clone() for v in detector.trained_state().values())

    ranks = Ranks(0, 1, "cpu")
    loop.fit(detector, Splits(learn, val, []), asked, Nowhere(), ranks, store)
    weights_now = [v.clone() for v in detector.trained_state().values()]
    return [*weights_now, torch.from_numpy(loop.score(detector, val, asked)), *stored]


def same(one: Sequence[Tensor], two: Sequence[Tensor]) -> bool:
    return len(one) == len(two) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, two, strict=True)
    )


def test_every_field_is_listed() -> None:
    names = {entry.name for entry in fields(TrainSettings)}
    assert names == TRAINING.keys() | set(PLACES) | ELSEWHERE
    assert not TRAINING.keys() & set(PLACES)
    beside = {"alignment", "contrast", "flcl", "raal", "squared", "tau", "temperature"}
    beside |= {"localisation"}
    assert {entry.name for entry in fields(LossSettings)} == beside <= TRAINING.keys()
    own = {entry.name for entry in fields(DetectorSettings)} - {"tower", "normalise", "located"}
    assert own <= TRAINING.keys()


@pytest.mark.parametrize("field", TRAINING)
def test_another_value_learns_or_judges_otherwise(data: Path, field: str) -> None:
    value, beside = TRAINING[field]
    plain = settings(data, **beside)
    assert getattr(plain, field) != value
    changed = replace(plain, **{field: value})
    one = outcome(plain)
    assert same(one, outcome(plain))  # nothing else varies
    assert not same(one, outcome(changed))


@pytest.mark.parametrize(
    ("field", "one", "two", "beside"),
    [(field, *values) for field, kinds in KINDS.items() for values in kinds],
)
def test_any_two_of_its_values_learn_otherwise(
    data: Path, field: str, one: Any, two: Any, beside: dict[str, Any]
) -> None:
    plain = settings(data, **beside)
    a, b = (outcome(replace(plain, **{field: value})) for value in (one, two))
    assert not same(a, b)


def test_places_change_nothing_that_is_learnt(data: Path) -> None:
    plain = settings(data)
    other = replace(plain, name="x", licence="y", licence_note="z", save_every=1, workers=1)
    assert same(outcome(plain), outcome(other))


def test_recomputing_runs_each_layer_again_and_learns_the_same(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two layers, three steps: in the backward pass six more runs of a layer than without."""
    runs = 0
    real = tower.Block.forward

    def counted(self: tower.Block, *args: Any) -> Tensor:
        nonlocal runs
        runs += torch.is_grad_enabled()
        return real(self, *args)

    monkeypatch.setattr(tower.Block, "forward", counted)
    found, counts = [], []
    for recompute in (False, True):
        runs = 0
        found.append(outcome(settings(data, recompute=recompute)))
        counts.append(runs)
    assert counts[1] - counts[0] == 2 * 3
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


# --- what is shown ---------------------------------------------------------------------------------

# Another value of a range, which shows where its change is sure.
RANGES: dict[str, Any] = {
    "zoom_keeps": (0.5, 0.6), "colour_factor": (0.5, 0.6), "cast_gain": (0.5, 0.6), "blur_sigma": (3.0, 4.0),
    "resize_to": (0.1, 0.2), "noise_sigma": (20.0, 30.0), "h264_crf": (50, 51), "jpeg_quality": (5, 6),
}  # fmt: skip
OF = {"colour_factor": "colour", "cast_gain": "cast", "noise_sigma": "noise", "h264_crf": "h264"} | {
    "zoom_keeps": "zoom", "blur_sigma": "blur", "resize_to": "resize", "jpeg_quality": "jpeg",
}  # fmt: skip


@pytest.mark.parametrize("field", [entry.name for entry in fields(AugmentSettings)])
def test_every_field_of_augmentation_changes_pixels(field: str) -> None:
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 256, (64, 64, 3), np.uint8)
    if field in RANGES:
        sure = replace(PLAIN, **{OF[field]: 1.0})
        pair = sure, replace(sure, **{field: RANGES[field]})
    else:
        pair = PLAIN, replace(PLAIN, **{field: 1.0})
    views = [[augment(crop, None, augmentation(one), seed)[0] for seed in range(3)] for one in pair]
    assert not np.array_equal(*views)


# Another value of each field of blending that a dozen draws show, and what must stand beside it.
BLENDING: dict[str, tuple[Any, dict[str, Any]]] = {
    **{part: (1.0, {}) for part in ("face", "inner", "lower", "mouth", "eyes")},
    "edge": ((20.0, 21.0), {}),
    "partial_ratio": ((0.1, 0.2), {"partial": 1.0}),
    "colour_factor": ((0.5, 0.6), {"colour": 1.0}),
    "colour_shift": (30.0, {"colour": 1.0}),
    "resize_to": ((0.1, 0.2), {"resize": 1.0}),
    "sharpen_by": ((3.0, 4.0), {"sharpen": 1.0}),
    "jpeg_quality": ((5, 6), {"jpeg": 1.0}),
    "deform": (0.0, {}), "stretch": (0.5, {}), "grow": (20.0, {}), "shift": (10.0, {}), "scale": (0.2, {}),
    "bend": (10.0, {}),
}  # fmt: skip


@pytest.mark.parametrize(
    "field", [entry.name for entry in fields(PseudoSettings) if entry.name != "swap"]
)
def test_every_field_of_blending_changes_pixels(field: str) -> None:
    """`swap` says which face is blended in, not how: see `blend` above."""
    entry = next(e for e in fields(PseudoSettings) if e.name == field)
    assert entry.default is not MISSING
    share = 0.0 if entry.default else 1.0
    value, beside = BLENDING.get(field, (share, {}))
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 256, (16, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    plain = PseudoSettings(**beside)
    pair = plain, replace(plain, **{field: value})
    made = [
        [self_blend(crop, None, np.random.default_rng(seed), one)[0] for seed in range(12)]
        for one in pair
    ]
    assert not np.array_equal(*made)


def test_a_length_of_1_is_what_is_classified() -> None:
    plain = Detector(DetectorSettings(tower="toy", heads=4)).eval()
    scaled = Detector(DetectorSettings(tower="toy", heads=4, normalise=True)).eval()
    scaled.load_state_dict(plain.state_dict())
    crops = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    assert not torch.equal(plain(crops).logit, scaled(crops).logit)


def test_a_share_of_a_patch_makes_it_forged() -> None:
    """Of a patch of 4 x 4 pixels 8, 12 and 16 are masked: over 0.5 are two, over 0.75 one."""
    mask = torch.zeros(1, 4, 4 * 4)
    for patch, columns in enumerate((2, 3, 4)):
        mask[:, :, 4 * patch : 4 * patch + columns] = 1
    square = mask.repeat(1, 4, 1)
    row = lambda share: losses.forged_patches(square, 4, share)[0, :4].tolist()
    assert row(0.5) == [False, True, True, False]
    assert row(0.75) == [False, False, True, False]
    assert row(0.2) == [True, True, True, False]


# --- recipes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_printed_whole_and_read_back(tmp_path: Path, recipe: str) -> None:
    import tomllib

    stated = from_plain(RECIPES[recipe] | {"data": ["a"], "out": "b"}, recipe)
    again = from_plain(tomllib.loads(as_toml(stated)), "printed")
    assert again == stated
    assert (stated.max_norm == math.inf) == (recipe == "qtfp")


def test_the_papers_recipe() -> None:
    """method.md: ViT-L/14, lr 2e-4, batch 16, 1:4 natural sampling, blur and compression alone."""
    stated = from_plain(RECIPES["qtfp"] | {"data": ["a"], "out": "b"}, "qtfp")
    assert (stated.base, stated.lr, stated.batch) == ("clip-vit-l14", 2e-4, 16)
    assert (stated.sampling, stated.frames, stated.weight_decay) == ("natural", 8, 0.0)
    shares = {e.name: getattr(stated.augment, e.name) for e in fields(AugmentSettings)}
    assert {n for n, v in shares.items() if isinstance(v, float) and v} == {"blur", "jpeg"}


def test_natural_batches_hold_the_datas_own_proportion() -> None:
    """Two real crops and eight manipulated ones: a pass shows each once, the next in another order."""
    rows = [
        CropRow(Path(f"{i}"), int(i > 1), f"{i}", "", "", "m", "", 0, None, None) for i in range(10)
    ]
    order = CropSampler(rows, 0.0, seed=0, natural=True)
    first, second = ([order.crops(n)[0] for n in range(k, k + 10)] for k in (0, 10))
    assert sorted(row.path.name for (row,) in first) == [str(i) for i in range(10)]
    assert first != second


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"heads": 5}, "heads: 5 do not divide"),
        ({"adapted": 50}, "adapted: 50 is more than the 2 layers"),
        ({"token": "cls", "contrast": "macl"}, "baseline without queries"),
        ({"token": "cls", "alignment": "l2"}, "baseline without queries"),
        ({"sampling": "natural", "pseudo": 0.5}, "blends are made in pairs"),
        ({"max_norm": 0.0}, "max_norm"),
        ({"base": "other"}, "base: 'other' is not one of toy, and not a file"),
    ],
)
def test_senseless_settings_are_refused(data: Path, changes: dict[str, Any], says: str) -> None:
    def asked() -> None:
        made = settings(data, **changes)
        _base(made)
        build(made, "toy", None)

    with pytest.raises(SettingsError, match=says):
        asked()


def test_a_base_may_be_a_file(data: Path, tmp_path: Path) -> None:
    file = Path(weights.catalogue().bases["toy"].file)
    entry, path = _base(settings(data, base=str(file)))
    assert (entry.name, path) == ("toy", file)
    (tmp_path / "strange").write_bytes(b"x")
    with pytest.raises(SettingsError, match=r"strange \(SHA-256 2d71.*\) is not one of toy"):
        _base(settings(data, base=str(tmp_path / "strange")))
