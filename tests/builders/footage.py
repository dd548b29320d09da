"""Makes the clips with a face that the tests of cutting and preparing read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from builders import clips

FACE = (slice(40, 170), slice(70, 190))  # where the portrait's face is


def portrait() -> np.ndarray:
    """Grace Hopper, 256 x 300 (public domain, ships with matplotlib)."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((256, 300)))


def swapped(picture: np.ndarray, amount: int = 60) -> np.ndarray:
    """The portrait with another complexion."""
    other = picture.astype(int)
    other[*FACE, 1] += amount
    return np.clip(other, 0, 255).astype(np.uint8)


def person(number: int) -> np.ndarray:
    """The portrait in a light of its own: other bytes for each number, as other people's videos have."""
    return np.clip(portrait().astype(int) - 5 * number, 0, 255).astype(np.uint8)


def wall() -> np.ndarray:
    """Nobody."""
    return np.full((300, 256, 3), 90, np.uint8)


def film(path: Path, picture: np.ndarray, frames: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return clips.write(path, [picture] * frames)


def pair(path: Path, left: np.ndarray, right: np.ndarray, frames: int = 3) -> Path:
    return film(path, np.hstack([left, right]), frames)


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def archive(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    """A .tar.gz of files, and of symbolic links with where they lead."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path
