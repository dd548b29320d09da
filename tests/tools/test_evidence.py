"""Training and judging of evidence maps: what trains, losses and rates by hand, what scores are worth."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from builders import evidence_material as made
from deepscan.faces import alignment
from deepscan.files import sha256
from deepscan.model import tower
from deepscan.model.catalogue import BaseEntry
from deepscan.model.detector import Detector
from deepscan.records import Output
from tools.evidence import evaluation, plan, recipes, ship, swaps, train
from tools.evidence.evaluation import Scores
from tools.evidence.geometry import GRID, PATCHES
from tools.evidence.recipes import LORA, NORM, REFERENCE, Recipe
from tools.evidence.sampling import PLAIN, Batch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _in_float32() -> Iterator[None]:
    """Whatever this processor has: the values below are float32's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "computes_bfloat16", lambda: False)
        yield


# --- training ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base() -> Iterator[dict[str, Tensor]]:
    """A random base of three narrow layers, with CLIP's number of patches; "tiny-vit" for as long."""
    with pytest.MonkeyPatch.context() as patch:
        tiny = tower.TowerSize(224, 16, 32, 3, 16, head_width=8, quick_gelu=True)
        patch.setattr(tower, "tower_size", {"tiny-vit": tiny}.__getitem__)
        patch.setattr(train, "SCALE_CROPS", 4)
        torch.manual_seed(0)
        yield tower.Tower("tiny-vit").visual.state_dict()


