"""Detector checkpoints: safetensors with a JSON header. Never a pickle.

The file holds what was trained; the base it stands on is named by hash. Loading compares everything
that can be compared and refuses what differs, so that no detector is ever half its own and half
chance.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from deepscan.align import CROP_SIDE, TEMPLATE
from deepscan.errors import SettingsError, WeightsMismatch, WeightsMissing
from deepscan.files import part_file, sha256
from deepscan.model.detector import MEAN, STD, Detector, DetectorSettings

FORMAT = "deepscan.checkpoint/1"

# What a crop must have gone through for the detector's numbers to mean anything.
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
    calibration: dict[str, Any] | None = None


def save(
    path: Path, detector: Detector, header: Header, dtype: torch.dtype = torch.float32
) -> None:
    """Write a checkpoint, whole or not at all."""
    text = json.dumps(
        {"format": FORMAT, "preprocessing": PREPROCESSING, **asdict(header)},
        sort_keys=True,
        allow_nan=False,
    )
    tensors = {
        k: v.detach().to("cpu", dtype).contiguous() for k, v in detector.trained_state().items()
    }
    with part_file(path) as part:
        save_file(tensors, part, {"deepscan": text})


def read_header(path: Path) -> Header:
    """A checkpoint's header, checked.

    Raises:
        WeightsMissing: no such file.
        WeightsMismatch: not a safetensors file, not deepscan's, or of another version or preprocessing.
    """
    raw = _raw_header(path)
    if raw.get("format") != FORMAT:
        raise WeightsMismatch(
            f"{path}: format {raw.get('format')!r}; this version of deepscan reads {FORMAT!r}"
        )
    if raw.get("preprocessing") != PREPROCESSING:
        raise WeightsMismatch(
            f"{path}: made for crops aligned or normalised in another way than this version's"
        )
    try:
        fields = {k: raw[k] for k in ("name", "base", "training", "licence", "calibration")}
        header = Header(settings=DetectorSettings(**raw["settings"]), **fields)
    except (KeyError, TypeError, SettingsError) as error:
        raise WeightsMismatch(f"{path}: its header is not understood ({error})") from error
    if not header.training:
        raise WeightsMismatch(f"{path}: states no training; untrained weights are not scored")
    return header


def load(path: Path, base: Path, dtype: torch.dtype = torch.float32) -> tuple[Detector, Header]:
    """Rebuild a detector from its checkpoint and its base; the tower computes in `dtype`.

    Raises:
        WeightsMissing, WeightsMismatch: see `read_header`; also when keys, shapes or the base's hash differ.
    """
    header = read_header(path)
    if (found := sha256(base)) != header.base.get("sha256"):
        raise WeightsMismatch(
            f"{path}: needs a base with SHA-256 {header.base.get('sha256')}; {base} has {found}"
        )
    with torch.device("meta"):
        detector = Detector(header.settings)
    state = {f"tower.visual.{name}": value.to(dtype) for name, value in read_base(base).items()}
    state |= {name: value.float() for name, value in _tensors(path).items()}
    _match(path, {name: tuple(v.shape) for name, v in detector.state_dict().items()}, state)
    detector.load_state_dict(state, assign=True)
    detector.mean = torch.tensor(MEAN).view(3, 1, 1)
    detector.std = torch.tensor(STD).view(3, 1, 1)
    return detector.eval().requires_grad_(False), header


def read_base(path: Path) -> dict[str, Tensor]:
    """A base's tensors in float32, int8 matrices multiplied out (see clip_onnx.convert)."""
    stored = _tensors(path)
    scales = {
        name.removesuffix(".scale"): stored.pop(name)
        for name in list(stored)
        if name.endswith(".scale")
    }
    return {
        name: value.float() * scales[name][:, None] if name in scales else value.float()
        for name, value in stored.items()
    }


def _match(path: Path, expected: dict[str, tuple[int, ...]], state: dict[str, Tensor]) -> None:
    """Raise unless names and shapes agree and every value is finite."""
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


def _raw_header(path: Path) -> dict[str, Any]:
    with _opened(path) as file:
        try:
            raw = json.loads((file.metadata() or {}).get("deepscan", "null"))
        except ValueError as error:
            raise WeightsMismatch(f"{path}: its header is not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise WeightsMismatch(
            f"{path}: a safetensors file, but not a deepscan checkpoint (no deepscan header)"
        )
    return raw


def _tensors(path: Path) -> dict[str, Tensor]:
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)


def _opened(path: Path) -> Any:
    """safetensors' file, its errors turned into deepscan's."""
    if not path.is_file():
        raise WeightsMissing(f"{path}: no such file")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise WeightsMismatch(
            f"{path}: not a safetensors file ({error}); deepscan opens no pickles (.pt, .pth, .ckpt)"
        ) from error
