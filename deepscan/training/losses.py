"""The losses added to cross-entropy: pure functions of tokens, attentions, labels and masks.

FLCL and MACL contrast the patches of a batch, RAAL and token-l2 hold the detector to [CLS] on real crops.
What they leave open in the paper is decided in `LossSettings`' defaults.

All compute in float32 at least, whatever comes in and whatever autocast is around. A batch in which a
loss has nothing to compare gives a 0 that still hangs in the graph, so that every process runs the
same backward pass. Labels best stay on the CPU: only their counts are needed, and a GPU is not waited for.

Several processes: each rank hands in the `gather`ed batch and its `own` crops (or its own crops and the
whole batch's `count` of real ones). The ranks' values add up to the whole batch's loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import binary_cross_entropy_with_logits

from deepscan.errors import DataError, SettingsError
from deepscan.shapes import Bool, Float, Int, Real

Labels = Real[Tensor, " b"]  # 1 = manipulated, 0 = real

CONTRASTS = ("flcl", "macl", "none")
ALIGNMENTS = ("kl", "l1", "l2", "token-l2", "none")

# exp(s / tau) of cosines s and its sums stay inside float32's range (e^-87 to e^88) without the usual
# pass over all pairs for a maximum: at 0.02 they reach e^-50 to e^50, times the number of patches.
MIN_TAU = 0.02

NO_DIRECTION = 1e-8  # a vector shorter than this has cosine 0 with everything
NO_ATTENTION = 1e-12  # less than this counts as this much inside a logarithm


@dataclass(frozen=True, slots=True)
class LossSettings:
    """L = L_cls + flcl L_contrast + raal L_alignment + localisation L_localisation.

    Raises:
        SettingsError: a name is unknown or a number out of range.
    """

    contrast: str = "flcl"  # flcl | macl (needs masks) | none
    flcl: float = 0.14  # weight of the contrast, whichever it is
    alignment: str = "kl"  # kl | l1 | l2: RAAL's metric; token-l2 | none
    raal: float = 1.0  # weight of the alignment
    squared: bool = True  # token-l2's distance; else the distance itself
    tau: float = 0.1  # temperature of the contrast
    temperature: float = 0.1  # of the fake likelihood's sigmoid
    localisation: float = 0.0  # weight of telling manipulated patches from others, where masks are

    def __post_init__(self) -> None:
        for name, allowed in (("contrast", CONTRASTS), ("alignment", ALIGNMENTS)):
            if getattr(self, name) not in allowed:
                raise SettingsError(
                    f"{name}: {getattr(self, name)!r}; it must be one of {', '.join(allowed)}"
                )
        for name in ("flcl", "raal", "localisation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name}: {getattr(self, name)}; a weight must be 0 or more")
        if not MIN_TAU <= self.tau < math.inf:
            raise SettingsError(f"tau: {self.tau}; it is {MIN_TAU} or more, 0.1 by default")
        if not 0 < self.temperature < math.inf:
            raise SettingsError(f"temperature: {self.temperature}; it is above 0, 0.1 by default")


# --- which patches look manipulated ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FakeLikelihood:
    """How much more each patch of the fake crops resembles the mean fake patch than the mean real one."""

    weights: Float[Tensor, "n_fake p"]  # sigmoid(delta / T), in 0..1
    delta: Float[Tensor, "n_fake p"]  # s(z, mu_f) - s(z, mu_r), in -2..2
    snr: Float[Tensor, ""]  # |mu_r - mu_f| / std(delta); under 1 the weights mean nothing


@torch.no_grad()
def fake_likelihood(
    patches: Float[Tensor, "b p d"], labels: Labels, temperature: float = 0.1
) -> FakeLikelihood:
    """Weights of FLCL, detached; mu_r and mu_f are the mean patches of all real and all fake crops.

    Under several processes every rank computes all of it from the gathered batch: it is cheap, and
    the SNR is the batch's. std is over all delta, divided by their number.

    Returns:
        All nan without a real crop. No weights, and SNR nan, without a fake one. SNR is nan as well where
        delta does not vary: there is no noise to compare with.
    """
    patches = _full(patches)
    fake = patches[_crops(labels, 1, patches.device)]
    real = patches[_crops(labels, 0, patches.device)]
    mean_fake, mean_real = fake.mean((0, 1)), real.mean((0, 1))
    delta = fake_leaning(fake, mean_real, mean_fake)
    gap = torch.linalg.vector_norm(mean_real - mean_fake)
    spread = (delta - delta.mean()).square().mean().sqrt()  # Tensor.std() warns of an empty delta
    snr = torch.where(spread > 0, gap / spread, torch.nan)
    return FakeLikelihood(torch.sigmoid(delta / temperature), delta, snr)


def fake_leaning(
    patches: Float[Tensor, "b p d"], real: Float[Tensor, " d"], fake: Float[Tensor, " d"]
) -> Float[Tensor, "b p"]:
    """FLCL's delta of each patch z, s(z, mu_f) - s(z, mu_r) in -2..2, by the two mean patches."""
    with torch.autocast(patches.device.type, enabled=False):
        patches = _full(patches)
        towards_fake = _scale(fake) * fake - _scale(real) * real
        return (patches @ towards_fake) * _scale(patches).squeeze(-1)