@pytest.fixture(scope="module")
def setup(base: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> train.Setup:
    return train.Setup(made.material(tmp_path_factory.mktemp("pack") / "pack.zip"), base)


TINY = {"tower": "tiny-vit", "depth": 3, "layers": (2, 3), "heads": 4}


def tiny(recipe: Recipe = LORA, **changes: Any) -> Recipe:
    """A recipe on the tiny tower: two steps of four crops."""
    detector = TINY | changes.pop("detector", {})
    return recipe.but("tiny", detector=detector, steps=2, batch=4, **changes)


def keep_all(setup: train.Setup) -> np.ndarray:
    return np.ones(len(setup.material), bool)


@pytest.fixture(scope="module")
def trained(setup: train.Setup) -> train.Trained:
    return train.train(tiny(detector={"view": 0.6}), setup, keep_all(setup), print)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step shows the same pictures: they take longer to make than the tiny tower takes to learn."""
    monkeypatch.setattr(train, "batch", lambda *_: whole_batch())


def test_a_training_depends_on_the_seed_alone(setup: train.Setup, trained: train.Trained) -> None:
    again = train.train(trained.recipe, setup, keep_all(setup), print)
    state = again.detector.trained_state()
    for name, value in trained.detector.trained_state().items():
        assert torch.equal(value, state[name]), name
    queries = [
        train.build(replace(trained.recipe, seed=seed), setup).aggregation.query for seed in (0, 1)
    ]
    assert not torch.equal(*queries)
    assert trained.history == again.history
    assert [row[0] for row in trained.history] == [0, 1]
    assert set(trained.history[0][2]) == {"crop", "patch"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("recipe", "trains"),
    [
        (tiny(), {"head", "lora"}),
        (tiny(NORM), {"head", "norm"}),
        (tiny(norms=True), {"head", "lora", "norm"}),
        (tiny(NORM, detector={"adapter": "none"}), {"head"}),
    ],
)
def test_what_a_recipe_names_trains_and_the_base_stays_as_it_was(
    recipe: Recipe, trains: set[str], setup: train.Setup
) -> None:
    before = {name: value.clone() for name, value in setup.base.items()}
    start = dict(train.build(recipe, setup).named_parameters())
    found = train.train(recipe, setup, keep_all(setup), print).detector
    changed = set()
    for name, parameter in found.named_parameters():
        if not torch.equal(parameter, start[name]):
            of_tower = "lora" if ".change." in name else "norm" if ".ln_" in name else name
            changed.add(of_tower if name.startswith("tower.") else "head")
    assert changed == trains
    assert all(torch.equal(setup.base[name], value) for name, value in before.items())


@pytest.mark.usefixtures("quick")
def test_a_step_may_look_at_part_of_the_patches(
    setup: train.Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other ones in each step, and masks and losses are of the same ones."""
    seen: list[Tensor] = []

    def noting(*given: Any) -> Any:
        _, _, _, shown = given
        seen.append(shown.truth)
        assert given[0].evidence.shape == shown.truth.shape == (4, PATCHES // 2)
        return losses(*given)

    losses = train.losses
    monkeypatch.setattr(train, "losses", noting)
    train.train(tiny(patches=0.5), setup, keep_all(setup), print)
    assert len(seen) == 2
    assert not torch.equal(*seen)


def test_a_batch_by_some_patches_keeps_their_order() -> None:
    whole = batch(truth=torch.tensor([(0.1, 0.2)] * 4))
    assert whole.by(None) is whole
    part = whole.by(torch.tensor([1, 0]))
    assert part.truth.tolist() == [pytest.approx([0.2, 0.1])] * 4
    assert part.core.tolist() == [[0, 1]] * 4
    assert part.images is whole.images


def test_bfloat16_where_the_processor_has_it(
    setup: train.Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "computes_bfloat16", lambda: True)
    detector = train.build(tiny(), setup)
    frozen = detector.tower.visual.conv1.weight
    assert frozen.dtype == torch.bfloat16
    assert {p.dtype for p in detector.parameters() if p.requires_grad} == {torch.float32}
    assert train.answer(detector, whole_batch().images).logit.dtype == torch.float32


@pytest.mark.usefixtures("quick")
def test_queries_fixed_on_the_face_look_nowhere_else(setup: train.Setup) -> None:
    trained = train.train(tiny(prior="fixed"), setup, keep_all(setup), print)
    found = evaluation.score(trained, setup.material, np.arange(4), copies=False)
    face = alignment.on_face(1.0, GRID)
    assert found.attention is not None
    assert (found.attention[:, ~face] == 0).all()
    np.testing.assert_allclose(found.attention.sum(1), 1, atol=1e-5)


def test_a_score_is_what_the_shipped_detector_gives(
    setup: train.Setup, trained: train.Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the copy's logit is taken off; of whole crops the detector cuts its view itself."""
    found = evaluation.score(trained, setup.material, np.arange(6))
    shipped = trained.detector
    monkeypatch.setattr(shipped, "settings", replace(shipped.settings, reference=REFERENCE))
    crops = setup.material.crops[:6].permute(0, 2, 3, 1).contiguous().numpy()
    assert found.copy is not None
    wanted = shipped.score(crops).logit
    np.testing.assert_allclose(found.logit - REFERENCE * found.copy, wanted, atol=1e-5)
    bare = evaluation.score(trained, setup.material, np.arange(6), copies=False, greyed=True)
    assert bare.copy is None
    assert not np.allclose(bare.logit, found.logit)


def shipped(path: Path, base: dict[str, Tensor]) -> Detector:
    """What ship makes of a detector that plan wrote, on the tiny base."""
    file = path.with_name("base.safetensors")
    save_file(base, file)
    size = file.stat().st_size
    entry = BaseEntry(
        "tiny", "tiny-vit", "tests", "none", "float32", str(file), sha256(file), size, {}
    )
    return ship.assembled(path, entry)[0]


def test_what_is_shipped_scores_as_what_was_trained(
    trained: train.Trained, base: dict[str, Tensor], tmp_path: Path
) -> None:
    trained.save(tmp_path / "final.safetensors")
    detector = shipped(tmp_path / "final.safetensors", base)
    assert detector.settings.reference == REFERENCE
    images = 255 * torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        found, wanted = (train.answer(each, images) for each in (detector, trained.detector))
    torch.testing.assert_close(found.logit, wanted.logit, atol=1e-3, rtol=1e-3)  # of float16
    torch.testing.assert_close(found.evidence, wanted.evidence, atol=1e-3, rtol=1e-3)


def test_a_detector_of_former_names_is_read_as_well(
    setup: train.Setup, base: dict[str, Tensor], tmp_path: Path
) -> None:
    detector = train.build(tiny(), setup)
    for parameter in detector.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    state = detector.trained_state()
    attention = "aggregation.attention"
    former = {
        "head.query": state["aggregation.query"], "head.place": state["aggregation.place"],
        "head.inw": state[f"{attention}.in_proj_weight"], "head.inb": state[f"{attention}.in_proj_bias"],
        "head.outw": state[f"{attention}.out_proj.weight"], "head.outb": state[f"{attention}.out_proj.bias"],
        "head.w": state["head.weight"][0], "head.b": state["head.bias"][0],
        "head.log_tau": state["locating"][0], "head.patch_bias": state["locating"][1],
        "head.lnw": torch.stack([state[f"readers.{i}.weight"] for i in range(2)]),
        "head.lnb": torch.stack([state[f"readers.{i}.bias"] for i in range(2)]),
    }  # fmt: skip
    for layer in range(3):
        block = f"tower.visual.transformer.resblocks.{layer}."
        parts = [f"attn.change.{side}" for side in "ab"]
        pairs = [state[block + part][i] for i in range(3) for part in parts]  # of q, k and v
        for name in ("attn.out_proj", "mlp.c_fc", "mlp.c_proj"):
            pairs += [state[f"{block}{name}.change.{side}"][0] for side in "ab"]
        former |= {f"tower.lora.b{layer}_{place}": value for place, value in enumerate(pairs)}
    head = {"queries": 4, "heads": 4, "token": "global", "layers": [2, 3], "prior": "learn"}
    recipe = {
        "margin": 1.0,
        "heads": [head | {"patch": "evidence"}],
        "tower": {"adapter": "lora", "rank": 8, "alpha": 16.0, "depth": 3},
    }
    save_file(
        {name: value.clone().contiguous() for name, value in former.items()},
        tmp_path / "final.safetensors",
        {"cfg": json.dumps(recipe)},
    )
    found = shipped(tmp_path / "final.safetensors", base)
    assert found.settings == replace(detector.settings, reference=REFERENCE)
    for name, value in found.trained_state().items():
        assert torch.equal(value, state[name]), name


def test_a_reading_is_what_the_logit_would_be_of_one_patch_alone(setup: train.Setup) -> None:
    """Where queries look at all 196 patches alike, that is 196 times a patch's evidence, and the constant."""
    detector = train.build(tiny(detector={"prior": False}, standard=False), setup)
    with torch.no_grad():
        detector.aggregation.query.zero_()
        found = train.answer(detector, 255 * torch.rand(2, 3, 224, 224))
        reading = train.reading(found)
    assert found.evidence is not None
    assert found.constant is not None
    wanted = PATCHES * found.evidence + found.constant[:, None]
    torch.testing.assert_close(reading, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(reading.mean(1), found.logit, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("recipe", recipes.tried(), ids=lambda recipe: recipe.name)
def test_every_recipe_has_its_losses_and_a_gradient(recipe: Recipe, setup: train.Setup) -> None:
    """On the tiny tower all read its last two layers, or its last."""
    layers = (2, 3) if len(recipe.detector.layers or ()) > 1 else (3,)
    small = recipe.but("tiny", detector=TINY | {"layers": layers, "adapted": None})
    detector = train.build(small, setup)
    shown = whole_batch()
    loss, terms = train.losses(train.answer(detector, shown.images), detector, small, shown)
    loss.backward()
    wanted = {"crop"} | ({"patch"} if recipe.patch != "none" else set())
    assert set(terms) == wanted | ({"contrast"} if recipe.flcl else set())
    assert detector.head.weight.grad is not None
    assert detector.head.weight.grad.abs().sum() > 0


def whole_batch() -> Batch:
    """Two manipulated crops, the first with a mask of a few patches, and two real ones; of noise."""
    truth, every = torch.zeros(4, PATCHES), torch.ones(4, PATCHES)
    truth[0, :20] = 1
    images = torch.randint(0, 256, (4, 3, 224, 224)).float()
    return batch(images=images, truth=truth, core=every, face=every)


# --- losses ------------------------------------------------------------------------------------------


def batch(**given: torch.Tensor) -> Batch:
    """Two manipulated crops, the first with a mask, and two real ones, of two patches each."""
    usual = {
        "images": torch.zeros(4, 3, 224, 224),
        "labels": torch.tensor([1.0, 1.0, 0.0, 0.0]),
        "truth": torch.tensor([(1.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]),
        "known": torch.tensor([True, False, True, True]),
        "core": torch.tensor([(1.0, 0.0)] * 4),
        "face": torch.ones(4, 2),
        "weight": torch.ones(4),
        "kind": torch.full((4,), PLAIN),
        "rows": torch.zeros(4, 2, dtype=torch.long),
    }
    return Batch(**usual | given)


def test_patches_of_a_crop_without_a_mask_count_where_it_is_manipulated_for_sure() -> None:
    """Of the second crop only its core patch is counted, and half as much as others are."""
    logits = torch.zeros(4, 2)
    logits[1] = torch.tensor(
        [math.log(3), 50.0]
    )  # the second patch would be wrong, or right, by far
    softplus = math.log(4 / 3)  # -log of sigmoid(log 3) = 3/4
    wanted = (6 * math.log(2) + 0.5 * softplus) / 6.5
    assert train.of_patches(logits, batch(), 0.5).item() == pytest.approx(wanted)
    only = train.of_patches(logits, batch(), 0.0).item()
    assert only == pytest.approx(math.log(2))


def test_a_pseudo_fake_that_nothing_is_seen_of_takes_no_part() -> None:
    logits = torch.zeros(4, 2)
    logits[0] = 9.0
    weight = torch.tensor([0.0, 1.0, 1.0, 1.0])
    found = train.of_patches(logits, batch(weight=weight), 0.0).item()
    assert found == pytest.approx(math.log(2))


def test_the_rate_rises_for_a_twelfth_of_the_steps_and_falls_by_half_a_cosine() -> None:
    found = [train.rate_share(step, 120) for step in (0, 9, 10, 65, 119)]
    assert found[:3] == [0.1, 1.0, 1.0]
    assert found[3] == pytest.approx(0.5)
    assert 0 < found[4] < 0.001


# --- what scores are worth ---------------------------------------------------------------------------


def test_scores_are_judged_by_videos_and_kinds(tmp_path: Path) -> None:
    """Two crops of one manipulated video lie around a real one's: their mean lies above it.

    Of both kinds' two pairs with the real video, the swap's is right and the lip-sync's wrong: AUC 0.5.
    """
    swap: dict[str, Any] = {"video": "a", "kind": "face_swap"}
    crops = [made.crop("pairs", 1, **swap), made.crop("pairs", 1, **swap)]
    crops += [made.crop("pairs", 1, video="b", kind="lip_sync"), made.crop("pairs", 0, video="c")]
    material = made.material(tmp_path / "pack.zip", crops)
    copy = np.array([0.0, 0.0, -4.0, 0.0], np.float32)
    found = Scores(np.array([-1.0, 3.0, -2.0, 0.0], np.float32), copy, None, None)
    said = evaluation.judged(material, np.arange(4), found, 1.0)
    assert said == {
        "auc": 0.5,
        "videos": [1, 2],
        "auc_kinds": {"face_swap": [1.0, 1], "lip_sync": [0.0, 1]},
        "auc_ref": 0.75,  # half of the copy's -4 taken off, the lip-sync's 0 is the real one's
        "auc_ref_kinds": {"face_swap": [1.0, 1], "lip_sync": [0.5, 1]},
    }


def test_maps_are_judged_by_where_they_are_strongest_and_by_masks(tmp_path: Path) -> None:
    """One manipulated crop's map is its mask, the other's a corner; the real one's is nowhere positive."""
    mask = np.zeros((256, 256), bool)
    mask[96:192, 80:176] = True
    crops = [made.crop("pairs", 1, mask=mask), made.crop("pairs", 1), made.crop("pairs", 0)]
    material = made.material(tmp_path / "pack.zip", crops)
    inside = np.zeros((14, 14), bool)
    inside[6:10, 5:9] = True
    evidence = np.full((3, PATCHES), -1.0, np.float32)
    evidence[0, inside.ravel()] = 1.0
    evidence[1, 0] = 1.0
    attention = np.full((3, PATCHES), 1 / PATCHES, np.float32)
    found = Scores(np.array([1.0, 2.0, 0.0], np.float32), None, evidence, attention)
    said = evaluation.judged(material, np.arange(3), found, 1.0)
    assert (said["peak_fake"], said["peak_real"]) == (0.5, None)
    assert said["positive_on_face"] == pytest.approx(16 / 17, abs=1e-4)
    assert said["pixel_auc"] == said["pixel_auc_each"]
    assert said["pixel_auc"] > 0.75  # the mask covers its border's patches in part


def test_an_auc_of_one_class_is_no_number() -> None:
    assert math.isnan(evaluation.auc(np.array([1, 1]), np.array([0.0, 1.0])))
    assert evaluation.auc(np.array([0, 1]), np.array([0.0, 1.0])) == 1


def test_on_swaps_evidence_is_held_against_what_they_changed() -> None:
    """One crop of two has its strongest patch on the face, and most of the positive evidence is there."""
    middle, corner = GRID * (GRID // 2) + GRID // 2, 0
    evidence = np.full((2, PATCHES), -1.0, np.float32)
    evidence[0, middle], evidence[1, corner] = 3.0, 1.0
    one, none = np.ones(2, np.float32), np.zeros((2, 0), np.float32)
    output = Output(one, none[:, None], none, evidence, one, none, 1.0)
    changed = np.zeros((2, PATCHES), bool)
    changed[:, middle] = True
    # Of the two changed patches one is above all 390 others, and one above none, but level with 389.
    auc = (390 + 389 / 2) / (2 * 390)
    assert swaps.row(output, changed) == f"0.50 of 2 | 0.750 | {auc:.3f} | +1.00"
    assert swaps.row(output, None) == "0.50 of 2 | 0.750 |  | +1.00"


def test_what_a_swap_changed_is_seen_as_the_detector_sees_it() -> None:
    """The left half of the middle: patches right of it are as they were."""
    grey = np.full((256, 256, 3), 128, np.uint8)
    swapped = grey.copy()
    swapped[64:192, 64:128] = 255
    changed = swaps.changes(grey, swapped, 1.0).reshape(GRID, GRID)
    assert changed[4:10, 4:7].all()
    assert not changed[:, 8:].any()
    assert not changed[:3].any()


# --- the plan ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_recipe_is_judged_on_folds_that_it_did_not_see(
    setup: train.Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[np.ndarray] = []

    def noting(recipe: Recipe, own: train.Setup, keep: np.ndarray, *rest: Any) -> train.Trained:
        shown.append(own.material.source[keep])
        return train.train(recipe, own, keep, *rest)

    monkeypatch.setattr(plan, "train", noting)
    log = plan.Log(tmp_path)
    found = plan.leave_out(tiny(), setup, log, math.inf, {"R2": plan.RUNS["R2"]})
    assert found is not None
    assert set(shown[0]) == {"pairs", "dfdc", "faces", "harlanhong/b"}  # neither ffpp nor M1's page
    assert set(found["folds"]) == {"ffpp", "M1"}
    assert 0 <= found["auc_background"] <= 1  # R2's folds are also judged with grey faces
    lines = (tmp_path / "results.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["trained", "fold", "fold", "recipe"]
    with np.load(tmp_path / "scores.npz") as scores:
        rows = scores["rows/ffpp"]
        assert (setup.material.source[rows] == "ffpp").all()
        assert scores["tiny/0/0/ffpp"].shape == (2, len(rows))  # of the crops, and of their copies
    plan.final(tiny(), setup, log, math.inf)
    assert (tmp_path / "tiny-0.safetensors").exists()
    assert set(shown[1]) <= set(setup.material.source[setup.material.fold != 0])


def test_a_broken_off_training_goes_on_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def leave_out(*given: Any) -> None:
        asked.extend(given[4])

    monkeypatch.setattr(plan, "leave_out", leave_out)
    monkeypatch.setattr(plan, "final", lambda recipe, *_: asked.append(f"{recipe.steps} steps"))
    before = plan.Log(tmp_path)
    found = Scores(np.zeros(3), None, None, None)
    for fold in (*plan.RUNS["R1"], *plan.RUNS["R2"], plan.RUNS["R3"][0]):
        before.keep(f"lora-60/0/0/{fold}", fold, np.arange(3), found)
    before.save()
    plan.phase_default(None, plan.Log(tmp_path), 0, recipes.DEFAULT)  # type: ignore[arg-type]
    assert asked == ["R4", "R3", "1300 steps"]
