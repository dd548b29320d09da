"""`deepscan benchmark` as one function: a request goes in, tables and figures come out.

    runs --train--> checkpoints --score--> predictions --> tables, figures
                                 --look--> attention  -->

Everything is in one folder. What predictions/, attention/ and runs/ hold is not computed again; tables and
figures are written from it each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
    kinds_of,
    predictions_of,
    score,
    score_distorted,
    sets_of,
)
from deepscan.benchmark.results import Answers, Rule
from deepscan.benchmark.runs import Run, RunStore, Say, complete
from deepscan.benchmark.studies import Study, study
from deepscan.benchmark.tables import plain_name
from deepscan.data.distortions import Distortion, every
from deepscan.errors import DataError
from deepscan.model.networks import device_for
from deepscan.training.settings import TrainSettings


def benchmark(request: Request, say: Say, progress: Callable[..., None] | None = None) -> Results:
    """Train, score, record attention, and write tables and figures, as requested.

    Raises:
        DataError: a set is missing, without skip_missing; runs are missing, without train; or see
            predictions.py.
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
    table, names_of = predictions.distinguished(predictions_of(request, candidates))
    by_weights = {candidate.weights: candidate for candidate in candidates}
    found = {
        names_of[w]: results.answers(table, names_of[w], names)
        for w in by_weights or names_of
        if w in names_of
    }
    if not any(found.values()):
        raise DataError(f"{request.out / 'predictions'}: no predictions on {', '.join(names)}")
    first = next(iter(found))
    rows: dict[str, Answers] = dict(found)
    notes = [f"{candidate.name} was trained on {candidate.trained_on}." for candidate in candidates]
    notes += [
        f"{candidate.name}: its checkpoint does not list what it was trained on, so overlap with"
        f" these sets is not checked."
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
            cost = f"Averaged: {VIEWS_AVERAGED} forward passes per crop instead of one."
            title = f"{detector}: averaging over mirrored and zoomed copies"
            outputs.add(
                results.views_table("averaging", title, table, detector, views, rule, [cost]),
            )
        if distortions:
            _robustness(outputs, table, detector, distortions, rule)
    if request.localisation:
        rows_seen = {
            name: Viewed(by_weights[w].name if w in by_weights else name, None, by_weights.get(w))
            for w, name in names_of.items()
        }
        _localisation(outputs, "", _looks(request, rows_seen, names, sets))


def _robustness(
    outputs: Results,
    table: pa.Table,
    detector: str,
    distortions: Sequence[Distortion],
    rule: Rule,
) -> None:
    views = [str(d) for d in distortions]
    title = f"{detector}: distorted videos"
    note = (
        "Levels 1 to 5 are those of DeeperForensics and change whole frames before face detection."
        " jpeg and resize change crops, and so does every kind on sets given as NAME=FOLDER; H.264"
        " is then that of a key frame."
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
                by_value = {
                    value: results.answers(table, run, rule.sets, request.seeds)
                    for value, run in asked.rows.items()
                }
                _curve(outputs, name, asked, by_value, rule)
    seed = request.seeds[0]
    rows = {row: Viewed(run, seed, candidates.get((run, seed))) for row, run in asked.rows.items()}
    looks = _looks(request, rows, names, sets)
    if asked.kind in ("attention", "maps"):
        _attention(outputs, name, asked.kind, looks, request.faces)
    elif request.localisation:
        _localisation(outputs, f"{name}-", looks)


def _finished(
    request: Request, names: Sequence[str], say: Say, progress: Callable[..., None] | None
) -> list[Run]:
    """The runs; those that are missing are trained if that is requested."""
    store = RunStore(request.out / "runs", request.recipe)
    runs = [store.run(name, seed) for seed in request.seeds for name in names]
    lacking = [run for run in runs if run.state != "finished"]
    if lacking and not (request.train and request.recipe):
        names = ", ".join(f"{run.name} (seed {run.settings.seed}, {run.state})" for run in lacking)
        raise DataError(
            f"{request.out / 'runs'}: not trained yet: {names}. --train trains them, --dry-run"
            f" estimates the time, --tabulate shows the predictions there are"
        )
    return [complete(run, request.date, progress, say) for run in runs]


def _budget(recipe: TrainSettings, seeds: Sequence[int]) -> str:
    length = f"{recipe.epochs} epochs" if recipe.steps is None else f"at most {recipe.steps} steps"
    data = ", ".join(folder.name for folder in recipe.data)
    several = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return (
        f"Trained on {data} for {length} of {recipe.batch} crops with {recipe.base}, {several}; the"
        f" epoch is selected on held-out people of that data."
    )


def _curve(
    outputs: Results, name: str, asked: Study, by_value: Mapping[str, Answers], rule: Rule
) -> None:
    """Draw AUC against the value that the study varies, a line for each set and one for their average."""
    lines: dict[str, dict[str, evaluation.Estimate]] = {s: {} for s in (*rule.sets, "avg")}
    for value, found in by_value.items():
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


@dataclass(frozen=True, slots=True)
class Viewed:
    """A row that needs attention: a detector, and the candidate to compute it with, if there is one."""

    detector: str
    seed: int | None
    candidate: Candidate | None


def _looks(
    request: Request, rows: Mapping[str, Viewed], names: Sequence[str], sets: Sequence[Crops]
) -> Iterator[tuple[str, dict[str, Looks]]]:
    """For each set, every row's attention: computed, or read from where it was kept."""
    folder = request.out / "attention"
    for name in names:
        crops = next((c for c in sets if c.test_set.short == name), None)
        found = {}
        for row, of in rows.items():
            if of.candidate is not None and crops is not None:
                found[row] = predict.look(
                    folder, of.candidate, crops, request.scoring, request.workers
                )
            elif (path := looks_file(folder, of.detector, of.seed, name)).is_file():
                found[row] = read_looks(path)
        if not found:
            raise DataError(
                f"{folder}: no attention on {name} was recorded; run without --tabulate"
            )
        yield name, found


def _attention(
    outputs: Results,
    name: str,
    kind: str,
    looks: Iterator[tuple[str, dict[str, Looks]]],
    faces: bool,
) -> None:
    for i, (test_set, found) in enumerate(looks):
        # Each set after the first has files of its own.
        file = name if i == 0 else f"{name}-{test_set}"
        if kind == "maps":
            outputs.draw(file, figures.maps(found, faces=faces))
        else:
            first = next(iter(found))
            columns = {f"[CLS], {first}": (found[first], "cls")}
            columns |= {f"queries, {row}": (own, "queries") for row, own in found.items()}
            outputs.draw(file, figures.attention(columns, faces=faces))
            outputs.add(activation_table(f"{name}-activation-{test_set}", found, test_set))


def _localisation(
    outputs: Results, prefix: str, looks: Iterator[tuple[str, dict[str, Looks]]]
) -> None:
    """Tables of attention and of how well it finds the forged region; fails if no set has masks."""
    problems, located = [], 0
    for test_set, found in looks:
        outputs.add(activation_table(f"{prefix}activation-{test_set}", found, test_set))
        try:
            outputs.add(localisation_table(f"{prefix}localisation-{test_set}", found, test_set))
            located += 1
        except DataError as error:
            problems.append(error)
    if problems and not located:
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
