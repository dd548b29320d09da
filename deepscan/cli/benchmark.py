"""The command `deepscan benchmark`: scores test sets and makes tables and figures."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from deepscan.cli import options
from deepscan.cli.console import progress_bars, say
from deepscan.errors import SettingsError

if TYPE_CHECKING:
    from deepscan.benchmark.datasets import TestSet
    from deepscan.benchmark.tables import Table
    from deepscan.training.settings import TrainSettings


def benchmark(
    datasets: Annotated[
        str | None,
        Option(
            help="Short names, as in cdf2,dfdc (see deepscan datasets); all: the paper's ten; NAME=FOLDER:"
            " your own crops. [those of the study]"
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        Option(help="Detectors to evaluate: names or checkpoints; can be repeated. [default]"),
    ] = None,
    table: Annotated[
        list[int] | None,
        Option(min=1, max=5, help="Tables 1 to 5 of the paper's supplement; can be repeated."),
    ] = None,
    figure: Annotated[
        list[int] | None,
        Option(min=1, max=4, help="Figures 1 to 4 of the supplement; can be repeated."),
    ] = None,
    study: Annotated[
        list[str] | None,
        Option(help="components, cross-manipulation, methods, variants, or all; can be repeated."),
    ] = None,
    train: Annotated[
        bool, Option("--train", help="Train missing runs, and measure the times for Table 5.")
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="List what would run, with an estimate of the time.")
    ] = False,
    data: Annotated[
        Path | None, Option(help="Prepared crops to train runs on. [FF++ c23 under the root]")
    ] = None,
    config: Annotated[
        Path | None, Option(help="TOML file of training settings.", metavar="FILE")
    ] = None,
    steps: Annotated[int | None, Option(help="Stop training after this many steps.")] = None,
    seeds: Annotated[
        str, Option(help="Training seeds, as in 0,1,2; values are means over them.")
    ] = "0",
    other: Annotated[
        list[str] | None,
        Option(
            help="Another tool's predictions: a CSV or Parquet file of video, frame, score.",
            metavar="NAME=FILE",
        ),
    ] = None,
    protocol: Annotated[
        Literal["deepscan", "deepfakebench"],
        Option(help="deepfakebench: apply its rules as well as deepscan's."),
    ] = "deepscan",
    frames: Annotated[int, Option(help="Crops to use from each video.", min=1)] = 32,
    skip_missing: Annotated[
        bool, Option("--skip-missing", help="Skip missing sets, with a note, instead of stopping.")
    ] = False,
    tabulate: Annotated[
        bool,
        Option("--tabulate", help="Only build tables from what --out holds."),
    ] = False,
    distortions: Annotated[
        str | None,
        Option(
            help="Robustness to all, or to saturation,contrast,blocks,noise,blur,pixelation,h264,jpeg,resize."
        ),
    ] = None,
    localisation: Annotated[
        bool, Option("--localisation", help="Compare attention with manipulation masks.")
    ] = False,
    averaging: Annotated[
        bool, Option("--averaging", help="Also average each crop with mirrored and zoomed copies.")
    ] = False,
    root: options.Root = None,
    out: Annotated[
        Path,
        Option(
            "--out",
            "-o",
            help="Folder for runs, predictions, tables and figures; an earlier one is continued.",
        ),
    ] = Path("benchmark"),
    tower: Annotated[
        str, Option(help="Tower whose training steps are timed for Table 5.")
    ] = "ViT-L-14-quickgelu",
    timed: Annotated[
        int, Option(help="Training steps of each method to time for Table 5.", min=2)
    ] = 8,
    device: options.Device = "auto",
    batch: Annotated[int, Option(help="Crops to score at once.", min=1)] = 64,
    workers: Annotated[int | None, Option(help="Processes that read crops. [by cores]")] = None,
    offline: options.Offline = False,
    json: Annotated[
        bool, Option("--json", help="Write the tables as one JSON document to stdout.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Evaluate detectors by the field's protocols, and reproduce the paper's tables and figures.

    Crops are scored once, into OUT/predictions. Tables (Markdown, CSV, LaTeX, JSON) and figures (PNG, SVG)
    are built from there; each number comes with its interval and the published one.
    """
    from datetime import UTC, datetime

    from deepscan.benchmark.request import Request
    from deepscan.benchmark.run import benchmark as run
    from deepscan.benchmark.studies import STUDIES
    from deepscan.config import Scoring
    from deepscan.training.settings import default_workers

    studies = [f"table-{n}" for n in table or ()] + [f"figure-{n}" for n in figure or ()]
    studies += list(STUDIES) if "all" in (study or ()) else study or []
    studies = list(dict.fromkeys(studies))
    _check(studies, datasets, weights, train, other, distortions, averaging)
    sets, place = _sets(datasets, root, studies, tabulate)
    request = Request(
        out=out,
        sets=sets,
        root=place,
        weights=tuple(weights or ["default"]),
        foreign=tuple(_named(word) for word in other or ()),
        studies=tuple(studies),
        recipe=_recipe(
            data, config, steps, device, offline, place, studies, tabulate, train or dry_run
        ),
        seeds=_seeds(seeds),
        train=train,
        protocols=tuple(dict.fromkeys(("deepscan", protocol))),
        frames=frames,
        skip_missing=skip_missing,
        tabulate=tabulate,
        distortions=tuple(distortions.split(",")) if distortions else (),
        localisation=localisation,
        averaging=averaging,
        scoring=Scoring(device=device, batch=batch, offline=offline),
        workers=default_workers() if workers is None else workers,
        timing=(tower, timed),
        date=datetime.now(UTC).date().isoformat(),
    )
    if dry_run:
        from deepscan.benchmark.plan import plan

        _show([plan(request)], json)
        return
    tell = (lambda line: None) if quiet else say
    with progress_bars(quiet) as bars:
        outputs = run(request, tell, bars.stages("benchmark"))
    _show(outputs.tables, json)
    if not quiet:
        say(f"written to {out}: " + ", ".join(sorted({path.stem for path in outputs.files})))


