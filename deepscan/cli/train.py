"""`deepscan train`."""

from __future__ import annotations

import json as jsonlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from deepscan.cli.console import progress_bars, say


class Adapter(StrEnum):
    """What --adapter takes."""

    none = "none"


def train(
    data: Annotated[Path, Option(help="Folder of side-by-side pair clips with pairs.csv.")],
    out: Annotated[Path, Option(help="Run folder, made here.")],
    adapter: Annotated[
        Adapter, Option(help="What trains in the tower; with none it stays frozen.")
    ] = Adapter.none,
    test: Annotated[
        Path | None, Option(help="Folder of crops (real/, fake/), judged once at the end.")
    ] = None,
    name: Annotated[
        str, Option(help="The detector's name, as reports will state it.")
    ] = "detector",
    seed: Annotated[int, Option(help="Seed of all chance.")] = 0,
    epochs: Annotated[int, Option(help="Times each pair is shown.")] = 10,
    views: Annotated[int, Option(help="Views of each crop, all but one augmented.")] = 4,
    lr: Annotated[float, Option(help="Adam's learning rate.")] = 2e-4,
    weight_decay: Annotated[float, Option(help="Decoupled weight decay.")] = 0.0,
    device: Annotated[str, Option(help="cpu, cuda or cuda:N.")] = "cpu",
    licence_note: Annotated[str, Option(help="What to say of the data's terms.")] = "not stated",
    offline: Annotated[bool, Option("--offline", help="Never fetch the CLIP base.")] = False,
    json: Annotated[bool, Option("--json", help="The results as JSON to stdout.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress and no messages.")] = False,
) -> None:
    """Train a detector: query aggregation and head on a frozen CLIP tower.

    The run folder gets detector.safetensors (for detect --weights), results.json, settings.json and
    log.csv. The epoch is chosen on held-out people of --data, never on --test.
    """
    from datetime import UTC, datetime

    from deepscan.training.loop import TrainSettings
    from deepscan.training.loop import train as run_training

    settings = TrainSettings(
        data=data,
        out=out,
        test=test,
        name=name,
        licence_note=licence_note,
        adapter=adapter.value,
        seed=seed,
        epochs=epochs,
        views=views,
        lr=lr,
        weight_decay=weight_decay,
        device=device,
        offline=offline,
    )
    with progress_bars(quiet) as bars:
        trained = run_training(
            settings, datetime.now(UTC).date().isoformat(), bars.stages(f"training {name}")
        )
    if json:
        typer.echo(jsonlib.dumps(trained.results, indent=2))
    if not quiet:
        for part in ("validation", "test"):
            if part in trained.results:
                auc = trained.results[part]["video_auc"]
                say(f"{part}: video AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]")
        say(f"detector in {trained.checkpoint}")
