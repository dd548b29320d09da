"""Heads on one frozen tower: what counts for each, that none sees its left-out folds, and the table."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from builders import evidence_material as made
from deepscan.model import tower
from tools.evidence import folds, heads, recipes, train, trials
from tools.evidence.material import Material
from tools.evidence.pseudo_fakes import Kind
from tools.evidence.sampling import PLAIN, Batch
from tools.evidence.train import Setup
from tools.evidence.trials import LISTS, Trial

RUNS = {"R1": ("pairs",), "R2": ("ffpp", "M1")}
FROZEN = trials.FROZEN.but(
    "frozen",
    detector={"tower": "tiny-vit", "depth": 3, "layers": (2, 3), "heads": 4},
    steps=2,
    batch=8,
)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow tower of three layers with CLIP's number of patches, in float32, and two runs."""
    size = tower.TowerSize(224, 16, 32, 3, 16, head_width=8, quick_gelu=True)
    monkeypatch.setattr(tower, "tower_size", {"tiny-vit": size}.__getitem__)
    monkeypatch.setattr(train, "computes_bfloat16", lambda: False)
    monkeypatch.setattr(train, "SCALE_CROPS", 4)
    monkeypatch.setattr(folds, "RUNS", RUNS)
    torch.manual_seed(0)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    base = tower.Tower("tiny-vit").visual.state_dict()
    return Setup(made.material(tmp_path / "pack.zip"), base)


def shown(kind: list[int], labels: list[float]) -> Batch:
    """Crops of which nothing but their kind and label matters."""
    n = len(kind)
    return Batch(
        images=torch.zeros(n, 3, 224, 224),
        labels=torch.tensor(labels),
        truth=torch.zeros(n, 196),
        known=torch.ones(n, dtype=torch.bool),
        core=torch.zeros(n, 196),
        face=torch.ones(n, 196),
        weight=torch.ones(n),
        kind=torch.tensor(kind),
        rows=torch.arange(n).expand(2, -1).T,
    )


def test_shares_are_of_weight_and_both_classes_weigh_alike() -> None:
    """Two manipulated crops, two pseudo-fakes, three of their four real ones; some of them films'."""
    crops = shown(
        [PLAIN, PLAIN, Kind.SELF, Kind.SWAP, PLAIN, Kind.SELF, Kind.SWAP], [1, 1, 1, 1, 0, 0, 0]
    )
    filmed = torch.tensor([False, True, False, True, False, False, True])
    none = torch.zeros(7, dtype=torch.bool)
    found = Trial(FROZEN, pseudo=0.25, film=0.4).weights(crops, filmed, none)
    # Of a total of 7, manipulated and real ones have 3.5 each, of this pseudo-fakes a quarter.
    wanted = [0.6, 0.4, 0.6 / 3, 0.4 / 3, 1.0, 0.6 / 3, 0.4 / 3]
    torch.testing.assert_close(found, torch.tensor(wanted) * 3.5 * 0.75)


def test_a_kind_that_does_not_count_leaves_its_share_to_the_others() -> None:
    crops = shown([Kind.SELF, Kind.SWAP, Kind.SELF, Kind.SWAP], [1, 1, 0, 0])
    none = torch.zeros(4, dtype=torch.bool)
    trial = Trial(FROZEN, pseudo=1.0, kinds={Kind.SWAP: 0.0})
    found = trial.weights(crops, none, none)
    torch.testing.assert_close(found, torch.tensor([2.0, 0.0, 2.0, 0.0]))
    nothing = trial.weights(crops, none, torch.tensor([True, False, True, False]))
    assert (nothing == 0).all()


def test_masks_are_hidden_of_a_group_s_manipulated_crops_alone() -> None:
    """Of pages' crops: a manipulated one with a mask, a pseudo-fake of a real one, and a real one."""
    crops = shown([PLAIN, PLAIN, Kind.SELF, PLAIN], [1, 1, 1, 0])
    crops = replace(crops, known=torch.ones(4, dtype=torch.bool))
    group = np.array(["pairs", "methods", "methods", "methods"])
    assert Trial(FROZEN).known(crops, group).all()
    found = Trial(FROZEN, unmasked=("methods",)).known(crops, group)
    assert found.tolist() == [True, False, True, True]


