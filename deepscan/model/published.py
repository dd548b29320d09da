"""Converts weights published by others: translates tensor names and turns detectors into checkpoints.

deepscan uses open_clip's names for CLIP's image tower. Two other forms are read: open_clip's own files of the
whole CLIP ("visual." before each name), and transformers' (separate q, k and v; "vision_model.").

Two published detectors are converted, both on CLIP ViT-L/14 with a linear head of two classes, of which
the second is "fake"; their softmax is the sigmoid of the difference, which is deepscan's logit:

    gend    LayerNorms tuned, head on the L2-normalised [CLS]: adapter "norm", `normalise`
    effort  attention matrices as W_main + U diag(S) V: adapter "effort" on a base that holds W_main

Sources: A. Yermakov et al., "Deepfake Detection that Generalizes Across Benchmarks" (GenD), WACV 2026, and
its model on the Hugging Face Hub; Z. Yan et al. (Effort), ICML 2025, and its DeepfakeBench detector.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor

from deepscan.errors import WeightsMismatch
from deepscan.model import tower as towers
from deepscan.model.header import DetectorSettings, opened
from deepscan.model.tower import TowerSize

Read = Callable[[str], Tensor]

# transformers' names, and open_clip's; of a layer under "encoder.layers.N." and "transformer.resblocks.N.".
_OUTSIDE = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight",  # so spelt
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}
_INSIDE = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_SEPARATE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_RESIDUAL = ("U_residual", "S_residual", "V_residual")
PROJECTION = "visual_projection.weight"

GEND = "feature_extractor."
EFFORT = "backbone."
# Tensors that Effort's and older transformers' files may also hold, and that are not needed here.
_IDLE = ("U_r", "S_r", "V_r", "embeddings.position_ids")


@dataclass(frozen=True, slots=True)
class Converted:
    """A published detector in deepscan's terms: the checkpoint's tensors and, unless its base is the file
    itself, the base's.
    """

    settings: DetectorSettings
    trained: dict[str, Tensor]
    base: dict[str, Tensor] | None


# --- towers ----------------------------------------------------------------------------------------


def tower_names(names: Collection[str]) -> dict[str, tuple[str, ...]] | None:
    """Which of a file's tensors make up each tensor of the tower; None: they have these names already.

    Several are stacked along the first axis; transformers' files hold the projection to text transposed.
    """
    if "visual.conv1.weight" in names:
        return {n.removeprefix("visual."): (n,) for n in names if n.startswith("visual.")}
    for prefix in ("", GEND):
        if f"{prefix}vision_model.embeddings.class_embedding" in names:
            return _from_transformers(names, f"{prefix}vision_model.") | {
                "proj": (prefix + PROJECTION,)
            }
    return None


def _from_transformers(names: Collection[str], prefix: str) -> dict[str, tuple[str, ...]]:
    start = f"{prefix}encoder.layers."
    layers = sorted({n[len(start) :].split(".")[0] for n in names if n.startswith(start)}, key=int)
    found: dict[str, tuple[str, ...]]
    found = {ours: (prefix + theirs,) for theirs, ours in _OUTSIDE.items()}
    for layer in layers:
        theirs, ours = f"{start}{layer}.", f"transformer.resblocks.{layer}."
        for part in ("weight", "bias"):
            found |= {f"{ours}{o}.{part}": (f"{theirs}{t}.{part}",) for t, o in _INSIDE.items()}
            stacked = tuple(f"{theirs}{name}.{part}" for name in _SEPARATE)
            found[f"{ours}attn.in_proj_{part}"] = stacked
    return found


def read_tower(read: Read, made_of: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """The tower by open_clip's names."""
    return {
        ours: read(theirs[0])
        if len(theirs) == 1 and not theirs[0].endswith(PROJECTION)
        else read(theirs[0]).T.contiguous()
        if len(theirs) == 1
        else torch.cat([read(name) for name in theirs])
        for ours, theirs in made_of.items()
    }


# --- detectors -------------------------------------------------------------------------------------


def form_of(path: Path) -> str | None:
    """ "gend" or "effort", judged by a file's tensors; None for any other file. Nothing in it is run."""
    if is_zipfile(path):
        with ZipFile(path) as archive:
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                return None  # an archive, but not torch's
        return "effort" if any(n.endswith(_RESIDUAL) for n in _read_pth(path)) else None
    try:
        with opened(path, "pt") as file:
            return "gend" if any(name.startswith(GEND) for name in file.keys()) else None  # noqa: SIM118
    except WeightsMismatch:  # no safetensors file
        return None


