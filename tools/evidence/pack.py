"""Pack all training material into one file of at most 60 MB.

    python -m tools.evidence.pack --material ../shared/data --out runs/evidence/pack.zip

The material is the folder that its README describes (methods/, dfdc/, ffpp-crops/, faces/, pairs/). The
archive holds crops/NNNNN.jpg or .webp, index.json with one row for each (see Entry), and masks.npy. What a
crop is, where its face is and where it is forged is found here once: training looks for nothing.

dfdc's crops keep their bytes; the others are coded anew as WebP, real and manipulated ones alike. Pairs are
prepared beside the archive, with 8 frames, if no folder of prepared ones is named.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import sys
import zipfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from deepscan.data.crops import read_crops
from deepscan.data.prepare import PrepareSettings, prepare
from deepscan.faces.alignment import CROP_SIDE, TEMPLATE, invert, similarity, warp
from deepscan.faces.mtcnn import Mtcnn

Pixels = UInt8[np.ndarray, "h w 3"]
Points = Float[np.ndarray, "5 2"]
Mask = Bool[np.ndarray, "h w"]

MASK_SIDE = 64
LARGEST = 60_000_000  # bytes
FACE_SIDE = 640  # longer sides of pictures are brought to this before a face is looked for

# A forged region by difference, as in cutting.py: blurred, above what encoding leaves.
BLUR, FLOOR, ABOVE, CLOSE = 6.0, 25, 3.5, 12
BORDER = 8.0  # grey levels at the crop's edge; above it two pictures do not show the same frame
CHANGED = 4.0  # grey levels in the face's middle; below it nothing is manipulated to be seen
WIDEST = 0.6  # share of the crop; what covers more is no face


@dataclass(frozen=True, slots=True)
class Entry:
    """One crop. `points` are x, y in its pixels, in TEMPLATE's order; `mask` is a row of masks.npy or -1."""

    name: str
    sha256: str
    label: int
    kind: str  # real, face_swap, reenactment, lip_sync, talking_head, editing, expression
    source: str  # the page or set it is from
    method: str
    person: str  # never on both sides of a split
    video: str
    frame: int
    fold: int  # 0 to 4, by person; 0 is held out of the shipped detector
    points: list[list[float]]
    mask: int


class Writer:
    """The archive as it grows."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self.entries: list[Entry] = []
        self.masks: list[Mask] = []
        self.bytes: dict[str, int] = defaultdict(int)

    def add(
        self, data: bytes, suffix: str, mask: Mask | None, points: Points, **said: object
    ) -> None:
        """Write one crop; `said` are Entry's other fields."""
        name = f"crops/{len(self.entries):05d}{suffix}"
        info = zipfile.ZipInfo(name)  # of no date: the same material gives the same archive
        self._zip.writestr(info, data)
        row = -1
        if mask is not None:
            row = len(self.masks)
            small = Image.fromarray(mask.astype(np.uint8) * 255).resize(
                (MASK_SIDE,) * 2, Image.Resampling.BOX
            )
            self.masks.append(np.asarray(small) > 127)
        self.entries.append(
            Entry(
                name=name,
                sha256=hashlib.sha256(data).hexdigest(),
                points=np.asarray(points, float).round(2).tolist(),
                mask=row,
                **said,
            )
        )
        self.bytes[str(said["source"] if said["source"] in SETS else "methods")] += len(data)

    def close(self) -> None:
        """Write the index and the masks."""
        packed = np.packbits(np.array(self.masks).reshape(len(self.masks), -1), axis=1)
        buffer = io.BytesIO()
        np.save(buffer, packed)
        self._zip.writestr(zipfile.ZipInfo("masks.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)
        rows = json.dumps([asdict(entry) for entry in self.entries], separators=(",", ":"))
        self._zip.writestr(zipfile.ZipInfo("index.json"), rows, zipfile.ZIP_DEFLATED)
        self._zip.close()


SETS = ("pairs", "ffpp", "dfdc", "faces")

# Rows of a crop where captions or watermarks of a page's makers lie: blackened, as if the frame ended there.
CAPTIONS = {
    "cnnlstm/cnnlstm.github.io": [(208, 256)],
    "cxcx1996/cxcx1996.github.io": [(216, 256)],
    "e4s2022/e4s2022.github.io": [(0, 20)],
    "loopyavatar/loopyavatar.github.io": [(0, 26), (222, 256)],
    "omnihuman-lab/omnihuman-lab.github.io": [(0, 26)],
}


def fold_of(person: str) -> int:
    """One of five, by the person's name alone."""
    return hashlib.sha256(person.encode()).digest()[0] % 5


def encoded(pixels: Pixels, quality: int) -> bytes:
    """As WebP."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def read(path: Path) -> Pixels:
    """RGB."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


class Landmarks:
    """Five points of the surest face of each picture, looked for once and kept in a file."""

    def __init__(self, cache: Path) -> None:
        self._cache, self._finder = cache, Mtcnn()
        self.known: dict[str, list[list[float]] | None] = {}
        if cache.exists():
            self.known = json.loads(cache.read_text("utf-8"))

    def find(self, paths: list[Path], pad: int = 0) -> None:
        """Look for those that are not known; `pad` pixels of the edge's colour are laid around first."""
        new = [path for path in paths if _key(path) not in self.known]
        for start in range(0, len(new), 16):
            some = new[start : start + 16]
            for path in some:
                pixels = read(path)
                factor = min(1.0, FACE_SIDE / max(pixels.shape[:2]))
                if factor < 1:
                    size = [max(1, round(factor * side)) for side in pixels.shape[1::-1]]
                    pixels = np.asarray(
                        Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
                    )
                wide = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)), "edge")
                found = self._finder.detect(wide[None], max(32.0, min(wide.shape[:2]) / 6))[0]
                points = None
                if len(found.landmarks):
                    largest = int((found.boxes[:, 2] - found.boxes[:, 0]).argmax())
                    points = (
                        ((found.landmarks[largest] - pad) / factor).astype(float).round(2).tolist()
                    )
                self.known[_key(path)] = points
            if start % 320 == 0:
                self.save()
        self.save()

    def save(self) -> None:
        """To the cache."""
        self._cache.write_text(json.dumps(self.known), "utf-8")

    def of(self, path: Path) -> Points | None:
        """x, y in the picture's pixels."""
        found = self.known.get(_key(path))
        return None if found is None else np.array(found)


