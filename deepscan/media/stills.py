"""Reads a still picture with Pillow: StillSource, with the same methods as VideoSource.

Of a file with several pictures, such as a TIFF's pages or a phone's MPO with its gain map, the one that
viewers show is judged, and the others are counted. HEIC needs the extra `heic`.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from mmap import mmap
from pathlib import Path

from PIL import ExifTags, Image, TiffImagePlugin

from deepscan.config import Sampling
from deepscan.errors import NoVideoStream, UnreadableInput
from deepscan.files import check_readable, sha256
from deepscan.media import still_colours
from deepscan.media.display import check_size
from deepscan.media.heif import primary
from deepscan.media.recognise import mapped, picture_behind, recording_behind
from deepscan.records import Colour, Frame, Pixels, Source

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000")
# Several pictures in one file of these formats are an animation, which is a video.
ANIMATED = ("GIF", "PNG", "WEBP")

# Brands of still pictures in ISO base media files. FFmpeg would take a tile of them for the picture.
HEIC = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"}
AVIF = {b"avif", b"avis"}
# A file of one of these brands first of all is an animation, which FFmpeg plays.
SEQUENCES = (b"avis", b"msf1", b"hevc", b"hevx")

# TIFF: of a page that is a smaller version of another (NewSubfileType), and of pages beside the listed ones.
NEW_SUBFILE, SUB_IFDS = 254, 330

HEAD = 2**18  # first bytes of a file, which hold the beginnings of its boxes
FIRST = 16  # first bytes of a file, which hold its own mark
PNG_END = b"IEND\xaeB`\x82"

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


def is_webp_animation(path: Path) -> bool:
    """Whether a file that is not a still is the kind of animation that FFmpeg does not play."""
    with path.open("rb") as file:
        return file.read(12)[8:] == b"WEBP"


def is_still(path: Path) -> bool:
    """Whether the content, whatever the name, is a picture and no video or animation.

    Raises:
        UnreadableInput: it is a picture, of which only a part or nothing could be read.
    """
    check_readable(path)
    brands = _brands(path)
    if brands and brands[0] in SEQUENCES and b"moov" in _boxes(path):
        return False
    if HEIC.intersection(brands) and not AVIF.intersection(brands) and not _reads_heic():
        raise UnreadableInput(
            f"{path}: a HEIC picture, as taken by iPhones; pip install deepscan-forensics[heic], or"
            f" save it as JPEG or PNG at full size and keep the original"
        )
    try:
        with opened(path) as image:
            if image.format == "JPEG" and is_motion_jpeg(path):
                return False
            return image.format not in ANIMATED or getattr(image, "n_frames", 1) == 1
    except Image.DecompressionBombError:
        return True  # it is a picture; StillSource says why it is refused
    except BROKEN as error:
        if (HEIC | AVIF).intersection(brands) and not _is_film(path):
            raise UnreadableInput(
                f"{path}: an AVIF or HEIC picture that cannot be read completely ({error}); save it"
                f" as JPEG or PNG at full size, and keep the original"
            ) from error
        return False


def _brands(path: Path) -> list[bytes]:
    """The brands in the first box of an ISO base media file: its major one and the compatible ones."""
    with path.open("rb") as file:
        head = file.read(256)
    if head[4:8] != b"ftyp":
        return []
    size = int.from_bytes(head[:4], "big")
    return [head[at : at + 4] for at in (8, *range(16, min(size, len(head)), 4))]


def _boxes(path: Path) -> list[bytes]:
    """The kinds of the outermost boxes of an ISO base media file, as far as its head holds them."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    at, kinds = 0, []
    while len(head) - at >= 8 and (size := int.from_bytes(head[at : at + 4], "big")) >= 8:
        kinds.append(head[at + 4 : at + 8])
        at += size
    return kinds


def _is_film(path: Path) -> bool:
    """Whether an ISO base media file begins with a box of tracks, not with one of pictures."""
    return next((kind for kind in _boxes(path) if kind in (b"moov", b"meta")), b"") == b"moov"


