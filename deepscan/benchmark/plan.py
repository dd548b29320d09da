"""Estimates what `deepscan benchmark` would do, and how long it would take on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from deepscan.benchmark import predict
from deepscan.benchmark.datasets import SETS, present
from deepscan.benchmark.request import Request
from deepscan.benchmark.runs import Run, RunStore, seconds_a_step, steps_of
from deepscan.benchmark.studies import Study, study
from deepscan.benchmark.tables import Cell, Table
from deepscan.training.rows import shown

Rows = list[tuple[str, tuple[Cell | str | None, ...]]]


def plan(request: Request) -> Table:
    """What `benchmark` would train and score, and about how long that would take here.

    Steps and crops a second are taken from finished runs' logs, or measured on a few.

    Raises:
        DataError: none of the sets is there.
    """
    asked = [study(name) for name in request.studies]
    store = RunStore(request.out / "runs", request.recipe)
    names = dict.fromkeys(run for s in asked if s.kind != "efficiency" for run in s.rows.values())
    runs = [store.run(name, seed) for seed in request.seeds for name in names]
    listed, seconds = _training(request, runs)
    if not request.tabulate:
        judged, more = _scoring(request, asked, runs)
        listed, seconds = listed + judged, seconds + more
    listed.append(("together", (None, None, _time(seconds))))
    note = "Estimates: from finished runs' logs, else measured on a few steps and batches here and now."
    return Table("plan", "What would run", ("state", "how much", "time"), tuple(listed), (note,))


def _training(request: Request, runs: Sequence[Run]) -> tuple[Rows, float]:
    if request.recipe is None or not runs:
        return [(_named(run), (run.state, "", "")) for run in runs], 0.0
    paces, crops = seconds_a_step(runs), len(shown(request.recipe)[0])
    listed: Rows = []
    total = 0.0
    for run in runs:
        steps = steps_of(run, crops)
        seconds = 0.0 if run.state == "finished" else steps * paces[run.name]
        total += seconds
        listed.append((_named(run), (run.state, f"{steps} steps", _time(seconds))))
    return listed, total


def _named(run: Run) -> str:
    return f"train {run.name}, seed {run.settings.seed}"


def _scoring(request: Request, asked: Sequence[Study], runs: Sequence[Run]) -> tuple[Rows, float]:
    scored = [s for s in asked if s.kind in ("auc", "curve")]
    names = dict.fromkeys(name for s in scored for name in s.sets)
    sets = request.sets if request.sets is not None else tuple(SETS[name] for name in names)
    if not sets:
        return [], 0.0
    found, skipped = present(sets, request.root, skip_missing=True)
    if asked:
        done = [run for run in runs if run.state == "finished"]
        candidates = [predict.candidate(str(r.checkpoint), r.name, r.settings.seed) for r in done]
    else:
        candidates = [predict.candidate(name) for name in request.weights]
    anyone = candidates[0] if candidates else predict.candidate("default")
    pace = predict.speed(anyone, found[0], request.scoring, request.workers)
    folder = request.out / "predictions"
    listed: Rows = []
    total = 0.0
    for crops in found:
        left = sum(len(predict.missing(folder, candidate, crops)[0]) for candidate in candidates)
        left += len(crops.rows) * (len(runs) - len(candidates) if asked else 0)
        total += left / pace
        listed.append((f"score {crops.short}", (None, f"{left} crops", _time(left / pace))))
    listed += [(f"score {name}", ("missing", None, None)) for name in skipped]
    return listed, total


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
