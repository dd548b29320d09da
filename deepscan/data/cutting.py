"""Cuts one video, picture, pair clip or archive into aligned crops with landmarks and masks."""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from scipy import ndimage

from deepscan.config import Sampling
from deepscan.data.distortions import Distortion, recompress
from deepscan.errors import UnreadableInput
from deepscan.faces.alignment import CROP_SIDE, align, invert, warp
from deepscan.faces.finder import FaceFinder
from deepscan.media.isolation import Media, open_source
from deepscan.media.stills import BROKEN, is_still
from deepscan.media.video import DamagedFrame, VideoSource
from deepscan.records import Crop, Frame, Pixels
from deepscan.shapes import Bool, Float

AT_ONCE = 8  # frames held at a time: 200 MB of 4K video

# In grey levels. A swapped face differs from the original by 5 and more on average over its inner part, an
# untouched one by 2.5 at most, because both halves were encoded.
MIN_CHANGE = 4.0
INNER = (slice(64, 224), slice(48, 208))  # of an aligned crop: brows to chin, cheek to cheek

# The forged region of a pair's crop. Outside the swapped face half of the crops differ by 1.8 to 2.5 grey
# levels, which makes the threshold about 6. Three clips differ by 9 to 11 there: a fixed threshold would
# mark nearly all of their crops.
CHANGE_BLUR = 6.0  # pixels, sigma
CHANGE_ABOVE = 3.5  # grey levels above the encoding's own difference, which is ...
CHANGE_FLOOR = 25  # ... this percentile: a swapped face fills less than half of its crop
CHANGE_CLOSE = 20  # pixels, radius: closes gaps where cheeks or forehead did not change

MASK_LEVEL = (
    16  # grey levels: above it a mask shows the forged region, below it what encoding leaves
)

# Members of an archive of crops: ./N/{real|fake}/<sequence>/<frame>.png. Nothing else is looked at.
MEMBER = re.compile(r"(?:\./)?[\w-]+/(?:real|fake)/(?P<sequence>[\w-]+)/(?P<frame>[\w-]+)\.png")
MEMBER_BYTES = 2**24
MEMBER_SIDE = 1024

Mask = Bool[np.ndarray, "_height _width"]
Change = Callable[[Frame], Frame]  # of a frame before faces are looked for
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cut:
    """One crop, with its five `landmarks` and its forged region (`mask`), both in crop pixels."""

    index: int  # of the frame, display order
    pixels: Pixels
    landmarks: Float[np.ndarray, "5 2"] | None = None
    mask: Mask | None = None
    time: float | None = None  # seconds
    face_size: float | None = None  # of the face in its frame, pixels

    def __repr__(self) -> str:
        return f"Cut(frame {self.index}, {self.pixels.shape}, mask={self.mask is not None})"


@dataclass(frozen=True, slots=True)
class Cuts:
    """The crops of one video, and how many of its sampled frames gave none."""

    crops: tuple[Cut, ...]
    damaged: int = 0  # not decoded whole
    faceless: int = 0
    unchanged: int = 0  # faces, but both halves of a pair show the same, or the mask covers none


def _unchanged(frame: Frame) -> Frame:
    return frame


@contextmanager
def distorted(path: Path, distortion: Distortion | None) -> Iterator[tuple[Path, Change]]:
    """The file to read instead of `path`, and the change to make to its frames; none without a distortion."""
    if distortion is None or is_still(path):
        yield path, distortion.frame if distortion and distortion.kind != "h264" else _unchanged
    elif distortion.kind == "h264":
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "recompressed.mp4"
            recompress(path, target, distortion.strength)
            yield target, _unchanged
    else:
        yield path, distortion.frame


