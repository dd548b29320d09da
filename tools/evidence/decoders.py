"""Crops redrawn by the material's own decoders, on the device; its tools/decoders.py is read at run time."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class Decoders:
    """The decoders of one file, moved to a device. `KINDS` names them."""

    def __init__(self, path: Path, device: torch.device) -> None:
        spec = importlib.util.spec_from_file_location("material_decoders", path)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(path)
        self._from: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._from)
        self.KINDS: tuple[str, ...] = self._from.KINDS

        def moved(pairs: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
            return [(weight.to(device), bias.to(device)) for weight, bias in pairs]

        self._taef2 = [net.to(device) for net in self._from._taef2()]
        self._waifu2x = {
            kind: moved(self._from._waifu2x(name))
            for kind, name in (
                ("waifu2x", "scale2.0x"),
                ("waifu2x-denoise", "noise3_scale2.0x"),
            )
        }
        convs, slopes = self._from._compact()
        self._compact = moved(convs), [slope.to(device) for slope in slopes]

    @torch.inference_mode()
    def redraw(self, x: Tensor, kind: str) -> Tensor:
        """Crops (b, 3, side, side) in 0..1, side a multiple of 16, redrawn whole; same shape."""
        side, to = x.shape[-1], self._from._to
        if kind.startswith("taef2"):
            encode, decode = self._taef2
            z = encode(to(x, side // 2) if kind == "taef2-small" else x)
            if kind == "taef2-noise":
                z = z + 0.35 * z.std() * torch.randn(z.shape, device=z.device)
            y: Tensor = decode(z)
            return to(y, side) if y.shape[-1] != side else y
        if kind == "compact":
            return to(self._four_times(to(x, side // 2 - 16)), side, "bilinear")
        return self._from._twice(to(x, side // 2), self._waifu2x[kind])

    def _four_times(self, x: Tensor) -> Tensor:
        (*convs, last), slopes = self._compact
        y = x
        for (weight, bias), slope in zip(convs, slopes, strict=True):
            y = F.prelu(F.conv2d(y, weight, bias, padding=1), slope)
        return F.pixel_shuffle(F.conv2d(y, *last, padding=1), 4) + F.interpolate(x, scale_factor=4)
