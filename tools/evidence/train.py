"""Training: the losses, and the steps that make a recipe's detector of the crops to keep."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import binary_cross_entropy_with_logits

from deepscan.faces.alignment import on_face
from deepscan.files import part_file
from deepscan.model import adapters
from deepscan.model.detector import Answer, Detector
from deepscan.model.processor import computes_bfloat16
from deepscan.shapes import Bool, Float, Int
from deepscan.training.losses import macl
from tools.evidence.geometry import GRID, plain_view
from tools.evidence.material import Material, Say
from tools.evidence.recipes import Recipe
from tools.evidence.sampling import Batch, Sampler, batch

SCALE_CROPS = 256  # by which the layers that are read are brought to one scale
NOWHERE = -1e4  # added to queries' scores of patches that they must not look at

CORE = 0.6  # of a patch that lies on the core by more, it is known without a mask that it is manipulated
STRONGEST = 10  # patches, by whose mean a crop without a mask is told
FORGED = 0.5  # of a patch that is manipulated by more, its mask says that it is
CONTRASTED = 24  # patches of each crop, for the contrast
TEMPERATURE = 0.1  # of the contrast, and of its weights


@dataclass(frozen=True, slots=True)
class Setup:
    """What all trainings of a run have in common."""

    material: Material
    base: Mapping[str, Tensor]
    """The base's weights, as checkpoint.read_base gives them."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A detector with averaged weights, and how its training went."""

    recipe: Recipe
    detector: Detector
    history: list[list[Any]]
    """Of some steps: the step, the gradient's norm before it is clipped, the losses."""
    seconds: float
    crops_per_s: int

    def told(self) -> dict[str, Any]:
        """What results.jsonl says of it."""
        return {
            "history": self.history,
            "seconds": self.seconds,
            "crops_per_s": self.crops_per_s,
        }

    def save(self, path: Path) -> None:
        """Write what was trained, matrices in float16, with the recipe as metadata `cfg`."""
        state = {
            name: value.detach().cpu().contiguous()
            for name, value in self.detector.trained_state().items()
        }
        with part_file(path) as part:
            save_file(
                {name: v.half() if v.dim() > 1 else v for name, v in state.items()},
                part,
                {"cfg": json.dumps(asdict(self.recipe))},
            )


def build(recipe: Recipe, setup: Setup) -> Detector:
    """The detector as training finds it, all drawn from the seed; its frozen matrices in autocast's type."""
    material, seed = setup.material, recipe.seed
    detector = Detector(recipe.detector)
    # A copy: what trains of it, LayerNorms, belongs to this detector alone.
    adapters.load_base(detector.tower, {name: v.clone() for name, v in setup.base.items()})
    # Two streams, the tower's and that of what reads it: what was measured with these can be measured again.
    detector.initialise(torch.Generator().manual_seed(seed * 1000 + 1))
    adapters.start(detector.tower, torch.Generator().manual_seed(seed))
    if recipe.norms:
        for module in detector.tower.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)
    if recipe.prior == "fixed":
        face = torch.from_numpy(on_face(recipe.detector.view, GRID))
        place = detector.aggregation.place
        assert place is not None
        place.requires_grad_(False).copy_(torch.where(face, 0.0, NOWHERE))
    detector.to(material.device)
    if recipe.standard:
        with autocast(material.device), torch.no_grad():
            detector.standardise(detector.tokens(some_views(material) / 255))
    if in_bfloat16(material.device):
        adapters.cast_frozen(detector.tower, torch.bfloat16)
    return detector.train()


def some_views(material: Material) -> Float[Tensor, "n 3 224 224"]:
    """SCALE_CROPS whole crops, always the same ones, RGB in 0..255."""
    count = min(SCALE_CROPS, len(material))
    chosen = np.random.default_rng(3).choice(len(material), count, replace=False)
    return plain_view(material.crops[torch.from_numpy(chosen).to(material.device)].float(), 1.0)