def cut_video(
    path: Path,
    mask: Path | None,
    frames: int,
    finder: FaceFinder,
    change: Change = _unchanged,
) -> Cuts:
    """One face of `frames` frames of a video, spread evenly, or of a picture: the largest, or the forged one.

    `mask` is a video or picture of the forged region; each crop's mask is cut from the frame of the same
    number by the same transform as the face. Of several faces, the one that the mask covers most is cut, and
    a frame whose mask covers none counts as unchanged.

    Raises:
        InputError: the video or its mask cannot be read.
    """
    source, masks = open_source(path), open_source(mask) if mask else None
    crops: list[Cut] = []
    damaged = faceless = unchanged = 0
    for items in _chunks(source.decode(source.choose(Sampling("uniform", frames))), AT_ONCE):
        whole = [change(item) for item in items if isinstance(item, Frame)]
        damaged += len(items) - len(whole)
        shown = _frames_at(masks, whole)
        for frame, found in zip(whole, finder.find(whole), strict=True):
            if not found.faces:
                faceless += 1
                continue
            forged = shown.get(frame.index)
            if forged is None:
                crop, region = align(frame, found.faces[0], track=1), None
            else:
                aligned = [align(frame, face, track=1) for face in found.faces]
                regions = [_warp_mask(forged, frame.pixels, one.to_frame) for one in aligned]
                best = int(np.argmax([one.sum() for one in regions]))
                crop, region = aligned[best], regions[best]
                if not region.any():
                    unchanged += 1
                    continue
            points, size = _landmarks(crop), crop.quality.face_size
            crops.append(Cut(frame.index, crop.pixels, points, region, float(frame.time), size))
    return Cuts(tuple(crops), damaged, faceless, unchanged)


def cut_pair(
    path: Path, frames: int, finder: FaceFinder, change: Change = _unchanged
) -> tuple[Cuts, Cuts]:
    """Crops of a side-by-side clip: of the original half, and of the swapped half with masks.

    The face is found in the original half and the same transform cuts both, so that the crops differ by the
    manipulation only. If there are several faces, the changed one is cut.

    Raises:
        InputError: the clip cannot be read.
    """
    source = VideoSource(path)
    real: list[Cut] = []
    fake: list[Cut] = []
    damaged = faceless = unchanged = 0
    for items in _chunks(source.decode(source.choose(Sampling("uniform", frames))), AT_ONCE):
        whole = [change(item) for item in items if isinstance(item, Frame)]
        damaged += len(items) - len(whole)
        left = [Frame(f.index, f.time, _half(f.pixels, 0)) for f in whole]
        for both, frame, found in zip(whole, left, finder.find(left), strict=True):
            if not found.faces:
                faceless += 1
                continue
            right = _half(both.pixels, 1)
            crops = [align(frame, face, track=1) for face in found.faces]
            pairs = [(crop, warp(right, crop.to_frame, CROP_SIDE)) for crop in crops]
            crop, swapped = max(pairs, key=lambda pair: _change(pair[0].pixels, pair[1]))
            if _change(crop.pixels, swapped) < MIN_CHANGE:
                unchanged += 1
                continue
            points = _landmarks(crop)
            seen = float(frame.time), crop.quality.face_size
            region = changed_region(crop.pixels, swapped)
            real.append(Cut(frame.index, crop.pixels, points, None, *seen))
            fake.append(Cut(frame.index, swapped, points, region, *seen))
    counts = damaged, faceless, unchanged
    return Cuts(tuple(real), *counts), Cuts(tuple(fake), *counts)


def cut_archive(path: Path, frames: int) -> dict[str, Cuts]:
    """Ready-made crops of each sequence in a .tar.gz (WildDeepfake's): `frames` of them, spread evenly.

    Members are read in order and never extracted: links, devices and odd names are ignored, and no name in
    the archive becomes a path.

    Raises:
        UnreadableInput: no archive, cut short, or no crops in it.
    """
    try:
        names: dict[str, list[str]] = {}
        for _, sequence, frame in _members(path):
            names.setdefault(sequence, []).append(frame)
        wanted: dict[tuple[str, str], int] = {}
        for sequence, listed in names.items():
            numbers = all(name.isdecimal() for name in listed)
            listed.sort(key=lambda name: (int(name) if numbers else 0, name))
            for i in np.unique(np.linspace(0, len(listed) - 1, frames).astype(int)).tolist():
                wanted[sequence, listed[i]] = int(listed[i]) if numbers else i
        found: dict[str, list[Cut]] = {sequence: [] for sequence in names}
        damaged = dict.fromkeys(names, 0)
        for data, sequence, frame in _members(path, wanted):
            pixels = _decoded(data)
            if pixels is None:
                damaged[sequence] += 1
            else:
                found[sequence].append(Cut(wanted[sequence, frame], pixels))
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UnreadableInput(f"{path}: not a readable archive ({error}); copy it again") from error
    if not found:
        raise UnreadableInput(f"{path}: holds no crops named <N>/<real or fake>/<sequence>/<n>.png")
    return {
        sequence: Cuts(tuple(sorted(cuts, key=lambda cut: cut.index)), damaged[sequence])
        for sequence, cuts in found.items()
    }


