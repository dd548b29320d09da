"""Reads a still picture with Pillow: StillSource, with the same methods as VideoSource."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from deepscan.config import Sampling
from deepscan.errors import UnreadableInput
from deepscan.files import check_readable, sha256
from deepscan.media.display import check_size
from deepscan.records import Frame, Source

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".jp2")
# Animations in these formats are left to FFmpeg; of the other formats only the first picture is used.
ANIMATED = ("GIF", "PNG")

# Brands of HEIC pictures, which Pillow does not read.
HEIC = (b"heic", b"heix", b"heim", b"heis")

# What Pillow raises for damaged files, depending on where the damage lies.
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    RuntimeError,
    struct.error,
    zlib.error,
)


def is_still(path: Path) -> bool:
    """Whether the content, whatever the name, is a single picture; animations are left to FFmpeg."""
    check_readable(path)
    if _is_heic(path):  # FFmpeg would take one of its tiles for the picture
        raise UnreadableInput(
            f"{path}: a HEIC picture, as iPhones take them; save it as JPEG or PNG in its full size, and keep"
            " the original"
        )
    try:
        with _opened(path) as image:
            return image.format not in ANIMATED or getattr(image, "n_frames", 1) == 1
    except Image.DecompressionBombError:
        return True  # it is a picture; StillSource says why it is refused
    except BROKEN:
        return False


def _is_heic(path: Path) -> bool:
    """Judged by the brands in the file's first box: its major one and the compatible ones."""
    with path.open("rb") as file:
        head = file.read(64)
    size = int.from_bytes(head[:4], "big")
    brands = {head[at : at + 4] for at in (8, *range(16, min(size, len(head)), 4))}
    return head[4:8] == b"ftyp" and bool(brands & set(HEIC)) and b"avif" not in brands


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open the picture by its content; Pillow's warnings are silenced, real trouble raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=FORMATS) as image:
            yield image


class StillSource:
    """One picture file, opened read-only and turned upright by its EXIF orientation.

    Raises:
        UnreadableInput: damaged, cut short, or too large to decode.
    """

    declared_duration = None

    def __init__(self, path: Path) -> None:
        check_readable(path)
        try:
            with _opened(path) as image:
                check_size(path, *image.size)
                codec, mode = str(image.format).lower(), image.mode
                rotation = {3: 180, 4: 180, 5: 270, 6: 270, 7: 90, 8: 90}.get(
                    image.getexif().get(0x0112, 1), 0
                )
                if (pages := getattr(image, "n_frames", 1)) > 1:
                    raise UnreadableInput(
                        f"{path}: holds {pages} pictures; save the one you mean, or turn an animation into"
                        " a video"
                    )
                if mode in ("I", "F"):
                    raise UnreadableInput(
                        f"{path}: 32 bits a pixel, which no scale of grey is fixed for; save it with 8 or 16"
                    )
                upright = ImageOps.exif_transpose(image)
                if mode.startswith("I;16"):  # 16-bit grey, which Pillow would clip at 255
                    upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
                if "transparency" in upright.info:
                    upright = upright.convert("RGBA")
                self._pixels = np.asarray(upright.convert("RGB"))
        except Image.DecompressionBombError as error:
            raise UnreadableInput(f"{path}: {error}; it is not decoded") from error
        except BROKEN as error:
            raise UnreadableInput(
                f"{path}: not a readable picture ({error}); it may be cut short"
            ) from error
        self.source = Source(
            path=path,
            kind="image",
            sha256=sha256(path),
            bytes=path.stat().st_size,
            container=codec,
            codec=codec,
            pixel_format=mode,
            width=self._pixels.shape[1],
            height=self._pixels.shape[0],
            rotation=rotation,
            frames=1,
            start=Fraction(0),
            duration=Fraction(0),
            nominal_rate=None,
            average_rate=None,
            variable_rate=False,
            exact_times=True,
            bit_rate=None,
        )

    def choose(self, sampling: Sampling) -> tuple[int, ...]:
        """The only frame's index, whatever the sampling."""
        return (0,)

    def split(self, indices: Sequence[int], ways: int) -> list[list[int]]:
        """One list: there is nothing to decode in parallel."""
        return [list(indices)]

    def decode(self, indices: Sequence[int]) -> Iterator[Frame]:
        """The only frame."""
        yield from (Frame(i, Fraction(0), self._pixels) for i in indices)
