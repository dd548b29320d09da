"""The packed crops on the device, aligned, and what is known of each."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from deepscan.faces.alignment import CROP_SIDE
from deepscan.files import part_file
from deepscan.records import Pixels
from deepscan.shapes import Bool, Float, Int, UInt8
from tools.evidence.decoders import Decoders
from tools.evidence.entries import MASK_SIDE, SETS, read_entries
from tools.evidence.geometry import (
    REGIONS,
    TEMPLATE,
    constant,
    inside,
    outlines,
    similarity_fit,
    warped,
    with_ones,
)

Say = Callable[[str], None]
Rows = Int[np.ndarray, " n"]  # places of crops in the material
Maps = UInt8[Tensor, "n 64 64"]  # shares of each 4 x 4 pixels of a crop, in 255ths
Names = Any  # an array of n strings


@dataclass(frozen=True, slots=True)
class Redrawn:
    """Real crops that a decoder of a generator drew anew."""

    crops: UInt8[Tensor, "m 3 256 256"]
    of: Rows
    """The crop that each was made of."""
    decoder: Names
    """Which of Decoders.KINDS drew it."""


@dataclass(frozen=True, slots=True)
class Material:
    """n crops. Tensors are on the device, arrays on the host."""

    crops: UInt8[Tensor, "n 3 256 256"]
    """RGB, aligned to TEMPLATE."""
    points: Float[Tensor, "n 5 2"]
    """Landmarks, x and y in pixels."""
    truth: Maps
    """What is manipulated, where that is known, else 0."""
    known: Bool[Tensor, " n"]
    """Whether a manipulated crop's `truth` is known."""
    face: Maps
    """What lies on the face."""
    core: Maps
    """What is manipulated for sure if the crop is: the inner face, or in lip-sync its lower part."""
    colours: Float[Tensor, "n 3"]
    """Mean R, G and B of the middle of the face."""
    label: Int[np.ndarray, " n"]
    """1 for manipulated, 0 for real."""
    kind: Names
    """Of the manipulation, or "real"."""
    source: Names
    """The data set or page."""
    group: Names
    """One of SETS, or "methods" for all pages."""
    method: Names
    person: Names
    video: Names
    """Its name within its source."""
    fold: Int[np.ndarray, " n"]
    """0 to 4, by person; 0 is held out of the final detector."""
    redrawn: Redrawn

    def __len__(self) -> int:
        return len(self.label)

    @property
    def device(self) -> torch.device:
        return self.crops.device


def load(
    pack: Path,
    device: torch.device,
    decoders: Decoders,
    say: Say,
    limit: int | None = None,
    copies: int = 3000,
    kept: Path | None = None,
) -> Material:
    """Read an archive of `pack`, or `limit` of its crops, and have `copies` of the real ones redrawn.

    `kept`: a file for what was redrawn, which takes a processor half a second each; it is of this archive and
    this number.
    """
    with zipfile.ZipFile(pack) as archive:
        entries = read_entries(archive)
        masks = np.load(io.BytesIO(archive.read("masks.npy")))
        if limit:
            chosen = np.random.default_rng(0).permutation(len(entries))[:limit]
            entries = [entries[i] for i in sorted(chosen)]
        data = [archive.read(entry.name) for entry in entries]
    with ThreadPoolExecutor(16) as pool:
        pictures = list(pool.map(_decoded, data))
    n = len(entries)
    columns = ("label", "kind", "source", "method", "person", "video", "fold")
    told = {name: np.array([getattr(entry, name) for entry in entries]) for name in columns}
    group = np.where(np.isin(told["source"], SETS), told["source"], "methods")
    given = torch.tensor([entry.points for entry in entries], dtype=torch.float32, device=device)
    forged = torch.zeros(n, MASK_SIDE, MASK_SIDE, dtype=torch.bool)
    for i, entry in enumerate(entries):
        if entry.mask >= 0:
            bits = np.unpackbits(masks[entry.mask]).reshape(MASK_SIDE, MASK_SIDE)
            forged[i] = torch.from_numpy(bits > 0)
    known = torch.tensor([entry.mask >= 0 for entry in entries], device=device)
    crops, points, truth = _aligned(pictures, given, forged.to(device), group == "ffpp")

    def on(region: str) -> Maps:
        number = torch.tensor(REGIONS.index(region), device=device)
        return torch.cat(
            [
                inside(outlines(part, number.expand(len(part))), MASK_SIDE).mul(255).byte()
                for part in points.split(256)
            ]
        )

    if kept is not None and kept.exists():
        redrawn = read_redrawn(kept, device)
    else:
        redrawn = redraw(crops, np.flatnonzero(told["label"] == 0), decoders, copies)
        if kept is not None:
            write_redrawn(redrawn, kept)
    lips = torch.from_numpy(told["kind"] == "lip_sync").to(device).view(-1, 1, 1)
    counts = dict(zip(*np.unique(group, return_counts=True), strict=True))
    say(f"{n} crops on {device}: {', '.join(f'{count} {name}' for name, count in counts.items())}")
    return Material(
        crops=crops,
        points=points,
        truth=truth,
        known=known,
        face=on("face"),
        core=torch.where(lips, on("lower"), on("inner")),
        colours=torch.cat(
            [part[:, :, 96:200, 80:176].float().mean((2, 3)) for part in crops.split(256)]
        ),
        group=group,
        redrawn=redrawn,
        **told,
    )


