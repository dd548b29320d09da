"""The command `deepscan calibrate`: fits probabilities and thresholds on the user's own material."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from deepscan.cli.console import progress_bars, say


def calibrate(
    weights: Annotated[str, Argument(help="A detector: its name or checkpoint file.")],
    data: Annotated[
        list[Path],
        Option(help="Prepared crops of videos it was not trained on; can be repeated."),
    ],
    out: Annotated[Path, Option("--out", "-o", help="The calibrated checkpoint to write.")],
    name: Annotated[str | None, Option(help="Name of the copy. [that of --out]")] = None,
    device: Annotated[str, Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[str, Option(help="auto, bfloat16 or float32.")] = "auto",
    force: Annotated[bool, Option("--force", help="Overwrite existing files.")] = False,
    offline: Annotated[bool, Option("--offline", help="Never download the CLIP base.")] = False,
    json: Annotated[bool, Option("--json", help="The calibration as JSON to stdout.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress and no messages.")] = False,
) -> None:
    """Calibrate a detector on your own material, and write the calibrated copy.

    Fits a map from scores to probabilities, and two thresholds: 5 % of the real videos score at or above the
    upper one, 5 % of the manipulated ones at or below the lower one (1 in n + 1, with fewer than 19 videos of
    a class). Also measures how far compression and small faces move scores. `detect --weights FILE` then
    gives probabilities and calibrated verdicts. You need at least ten real and ten manipulated videos; a
    hundred are better. Videos that the detector was trained on are refused, and so are others of the same
    people.
    """
    from deepscan.errors import OutputError
    from deepscan.judgement.words import logit
    from deepscan.model.weights import detector_file
    from deepscan.training.run import calibrate_anew
    from deepscan.training.settings import TrainSettings

    if out.exists() and not force:
        raise OutputError(f"{out}: already exists; --force overwrites it")
    settings = TrainSettings(
        tuple(data), out, name=name or out.stem, device=device, precision=precision, offline=offline
    )
    with progress_bars(quiet) as bars:
        found = calibrate_anew(
            detector_file(weights),
            out,
            settings,
            bars.stages("calibrating"),
            None if quiet else say,
        )
    if json:
        typer.echo(jsonlib.dumps(asdict(found), indent=2))
    elif not quiet:
        typer.echo(
            f"{out}: probability = 1 / (1 + exp(-({found.slope:.3f} score {found.intercept:+.3f}))) on"
            f" {found.data} ({found.real} real, {found.manipulated} manipulated videos);\n"
            f"no manipulation indicated at or below {logit(found.low)}, manipulation indicated at or above"
            f" {logit(found.high)}, {found.widening:.2f} further apart where the evidence is weak;\n"
            f"expected calibration error {found.ece:.3f}, Cllr {found.cllr:.3f} bit, cross-validated"
            f" by groups of people"
        )
