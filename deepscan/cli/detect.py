"""`deepscan detect`."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from deepscan.cli.console import Exit, progress_bars, say
from deepscan.cli.weights import detectors
from deepscan.errors import DeepscanError, InputError, OutputError, SettingsError

if TYPE_CHECKING:
    from deepscan.records import Report

# What `detect` takes out of a folder; a file named on the command line may be called anything.
VIDEO_SUFFIXES = """
.3gp .asf .avi .flv .gif .h264 .hevc .ivf .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .nut .ogv .ts
.vob .webm .wmv .y4m
"""
STILL_SUFFIXES = ".jpg .jpeg .png .webp .bmp .tif .tiff .avif .jp2 .heic .heif"


class FailOn(StrEnum):
    """What --fail-on takes."""

    manipulation = "manipulation"


# The key of the setting that an option gives (see preferences.py).
SETTING_OF = {
    "heatmap": "heatmaps.draw",
    "cls_map": "heatmaps.cls",
    "explain": "heatmaps.explain",
    "frames": "sampling.frames",
    "sampling": "sampling.rule",
    "weights": "scoring.weights",
    "device": "scoring.device",
    "precision": "scoring.precision",
    "min_face": "faces.min_size",
    "offline": "scoring.offline",
}


def detect(
    context: typer.Context,
    paths: Annotated[list[Path], Argument(help="Videos, pictures, and folders of them.")],
    heatmap: Annotated[bool, Option("--heatmap", help="Draw where the detector looked.")] = False,
    cls_map: Annotated[
        bool, Option("--cls-map", help="With --heatmap: [CLS]'s attention too.")
    ] = False,
    explain: Annotated[
        bool, Option("--explain", help="Measure whether the heatmaps are faithful to the score.")
    ] = False,
    out: Annotated[Path, Option(help="Folder for the results, one folder per input.")] = Path(
        "deepscan-out"
    ),
    frames: Annotated[int, Option(help="Instants spread evenly over a video.")] = 32,
    sampling: Annotated[
        str, Option(help="uniform, keyframes, all, or every:SECONDS.", metavar="RULE")
    ] = "uniform",
    weights: Annotated[
        str,
        Option(help="A detector's name, or a checkpoint file.", autocompletion=detectors),
    ] = "default",
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, Option(help="auto, float32 or bfloat16.")] = "auto",
    min_face: Annotated[int, Option(help="Smallest face judged, in pixels.", metavar="PX")] = 40,
    recursive: Annotated[
        bool, Option("--recursive", "-r", help="Folders are taken whole, with or without it.")
    ] = False,
    json: Annotated[
        bool, Option("--json", help="JSON to stdout; several inputs: one line each as they finish.")
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace earlier results.")] = False,
    offline: Annotated[bool, Option("--offline", help="Never fetch weights.")] = False,
    case: Annotated[str, Option(help="Case number, for the report.", metavar="TEXT")] = "",
    exhibit: Annotated[str, Option(help="Exhibit, for the report.", metavar="TEXT")] = "",
    examiner: Annotated[str, Option(help="Who runs this, for the report.", metavar="TEXT")] = "",
    notes: Annotated[str, Option(help="Anything else, for the report.", metavar="TEXT")] = "",
    fail_on: Annotated[
        FailOn | None, Option(help="Exit 10 when a manipulation is indicated.")
    ] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress and no messages.")] = False,
    verbose: Annotated[bool, Option("--verbose", "-v", help="Say where the time went.")] = False,
) -> None:
    """Look for manipulated faces in videos and pictures.

    Each input gets a folder with report.html, report.json, manifest.json and, with --heatmap, pictures, an
    overlay film and the raw attention; several inputs get an index.html above them. A verdict never says
    that a video is authentic.

    Exit codes: 0 every input analysed, 1 none usable, 2 usage, 3 some failed, 4 no face to judge in any,
    10 manipulation indicated (with --fail-on manipulation), 130 interrupted.
    """
    from deepscan.flow import keep_memory_level
    from deepscan.pipeline import prepare_weights, scan
    from deepscan.preferences import gather
    from deepscan.records import Case, Request

    recursive = recursive or any(path.is_dir() for path in paths)
    told = gather(_flags(context))
    settings = told.settings
    if settings.heatmaps.cls and not settings.heatmaps.draw:
        raise SettingsError("--cls-map draws beside the heatmaps; add --heatmap")
    request = Request(
        argv=("deepscan", *context.obj),
        origins=told.origins(),
        case=Case(case, exhibit, examiner, notes) if case or exhibit or examiner or notes else None,
    )
    jobs = list(_jobs(paths, out))
    batch = len(jobs) > 1 or recursive
    _check_outputs([folder for _, folder in jobs], force)
    keep_memory_level()
    with progress_bars(quiet) as bars:
        prepare_weights(settings.scoring, bars.callback("fetching the CLIP base", "bytes"))
    results: list[tuple[Path, Report | DeepscanError]] = []
    try:
        with progress_bars(quiet) as bars:
            for number, (path, folder) in enumerate(jobs, 1):
                of = f"{number}/{len(jobs)} " if len(jobs) > 1 else ""
                try:
                    result: Report | DeepscanError = scan(
                        path,
                        settings,
                        out=folder,
                        force=force,
                        request=request,
                        progress=bars.stages(of + path.name),
                    )
                except (InputError, OutputError) as error:
                    result = error
                results.append((path, result))
                if json:
                    _print_json(path, result, indent=None if batch else 2)
                if not quiet:
                    _announce(path, result, verbose)
    finally:
        if results and batch:
            _write_index(out, results, quiet)
        if results and not json:
            _print_table(results)
    raise typer.Exit(_exit_code([result for _, result in results], fail_on))


def _flags(context: typer.Context) -> dict[str, Any]:
    """The settings that were given on the command line."""
    return {
        key: context.params[option]
        for option, key in SETTING_OF.items()
        if (source := context.get_parameter_source(option)) and source.name == "COMMANDLINE"
    }


# --- inputs and outputs ----------------------------------------------------------------------------


def _jobs(paths: Sequence[Path], out: Path) -> Iterator[tuple[Path, Path]]:
    """Each input with the folder for its results; names that meet are told apart by a number."""
    taken: dict[Path, int] = {out / "index.html": 1}  # a batch's own
    for given in paths:
        # A folder with nothing in it is an input that fails, not one that goes missing.
        found = (sorted(_media(given)) if given.is_dir() else []) or [given]
        for path in found:
            name = path.name if path.name not in ("", "..") else "input"
            inner = path.relative_to(given) if path != given else Path(name)
            folder = out / inner
            taken[folder] = taken.get(folder, 0) + 1
            yield (
                path,
                folder
                if taken[folder] == 1
                else folder.with_name(f"{folder.name}-{taken[folder]}"),
            )


def _media(folder: Path) -> Iterator[Path]:
    suffixes = {*VIDEO_SUFFIXES.split(), *STILL_SUFFIXES.split()}
    return (
        p
        for p in folder.rglob("*")
        # macOS leaves "._clip.mp4" beside a clip on disks that cannot hold what it knows of it.
        if p.suffix.lower() in suffixes and not p.name.startswith("._") and p.is_file()
    )


def _check_outputs(folders: Sequence[Path], force: bool) -> None:
    """Refuse before any work is done, rather than after."""
    from deepscan.files import check_free

    try:
        for folder in folders:
            check_free(folder, force)
    except OutputError as error:
        raise SettingsError(str(error)) from error


def _write_index(
    out: Path, results: Sequence[tuple[Path, Report | DeepscanError]], quiet: bool
) -> None:
    """A batch's index.html. Results stand without it, so a failure is told and changes nothing else."""
    from deepscan.report import index

    try:
        path = index.write(out, results)
    except OutputError as error:
        say(f"error: {error}")
        return
    if not quiet:
        say(f"all results: {path}")


