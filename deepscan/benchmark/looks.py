"""Where a detector looks: attention recorded on some crops, and how well it finds the forged region."""

from __future__ import annotations

import glob
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deepscan.benchmark.evaluation import ROUNDS, Estimate
from deepscan.benchmark.tables import Cell, Table, plain_name
from deepscan.data.crops import CropRow
from deepscan.errors import DataError
from deepscan.files import part_file
from deepscan.judgement import metrics
from deepscan.records import Pixels
from deepscan.shapes import Bool, Float, Int, UInt8
from deepscan.training.splits import spread

VIDEOS = 200  # of each class that are looked at, spread evenly over a set's
CROPS = 4  # of each
MASK_SIDE = 64  # a sixteenth of a crop's pixels is plenty
PICTURE_SIDE = 128
THRESHOLDS = 64  # tried for the best IoU
NONE = 1e-12  # less attention than this counts as this much inside a logarithm

MAPS = {"evidence": "evidence", "queries": "queries", "cls": "[CLS]", "delta": "fake likelihood"}


@dataclass(frozen=True, slots=True)
class Looks:
    """Attention of n crops, k queries over p patches (each sums to 1), and evidence; neither without queries.

    Patches, pictures and masks are of what the detector sees of a crop. `delta` is FLCL's, nan where the
    checkpoint has no prototypes. Masks are what is forged where `masked`, at MASK_SIDE.
    """

    detector: str
    videos: list[str]
    labels: Int[np.ndarray, " n"]
    queries: Float[np.ndarray, "n_or_0 k p_or_0"]
    cls: Float[np.ndarray, "n p"]
    delta: Float[np.ndarray, "n p"]
    evidence: Float[np.ndarray, "n_or_0 p_or_0"]
    masks: Bool[np.ndarray, "n side side"]
    masked: Bool[np.ndarray, " n"]
    pictures: UInt8[np.ndarray, "n shown shown 3"]

    def __repr__(self) -> str:
        return f"Looks({self.detector}, {len(self.videos)} crops)"

    @property
    def patches(self) -> int:
        return self.cls.shape[1]

    def attention(self, which: str) -> Float[np.ndarray, "n k p"]:
        """Attention of "queries", of "cls" as the only one, or of what is classified: "best"."""
        if which == "best":
            which = "queries" if len(self.queries) else "cls"
        return self.queries if which == "queries" else self.cls[:, None]

    def mean_attention(self, which: str) -> Float[np.ndarray, "n p"]:
        """The same, averaged over queries."""
        return self.attention(which).mean(1)

    def shown(self, label: int, count: int) -> list[int]:
        """Crops of this many different videos of a label, spread evenly, to draw."""
        first: dict[str, int] = {}
        for i in np.flatnonzero(self.labels == label).tolist():
            first.setdefault(self.videos[i], i)
        return spread(list(first.values()), count)


def looked_at(rows: Sequence[CropRow]) -> list[CropRow]:
    """Up to VIDEOS videos of each class, CROPS crops of each, both spread evenly."""
    kept: list[CropRow] = []
    for label in (0, 1):
        videos: dict[str, list[CropRow]] = defaultdict(list)
        for row in rows:
            if row.label == label:
                videos[row.video].append(row)
        for own in spread(list(videos.values()), VIDEOS):
            kept += spread(own, CROPS)
    return kept


def shrunk(mask: Bool[np.ndarray, "side side"]) -> Bool[np.ndarray, "small small"]:
    """A mask at MASK_SIDE."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    small = image.resize((MASK_SIDE, MASK_SIDE), Image.Resampling.BOX)
    return np.asarray(small) > 127


def thumbnail(crop: Pixels) -> UInt8[np.ndarray, "shown shown 3"]:
    """A crop to draw."""
    size = (PICTURE_SIDE, PICTURE_SIDE)
    return np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.LANCZOS))


def looks_file(
    folder: Path, detector: str, seed: int | None, test_set: str, weights: str = ""
) -> Path:
    """The file of a detector's attention on a set; without `weights`, that of any checkpoint."""
    start = f"{plain_name(detector)}-{seed or 0}-{test_set}-"
    if weights:
        return folder / f"{start}{weights[:8]}.npz"
    return next(iter(sorted(folder.glob(f"{glob.escape(start)}*.npz"))), folder / f"{start}.npz")


def write_looks(path: Path, looks: Looks) -> None:
    """Write them; attention in half precision.

    Raises:
        OutputError: they cannot be written.
    """
    values: dict[str, Any] = {
        entry.name: np.asarray(getattr(looks, entry.name)) for entry in fields(looks)
    }
    for name in ("queries", "cls", "delta", "evidence"):
        values[name] = values[name].astype(np.float16)
    with part_file(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **values)


