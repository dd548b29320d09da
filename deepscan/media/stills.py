"""Reads a still picture with Pillow: StillSource, with the same methods as VideoSource.

Of a file with several pictures, such as a phone's MPO with its second view or its gain map, the first one is
judged, which is what viewers show. HEIC needs the extra `heic`.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from deepscan.config import Sampling
from deepscan.errors import UnreadableInput
from deepscan.files import check_readable, sha256
from deepscan.media import colour
from deepscan.media.display import check_size, tagged_colour
from deepscan.records import Colour, Frame, Pixels, Source

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000")
# Animations in these formats are left to FFmpeg; of the other formats only the first picture is used.
ANIMATED = ("GIF", "PNG")

# Brands of still pictures in ISO base media files. FFmpeg would take a tile of them for the picture.
HEIC = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"}
AVIF = {b"avif", b"avis"}

HEAD = 2**18  # first bytes of a file, which hold the tags of its colours

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
    """Whether the content, whatever the name, is a picture; animations are left to FFmpeg.

    Raises:
        UnreadableInput: it is a picture, of which only a part or nothing could be read.
    """
    check_readable(path)
    brands = _brands(path)
    if brands & HEIC and not brands & AVIF and not _reads_heic():
        raise UnreadableInput(
            f"{path}: a HEIC picture, as iPhones take them; pip install deepscan-forensics[heic] reads it, or"
            " save it as JPEG or PNG in its full size, and keep the original"
        )
    try:
        with _opened(path) as image:
            if image.format == "JPEG" and _is_motion_jpeg(path, image.size):
                return False
            return image.format not in ANIMATED or getattr(image, "n_frames", 1) == 1
    except Image.DecompressionBombError:
        return True  # it is a picture; StillSource says why it is refused
    except BROKEN as error:
        if brands & (HEIC | AVIF) and not _is_film(path):
            raise UnreadableInput(
                f"{path}: an AVIF or HEIC picture that cannot be read whole ({error}); save it as JPEG or PNG"
                " in its full size, and keep the original"
            ) from error
        return False


def _brands(path: Path) -> set[bytes]:
    """The brands in the first box of an ISO base media file: its major one and the compatible ones."""
    with path.open("rb") as file:
        head = file.read(256)
    if head[4:8] != b"ftyp":
        return set()
    size = int.from_bytes(head[:4], "big")
    return {head[at : at + 4] for at in (8, *range(16, min(size, len(head)), 4))}


def _is_film(path: Path) -> bool:
    """Whether an ISO base media file begins with a box of tracks or media, not of pictures."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    at = 0
    while len(head) - at >= 8 and (size := int.from_bytes(head[at : at + 4], "big")) >= 8:
        if head[at + 4 : at + 8] in (b"moov", b"meta"):
            return head[at + 4 : at + 8] == b"moov"
        at += size
    return False


def _reads_heic() -> bool:
    """Register pillow-heif with Pillow, if it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _is_motion_jpeg(path: Path, size: tuple[int, int]) -> bool:
    """Whether pictures of the same size follow the first one at once, as in a raw film of JPEGs.

    A photograph, which has EXIF, may have another view or a gain map behind it.
    """
    with path.open("rb") as file:
        head = file.read(2**24)
    at, exif = 2, False
    while (
        head[at : at + 1] == b"\xff" and head[at + 1 : at + 2] != b"\xda"
    ):  # up to the coded picture
        exif |= head[at + 1 : at + 2] == b"\xe1"
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    at = head.find(b"\xff\xd9", at) + 2
    if exif or at < 2 or head[at : at + 3] != b"\xff\xd8\xff":
        return False
    try:
        with Image.open(io.BytesIO(head[at:]), formats=("JPEG",)) as second:
            return second.size == size
    except BROKEN:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open the picture by its content; Pillow's warnings are silenced, real trouble raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heic = _brands(path) & HEIC and _reads_heic()
        with Image.open(path, formats=(*FORMATS, "HEIF") if heic else FORMATS) as image:
            yield image


class StillSource:
    """One picture file, opened read-only and turned upright by its EXIF orientation.

    Raises:
        UnreadableInput: damaged, cut short, or too large to decode.
    """

    declared_duration = None

    def __init__(self, path: Path) -> None:
        check_readable(path)
        others: tuple[str, ...] = ()
        try:
            with _opened(path) as image:
                check_size(path, *image.size)
                codec, mode = str(image.format).lower(), image.mode
                rotation = {3: 180, 4: 180, 5: 270, 6: 270, 7: 90, 8: 90}.get(
                    image.getexif().get(0x0112, 1), 0
                )
                if (pages := getattr(image, "n_frames", 1)) > 1 and codec in ("mpo", "heif"):
                    others = (f"{pages - 1} further picture{'s' * (pages > 2)} in the same file",)
                elif pages > 1:
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
                self._pixels, colours = _converted(path, upright, image.info.get("icc_profile"))
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
            others=others,
            colour=colours,
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


def _converted(path: Path, image: Image.Image, profile: bytes | None) -> tuple[Pixels, Colour]:
    """The pixels as a viewer shows them, and what was made of the colours."""
    transfer, primaries = _tagged(path)
    if transfer in colour.HDR or primaries in colour.WIDE:
        code = np.asarray(image.convert("RGB")).astype(np.uint16) * 257
        return colour.to_sdr(code, 65535, transfer, primaries), tagged_colour(transfer, primaries)
    if profile:
        with suppress(ImageCms.PyCMSError, *BROKEN):
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            name = ImageCms.getProfileDescription(given).strip()
            if "srgb" not in name.lower():
                wanted = (
                    "CMYK" if image.mode == "CMYK" else "L" if image.mode in ("L", "LA") else "RGB"
                )
                shown = ImageCms.profileToProfile(
                    image.convert(wanted),
                    given,
                    ImageCms.createProfile("sRGB"),
                    ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    "RGB",
                )
                assert shown is not None
                return np.asarray(shown), Colour(
                    primaries=name, conversion=f"ICC profile {name} to sRGB"
                )
    return np.asarray(image.convert("RGB")), tagged_colour(transfer, primaries)


def _tagged(path: Path) -> tuple[int, int]:
    """Transfer and primaries (ITU-T H.273) that an AVIF, HEIC or PNG states; 2 is unspecified."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[4:8] == b"ftyp" and (at := head.find(b"colrnclx")) >= 0:
        primaries, transfer = struct.unpack(">HH", (head[at + 8 : at + 12] + bytes(4))[:4])
        return transfer, primaries
    if head.startswith(b"\x89PNG") and 0 <= (at := head.find(b"cICP")) < head.find(b"IDAT"):
        return head[at + 5], head[at + 4]
    return colour.UNSPECIFIED, colour.UNSPECIFIED
