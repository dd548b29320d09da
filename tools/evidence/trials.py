"""Lists of what heads.py compares: recipes of heads on a frozen tower, and what crops these are shown."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from deepscan.shapes import Bool, Float
from tools.evidence import recipes
from tools.evidence.material import Names
from tools.evidence.pseudo_fakes import Kind
from tools.evidence.recipes import Recipe
from tools.evidence.sampling import PLAIN, Batch

FROZEN = recipes.DEFAULT.but(
    "frozen", detector={"adapter": "none", "depth": 6, "layers": (6,)}, patches=0.5, batch=64
)


@dataclass(frozen=True, slots=True)
class Trial:
    """A head's recipe, and how much of what it is shown counts."""

    recipe: Recipe
    pseudo: float = 0.5
    """Share of pseudo-fakes among the manipulated crops."""
    kinds: dict[Kind, float] = field(default_factory=dict)
    """Factors of pseudo-fakes of some kinds, by 1 where nothing is said."""
    film: float = 0.3
    """Share of the crops that are films'."""
    spare: bool = False
    """Whether the tower has a spare token for its outliers (registers.py)."""
    unmasked: tuple[str, ...] = ()
    """Groups of whose manipulated crops it sees no masks."""

    @property
    def name(self) -> str:
        return self.recipe.name

    def known(self, shown: Batch, group: Names) -> Bool[Tensor, " b"]:
        """Of which crops it is told where they are manipulated; `group`: that of each."""
        hidden = torch.from_numpy(np.isin(group, self.unmasked)).to(shown.known.device)
        return shown.known & ~(hidden & (shown.kind == PLAIN) & (shown.labels > 0))

    def weights(
        self, shown: Batch, filmed: Bool[Tensor, " b"], left_out: Bool[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """How much each crop counts; both classes alike."""
        weight = shown.weight.clone()
        for kind, factor in self.kinds.items():
            weight = torch.where(shown.kind == kind, weight * factor, weight)
        weight = weight * torch.where(filmed, self.film, 1 - self.film)
        weight[left_out] = 0
        pseudo, manipulated = shown.kind != PLAIN, shown.labels > 0
        for one, share in ((pseudo, self.pseudo), (~pseudo, 1 - self.pseudo)):
            for group in (one & manipulated, one & ~manipulated):
                weight[group] *= share / weight[group].sum().clamp_min(1e-6)
        return weight * len(weight) / weight.sum().clamp_min(1e-6)


def sinks() -> list[Trial]:
    """With and without a spare token: the layers that ship, and less to keep queries off the background."""
    deep = FROZEN.but("6, 8, 10", detector={"depth": 10, "layers": (6, 8, 10)})
    anywhere = deep.but("6, 8, 10, no prior", **recipes.ANYWHERE)
    plain = anywhere.but("6, 8, 10, no prior, no patch loss", **recipes.NO_PATCH)
    cls = deep.but("6, 8, 10, cls", **recipes.CLS)
    return [
        Trial(recipe.but(f"{recipe.name}{', spare token' if spare else ''}"), spare=spare)
        for spare in (False, True)
        for recipe in (deep, anywhere, plain, cls)
    ]


def changes() -> list[Trial]:
    """The recipe that ships on a frozen tower, and one change each."""
    frozen, kinds = FROZEN, Kind
    redrawn = (kinds.REDRAWN, kinds.REDRAWN_WHOLE)
    return [
        Trial(frozen),
        Trial(frozen.but("cls", **recipes.CLS)),
        Trial(frozen.but("no patch loss", **recipes.NO_PATCH)),
        Trial(frozen.but("1 query", detector={"queries": 1})),
        Trial(frozen.but("8 queries", detector={"queries": 8})),
        Trial(frozen.but("4 heads", detector={"heads": 4})),
        *(
            Trial(frozen.but(f"{share:.0%} pseudo-fakes"), pseudo=share)
            for share in (0, 0.25, 0.75)
        ),
        Trial(frozen.but("none redrawn"), kinds=dict.fromkeys(redrawn, 0.0)),
        Trial(frozen.but("redrawn alone"), kinds={kinds.SELF: 0.0, kinds.SWAP: 0.0}),
        Trial(frozen.but("no self-blends"), kinds={kinds.SELF: 0.0}),
        Trial(frozen.but("no swaps"), kinds={kinds.SWAP: 0.0}),
        *(Trial(frozen.but(f"{share:.0%} films"), film=share) for share in (0, 0.65, 1)),
        Trial(frozen.but("FLCL", flcl=0.14)),
        Trial(frozen.but("MACL", macl=0.14)),
        Trial(frozen.but("RAAL", raal=1.0)),
    ]


def masks() -> list[Trial]:
    """The recipe that ships on a frozen tower, without patch loss, and without masks but pseudo-fakes'."""
    groups = ("pairs", "dfdc", "methods")
    trials = [Trial(FROZEN), Trial(FROZEN.but("no patch loss", **recipes.NO_PATCH))]
    for hidden in (*((group,) for group in groups), groups):
        named = FROZEN.but(f"no masks of {', '.join(hidden)}")
        trials.append(Trial(named, unmasked=hidden))
    return trials


LISTS = {"changes": changes, "sinks": sinks, "masks": masks}
