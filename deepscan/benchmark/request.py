"""The request and the results of `deepscan benchmark`, and its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from deepscan.benchmark import evaluation, figures, predict, predictions
from deepscan.benchmark.datasets import SETS, Crops, TestSet, present
from deepscan.benchmark.predict import Candidate
from deepscan.benchmark.predictions import PLAIN
from deepscan.benchmark.runs import Say
from deepscan.benchmark.tables import Table, write
from deepscan.config import Scoring
from deepscan.data.distortions import CROP_LEVELS, LEVELS, Distortion
from deepscan.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. Without `studies`, the detectors in `weights` are judged on `sets`.

    `sets`: to be looked for, or read already; None for those a study names. `recipe`: what a study's runs are
    trained by; None where nothing can be trained. `foreign`: name and file of other tools' predictions.
    `tabulate`: use the predictions and attention in `out` alone, without media. `timing`: tower and steps of
    Table 5's measurement. `own_validation`: whether detectors may be judged on what they were selected by, as
    a model card does that says so. `faces`: whether figures show crops, or maps alone.
    """

    out: Path
    sets: tuple[TestSet | Crops, ...] | None = None
    root: Path | None = None
    weights: tuple[str, ...] = ()
    foreign: tuple[tuple[str, Path], ...] = ()
    studies: tuple[str, ...] = ()
    recipe: TrainSettings | None = None
    seeds: tuple[int, ...] = (0,)
    train: bool = False
    protocols: tuple[str, ...] = ("deepscan",)
    frames: int = evaluation.FRAMES
    skip_missing: bool = False
    tabulate: bool = False
    distortions: tuple[str, ...] = ()
    localisation: bool = False
    averaging: bool = False
    scoring: Scoring = field(default_factory=Scoring)
    workers: int = 1
    timing: tuple[str, int] = ("ViT-L-14-quickgelu", 8)
    date: str = ""
    own_validation: bool = False
    faces: bool = True


@dataclass(frozen=True, slots=True)
class Results:
    """The tables and figures, and the files in `out` that they were written to."""

    out: Path
    tables: list[Table] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def add(self, table: Table) -> None:
        """Write a table in its forms."""
        self.tables.append(table)
        self.files.extend(write(table, self.out))

    def draw(self, name: str, figure: Figure) -> None:
        """Write a figure in its forms."""
        self.drawn.append(name)
        self.files.extend(figures.save(figure, self.out, name))


# --- steps -----------------------------------------------------------------------------------------


def sets_of(
    request: Request, named: Sequence[str]
) -> tuple[list[str], list[Crops], dict[str, str]]:
    """Names of the sets, their crops (none when only tabulating), and why others were skipped."""
    asked: Sequence[TestSet | Crops] = (
        request.sets if request.sets is not None else [SETS[name] for name in named]
    )
    if request.tabulate:
        return [one.short for one in asked], [], {}
    found, skipped = present(asked, request.root, request.skip_missing)
    return [crops.short for crops in found], found, skipped


def score(
    request: Request,
    asked: Candidate,
    crops: Crops,
    say: Say,
    progress: Callable[..., None] | None,
    view: str = PLAIN,
    change: Distortion | None = None,
) -> None:
    """Score what is missing from a set, and report it."""
    scored = predict.score(
        request.out / "predictions",
        asked,
        crops,
        request.scoring,
        request.workers,
        view,
        change,
        progress,
    )
    if scored is not None and scored.crops:
        say(
            f"{asked.name}: scored {scored.crops} crops of {crops.short}{view and f', {view}'}:"
            f" {scored.crops / scored.seconds:.1f} a second, the detector at work"
            f" {scored.busy:.0%} of the time"
        )


def score_distorted(
    request: Request,
    asked: Candidate,
    crops: Crops,
    distortion: Distortion,
    say: Say,
    progress: Callable[..., None] | None,
) -> None:
    """Score a set's crops distorted, or crops cut from its distorted frames.

    A user's own crops have no frames: then every kind is applied to the crops.
    """
    view = str(distortion)
    if distortion.on_crops or crops.test_set.folder is not None:
        score(request, asked, crops, say, progress, view, distortion)
    else:
        folder = request.out / "distorted" / crops.short
        cut = predict.distorted(crops, distortion, request.root, folder, progress)
        score(request, asked, cut, say, progress, view)


def kinds_of(request: Request) -> list[str]:
    """The kinds of distortion asked for."""
    kinds = [*LEVELS, *CROP_LEVELS] if "all" in request.distortions else list(request.distortions)
    return list(dict.fromkeys(kinds))


def predictions_of(request: Request, candidates: Sequence[Candidate]) -> pa.Table:
    """All predictions, or only those of the requested checkpoints: an older one may have the same name."""
    table = predictions.read(request.out / "predictions")
    if candidates:
        table = table.filter(
            pc.field("weights").isin([candidate.weights for candidate in candidates])
        )
    return table