def _exit_code(results: Sequence[Report | DeepscanError], fail_on: FailOn | None) -> int:
    reports = [r for r in results if not isinstance(r, DeepscanError)]
    verdicts = {r.verdict.name for r in reports}
    if fail_on and "manipulation_indicated" in verdicts:
        return Exit.MANIPULATION
    if not reports:
        return Exit.NOTHING_USABLE
    if len(reports) < len(results):
        return Exit.SOME_FAILED
    return Exit.ANALYSED if any(v.assessed for v in verdicts) else Exit.NOTHING_ASSESSABLE


def _print_json(path: Path, result: Report | DeepscanError, indent: int | None) -> None:
    from deepscan.report.json import error_dict, to_dict

    document = error_dict(path, result) if isinstance(result, DeepscanError) else to_dict(result)
    sys.stdout.write(jsonlib.dumps(document, indent=indent, allow_nan=False) + "\n")
    sys.stdout.flush()


def _print_table(results: Sequence[tuple[Path, Report | DeepscanError]]) -> None:
    from rich.console import Console

    from deepscan.report.terminal import summary

    Console().print(summary(results))


def _announce(path: Path, result: Report | DeepscanError, verbose: bool) -> None:
    if isinstance(result, DeepscanError):
        say(f"error: {result}")
        return
    say(f"{result.verdict.name}: results in {result.folder}")
    if verbose:
        spent = ", ".join(f"{k} {v:.2f} s" for k, v in result.provenance.seconds.items())
        say(f"  {spent}; {result.provenance.device}, {result.provenance.precision}")
