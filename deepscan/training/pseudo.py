"""Pseudo-fakes: a real face blended over itself, so that only the traces of blending give it away.

The idea: K. Shiohara and T. Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022. Two
copies of one crop, source and target, get different statistics; the source is moved a little and laid
over the target through a soft mask of a face region. What a detector can learn from the result is what
manipulations share, a seam and statistics that disagree, and not one generator's handwriting.

Ours: the region is not always the whole face, as not every manipulation changes all of it, and the
source is also bent a little, as an expression bends a face. Where asked for, the source is another
person's face, laid on by its landmarks and given the target's colours: a face swap, made by hand.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import map_coordinates
from scipy.spatial import ConvexHull, QhullError

from deepscan.errors import DataError, SettingsError
from deepscan.faces.alignment import CROP_SIDE, FACE, TEMPLATE
from deepscan.records import Pixels
from deepscan.shapes import Float

Points = Float[np.ndarray, "_points 2"]  # x, y
Weight = Float[np.ndarray, "h w"]

# The right half of each region's outline, top to bottom: x from the face's axis, y, on the template
# (eyes at y 120, nose 156, mouth 192). Proportions of an average face, measured on nobody.
HALF_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "face": tuple(map(tuple, FACE.tolist())),
    "inner": (
        *((0, 94), (30, 90), (47, 98), (51, 122), (43, 160), (37, 194), (22, 210), (0, 214)),
    ),
    "lower": ((0, 160), (24, 163), (46, 174), (50, 192), (38, 213), (20, 229), (0, 234)),
    "mouth": ((0, 170), (22, 172), (37, 186), (36, 200), (20, 211), (0, 214)),
    "eyes": ((0, 102), (28, 94), (50, 98), (58, 118), (48, 136), (26, 140), (0, 136)),
}
AXIS = 128.0

# A crop without a visible change is not a pseudo-fake: see `self_blend`.
MIN_CHANGE = 1.5  # mean over the region, grey levels; compression alone moves plain areas by 1
DRAWS = 20


@dataclass(frozen=True, slots=True)
class PseudoSettings:
    """How pseudo-fakes are made. Lengths are pixels of a crop of 256, whatever its size is.

    `face` to `eyes` are the regions' shares (they need not sum to 1), pairs are ranges, deviations
    those of a normal draw, and the other names probabilities.
    """

    face: float = 0.4
    inner: float = 0.25
    lower: float = 0.1
    mouth: float = 0.15
    eyes: float = 0.1
    deform: float = 4.0  # deviation of the region's outline, smooth along it
    stretch: float = 0.05  # deviation of its width and height, as shares
    grow: float = 6.0  # deviation of the blur whose level sets shrink and widen the region
    edge: tuple[float, float] = (1.5, 7.0)  # deviation of the blur that softens the seam
    partial: float = 0.5  # else the source covers the region's middle entirely
    partial_ratio: tuple[float, float] = (0.4, 0.9)
    to_source: float = 0.5  # each change below goes to the source, else to the target
    colour: float = 0.9
    colour_shift: float = 4.0  # grey levels, deviation, each channel
    colour_factor: tuple[float, float] = (0.92, 1.08)  # brightness, contrast, saturation, each
    resize: float = 0.3
    resize_to: tuple[float, float] = (0.3, 0.7)  # share of the side, before it is brought back
    sharpen: float = 0.2
    sharpen_by: tuple[float, float] = (0.4, 1.5)  # share of the detail that is added
    jpeg: float = 0.4
    jpeg_quality: tuple[int, int] = (40, 95)
    swap: float = 0.0  # share whose source is another person's face
    shift: float = 2.0  # deviation, of the source as a whole
    scale: float = 0.015  # deviation, likewise, as a share
    bend: float = 1.5  # deviation, of its parts

    def __post_init__(self) -> None:
        lengths = ("deform", "stretch", "grow", "colour_shift", "shift", "scale", "bend")
        highest = {"partial_ratio": 1, "resize_to": 1, "jpeg_quality": 100}
        for entry in fields(self):
            name, value = entry.name, getattr(self, entry.name)
            if isinstance(value, tuple):
                if not 0 < value[0] <= value[1] <= highest.get(name, np.inf):
                    raise SettingsError(f"pseudo {name}: {value} is not a valid range")
            elif name in lengths:
                if not 0 <= value < np.inf:
                    raise SettingsError(f"pseudo {name}: {value} is not 0 or more")
            elif not 0 <= value <= 1:
                raise SettingsError(f"pseudo {name}: {value} is not a probability")
        if not any(getattr(self, kind) for kind in HALF_OUTLINES):
            raise SettingsError(f"pseudo: one of {', '.join(HALF_OUTLINES)} must be above 0")


def self_blend(
    pixels: Pixels,
    landmarks: Points | None,
    rng: np.random.Generator,
    settings: PseudoSettings,
    donor: tuple[Pixels, Points | None] | None = None,
) -> tuple[Pixels, Float[np.ndarray, "_height _width"]]:
    """One pseudo-fake of a real, aligned crop.

    Args:
        pixels: (h, w, 3), aligned to deepscan.faces.alignment's template.
        landmarks: in the crop's pixels, 5 in the template's order, or 68 or 81 in dlib's, whose hull
            is then the outline of the whole face; None takes the template's own 5.
        donor: another crop and its landmarks, whose face becomes the source.

    Returns:
        The picture, and the blend weight (h, w) in [0, 1] before it is scaled by the blend ratio, its
        highest value 1: where it exceeds 1/2, the source is what the picture shows, up to the ratio.
        So `mask > 0.5` is the manipulated region, whose border is the middle of the seam, and a weak
        blend has no smaller region than a strong one. Where it is 0, the picture is exactly the
        target, which may differ from `pixels` by a change of colour, sharpness or compression.

    Raises:
        DataError: landmarks of another number, or outside the crop; or no draw changes anything to be
            seen, as the crop is blank or the settings allow nothing.
    """
    outlines = _outlines(landmarks, pixels.shape[:2])
    other = pixels if donor is None else _laid_on(*donor, pixels, landmarks)
    for _ in range(DRAWS):
        weight = _soft_region(outlines, pixels.shape[:2], rng, settings)
        source, target = _two_statistics(other, pixels, rng, settings)
        shown = _box(weight)  # beyond it the picture is the target
        source = _moved(source, rng, settings, shown)
        ratio = _uniform(rng, settings.partial_ratio) if rng.random() < settings.partial else 1.0
        share, below = (ratio * weight[shown])[:, :, None], target[shown]
        part = np.rint(below + share * (source[shown].astype(np.float32) - below)).astype(np.uint8)
        region = weight[shown] > 0.5
        change = np.abs(part[region].astype(np.float32) - below[region]).mean()
        if change >= MIN_CHANGE:  # else its label would be wrong
            blended = target.copy()
            blended[shown] = part
            return blended, weight
    raise DataError(
        f"no visible self-blend in {DRAWS} draws: is the crop blank, or do the settings change nothing?"
    )


# --- the region ------------------------------------------------------------------------------------


def _outlines(landmarks: Points | None, size: tuple[int, int]) -> dict[str, Points]:
    """The regions' outlines fitted to a face, closed polygons in the crop's pixels."""
    five, hull = _five(landmarks, size), None
    if landmarks is not None and len(landmarks) > 5:
        try:
            hull = landmarks[ConvexHull(landmarks).vertices].astype(np.float64)
        except QhullError as error:
            raise DataError("landmarks: all on one line; find them again") from error
    # Least squares, affine: a turned face is narrower, a long one longer than the template.
    fit = np.linalg.lstsq(_with_ones(TEMPLATE), five, rcond=None)[0]
    polygons = {}
    for kind, half in HALF_OUTLINES.items():
        right = np.array(half, np.float64)
        whole = np.concatenate([right, right[-2:0:-1] * (-1, 1)])
        whole[:, 0] += AXIS
        polygons[kind] = _with_ones(whole) @ fit
    return polygons if hull is None else polygons | {"face": hull}


def _five(landmarks: Points | None, size: tuple[int, int]) -> Points:
    """The template's five points of a face, of whatever landmarks there are."""
    if landmarks is None:
        return TEMPLATE * (size[1] / CROP_SIDE, size[0] / CROP_SIDE)
    if len(landmarks) not in (5, 68, 81) or not np.isfinite(landmarks).all():
        raise DataError(
            f"landmarks: {len(landmarks)} points; 5, 68 or 81 are wanted, all of them finite"
        )
    if len(landmarks) == 5:
        return landmarks
    left_eye, right_eye = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    return np.stack([left_eye, right_eye, *landmarks[[30, 48, 54]]])


