"""`deepscan benchmark` as one function: a request goes in, tables and figures come out.

    runs --train--> checkpoints --score--> predictions --> tables, figures
                                 --look--> attention  -->

Everything lies in one folder: predictions/, attention/ and runs/ are gone on with, tables and figures are
written anew from them each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from deepscan.benchmark import efficiency, evaluation, figures, predict, predictions, results
from deepscan.benchmark.datasets import Crops
from deepscan.benchmark.evaluation import mean
from deepscan.benchmark.looks import (
    Looks,
    activation_table,
    localisation_table,
    looks_file,
    read_looks,
)
from deepscan.benchmark.predict import VIEWS_AVERAGED, Candidate
from deepscan.benchmark.predictions import AVERAGED
from deepscan.benchmark.request import (
    Request,
    Results,
    Say,
    kinds_of,
    predictions_of,
    score,
    score_distorted,
    sets_of,
)
from deepscan.benchmark.results import Answers, Rule
from deepscan.benchmark.runs import Run, RunStore, complete
from deepscan.benchmark.studies import Study, study
from deepscan.benchmark.tables import plain_name
from deepscan.data.distortions import Distortion, every
from deepscan.errors import DataError
from deepscan.model.networks import device_for
from deepscan.training.settings import TrainSettings


def benchmark(request: Request, say: Say, progress: Callable[..., None] | None = None) -> Results:
    """Do what is asked: train, score, look, tell.

    Raises:
        DataError: a set is missing, without skip_missing; runs are missing, without train; or see
            predictions.
        WeightsError, OutputError, SettingsError.
    """
    outputs = Results(request.out)
    if request.studies:
        for name in request.studies:
            _study(name, study(name), request, outputs, say, progress)
    else:
        _detectors(request, outputs, say, progress)
    return outputs


# --- detectors on sets -----------------------------------------------------------------------------


def _detectors(
    request: Request, outputs: Results, say: Say, progress: Callable[..., None] | None
) -> None:
    names, sets, skipped = sets_of(request, ())
    views: list[str] = [AVERAGED] if request.averaging else []
    candidates = (
        []
        if request.tabulate
        else [
            predict.candidate(name, own_validation=request.own_validation)
            for name in request.weights
        ]
    )
    distortions = [d for kind in kinds_of(request) for d in every(kind)]
    for one in candidates:
        for crops in sets:
            score(request, one, crops, say, progress)
            if request.averaging:
                score(request, one, crops, say, progress, AVERAGED)
            for distortion in distortions:
                score_distorted(request, one, crops, distortion, say, progress)
    table, called = predictions.distinguished(predictions_of(request, candidates))
    asked = {candidate.weights: candidate for candidate in candidates}
    found = {
        called[w]: results.answers(table, called[w], names) for w in asked or called if w in called
    }
    if not any(found.values()):
        raise DataError(f"{request.out / 'predictions'}: no predictions on {', '.join(names)}")
    first = next(iter(found))
    rows: dict[str, Answers] = dict(found)
    notes = [f"{candidate.name} was trained on {candidate.trained_on}." for candidate in candidates]
    notes += [
        f"{candidate.name}: its checkpoint keeps no list of what it was trained on; overlap with these sets"
        " is not checked."
        for candidate in candidates
        if candidate.seen is None
    ]
    notes += [f"{name} was skipped: {why}" for name, why in skipped.items()]
    for name, file in request.foreign:
        foreign = predictions.read_foreign(file, name)
        rows[name], more = results.foreign_answers(foreign, found[first])
        notes += more
    against: dict[str, str | None] = dict.fromkeys(rows, first) | {first: None}
    for protocol in request.protocols:
        rule = Rule(tuple(names), protocol, request.frames, tuple(notes))
        title = f"Video AUC on {', '.join(names)}"
        outputs.add(results.auc_table("auc", title, rows, rule, against, with_peers=True))
    rule = Rule(tuple(names), "deepscan", request.frames, tuple(notes))
    for detector, own in rows.items():
        outputs.add(results.measures_table(detector, own, rule))
    for detector in found:
        if views:
            cost = f"Averaged: {VIEWS_AVERAGED} forward passes a crop instead of one."
            title = f"{detector}: averaging over mirrored and zoomed copies"
            outputs.add(
                results.views_table("averaging", title, table, detector, views, rule, [cost]),
            )
        if distortions:
            _robustness(request, outputs, table, detector, distortions, rule)
    if request.localisation:
        _localisation(
            request,
            outputs,
            "",
            {
                name: (asked[w].name if asked else name, None, asked.get(w))
                for w, name in called.items()
            },
            names,
            sets,
        )


def _robustness(
    request: Request,
    outputs: Results,
    table: pa.Table,
    detector: str,
    distortions: Sequence[Distortion],
    rule: Rule,
) -> None:
    views = [str(d) for d in distortions]
    title = f"{detector}: distorted videos"
    note = (
        "Levels 1 to 5 are DeeperForensics', of whole frames before faces are looked for; jpeg and resize are"
        " of crops, and so is every kind on sets given as NAME=FOLDER: H.264 is then that of a key frame."
    )
    outputs.add(
        results.views_table("robustness", title, table, detector, views, rule, [note]),
    )
    lines: dict[str, dict[str, evaluation.Estimate]] = {}
    for distortion in distortions:
        estimate = _average(results.answers(table, detector, rule.sets, view=str(distortion)), rule)
        if estimate is not None:
            lines.setdefault(distortion.kind, {})[str(distortion.level)] = estimate
    clean = _average(results.answers(table, detector, rule.sets), rule)
    if lines and clean is not None:
        outputs.draw(
            f"robustness-{plain_name(detector)}",
            figures.robustness(lines, clean, title),
        )


def _average(found: Answers, rule: Rule) -> evaluation.Estimate | None:
    """Mean AUC over the sets, where all were scored."""
    judged = results.videos(found, rule)
    if set(judged) != set(rule.sets):
        return None
    return mean([mean([evaluation.auc(one) for one in of_seeds]) for of_seeds in judged.values()])


# --- studies ---------------------------------------------------------------------------------------


def _study(
    name: str,
    asked: Study,
    request: Request,
    outputs: Results,
    say: Say,
    progress: Callable[..., None] | None,
) -> None:
    if asked.kind == "efficiency":
        outputs.add(efficiency.table(_timing(request, say)))
        return
    names, sets, skipped = sets_of(request, asked.sets)
    runs = dict.fromkeys(asked.rows.values())
    candidates: dict[tuple[str, int], Candidate] = {}
    notes = [f"{n} was skipped: {why}" for n, why in skipped.items()]
    if not request.tabulate:
        finished = _finished(request, list(runs), say, progress)
        notes.append(_budget(finished[0].settings, request.seeds))
        for run in finished:
            candidate = predict.candidate(str(run.checkpoint), run.name, run.settings.seed)
            candidates[run.name, run.settings.seed] = candidate
    if asked.kind in ("auc", "curve"):
        for candidate in candidates.values():
            for crops in sets:
                score(request, candidate, crops, say, progress)
        table = predictions_of(request, list(candidates.values()))
        for protocol in request.protocols:
            rule = Rule(tuple(names), protocol, request.frames, tuple(notes))
            outputs.add(results.study_table(name, asked, table, rule, request.seeds))
            if asked.kind == "curve":
                _curve(request, outputs, name, asked, table, rule)
    seed = request.seeds[0]
    which: Which = {
        row: (run, seed, candidates.get((run, seed))) for row, run in asked.rows.items()
    }
    if asked.kind in ("attention", "maps"):
        _attention(request, outputs, name, asked, which, names, sets)
    elif request.localisation:
        _localisation(request, outputs, f"{name}-", which, names, sets)


def _finished(
    request: Request, names: Sequence[str], say: Say, progress: Callable[..., None] | None
) -> list[Run]:
    """The runs, trained where they are missing and that is asked for."""
    store = RunStore(request.out / "runs", request.recipe)
    runs = [store.run(name, seed) for seed in request.seeds for name in names]
    lacking = [run for run in runs if run.state != "finished"]
    if lacking and not (request.train and request.recipe):
        names = ", ".join(f"{run.name} (seed {run.settings.seed}, {run.state})" for run in lacking)
        raise DataError(
            f"{request.out / 'runs'}: not trained yet: {names}. --train trains them, --dry-run says how"
            " long that takes, --tabulate tells what the predictions hold"
        )
    return [complete(run, request.date, progress, say) for run in runs]


def _budget(recipe: TrainSettings, seeds: Sequence[int]) -> str:
    length = f"{recipe.epochs} epochs" if recipe.steps is None else f"at most {recipe.steps} steps"
    data = ", ".join(folder.name for folder in recipe.data)
    several = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return (
        f"Trained on {data} for {length} of {recipe.batch} crops with {recipe.base}, {several};"
        " the epoch is chosen on held-out people of that data."
    )


def _curve(
    request: Request, outputs: Results, name: str, asked: Study, table: pa.Table, rule: Rule
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
        outputs.draw(name + suffix, figures.curves(shown, label, asked.against))


Which = Mapping[
    str, tuple[str, int | None, Candidate | None]
]  # by row: detector, seed, and who can be asked


def _looks(request: Request, which: Which, name: str, sets: Sequence[Crops]) -> dict[str, Looks]:
    """Each row's attention on the set `name`, looked at now or kept from before."""
    folder = request.out / "attention"
    crops = next((c for c in sets if c.test_set.short == name), None)
    found = {}
    for row, (detector, seed, candidate) in which.items():
        if candidate is not None and crops is not None:
            found[row] = predict.look(folder, candidate, crops, request.scoring, request.workers)
        elif (path := looks_file(folder, detector, seed, name)).is_file():
            found[row] = read_looks(path)
    if not found:
        raise DataError(f"{folder}: no attention on {name} is kept; run without --tabulate")
    return found


