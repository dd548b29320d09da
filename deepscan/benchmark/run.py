"""`deepscan benchmark` as one function: a request goes in, tables and figures come out.

    runs --train--> checkpoints --score--> predictions --> tables, figures
                                 --look--> attention  -->

Everything lies in one folder: predictions/, attention/ and runs/ are gone on with, tables and figures are
written anew from them each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from deepscan.benchmark import efficiency, evaluation, figures, predict, predictions, results
from deepscan.benchmark.datasets import SETS, Crops, TestSet, present
from deepscan.benchmark.evaluation import mean
from deepscan.benchmark.looks import (
    Looks,
    activation_table,
    localisation_table,
    looks_file,
    read_looks,
)
from deepscan.benchmark.predict import VIEWS_AVERAGED, Judge
from deepscan.benchmark.predictions import AVERAGED, PLAIN
from deepscan.benchmark.results import Answers, Rule
from deepscan.benchmark.runs import Run, Shelf, complete
from deepscan.benchmark.studies import Study, study
from deepscan.benchmark.tables import Table, plain_name, write
from deepscan.config import Scoring
from deepscan.distortions import CROP_LEVELS, LEVELS, Distortion, every
from deepscan.errors import DataError
from deepscan.training.settings import TrainSettings

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. Without `studies`, the detectors in `weights` are judged on `sets`.

    `sets`: None for those a study names. `recipe`: what a study's runs are trained by; None where nothing
    can be trained. `foreign`: name and file of other tools' predictions. `tabulate`: tell what predictions
    and attention in `out` hold, without media. `timing`: tower and steps of Table 5's measurement.
    """

    out: Path
    sets: tuple[TestSet, ...] | None = None
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


@dataclass(frozen=True, slots=True)
class Told:
    """What came out, and the files it was written to."""

    tables: list[Table] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def benchmark(request: Request, say: Say, progress: Callable[..., None] | None = None) -> Told:
    """Do what is asked: train, score, look, tell.

    Raises:
        DataError: a set is missing, without skip_missing; runs are missing, without train; or see
            predictions.
        WeightsError, OutputError, SettingsError.
    """
    told = Told()
    if request.studies:
        for name in request.studies:
            _study(name, study(name), request, told, say, progress)
    else:
        _detectors(request, told, say, progress)
    return told


# --- detectors on sets -----------------------------------------------------------------------------


def _detectors(
    request: Request, told: Told, say: Say, progress: Callable[..., None] | None
) -> None:
    names, sets, skipped = _sets(request, ())
    views: list[str] = [AVERAGED] if request.averaging else []
    judges = [] if request.tabulate else [predict.judge(name) for name in request.weights]
    distortions = [d for kind in _kinds(request) for d in every(kind)]
    for one in judges:
        for crops in sets:
            _score(request, one, crops, say, progress)
            if request.averaging:
                _score(request, one, crops, say, progress, AVERAGED)
            for distortion in distortions:
                _distorted(request, one, crops, distortion, say, progress)
    table, called = predictions.told_apart(_predictions(request, judges))
    asked = {judge.weights: judge for judge in judges}
    found = {
        called[w]: results.answers(table, called[w], names) for w in asked or called if w in called
    }
    if not any(found.values()):
        raise DataError(f"{request.out / 'predictions'}: no predictions on {', '.join(names)}")
    first = next(iter(found))
    rows: dict[str, Answers] = dict(found)
    notes = [f"{name} was skipped: {why}" for name, why in skipped.items()]
    for name, file in request.foreign:
        foreign = predictions.read_foreign(file, name)
        rows[name] = results.foreign_answers(foreign, found[first])
        notes.append(foreign.note + ".")
    against: dict[str, str | None] = dict.fromkeys(rows, first) | {first: None}
    for protocol in request.protocols:
        rule = Rule(tuple(names), protocol, request.frames, tuple(notes))
        title = f"Video AUC on {', '.join(names)}"
        _add(told, request, results.auc_table("auc", title, rows, rule, against, with_peers=True))
    rule = Rule(tuple(names), "deepscan", request.frames, tuple(notes))
    for detector, own in rows.items():
        _add(told, request, results.measures_table(detector, own, rule))
    for detector in found:
        if views:
            cost = f"Averaged: {VIEWS_AVERAGED} forward passes a crop instead of one."
            title = f"{detector}: averaging over mirrored and zoomed copies"
            _add(
                told,
                request,
                results.views_table("averaging", title, table, detector, views, rule, [cost]),
            )
        if distortions:
            _robustness(request, told, table, detector, distortions, rule)
    if request.localisation:
        _localisation(
            request,
            told,
            {
                name: (asked[w].name if asked else name, None, asked.get(w))
                for w, name in called.items()
            },
            names,
            sets,
        )