def _key(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def difference(real: Pixels, fake: Pixels) -> Mask | None:
    """Where two pictures of one frame differ; None if they do not show one, or nothing is seen to change."""
    unit = fake.shape[0] / CROP_SIDE
    change = np.abs(real.astype(np.float32) - fake).mean(2)
    change = ndimage.gaussian_filter(change, BLUR * unit)
    border = np.concatenate(
        [change[:8].ravel(), change[-8:].ravel(), change[:, :8].ravel(), change[:, -8:].ravel()]
    )
    side = len(change)
    middle = change[side // 3 : 2 * side // 3, side // 3 : 2 * side // 3].mean()
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


# --- the sets --------------------------------------------------------------------------------------


def add_methods(writer: Writer, folder: Path, quality: int) -> None:
    """Six crops a clip, by source page, without captions and watermarks."""
    kinds = list(csv.DictReader((folder / "methods.csv").open(encoding="utf-8")))
    listed = json.loads((folder / "methods.json").read_text("utf-8"))["methods"]
    frames = {
        video: said["frames"]
        for splits in listed.values()
        for video, said in splits["train"].items()
    }
    for row in kinds:
        person = f"{row['source']}/{row['pair'] or row['video']}"
        for frame in frames[row["video"]]:
            path = folder / frame
            beside = Path(str(path).replace("/frames/", "/landmarks/")).with_suffix(".npy")
            points = np.load(beside)
            if len(points) == 81:
                points = np.stack(
                    [points[36:42].mean(0), points[42:48].mean(0), *points[[30, 48, 54]]]
                )
            pixels = read(path).copy()
            for top, bottom in CAPTIONS.get(row["source"], ()):
                pixels[top:bottom] = 0
            writer.add(
                encoded(pixels, quality),
                ".webp",
                None,
                points,
                label=int(row["label"] == "fake"),
                kind=row["kind"],
                source=row["source"],
                method=row["method"],
                person=person,
                video=row["video"],
                frame=int(path.stem),
                fold=fold_of(person),
            )


def add_pairs(writer: Writer, folder: Path, csv_path: Path, quality: int) -> None:
    """Both halves of each pair, with the masks that `deepscan prepare` found."""
    groups = {
        row["name"]: row["source_group"] for row in csv.DictReader(csv_path.open(encoding="utf-8"))
    }
    for row in read_crops(folder):
        clip = next(name for name in sorted(groups, key=len, reverse=True) if name in row.video)
        if clip == "Dean_Wiesel_2":
            continue
        mask = None
        if row.mask is not None:
            with Image.open(row.mask) as image:
                mask = np.asarray(image.convert("L")) > 127
        person = f"pairs/{groups[clip]}"
        writer.add(
            encoded(read(row.path), quality),
            ".webp",
            mask,
            np.load(row.landmarks),
            label=row.label,
            kind="face_swap" if row.label else "real",
            source="pairs",
            method="DeepFaceLive" if row.label else "",
            person=person,
            video=f"{clip}/{'fake' if row.label else 'real'}",
            frame=row.frame,
            fold=fold_of(person),
        )


def add_ffpp(writer: Writer, folder: Path, marks: Landmarks, quality: int, most: int) -> None:
    """FaceForensics++'s crops as they are framed; a_b and b_a are one group."""
    paths = sorted(folder.glob("*/*.jpg"))
    marks.find(paths, pad=64)
    twin = {
        path.stem.split("_")[0]: path.stem.split("_")[1]
        for path in paths
        if path.parent.name == "fake"
    }
    seen: dict[str, int] = defaultdict(int)
    for path in paths:
        fake = path.parent.name == "fake"
        video, frame = path.stem.rsplit("_", 1)
        points = marks.of(path)
        if points is None or seen[path.parent.name + video] >= most:
            continue
        seen[path.parent.name + video] += 1
        target = video.split("_")[0]
        person = "ffpp/" + "_".join(sorted((target, twin.get(target, ""))))
        mask = None
        if fake and (real := folder / "real" / f"{target}_{frame}.jpg").exists():
            mask = difference(read(real), read(path))
        writer.add(
            encoded(read(path), quality),
            ".webp",
            mask,
            points,
            label=int(fake),
            kind="expression" if fake else "real",
            source="ffpp",
            method="FF++" if fake else "",
            person=person,
            video=f"{video}/{'fake' if fake else 'real'}",
            frame=int(frame),
            fold=fold_of(person),
        )


def add_dfdc(writer: Writer, folder: Path, marks: Landmarks, most: int, fakes: int) -> None:
    """Originals, and manipulations that are seen to differ from them. Bytes as they are."""
    reals = sorted(
        folder.glob("real/*.jpg"), key=lambda path: hashlib.sha256(path.name.encode()).digest()
    )
    reals = reals[:most]
    fake_of = {path.name.split("_")[0]: path for path in folder.glob("fake/*.jpg")}
    marks.find(
        reals
        + [
            fake_of[path.stem.split("_")[0]] for path in reals if path.stem.split("_")[0] in fake_of
        ],
        pad=56,
    )
    added = 0
    for path in reals:
        video = path.stem.split("_")[0]
        points = marks.of(path)
        if points is None:
            continue
        said = {
            "source": "dfdc",
            "person": f"dfdc/{video}",
            "fold": fold_of(f"dfdc/{video}"),
            "frame": 0,
        }
        writer.add(
            path.read_bytes(),
            ".jpg",
            None,
            points,
            label=0,
            kind="real",
            method="",
            video=f"{video}/real",
            **said,
        )
        fake = fake_of.get(video)
        if fake is None or added >= fakes or (found := marks.of(fake)) is None:
            continue
        mask = difference(read(path), read(fake))
        if mask is None:  # sound alone was changed, or another frame is shown: nobody knows
            continue
        added += 1
        writer.add(
            fake.read_bytes(),
            ".jpg",
            mask,
            found,
            label=1,
            kind="face_swap",
            method="DFDC",
            video=f"{fake.stem}/fake",
            **said,
        )


def add_faces(writer: Writer, folder: Path, marks: Landmarks, quality: int, most: int) -> None:
    """Web pictures, aligned."""
    paths = sorted(
        folder.glob("*.jpg"), key=lambda path: hashlib.sha256(path.name.encode()).digest()
    )[:most]
    marks.find(paths, pad=0)
    for path in paths:
        points = marks.of(path)
        if points is None:
            continue
        crop, moved = aligned(read(path), points)
        writer.add(
            encoded(crop, quality),
            ".webp",
            None,
            moved,
            label=0,
            kind="real",
            source="faces",
            method="",
            person=f"faces/{path.stem}",
            video=path.stem,
            frame=0,
            fold=fold_of(f"faces/{path.stem}"),
        )


def main(arguments: list[str] | None = None) -> None:
    """Pack, and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, help="the pairs as `deepscan prepare` leaves them")
    parser.add_argument("--landmarks", type=Path, help="cache of what was found")
    parser.add_argument("--quality", type=int, default=90, help="WebP's")
    parser.add_argument("--dfdc", type=int, default=2000, help="originals taken")
    parser.add_argument("--dfdc-fakes", type=int, default=1100)
    parser.add_argument("--faces", type=int, default=1100)
    parser.add_argument("--ffpp", type=int, default=5, help="crops a video")
    asked = parser.parse_args(arguments)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    pairs = asked.pairs or asked.out.parent / "pairs"
    if asked.pairs is None:
        prepare(asked.material / "pairs", pairs, PrepareSettings(frames=8))
    marks = Landmarks(asked.landmarks or asked.out.parent / "landmarks.json")
    writer = Writer(asked.out)
    add_dfdc(writer, asked.material / "dfdc", marks, asked.dfdc, asked.dfdc_fakes)
    add_ffpp(writer, asked.material / "ffpp-crops", marks, asked.quality, asked.ffpp)
    add_faces(writer, asked.material / "faces", marks, asked.quality, asked.faces)
    add_methods(writer, asked.material / "methods", asked.quality)
    add_pairs(writer, pairs, asked.material / "pairs" / "pairs.csv", asked.quality)
    writer.close()
    size = asked.out.stat().st_size
    sys.stdout.write(
        f"{asked.out}: {len(writer.entries)} crops, {size / 1e6:.1f} MB, {dict(writer.bytes)}\n"
    )
    if size > LARGEST:
        sys.exit(f"{asked.out}: over {LARGEST / 1e6:.0f} MB; take fewer crops")


if __name__ == "__main__":
    main()
