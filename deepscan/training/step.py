"""One training step on a batch: the objective, its gradient, and how both spread over processes.

Alone, or as one of several processes that torchrun started: the batch is then spread over them, and what
is learnt is the same.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel

from deepscan.model import adapters
from deepscan.model.detector import Answer, Detector
from deepscan.shapes import Bool, Float, Int, UInt8
from deepscan.training import losses
from deepscan.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that share a run."""

    rank: int
    world: int
    device: str

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0


@contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, if it did (its environment variables say so)."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(0, 1, device)
        return
    if device.startswith("cuda"):  # tell the processes' GPUs apart
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Ranks(distributed.get_rank(), world, device)
    finally:
        distributed.destroy_process_group()


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of a batch, on the CPU: forged patches, whether they are known, and labels."""

    forged: Bool[Tensor, "b p"]
    has_mask: Bool[Tensor, " b"]
    labels: Float[Tensor, " b"]

    def chunk(self, parts: int) -> list[Targets]:
        """The same of the batch's parts."""
        every = (x.chunk(parts) for x in (self.forged, self.has_mask, self.labels))
        return [Targets(*part) for part in zip(*every, strict=True)]


class Learner:
    """A detector with what a training step needs, for `fit` and the benchmarks of speed alike."""

    def __init__(self, detector: Detector, settings: TrainSettings, ranks: Ranks) -> None:
        self._detector, self._settings, self._ranks = detector, settings, ranks
        self.trained = [p for p in detector.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        pretrained = settings.yardstick == "pretrained"
        self._yardstick = copy.deepcopy(detector.tower) if pretrained else None
        self._model = _wrapped(detector, settings, ranks)

    def step(
        self,
        crops: UInt8[Tensor, "b 256 256 3"],
        targets: Targets,
        lr: float,
        keep: Int[Tensor, " p"] | None = None,
    ) -> tuple[Float[Tensor, ""], list[dict[str, Tensor]]]:
        """One step at the rate `lr` on this process's crops, of whose patches those to `keep` are looked at.

        Returns:
            The gradient's norm before it is clipped, and of each part of the batch the objective's terms.
        """
        settings, ranks = self._settings, self._ranks
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        if keep is not None:
            targets = replace(targets, forged=targets.forged[:, keep])
            keep = keep.to(ranks.device)
        parts, terms = settings.accumulate, list[dict[str, Tensor]]()
        for part, own in zip(crops.chunk(parts), targets.chunk(parts), strict=True):
            waits = ranks.world > 1 and len(terms) < parts - 1
            with cast(DistributedDataParallel, self._model).no_sync() if waits else nullcontext():
                part = part.to(ranks.device, non_blocking=True)
                with _autocast(settings, ranks):
                    answer = self._model(part, keep)
                    if self._yardstick is not None:
                        answer = self._detector.held_to(answer, self._yardstick, part, keep)
                loss, found = objective(
                    self._detector, answer, own.forged, own.has_mask, own.labels, settings, ranks
                )
                torch.autograd.backward(loss / parts)
            terms.append(found)
        norm = nn.utils.clip_grad_norm_(self.trained, settings.max_norm)
        self.optimizer.step()
        return norm, terms


def kept_patches(count: int, settings: TrainSettings, step: int) -> Int[Tensor, " p"] | None:
    """Which of `count` patches a step looks at, a pure function of seed and step; None: all.

    One choice for the whole batch, so that the losses compare like with like.
    Source: Y. Li et al., "Scaling Language-Image Pre-training via Masking", CVPR 2023.
    """
    if settings.patches == 1:
        return None
    kept = max(1, round(settings.patches * count))
    rng = np.random.default_rng([settings.seed, 4, step])
    return torch.from_numpy(np.sort(rng.permutation(count)[:kept]))


def objective(
    detector: Detector,
    answer: Answer,
    forged: Bool[Tensor, "b p"],
    has_mask: Bool[Tensor, " b"],
    labels: Float[Tensor, " b"],
    settings: TrainSettings,
    ranks: Ranks,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The weighted sum of LossSettings' terms, and each term unweighted.

    The targets stay on the CPU: they are counted there, and no GPU is waited for. Terms that need the whole
    batch gather it from all ranks, and each rank answers for its own crops' share; DDP divides gradients by
    their number, hence the factor. Crops without a mask take no part in MACL and localisation.
    """
    chosen, b = settings.losses(), len(answer.logit)
    whole = _gathered(labels, ranks)
    reals, own = int((whole == 0).sum()), slice(ranks.rank * b, (ranks.rank + 1) * b)
    value = binary_cross_entropy_with_logits(
        answer.logit, labels.to(ranks.device, non_blocking=True)
    )
    weighted = {"classification": (1.0, value)}
    terms: dict[str, Tensor] = {}
    if chosen.contrast != "none":
        patches = losses.gather(answer.patches)
        if chosen.contrast == "flcl":
            likely = losses.fake_likelihood(patches, whole, chosen.temperature)
            terms["snr"] = likely.snr
            value = losses.flcl(patches, whole, likely.weights, chosen.tau, own)
        else:
            masked = _gathered(has_mask, ranks)
            before, until = int(masked[: own.start].sum()), int(masked[: own.stop].sum())
            forged = _gathered(forged, ranks)[masked]
            places = masked.nonzero().squeeze(1).to(ranks.device, non_blocking=True)
            value = losses.macl(patches[places], forged, chosen.tau, slice(before, until))
        weighted["contrast"] = chosen.flcl, ranks.world * value
    if chosen.alignment == "token-l2":
        assert answer.global_token is not None
        value = losses.token_l2(answer.cls, answer.global_token, labels, reals, chosen.squared)
        weighted["alignment"] = chosen.raal, ranks.world * value
    elif chosen.alignment != "none":
        assert answer.query_attention is not None
        value = losses.raal(
            answer.query_attention, answer.cls_attention, labels, chosen.alignment, reals
        )
        weighted["alignment"] = chosen.raal, ranks.world * value
    if chosen.localisation:
        assert answer.evidence is not None
        value = losses.localisation(detector.located(answer.evidence), forged, has_mask)
        weighted["localisation"] = chosen.localisation, value
    if settings.orthogonality or settings.keeping:
        orthogonality, keeping = adapters.penalties(detector.tower)
        value = settings.orthogonality * orthogonality + settings.keeping * keeping
        weighted["penalty"] = 1.0, value
    loss = torch.stack([weight * term for weight, term in weighted.values()]).sum()
    terms |= {name: term.detach() for name, (_, term) in weighted.items()}
    return loss, terms | {"loss": loss.detach()}


def _gathered(x: Tensor, ranks: Ranks) -> Tensor:
    """All ranks' tensors of the CPU one after another; alone, the tensor."""
    return x if ranks.world == 1 else losses.gather(x.to(ranks.device)).cpu()


def _wrapped(detector: Detector, settings: TrainSettings, ranks: Ranks) -> nn.Module:
    """The detector as it is called in training: compiled and spread, where asked for."""
    if ranks.device != "cpu" and settings.precision == "bfloat16":
        # What is left in float32, the losses foremost, may use TF32: ten bits where the tower has eight.
        torch.set_float32_matmul_precision("high")
    model: nn.Module = detector
    if settings.compile:
        model = cast(nn.Module, torch.compile(detector))
    if ranks.world > 1:
        # Not every parameter has a part in every score: CLIP's projection to text has none.
        model = DistributedDataParallel(model, find_unused_parameters=True)
    return model


def _autocast(settings: TrainSettings, ranks: Ranks) -> torch.autocast:
    kind = ranks.device.split(":")[0]
    return torch.autocast(kind, torch.bfloat16, enabled=settings.precision == "bfloat16")