def _reads_heic() -> bool:
    """Register pillow-heif with Pillow, if it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def is_motion_jpeg(path: Path) -> bool:
    """Whether it is a JPEG which another of the same size follows at once, as in a raw film of JPEGs.

    A photograph, which has EXIF, may have another view or a gain map behind it.
    """
    with mapped(path) as content:
        if content[:2] != b"\xff\xd8":
            return False
        at, exif = _jpeg_end(content)
        if exif or content[at : at + 3] != b"\xff\xd8\xff":
            return False
        both = content[:HEAD], content[at : at + HEAD]
    try:
        first, second = (Image.open(io.BytesIO(head), formats=("JPEG",)) for head in both)
        return first.size == second.size
    except BROKEN:
        return False


def _jpeg_end(content: mmap) -> tuple[int, bool]:
    """Where a JPEG ends (0 if it does not), and whether it has EXIF."""
    at, exif = 2, False
    while (
        content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] != b"\xda"
    ):  # up to the coded picture
        exif |= content[at + 1 : at + 2] == b"\xe1"
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    end = content.find(b"\xff\xd9", at)
    return (end + 2 if end >= 0 else 0), exif


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open the picture by its content; Pillow's warnings are silenced, real trouble raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heic = HEIC.intersection(_brands(path)) and _reads_heic()
        with Image.open(path, formats=(*FORMATS, "HEIF") if heic else FORMATS) as image:
            yield image


@contextmanager
def reading(path: Path) -> Iterator[Image.Image]:
    """Like `opened`, for a file that is known to be a picture: Pillow's errors become deepscan's."""
    try:
        with opened(path) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise UnreadableInput(f"{path}: {error}; it is not decoded") from error
    except BROKEN as error:
        raise UnreadableInput(
            f"{path}: not a readable picture ({error}); it may be cut short"
        ) from error


class StillSource:
    """One picture file, opened read-only and turned upright by its EXIF orientation.

    Raises:
        UnreadableInput: damaged, cut short, or too large to decode.
    """

    declared_duration = None

    def __init__(self, path: Path, stream: int | None = None) -> None:
        check_readable(path)
        with reading(path) as image:
            codec = str(image.format).lower()
            pages = getattr(image, "n_frames", 1)
            number = _page(path, image, pages) if stream is None else stream
            if number >= pages:
                raise NoVideoStream(
                    f"{path}: no picture {number} in this file, which contains {_counted(pages, 'picture')},"
                    " counted from 0; without --stream deepscan judges the one that viewers show"
                )
            image.seek(number)
            check_size(path, *image.size)
            mode = image.mode
            rotation = {3: 180, 4: 180, 5: 270, 6: 270, 7: 90, 8: 90}.get(
                image.getexif().get(0x0112, 1), 0
            )
            others = tuple(_others(path, image, pages))
            self._pixels, colours = pixels_of(path, image)
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
            stream=number,
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


def _page(path: Path, image: Image.Image, pages: int) -> int:
    """The number of the picture that viewers show: the first, but in TIFF the first that is not a thumbnail.

    Raises:
        UnreadableInput: only a thumbnail of the picture can be read, as of cameras' raw files.
    """
    if image.format != "TIFF":
        return image.tell()  # HEIF may name another one than the first
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    for number in range(pages):
        image.seek(number)
        if not image.tag_v2.get(NEW_SUBFILE, 0) & 1:
            return number
        if SUB_IFDS in image.tag_v2:
            raise UnreadableInput(
                f"{path}: a camera's raw file, of which only the thumbnail can be read; develop it"
                f" to a full-size TIFF or JPEG, and keep the original"
            )
    return 0


def _others(path: Path, image: Image.Image, pages: int) -> Iterator[str]:
    """What else the file holds, in words."""
    if pages > 1:
        yield f"{_counted(pages - 1, 'further picture')} in the same file"
    thumbnails = len(image.info.get("thumbnails", ()))  # HEIF's
    if ExifTags.Base.JpegIFOffset in image.getexif().get_ifd(ExifTags.IFD.IFD1):
        thumbnails += 1
    if thumbnails:
        yield _counted(thumbnails, "thumbnail")
    if depths := len(image.info.get("depth_images", ())):
        yield _counted(depths, "depth map")
    if image.format in ("AVIF", "HEIF") and primary(path).gain_map:
        yield "a gain map, which makes HDR of it"
    if (end := picture_end(path, str(image.format))) and picture_behind(path, end):
        yield "another picture behind it"
    if recording_behind(path, FIRST):
        yield "a video behind the picture"


def _counted(count: int, one: str) -> str:
    return f"{count} {one}{'s' * (count != 1)}"


def _boxes_end(content: mmap) -> int:
    """Where the boxes of an ISO base media file end, or another file's begin."""
    at = 0
    while (kind := content[at + 4 : at + 8]).isalnum() and not (at and kind == b"ftyp"):
        size = int.from_bytes(content[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(content[at + 8 : at + 16], "big")
        if size < 8:  # 0: up to the end
            return len(content) if size == 0 else at
        at += size
    return min(at, len(content))


def picture_end(path: Path, kind: str) -> int:
    """Where the picture of this kind ends in its file; 0 if that is not known."""
    with mapped(path) as content:
        if kind == "JPEG":
            return _jpeg_end(content)[0]
        if kind == "PNG":
            at = content.find(PNG_END)
            return at + len(PNG_END) if at >= 0 else 0
        if kind == "WEBP":
            return 8 + int.from_bytes(content[4:8], "little")
        return _boxes_end(content) if kind in ("AVIF", "HEIF") else 0


def pixels_of(path: Path, image: Image.Image) -> tuple[Pixels, Colour]:
    """The open picture as viewers show it, upright, and what was made of its colours.

    Raises:
        UnreadableInput: there is no agreed way to show it.
    """
    if image.mode in ("I", "F"):
        raise UnreadableInput(
            f"{path}: 32 bits per pixel, for which no grey scale is defined; save it with 8 or 16"
        )
    return still_colours.shown(path, image, image.info.get("icc_profile"))
