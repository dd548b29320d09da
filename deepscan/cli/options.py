"""Declares the options that several commands share, and which setting each option sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer
from typer import Option


def detectors(incomplete: str) -> list[str]:
    """Detectors' names that begin with `incomplete`, for shell completion."""
    from deepscan.model.catalogue import catalogue

    entries = catalogue()
    return [n for n in (*entries.detectors, *entries.published) if n.startswith(incomplete)]


# The names in model.header, repeated because importing it would slow --help down.
Adapter: TypeAlias = Literal["effort", "lora", "full", "norm", "none"]
Map: TypeAlias = Literal["auto", "evidence", "attention", "likelihood"]
Token: TypeAlias = Literal["global", "cls", "avg", "weighted-avg", "concat"]

Results = Annotated[
    Path, Option("--out", "-o", help="Folder for the results, one folder per input.")
]
Heatmap = Annotated[bool, Option("--heatmap", help="Also draw heatmaps and an overlay film.")]
Weights = Annotated[
    str, Option(help="A detector's name or file; A,B for two.", autocompletion=detectors)
]
Device = Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")]
Offline = Annotated[bool, Option("--offline", help="Never download weights.")]
Root = Annotated[
    Path | None,
    Option(help="Folder of your data sets; default: from DEEPSCAN_DATA or deepscan.toml."),
]
Compression = Annotated[str, Option(help="Compression of FaceForensics++: raw, c23 or c40.")]
Force = Annotated[bool, Option("--force", help="Overwrite existing files.")]
Json = Annotated[bool, Option("--json", help="JSON to stdout.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress and no messages.")]

# The setting that an option sets (see preferences.py), in any command; a "no_..." switches its setting off.
SETTING_OF = {
    "heatmap": "heatmaps.draw",
    "cls_map": "heatmaps.cls",
    "explain": "heatmaps.explain",
    "shown_map": "heatmaps.map",
    "frames": "sampling.frames",
    "sampling": "sampling.rule",
    "stream": "sampling.stream",
    "no_second_look": "sampling.second_look",
    "weights": "scoring.weights",
    "device": "scoring.device",
    "precision": "scoring.precision",
    "min_face": "faces.min_size",
    "offline": "scoring.offline",
    "time_limit": "limits.seconds",
    "private": "output.private",
    "pdf": "output.pdf",
    "sign": "output.sign",
}


def given_flags(context: typer.Context) -> dict[str, Any]:
    """The settings, by their keys, that were given on the command line of `detect`, `watch` or `serve`."""
    return {
        key: not context.params[option] if option.startswith("no_") else context.params[option]
        for option, key in SETTING_OF.items()
        if (source := context.get_parameter_source(option)) and source.name == "COMMANDLINE"
    }