def test_a_head_learns_nothing_of_the_folds_it_is_judged_by(setup: Setup) -> None:
    """Where ffpp's and M1's pixels are others, R2's head is the same, and R1's is not.

    Layers are brought to one scale by all crops, though without a label; here they are left as they are.
    """
    trials = [Trial(replace(FROZEN, standard=False))]
    crops = setup.material
    outside = np.any([folds.of_fold(crops, fold) for fold in RUNS["R2"]], 0)
    first, _ = heads.taught(setup, trials, lambda _: None)
    pixels = crops.crops.clone()
    pixels[torch.from_numpy(outside)] = 255 - pixels[torch.from_numpy(outside)]
    other, _ = heads.taught(Setup(replace(crops, crops=pixels), setup.base), trials, lambda _: None)
    same = {
        one.run: all(map(torch.equal, one.learning.params, two.learning.params))
        for one, two in zip(first, other, strict=True)
    }
    assert same == {"R1": False, "R2": True}


def test_all_trials_start_alike_and_share_one_tower(setup: Setup) -> None:
    both = [Trial(FROZEN), Trial(FROZEN.but("twin"))]
    found, _ = heads.taught(setup, both, lambda _: None)
    assert [(head.run, head.trial.name) for head in found] == [
        ("R1", "frozen"), ("R1", "twin"), ("R2", "frozen"), ("R2", "twin"),
    ]  # fmt: skip
    assert len({id(head.detector.tower) for head in found}) == 1
    assert all(map(torch.equal, found[0].learning.params, found[1].learning.params))


@pytest.mark.parametrize("name", LISTS)
def test_every_trial_of_a_list_trains(
    name: str, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {name: getattr(FROZEN.detector, name) for name in ("tower", "depth", "layers", "heads")}
    chosen = [
        replace(trial, recipe=trial.recipe.but(trial.name, detector=tiny, steps=1, batch=8))
        for trial in LISTS[name]()
    ]
    assert len({trial.name for trial in chosen}) == len(chosen)
    monkeypatch.setattr(folds, "RUNS", {"R1": ("pairs",)})
    for head in heads.taught(setup, chosen, lambda _: None)[0]:
        assert all(parameter.isfinite().all() for parameter in head.learning.params), (
            head.trial.name
        )


def test_the_command_adds_a_row_of_each_trial_fold_and_seed(
    setup: Setup,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(heads.material, "load", lambda *_, **__: setup.material)
    monkeypatch.setattr(heads.checkpoint, "read_base", lambda _: setup.base)
    monkeypatch.setattr(heads, "Decoders", lambda *_: None)
    cls = FROZEN.but("cls", **recipes.CLS)
    monkeypatch.setitem(LISTS, "changes", lambda: [Trial(FROZEN), Trial(cls)])
    given = [str(tmp_path / name) for name in ("pack.zip", "base", "out")]
    for seed in ("0", "1"):
        heads.main([*given, "--seed", seed, "--steps", "2"])
    with (tmp_path / "out" / "changes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    assert {row["fold"] for row in rows} == {"pairs", "ffpp", "M1"}
    assert {row["pixel_auc"] for row in rows if row["trial"] == "cls"} == {""}
    capsys.readouterr()
    heads.main([*given, "--table"])
    assert "| frozen |" in capsys.readouterr().out


def test_gains_are_of_the_same_fold_and_seed() -> None:
    """Differences of 0.1 and 0.3: 0.2 on average, with a standard error of 0.1."""
    values = {("frozen", "0"): 0.5, ("frozen", "1"): 0.6, ("other", "0"): 0.6, ("other", "1"): 0.9}
    rows = [
        dict.fromkeys(heads.COLUMNS, "")
        | {"trial": trial, "seed": seed, "fold": "M1", "auc": "0.5", "auc_film": "0.4"}
        | {"auc_ref": str(value)}
        for (trial, seed), value in values.items()
    ]
    assert heads.table(rows)[2:] == [
        "| frozen | 0.500 | 0.550 | [0.500, 0.600] | +0.000 ± 0.000 | 0.400 |  |  |",
        "| other | 0.500 | 0.750 | [0.600, 0.900] | +0.200 ± 0.100 | 0.400 |  |  |",
    ]


def test_two_crops_of_each_video_judge(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    crops: Material = setup.material
    rows = np.flatnonzero(crops.group == "pairs")
    tripled = np.repeat(rows, 3)
    assert heads.few_of_each(crops, tripled).tolist() == np.repeat(rows, 2).tolist()
    monkeypatch.setattr(heads, "MOST", 3)
    few = heads.few_of_each(crops, rows).tolist()
    assert len(few) == 3
    assert set(few) < set(rows)
