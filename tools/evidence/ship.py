"""Make a checkpoint of the final detector of `plan`, calibrated on sources its recipe had not seen.

    python -m tools.evidence.ship RUN PACK --base BASE --out weights/b16-evidence.safetensors

RUN is the folder that `plan` wrote (scores.npz, *-final-0.safetensors), PACK the archive that it learnt from.
Beside the checkpoint, --table receives the videos' scores as a CSV file without names.

Scores of sources left out are those of short trainings, one for each pair of folds; the final one, which is
trained longer, spreads its scores wider. They are brought to its scale by the ratio of the spreads of both on
the same videos, of people that neither has seen: the largest ratio of the collections, since thresholds too
far apart cost a verdict and thresholds too close accuse. How far weak material moves scores is measured with
the final one itself.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

from deepscan.faces.alignment import CROP_SIDE
from deepscan.files import sha256
from deepscan.judgement import metrics
from deepscan.model import adapters, checkpoint, weights
from deepscan.model.catalogue import BaseEntry
from deepscan.model.detector import Detector
from deepscan.model.header import DetectorSettings, Header
from deepscan.plain import read
from deepscan.records import Calibration, Pixels
from deepscan.training import calibrate
from tools.evidence import former
from tools.evidence.entries import Entry, read_entries
from tools.evidence.folds import FOLDS, HELD
from tools.evidence.recipes import DEFAULT, REFERENCE

MOST = 100  # videos of a class and fold: DFDC has as many as all others together
WEAK_VIDEOS, WEAK_CROPS = 40, 3  # by which it is measured what weak material does


@dataclass(frozen=True, slots=True)
class Video:
    """A video's score by a detector that had not seen its fold, or its people."""

    fold: str
    person: str
    label: int
    kind: str
    logits: tuple[float, ...]  # of its crops, in order of time
    crops: tuple[int, ...]  # rows of the archive

    @property
    def score(self) -> float:
        return float(np.mean(self.logits))


