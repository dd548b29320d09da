"""Reads and checks a checkpoint's header, without loading torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from deepscan.errors import SettingsError, WeightsMismatch, WeightsMissing
from deepscan.faces.alignment import CROP_SIDE, TEMPLATE
from deepscan.files import parse_json
from deepscan.plain import read
from deepscan.records import Calibration

# OpenAI CLIP's channel means and deviations, of RGB in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


TOKENS = ("global", "cls", "avg", "weighted-avg", "concat")
ADAPTERS = ("effort", "lora", "full", "norm", "none")


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """Everything needed to rebuild a checkpoint's detector.

    `token`: what the head classifies, which is the queries' global token, [CLS] ("cls": no queries at all,
    the paper's baselines), or both. `adapter`: what trains in the tower (see model/adapters.py). `depth`:
    how many of the tower's layers run, from the first; None runs all, fewer are faster. `adapted`: how many
    of these, counted from the last, the adapter changes; None: all. Earlier layers stay as in the base, and
    gradients stop there.
    `normalise`: whether the classified token is scaled to length 1. `reference`: which share of the logit
    of a crop's copy without detail is subtracted from the crop's logit (see Detector); 0: there is no such
    copy. `view`: which share of the crop's side the tower sees, from near the face's middle (see
    faces.alignment.seen). `layers`: after which layers tokens are read, each through a LayerNorm of the
    detector's own, and averaged; None: after the last that runs, through the tower's. `prior`: whether the
    queries learn where on the crop to look, besides at what. `located`: whether it learnt which patches are
    manipulated (LossSettings.localisation).
    """

    tower: str = "ViT-B-16-quickgelu"
    queries: int = 4
    heads: int = 8
    token: str = "global"
    patch_norm: bool = True
    adapter: str = "none"
    lora_rank: int = 4
    lora_alpha: float = 8.0
    effort_rank: int = 1
    depth: int | None = None
    adapted: int | None = None
    normalise: bool = False
    reference: float = 0.0
    view: float = 1.0
    layers: tuple[int, ...] | None = None
    prior: bool = False
    located: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.tower, str):
            raise SettingsError(f"tower: {self.tower!r} is not a name")
        for name, allowed in (("token", TOKENS), ("adapter", ADAPTERS)):
            if getattr(self, name) not in allowed:
                raise SettingsError(
                    f"{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}"
                )
        for count in ("queries", "heads", "lora_rank", "effort_rank"):
            if not _counts(getattr(self, count)):
                raise SettingsError(f"{count}: {getattr(self, count)} is not a positive count")
        for count in ("depth", "adapted"):
            if (given := getattr(self, count)) is not None and not _counts(given):
                raise SettingsError(f"{count}: {given} is not a positive count")
        if self.layers is not None:
            layers = self.layers
            if not layers or not all(map(_counts, layers)) or list(layers) != sorted(set(layers)):
                raise SettingsError(f"layers: {list(layers)} are not layer numbers, counted from 1")
            if self.depth is not None and layers[-1] != self.depth:
                raise SettingsError(
                    f"layers: the last, {layers[-1]}, is not the last that runs, {self.depth} (depth)"
                )
        if not 0 < self.view <= 1:
            raise SettingsError(f"view: {self.view} is not a share above 0 and up to 1")
        if (self.prior or self.located) and not self.with_queries:
            raise SettingsError("prior, located: need queries, which token cls does not have")
        if not self.lora_alpha > 0:
            raise SettingsError(f"lora_alpha: {self.lora_alpha} is not above 0")
        if not 0 <= self.reference <= 1:
            raise SettingsError(f"reference: {self.reference} is not a share from 0 to 1")

    @property
    def with_queries(self) -> bool:
        """Whether there is a query module."""
        return self.token != "cls"


def _counts(value: object) -> bool:
    return type(value) is int and 0 < value < 2**20  # no tensor of a file could have more rows


FORMAT = "deepscan.checkpoint/1"

# How a crop must have been made for the detector's numbers to mean anything.
PREPROCESSING: dict[str, Any] = {
    "crop_side": CROP_SIDE,
    "template": TEMPLATE.tolist(),
    "mean": list(MEAN),
    "std": list(STD),
}


@dataclass(frozen=True, slots=True)
class Header:
    """A checkpoint's metadata."""

    name: str
    settings: DetectorSettings
    base: dict[str, str]  # name and sha256
    training: dict[str, Any]  # data, its digest, recipe, seed, measured results
    licence: str
    calibration: Calibration | None = None


def read_header(path: Path) -> Header:
    """Read and check a checkpoint's header.

    Raises:
        WeightsMissing: there is no such file.
        WeightsMismatch: it is not a safetensors file, not deepscan's, or of another version or preprocessing.
    """
    raw = _raw_header(path)
    if raw.get("format") != FORMAT:
        raise WeightsMismatch(
            f"{path}: format {raw.get('format')!r}; this version of deepscan reads {FORMAT!r}"
        )
    if raw.get("preprocessing") != PREPROCESSING:
        raise WeightsMismatch(
            f"{path}: made for crops that were aligned or normalised differently from this version"
        )
    try:
        fields = {k: raw[k] for k in ("name", "base", "training", "licence")}
        texts = (
            fields["name"],
            fields["licence"],
            fields["base"]["name"],
            fields["base"]["sha256"],
        )
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("name, licence and base must be texts")
        if not isinstance(fields["training"], dict):
            raise TypeError("training is not a table")
        stated = raw["calibration"]
        calibration = None if stated is None else read(Calibration, stated, "calibration")
        settings = read(DetectorSettings, raw["settings"], "settings")
        header = Header(settings=settings, calibration=calibration, **fields)
    except (KeyError, TypeError, ValueError, SettingsError) as error:
        raise WeightsMismatch(f"{path}: its header cannot be read ({error})") from error
    if not header.training:
        raise WeightsMismatch(
            f"{path}: states no training; deepscan does not score with untrained weights"
        )
    return header


def _raw_header(path: Path) -> dict[str, Any]:
    with opened(path, "numpy") as file:
        try:
            raw = parse_json((file.metadata() or {}).get("deepscan", "null"))
        except ValueError as error:
            raise WeightsMismatch(f"{path}: its header is not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise WeightsMismatch(
            f"{path}: a safetensors file, but not a deepscan checkpoint (no deepscan header)"
        )
    return raw


def opened(path: Path, framework: str) -> Any:
    """Open a safetensors file, turning its errors into deepscan's."""
    if not path.is_file():
        raise WeightsMissing(f"{path}: no such file")
    try:
        return safe_open(path, framework=framework)
    except (SafetensorError, OSError) as error:
        raise WeightsMismatch(
            f"{path}: not a safetensors file ({error}); deepscan does not open pickles (.pt, .pth, .ckpt)"
        ) from error
