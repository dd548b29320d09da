"""The crops of each data set, one function for each, as `pack` writes them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from deepscan.data.crops import read_crops
from deepscan.errors import DataError
from deepscan.faces.alignment import CROP_SIDE, TEMPLATE, invert, similarity, warp
from deepscan.faces.mtcnn import Mtcnn
from deepscan.records import Pixels
from deepscan.shapes import Bool, Float

Points = Float[np.ndarray, "5 2"]  # landmarks, x and y in a picture's pixels
Mask = Bool[np.ndarray, "h w"]

SEARCH_SIDE = 640  # longer sides of pictures are brought to this before a face is looked for

# A forged region by difference, as in data/cutting.py: blurred, above what encoding leaves.
BLUR, FLOOR, ABOVE, CLOSE = 6.0, 25, 3.5, 12
BORDER = 8.0  # grey levels at the crop's edge; above it two pictures do not show the same frame
CHANGED = 4.0  # grey levels in the face's middle; below it nothing is manipulated to be seen
WIDEST = 0.6  # share of the crop; what covers more is no face

# Rows of a crop where captions or watermarks of a page's makers lie: blackened, as if the frame ended there.
CAPTIONS = {
    "cnnlstm/cnnlstm.github.io": [(208, 256)],
    "cxcx1996/cxcx1996.github.io": [(216, 256)],
    "e4s2022/e4s2022.github.io": [(0, 20)],
    "loopyavatar/loopyavatar.github.io": [(0, 26), (222, 256)],
    "omnihuman-lab/omnihuman-lab.github.io": [(0, 26)],
}

UNCLEAR = "Dean_Wiesel_2"  # whether the clip is real or a swap is not known


@dataclass(frozen=True, slots=True)
class SourceCrop:
    """A crop as a data set gives it; see Entry for what is not said here."""

    data: bytes
    """A JPEG or WebP file."""
    points: Points
    label: int
    kind: str
    source: str
    method: str
    person: str
    video: str
    frame: int
    mask: Mask | None = None
    """Which pixels are manipulated, where that is known."""


def methods(folder: Path, quality: int) -> Iterator[SourceCrop]:
    """Six crops a clip, by source page, without captions and watermarks."""
    with (folder / "methods.csv").open(encoding="utf-8") as file:
        clips = list(csv.DictReader(file))
    listed = json.loads((folder / "methods.json").read_text("utf-8"))["methods"]
    frames = {
        video: said["frames"]
        for splits in listed.values()
        for video, said in splits["train"].items()
    }
    for clip in clips:
        for frame in frames[clip["video"]]:
            path = folder / frame
            beside = Path(str(path).replace("/frames/", "/landmarks/")).with_suffix(".npy")
            points = np.load(beside)
            if len(points) == 81:  # dlib's: eyes, nose tip, mouth corners
                points = np.stack(
                    [points[36:42].mean(0), points[42:48].mean(0), *points[[30, 48, 54]]]
                )
            pixels = read(path).copy()
            for top, bottom in CAPTIONS.get(clip["source"], ()):
                pixels[top:bottom] = 0
            yield SourceCrop(
                data=encoded(pixels, quality),
                points=points,
                label=int(clip["label"] == "fake"),
                kind=clip["kind"],
                source=clip["source"],
                method=clip["method"],
                person=f"{clip['source']}/{clip['pair'] or clip['video']}",
                video=clip["video"],
                frame=int(path.stem),
            )


def pairs(folder: Path, listing: Path, quality: int) -> Iterator[SourceCrop]:
    """Both halves of each pair as `deepscan prepare` leaves them; `listing` is the clips' CSV file."""
    with listing.open(encoding="utf-8") as file:
        groups = {row["name"]: row["source_group"] for row in csv.DictReader(file)}
    for row in read_crops(folder):
        clip = next(name for name in sorted(groups, key=len, reverse=True) if name in row.video)
        if clip == UNCLEAR:
            continue
        if row.landmarks is None:
            raise DataError(
                f"{row.path}: has no landmarks; prepare the pairs with deepscan prepare"
            )
        mask = None
        if row.mask is not None:
            with Image.open(row.mask) as image:
                mask = np.asarray(image.convert("L")) > 127
        yield SourceCrop(
            data=encoded(read(row.path), quality),
            mask=mask,
            points=np.load(row.landmarks),
            label=row.label,
            kind="face_swap" if row.label else "real",
            source="pairs",
            method="DeepFaceLive" if row.label else "",
            person=f"pairs/{groups[clip]}",
            video=f"{clip}/{'fake' if row.label else 'real'}",
            frame=row.frame,
        )


