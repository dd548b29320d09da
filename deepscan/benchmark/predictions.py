"""Predictions: each detector's output for each crop, in Parquet. All tables and figures come from these.

A folder of predictions holds parts, each written whole; more are added as more is scored. Rows are
crops; a video without a crop has one row without a logit.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.special import logit as log_odds

from deepscan.errors import DataError
from deepscan.files import part_file
from deepscan.plain import text_of
from deepscan.shapes import Float, Int

SCHEMA = pa.schema(
    [
        ("set", pa.string()),  # its short name
        ("video", pa.string()),  # identity: set, label, method and full relative path
        ("label", pa.int8()),  # 1 = manipulated
        ("method", pa.string()),  # "real", or what made the forgery
        ("split", pa.string()),
        ("state", pa.string()),  # "scored", "faceless", "failed"
        ("crop", pa.string()),  # start of its file's SHA-256; null for a video without a crop
        ("frame", pa.int64()),  # number in the video, or position if the names are not numbers
        ("time", pa.float64()),  # seconds; null where the listing does not know, as face_size
        ("track", pa.int32()),  # null: the largest face of each frame
        ("logit", pa.float64()),  # above 0 leans to manipulated
        ("face_size", pa.float32()),  # pixels of the frame
        ("detector", pa.string()),
        ("seed", pa.int64()),  # of its training, where it is a study's run
        ("weights", pa.string()),  # SHA-256 of the checkpoint
        (
            "threshold",
            pa.float64(),
        ),  # the logit that its calibration decides by; null: uncalibrated
        ("view", pa.string()),  # "" as the crops are; "averaged"; or a distortion, "jpeg:30"
    ]
)
PLAIN, AVERAGED = "", "averaged"
EPSILON = 1e-6  # probabilities of others are kept this far from 0 and 1


# --- the store -------------------------------------------------------------------------------------


def append(folder: Path, rows: Mapping[str, Sequence[Any]]) -> None:
    """Add rows, a column each by SCHEMA's names, to the predictions in `folder`: all or none."""
    table = pa.table({name: pa.array(rows[name], kind) for name, kind in _fields()}, SCHEMA)
    with part_file(folder / f"{uuid.uuid4().hex}.parquet") as part:
        pq.write_table(table, part)


def read(path: Path) -> pa.Table:
    """The predictions in a Parquet file or a folder of them; none if the folder does not exist.

    Raises:
        DataError: unreadable, or not of SCHEMA's columns.
    """
    tables = [_read_part(file, SCHEMA.names, None).cast(SCHEMA) for file in _parts_in(path)]
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def done(folder: Path, weights: str, name: str, view: str) -> dict[str, set[str | None]]:
    """The videos of a set with predictions of this checkpoint under this view, and their crops.

    Parts of other sets and checkpoints are skipped by their statistics, unread.

    Raises:
        DataError: as `read`.
    """
    where = _where(set=name, weights=weights, view=view)
    found: dict[str, set[str | None]] = {}
    for file in _parts_in(folder):
        part = _read_part(file, ["video", "crop"], where)
        for video, crop in zip(part["video"].to_pylist(), part["crop"].to_pylist(), strict=True):
            found.setdefault(video, set()).add(crop)
    return found


def drop(folder: Path, weights: str, name: str, view: str, videos: Collection[str]) -> None:
    """Remove the predictions for these videos' earlier crops, part by part."""
    gone = _where(set=name, weights=weights, view=view) & pc.field("video").isin(list(videos))
    for file in _parts_in(folder):
        if len(_read_part(file, ["video"], gone)):
            kept = _read_part(file, SCHEMA.names, ~gone)
            with part_file(file) as part:
                pq.write_table(kept, part)


def _read_part(file: Path, columns: list[str], where: pc.Expression | None) -> pa.Table:
    """Some columns of the rows of a part for which `where` holds."""
    try:
        if absent := set(SCHEMA.names) - set(pq.read_schema(file).names):
            raise DataError(
                f"{file}: written by an older version (no column {min(absent)}); move it away, and"
                f" its videos are scored again"
            )
        return pq.read_table(file, columns=columns, filters=where)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{file}: not predictions of deepscan benchmark ({error}); move it away, and its videos"
            f" are scored again"
        ) from error