def _check(
    studies: list[str],
    datasets: str | None,
    weights: list[str] | None,
    train: bool,
    other: list[str] | None,
    distortions: str | None,
    averaging: bool,
) -> None:
    """Refuse contradictory options before anything is loaded."""
    from deepscan.benchmark.studies import study
    from deepscan.data.distortions import every

    for name in studies:
        study(name)
    if studies and (weights or other or distortions or averaging):
        raise SettingsError(
            "a study names its own detectors: leave out --weights, --other, --distortions and"
            " --averaging, or leave out --table, --figure and --study"
        )
    if not studies and datasets is None:
        raise SettingsError(
            "nothing to do: name --datasets, as in --datasets cdf2,dfdc, or a --table, --figure or --study"
        )
    if not studies and train:
        raise SettingsError("--train trains a study's runs: name a --table, --figure or --study")
    for kind in (distortions or "all").split(","):
        if kind != "all":
            every(kind)


def _sets(
    datasets: str | None, root: Path | None, studies: list[str], tabulate: bool
) -> tuple[tuple[TestSet, ...] | None, Path | None]:
    """The named sets, and the data root if one of them must be searched for."""
    from deepscan.benchmark.datasets import parse
    from deepscan.config import data_root

    sets = None if datasets is None else tuple(parse(datasets))
    needed = any(s.folder is None for s in sets) if sets else any(s != "table-5" for s in studies)
    return sets, data_root(root) if needed and not tabulate else root


def _recipe(
    data: Path | None,
    config: Path | None,
    steps: int | None,
    device: str,
    offline: bool,
    root: Path | None,
    studies: list[str],
    tabulate: bool,
    training: bool,
) -> TrainSettings | None:
    """The common recipe of a study's runs; None if nothing trains and finished runs are found by name."""
    if tabulate or not any(name != "table-5" for name in studies):
        return None
    if not (training or data or config or steps):
        return None
    from deepscan.data.deepfakebench import locate
    from deepscan.model.networks import device_for
    from deepscan.training.settings import from_files, from_plain

    values: dict[str, Any] = from_files(config)
    if data is not None:
        values |= {"data": data}
    if "data" not in values:
        if root is None:
            raise SettingsError(
                "runs are trained on FaceForensics++ under the data root, or on --data"
            )
        values["dataset"] = values.get("dataset", "FaceForensics++")
        values["data"] = (locate(root, values["dataset"]),)
    if steps is not None:
        values["steps"] = steps
    values |= {"device": device_for(device), "out": Path("runs"), "offline": offline}
    values.pop("test", None)
    return from_plain(values, "benchmark")


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError as error:
        raise SettingsError(f"seeds: {text!r} is not like 0,1,2") from error


def _named(text: str) -> tuple[str, Path]:
    name, named, file = text.partition("=")
    if not (named and name and file):
        raise SettingsError(f"other: {text!r} is not like NAME=FILE")
    return name, Path(file)


def _show(tables: list[Table], json: bool) -> None:
    from deepscan.benchmark.tables import to_dict, to_rich

    if json:
        document = {"schema": "deepscan.benchmark/1", "tables": [to_dict(t) for t in tables]}
        typer.echo(jsonlib.dumps(document, indent=2))
        return
    from rich.console import Console

    console = Console()
    for one in tables:
        console.print(to_rich(one))
        for note in one.notes:
            console.print(note, style="dim", markup=False, highlight=False)
        console.print()
