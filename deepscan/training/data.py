"""Side-by-side clips -> pairs of aligned crops -> augmented views -> the frozen tower's patch tokens."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from deepscan.align import CROP_SIDE, align, warp
from deepscan.config import Faces, Sampling
from deepscan.errors import DataError, InputError, SettingsError
from deepscan.faces import FaceFinder
from deepscan.manifest import CropRow, PairRow
from deepscan.model.detector import Detector
from deepscan.records import Frame, Pixels
from deepscan.video import VideoSource

# Called with what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]

# Grey levels: a swapped face differs from the camera's by 5 and more on average over its inner part,
# an untouched one by 2.5 at most, which is what encoding both halves leaves.
MIN_CHANGE = 4.0
INNER = (slice(64, 224), slice(48, 208))  # of an aligned crop: brows to chin, cheek to cheek


# --- crops -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """The same place of one frame, as the camera saw it and as it was manipulated."""

    name: str  # of the clip
    group: str
    frame_index: int
    real: Pixels
    fake: Pixels

    def __repr__(self) -> str:
        return f"Pair({self.name!r}, frame {self.frame_index}, {self.real.shape})"


@dataclass(frozen=True, slots=True)
class CutCount:
    """How the sampled frames fared; the others add up to `sampled`."""

    sampled: int
    cut: int
    damaged: int  # not decoded whole
    faceless: int  # no face in the camera's half
    unswapped: int  # faces, but both halves show the same ones

    def __post_init__(self) -> None:
        if self.sampled != self.cut + self.damaged + self.faceless + self.unswapped:
            raise ValueError(f"counts do not add up: {self}")


def cut_pairs(
    rows: Sequence[PairRow], frames: int, device: str, progress: Progress | None = None
) -> tuple[list[Pair], CutCount]:
    """Cut `frames` frames of each clip, spread evenly over its time, into pairs of aligned crops.

    The face is found in the camera's half, and the same transform cuts both: nothing but the
    manipulation tells the crops apart. Where there are several faces, it is the one that was changed.

    Raises:
        DataError: a clip cannot be read, or no frame of any clip could be cut.
    """
    faces = Faces()
    finder = FaceFinder(faces.min_size, faces.min_confidence, faces.working_side, device)
    pairs: list[Pair] = []
    sampled = damaged = faceless = unswapped = 0
    for done, row in enumerate(rows):
        try:
            source = VideoSource(row.path)
            items = list(source.decode(source.choose(Sampling("uniform", frames))))
        except InputError as error:
            raise DataError(f"{error}; replace the clip or take it out of pairs.csv") from error
        whole = [item for item in items if isinstance(item, Frame)]
        sampled += len(items)
        damaged += len(items) - len(whole)
        left = [
            Frame(f.index, f.time, half) for f, half in zip(whole, _halves(whole, 0), strict=True)
        ]
        for frame, right, found in zip(left, _halves(whole, 1), finder.find(left), strict=True):
            crops = [align(frame, face, track=1) for face in found.faces]
            both = [(c.pixels, warp(right, c.to_frame, CROP_SIDE)) for c in crops]
            if not both:
                faceless += 1
                continue
            real, fake = max(both, key=lambda pair: _change(*pair))
            if _change(real, fake) < MIN_CHANGE:
                unswapped += 1
                continue
            pairs.append(Pair(row.name, row.source_group, frame.index, real, fake))
        if progress is not None:
            progress("cutting clips", done + 1, len(rows))
    if not pairs:
        raise DataError(
            f"{rows[0].path.parent}: of {sampled} frames {damaged} are damaged, {faceless} show no face in"
            f" their left half and {unswapped} the same face in both; are these side-by-side clips?"
        )
    return pairs, CutCount(sampled, len(pairs), damaged, faceless, unswapped)


def _halves(frames: Iterable[Frame], side: int) -> Iterator[Pixels]:
    """The left (0) or right (1) halves; of an odd width, the middle column belongs to neither."""
    for frame in frames:
        width = frame.pixels.shape[1]
        half = frame.pixels[:, width - width // 2 :] if side else frame.pixels[:, : width // 2]
        yield np.ascontiguousarray(half)


def _change(real: Pixels, fake: Pixels) -> float:
    """Mean absolute difference over the inner face, grey levels."""
    return float(np.abs(real[INNER].astype(np.float32) - fake[INNER]).mean())


def read_pictures(rows: Sequence[CropRow]) -> Iterator[Pixels]:
    """The pixels of crops that lie in files, RGB.

    Raises:
        DataError: a file cannot be decoded; a test set is judged whole or not at all.
    """
    for row in rows:
        try:
            with Image.open(row.path) as image:
                yield np.asarray(image.convert("RGB"))
        except OSError as error:
            raise DataError(f"{row.path}: not a readable picture ({error}); replace it") from error


def check_pictures(rows: Sequence[CropRow]) -> None:
    """Raise DataError unless all of these crops can be decoded and are of one size."""
    size = None
    for row, pixels in zip(rows, read_pictures(rows), strict=True):
        size = size or pixels.shape
        if pixels.shape != size:
            raise DataError(
                f"{row.path}: {pixels.shape[1]} x {pixels.shape[0]} pixels, others are"
                f" {size[1]} x {size[0]}; bring all crops to one size"
            )


# --- augmentation ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How views differ from their crop. Plain names are probabilities, the others are ranges.

    method.md's recipe (flip, blur, JPEG, mild colour), with resizing, and with zooming in: face
    finders and data sets frame a face differently, and the detector should not care.
    """

    flip: float = 0.5
    zoom: float = 0.5
    zoom_keeps: tuple[float, float] = (0.6, 1.0)  # share of the crop's side
    colour: float = 0.5
    colour_factor: tuple[float, float] = (0.85, 1.15)  # brightness, contrast and saturation, each
    blur: float = 0.1
    blur_sigma: tuple[float, float] = (0.5, 2.0)  # pixels of the crop
    resize: float = 0.2
    resize_to: tuple[float, float] = (0.3, 0.9)  # share of the side, before it is brought back
    jpeg: float = 0.5
    jpeg_quality: tuple[int, int] = (40, 100)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, tuple):
                if not 0 < value[0] <= value[1]:
                    raise SettingsError(f"augment {entry.name}: {value} is not a range above 0")
            elif not 0 <= value <= 1:
                raise SettingsError(f"augment {entry.name}: {value} is not a probability")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One drawn change of a crop, to be applied to both halves of a pair. The default changes nothing."""

    flip: bool = False
    zoom: tuple[float, float, float] = (1.0, 0.0, 0.0)  # kept share; left and top share of the rest
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)  # brightness, contrast, saturation
    blur: float = 0.0
    resize: float = 1.0
    jpeg: int | None = None

    @classmethod
    def draw(cls, settings: AugmentSettings, rng: np.random.Generator) -> Augmentation:
        """Draw one. Every draw takes the same amount from `rng`, whatever comes out."""
        take = rng.random(6)
        where, s = rng.random(2), settings
        zoom, blur, resize = (rng.uniform(*r) for r in (s.zoom_keeps, s.blur_sigma, s.resize_to))
        colour = rng.uniform(*s.colour_factor, size=3)
        jpeg = int(rng.integers(s.jpeg_quality[0], s.jpeg_quality[1] + 1))
        return cls(
            flip=bool(take[0] < s.flip),
            zoom=(zoom, float(where[0]), float(where[1])) if take[1] < s.zoom else (1.0, 0.0, 0.0),
            colour=tuple(colour.tolist()) if take[2] < s.colour else (1.0, 1.0, 1.0),
            blur=blur if take[3] < s.blur else 0.0,
            resize=resize if take[4] < s.resize else 1.0,
            jpeg=jpeg if take[5] < s.jpeg else None,
        )

    def apply(self, pixels: Pixels) -> Pixels:
        """The changed picture, of the same size. Compression comes last, as in the world."""
        image = Image.fromarray(pixels)
        size = width, height = image.size
        if self.flip:
            image = ImageOps.mirror(image)
        kept, left, top = self.zoom
        if kept < 1:
            x, y = left * (1 - kept) * width, top * (1 - kept) * height
            box = (x, y, x + kept * width, y + kept * height)
            image = image.resize(size, Image.Resampling.BICUBIC, box=box)
        for enhance, factor in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color),
            self.colour,
            strict=True,
        ):
            if factor != 1:
                image = enhance(image).enhance(factor)
        if self.blur:
            image = image.filter(ImageFilter.GaussianBlur(self.blur))
        if self.resize < 1:
            small = max(1, round(self.resize * width)), max(1, round(self.resize * height))
            image = image.resize(small, Image.Resampling.BILINEAR).resize(
                size, Image.Resampling.BILINEAR
            )
        if self.jpeg is not None:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=self.jpeg)
            image = Image.open(buffer)
        return np.asarray(image)


# --- tokens ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenBank:
    """What the head trains on: patches of every view of every pair, view 0 unaugmented.

    `patches` is float16 on the CPU: half a megabyte for both halves of one view with ViT-B/16.
    """

    names: tuple[str, ...]  # clip of each pair
    groups: tuple[str, ...]
    patches: Float[Tensor, "pairs views 2 p d"]  # half 0 is real, 1 manipulated

    def __repr__(self) -> str:
        return f"TokenBank({len(set(self.names))} clips, {tuple(self.patches.shape)})"


def token_bank(
    detector: Detector,
    pairs: Sequence[Pair],
    views: int,
    augment: AugmentSettings,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> TokenBank:
    """Run the frozen tower once over `views` views of each pair; both halves of a view change alike."""
    patches = torch.empty(0)
    for i, pair in enumerate(pairs):
        changes = [Augmentation()] + [Augmentation.draw(augment, rng) for _ in range(views - 1)]
        pictures = [c.apply(pixels) for c in changes for pixels in (pair.real, pair.fake)]
        with torch.inference_mode():
            found = detector.tokens(torch.from_numpy(np.stack(pictures))).patches
        if i == 0:  # filled in place: it is a gigabyte, and need not exist twice
            patches = torch.empty(len(pairs), views, 2, *found.shape[1:], dtype=torch.float16)
        patches[i] = found.view(views, 2, *found.shape[1:])
        if progress is not None:
            progress("frozen tower", i + 1, len(pairs))
    return TokenBank(
        tuple(pair.name for pair in pairs), tuple(pair.group for pair in pairs), patches
    )