def changed_region(real: Pixels, fake: Pixels) -> Mask:
    """Where a crop differs from its original: the largest such region, without gaps or holes.

    It takes the largest difference of the three colours, blurs it, and compares it with the difference
    outside the face, which depends on how strongly the clip is compressed.
    """
    difference = np.abs(real.astype(np.float32) - fake).max(2)
    blurred = ndimage.gaussian_filter(difference, CHANGE_BLUR)
    above = blurred > np.percentile(blurred, CHANGE_FLOOR) + CHANGE_ABOVE
    # Close with a disc: grow by its radius, then shrink by it, with a border wide enough for both.
    r = CHANGE_CLOSE
    grown = ndimage.distance_transform_edt(~np.pad(above, 2 * r)) <= r
    closed = (ndimage.distance_transform_edt(grown) > r)[2 * r : -2 * r, 2 * r : -2 * r]
    parts, count = ndimage.label(ndimage.binary_fill_holes(closed | above))
    if not count:
        return above
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])


# --- steps -----------------------------------------------------------------------------------------


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _frames_at(masks: Media | None, like: list[Frame]) -> dict[int, Pixels]:
    """The mask's pictures with the same frame numbers, as far as they exist."""
    if masks is None:
        return {}
    indices = [frame.index for frame in like if frame.index < masks.source.frames]
    shown: Iterable[Frame | DamagedFrame] = masks.decode(indices)
    return {item.index: item.pixels for item in shown if isinstance(item, Frame)}


def _warp_mask(forged: Pixels, frame: Pixels, to_frame: Float[np.ndarray, "2 3"]) -> Mask:
    """Cut a mask as the face was cut; a mask of another size is taken to show the whole frame."""
    height, width = frame.shape[:2]
    scale = np.array([(forged.shape[1] / width,), (forged.shape[0] / height,)])
    return warp(forged, to_frame * scale, CROP_SIDE).max(2) > MASK_LEVEL


def _landmarks(crop: Crop) -> Float[np.ndarray, "5 2"]:
    points = np.column_stack([crop.face.landmarks, np.ones(5)])
    return points @ invert(crop.to_frame).T


def _half(pixels: Pixels, side: int) -> Pixels:
    """The left (0) or right (1) half; if the width is odd, the middle column belongs to neither."""
    width = pixels.shape[1]
    half = pixels[:, width - width // 2 :] if side else pixels[:, : width // 2]
    return np.ascontiguousarray(half)


def _change(real: Pixels, fake: Pixels) -> float:
    """Mean absolute difference over the inner face, grey levels."""
    return float(np.abs(real[INNER].astype(np.float32) - fake[INNER]).mean())


def _members(path: Path, wanted: Iterable[Any] | None = None) -> Iterator[tuple[bytes, str, str]]:
    """(bytes, sequence, frame) of an archive's crops; bytes only for those wanted."""
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            match = MEMBER.fullmatch(member.name)
            if not match or not member.isfile() or member.size > MEMBER_BYTES:
                continue
            key = match["sequence"], match["frame"]
            if wanted is None:
                yield b"", *key
            elif key in wanted and (file := archive.extractfile(member)):
                yield file.read(), *key


def _decoded(data: bytes) -> Pixels | None:
    """A PNG's pixels, or None if it is damaged or not of a crop's size."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return None if max(image.size) > MEMBER_SIDE else np.asarray(image.convert("RGB"))
    except (*BROKEN, Image.DecompressionBombError):
        return None