def _laid_on(
    donor: Pixels, points: Points | None, pixels: Pixels, landmarks: Points | None
) -> Pixels:
    """Another face moved to this one's place, with this one's mean and deviation of each channel.

    The colours are those between the outermost landmarks, where it is all face.
    Source: E. Reinhard et al., "Color Transfer between Images", 2001, in RGB.
    """
    height, width = pixels.shape[:2]
    place = _five(landmarks, (height, width))
    back = np.linalg.lstsq(_with_ones(place), _five(points, donor.shape[:2]), rcond=None)[0]
    moved = Image.fromarray(donor).transform(
        (width, height),
        Image.Transform.AFFINE,
        tuple(back.T.ravel().tolist()),
        Image.Resampling.BICUBIC,
    )
    (left, top), (right, bottom) = (
        np.clip(edge(place, axis=0), 0, (width - 2, height - 2)).astype(int)
        for edge in (np.min, np.max)
    )
    inside = slice(top, max(bottom, top + 2)), slice(left, max(right, left + 2))
    source = np.asarray(moved, np.float32)
    mean, deviation = (
        [np.asarray(of(face[inside], axis=(0, 1))) for face in (source, pixels.astype(np.float32))]
        for of in (np.mean, np.std)
    )
    matched = (source - mean[0]) * (deviation[1] / np.maximum(deviation[0], 1)) + mean[1]
    return np.rint(np.clip(matched, 0, 255)).astype(np.uint8)


