"""A small archive for tools.evidence: crops of every source, without faces; and decoders that darken."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deepscan.faces.alignment import TEMPLATE
from tools.evidence import material as evidence_material
from tools.evidence import pack
from tools.evidence.material import Material
from tools.evidence.sources import SourceCrop, encoded


class Decoders:
    """In place of generators' decoders: each makes a crop a little darker."""

    KINDS = ("taef2", "compact")

    def redraw(self, crops: Tensor, kind: str) -> Tensor:
        return crops * (0.9 if kind == "taef2" else 0.8)


def crop(
    source: str,
    label: int,
    *,
    person: str = "somebody",
    video: str = "clip",
    kind: str = "face_swap",
    method: str = "",
    pixels: np.ndarray | None = None,
    points: np.ndarray = TEMPLATE,
    mask: np.ndarray | None = None,
) -> SourceCrop:
    """One crop; grey, unless pixels are given."""
    if pixels is None:
        pixels = np.full((256, 256, 3), 128, np.uint8)
    return SourceCrop(
        data=encoded(pixels, 90),
        points=points,
        label=label,
        kind=kind if label else "real",
        source=source,
        method=method,
        person=person,
        video=f"{video}/{'fake' if label else 'real'}",
        frame=0,
        mask=mask,
    )


def decoded(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def crops(people: int = 3) -> list[SourceCrop]:
    """A real and a manipulated crop of each person of each source; of pairs with a mask: a square."""
    rng = np.random.default_rng(0)
    mask = np.zeros((256, 256), bool)
    mask[96:192, 80:176] = True
    found = []
    for source in ("pairs", "ffpp", "dfdc", "faces", "cxcx1996/a", "harlanhong/b"):
        for person in range(people):
            pixels = rng.integers(60, 160, (32, 32, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            own: dict[str, Any] = {"person": f"{source}/{person}", "video": f"clip {person}"}
            found.append(crop(source, 0, pixels=pixels, **own))
            if source != "faces":
                brighter = np.where(mask[..., None], pixels + np.uint8(60), pixels)
                known = mask if source == "pairs" else None
                found.append(crop(source, 1, pixels=brighter, mask=known, method="some", **own))
    return found


def material(
    path: Path, some: Sequence[SourceCrop] | None = None, kept: Path | None = None
) -> Material:
    """Crops packed at `path` and read again, on the CPU; `kept`: where what is redrawn is kept."""
    pack.write(path, crops() if some is None else some)
    return evidence_material.load(
        path,
        torch.device("cpu"),
        Decoders(),
        lambda _: None,
        copies=8,  # type: ignore[arg-type]
        kept=kept,
    )