def autocast(device: torch.device) -> torch.autocast:
    """The arithmetic of a device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16(device))


def in_bfloat16(device: torch.device) -> bool:
    """Whether towers compute in bfloat16: on GPUs, and on processors that have it."""
    return device.type == "cuda" or computes_bfloat16()


def answer(
    detector: Detector,
    images: Float[Tensor, "b 3 224 224"],
    keep: Int[Tensor, " p"] | None = None,
) -> Answer:
    """What the detector finds in views, RGB in 0..255, by all patches or those to `keep`."""
    with autocast(images.device):
        return detector.answer(images / 255, keep)


def train(
    recipe: Recipe,
    setup: Setup,
    keep: Bool[np.ndarray, " n"],
    say: Say,
    deadline: float = math.inf,
) -> Trained:
    """Train on the crops to keep, until the clock (time.time) says `deadline` at the latest."""
    torch.manual_seed(recipe.seed)
    material = setup.material
    detector = build(recipe, setup)
    sampler = Sampler(material, keep, recipe, recipe.seed)
    learning = Learning(recipe, detector)
    history, start = [], time.time()
    for step in range(recipe.steps):
        with torch.no_grad():
            shown = batch(material, sampler.draw(recipe.batch // 2), recipe)
        looked_at = some_patches(recipe.patches, material.device)
        found = answer(detector, shown.images, looked_at)
        loss, terms = losses(found, detector, recipe, shown.by(looked_at))
        norm = learning.step(loss, step)
        if step % max(1, recipe.steps // 8) == 0 or step == recipe.steps - 1:
            told = {name: round(float(value), 4) for name, value in terms.items()}
            history.append([step, float(norm), told])
            say(f"{recipe.name}: step {step}, {time.time() - start:.0f} s, {told}")
        if time.time() > deadline:
            say(f"{recipe.name}: stopped at step {step} by the clock")
            break
    learning.end()
    if material.device.type == "cuda":
        torch.cuda.synchronize()
    took = time.time() - start
    speed = round(recipe.batch * (step + 1) / took)
    return Trained(recipe, detector.eval(), history, round(took, 2), speed)


class Learning:
    """AdamW on what trains of a detector, and the average of its weights over the steps."""

    def __init__(self, recipe: Recipe, detector: Detector) -> None:
        self._recipe = recipe
        groups = _groups(recipe, detector)
        self.params = [parameter for group in groups for parameter in group["params"]]
        fused = detector.mean.device.type == "cuda"
        self._optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=fused)
        self._rates = [group["lr"] for group in groups]
        self._mean = [parameter.detach().clone() for parameter in self.params]

    def step(self, loss: Float[Tensor, ""], step: int) -> Float[Tensor, ""]:
        """Learn from a loss; the gradient's norm before it is clipped."""
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * rate_share(step, self._recipe.steps)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.params, 1.0, foreach=True)
        self._optimizer.step()
        kept = min(self._recipe.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._mean, [p.detach() for p in self.params], 1 - kept)
        return norm

    @torch.no_grad()
    def end(self) -> None:
        """Give the detector the averaged weights."""
        for parameter, value in zip(self.params, self._mean, strict=True):
            parameter.copy_(value)