def ffpp(folder: Path, marks: Landmarks, quality: int, most: int) -> Iterator[SourceCrop]:
    """FaceForensics++'s crops as they are framed, up to `most` a video; a_b and b_a are one person."""
    paths = sorted(folder.glob("*/*.jpg"))
    marks.find(paths, pad=64)
    of_fakes = [path.stem.split("_") for path in paths if path.parent.name == "fake"]
    twin = {parts[0]: parts[1] for parts in of_fakes}
    taken = Counter[str]()
    for path in paths:
        half = path.parent.name
        video, frame = path.stem.rsplit("_", 1)
        points = marks.of(path)
        if points is None or taken[half + video] >= most:
            continue
        taken[half + video] += 1
        target = video.split("_")[0]
        mask = None
        original = folder / "real" / f"{target}_{frame}.jpg"
        if half == "fake" and original.exists():
            mask = difference(read(original), read(path))
        yield SourceCrop(
            data=encoded(read(path), quality),
            mask=mask,
            points=points,
            label=int(half == "fake"),
            kind="expression" if half == "fake" else "real",
            source="ffpp",
            method="FF++" if half == "fake" else "",
            person="ffpp/" + "_".join(sorted((target, twin.get(target, "")))),
            video=f"{video}/{half}",
            frame=int(frame),
        )


def dfdc(folder: Path, marks: Landmarks, most: int, most_fakes: int) -> Iterator[SourceCrop]:
    """Up to `most` originals, and manipulations of them that are seen to differ. Bytes as they are."""
    reals = _shuffled(folder / "real")[:most]
    fake_of = {path.name.split("_")[0]: path for path in folder.glob("fake/*.jpg")}
    videos = [path.stem.split("_")[0] for path in reals]
    marks.find(reals + [fake_of[video] for video in videos if video in fake_of], pad=56)
    fakes = 0
    for video, path in zip(videos, reals, strict=True):
        points = marks.of(path)
        if points is None:
            continue
        yield SourceCrop(
            data=path.read_bytes(),
            points=points,
            label=0,
            kind="real",
            source="dfdc",
            method="",
            person=f"dfdc/{video}",
            video=f"{video}/real",
            frame=0,
        )
        fake = fake_of.get(video)
        if fake is None or fakes >= most_fakes or (found := marks.of(fake)) is None:
            continue
        mask = difference(read(path), read(fake))
        if mask is None:  # sound alone was changed, or another frame is shown: nobody knows
            continue
        fakes += 1
        yield SourceCrop(
            data=fake.read_bytes(),
            mask=mask,
            points=found,
            label=1,
            kind="face_swap",
            source="dfdc",
            method="DFDC",
            person=f"dfdc/{video}",
            video=f"{fake.stem}/fake",
            frame=0,
        )


def faces(folder: Path, marks: Landmarks, quality: int, most: int) -> Iterator[SourceCrop]:
    """Up to `most` pictures of the web, aligned."""
    paths = _shuffled(folder)[:most]
    marks.find(paths)
    for path in paths:
        points = marks.of(path)
        if points is None:
            continue
        crop, moved = aligned(read(path), points)
        yield SourceCrop(
            data=encoded(crop, quality),
            points=moved,
            label=0,
            kind="real",
            source="faces",
            method="",
            person=f"faces/{path.stem}",
            video=path.stem,
            frame=0,
        )


