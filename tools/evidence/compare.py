"""A detector and a recipe of `plan` on what neither learnt from: python -m tools.evidence.compare RUN PACK

The detector (--weights) must not have seen methods/ and DFDC; the recipe is judged by its detectors that had
not seen the fold. The last column is of both: the mean of a video's scores, each divided by its spread. Of
DFDC the crops that `plan` judges on are taken, up to 400 of each class.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepscan.config import Scoring
from deepscan.judgement import metrics
from deepscan.model.networks import load_scorer
from tools.evidence.entries import read_entries
from tools.evidence.folds import METHODS
from tools.evidence.recipes import DEFAULT
from tools.evidence.ship import crop_of, logits_of

FOLDS = (*METHODS, "dfdc")


def main() -> None:
    """Read the arguments; print the video AUCs fold by fold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--recipe", default=DEFAULT.name)
    parser.add_argument("--weights", default="b16-lora")
    asked = parser.parse_args()
    archive = zipfile.ZipFile(asked.pack)
    entries = read_entries(archive)
    scores = np.load(asked.run / "scores.npz")
    detector = load_scorer(Scoring(weights=asked.weights)).detector
    found = []
    for fold in FOLDS:
        rows = scores[f"rows/{fold}"].tolist()
        own = np.concatenate(
            [
                detector.score(
                    np.stack([crop_of(archive, entries[r].name) for r in rows[at : at + 8]])
                ).logit
                for at in range(0, len(rows), 8)
            ]
        )
        videos = [f"{entries[row].source}/{entries[row].video}" for row in rows]
        labels = np.array([entries[row].label for row in rows])
        scores_of, of_video = [], labels
        for logits in (own, logits_of(scores, fold, asked.recipe)):
            _, of_video, score = metrics.video_scores(videos, labels, logits)
            scores_of.append(score / score.std())
        found.append([metrics.auc(of_video, score) for score in (*scores_of, sum(scores_of))])
        _say(fold, asked, found[-1])
    _say("mean", asked, np.mean(found, 0))


def _say(fold: str, asked: argparse.Namespace, aucs: Sequence[float]) -> None:
    first, second, both = aucs
    sys.stdout.write(
        f"{fold}: {asked.weights} {first:.3f}, {asked.recipe} {second:.3f}, both {both:.3f}\n"
    )


if __name__ == "__main__":
    main()
