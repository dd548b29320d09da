"""Pack all training material into one file of at most 60 MB.

    python -m tools.evidence.pack --material ../shared/data --out runs/evidence/pack.zip

The material is the folder that its README describes (methods/, dfdc/, ffpp-crops/, faces/, pairs/). The
archive holds crops/NNNNN.jpg or .webp, index.json with one row for each (see Entry), and masks.npy. What a
crop is, where its face is and where it is forged is found here once: training looks for nothing.

dfdc's crops keep their bytes; the others are coded anew as WebP, real and manipulated ones alike. Pairs are
prepared beside the archive, with 10 frames, if no folder of prepared ones is named.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from deepscan.data.prepare import PrepareSettings, prepare
from deepscan.shapes import Bool
from tools.evidence import sources
from tools.evidence.differences import Mask
from tools.evidence.entries import MASK_SIDE, SETS, Entry
from tools.evidence.sources import Landmarks, SourceCrop

LARGEST = 60_000_000  # bytes
FOLDS = 5


def write(path: Path, crops: Iterable[SourceCrop]) -> Counter[str]:
    """Write the archive: the same crops give the same bytes.

    Returns:
        How many bytes the crops of each source took; pages of methods/ count as "methods".
    """
    entries, masks, size = list[Entry](), list[Mask](), Counter[str]()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for crop in crops:
            suffix = ".jpg" if crop.data.startswith(b"\xff\xd8") else ".webp"
            entry = _entry(crop, f"crops/{len(entries):05d}{suffix}", len(masks))
            # A ZipInfo by itself has no date: else each archive would be another.
            archive.writestr(zipfile.ZipInfo(entry.name), crop.data)
            if crop.mask is not None:
                masks.append(reduced(crop.mask))
            entries.append(entry)
            size[crop.source if crop.source in SETS else "methods"] += len(crop.data)
        buffer = io.BytesIO()
        np.save(buffer, np.packbits(np.array(masks, bool).reshape(-1, MASK_SIDE**2), axis=1))
        rows = json.dumps([asdict(entry) for entry in entries], separators=(",", ":"))
        for name, data in (("masks.npy", buffer.getvalue()), ("index.json", rows)):
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return size


def _entry(crop: SourceCrop, name: str, next_mask: int) -> Entry:
    return Entry(
        name=name,
        sha256=hashlib.sha256(crop.data).hexdigest(),
        label=crop.label,
        kind=crop.kind,
        source=crop.source,
        method=crop.method,
        person=crop.person,
        video=crop.video,
        frame=crop.frame,
        fold=fold_of(crop.person),
        points=np.asarray(crop.points, float).round(2).tolist(),
        mask=-1 if crop.mask is None else next_mask,
    )


def reduced(mask: Mask) -> Bool[np.ndarray, "64 64"]:
    """A mask at MASK_SIDE: a pixel counts if at least half of it is covered."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize((MASK_SIDE, MASK_SIDE), Image.Resampling.BOX)) > 127


def fold_of(person: str) -> int:
    """One of FOLDS, by the person's name alone."""
    return hashlib.sha256(person.encode()).digest()[0] % FOLDS


def main(arguments: list[str] | None = None) -> None:
    """Pack, and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, help="the pairs as `deepscan prepare` leaves them")
    parser.add_argument("--landmarks", type=Path, help="cache of what was found")
    parser.add_argument("--quality", type=int, default=90, help="WebP's")
    parser.add_argument("--dfdc", type=int, default=2000, help="originals taken")
    parser.add_argument("--dfdc-fakes", type=int, default=1000)
    parser.add_argument("--faces", type=int, default=700)
    parser.add_argument("--ffpp", type=int, default=4, help="crops a video")
    asked = parser.parse_args(arguments)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    pairs = asked.pairs or asked.out.parent / "pairs"
    if asked.pairs is None:
        prepare(asked.material / "pairs", pairs, PrepareSettings(frames=10))
    marks = Landmarks(asked.landmarks or asked.out.parent / "landmarks.json")
    folder, quality = asked.material, asked.quality
    found = (
        sources.dfdc(folder / "dfdc", marks, asked.dfdc, asked.dfdc_fakes),
        sources.ffpp(folder / "ffpp-crops", marks, quality, asked.ffpp),
        sources.faces(folder / "faces", marks, quality, asked.faces),
        sources.methods(folder / "methods", quality),
        sources.pairs(pairs, folder / "pairs" / "pairs.csv", quality),
    )
    taken = write(asked.out, (crop for crops in found for crop in crops))
    size = asked.out.stat().st_size
    parts = ", ".join(f"{name} {count / 1e6:.1f}" for name, count in taken.items())
    sys.stdout.write(f"{asked.out}: {size / 1e6:.1f} MB ({parts})\n")
    if size > LARGEST:
        sys.exit(f"{asked.out}: over {LARGEST / 1e6:.0f} MB; take fewer crops")


if __name__ == "__main__":
    main()