def _robustness(
    request: Request,
    told: Told,
    table: pa.Table,
    detector: str,
    distortions: Sequence[Distortion],
    rule: Rule,
) -> None:
    views = [str(d) for d in distortions]
    title = f"{detector}: distorted videos"
    note = (
        "Levels 1 to 5 are DeeperForensics', of whole frames before faces are looked for; jpeg and resize are"
        " of crops."
    )
    _add(
        told,
        request,
        results.views_table("robustness", title, table, detector, views, rule, [note]),
    )
    lines: dict[str, dict[str, evaluation.Estimate]] = {}
    for distortion in distortions:
        estimate = _average(results.answers(table, detector, rule.sets, view=str(distortion)), rule)
        if estimate is not None:
            lines.setdefault(distortion.kind, {})[str(distortion.level)] = estimate
    clean = _average(results.answers(table, detector, rule.sets), rule)
    if lines and clean is not None:
        _draw(
            told,
            request,
            f"robustness-{plain_name(detector)}",
            figures.robustness(lines, clean, title),
        )


def _average(found: Answers, rule: Rule) -> evaluation.Estimate | None:
    """Mean AUC over the sets, where all were scored."""
    if set(found) != set(rule.sets):
        return None
    return mean(
        [
            mean(
                [
                    evaluation.auc(evaluation.videos(one, rule.protocol, rule.frames))
                    for one in of_seeds
                ]
            )
            for of_seeds in found.values()
        ]
    )


# --- studies ---------------------------------------------------------------------------------------


def _study(
    name: str,
    asked: Study,
    request: Request,
    told: Told,
    say: Say,
    progress: Callable[..., None] | None,
) -> None:
    if asked.kind == "efficiency":
        _add(told, request, efficiency.table(_timing(request, say)))
        return
    names, sets, skipped = _sets(request, asked.sets)
    runs = dict.fromkeys(asked.rows.values())
    judges: dict[tuple[str, int], Judge] = {}
    if not request.tabulate:
        for run in _finished(request, list(runs), say, progress):
            judge = predict.judge(str(run.checkpoint), run.name, run.settings.seed)
            judges[run.name, run.settings.seed] = judge
    notes = [f"{n} was skipped: {why}" for n, why in skipped.items()]
    if request.recipe is not None:
        notes.append(_budget(request.recipe, request.seeds))
    if asked.kind in ("auc", "curve"):
        for judge in judges.values():
            for crops in sets:
                _score(request, judge, crops, say, progress)
        table = _predictions(request, list(judges.values()))
        for protocol in request.protocols:
            rule = Rule(tuple(names), protocol, request.frames, tuple(notes))
            _add(told, request, results.study_table(name, asked, table, rule, request.seeds))
            if asked.kind == "curve":
                _curve(request, told, name, asked, table, rule)
    seed = request.seeds[0]
    which: Which = {row: (run, seed, judges.get((run, seed))) for row, run in asked.rows.items()}
    if asked.kind in ("attention", "maps"):
        _attention(request, told, name, asked, which, names, sets)
    elif request.localisation:
        _localisation(request, told, which, names, sets)


def _finished(
    request: Request, names: Sequence[str], say: Say, progress: Callable[..., None] | None
) -> list[Run]:
    """The runs, trained where they are missing and that is asked for."""
    shelf = Shelf(request.out / "runs", request.recipe)
    runs = [shelf.run(name, seed) for seed in request.seeds for name in names]
    lacking = [run for run in runs if run.state != "finished"]
    if lacking and not (request.train and request.recipe):
        told = ", ".join(f"{run.name} (seed {run.settings.seed}, {run.state})" for run in lacking)
        raise DataError(
            f"{request.out / 'runs'}: not trained yet: {told}. --train trains them, --dry-run says how long"
            " that takes, --tabulate tells what the predictions hold"
        )
    return [complete(run, request.date, progress, say) for run in runs]


def _budget(recipe: TrainSettings, seeds: Sequence[int]) -> str:
    length = f"{recipe.epochs} epochs" if recipe.steps is None else f"at most {recipe.steps} steps"
    several = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return (
        f"Trained on {recipe.data.name} for {length} of {recipe.batch} crops with {recipe.base}, {several};"
        " the epoch is chosen on held-out people of that data."
    )


def _curve(
    request: Request, told: Told, name: str, asked: Study, table: pa.Table, rule: Rule
) -> None:
    lines: dict[str, dict[str, evaluation.Estimate]] = {s: {} for s in (*rule.sets, "avg")}
    for value, run in asked.rows.items():
        found = results.answers(table, run, rule.sets, request.seeds)
        for test_set in found:
            one = _average(
                {test_set: found[test_set]}, Rule((test_set,), rule.protocol, rule.frames)
            )
            assert one is not None
            lines[test_set][value] = one
        if (average := _average(found, rule)) is not None:
            lines["avg"][value] = average
    shown = {line: values for line, values in lines.items() if values}
    if shown:
        label = asked.title.partition(": ")[2]
        suffix = "" if rule.protocol == "deepscan" else f"-{rule.protocol}"
        assert isinstance(asked.against, str)
        _draw(told, request, name + suffix, figures.curves(shown, label, asked.against))


