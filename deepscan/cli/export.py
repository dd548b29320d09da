"""The command `deepscan export`: writes a detector as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from deepscan.cli import options
from deepscan.cli.console import say


def export(
    weights: Annotated[
        str,
        Argument(
            help="A detector: its name (deepscan weights list) or checkpoint file.",
            autocompletion=options.detectors,
        ),
    ] = "default",
    out: Annotated[
        Path | None, Option("--out", "-o", help="The file to write. [NAME.onnx]")
    ] = None,
    force: options.Force = False,
    offline: options.Offline = False,
) -> None:
    """Write a detector as ONNX, adapter merged, for programs without torch.

    The graph takes aligned 256 px crops as deepscan cuts them, and returns logits and attention. It is
    written only if onnxruntime gives the same results as torch. Needs the extra:
    pip install 'deepscan-forensics[onnx]'.
    """
    from deepscan.config import Scoring
    from deepscan.errors import OutputError
    from deepscan.files import sha256
    from deepscan.model.export import write
    from deepscan.model.header import read_header
    from deepscan.model.networks import load_detector, weights_file

    scoring = Scoring(weights=weights, device="cpu", precision="float32", offline=offline)
    path = weights_file(weights)
    target = out or Path(f"{read_header(path).name}.onnx")
    if target.exists() and not force:
        raise OutputError(f"{target}: already exists; --force overwrites it")
    detector, header, _, _ = load_detector(scoring)
    apart = write(target, detector, header, sha256(path))
    typer.echo(target)
    say(f"onnxruntime's outputs differ from torch's by at most {apart:.1e}")