def main() -> None:
    """Read the arguments and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--base", default="clip-vit-b16")
    parser.add_argument("--recipe", default=DEFAULT.name)
    parser.add_argument("--name", default="b16-evidence")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--date", required=True)
    asked = parser.parse_args()
    archive = zipfile.ZipFile(asked.pack)
    entries = read_entries(archive)
    scores = np.load(asked.run / "scores.npz")
    (final,) = asked.run.glob(f"{asked.recipe}-final-0.safetensors")
    base = weights.catalogue().bases[asked.base]
    detector, recipe = assembled(final, base)

    left_out = [v for fold in FOLDS for v in videos(scores, entries, fold, asked.recipe)]
    held = {name: videos(scores, entries, f"held/{name}", asked.recipe) for name in HELD}
    ratio = max(spread_ratio(left_out, own) for own in held.values())
    sys.stdout.write(f"the final detector spreads its scores {ratio:.2f} times as wide\n")
    scaled = [ratio * video.score for video in left_out]
    labels = np.array([video.label for video in left_out])
    collections = {v.person.split("/")[0] + v.fold for v in left_out}
    data = (
        f"videos of {len(collections)} collections, each scored by a detector of the same recipe that had not"
        " seen its source,"
    )
    weak = shifts(detector, archive, held["methods"])
    frames = [ratio * np.array(video.logits) for video in left_out]
    calibration = fit(labels, np.array(scaled), [v.fold for v in left_out], weak, data, frames)
    counts = [len(video.logits) for video in left_out]
    names = [f"{v.fold}/{i}" for i, v in enumerate(left_out) for _ in v.logits]
    results = {
        "test": metrics.summary(
            names, np.repeat(labels, counts), np.concatenate(frames), np.random.default_rng(0)
        ),
        "kinds": stated(labels, [v.kind for v in left_out], np.array(scaled), calibration),
        "left_out": by_kind(left_out),
        "held_fifths": {name: by_kind(own) for name, own in held.items()},
    }
    header = Header(
        name=asked.name,
        settings=detector.settings,
        base={"name": base.name, "sha256": base.sha256},
        training={
            "date": asked.date,
            "test": data.rstrip(","),
            "calibrated": (
                f"by detectors of this recipe, each trained for 120 steps without the videos' fold, of"
                f" {len(FOLDS)}; their logits times {ratio:.2f}"
            ),
            "data": "pairs, FaceForensics++ crops, DFDC crops, 55 methods' public clips, faces",
            "licence_note": "weights only; the clips' own terms are their makers'",
            "recipe": recipe,
            "digests": {"pack": sha256(asked.pack)},
            "results": results,
        },
        licence="Apache-2.0",
        calibration=calibration,
    )
    state = {name: value.half() for name, value in detector.trained_state().items()}
    checkpoint.write(asked.out, state, header)
    if asked.table is not None:
        with asked.table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["fold", "label", "kind", "crops", "score", "scaled"])
            for video, value in zip(left_out, scaled, strict=True):
                row = [video.fold, video.label, video.kind, len(video.crops)]
                writer.writerow([*row, f"{video.score:.4f}", f"{value:.4f}"])
    sys.stdout.write(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(f"{calibration}\n")
    for kind, count, indicated, cleared in verdicts(left_out, scaled, calibration):
        sys.stdout.write(
            f"{kind}: {count} videos, {indicated:.1%} indicated, {cleared:.1%} cleared\n"
        )


def assembled(path: Path, base: BaseEntry) -> tuple[Detector, dict[str, Any]]:
    """A detector of `plan` as it is shipped, in float32, and its recipe."""
    with safe_open(path, "pt") as file:
        recipe = json.loads(file.metadata()["cfg"])
        found = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    if "heads" in recipe:
        settings = former.settings(recipe)
        found = former.state(found, settings)
    else:
        settings = read(DetectorSettings, recipe["detector"], str(path))
    detector = Detector(replace(settings, tower=base.tower, reference=REFERENCE))
    adapters.load_base(detector.tower, checkpoint.read_base(weights.base_file(base)))
    checkpoint.restore(detector, path, found)
    return detector.eval(), recipe


def videos(scores: Any, entries: Sequence[Entry], fold: str, recipe: str) -> list[Video]:
    """Up to MOST videos of each class of a fold, with their scores."""
    logits = logits_of(scores, fold, recipe)
    rows: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(scores[f"rows/{fold}"].tolist()):
        rows.setdefault((entries[row].source, entries[row].video), []).append(place)
    kept, counts = [], [0, 0]
    for found in rows.values():
        frames = [entries[int(scores[f"rows/{fold}"][place])].frame for place in found]
        places = [found[i] for i in np.argsort(frames, kind="stable")]
        numbers = [int(scores[f"rows/{fold}"][place]) for place in places]
        entry = entries[numbers[0]]
        if counts[entry.label] < MOST:
            counts[entry.label] += 1
            own = tuple(logits[places].tolist())
            person = f"{entry.source}/{entry.person}"
            kept.append(Video(fold, person, entry.label, entry.kind, own, tuple(numbers)))
    return kept


def logits_of(scores: Any, fold: str, recipe: str) -> np.ndarray:
    """Of the crops `rows/FOLD` of scores.npz, by the detector that had not seen them."""
    if fold.startswith("held/"):
        values = scores[f"held/{recipe}-final/0/{fold.removeprefix('held/')}"]
    else:
        names = (f"{recipe}/0/0/{fold}", f"{recipe}-rest/0/0/{fold}")
        values = scores[next(name for name in names if name in scores.files)]
    return values[0] - REFERENCE * values[1]


def spread_ratio(left_out: Sequence[Video], held: Sequence[Video]) -> float:
    """How much wider than those of the short trainings the final detector's scores of the same videos are."""
    by_crops = {video.crops: video.score for video in left_out}
    pairs = [(v.score, by_crops[v.crops]) for v in held if v.crops in by_crops]
    final, short = np.array(pairs).T
    return float(final.std() / short.std())


def verdicts(
    found: Sequence[Video], scores: Sequence[float], calibration: Calibration
) -> list[tuple[str, int, float, float]]:
    """Of each kind of videos: how many, and which shares reach the upper and the lower threshold."""
    rows = []
    for kind in ("all manipulated", *sorted({video.kind for video in found})):
        own = [
            score
            for video, score in zip(found, scores, strict=True)
            if video.kind == kind or (kind == "all manipulated" and video.label)
        ]
        indicated = float(np.mean([score >= calibration.high for score in own]))
        cleared = float(np.mean([score <= calibration.low for score in own]))
        rows.append((kind, len(own), indicated, cleared))
    return rows