def _shuffled(folder: Path) -> list[Path]:
    """A folder's JPEGs in an order that depends on each name alone."""
    return sorted(
        folder.glob("*.jpg"), key=lambda path: hashlib.sha256(path.name.encode()).digest()
    )


# --- pictures ----------------------------------------------------------------------------------------


class Landmarks:
    """Five points of the largest face of each picture, looked for once and kept in a file."""

    def __init__(self, cache: Path) -> None:
        self._cache, self._finder = cache, Mtcnn()
        self._known: dict[str, list[list[float]] | None] = {}
        if cache.exists():
            self._known = json.loads(cache.read_text("utf-8"))

    def find(self, paths: list[Path], pad: int = 0) -> None:
        """Look for those that are not known; `pad` pixels of the edge's colour are laid around first."""
        new = [path for path in paths if _key(path) not in self._known]
        for count, path in enumerate(new):
            self._known[_key(path)] = self._found(read(path), pad)
            if count % 320 == 0:
                self._save()
        self._save()

    def of(self, path: Path) -> Points | None:
        """x and y in the picture's pixels; None: no face was found, or none was looked for."""
        found = self._known.get(_key(path))
        return None if found is None else np.array(found)

    def _found(self, pixels: Pixels, pad: int) -> list[list[float]] | None:
        factor = min(1.0, SEARCH_SIDE / max(pixels.shape[:2]))
        if factor < 1:
            width, height = (max(1, round(factor * side)) for side in pixels.shape[1::-1])
            image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
        wide = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)), "edge")
        found = self._finder.detect(wide[None], max(32.0, min(wide.shape[:2]) / 6))[0]
        if not len(found.landmarks):
            return None
        largest = int((found.boxes[:, 2] - found.boxes[:, 0]).argmax())
        points = (found.landmarks[largest] - pad) / factor
        return points.astype(float).round(2).tolist()

    def _save(self) -> None:
        self._cache.write_text(json.dumps(self._known), "utf-8")


def _key(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def difference(real: Pixels, fake: Pixels) -> Mask | None:
    """Where two crops of one frame differ; None if they do not show one, or nothing is seen to change."""
    unit = len(fake) / CROP_SIDE
    change = np.abs(real.astype(np.float32) - fake).mean(2)
    change = ndimage.gaussian_filter(change, BLUR * unit)
    border = np.concatenate(
        [change[:8].ravel(), change[-8:].ravel(), change[:, :8].ravel(), change[:, -8:].ravel()]
    )
    third = slice(len(change) // 3, 2 * len(change) // 3)
    middle = change[third, third].mean()
    if np.median(border) > BORDER or middle < CHANGED or middle < 2 * np.median(border):
        return None
    mask = change > np.percentile(change, FLOOR) + ABOVE
    mask = ndimage.binary_closing(np.pad(mask, CLOSE), iterations=CLOSE)[CLOSE:-CLOSE, CLOSE:-CLOSE]
    parts, count = ndimage.label(mask)
    if not count:
        return None
    sizes = ndimage.sum_labels(mask, parts, range(1, count + 1))
    mask = parts == 1 + int(np.argmax(sizes))
    return None if mask.mean() > WIDEST else ndimage.binary_fill_holes(mask)


def aligned(pixels: Pixels, points: Points) -> tuple[Pixels, Points]:
    """The crop of a picture, and its points there."""
    to_crop = similarity(points, TEMPLATE)
    moved = points @ to_crop[:, :2].T + to_crop[:, 2]
    return warp(pixels, invert(to_crop), CROP_SIDE), moved


def read(path: Path) -> Pixels:
    """A picture's RGB pixels."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def encoded(pixels: Pixels, quality: int) -> bytes:
    """As a WebP file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()
