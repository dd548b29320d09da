"""Which crops a step shows, and the batch that is made of them on the device.

Half of a batch is real. The manipulated half consists of the sources' manipulations and of pseudo-fakes; each
has a real crop beside it, a pseudo-fake the one that it was made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from deepscan.shapes import Bool, Float, Int
from tools.evidence.geometry import gaussian, patch_shares
from tools.evidence.material import Material, Rows, enlarged
from tools.evidence.pseudo_fakes import Kind, pseudo_fakes
from tools.evidence.recipes import Recipe
from tools.evidence.views import chance, pick, viewed

REAL_SHARES = {"pairs": 0.12, "ffpp": 0.12, "dfdc": 0.3, "faces": 0.2, "methods": 0.26}
FEW = 6  # reals of a source: with fewer, half of its manipulated crops are paired with others
PLAIN = -1  # the kind of a crop that is no pseudo-fake
CANDIDATES = 24  # faces of which the nearest in colour is laid over


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a batch is made of: rows of the material, and of its redrawn crops."""

    fakes: Rows
    reals: Rows
    """One for each of `fakes`."""
    bases: Rows
    """Real crops that become pseudo-fakes."""
    kinds: Int[np.ndarray, " p"]
    """The `Kind` of each pseudo-fake."""
    copies: Rows
    """The redrawn crop of each base; 0 where its kind needs none."""
    others: Int[np.ndarray, "p 24"]
    """For each base, faces of which one may be laid over."""
    around: Rows
    """Places in `reals` whose surroundings are redrawn."""
    around_copies: Rows
    """Their redrawn crops."""


class Sampler:
    """Draws of the crops to `keep`, a pure function of the seed."""

    def __init__(
        self, material: Material, keep: Bool[np.ndarray, " n"], recipe: Recipe, seed: int
    ) -> None:
        self._rng = np.random.default_rng([seed, 7])
        self._recipe, self._material = recipe, material
        self._fakes = np.flatnonzero(keep & (material.label == 1))
        self._reals = np.flatnonzero(keep & (material.label == 0))
        shares = dict(zip(("pairs", "ffpp", "dfdc", "methods"), recipe.sources, strict=True))
        self._of_fakes = probabilities(material, self._fakes, shares)
        self._of_reals = probabilities(material, self._reals, REAL_SHARES)
        source = material.source[self._reals]
        self._of_source = {name: self._reals[source == name] for name in np.unique(source)}
        self._of_methods = self._reals[material.group[self._reals] == "methods"]
        redrawn = material.redrawn
        self._copies = np.flatnonzero(np.isin(redrawn.of, self._reals))
        of_row = dict(zip(self._reals, self._of_reals, strict=True))
        weights = np.array([of_row[row] for row in redrawn.of[self._copies]])
        self._of_copies = weights / weights.sum()
        # Whole, a crop is redrawn by an autoencoder alone: the others are upscalers.
        whole = np.char.startswith(redrawn.decoder[self._copies], "taef2")
        weights = np.where(whole, self._of_copies, 0)
        self._of_whole = weights / weights.sum() if weights.sum() else self._of_copies

    def draw(self, half: int) -> Drawn:
        """A batch of `half` manipulated crops and as many real ones."""
        rng, recipe, redrawn = self._rng, self._recipe, self._material.redrawn
        p = round(half * recipe.pseudo)
        fakes = rng.choice(self._fakes, half - p, p=self._of_fakes)
        reals = np.array([self._real_for(fake) for fake in fakes], int)
        kinds = rng.choice(len(Kind), p, p=recipe.kinds)
        bases = rng.choice(self._reals, p, p=self._of_reals)
        copies = np.zeros(p, int)
        for i in np.flatnonzero(kinds >= Kind.REDRAWN):
            weights = self._of_whole if kinds[i] == Kind.REDRAWN_WHOLE else self._of_copies
            copies[i] = rng.choice(self._copies, p=weights)
            bases[i] = redrawn.of[copies[i]]
        # Not used: without this draw the stream, and all that was measured with it, would be another.
        rng.choice(self._reals, p, p=self._of_reals)
        around = np.flatnonzero(rng.random(half - p) < recipe.real_background)
        around_copies = rng.choice(self._copies, len(around), p=self._of_copies)
        reals[around] = redrawn.of[around_copies]
        own = np.random.default_rng(int(rng.integers(2**31)))
        others = own.choice(self._reals, (p, CANDIDATES))
        return Drawn(fakes, reals, bases, kinds, copies, others, around, around_copies)

    def _real_for(self, fake: int) -> int:
        """A real crop to stand beside a manipulated one: of its person or its source, if there are any."""
        rng, material = self._rng, self._material
        same = self._of_source.get(material.source[fake])
        if same is not None and (len(same) >= FEW or rng.random() < 0.5):
            if rng.random() < 0.6:
                own = same[material.person[same] == material.person[fake]]
                same = own if len(own) else same
            return rng.choice(same)
        if material.group[fake] == "methods" and len(self._of_methods) and rng.random() < 0.6:
            return rng.choice(self._of_methods)
        return rng.choice(self._reals, p=self._of_reals)


def probabilities(
    material: Material, rows: Rows, shares: Mapping[str, float]
) -> Float[np.ndarray, " n"]:
    """The chance of each row: groups by their shares, each method in "methods" by its number's root."""
    group, source, method = (
        every[rows] for every in (material.group, material.source, material.method)
    )
    found = np.zeros(len(rows))
    for name, share in shares.items():
        inside = group == name
        if not inside.any():
            continue
        if name != "methods":
            found[inside] = share / inside.sum()
            continue
        for page, of_page in {(source[i], method[i]) for i in np.flatnonzero(inside)}:
            own = inside & (source == page) & (method == of_page)
            found[own] = math.sqrt(own.sum()) / own.sum()
        found[inside] *= share / found[inside].sum()
    return found / found.sum()


