"""The trainer's promises, on made-up crops: maps add up, masks are where pixels change, views move both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tools.evidence import model, plan, views


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def tower() -> dict[int | str, torch.Tensor]:
    return {k: torch.randn(2, 1 + model.P, model.D) for k in (6, 8)}


@pytest.mark.parametrize("token", ["global", "mean", "avg"])
@pytest.mark.parametrize("prior", ["none", "learn", "fixed"])
def test_evidence_and_a_constant_add_up_to_the_logit(token: str, prior: str) -> None:
    face = torch.arange(model.P) % 3 == 0
    head = model.Head(
        model.HeadCfg(layers=(6, 8), token=token, prior=prior, standard=False),
        face,
        0,
        (torch.ones(model.D), torch.zeros(model.D)),
    )
    said = head(tower())
    total = said["evidence"].sum(1) + said["constant"]
    torch.testing.assert_close(total, said["logit"], atol=1e-4, rtol=0)


def test_cls_has_no_map() -> None:
    head = model.Head(
        model.HeadCfg(layers=(6, 8), token="cls", standard=False),
        torch.ones(model.P, dtype=torch.bool),
        0,
        (torch.ones(model.D), torch.zeros(model.D)),
    )
    assert head(tower())["evidence"] is None


def test_a_pseudo_fake_is_its_real_twin_where_the_mask_is_empty() -> None:
    """Also where it is redrawn, another's or its own face; the mask lies in the middle, where the face is."""
    crops, others, redrawn = (255 * torch.rand(4, 3, 256, 256) for _ in range(3))
    points = views.TEMPLATE.expand(4, -1, -1)
    kind = torch.tensor([0, 1, 2, 2])
    fake, twin, mask, _ = views.pseudo(
        crops, points, others, points, redrawn, kind, (0.3, 0.3, 0.15, 0.2, 0.05)
    )
    clean = (mask < 1e-4).expand_as(fake)
    assert clean.float().mean() > 0.3
    assert ((fake - twin).abs() * clean).max() <= 0.55  # the fake is rounded, its twin need not be
    assert ((fake - twin).abs() * (mask > 0.9)).amax((1, 2, 3)).min() > 2


def test_what_is_redrawn_whole_changes_everywhere() -> None:
    crops, redrawn = (255 * torch.rand(2, 3, 256, 256) for _ in range(2))
    points = views.TEMPLATE.expand(2, -1, -1)
    *_, mask, seen = views.pseudo(
        crops, points, crops, points, redrawn, torch.tensor([3, 3]), (1.0, 0.0, 0.0, 0.0, 0.0)
    )
    assert mask.min() == 1
    assert seen.all()


@pytest.mark.parametrize("margin", [1.0, 0.6])
def test_a_view_moves_picture_and_mask_alike(margin: float) -> None:
    """The mask is a disc, the picture the same disc; without codecs and light they remain one."""
    at = torch.arange(256.0)
    disc = ((at[:, None] - 140) ** 2 + (at[None] - 110) ** 2 < 45**2).float()[None, None]
    disc = disc.expand(8, -1, -1, -1)
    seen, mask = views.viewed(255 * disc.expand(-1, 3, -1, -1), disc, margin, strength=0.0)
    assert seen.shape == (8, 3, 224, 224)
    shown = seen.sum(1) > 0  # but for the black of a frame that ends
    assert ((seen[:, 0] / 255 - mask[:, 0]).abs() * shown).max() < 0.01
    assert shown.float().mean((1, 2)).min() > 0.02
    assert len({round(float(m), 4) for m in mask.mean((1, 2, 3))}) == 8  # each is seen differently


def test_a_broken_off_training_goes_on_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(plan, "leave_out", lambda *given: asked.extend(*given[6:7]))
    monkeypatch.setattr(plan, "final", lambda recipe, *_: asked.append(f"{recipe.steps} steps"))
    before = plan.Log(tmp_path)
    for fold in (*plan.RUNS["R1"], *plan.RUNS["R2"], plan.RUNS["R3"][0]):
        before.keep(f"lora-60/0/0/{fold}", np.zeros((2, 3)))
    before.save()
    plan.phase_default({}, None, torch.float32, plan.Log(tmp_path), 0)  # type: ignore[arg-type]
    assert asked == ["R3", "R4", "1300 steps"]