def _with_ones(points: Points) -> Float[np.ndarray, "_points 3"]:
    return np.column_stack([points, np.ones(len(points))])


def _soft_region(
    outlines: dict[str, Points],
    size: tuple[int, int],
    rng: np.random.Generator,
    settings: PseudoSettings,
) -> Weight:
    """A region drawn at random, deformed, shrunk or widened, its border softened; its maximum is 1."""
    unit = size[1] / CROP_SIDE
    shares = np.array([getattr(settings, kind) for kind in outlines])
    kind = rng.choice(list(outlines), p=shares / shares.sum())
    outline = _dense(outlines[str(kind)])
    centre = outline.mean(0)
    outline = centre + (outline - centre) * np.exp(rng.normal(0, settings.stretch, 2))
    outline = outline + _field(outline, settings.deform * unit, size, rng)

    # Only around the outline: Pillow's blur reaches no farther than three deviations and three pixels.
    reach = 3 * unit * (settings.grow + settings.edge[1]) + 8
    low = np.clip(np.floor(outline.min(0) - reach), 0, size[::-1]).astype(int)
    high = np.clip(np.ceil(outline.max(0) + reach), 0, size[::-1]).astype(int)
    if (high <= low).any():
        raise DataError("landmarks: they lie outside the crop; are they those of the whole frame?")
    area = Image.new("L", tuple((high - low).tolist()))
    ImageDraw.Draw(area).polygon((outline - low).ravel().tolist(), fill=255)
    blurred = np.asarray(area.filter(ImageFilter.GaussianBlur(settings.grow * unit)))
    if not blurred.any():
        raise DataError("landmarks: they lie outside the crop; are they those of the whole frame?")
    resized = blurred >= rng.uniform(0.25, 0.75) * blurred.max()
    softness = _uniform(rng, settings.edge) * unit
    soft = Image.fromarray(resized.astype(np.uint8) * 255).filter(
        ImageFilter.GaussianBlur(softness)
    )
    part = np.asarray(soft, np.float32)
    weight = np.zeros(size, np.float32)
    weight[low[1] : high[1], low[0] : high[0]] = part / part.max()
    return weight