def _parts_in(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.glob("*.parquet"))


def _fields() -> list[tuple[str, pa.DataType]]:
    return [(field.name, field.type) for field in SCHEMA]


def _where(**values: Any) -> pc.Expression:
    expression = pc.scalar(True)
    for name, value in values.items():
        expression = expression & (pc.field(name) == value)
    return expression


# --- what a detector said of a set -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scored:
    """One detector's predictions on one set under one view.

    Args:
        names, labels, states: of videos, v.
        place: the video of each crop, n; with frame numbers and logits ascending by video and frame.
    """

    name: str
    names: list[str]
    labels: Int[np.ndarray, " v"]
    states: list[str]
    place: Int[np.ndarray, " n"]
    frames: Int[np.ndarray, " n"]
    logits: Float[np.ndarray, " n"]
    threshold: float | None = None
    seed: int | None = None  # of the detector's training, where it is a study's run

    def __repr__(self) -> str:
        return f"Scored({self.name}, {len(self.names)} videos, {len(self.logits)} crops)"


def scored(
    table: pa.Table, name: str, detector: str, seed: int | None = None, view: str = PLAIN
) -> Scored | None:
    """The predictions of `detector` on the set `name`; None if there are none.

    Raises:
        DataError: two checkpoints of that name were, or one video has two labels.
    """
    where = _where(set=name, detector=detector, view=view)
    if seed is not None:
        where = where & (pc.field("seed") == seed)
    rows = table.filter(where)
    if not rows:
        return None
    weights = rows["weights"].unique().to_pylist()
    if len(weights) > 1:
        raise DataError(
            f"predictions: {detector} on {name} is of {len(weights)} checkpoints"
            f" ({', '.join(w[:8] for w in weights)}); keep each in its own folder"
        )
    rows = rows.sort_by([("video", "ascending"), ("frame", "ascending")])
    videos = rows["video"].to_pylist()
    labels, states = rows["label"].to_pylist(), rows["state"].to_pylist()
    names = list(dict.fromkeys(videos))
    index = {video: i for i, video in enumerate(names)}
    place = np.array([index[video] for video in videos], int)
    of = np.zeros(len(names), int)
    of[place] = labels
    if (of[place] != labels).any():
        raise DataError(f"predictions: a video of {name} carries both labels; score it again")
    state_of = dict(zip(videos, states, strict=True))
    kept = np.array([state == "scored" for state in states])
    (threshold,) = set(rows["threshold"].to_pylist())
    return Scored(
        name,
        names,
        of,
        [state_of[video] for video in names],
        place[kept],
        np.array(rows["frame"].to_pylist(), dtype=object)[kept].astype(int),
        np.array(rows["logit"].to_pylist(), dtype=float)[kept],
        threshold,
        seed,
    )


def distinguished(table: pa.Table) -> tuple[pa.Table, dict[str, str]]:
    """Predictions in which checkpoints that share a name carry the start of their hash behind it.

    Returns:
        These, and the name of each checkpoint by its hash, in the names' order.
    """
    rows = table.select(["detector", "weights"]).group_by(["detector", "weights"]).aggregate([])
    pairs = sorted(zip(rows["detector"].to_pylist(), rows["weights"].to_pylist(), strict=True))
    shared = Counter(detector for detector, _ in pairs)
    names = {w: f"{d} {w[:8]}" if shared[d] > 1 else d for d, w in pairs}
    column = pa.array([names[w] for w in table["weights"].to_pylist()], pa.string())
    place = SCHEMA.get_field_index("detector")
    return table.set_column(place, SCHEMA.field("detector"), column), names


# --- from elsewhere --------------------------------------------------------------------------------

KINDS = ("logit", "probability", "score")