def fit(
    labels: np.ndarray,
    scores: np.ndarray,
    folds: list[str],
    weak: list[float],
    data: str,
    frames: Sequence[np.ndarray],
) -> Calibration:
    """deepscan's own calibration, each fold judged by a map fitted on the others."""
    moved = [scores + shift for shift in weak]
    found = calibrate.fit(labels, scores, [folds], moved, data, frames, unseen=True)
    assert found is not None
    return found


def stated(
    labels: np.ndarray, kinds: Sequence[str], scores: np.ndarray, calibration: Calibration
) -> list[dict[str, Any]]:
    """The table of results by kind that a report shows: each against all real videos."""
    rows = []
    for kind in dict.fromkeys(k for k, label in zip(kinds, labels, strict=True) if label):
        among = (labels == 0) | (np.array(kinds) == kind)
        own = scores[np.array(kinds) == kind]
        low, high = metrics.auc_interval(labels[among], scores[among])
        rows.append(
            {
                "kind": kind.replace("_", " "),
                "data": "sources left out",
                "unseen": True,
                "real": int((labels == 0).sum()),
                "manipulated": len(own),
                "auc": metrics.auc(labels[among], scores[among]),
                "low": low,
                "high": high,
                "indicated": float((own >= calibration.high).mean()),
                "cleared": float((own <= calibration.low).mean()),
            }
        )
    return sorted(rows, key=lambda row: -row["manipulated"])


def shifts(detector: Detector, archive: zipfile.ZipFile, held: Sequence[Video]) -> list[float]:
    """By how much weak material moves the scores of videos, nine times of ten, for each kind of it."""
    entries = read_entries(archive)
    places = np.linspace(0, len(held) - 1, min(WEAK_VIDEOS, len(held)), dtype=int)
    chosen = [held[place].crops[:WEAK_CROPS] for place in places.tolist()]
    crops = [[crop_of(archive, entries[row].name) for row in rows] for rows in chosen]
    plain = np.array([_score(detector, own) for own in crops])
    found = []
    for change in calibrate.WEAK.values():
        weak = np.array([_score(detector, [change(crop) for crop in own]) for own in crops])
        found.append(float(np.quantile(np.abs(weak - plain), calibrate.GRADE)))
    return found


def crop_of(archive: zipfile.ZipFile, name: str) -> Pixels:
    with Image.open(io.BytesIO(archive.read(name))) as image:
        return np.asarray(image.convert("RGB").resize((CROP_SIDE, CROP_SIDE)))


def _score(detector: Detector, crops: Sequence[Pixels]) -> float:
    return float(detector.score(np.stack(crops)).logit.mean())


def by_kind(found: Sequence[Video]) -> dict[str, Any]:
    """Video AUC of each fold and its mean; of each kind the mean over folds that have it; and counts."""
    table: dict[str, Any] = {"folds": {}, "kinds": {}}
    kinds: dict[str, list[tuple[float, int]]] = {}
    for fold in dict.fromkeys(video.fold for video in found):
        own = [video for video in found if video.fold == fold]
        labels = np.array([video.label for video in own])
        scores = np.array([video.score for video in own])
        counts = np.bincount(labels, minlength=2).tolist()
        table["folds"][fold] = {"auc": round(metrics.auc(labels, scores), 3), "videos": counts}
        for kind in {video.kind for video in own if video.label}:
            among = np.array([not video.label or video.kind == kind for video in own])
            value = metrics.auc(labels[among], scores[among])
            kinds.setdefault(kind, []).append((value, int(labels[among].sum())))
    table["mean"] = round(float(np.mean([f["auc"] for f in table["folds"].values()])), 3)
    for kind, values in sorted(kinds.items()):
        mean = float(np.mean([value for value, _ in values]))
        table["kinds"][kind] = {"auc": round(mean, 3), "videos": sum(n for _, n in values)}
    return table


if __name__ == "__main__":
    main()
