"""Training and judging of evidence maps: maps add up, losses and rates by hand, what scores are worth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import evidence_material as made
from tools.evidence import evaluation, model, plan, train
from tools.evidence.evaluation import Scores
from tools.evidence.geometry import PATCHES
from tools.evidence.recipes import HeadSettings
from tools.evidence.sampling import Batch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def tower() -> dict[int | str, torch.Tensor]:
    return {k: torch.randn(2, 1 + PATCHES, model.D) for k in (6, 8)}


def a_head(**settings: Any) -> model.Head:
    face = torch.arange(PATCHES) % 3 == 0
    post = torch.ones(model.D), torch.zeros(model.D)
    return model.Head(HeadSettings(layers=(6, 8), standard=False, **settings), face, 0, post)


@pytest.mark.parametrize("token", ["global", "mean", "avg"])
@pytest.mark.parametrize("prior", ["none", "learn", "fixed"])
def test_evidence_and_a_constant_add_up_to_the_logit(token: str, prior: str) -> None:
    said = a_head(token=token, prior=prior)(tower())
    total = said["evidence"].sum(1) + said["constant"]
    torch.testing.assert_close(total, said["logit"], atol=1e-4, rtol=0)


def test_cls_has_no_map() -> None:
    assert a_head(token="cls")(tower())["evidence"] is None


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
        "counts": torch.ones(4, dtype=torch.bool),
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
    counts = torch.tensor([False, True, True, True])
    found = train.of_patches(logits, batch(counts=counts), 0.0).item()
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


# --- the plan ----------------------------------------------------------------------------------------


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
    plan.phase_default(None, plan.Log(tmp_path), 0)  # type: ignore[arg-type]
    assert asked == ["R3", "R4", "1300 steps"]
