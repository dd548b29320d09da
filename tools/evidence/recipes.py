"""What a detector is made of and how it is trained, and the recipes that were tried."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class TowerSettings:
    """How much of the tower is run, and what is trained in it."""

    adapter: str = "norm"
    """norm (LayerNorms), lora, both or none."""
    depth: int = 10
    """Layers that run, from the first."""
    adapted: int | None = None
    """How many of these, from the last, the adapter changes; None: all."""
    rank: int = 8
    """Of lora, and its alpha: the change is alpha / rank times B A."""
    alpha: float = 16.0
    registers: int = 0
    """Tokens added to a crop's, which may gather what no patch is to."""


@dataclass(frozen=True)
class HeadSettings:
    """What a head reads, and the losses that it is trained by beside that of the crop."""

    layers: tuple[int, ...] = (6, 8, 10)
    """After which layers tokens are read."""
    token: str = "global"
    """What is classified: the queries' global token, cls, their avg, or the mean of the patches."""
    queries: int = 4
    heads: int = 8
    """Of the queries' attention."""
    prior: str = "none"
    """Where queries look: learn (starts on the face), fixed (on the face alone) or none (anywhere)."""
    patch: str = "evidence"
    """What the patch loss compares with the mask: a patch's evidence, its reading, or none: no such loss."""
    patch_weight: float = 1.0
    assumed: float = 0.5
    """Weight of the core's patches where a manipulated crop has no mask: these are manipulated for sure."""
    mil: float = 0.0
    """Weight of a loss by which such a crop's ten strongest patches are manipulated."""
    flcl: float = 0.0
    """Weight of the contrast of patches by their fake likelihood."""
    raal: float = 0.0
    """Weight of the divergence of the queries' attention from [CLS]'s, on real crops."""
    standard: bool = True
    """Whether each channel starts with mean 0 and deviation 1 over patches."""


@dataclass(frozen=True)
class Recipe:
    """How detectors are trained: a tower, and on it heads that learn side by side."""

    name: str = "base"
    tower: TowerSettings = field(default_factory=TowerSettings)
    heads: tuple[HeadSettings, ...] = (HeadSettings(prior="learn"),)
    steps: int = 120
    batch: int = 128
    """Crops a step, half of them real."""
    lr_norm: float = 1e-3
    """The highest rate of LayerNorms, of lora, and of heads."""
    lr_lora: float = 4e-4
    lr_head: float = 1e-3
    decay: float = 0.01
    """AdamW's weight decay, but of LayerNorms."""
    pseudo: float = 0.5
    """Share of pseudo-fakes among the manipulated crops."""
    kinds: tuple[float, ...] = (0.45, 0.15, 0.3, 0.1)
    """Shares of pseudo_fakes.Kind."""
    regions: tuple[float, ...] = (0.3, 0.3, 0.15, 0.2, 0.05)
    """Shares of geometry.REGIONS."""
    real_background: float = 0.15
    """Share of the reals whose surroundings are redrawn."""
    margin: float = 1.0
    """Share of a crop's side that the detector sees, as in DetectorSettings.view."""
    strength: float = 1.0
    """Scales the chances of changes to a picture."""
    film: float = 0.3
    """The chance that a picture is coded as a film's."""
    average: float = 0.98
    """Decay of the weights' exponential moving average, which is what a training returns."""
    sources: tuple[float, ...] = (0.2, 0.15, 0.25, 0.4)
    """Shares of manipulated crops of pairs, ffpp, dfdc and methods."""
    seed: int = 0


NORM = Recipe("norm")
LORA = replace(NORM, name="lora", tower=TowerSettings("lora"))

# What is shipped, and which share of the logit of a crop's copy without detail it takes off the crop's.
DEFAULT = replace(LORA, name="lora-60", margin=0.6)
REFERENCE = 0.5


def _head(**changes: object) -> HeadSettings:
    return HeadSettings(**{"prior": "learn"} | changes)


FROZEN = Recipe(
    "frozen",
    tower=TowerSettings("none", depth=12),
    steps=150,
    heads=(
        _head(prior="none"),
        _head(),
        _head(standard=False),
        _head(prior="fixed"),
        _head(prior="none", patch="reading"),
        _head(prior="none", patch="none"),
        _head(patch="none"),
        _head(prior="none", token="mean", patch="reading"),
        _head(prior="none", token="cls"),
        _head(token="avg"),
        _head(layers=(12,)),
        _head(layers=(6,)),
        _head(layers=(8,)),
        _head(layers=(10,)),
        _head(layers=(4, 6, 8, 10)),
        _head(layers=(6, 8, 10, 12)),
        _head(queries=1),
        _head(heads=12),
        _head(patch_weight=0.3),
        _head(patch_weight=3.0),
        _head(assumed=0.0, mil=0.3),
        _head(prior="none", flcl=0.14, raal=1.0, patch="none", layers=(12,)),
    ),
)


def tried() -> list[Recipe]:
    """Recipes in the order in which phase one tries them."""

    def norm(name: str, *, head: dict[str, object] | None = None, **changes: object) -> Recipe:
        heads = NORM.heads if head is None else (_head(**head),)
        return replace(NORM, name=f"norm-{name}", heads=heads, **changes)

    return [
        FROZEN,
        NORM,
        norm("cls", head={"token": "cls"}),
        LORA,
        norm("nopatch", head={"patch": "none"}),
        norm("tight", margin=0.72),
        replace(NORM, name="both", tower=TowerSettings("both")),
        norm("noredraw", kinds=(0.75, 0.25, 0.0, 0.0)),
        norm("12", tower=TowerSettings(depth=12), head={"layers": (12,)}),
        norm("pseudo25", pseudo=0.25),
        norm("noprior", head={"prior": "none"}),
        norm("long", steps=360),
        norm("last5", tower=TowerSettings(adapted=5)),
        norm("reading", head={"patch": "reading"}),
        norm("pseudo75", pseudo=0.75),
        norm("registers", tower=TowerSettings(registers=4), head={"prior": "none"}),
        norm("fast", lr_norm=2e-3, lr_head=2e-3),
        norm("mild", strength=0.6),
        norm("mean", head={"token": "mean", "patch": "reading"}),
        replace(LORA, name="lora-last5", tower=TowerSettings("lora", adapted=5)),
        norm("fixed", head={"prior": "fixed"}),
        norm("8", tower=TowerSettings(depth=8), head={"layers": (4, 6, 8)}),
        norm("film", film=0.6),
        norm("mil", head={"assumed": 0.0, "mil": 0.3}),
        norm("flcl", head={"flcl": 0.14}),
    ]
