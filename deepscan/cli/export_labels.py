"""The command `deepscan export-labels`: results as a COCO data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from deepscan.cli import options
from deepscan.cli.console import put, say


def export_labels(
    results: Annotated[
        list[Path], Argument(help="Folders of results, or of batches.", metavar="DIR...")
    ],
    out: Annotated[Path, Option("--out", "-o", help="The data set's folder.")] = Path("labels"),
    no_images: Annotated[
        bool, Option("--no-images", help="Write only the labels, without frames.")
    ] = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write results as labelled frames, in the COCO format that FiftyOne and annotation tools read.

    data/ holds the frames that were looked at, labels.json the faces in them: the box, the verdict on the
    face, and its score in that frame.

    Exit codes: 0 written, 1 results or their inputs cannot be read, or the folder exists already.
    """
    from deepscan.batches import labels

    count = labels.write(results, out, force, not no_images)
    put(f"{out / 'labels.json'}\n")
    if not quiet:
        say(f"{count} frames labelled")