def forged_patches(
    masks: Bool[Tensor, "b side side"] | Float[Tensor, "b side side"], grid: int, share: float = 0.5
) -> Bool[Tensor, "b p"]:
    """Patches more than a `share` of which is masked, row by row; `grid` patches a side, masks in 0..1.

    Raises:
        DataError: the masks do not divide into whole patches.
    """
    side = masks.shape[-1]
    if side % grid:
        raise DataError(
            f"masks of {side} pixels per side cannot be divided into {grid} patches; "
            "resize them to the tower's input first"
        )
    masked = torch.nn.functional.avg_pool2d(masks.float(), side // grid)
    return masked.flatten(1) > share


def localisation(
    log_odds: Float[Tensor, "b p"], forged: Bool[Tensor, "b p"], has_mask: Bool[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy of patches, of the crops that have a mask.

    A real crop has one: none of its patches is forged.
    """
    log_odds = _full(log_odds)
    if not has_mask.any():
        return (log_odds * 0).sum()
    places = has_mask.nonzero().squeeze(1)
    wanted = forged[places].to(log_odds, non_blocking=True)
    chosen = log_odds[places.to(log_odds.device, non_blocking=True)]
    return binary_cross_entropy_with_logits(chosen, wanted)


# --- contrast --------------------------------------------------------------------------------------


def flcl(
    patches: Float[Tensor, "b p d"],
    labels: Labels,
    weights: Float[Tensor, "n_fake p"],
    tau: float = 0.1,
    own: slice | None = None,
) -> Float[Tensor, ""]:
    """Fake-likelihood contrastive learning: patches of fake crops against those of real ones.

    Anchors are all patches of fake crops, weighted by `fake_likelihood`; each one's positives are all the
    others. Source: QTFP (CVPR 2026), as summarised in public; its equations were not available.

    Args:
        own: the crops whose anchors are counted, all by default; always divided by the whole's number.
    """
    fake = (labels.cpu() == 1)[:, None].expand(-1, patches.shape[1])
    return contrastive(patches, fake, weights.flatten(), tau, own)


def macl(
    patches: Float[Tensor, "b p d"],
    forged: Bool[Tensor, "b p"],
    tau: float = 0.1,
    own: slice | None = None,
) -> Float[Tensor, ""]:
    """Mask-aware contrastive learning, FLCL's oracle: forged patches against all others.

    Patches of fake crops outside the mask count as real. Every forged patch weighs 1.
    Source: QTFP (CVPR 2026), supplement 2.1.

    Args:
        own: as in `flcl`.
    """
    return contrastive(patches, forged, None, tau, own)


def contrastive(
    patches: Float[Tensor, "b p d"],
    forged: Bool[Tensor, "b p"],
    weights: Float[Tensor, " f"] | None,
    tau: float,
    own: slice | None,
) -> Float[Tensor, ""]:
    """-1/f sum_i w_i log(sum_{j forged, j != i} e_ij / sum_{j != i} e_ij), e_ij = exp(cos(z_i, z_j) / tau).

    Anchors i are the f forged patches, or those of them in the crops `own`; None weighs each 1. A forged
    patch that is the only one has no positive and is left out; without other patches to tell forged
    ones from, the logarithm is 0. So both give 0.

    A patch of length 0 has cosine 0 with all others and no gradient. Weights get no gradient.
    """
    start, stop, _ = (own or slice(None)).indices(len(forged))
    forged = forged.cpu()  # on a GPU, counting and nonzero would be waited for
    first, last = int(forged[:start].sum()), int(forged[:stop].sum())
    flat = forged.flatten()
    places = flat.nonzero().squeeze(1), (~flat).nonzero().squeeze(1)
    if len(places[0]) < 2 or not len(places[1]) or first == last:
        return _full(patches)[:0].sum()
    if weights is None:
        weights = torch.ones(len(places[0]), device=patches.device)
    device = patches.device
    with torch.autocast(device.type, enabled=False):
        tokens = _full(patches.flatten(0, 1))
        return _Contrast.apply(
            tokens,
            *(place.to(device, non_blocking=True) for place in places),
            weights[first:last].to(tokens.dtype),
            first,
            tau,
        )


class _Contrast(torch.autograd.Function):
    """`contrastive`, its gradient worked out on the way.

    Autograd would walk over the pairs some ten times; here nearly all the time goes into the matrix
    products. With P_i and R_i the sums of e_ij over i's positives and over the rest, and s the cosines,

        L = 1/f sum_i w_i log(1 + R_i / P_i)
        dL/ds_ij = -w_i / (f tau) e_ij R_i / (P_i (P_i + R_i)) for a positive j,
                    w_i / (f tau) e_ij / (P_i + R_i)           for one of the rest.

    L is one number, so backward has only to scale what forward found, and no pair outlives forward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        forged: Tensor,
        rest: Tensor,
        weights: Tensor,
        first: int,
        tau: float,
    ) -> Tensor:
        scale = _scale(tokens)
        units = tokens * scale
        same, other = units[forged], units[rest]
        own = slice(first, first + len(weights))
        anchors = same[own]

        tilted = anchors / tau
        positive = tilted @ same.T
        positive.diagonal(first).fill_(-torch.inf)  # no patch is its own positive
        positive.exp_()
        negative = (tilted @ other.T).exp_()
        log_p, log_r = positive.sum(1).log(), negative.sum(1).log()
        odds = log_r - log_p
        loss = weights @ torch.nn.functional.softplus(odds) / len(same)

        share = weights / (len(same) * tau)
        pull = -share * odds.sigmoid() * (-log_p).exp()
        push = (share * (-torch.logaddexp(log_p, log_r)).exp())[:, None]
        to_anchors = push * (negative @ other)
        to_other = negative.T @ (push * anchors)
        if len(anchors) == len(same):  # e is symmetric: one product serves both ends of a pair
            to_same = torch.addmm(to_anchors, positive.mul_(pull[:, None] + pull), same)
        else:
            positive.mul_(pull[:, None])
            to_same = positive.T @ anchors
            to_same[own] += to_anchors.addmm_(positive, same)

        gradient = torch.empty_like(tokens)
        gradient[forged], gradient[rest] = to_same, to_other
        along = torch.linalg.vecdot(units, gradient)[:, None]  # of no effect on a unit vector
        ctx.save_for_backward(gradient.addcmul_(units, along, value=-1).mul_(scale))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (of_tokens,) = ctx.saved_tensors
        return of_tokens * gradient, None, None, None, None, None


# --- alignment -------------------------------------------------------------------------------------


def _kl(a: Tensor, b: Tensor) -> Tensor:
    return (a * (a.clamp_min(NO_ATTENTION).log() - b.clamp_min(NO_ATTENTION).log())).sum(-1)


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": _kl,
    "l1": lambda a, b: (a - b).abs().sum(-1),
    "l2": lambda a, b: torch.linalg.vector_norm(a - b, dim=-1),  # its gradient at 0 is 0
}


def raal(
    query_attention: Float[Tensor, "b k p"],
    cls_attention: Float[Tensor, "b p"],
    labels: Labels,
    metric: str = "kl",
    count: int | None = None,
) -> Float[Tensor, ""]:
    """Real-aware attention alignment: mean over real crops and queries of metric(a_query, a_cls).

    Both attentions are renormalised over patches; [CLS]'s is the fixed target.
    Source: QTFP (CVPR 2026), supplement 2.2-2.3 and Table 4: kl is KL(a_query || a_cls) in nats, l1 the sum
    of absolute differences, l2 the Euclidean norm.

    Args:
        count: real crops in the whole batch, where this is one rank's part of it.
    """
    real = _crops(labels, 0, query_attention.device)
    query = _distribution(_full(query_attention)[real])
    cls = _distribution(_full(cls_attention.detach())[real])
    distance = METRICS[metric](query, cls[:, None])
    return distance.sum() / max(1, _count(real, count) * query.shape[1])


def token_l2(
    cls: Float[Tensor, "b d"],
    global_token: Float[Tensor, "b d"],
    labels: Labels,
    count: int | None = None,
    squared: bool = True,
) -> Float[Tensor, ""]:
    """Mean over real crops of |c - g|_2^2, or of |c - g|_2: RAAL's alternative, which aligns tokens.

    Source: QTFP (CVPR 2026), supplement Table 4. That [CLS] is detached, as RAAL's target is, is our
    decision: the paper does not say.

    Args:
        count: as in `raal`.
    """
    real = _crops(labels, 0, global_token.device)
    apart = _full(global_token)[real] - _full(cls.detach())[real]
    lengths = apart.square().sum(1) if squared else torch.linalg.vector_norm(apart, dim=1)
    return lengths.sum() / max(1, _count(real, count))


# --- several processes -----------------------------------------------------------------------------


def gather(tensor: Tensor) -> Tensor:
    """The ranks' tensors one after another along dim 0, which must be of one shape; alone, the tensor.

    Differentiable: a rank's gradient is the sum of what all ranks' losses ask of its part. So a loss
    that is a sum over ranks gets its whole gradient, which DDP then divides by the number of ranks.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return tensor
    return torch.cat(all_gather(tensor))  # type: ignore[no-untyped-call]


# --- small parts -----------------------------------------------------------------------------------


def _full(x: Tensor) -> Tensor:
    """float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _crops(labels: Labels, label: int, device: torch.device) -> Int[Tensor, " n"]:
    """Places of the crops of one label."""
    return (labels.cpu() == label).nonzero().squeeze(1).to(device, non_blocking=True)


def _count(real: Int[Tensor, " n"], count: int | None) -> int:
    return len(real) if count is None else count


def _scale(x: Float[Tensor, "... d"]) -> Float[Tensor, "... 1"]:
    """1 / |x|; 0 for what has no direction, whose gradient would otherwise be boundless."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(length > NO_DIRECTION, 1 / length, 0)


def _distribution(attention: Float[Tensor, "... p"]) -> Float[Tensor, "... p"]:
    return attention / attention.sum(-1, keepdim=True).clamp_min(NO_ATTENTION)
