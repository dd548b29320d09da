from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import e, exp, isnan, log, sqrt
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.autograd import gradcheck

from deepscan.errors import DataError, SettingsError
from deepscan.training.losses import (
    MIN_TAU,
    LossSettings,
    fake_leaning,
    fake_likelihood,
    flcl,
    forged_patches,
    gather,
    localisation,
    macl,
    raal,
    token_l2,
)

# Two crops of two patches in the plane. The real one's mean is (0, 2), the fake one's (1/2, 1/2).
LABELS = torch.tensor([0, 1])
PATCHES = torch.tensor([[[0.0, 1.0], [0.0, 3.0]], [[1.0, 0.0], [0.0, 1.0]]])


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Patches (5, 3, 4) in float64 and the labels of two real and three fake crops."""
    patches = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return patches.requires_grad_(), torch.tensor([1, 0, 1, 1, 0])


def spelled_out(patches: Tensor, forged: Tensor, weights: Tensor, tau: float) -> Tensor:
    """The contrast as method.md writes it, pair by pair; `weights` of the forged in their order."""
    z = [patch / patch.norm() for patch in patches.flatten(0, 1)]
    of = forged.flatten().tolist()
    total = torch.zeros((), dtype=patches.dtype)
    anchors = [i for i in range(len(z)) if of[i]]
    for i, weight in zip(anchors, weights.flatten(), strict=True):
        others = {j: torch.exp(z[i] @ z[j] / tau) for j in range(len(z)) if j != i}
        same = sum(value for j, value in others.items() if of[j])
        total = total - weight * torch.log(same / sum(others.values())) / len(anchors)
    return total


# --- settings --------------------------------------------------------------------------------------


def test_the_defaults_are_the_papers_and_ours() -> None:
    settings = LossSettings()
    assert (settings.contrast, settings.flcl) == ("flcl", 0.14)
    assert (settings.alignment, settings.raal) == ("kl", 1.0)
    assert (settings.tau, settings.temperature) == (0.1, 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contrast": "supcon"}, "contrast: 'supcon'; it must be one of flcl, macl, none"),
        ({"alignment": "js"}, "alignment: 'js'; it must be one of kl, l1, l2, token-l2, none"),
        ({"flcl": -0.1}, "flcl: -0.1; a weight must be 0 or more"),
        ({"raal": float("nan")}, "raal: nan"),
        ({"tau": 0.01}, "tau: 0.01; it is 0.02 or more"),
        ({"temperature": 0.0}, "temperature: 0.0; it is above 0"),
    ],
)
def test_settings_without_meaning_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        LossSettings(**change)  # type: ignore[arg-type]


# --- fake likelihood -------------------------------------------------------------------------------


def test_likelihood_and_snr_by_hand() -> None:
    found = fake_likelihood(PATCHES, LABELS, temperature=0.5)
    # (1, 0) is at 45 degrees to mu_f and at 90 to mu_r, (0, 1) at 45 and at 0.
    delta = [sqrt(0.5), sqrt(0.5) - 1]
    assert found.delta.tolist() == [pytest.approx(delta)]
    assert found.weights.tolist() == [pytest.approx([1 / (1 + exp(-x / 0.5)) for x in delta])]
    # The means are (1/2, -3/2) apart; the two deltas lie 1/2 on either side of their mean.
    assert found.snr.item() == pytest.approx(sqrt(0.25 + 2.25) / 0.5)


def test_likelihood_is_detached_and_float32_under_autocast() -> None:
    patches = PATCHES.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = fake_likelihood(patches, LABELS)
    for value in (found.weights, found.delta, found.snr):
        assert value.dtype == torch.float32
        assert not value.requires_grad
    torch.testing.assert_close(found.delta, fake_likelihood(PATCHES, LABELS).delta)


def test_likelihood_without_one_class_is_no_number() -> None:
    no_real = fake_likelihood(PATCHES, torch.tensor([1, 1]))
    assert no_real.weights.shape == (2, 2)
    assert no_real.weights.isnan().all()
    no_fake = fake_likelihood(PATCHES, torch.tensor([0, 0]))
    assert no_fake.weights.shape == (0, 2)
    assert isnan(no_real.snr)
    assert isnan(no_fake.snr)


def test_equal_crops_tell_nothing_apart() -> None:
    found = fake_likelihood(PATCHES[:1].expand(2, -1, -1), LABELS)
    assert found.weights.tolist() == [[0.5, 0.5]]
    assert isnan(found.snr)  # delta is 0 everywhere: no noise, and no signal either


def test_leaning_by_two_known_means_is_the_batchs_where_these_are_its_means() -> None:
    real, fake = PATCHES[0].mean(0), PATCHES[1].mean(0)
    found = fake_leaning(PATCHES, real, fake)
    assert torch.equal(found[1:], fake_likelihood(PATCHES, LABELS).delta)
    assert fake_leaning(PATCHES, fake, real).tolist() == (-found).tolist()


def test_a_patch_of_zeros_resembles_neither() -> None:
    patches = PATCHES.clone()
    patches[1, 1] = 0
    assert fake_likelihood(patches, LABELS).delta[0].tolist() == [1, 0]


# --- masks -----------------------------------------------------------------------------------------


def test_a_patch_is_forged_when_over_half_of_it_is_masked() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[0, 0, 2:] = 1  # half of the upper right patch
    mask[0, 2:, 0] = 1
    mask[0, 2, 1] = 1  # three quarters of the lower left one
    assert forged_patches(mask, 2).tolist() == [[False, False, True, False]]
    mask[0, 1, 2] = 0.1  # a soft edge takes the upper right one over the half
    assert forged_patches(mask, 2).tolist() == [[False, True, True, False]]
    assert forged_patches(mask > 0.5, 2).tolist() == [[False, False, True, False]]


def test_masks_that_cut_through_patches_are_refused() -> None:
    with pytest.raises(DataError, match="256 pixels per side cannot be divided into 14 patches"):
        forged_patches(torch.zeros(1, 256, 256), 14)


# --- contrast --------------------------------------------------------------------------------------


def test_flcl_by_hand() -> None:
    """Fake patches lie along x, real ones along y: cosine 1 within, 0 across."""
    patches = torch.tensor([[[0.0, 1.0], [0.0, 5.0]], [[2.0, 0.0], [3.0, 0.0]]])
    weights = torch.tensor([[0.5, 1.0]])
    # tau = 1: an anchor has one positive, e^1, and two real patches, e^0 each.
    each = -log(e / (e + 2))
    assert flcl(patches, LABELS, weights, tau=1).item() == pytest.approx((0.5 + 1) / 2 * each)


def test_macl_by_hand() -> None:
    """The same, but the fake crop's second patch is outside the mask, and a third crop is forged too."""
    patches = torch.tensor(
        [[[0.0, 1.0], [0.0, 5.0]], [[2.0, 0.0], [3.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]]]
    )
    forged = torch.tensor([[False, False], [True, False], [True, True]])
    # Anchors and their cosines, tau = 1: (2, 0) and (1, 0) have positives at 1 and -1, (-1, 0) two at -1;
    # of the rest two are at 0 and (3, 0) is at 1, or -1 from (-1, 0).
    right = -log((e + 1 / e) / (e + 1 / e + 2 + e))
    left = -log((2 / e) / (2 / e + 2 + 1 / e))
    assert macl(patches, forged, tau=1).item() == pytest.approx((2 * right + left) / 3)