def read_looks(path: Path) -> Looks:
    """Read what `write_looks` kept.

    Raises:
        DataError: it is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            values = dict(file)
        return Looks(
            str(values.pop("detector")),
            values.pop("videos").tolist(),
            **{
                name: value.astype(np.float64) if value.dtype == np.float16 else value
                for name, value in values.items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a record of attention ({error}); delete it") from error


# --- finding the forged region ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """How well a map finds the forged regions of manipulated crops, a value a crop.

    `pointing`: whether its highest point lies inside. `iou`: at the one threshold that is best for all.
    """

    auc: Float[np.ndarray, " n"]
    ap: Float[np.ndarray, " n"]
    pointing: Float[np.ndarray, " n"]
    iou: Float[np.ndarray, " n"]


def localisation(maps: Float[np.ndarray, "n p"], masks: Bool[np.ndarray, "n side side"]) -> Found:
    """Compare maps, scaled to the masks' size, with masks that contain both kinds of pixels."""
    grid, side = round(maps.shape[1] ** 0.5), masks.shape[1]
    large = np.stack(
        [
            np.asarray(
                Image.fromarray(m.reshape(grid, grid).astype(np.float32)).resize(
                    (side, side), Image.Resampling.BILINEAR
                )
            )
            for m in maps
        ]
    ).reshape(len(maps), -1)
    truth = masks.reshape(len(masks), -1)
    pairs = [(t.astype(int), m.astype(float)) for t, m in zip(truth, large, strict=True)]
    levels = np.quantile(large, np.linspace(0, 1, THRESHOLDS, endpoint=False))
    above = large[None] >= levels[:, None, None]
    ious = (above & truth).sum(2) / (above | truth).sum(2)
    return Found(
        np.array([metrics.auc(*pair) for pair in pairs]),
        np.array([metrics.average_precision(*pair) for pair in pairs]),
        truth[np.arange(len(truth)), large.argmax(1)].astype(float),
        ious[ious.mean(1).argmax()],
    )


def localisation_table(name: str, by_row: Mapping[str, Looks], test_set: str) -> Table:
    """Pixel AUC, AP, best IoU and pointing game of each detector's maps, means over manipulated crops."""
    columns = ("pixel AUC", "pixel AP", "IoU, best threshold", "pointing game")
    rows: list[tuple[str, tuple[Cell | str | None, ...]]] = []
    for row, looks in by_row.items():
        share = looks.masks.mean((1, 2))
        kept = (looks.labels == 1) & looks.masked & (share > 0) & (share < 1)
        if not kept.any():
            continue
        videos = [v for v, keep in zip(looks.videos, kept, strict=True) if keep]
        for which, word in MAPS.items():
            if which in ("evidence", "queries") and not len(looks.queries):
                continue
            kept_map = {"delta": looks.delta, "evidence": looks.evidence}.get(which)
            values = looks.mean_attention(which) if kept_map is None else kept_map
            if np.isnan(values[kept]).any():
                continue
            found = localisation(values[kept], looks.masks[kept])
            cells = [Cell.of(_over_videos(getattr(found, f.name), videos)) for f in fields(found)]
            auc, ap, pointing, iou = cells
            rows.append((f"{row}: {word}", (auc, ap, iou, pointing)))
    if not rows:
        raise DataError(
            f"{test_set}: none of its manipulated crops has a mask, against which attention could be held;"
            " masks belong in masks/ (deepscan prepare cuts those of FaceForensics++ and of pairs)"
        )
    notes = (
        f"Against the masks of the manipulated crops of {test_set}; means over crops, with 95 % bootstrap"
        " intervals over videos. A pixel AUC of 0.5 is chance.",
        "Fake likelihood: FLCL's delta, by the mean patches of training crops that a checkpoint keeps.",
    )
    return Table(
        name,
        f"Who finds the forged region: {test_set}",
        columns,
        tuple(rows),
        notes,
    )


def activation_table(name: str, by_row: Mapping[str, Looks], test_set: str) -> Table:
    """How attention is spread on real crops, which is what RAAL changes."""
    columns = (
        "entropy of queries",
        "entropy of [CLS]",
        "KL(query, [CLS])",
        "peak of queries",
        "peak of [CLS]",
    )
    rows: list[tuple[str, tuple[Cell | str | None, ...]]] = []
    patches = 0
    for row, looks in by_row.items():
        real = looks.labels == 0
        videos = [v for v, keep in zip(looks.videos, real, strict=True) if keep]
        patches, cls = looks.patches, looks.cls[real][:, None]
        listed: list[Cell | None] = [None] * 5
        listed[1] = Cell.of(_over_videos(_entropy(cls), videos), digits=2)
        listed[4] = Cell.of(_over_videos(cls.max(2).mean(1) * patches, videos), digits=1)
        if len(looks.queries):
            q = looks.queries[real]
            apart = (q * (np.log(q + NONE) - np.log(cls + NONE))).sum(2).mean(1)
            listed[0] = Cell.of(_over_videos(_entropy(q), videos), digits=2)
            listed[2] = Cell.of(_over_videos(apart, videos))
            listed[3] = Cell.of(_over_videos(q.max(2).mean(1) * patches, videos), digits=1)
        rows.append((row, tuple(listed)))
    notes = (
        f"Means over the real crops of {test_set}, with 95 % bootstrap intervals over videos. Entropies and"
        f" divergences in nats; even attention over {patches} patches has an entropy of"
        f" {np.log(max(patches, 1)):.2f}. A peak is a crop's highest attention, times the number of patches.",
    )
    return Table(
        name,
        f"Attention on real crops: {test_set}",
        columns,
        tuple(rows),
        notes,
    )


def _entropy(attention: Float[np.ndarray, "n k p"]) -> Float[np.ndarray, " n"]:
    return -(attention * np.log(attention + NONE)).sum(2).mean(1)


def _over_videos(values: Float[np.ndarray, " n"], videos: Sequence[str]) -> Estimate:
    """The mean over crops, its rounds drawing videos."""
    _, place = np.unique(np.asarray(videos), return_inverse=True)
    sums, counts = np.bincount(place, values), np.bincount(place)
    one_class = np.zeros(len(counts), int)
    drawn = metrics.resample(one_class, np.random.default_rng(0), ROUNDS)
    return Estimate(float(values.mean()), drawn @ sums / (drawn @ counts))
