"""Where a detector's evidence lies on face swaps of a clip whose original is there, frame by frame.

    python -m tools.evidence.swaps ORIGINAL SWAP ... [--frames 16] [--weights default]

Both are cut out by the original's landmarks. What a swap changed is where its crop differs from the
original's. For each clip, the original among them: the share of crops whose strongest patch lies on the face
(of the original's, those that have any positive evidence), the share of the positive evidence there, and the
AUC of patches' evidence against the change, all patches at once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from deepscan.config import Faces, Sampling, Scoring
from deepscan.data.cutting import changed_region
from deepscan.faces.alignment import align, on_face, seen
from deepscan.judgement import metrics
from deepscan.media import open_source
from deepscan.model.networks import load_finder, load_scorer
from deepscan.records import Frame, Output, Pixels
from deepscan.shapes import Bool, Float
from tools.evidence.geometry import GRID


def main() -> None:
    """Print a table, a row for each clip."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("original", type=Path)
    parser.add_argument("swaps", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--weights", default="default")
    asked = parser.parse_args()
    detector = load_scorer(Scoring(weights=asked.weights)).detector
    sampled = Sampling(frames=asked.frames)
    originals = {frame.index: frame for frame in frames_of(asked.original, sampled)}
    found = load_finder(Faces(), "auto").find(list(originals.values()))
    faces = {
        frame.index: max(looked.faces, key=lambda face: face.box.size)
        for frame, looked in zip(originals.values(), found, strict=True)
        if looked.faces
    }
    real = {i: align(originals[i], face, 1) for i, face in faces.items()}
    sys.stdout.write(
        "| clip | crops | strongest patch on the face | positive evidence there | pixel AUC | mean logit |\n"
        "|---|--:|--:|--:|--:|--:|\n"
    )
    for path in (asked.original, *asked.swaps):
        frames = {frame.index: frame for frame in frames_of(path, sampled)}
        crops = {i: align(frames[i], face, 1) for i, face in faces.items() if i in frames}
        output = detector.score(np.stack([crop.pixels for crop in crops.values()]))
        changed = None
        if path != asked.original:
            view = output.view
            changed = np.stack(
                [changes(real[i].pixels, crop.pixels, view) for i, crop in crops.items()]
            )
        sys.stdout.write(f"| {path.name} | {len(crops)} | {row(output, changed)} |\n")


def frames_of(path: Path, sampling: Sampling) -> list[Frame]:
    """The frames that `deepscan detect` looks at."""
    source = open_source(path)
    return [item for item in source.decode(source.choose(sampling)) if isinstance(item, Frame)]


def changes(original: Pixels, swap: Pixels, view: float) -> Bool[np.ndarray, " p"]:
    """Which patches of the view were changed by more than half."""
    left, top, size = seen(view)
    mask = changed_region(original, swap)[top : top + size, left : left + size]
    at = ((np.arange(GRID * 16) + 0.5) * size / (GRID * 16)).astype(int)
    fine: Float[np.ndarray, "a b c d"] = mask[np.ix_(at, at)].reshape(GRID, 16, GRID, 16)
    return fine.mean((1, 3)).ravel() > 0.5


def row(output: Output, changed: Bool[np.ndarray, "n p"] | None) -> str:
    """The cells of a clip; `changed` None: of the original."""
    evidence = output.evidence
    face = on_face(output.view, GRID)
    some = evidence.max(1) > 0
    peak = face[evidence.argmax(1)][some].mean()
    positive = np.clip(evidence, 0, None)
    there = positive[:, face].sum() / positive.sum()
    pixel = (
        ""
        if changed is None
        else f"{metrics.auc(changed.ravel().astype(int), evidence.ravel()):.3f}"
    )
    return f"{peak:.2f} of {some.sum()} | {there:.3f} | {pixel} | {output.logit.mean():+.2f}"


if __name__ == "__main__":
    main()