def test_both_equal_the_formula_pair_by_pair(batch: tuple[Tensor, Tensor]) -> None:
    patches, labels = batch
    weights = fake_likelihood(patches, labels).weights
    fake = (labels == 1)[:, None].expand(-1, 3)
    torch.testing.assert_close(
        flcl(patches, labels, weights), spelled_out(patches, fake, weights, 0.1)
    )
    forged = torch.rand(5, 3, generator=torch.Generator().manual_seed(1)) > 0.5
    torch.testing.assert_close(
        macl(patches, forged), spelled_out(patches, forged, torch.ones(int(forged.sum())), 0.1)
    )


@pytest.mark.parametrize("own", [None, slice(1, 4)])
def test_the_gradients_are_the_values_slopes(
    batch: tuple[Tensor, Tensor], own: slice | None
) -> None:
    patches, labels = batch
    weights = fake_likelihood(patches, labels).weights
    forged = torch.rand(5, 3, generator=torch.Generator().manual_seed(1)) > 0.5
    assert gradcheck(lambda x: flcl(x, labels, weights, 0.3, own), patches)
    assert gradcheck(lambda x: macl(x, forged, 0.3, own), patches)


def test_ranks_add_up_to_the_whole(batch: tuple[Tensor, Tensor]) -> None:
    patches, labels = batch
    weights = fake_likelihood(patches, labels).weights
    forged = torch.rand(5, 3, generator=torch.Generator().manual_seed(1)) > 0.5
    # The second rank's only crop is real: it has no anchor.
    ranks = slice(0, 1), slice(1, 2), slice(2, 5)
    for loss in (partial(flcl, patches, labels, weights), partial(macl, patches, forged)):
        whole = loss()
        parts = [loss(own=own) for own in ranks]
        torch.testing.assert_close(sum(parts), whole)
        (slope,) = torch.autograd.grad(sum(parts), patches)
        torch.testing.assert_close(slope, *torch.autograd.grad(whole, patches))


