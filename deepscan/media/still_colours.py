"""Makes the SDR of BT.709 of a picture that Pillow has opened, in all of its bits where it is HDR.

Pillow gives 8 bits for each colour, which is enough for SDR. Of HDR they leave steps in dark tones, so FFmpeg
decodes AVIF and PNG once more, and pillow-heif HEIC.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

from deepscan.media import colour
from deepscan.media.display import colours_shown, tagged_colour
from deepscan.media.heif import Tags, primary
from deepscan.records import Colour, Pixels

HEAD = 2**18  # first bytes of a PNG, which hold the tags of its colours


def shown(path: Path, image: Image.Image, profile: bytes | None) -> tuple[Pixels, Colour]:
    """The picture's pixels, upright, and what was made of its colours.

    Raises:
        OSError and what else Pillow raises: damaged.
    """
    tags = _tags(path, image, profile)
    if tags.transfer in colour.HDR or tags.primaries in colour.WIDE:
        found = tagged_colour(tags.transfer, tags.primaries)
        deep = _deep(path, image, tags)
        if deep is None:
            code = np.asarray(image.convert("RGB")).astype(np.uint16) * 257
            deep = colour.to_sdr(code, 65535, tags.transfer, tags.primaries)
            if tags.transfer in colour.HDR:
                found = replace(found, conversion=f"{found.conversion}, from 8 bits")
        turned = Image.fromarray(deep)
        turned.getexif()[ExifTags.Base.Orientation] = image.getexif().get(
            ExifTags.Base.Orientation, 1
        )
        return np.asarray(ImageOps.exif_transpose(turned)), found
    upright = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # 16-bit grey, which Pillow would clip at 255
        upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
    if "transparency" in upright.info:
        upright = upright.convert("RGBA")
    if profile and (converted := _by_profile(upright, profile)):
        return converted
    return np.asarray(upright.convert("RGB")), tagged_colour(tags.transfer, tags.primaries)


def _by_profile(image: Image.Image, profile: bytes) -> tuple[Pixels, Colour] | None:
    """The picture in sRGB by its ICC profile; None if that is sRGB's, or cannot be used."""
    with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(given).strip()
        if "srgb" in name.lower():
            return None
        wanted = "CMYK" if image.mode == "CMYK" else "L" if image.mode in ("L", "LA") else "RGB"
        converted = ImageCms.profileToProfile(
            image.convert(wanted),
            given,
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            "RGB",
        )
        assert converted is not None
        said = Colour(primaries=name, conversion=f"ICC profile {name} to sRGB")
        return np.asarray(converted), said
    return None


def _tags(path: Path, image: Image.Image, profile: bytes | None) -> Tags:
    """What a picture states of its colours in numbers of ITU-T H.273, wherever it does."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if image.format in ("AVIF", "HEIF") and (stated := primary(path).colours):
        return stated
    if image.format == "PNG" and 0 <= (at := head.find(b"cICP")) < head.find(b"IDAT"):
        return Tags(head[at + 4], head[at + 5])
    for n in range(int.from_bytes(profile[128:132], "big") if profile else 0):  # ICC.1:2022, 9.2.17
        assert profile is not None
        entry = profile[132 + 12 * n : 144 + 12 * n]
        at = int.from_bytes(entry[4:8], "big")
        if entry[:4] == b"cicp" == profile[at : at + 4] and len(profile) >= at + 12:
            return Tags(profile[at + 8], profile[at + 9])
        if not entry:
            break
    if image.format == "AVIF" and not profile and (frame := _frame(path)):
        return Tags(frame.color_primaries, frame.color_trc)
    return Tags(colour.UNSPECIFIED, colour.UNSPECIFIED)


def _deep(path: Path, image: Image.Image, tags: Tags) -> Pixels | None:
    """The picture, not turned, from all of its bits; None if it comes in 8, or only in part."""
    if image.format == "HEIF":
        import pillow_heif

        file = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)
        code = np.asarray(file[image.tell()])
        if code.dtype != np.uint16 or code.ndim != 3:
            return None
        # Ten and twelve bits are moved up to sixteen.
        white = 65535 // (step := 2 ** (16 - int(image.info["bit_depth"]))) * step
        return colour.to_sdr(code[..., :3], white, tags.transfer, tags.primaries)
    frame = _frame(path) if image.format in ("AVIF", "PNG") else None
    if frame is None or (frame.width, frame.height) != image.size:  # of an AVIF in tiles, one
        return None
    frame.color_trc, frame.color_primaries = tags.transfer, tags.primaries
    if not frame.format.is_rgb:
        if tags.matrix is not None:
            frame.colorspace = tags.matrix
        if tags.full_range is not None:
            frame.color_range = 1 + tags.full_range
    if max(component.bits for component in frame.format.components) <= 8:
        return None
    return colours_shown(frame, frame.width, frame.height)


def _frame(path: Path) -> Any:
    """The first picture as FFmpeg decodes it; None if it does not."""
    options = {"protocol_whitelist": "file", "format_whitelist": "mov,png_pipe"}
    with (
        suppress(av.error.FFmpegError, StopIteration, IndexError),
        av.open(f"file:{path}", options=options) as container,
    ):
        container.streams.video[0].codec_context.thread_count = 1
        return next(container.decode(video=0))
    return None