def convert(path: Path, form: str, tower: str) -> Converted:
    """Convert a published detector's file into deepscan's checkpoint.

    Raises:
        WeightsMismatch: tensors are missing, unknown or of another shape; the message says which.
    """
    if form == "gend":
        with opened(path, "pt") as file:
            names = set(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            _check(
                path, shapes, _expected(towers.tower_size(tower), GEND + "vision_model.", "gend")
            )
            return _gend(file.get_tensor, names, tower)
    tensors = _read_pth(path)
    first = next(v for name, v in tensors.items() if name.endswith(_RESIDUAL[1]))
    expected = _expected(towers.tower_size(tower), EFFORT, "effort", len(first))
    _check(path, {name: tuple(value.shape) for name, value in tensors.items()}, expected)
    return _effort(tensors, tower, len(first))


def _gend(read: Read, names: Collection[str], tower: str) -> Converted:
    made_of = _from_transformers(names, f"{GEND}vision_model.")
    norms = {ours: theirs for ours, theirs in made_of.items() if "ln_" in ours}
    trained = {f"tower.visual.{n}": v for n, v in read_tower(read, norms).items()}
    trained |= _head(read("model.linear.weight"), read("model.linear.bias"))
    settings = DetectorSettings(tower, token="cls", adapter="norm", normalise=True)
    return Converted(settings, trained, None)


def _effort(tensors: Mapping[str, Tensor], tower: str, rank: int) -> Converted:
    """The base holds W_main, to which U diag(S) V is added; the starting residual is set to 0.

    (No file holds the residual before training, and only W_main + U diag(S) V matters.)
    """
    size = towers.tower_size(tower)
    # Under the layers' plain names, W_main is the weight.
    plain = {
        name.replace("weight_main", "weight"): value
        for name, value in tensors.items()
        if not name.endswith(_IDLE)
    }
    base = read_tower(plain.__getitem__, _from_transformers(plain, EFFORT))
    # The projection to text is not in the file and does not affect the score.
    base["proj"] = torch.zeros(size.width, size.embed_dim)
    trained = _head(tensors["head.weight"], tensors["head.bias"])
    for layer in range(size.layers):
        theirs = f"{EFFORT}encoder.layers.{layer}."
        ours = f"tower.visual.transformer.resblocks.{layer}.attn."
        for name, matrices in (
            ("change.", _SEPARATE),
            ("out_proj.change.", ("self_attn.out_proj",)),
        ):
            for part, residual in zip("usv", _RESIDUAL, strict=True):
                value = torch.stack([tensors[f"{theirs}{m}.{residual}"] for m in matrices])
                trained[f"{ours}{name}{part}"] = value
                trained[f"{ours}{name}{part}0"] = torch.zeros_like(value)
    settings = DetectorSettings(tower, token="cls", adapter="effort", effort_rank=rank)
    return Converted(settings, trained, base)


def _head(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The single logit that a softmax over two classes, real and fake, depends on."""
    return {"head.weight": weight[1:] - weight[:1], "head.bias": bias[1:] - bias[:1]}


def _read_pth(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch file as DeepfakeBench saves it; anything but plain tensors is refused."""
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        first = str(error).splitlines()[0]
        raise WeightsMismatch(f"{path}: not a torch file of plain tensors ({first})") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise WeightsMismatch(f"{path}: contains no table of tensors")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _expected(size: TowerSize, prefix: str, form: str, rank: int = 1) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published detector on a tower of this size."""
    d, hidden = size.width, int(size.width * size.mlp_ratio)
    patches = (size.image_size // size.patch_size) ** 2
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}{name}": (d,) for name in _OUTSIDE}
    shapes[f"{prefix}embeddings.patch_embedding.weight"] = (d, 3, size.patch_size, size.patch_size)
    shapes[f"{prefix}embeddings.position_embedding.weight"] = (patches + 1, d)
    for layer in range(size.layers):
        inside = f"{prefix}encoder.layers.{layer}."
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{inside}{name}.weight": (d,), f"{inside}{name}.bias": (d,)}
        for name, rows, columns in (("mlp.fc1", hidden, d), ("mlp.fc2", d, hidden)):
            shapes |= {f"{inside}{name}.weight": (rows, columns), f"{inside}{name}.bias": (rows,)}
        for name in (*_SEPARATE, "self_attn.out_proj"):
            shapes[f"{inside}{name}.bias"] = (d,)
            if form == "gend":
                shapes[f"{inside}{name}.weight"] = (d, d)
            else:
                shapes |= dict(_residual_shapes(f"{inside}{name}.", d, rank))
    if form == "gend":
        shapes[GEND + PROJECTION] = (size.embed_dim, d)
    head = "model.linear" if form == "gend" else "head"
    return shapes | {f"{head}.weight": (2, d), f"{head}.bias": (2,)}


def _residual_shapes(name: str, d: int, rank: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}weight_main", (d, d)
    yield from zip(
        (name + part for part in _RESIDUAL), ((d, rank), (rank,), (rank, d)), strict=True
    )


def _check(
    path: Path, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise WeightsMismatch with what differs, unless names and shapes are the expected ones."""
    used = {name for name in found if not name.endswith(_IDLE)}
    differs = [
        *(f"{name} is missing" for name in sorted(expected.keys() - used)),
        *(f"{name} is unknown" for name in sorted(used - expected.keys())),
        *(
            f"{name} has shape {found[name]}, not {expected[name]}"
            for name in sorted(expected.keys() & used)
            if found[name] != expected[name]
        ),
    ]
    if differs:
        more = f" and {len(differs) - 3} more" if len(differs) > 3 else ""
        raise WeightsMismatch(f"{path}: {'; '.join(differs[:3])}{more}")
