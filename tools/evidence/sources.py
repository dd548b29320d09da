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

from deepscan.data.crops import read_crops
from deepscan.errors import DataError
from deepscan.faces.alignment import CROP_SIDE, TEMPLATE, invert, similarity, warp
from deepscan.faces.mtcnn import Mtcnn
from deepscan.records import Pixels
from tools.evidence.differences import Mask, Points, difference, of_panels

SEARCH_SIDE = 640  # longer sides of pictures are brought to this before a face is looked for

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
    """Six crops a clip, by source page, without captions and watermarks.

    A face swap's has a mask if the page shows the same frame of the original. What other methods write is
    the whole picture, where it is like the original, too.
    """
    with (folder / "methods.csv").open(encoding="utf-8") as file:
        clips = list(csv.DictReader(file))
    listed = json.loads((folder / "methods.json").read_text("utf-8"))["methods"]
    frames = {
        video: [folder / frame for frame in said["frames"]]
        for splits in listed.values()
        for video, said in splits["train"].items()
    }
    originals = {
        (clip["source"], clip["pair"], path.stem): path
        for clip in clips
        if clip["label"] == "real" and clip["pair"]
        for path in frames[clip["video"]]
    }
    for clip in clips:
        page = clip["source"]
        for path in frames[clip["video"]]:
            pixels, points = _of_page(path, page)
            original = originals.get((page, clip["pair"], path.stem))
            mask = None
            if clip["kind"] == "face_swap" and original is not None:
                mask = of_panels(*_of_page(original, page), pixels, points)
            yield SourceCrop(
                data=encoded(pixels, quality),
                mask=mask,
                points=points,
                label=int(clip["label"] == "fake"),
                kind=clip["kind"],
                source=page,
                method=clip["method"],
                person=f"{page}/{clip['pair'] or clip['video']}",
                video=clip["video"],
                frame=int(path.stem),
            )


def _of_page(path: Path, page: str) -> tuple[Pixels, Points]:
    """A crop of methods/ and its landmarks; captions and watermarks of its page are black."""
    points = np.load(Path(str(path).replace("/frames/", "/landmarks/")).with_suffix(".npy"))
    if len(points) == 81:  # dlib's: eyes, nose tip, mouth corners
        points = np.stack([points[36:42].mean(0), points[42:48].mean(0), *points[[30, 48, 54]]])
    pixels = read(path).copy()
    for top, bottom in CAPTIONS.get(page, ()):
        pixels[top:bottom] = 0
    return pixels, points


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
    """FaceForensics++'s crops as they are framed, up to `most` a video; a_b and b_a are one person.

    They have no masks: a manipulated crop and the real one of its number show different moments.
    """
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
        yield SourceCrop(
            data=encoded(read(path), quality),
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