def _decoded(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _aligned(
    pictures: list[Pixels],
    points: Float[Tensor, "n 5 2"],
    forged: Bool[Tensor, "n 64 64"],
    loose: Bool[np.ndarray, " n"],
) -> tuple[UInt8[Tensor, "n 3 256 256"], Float[Tensor, "n 5 2"], Maps]:
    """Crops, landmarks and masks; what has another size, or is framed loosely, is brought to TEMPLATE."""
    n, device = len(pictures), points.device
    crops = torch.zeros(n, 3, CROP_SIDE, CROP_SIDE, dtype=torch.uint8, device=device)
    moved, truth = points.clone(), forged.byte() * 255
    sides = np.array([len(picture) for picture in pictures])
    as_is = (sides == CROP_SIDE) & ~loose
    for rows in _alike(np.where(as_is, 0, sides)):
        images = torch.from_numpy(np.stack([pictures[i] for i in rows])).to(device)
        images = images.permute(0, 3, 1, 2)
        at = torch.from_numpy(rows).to(device)
        if as_is[rows[0]]:
            crops[at] = images
            continue
        own = points[at] * (CROP_SIDE / len(pictures[rows[0]]))  # in 256ths of the picture
        template = constant(TEMPLATE, device).expand(len(rows), -1, -1)
        back = similarity_fit(template, own)
        found = warped(images.float(), back, CROP_SIDE, mode="bicubic")
        crops[at] = found.round().clamp(0, 255).byte()
        moved[at] = with_ones(own) @ similarity_fit(own, template)
        masks = warped(forged[at][:, None].float(), back, MASK_SIDE)[:, 0]
        truth[at] = masks.mul(255).round().byte()
    return crops, moved, truth


def _alike(keys: Int[np.ndarray, " n"]) -> Iterator[Rows]:
    """Places of equal keys, up to 256 at a time."""
    for key in np.unique(keys):
        rows = np.flatnonzero(keys == key)
        yield from np.array_split(rows, -(-len(rows) // 256))


def redraw(
    crops: UInt8[Tensor, "n 3 256 256"], reals: Rows, decoders: Decoders, count: int, size: int = 64
) -> Redrawn:
    """`count` of the real crops, or each several times, in random order by each decoder in turn."""
    reals = np.random.default_rng(0).permutation(reals)
    each = max(1, count // len(decoders.KINDS))
    of = np.take(reals, np.arange(each * len(decoders.KINDS)), mode="wrap")
    found = []
    for kind, rows in zip(decoders.KINDS, of.reshape(-1, each), strict=True):
        for part in torch.from_numpy(rows).to(crops.device).split(size):
            images = decoders.redraw(crops[part].float() / 255, kind)
            found.append((images.float().clamp(0, 1) * 255).round().byte())
    return Redrawn(torch.cat(found), of, np.repeat(decoders.KINDS, each))


def write_redrawn(redrawn: Redrawn, path: Path) -> None:
    """Keep redrawn crops for later runs."""
    with part_file(path) as part, part.open("wb") as file:
        np.savez(file, crops=redrawn.crops.cpu().numpy(), of=redrawn.of, decoder=redrawn.decoder)


def read_redrawn(path: Path, device: torch.device) -> Redrawn:
    """What `write_redrawn` kept."""
    with np.load(path) as file:
        return Redrawn(torch.from_numpy(file["crops"]).to(device), file["of"], file["decoder"])


def enlarged(maps: Maps) -> Float[Tensor, "n 1 256 256"]:
    """Maps as shares at the crops' size."""
    return functional.interpolate(
        maps[:, None].float() / 255, (CROP_SIDE, CROP_SIDE), mode="bilinear"
    )
