"""What a detector is made of and how it is trained, and the recipes that were tried."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from deepscan.model.header import DetectorSettings


@dataclass(frozen=True)
class Recipe:
    """How a detector is trained."""

    name: str
    detector: DetectorSettings
    norms: bool = False
    """Whether LayerNorms train beside the adapter."""
    prior: str = "learn"
    """Where queries with `detector.prior` look: learn starts on the face, fixed stays there."""
    standard: bool = True
    """Whether each channel that is read starts with mean 0 and deviation 1 over patches."""
    patch: str = "evidence"
    """What the patch loss compares with the mask: a patch's evidence, its reading, or none: no such loss."""
    patch_weight: float = 1.0
    assumed: float = 0.5
    """Weight of the core's patches where a manipulated crop has no mask: these are manipulated for sure."""
    mil: float = 0.0
    """Weight of a loss by which such a crop's ten strongest patches are manipulated."""
    flcl: float = 0.0
    """Weight of the contrast of patches by their fake likelihood."""
    macl: float = 0.0
    """Weight of the contrast of patches by masks, where they are known."""
    raal: float = 0.0
    """Weight of the divergence of the queries' attention from [CLS]'s, on real crops."""
    steps: int = 120
    batch: int = 128
    """Crops a step, half of them real."""
    patches: float = 1.0
    """Share of the patches that a step looks at, drawn anew for each: on a processor, where time is short."""
    lr_norm: float = 1e-3
    """The highest rate of LayerNorms, of lora, and of what reads the tower."""
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
    strength: float = 1.0
    """Scales the chances of changes to a picture."""
    film: float = 0.3
    """The chance that a picture is coded as a film's."""
    average: float = 0.98
    """Decay of the weights' exponential moving average, which is what a training returns."""
    sources: tuple[float, ...] = (0.2, 0.15, 0.25, 0.4)
    """Shares of manipulated crops of pairs, ffpp, dfdc and methods."""
    seed: int = 0

    def but(self, name: str, *, detector: dict[str, Any] | None = None, **changes: Any) -> Recipe:
        """The same by another name, with changes to the detector's settings and to the recipe's own."""
        return replace(
            self, name=name, detector=replace(self.detector, **detector or {}), **changes
        )


NORM = Recipe(
    "norm",
    DetectorSettings(
        adapter="norm", depth=10, layers=(6, 8, 10), prior=True, located=True,
        lora_rank=8, lora_alpha=16.0,
    ),
)  # fmt: skip
LORA = NORM.but("lora", detector={"adapter": "lora"})

# What is shipped, and which share of the logit of a crop's copy without detail it takes off the crop's.
DEFAULT = LORA.but("lora-60", detector={"view": 0.6})
REFERENCE = 0.5

# The same by six layers instead of ten, for 0.6 of the cost; trained on a processor, half the patches a step.
SHALLOW = DEFAULT.but("lora-60-6", detector={"depth": 6, "layers": (6,)}, patches=0.5)

# [CLS] instead of queries: no map, hence no loss of patches.
CLS: dict[str, Any] = {
    "detector": {"token": "cls", "prior": False, "located": False},
    "patch": "none",
}
NO_PATCH: dict[str, Any] = {"detector": {"located": False}, "patch": "none"}
READING: dict[str, Any] = {"detector": {"located": False}, "patch": "reading"}
MIL: dict[str, Any] = {"assumed": 0.0, "mil": 0.3}
ANYWHERE: dict[str, Any] = {"detector": {"prior": False}}


def _reading(*layers: int) -> dict[str, Any]:
    """Changes by which other layers are read, and no more run than these need."""
    return {"detector": {"depth": layers[-1], "layers": layers}}


def tried() -> list[Recipe]:
    """Recipes in the order in which phase one tries them."""
    frozen = NORM.but("frozen", detector={"adapter": "none"}, steps=150)
    anywhere = frozen.but("frozen-noprior", **ANYWHERE)
    return [
        NORM,
        NORM.but("norm-cls", **CLS),
        LORA,
        NORM.but("norm-nopatch", **NO_PATCH),
        NORM.but("norm-tight", detector={"view": 0.72}),
        LORA.but("both", norms=True),
        NORM.but("norm-noredraw", kinds=(0.75, 0.25, 0.0, 0.0)),
        NORM.but("norm-12", **_reading(12)),
        NORM.but("norm-pseudo25", pseudo=0.25),
        NORM.but("norm-noprior", **ANYWHERE),
        NORM.but("norm-long", steps=360),
        NORM.but("norm-last5", detector={"adapted": 5}),
        NORM.but("norm-reading", **READING),
        NORM.but("norm-pseudo75", pseudo=0.75),
        NORM.but("norm-fast", lr_norm=2e-3, lr_head=2e-3),
        NORM.but("norm-mild", strength=0.6),
        LORA.but("lora-last5", detector={"adapted": 5}),
        NORM.but("norm-fixed", prior="fixed"),
        NORM.but("norm-8", **_reading(4, 6, 8)),
        NORM.but("norm-film", film=0.6),
        NORM.but("norm-mil", **MIL),
        NORM.but("norm-flcl", flcl=0.14),
        frozen,
        anywhere,
        frozen.but("frozen-raw", standard=False),
        frozen.but("frozen-fixed", prior="fixed"),
        frozen.but("frozen-nopatch", **NO_PATCH),
        anywhere.but("frozen-noprior-reading", **READING),
        anywhere.but("frozen-noprior-nopatch", **NO_PATCH),
        frozen.but("frozen-cls", **CLS),
        frozen.but("frozen-concat", detector={"token": "concat"}),
        frozen.but("frozen-12", **_reading(12)),
        frozen.but("frozen-6", **_reading(6)),
        frozen.but("frozen-8", **_reading(8)),
        frozen.but("frozen-10", **_reading(10)),
        frozen.but("frozen-4-10", **_reading(4, 6, 8, 10)),
        frozen.but("frozen-6-12", **_reading(6, 8, 10, 12)),
        frozen.but("frozen-1-query", detector={"queries": 1}),
        frozen.but("frozen-12-heads", detector={"heads": 12}),
        frozen.but("frozen-patch-0.3", patch_weight=0.3),
        frozen.but("frozen-patch-3", patch_weight=3.0),
        frozen.but("frozen-mil", **MIL),
        frozen.but(
            "frozen-flcl",
            detector={"prior": False, "located": False, "depth": 12, "layers": (12,)},
            patch="none",
            flcl=0.14,
            raal=1.0,
        ),
    ]