def _attention(
    request: Request,
    outputs: Results,
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
            outputs.draw(file, figures.maps(found, faces=request.faces))
        else:
            first = next(iter(found))
            columns = {f"[CLS], {first}": (found[first], "cls")}
            columns |= {f"queries, {row}": (looks, "queries") for row, looks in found.items()}
            outputs.draw(file, figures.attention(columns, faces=request.faces))
            outputs.add(activation_table(f"{name}-activation-{test_set}", found, test_set))


def _localisation(
    request: Request,
    outputs: Results,
    prefix: str,
    which: Which,
    names: Sequence[str],
    sets: Sequence[Crops],
) -> None:
    problems = []
    for test_set in names:
        found = _looks(request, which, test_set, sets)
        outputs.add(activation_table(f"{prefix}activation-{test_set}", found, test_set))
        try:
            outputs.add(localisation_table(f"{prefix}localisation-{test_set}", found, test_set))
        except DataError as error:
            problems.append(error)
    if len(problems) == len(names):
        raise problems[0]


def _timing(request: Request, say: Say) -> efficiency.Timing | None:
    path = request.out / "timing.json"
    timing = efficiency.read_timing(path)
    if timing is None and request.train:
        device = device_for(request.scoring.device)
        settings = request.recipe or TrainSettings((Path(),), Path())
        timing = efficiency.measure(replace(settings, device=device), *request.timing, say)
        efficiency.write_timing(path, timing)
    return timing