def _box(weight: Weight) -> tuple[slice, slice]:
    """The rows and columns between which `weight` is above 0."""
    rows, columns = (np.flatnonzero(weight.any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _dense(outline: Points, steps: int = 12) -> Points:
    """The closed polygon with `steps` points on each side, to be bent."""
    share = np.arange(steps)[None, :, None] / steps
    sides = outline[:, None] * (1 - share) + np.roll(outline, -1, 0)[:, None] * share
    return sides.reshape(-1, 2)


def _field(
    points: Points, deviation: float, size: tuple[int, int], rng: np.random.Generator
) -> Points:
    """A smooth random displacement of the plane at some points: cubic between 5 x 5 normal draws."""
    knots = rng.normal(0, deviation, (2, 5, 5))
    places = points[:, ::-1].T / np.array(size)[:, None] * 4
    return np.column_stack([map_coordinates(k, places, order=3, mode="nearest") for k in knots])


# --- source and target -----------------------------------------------------------------------------


def _two_statistics(
    source: Pixels, target: Pixels, rng: np.random.Generator, settings: PseudoSettings
) -> tuple[Pixels, Pixels]:
    """Both pictures; each change that was drawn is applied to one of them."""
    for name, change in CHANGES.items():
        if rng.random() < getattr(settings, name):
            if rng.random() < settings.to_source:
                source = change(source, rng, settings)
            else:
                target = change(target, rng, settings)
    return source, target


def _colour(pixels: Pixels, rng: np.random.Generator, settings: PseudoSettings) -> Pixels:
    """Saturation, contrast, brightness and each channel's level: one affine map of the colours."""
    saturation, contrast, brightness = rng.uniform(*settings.colour_factor, 3)
    grey = np.tile((0.299, 0.587, 0.114), (3, 1))  # of Rec. 601, for each channel
    matrix = contrast * (saturation * np.eye(3) + (1 - saturation) * grey)
    mean = _mean(pixels)
    level = brightness * mean - matrix @ mean + rng.normal(0, settings.colour_shift, 3)
    rows = np.column_stack([matrix, level]).ravel().tolist()
    return np.asarray(Image.fromarray(pixels).convert("RGB", rows))


def _mean(pixels: Pixels) -> Float[np.ndarray, 3]:
    """Of each channel, by its histogram: ten times as fast as numpy's mean over pixels."""
    counts = np.array(Image.fromarray(pixels).histogram()).reshape(3, 256)
    return counts @ np.arange(256) / counts[0].sum()


def _resize(pixels: Pixels, rng: np.random.Generator, settings: PseudoSettings) -> Pixels:
    """Shrunk and brought back, as out of a generator of smaller faces."""
    image = Image.fromarray(pixels)
    share = _uniform(rng, settings.resize_to)
    small = max(1, round(share * image.width)), max(1, round(share * image.height))
    shrunk = image.resize(small, Image.Resampling.BILINEAR)
    return np.asarray(shrunk.resize(image.size, Image.Resampling.BICUBIC))


def _sharpen(pixels: Pixels, rng: np.random.Generator, settings: PseudoSettings) -> Pixels:
    percent = round(100 * _uniform(rng, settings.sharpen_by))
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.UnsharpMask(1.5, percent, 0)))


def _jpeg(pixels: Pixels, rng: np.random.Generator, settings: PseudoSettings) -> Pixels:
    low, high = settings.jpeg_quality
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(rng.integers(low, high + 1)))
    return np.asarray(Image.open(buffer))


# Compression last: the settings' names of the changes, in the order in which they are made.
CHANGES: dict[str, Callable[[Pixels, np.random.Generator, PseudoSettings], Pixels]] = {
    "colour": _colour,
    "resize": _resize,
    "sharpen": _sharpen,
    "jpeg": _jpeg,
}


def _moved(
    pixels: Pixels,
    rng: np.random.Generator,
    settings: PseudoSettings,
    shown: tuple[slice, slice],
) -> Pixels:
    """The picture shifted, scaled and bent a little, resampled once, on a mesh of 8 x 8.

    Only the cells that the rows and columns `shown` have a part in are worked out; the others are black.
    """
    height, width = pixels.shape[:2]
    unit = width / CROP_SIDE
    x, y = (np.linspace(0, length, 9).round().astype(int) for length in (width, height))
    nodes = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float64)
    centre = nodes.mean(0)
    seen = centre + (nodes - centre) * np.exp(rng.normal(0, settings.scale))
    seen = seen + rng.normal(0, settings.shift * unit, 2)
    seen = seen + _field(nodes, settings.bend * unit, (height, width), rng)
    seen = np.clip(seen, 0, (width, height)).reshape(9, 9, 2)  # beyond the crop nothing is known
    mesh = [
        (
            (int(x[j]), int(y[i]), int(x[j + 1]), int(y[i + 1])),
            (*seen[i, j], *seen[i + 1, j], *seen[i + 1, j + 1], *seen[i, j + 1]),
        )
        for i in range(8)
        for j in range(8)
        if y[i] < shown[0].stop and y[i + 1] > shown[0].start
        if x[j] < shown[1].stop and x[j + 1] > shown[1].start
    ]
    image = Image.fromarray(pixels)
    return np.asarray(
        image.transform(image.size, Image.Transform.MESH, mesh, Image.Resampling.BICUBIC)
    )


def _uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(rng.uniform(*bounds))