@dataclass(frozen=True, slots=True)
class Batch:
    """Views of b crops, manipulated ones first, and what is known of each patch."""

    images: Float[Tensor, "b 3 224 224"]
    """RGB in 0..255, whole numbers."""
    labels: Float[Tensor, " b"]
    """1 for manipulated, 0 for real."""
    truth: Float[Tensor, "b 196"]
    """How much of each patch is manipulated, where that is known, else 0."""
    known: Bool[Tensor, " b"]
    """Whether it is."""
    core: Float[Tensor, "b 196"]
    """How much of each patch is manipulated for sure if the crop is."""
    face: Float[Tensor, "b 196"]
    """How much of each patch lies on the face."""
    weight: Float[Tensor, " b"]
    """How much the crop counts: a pseudo-fake that nothing is seen of does not."""
    kind: Int[Tensor, " b"]
    """The `Kind` of a pseudo-fake and of the real crop beside it, PLAIN for others."""
    rows: Int[Tensor, "b 2"]
    """The material's crop that it shows, and the one whose face is laid over, or the same again."""

    def by(self, keep: Int[Tensor, " p"] | None) -> Batch:
        """The same of these patches alone; None: of all."""
        if keep is None:
            return self
        of_kept = {name: getattr(self, name)[:, keep] for name in ("truth", "core", "face")}
        return replace(self, **of_kept)


def batch(material: Material, drawn: Drawn, recipe: Recipe) -> Batch:
    """The views of what was drawn. Changes are drawn from torch's global stream of the device."""
    device = material.device
    every = _on(device, np.concatenate([drawn.fakes, drawn.reals, drawn.bases]))
    sizes = [len(drawn.fakes), len(drawn.reals), len(drawn.bases)]
    of_fakes, of_reals, of_bases = every.split(sizes)
    fakes, reals, bases = material.crops[every].float().split(sizes)
    face, face_of_reals, face_of_bases = enlarged(material.face[every]).split(sizes)
    core, _, core_of_bases = enlarged(material.core[every]).split(sizes)
    reals = _surrounded(reals, face_of_reals, material, drawn)

    others = _on(device, drawn.others)
    apart = (material.colours[others] - material.colours[of_bases][:, None]).norm(dim=2)
    nearest = others[torch.arange(len(others), device=device), apart.argmin(1)]
    kinds = _on(device, drawn.kinds)
    made = pseudo_fakes(
        bases,
        material.points[of_bases],
        material.crops[nearest].float(),
        material.points[nearest],
        material.redrawn.crops[_on(device, drawn.copies)].float(),
        kinds,
        recipe.regions,
    )
    twins = pick(chance(len(bases), 0.5, device), bases, made.twins)

    # Of the real half: nothing is manipulated, all is known, each takes part.
    none = torch.zeros(len(reals) + len(bases), 1, *bases.shape[2:], device=device)
    sure = torch.ones(len(none), dtype=torch.bool, device=device)
    plain = torch.full((len(reals),), PLAIN, device=device)
    masks = torch.cat(
        [
            torch.cat([enlarged(material.truth[of_fakes]), made.weights, none]),
            torch.cat([core, core_of_bases, none]),
            torch.cat([face, face_of_bases, face_of_reals, face_of_bases]),
        ],
        1,
    )
    images, masks = viewed(
        torch.cat([fakes, made.fakes, reals, twins]),
        masks,
        recipe.detector.view,
        recipe.strength,
        recipe.film,
    )
    truth, core, face = patch_shares(masks).unbind(1)
    return Batch(
        images=images,
        labels=torch.cat(
            [torch.ones(len(none), device=device), torch.zeros(len(none), device=device)]
        ),
        truth=truth,
        # Of a crop that is redrawn whole it is not said which patches show it.
        known=torch.cat([material.known[of_fakes], kinds != Kind.REDRAWN_WHOLE, sure]),
        core=core,
        face=face,
        weight=torch.cat([sure[: len(fakes)], made.visible, sure]).float(),
        kind=torch.cat([plain[: len(fakes)], kinds, plain, kinds]),
        rows=torch.cat(
            [
                of_fakes.expand(2, -1).T,
                torch.stack([of_bases, torch.where(kinds == Kind.SWAP, nearest, of_bases)], 1),
                of_reals.expand(2, -1).T,
                of_bases.expand(2, -1).T,
            ]
        ),
    )


def _on(device: torch.device, values: Int[np.ndarray, "*n"]) -> Int[Tensor, "*n"]:
    return torch.from_numpy(values).to(device, non_blocking=True)


def _surrounded(
    reals: Float[Tensor, "n 3 256 256"],
    face: Float[Tensor, "n 1 256 256"],
    material: Material,
    drawn: Drawn,
) -> Float[Tensor, "n 3 256 256"]:
    """The reals, some with redrawn surroundings: that a picture is redrawn says nothing by itself."""
    if not len(drawn.around):
        return reals
    around = _on(reals.device, drawn.around)
    copies = material.redrawn.crops[_on(reals.device, drawn.around_copies)].float()
    outside = gaussian(1 - face[around], torch.full((len(around),), 5.0, device=reals.device))
    reals = reals.clone()
    reals[around] = reals[around] + outside * (copies - reals[around])
    return reals
