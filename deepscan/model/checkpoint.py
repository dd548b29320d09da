"""Saves and loads detector checkpoints: safetensors with a JSON header, never a pickle.

The file holds what was trained and names its base by hash. Loading compares everything that can be compared
and refuses any difference, so that no detector ever runs with random or foreign weights.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from deepscan.errors import WeightsMismatch
from deepscan.files import part_file, weights_sha256
from deepscan.model import adapters, published
from deepscan.model.detector import Detector
from deepscan.model.header import FORMAT, MEAN, PREPROCESSING, STD, Header, opened, read_header

PROTOTYPES = "prototypes"  # the only optional tensor of a checkpoint
FORMER = re.compile(r"parametrizations\.\w+\.0")  # in older names of an adapter's tensors


def save(
    path: Path, detector: Detector, header: Header, dtype: torch.dtype = torch.float32
) -> None:
    """Write the trained part of `detector` as a checkpoint, atomically."""
    write(
        path, {k: v.detach().to("cpu", dtype) for k, v in detector.trained_state().items()}, header
    )


def write(path: Path, tensors: dict[str, Tensor], header: Header) -> None:
    """Write a checkpoint of these tensors, atomically."""
    text = json.dumps(
        {"format": FORMAT, "preprocessing": PREPROCESSING, **asdict(header)},
        sort_keys=True,
        allow_nan=False,
    )
    with part_file(path) as part:
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, {"deepscan": text})


def load(path: Path, base: Path, dtype: torch.dtype = torch.float32) -> tuple[Detector, Header]:
    """Rebuild a detector from its checkpoint and base, with the adapter merged; the tower uses `dtype`.

    Raises:
        WeightsMissing, WeightsMismatch: see `read_header`; also when keys, shapes or the base's hash differ.
    """
    header = read_header(path)
    if (found := weights_sha256(base)) != header.base.get("sha256"):
        raise WeightsMismatch(
            f"{path}: needs a base with SHA-256 {header.base.get('sha256')}; {base} has {found}"
        )
    plain = header.settings.adapter == "none"
    with torch.device("meta"):
        detector = Detector(header.settings)
    state = read_base(base, dtype if plain else torch.float32)
    adapters.load_base(detector.tower, state)
    trained = {name: value.float() for name, value in read_tensors(path).items()}
    prototypes = trained.pop(PROTOTYPES, None)
    restore(detector, path, trained)
    if prototypes is not None:
        _match(path, {PROTOTYPES: (2, detector.tower.width)}, {PROTOTYPES: prototypes})
        detector.prototypes = prototypes
    adapters.merge(detector.tower)
    detector.tower.to(dtype)
    detector.mean = torch.tensor(MEAN).view(3, 1, 1)
    detector.std = torch.tensor(STD).view(3, 1, 1)
    return detector.eval().requires_grad_(False), header


def restore(detector: Detector, path: Path, trained: dict[str, Tensor]) -> None:
    """Put a checkpoint's tensors into a detector whose base is loaded and whose adapter is in place.

    Raises:
        WeightsMismatch: they are not exactly the tensors that such a detector trains, or not finite.
    """
    _match(path, {k: tuple(v.shape) for k, v in detector.trained_state().items()}, trained)
    detector.load_state_dict(trained, strict=False, assign=True)


def read_base(path: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A base's tensors in `dtype`, by open_clip's names; of a published CLIP only the image tower.

    int8 matrices are multiplied out in float32 (see clip_onnx.convert).
    """
    with opened(path, "pt") as file:
        if (made_of := published.tower_names(set(file.keys()))) is not None:
            return published.read_tower(lambda name: file.get_tensor(name).to(dtype), made_of)
    stored = read_tensors(path)
    scales = {
        name.removesuffix(".scale"): stored.pop(name)
        for name in list(stored)
        if name.endswith(".scale")
    }
    return {
        name: (value.float() * scales[name][:, None] if name in scales else value).to(dtype)
        for name, value in stored.items()
    }


def _match(path: Path, expected: dict[str, tuple[int, ...]], state: dict[str, Tensor]) -> None:
    """Raise unless names and shapes agree and all values are finite."""
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        raise WeightsMismatch(
            f"{path}: tensors missing: {missing[:3] or 'none'}, unexpected: {extra[:3] or 'none'}"
        )
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise WeightsMismatch(
                f"{path}: {name} has shape {tuple(state[name].shape)}, not {shape}"
            )
        if not torch.isfinite(state[name]).all():
            raise WeightsMismatch(f"{path}: {name} holds values that are not finite")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; an adapter's get their current names."""
    with opened(path, "pt") as file:
        return {
            FORMER.sub("change", name): file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118 (no dict)
        }
