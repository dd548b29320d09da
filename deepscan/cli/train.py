"""The command `deepscan train`: trains a detector, or resumes a run."""

from __future__ import annotations

import json as jsonlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer
from typer import Option

from deepscan.cli import options
from deepscan.cli.console import progress_bars, say
from deepscan.cli.options import Adapter, Token
from deepscan.errors import SettingsError

if TYPE_CHECKING:
    from deepscan.training.settings import TrainSettings


Recipe: TypeAlias = Literal["ours", "qtfp"]


def train(
    adapter: Annotated[
        Adapter | None, Option(help="What trains in the tower; none leaves it frozen. [lora]")
    ] = None,
    token: Annotated[
        Token | None,
        Option(help="What is classified; cls is the baseline without queries. [global]"),
    ] = None,
    contrast: Annotated[
        Literal["flcl", "macl", "none"] | None,
        Option(help="Contrastive loss; macl needs masks. [flcl]"),
    ] = None,
    flcl: Annotated[float | None, Option(help="Weight of the contrastive loss. [0.14]")] = None,
    alignment: Annotated[
        Literal["kl", "l1", "l2", "token-l2", "none"] | None,
        Option(help="Alignment of real crops with [CLS]: RAAL's metric, or token-l2. [kl]"),
    ] = None,
    raal: Annotated[float | None, Option(help="Weight of the alignment. [1.0]")] = None,
    recipe: Annotated[
        Recipe | None,
        Option(help="ours, or qtfp: the paper's, as far as it is public. [ours]"),
    ] = None,
    base: Annotated[
        str | None,
        Option(help="CLIP base: its name or file. [clip-vit-b16]", metavar="NAME|FILE"),
    ] = None,
    data: Annotated[
        list[Path] | None,
        Option(
            help="Prepared crops (deepscan prepare, DeepfakeBench); can be repeated. [FF++ c23]"
        ),
    ] = None,
    root: Annotated[
        Path | None,
        Option(help="Folder with FF++; default: from DEEPSCAN_DATA or deepscan.toml."),
    ] = None,
    test: Annotated[Path | None, Option(help="Test crops, scored once at the end.")] = None,
    out: Annotated[
        Path | None, Option("--out", "-o", help="Folder for the run. [runs/NAME]")
    ] = None,
    resume: Annotated[
        Path | None, Option(help="Continue the run in this folder.", metavar="RUN")
    ] = None,
    config: Annotated[
        Path | None, Option(help="TOML file of settings; flags override it.", metavar="FILE")
    ] = None,
    name: Annotated[
        str | None, Option(help="The detector's name in reports. [ADAPTER-TOKEN]")
    ] = None,
    pseudo: Annotated[
        float | None, Option(help="Share of manipulated crops self-blended from real ones. [0]")
    ] = None,
    frames: Annotated[int | None, Option(help="Crops of each video in training. [8]")] = None,
    epochs: Annotated[
        int | None, Option(help="Epochs, each of as many crops as there are. [10]")
    ] = None,
    steps: Annotated[
        int | None, Option(help="Stop after this many steps, if the epochs last longer.")
    ] = None,
    batch: Annotated[int | None, Option(help="Crops per step, half of them real. [16]")] = None,
    accumulate: Annotated[
        int | None, Option(help="Split each batch into this many parts, to save memory. [1]")
    ] = None,
    lr: Annotated[float | None, Option(help="Learning rate. [2e-4]")] = None,
    schedule: Annotated[
        str | None, Option(help="Learning-rate schedule: constant or cosine. [constant]")
    ] = None,
    seed: Annotated[int | None, Option(help="Random seed. [0]")] = None,
    device: Annotated[str | None, Option(help="cpu, cuda or cuda:N. [cpu]")] = None,
    precision: Annotated[
        str | None, Option(help="auto, bfloat16 (autocast) or float32. [auto]")
    ] = None,
    recompute: Annotated[
        bool | None,
        Option("--recompute", help="Recompute activations: less memory, a third more time."),
    ] = None,
    compiled: Annotated[bool | None, Option("--compile", help="Use torch.compile.")] = None,
    workers: Annotated[
        int | None, Option(help="Processes that read and augment crops. [by cores]")
    ] = None,
    licence_note: Annotated[
        str | None, Option(help="Note on the terms of the data, stored in the checkpoint.")
    ] = None,
    offline: Annotated[
        bool | None, Option("--offline", help="Never download the CLIP base.")
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print all settings as a --config file, and stop.")
    ] = False,
    json: Annotated[bool, Option("--json", help="The results as JSON to stdout.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a detector on CLIP's tower: the paper's method, its baselines and its ablations.

    Without --data it looks for FaceForensics++ (c23) under the data root. --recipe qtfp is the paper's
    recipe as far as it is public, on ViT-L/14; --dry-run shows how ours differs. Every setting can also be
    given in a --config file, or under [train] in deepscan.toml, by the names of TrainSettings.

    The run folder gets detector.safetensors (for detect --weights), results.json, settings.json, log.csv,
    curves.png and TensorBoard events. The epoch is selected on held-out people of --data, never on --test.
    Several GPUs: torchrun -m deepscan train ...
    """
    given = {k: v for k, v in locals().items() if v is not None}
    if compiled:
        given["compile"] = given.pop("compiled")
    for other in ("resume", "config", "recipe", "root", "dry_run", "json", "quiet"):
        given.pop(other, None)
    from datetime import UTC, datetime

    from deepscan.training.run import resume as go_on
    from deepscan.training.run import train as run_training

    leads = os.environ.get("RANK", "0") == "0"  # one process of torchrun's speaks for all
    quiet = quiet or not leads
    tell = None if quiet else say
    if resume is not None:
        if given or config or root or recipe or dry_run:
            raise SettingsError(
                "--resume uses the settings of the run; leave out the other options, or start a new run"
            )
        with progress_bars(quiet) as bars:
            trained = go_on(resume, bars.stages(f"training {resume.name}"), tell)
    else:
        settings = _settings(given, config, root, recipe)
        if dry_run:
            from deepscan.training.settings import as_toml

            typer.echo(as_toml(settings), nl=False)
            return
        with progress_bars(quiet) as bars:
            today = datetime.now(UTC).date().isoformat()
            trained = run_training(settings, today, bars.stages(f"training {settings.name}"), tell)
    if json and leads:
        typer.echo(jsonlib.dumps(trained.results, indent=2))
    if not quiet:
        for part in ("validation", "test"):
            if part in trained.results:
                auc = trained.results[part]["video_auc"]
                say(f"{part}: video AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]")
        say(f"detector in {trained.checkpoint}")


def _settings(
    given: dict[str, Any], config: Path | None, root: Path | None, recipe: Recipe | None
) -> TrainSettings:
    """Defaults < --recipe < deepscan.toml < --config < flags; without data FF++ under the data root."""
    from deepscan.training.settings import RECIPES, from_files, from_plain

    values = RECIPES[recipe or "ours"] | from_files(config) | given
    name = "-".join((values.get("adapter", "lora"), values.get("token", "global")))
    values.setdefault("name", name)
    values.setdefault("out", Path("runs") / values["name"])
    if "data" not in values:
        from deepscan.config import data_root
        from deepscan.data.deepfakebench import locate

        values["dataset"] = values.get("dataset", "FaceForensics++")
        values["data"] = (locate(data_root(root), values["dataset"]),)
    return from_plain(values, "train")