Which = dict[
    str, tuple[str, int | None, Judge | None]
]  # by row: detector, seed, and who can be asked


def _looks(request: Request, which: Which, name: str, sets: Sequence[Crops]) -> dict[str, Looks]:
    """Each row's attention on the set `name`, looked at now or kept from before."""
    folder = request.out / "attention"
    crops = next((c for c in sets if c.test_set.short == name), None)
    found = {}
    for row, (detector, seed, judge) in which.items():
        if judge is not None and crops is not None:
            found[row] = predict.look(folder, judge, crops, request.scoring, request.workers)
        elif (path := looks_file(folder, detector, seed, name)).is_file():
            found[row] = read_looks(path)
    if not found:
        raise DataError(f"{folder}: no attention on {name} is kept; run without --tabulate")
    return found


def _attention(
    request: Request,
    told: Told,
    name: str,
    asked: Study,
    which: Which,
    names: Sequence[str],
    sets: Sequence[Crops],
) -> None:
    for i, test_set in enumerate(names):
        found = _looks(request, which, test_set, sets)
        # Beyond the first set each has files of its own.
        file = name if i == 0 else f"{name}-{test_set}"
        if asked.kind == "maps":
            _draw(told, request, file, figures.maps(found))
        else:
            first = next(iter(found))
            columns = {f"[CLS], {first}": (found[first], "cls")}
            columns |= {f"queries, {row}": (looks, "queries") for row, looks in found.items()}
            _draw(told, request, file, figures.attention(columns))
            _add(told, request, activation_table(found, test_set))


def _localisation(
    request: Request, told: Told, which: Which, names: Sequence[str], sets: Sequence[Crops]
) -> None:
    problems = []
    for test_set in names:
        found = _looks(request, which, test_set, sets)
        _add(told, request, activation_table(found, test_set))
        try:
            _add(told, request, localisation_table(found, test_set))
        except DataError as error:
            problems.append(error)
    if len(problems) == len(names):
        raise problems[0]


def _timing(request: Request, say: Say) -> efficiency.Timing | None:
    path = request.out / "timing.json"
    timing = efficiency.read_timing(path)
    if timing is None and request.train:
        device = request.scoring.device
        if device == "auto":
            import torch

            device = "cuda" if torch.cuda.is_available() else "cpu"
        settings = request.recipe or TrainSettings(Path(), Path())
        timing = efficiency.measure(replace(settings, device=device), *request.timing, say)
        efficiency.write_timing(path, timing)
    return timing


# --- steps -----------------------------------------------------------------------------------------


def _sets(request: Request, named: Sequence[str]) -> tuple[list[str], list[Crops], dict[str, str]]:
    """Names of the sets, their crops (none when only tabulating), and why others were skipped."""
    asked = request.sets if request.sets is not None else tuple(SETS[name] for name in named)
    if request.tabulate:
        return [test_set.short for test_set in asked], [], {}
    found, skipped = present(asked, request.root, request.skip_missing)
    return [crops.test_set.short for crops in found], found, skipped


def _score(
    request: Request,
    asked: Judge,
    crops: Crops,
    say: Say,
    progress: Callable[..., None] | None,
    view: str = PLAIN,
    change: Distortion | None = None,
) -> None:
    count = predict.score(
        request.out / "predictions",
        asked,
        crops,
        request.scoring,
        request.workers,
        view,
        change,
        progress,
    )
    if count:
        say(f"{asked.name}: scored {count} crops of {crops.test_set.short}{view and f', {view}'}")


def _distorted(
    request: Request,
    asked: Judge,
    crops: Crops,
    distortion: Distortion,
    say: Say,
    progress: Callable[..., None] | None,
) -> None:
    view = str(distortion)
    if distortion.on_crops:
        _score(request, asked, crops, say, progress, view, distortion)
    else:
        folder = request.out / "distorted" / crops.test_set.short
        cut = predict.distorted(crops, distortion, request.root, folder, progress)
        _score(request, asked, cut, say, progress, view)


def _kinds(request: Request) -> list[str]:
    kinds = [*LEVELS, *CROP_LEVELS] if "all" in request.distortions else list(request.distortions)
    return list(dict.fromkeys(kinds))


def _predictions(request: Request, judges: Sequence[Judge]) -> pa.Table:
    """All predictions, or of the checkpoints asked for alone: an older one may carry the same name."""
    table = predictions.read(request.out / "predictions")
    if judges:
        table = table.filter(pc.field("weights").isin([judge.weights for judge in judges]))
    return table


def _add(told: Told, request: Request, table: Table) -> None:
    if table.name not in [t.name for t in told.tables]:
        told.tables.append(table)
        told.files.extend(write(table, request.out))


def _draw(told: Told, request: Request, name: str, figure: Figure) -> None:
    told.drawn.append(name)
    told.files.extend(figures.save(figure, request.out, name))
