"""Training: the losses of a head, and the steps that make a recipe's detector of the crops to keep."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
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
from deepscan.shapes import Bool, Float
from tools.evidence.geometry import GRID, plain_view
from tools.evidence.material import Material, Say
from tools.evidence.model import Head, Tower
from tools.evidence.recipes import HeadSettings, Recipe, TowerSettings
from tools.evidence.sampling import Batch, Sampler, batch

Scales = Mapping[int, tuple[Float[Tensor, " d"], Float[Tensor, " d"]]]

CORE = 0.6  # of a patch that lies on the core by more, it is known without a mask that it is manipulated
STRONGEST = 10  # patches, by whose mean a crop without a mask is told
CONTRASTED = 24  # patches of each crop, for the contrast
TEMPERATURE = 0.1  # of the contrast, and of its weights


@dataclass(frozen=True, slots=True)
class Setup:
    """What all trainings of a run have in common."""

    material: Material
    base: Mapping[str, Tensor]
    """The base's weights on the device, as model.load_base gives them."""
    scales: Scales
    """Of each layer of the base: mean and deviation of each channel over patches."""
    half: torch.dtype
    """In which matrices are multiplied."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A detector with averaged weights, and how its training went."""

    recipe: Recipe
    tower: Tower
    heads: nn.ModuleList
    history: list[list[Any]]
    """Of some steps: the step, the gradient's norm before it is clipped, the first head's losses."""
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
        """Write tower and first head, matrices in float16, with the recipe as metadata `cfg`."""
        state = {f"tower.{k}": v for k, v in self.tower.state_dict().items()}
        state |= {f"head.{k}": v for k, v in self.heads[0].state_dict().items()}
        state = {k: v.detach().cpu().contiguous() for k, v in state.items()}
        with part_file(path) as part:
            save_file(
                {k: v.half() if v.dim() > 1 else v for k, v in state.items()},
                part,
                {"cfg": json.dumps(asdict(self.recipe))},
            )


@torch.no_grad()
def scales(
    base: Mapping[str, Tensor], material: Material, half: torch.dtype, count: int = 256
) -> Scales:
    """Mean and deviation of each layer's normalised channels, over the patches of `count` crops."""
    tower = Tower(TowerSettings("none", depth=12), base, material.device, half, 0)
    rng = np.random.default_rng(3)
    chosen = rng.choice(len(material), min(count, len(material)), replace=False)
    seen: dict[int, list[Tensor]] = {layer: [] for layer in range(1, 13)}
    for part in torch.from_numpy(chosen).to(material.device).split(64):
        tokens = tower(plain_view(material.crops[part].float(), 1.0), list(seen))
        for layer, x in tokens.items():
            plain = functional.layer_norm(x[:, 1:].float(), x.shape[-1:])
            seen[layer].append(plain.flatten(0, 1))
    whole = {layer: torch.cat(parts) for layer, parts in seen.items()}
    return {layer: (x.mean(0).cpu(), x.std(0).clamp_min(0.05).cpu()) for layer, x in whole.items()}