ALL_REAL, ALL_FAKE = torch.tensor([0, 0]), torch.tensor([1, 1])


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: flcl(x, ALL_REAL, fake_likelihood(x, ALL_REAL).weights),
        lambda x: flcl(x, ALL_FAKE, fake_likelihood(x, ALL_FAKE).weights),
        lambda x: flcl(x[1:], LABELS[1:], fake_likelihood(x[1:], LABELS[1:]).weights),
        lambda x: flcl(x[:, :1], LABELS, fake_likelihood(x[:, :1], LABELS).weights),
        lambda x: macl(x, torch.zeros(2, 2, dtype=torch.bool)),
        lambda x: macl(x, torch.ones(2, 2, dtype=torch.bool)),
        lambda x: macl(x, torch.tensor([[False, True], [False, False]])),
        lambda x: raal(x, x[:, 0], ALL_FAKE),
        lambda x: token_l2(x[:, 0], x[:, 1], ALL_FAKE),
    ],
    ids=[
        "no fake crop",
        "no real crop",
        "one crop",
        "one fake patch",
        "no forged patch",
        "all forged",
        "one forged patch",
        "RAAL, no real crop",
        "token-l2, no real crop",
    ],
)
def test_nothing_to_compare_is_a_zero_in_the_graph(loss: Callable[[Tensor], Tensor]) -> None:
    patches = PATCHES.clone().requires_grad_()
    value = loss(patches)
    value.backward()
    assert value.item() == 0
    assert patches.grad is not None
    assert not patches.grad.any()


def test_patches_of_zeros_or_alike_have_finite_gradients() -> None:
    for patches in (torch.zeros(2, 2, 2), torch.ones(2, 2, 2)):
        patches.requires_grad_()
        loss = flcl(patches, LABELS, torch.ones(1, 2))
        loss.backward()
        # Every cosine is the same: of the anchor's three others one is fake.
        assert loss.item() == pytest.approx(log(3))
        assert patches.grad is not None
        assert patches.grad.isfinite().all()


def test_the_smallest_tau_stays_finite_at_the_worst() -> None:
    """Positives opposite to their anchors, real patches on top of them."""
    patches = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).expand(2, -1, -1).clone().requires_grad_()
    loss = flcl(patches, LABELS, torch.ones(1, 2), tau=MIN_TAU)
    loss.backward()
    assert loss.item() == pytest.approx(100)  # (1 - -1) / tau
    assert patches.grad is not None
    assert patches.grad.isfinite().all()


def test_bfloat16_is_computed_in_float32(batch: tuple[Tensor, Tensor]) -> None:
    """Also under autocast: only what bfloat16 patches cannot say is lost."""
    patches, labels = batch[0].detach().bfloat16(), batch[1]
    short, full = patches.clone().requires_grad_(), patches.float().requires_grad_()
    weights = fake_likelihood(full, labels).weights
    with torch.autocast("cpu", torch.bfloat16):
        loss = flcl(short, labels, weights)
        loss.backward()
    expected = flcl(full, labels, weights)
    expected.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()
    assert short.grad is not None
    assert full.grad is not None
    assert torch.equal(short.grad, full.grad.bfloat16())


# --- alignment -------------------------------------------------------------------------------------

# Of two real crops and a fake one. Crop 0's rows are not yet normalised: halves and quarters.
QUERY = torch.tensor([[[0.2, 0.2], [0.3, 0.1]], [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]])
CLS = torch.tensor([[0.1, 0.1], [0.5, 0.5], [0.5, 0.5]])
REAL_REAL_FAKE = torch.tensor([0, 0, 1])


@pytest.mark.parametrize(
    ("metric", "apart"),  # of (3/4, 1/4) and (1/2, 1/2), the one query of four that differs
    [
        ("kl", 0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)),
        ("l1", 0.5),
        ("l2", sqrt(0.125)),
    ],
)
def test_raal_by_hand(metric: str, apart: float) -> None:
    found = raal(QUERY, CLS, REAL_REAL_FAKE, metric)
    assert found.item() == pytest.approx(apart / 4, abs=1e-7)