@dataclass(frozen=True, slots=True)
class Foreign:
    """Another tool's predictions: a value for each video, or for each of its frames."""

    detector: str
    file: Path
    videos: list[str]
    logits: Float[np.ndarray, " n"]
    frames: list[int] | None
    note: str  # how its values were read


def read_foreign(path: Path, detector: str) -> Foreign:
    """Read a CSV or Parquet of video, frame (optional), and one of logit, probability or score.

    A score all of whose values lie in 0..1 is taken for a probability of being manipulated, any other for a
    logit: higher leans to manipulated.

    Raises:
        DataError: unreadable, without these columns, or with values that are not numbers.
    """
    columns = _columns(path)
    kind = next((kind for kind in KINDS if kind in columns), None)
    if kind is None or "video" not in columns:
        raise DataError(
            f"{path}: columns are {', '.join(columns)}; it needs video and one of {', '.join(KINDS)}, and"
            " frame where values are frames'"
        )
    try:
        values = np.array([float(value) for value in columns[kind]])
        frames = [int(f) for f in columns["frame"]] if "frame" in columns else None
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {kind} or frame: {error}") from error
    if not len(values) or not np.isfinite(values).all():
        raise DataError(f"{path}: {kind}: has no values, or some that are not finite")
    chances = kind == "probability" or (kind == "score" and 0 <= values.min() <= values.max() <= 1)
    if chances and not 0 <= values.min() <= values.max() <= 1:
        raise DataError(f"{path}: probability: values outside 0..1; name the column logit or score")
    note = f"{detector}: {kind} of {path.name}" + (" read as a probability" if chances else "")
    logits = log_odds(np.clip(values, EPSILON, 1 - EPSILON)) if chances else values
    return Foreign(detector, path, [str(v) for v in columns["video"]], logits, frames, note)


def _columns(path: Path) -> dict[str, list[Any]]:
    try:
        if path.suffix.lower() == ".parquet":
            return dict(pq.read_table(path).to_pydict())
        reader = csv.DictReader(io.StringIO(text_of(path.read_bytes()), newline=""))
        lines = list(reader)
        return {name: [line[name] for line in lines] for name in reader.fieldnames or ()}
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path}: not readable predictions ({error})") from error


def match(foreign: Foreign, to: Scored) -> Scored | None:
    """Another tool's answers on the videos that deepscan scored, matched by identity; None without any.

    A video may be named by its whole identity, or by enough of the end of its path to distinguish it from
    all others: "Celeb-real/id0_0001", with or without a suffix or a folder frames/. Names of other sets'
    videos are ignored; a video without an answer is "failed".

    Raises:
        DataError: a name means several videos.
    """
    tails: dict[str, set[int]] = {}  # ends of paths, and the videos they mean
    for i, name in enumerate(to.names):
        parts = _parts(name)
        for length in range(1, len(parts) + 1):
            tails.setdefault("/".join(parts[-length:]), set()).add(i)
    place = []
    for video in foreign.videos:
        found = tails.get("/".join(_parts(video)), set())
        if len(found) > 1:
            names = ", ".join(sorted(to.names[i] for i in found)[:3])
            raise DataError(
                f"{foreign.file}: video {video!r} means {len(found)} videos of {to.name} ({names});"
                f" give more of each path"
            )
        place.append(next(iter(found), -1))
    index = np.array(place)
    matched = index >= 0
    if not matched.any():
        return None
    frames = np.array(foreign.frames if foreign.frames is not None else [0] * len(index))
    order = np.lexsort((frames[matched], index[matched]))
    has = set(index[matched].tolist())
    return Scored(
        to.name,
        to.names,
        to.labels,
        ["scored" if i in has else "failed" for i in range(len(to.names))],
        index[matched][order],
        frames[matched][order],
        foreign.logits[matched][order],
    )


def _parts(video: str) -> list[str]:
    """A path's parts without what differs between tools: suffix, "frames", backslashes, "./"."""
    path = PurePosixPath(video.replace("\\", "/"))
    stem = path.with_suffix("") if path.suffix.lower() in (".mp4", ".avi", ".mov") else path
    return [part for part in stem.parts if part not in ("frames", ".", "/")]