def build(recipe: Recipe, setup: Setup) -> tuple[Tower, nn.ModuleList]:
    """Tower and heads as training finds them."""
    base, device = setup.base, setup.material.device
    post = (base["ln_post.weight"].float().cpu(), base["ln_post.bias"].float().cpu())
    tower = Tower(recipe.tower, base, device, setup.half, recipe.seed)
    face = torch.from_numpy(on_face(recipe.margin, GRID))
    heads = nn.ModuleList(
        Head(settings, face, recipe.seed * 1000 + i, post, setup.scales)
        for i, settings in enumerate(recipe.heads)
    )
    return tower.to(device), heads.to(device)


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
    tower, heads = build(recipe, setup)
    sampler = Sampler(material, keep, recipe, recipe.seed)
    groups = _groups(recipe, tower, heads)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=material.device.type == "cuda")
    rates = [group["lr"] for group in groups]
    params = [p for group in groups for p in group["params"]]
    mean = [p.detach().clone() for p in params]
    wanted = sorted({layer for settings in recipe.heads for layer in settings.layers})
    looks = any(settings.raal for settings in recipe.heads)
    history, start = [], time.time()
    for step in range(recipe.steps):
        with torch.no_grad():
            shown = batch(material, sampler.draw(recipe.batch // 2), recipe)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * rate_share(step, recipe.steps)
        with torch.set_grad_enabled(bool(list(tower.parameters()))):
            tokens = tower(shown.images, wanted, looks)
        total, terms = torch.zeros((), device=material.device), []
        for settings, head in zip(recipe.heads, heads, strict=True):
            loss, parts = losses(head(tokens), head, settings, shown)
            total = total + loss
            terms.append(parts)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(params, len(heads) ** 0.5, foreach=True)
        optimizer.step()
        kept = min(recipe.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(mean, [p.detach() for p in params], 1 - kept)
        if step % max(1, recipe.steps // 8) == 0 or step == recipe.steps - 1:
            first = {name: round(float(value), 4) for name, value in terms[0].items()}
            history.append([step, float(norm), first])
        if time.time() > deadline:
            say(f"{recipe.name}: stopped at step {step} by the clock")
            break
    with torch.no_grad():
        for parameter, value in zip(params, mean, strict=True):
            parameter.copy_(value)
    if material.device.type == "cuda":
        torch.cuda.synchronize()
    took = time.time() - start
    speed = round(recipe.batch * (step + 1) / took)
    return Trained(recipe, tower, heads, history, round(took, 2), speed)


def rate_share(step: int, steps: int) -> float:
    """Share of the highest rate at a step: up in a line for a twelfth of all steps, then down a cosine."""
    warm = max(5, steps // 12)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _groups(recipe: Recipe, tower: Tower, heads: nn.ModuleList) -> list[dict[str, Any]]:
    """AdamW's groups of parameters: LayerNorms and registers without decay, lora, heads."""
    named = list(tower.named_parameters())

    def group(params: Iterable[nn.Parameter], rate: float, decay: float) -> dict[str, Any]:
        return {"params": list(params), "lr": rate, "weight_decay": decay}

    groups = [
        group((p for name, p in named if not name.startswith("lora")), recipe.lr_norm, 0.0),
        group((p for name, p in named if name.startswith("lora")), recipe.lr_lora, recipe.decay),
        group(heads.parameters(), recipe.lr_head, recipe.decay),
    ]
    return [group for group in groups if group["params"]]


# --- losses ------------------------------------------------------------------------------------------


def losses(
    answer: Mapping[str, Any], head: Head, settings: HeadSettings, shown: Batch
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The weighted sum of a head's losses, and some of them unweighted: crop, patch, contrast."""
    counts = shown.counts.float()
    of_crops = binary_cross_entropy_with_logits(answer["logit"], shown.labels, reduction="none")
    total = (of_crops * counts).sum() / counts.sum()
    terms = {"crop": total.detach()}
    if answer["evidence"] is not None and settings.patch != "none":
        logits = answer["reading"]
        if settings.patch == "evidence":
            logits = answer["evidence"] * head.log_tau.exp() + head.patch_bias
        loss = of_patches(logits, shown, settings.assumed)
        total = total + settings.patch_weight * loss
        terms["patch"] = loss.detach()
        if settings.mil:
            total = total + settings.mil * of_strongest(logits, shown)
    if settings.flcl:
        loss = contrast(answer["z"].float(), shown.labels)
        total = total + settings.flcl * loss
        terms["contrast"] = loss.detach()
    if settings.raal:
        real = shown.labels == 0
        own, cls = answer["attention"][real], answer["cls_attention"][real]
        apart = (own * (own.clamp_min(1e-12).log() - cls.clamp_min(1e-12).log())).sum(-1).mean()
        total = total + settings.raal * apart
    return total, terms


def of_patches(logits: Float[Tensor, "b p"], shown: Batch, assumed: float) -> Float[Tensor, ""]:
    """Mean cross-entropy of patches with the share of them that is manipulated.

    Where that is not known, core patches count as manipulated, with the weight `assumed`, others not at all.
    """
    known = shown.known[:, None]
    core = (~known & (shown.core > CORE)).float() * assumed
    one = torch.ones_like(shown.truth)
    weight = torch.where(known, one, core) * shown.counts.float()[:, None]
    wanted = torch.where(known, shown.truth, one)
    each = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (each * weight).sum() / weight.sum().clamp_min(1)


def of_strongest(logits: Float[Tensor, "b p"], shown: Batch) -> Float[Tensor, ""]:
    """Cross-entropy of the mean of the strongest patches on the face, of manipulated crops without a mask."""
    some = (~shown.known & (shown.labels > 0) & shown.counts).float()
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