def rate_share(step: int, steps: int) -> float:
    """Share of the highest rate at a step: up in a line for a twelfth of all steps, then down a cosine."""
    warm = max(5, steps // 12)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def some_patches(share: float, device: torch.device) -> Int[Tensor, " p"] | None:
    """Numbers of as many patches, drawn without order; None: all."""
    if share == 1:
        return None
    return torch.randperm(GRID**2, device=device)[: round(share * GRID**2)]


def _groups(recipe: Recipe, detector: Detector) -> list[dict[str, Any]]:
    """AdamW's groups of what trains: LayerNorms of the tower without decay, lora, what reads the tower."""
    groups: dict[str, dict[str, Any]] = {
        "norm": {"params": [], "lr": recipe.lr_norm, "weight_decay": 0.0},
        "lora": {"params": [], "lr": recipe.lr_lora, "weight_decay": recipe.decay},
        "head": {"params": [], "lr": recipe.lr_head, "weight_decay": recipe.decay},
    }  # fmt: skip
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            of_tower = "lora" if ".change." in name else "norm"
            kind = of_tower if name.startswith("tower.") else "head"
            groups[kind]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


# --- losses ------------------------------------------------------------------------------------------


def losses(
    found: Answer, detector: Detector, recipe: Recipe, shown: Batch
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The weighted sum of the recipe's losses, and some of them unweighted: crop, patch, contrast."""
    of_crops = binary_cross_entropy_with_logits(found.logit, shown.labels, reduction="none")
    total = (of_crops * shown.weight).sum() / shown.weight.sum().clamp_min(1)
    terms = {"crop": total.detach()}
    if recipe.patch != "none":
        assert found.evidence is not None
        taught = recipe.patch == "evidence"
        logits = detector.located(found.evidence) if taught else reading(found)
        loss = of_patches(logits, shown, recipe.assumed)
        total = total + recipe.patch_weight * loss
        terms["patch"] = loss.detach()
        if recipe.mil:
            total = total + recipe.mil * of_strongest(logits, shown)
    if recipe.flcl:
        loss = contrast(found.patches.float(), shown.labels)
        total = total + recipe.flcl * loss
        terms["contrast"] = loss.detach()
    if recipe.macl:
        loss = contrast_by_masks(found.patches.float(), shown)
        total = total + recipe.macl * loss
        terms["contrast by masks"] = loss.detach()
    if recipe.raal:
        assert found.query_attention is not None
        attention = found.query_attention.mean(1)
        total = total + recipe.raal * divergence(attention, found.cls_attention, shown.labels)
    return total, terms


def reading(found: Answer) -> Float[Tensor, "b p"]:
    """What the logit would be if queries looked at one patch alone."""
    assert found.evidence is not None
    assert found.query_attention is not None
    assert found.constant is not None
    attention = found.query_attention.mean(1).clamp_min(1e-9)
    return found.evidence / attention + found.constant.detach().mean()


def divergence(
    own: Float[Tensor, "b p"], cls: Float[Tensor, "b p"], labels: Float[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Mean Kullback-Leibler divergence of an attention from [CLS]'s, of real crops."""
    own, cls = (x[labels == 0].clamp_min(1e-12) for x in (own, cls))
    return (own * (own.log() - cls.log())).sum(-1).mean()


def of_patches(logits: Float[Tensor, "b p"], shown: Batch, assumed: float) -> Float[Tensor, ""]:
    """Mean cross-entropy of patches with the share of them that is manipulated.

    Where that is not known, core patches count as manipulated, with the weight `assumed`, others not at all.
    """
    known = shown.known[:, None]
    core = (~known & (shown.core > CORE)).float() * assumed
    one = torch.ones_like(shown.truth)
    weight = torch.where(known, one, core) * shown.weight[:, None]
    wanted = torch.where(known, shown.truth, one)
    each = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (each * weight).sum() / weight.sum().clamp_min(1)


def of_strongest(logits: Float[Tensor, "b p"], shown: Batch) -> Float[Tensor, ""]:
    """Cross-entropy of the mean of the strongest patches on the face, of manipulated crops without a mask."""
    some = (~shown.known & (shown.labels > 0)) * shown.weight
    on_the_face = logits.masked_fill(shown.face < 0.5, -30.0)
    strongest = on_the_face.topk(STRONGEST, 1).values.mean(1)
    return (functional.softplus(-strongest) * some).sum() / some.sum().clamp_min(1)


def contrast(patches: Float[Tensor, "b p d"], labels: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """FLCL of CONTRASTED patches of each crop, drawn anew: see deepscan.training.losses.flcl."""
    count, width = patches.shape[1:]
    z = functional.normalize(patches, dim=-1)
    drawn = torch.randint(0, count, (len(z), CONTRASTED), device=z.device)
    z = torch.gather(z, 1, drawn[..., None].expand(-1, -1, width))
    manipulated = labels > 0
    fake = functional.normalize(patches[manipulated].mean((0, 1)), dim=0)
    real = functional.normalize(patches[~manipulated].mean((0, 1)), dim=0)
    likely = torch.sigmoid(z @ (fake - real) / TEMPERATURE).detach() * manipulated[:, None]
    forged = manipulated[:, None].expand(-1, CONTRASTED).flatten()
    flat = z.flatten(0, 1)
    alike = flat @ flat.T / TEMPERATURE
    alike = alike.masked_fill(torch.eye(len(flat), dtype=torch.bool, device=z.device), -1e4)
    positive = alike.masked_fill(~forged[None], -1e4).logsumexp(1)
    each = likely.flatten() * (positive - alike.logsumexp(1))
    return -each.sum() / forged.sum().clamp_min(1)


def contrast_by_masks(patches: Float[Tensor, "b p d"], shown: Batch) -> Float[Tensor, ""]:
    """MACL of CONTRASTED patches of each crop with a mask, drawn anew: see deepscan.training.losses.macl."""
    taking_part = shown.known & (shown.weight > 0)
    known, truth = patches[taking_part], shown.truth[taking_part]
    drawn = torch.randint(0, known.shape[1], (len(known), CONTRASTED), device=known.device)
    chosen = torch.gather(known, 1, drawn[..., None].expand(-1, -1, known.shape[2]))
    return macl(chosen, torch.gather(truth, 1, drawn) > FORGED, TEMPERATURE)