@pytest.mark.parametrize("metric", ["kl", "l1", "l2"])
def test_raal_is_zero_with_a_finite_gradient_where_attentions_agree(metric: str) -> None:
    cls = torch.tensor([[0.0, 0.25, 0.75]])
    query = cls[:, None].expand(1, 4, 3).bfloat16().requires_grad_()
    loss = raal(query, cls, torch.tensor([0]), metric)
    loss.backward()
    assert loss.item() == 0
    assert loss.dtype == torch.float32
    assert query.grad is not None
    assert query.grad.isfinite().all()


@pytest.mark.parametrize("metric", ["kl", "l1", "l2"])
def test_raal_s_gradient(metric: str) -> None:
    draw = partial(torch.rand, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    query, cls = draw(3, 2, 5).requires_grad_(), draw(3, 5).requires_grad_()
    assert gradcheck(lambda q: raal(q, cls.detach(), REAL_REAL_FAKE, metric), query)
    raal(query, cls, REAL_REAL_FAKE, metric).backward()
    assert cls.grad is None  # [CLS]'s attention is the target, not what moves


def test_token_l2_by_hand() -> None:
    cls = torch.tensor([[1.0, 2.0], [0.0, 0.0], [9.0, 9.0]], requires_grad=True)
    token = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 0.0]], requires_grad=True)
    loss = token_l2(cls, token, REAL_REAL_FAKE)
    loss.backward()
    assert loss.item() == (4 + 9) / 2
    assert token.grad is not None
    assert token.grad.tolist() == [[0, -2], [3, 0], [0, 0]]
    assert cls.grad is None


def test_alignments_of_ranks_add_up_with_the_whole_count() -> None:
    for loss, first, second in ((raal, QUERY, CLS), (token_l2, CLS, QUERY[:, 0])):
        whole = loss(first, second, REAL_REAL_FAKE)
        ranks = [slice(0, 1), slice(1, 2), slice(2, 3)]
        parts = [loss(first[r], second[r], REAL_REAL_FAKE[r], count=2) for r in ranks]
        torch.testing.assert_close(sum(parts), whole)


# --- several processes -----------------------------------------------------------------------------


def test_gather_alone_is_the_tensor_itself() -> None:
    assert gather(PATCHES) is PATCHES


def _rank(rank: int, folder: str) -> None:
    """Rank `rank` of two holds crops 2 rank and 2 rank + 1; leave its gradient in `folder`."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    own = slice(2 * rank, 2 * rank + 2)
    patches, labels = torch.load(f"{folder}/batch.pt")
    mine = patches[own].requires_grad_()
    every, of_every = gather(mine), gather(labels[own])
    weights = fake_likelihood(every, of_every).weights
    flcl(every, of_every, weights, own=own).backward()
    torch.save(mine.grad, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_find_the_gradient_of_one(
    tmp_path: Path, batch: tuple[Tensor, Tensor]
) -> None:
    patches, labels = batch[0].detach()[:4].clone(), batch[1][:4]
    torch.save((patches, labels), tmp_path / "batch.pt")
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    patches.requires_grad_()
    flcl(patches, labels, fake_likelihood(patches, labels).weights).backward()
    found = torch.cat([torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)])
    torch.testing.assert_close(found, patches.grad)


# --- localisation -----------------------------------------------------------------------------------


def test_localisation_is_the_mean_cross_entropy_of_patches_that_are_known() -> None:
    """Odds of 3 and 1 that a patch is manipulated; the third crop's patches are unknown."""
    log_odds = torch.tensor([[log(3), 0.0], [0.0, log(3)], [9.0, -9.0]], requires_grad=True)
    forged = torch.tensor([[True, False], [False, False], [False, False]])
    value = localisation(log_odds, forged, torch.tensor([True, True, False]))
    assert value.item() == pytest.approx((log(4 / 3) + log(2) + log(2) + log(4)) / 4)
    value.backward()
    assert log_odds.grad is not None
    assert log_odds.grad[2].tolist() == [0, 0]


def test_localisation_without_known_patches_is_zero_and_in_the_graph() -> None:
    log_odds = torch.zeros(1, 2, requires_grad=True)
    value = localisation(log_odds, torch.zeros(1, 2, dtype=torch.bool), torch.tensor([False]))
    value.backward()
    assert value.item() == 0
    assert log_odds.grad is not None
    assert log_odds.grad.tolist() == [[0, 0]]
