"""The command `deepscan detect`: scans one input or a batch."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from deepscan.cli import options
from deepscan.cli.console import Exit, fetch_weights, progress_bars, say
from deepscan.cli.results import (
    MOST_ROWS,
    announce,
    link,
    print_json,
    print_table,
    timings,
    write_index,
)
from deepscan.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from deepscan.batches.batch import Batch
    from deepscan.batches.inputs import Input
    from deepscan.batches.outcomes import Outcome
    from deepscan.config import Settings
    from deepscan.records import Request


OWN_RESULT = (
    "written by an earlier run of deepscan; name the original, or copy this file to another folder"
    " if you mean it"
)


def detect(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None, Argument(help="Videos, pictures, and folders of them.")
    ] = None,
    heatmap: options.Heatmap = False,
    cls_map: Annotated[
        bool, Option("--cls-map", help="With --heatmap: also the attention of [CLS].")
    ] = False,
    shown_map: Annotated[
        options.Map,
        Option("--map", help="With --heatmap: the map that film and contact sheet show."),
    ] = "auto",
    explain: Annotated[
        bool, Option("--explain", help="Measure whether the score depends on what the maps mark.")
    ] = False,
    out: options.Results = Path("deepscan-out"),
    frames: Annotated[int, Option(help="Frames to look at, spread evenly over a video.")] = 32,
    sampling: Annotated[
        str, Option(help="uniform, keyframes, all, or every:SECONDS.", metavar="RULE")
    ] = "uniform",
    stream: Annotated[
        int | None,
        Option(help="Number of the video stream in the file; default: the one that players show."),
    ] = None,
    no_second_look: Annotated[
        bool,
        Option("--no-second-look", help="Leave out the closer look at a stretch that stands out."),
    ] = False,
    weights: options.Weights = "default",
    device: options.Device = "auto",
    precision: Annotated[str, Option(help="auto, float32 or bfloat16.")] = "auto",
    min_face: Annotated[int, Option(help="Smallest face to judge, in pixels.", metavar="PX")] = 40,
    from_file: Annotated[
        Path | None,
        Option(
            help="A list of inputs, one per line or separated by NUL; - is stdin.", metavar="LIST"
        ),
    ] = None,
    resume: Annotated[
        bool, Option("--resume", help="Continue the batch in --out; skip what is finished.")
    ] = False,
    jobs: Annotated[int, Option(help="Inputs of a batch to analyse at the same time.")] = 1,
    engine: Annotated[
        str, Option(help="local, or ray[=ADDRESS]: a batch over a Ray cluster.", metavar="ENGINE")
    ] = "local",
    job_cpus: Annotated[float, Option(help="With ray: cores for each of the --jobs.")] = 1,
    job_gpus: Annotated[float, Option(help="With ray: GPUs for each; 0.25 shares one.")] = 0,
    parquet: Annotated[
        str,
        Option(
            help="Also write a batch's rows as Parquet: a folder or an fsspec URL.", metavar="URL"
        ),
    ] = "",
    json: Annotated[
        bool, Option("--json", help="JSON to stdout; several inputs: one line each as they finish.")
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace earlier results.")] = False,
    offline: options.Offline = False,
    time_limit: Annotated[
        float | None,
        Option(
            help="Give up on an input after SECONDS; default: only if it hangs.", metavar="SECONDS"
        ),
    ] = None,
    case: Annotated[str, Option(help="Case number, for the report.", metavar="TEXT")] = "",
    exhibit: Annotated[str, Option(help="Exhibit, for the report.", metavar="TEXT")] = "",
    examiner: Annotated[str, Option(help="Examiner, for the report.", metavar="TEXT")] = "",
    notes: Annotated[str, Option(help="Notes, for the report.", metavar="TEXT")] = "",
    pdf: Annotated[bool, Option("--pdf", help="Also write report.pdf, to print and file.")] = False,
    private: Annotated[
        bool,
        Option(
            "--private", help="Leave folders, tags and other people's faces out of the results."
        ),
    ] = False,
    sign: Annotated[
        str, Option(help="Sign manifest.json with this private key; see keygen.", metavar="KEY")
    ] = "",
    fail_on: Annotated[
        Literal["manipulation"] | None, Option(help="Exit 10 when a manipulation is indicated.")
    ] = None,
    quiet: options.Quiet = False,
    verbose: Annotated[
        bool, Option("--verbose", "-v", help="Show how long each stage took.")
    ] = False,
) -> None:
    """Look for manipulated faces in videos and pictures.

    Each input gets a folder with report.html, report.json, manifest.json and, with --heatmap, maps on
    pictures, a film and the raw values. Several inputs, folders and --from-file make a batch: each result is
    saved as soon as it is finished, index.html lists them all, and --resume continues an interrupted batch.
    No verdict says that a video is authentic.

    Exit codes: 0 every input analysed, 1 none could be analysed, 2 usage error, 3 some failed, 4 no face to
    judge in any, 10 manipulation indicated (with --fail-on manipulation), 130 interrupted.
    """
    from deepscan.batches.batch import Batch
    from deepscan.batches.cluster import joined
    from deepscan.batches.inputs import found, is_result
    from deepscan.cli.preferences import gather
    from deepscan.files import check_readable, store
    from deepscan.flow import keep_memory_level
    from deepscan.records import Case, Request

    preferences = gather(options.given_flags(context))
    settings = preferences.settings
    if not quiet and (note := preferences.foreign_detector()):
        say(note)
    if settings.heatmaps.cls and not settings.heatmaps.draw:
        raise SettingsError("--cls-map needs --heatmap")
    if settings.output.pdf:
        from deepscan.report import paper

        paper.check()
    if settings.output.sign:
        from deepscan.report import signing

        signing.private_key(Path(settings.output.sign))  # refused before the work, not after it
    if settings.heatmaps.map != "auto" and not settings.heatmaps.draw:
        raise SettingsError("--map needs --heatmap")
    request = Request(
        argv=("deepscan", *context.obj),
        origins=preferences.origins(),
        case=Case.noted(case, exhibit, examiner, notes),
    )
    given = [*(paths or []), *(_listed(from_file) if from_file is not None else [])]
    if not given:
        raise SettingsError(
            "no input: name videos, pictures, folders of them, or a --from-file. See deepscan detect --help."
        )
    if jobs < 1:
        raise SettingsError(f"jobs: {jobs} is not a positive count")
    keep_memory_level()
    if len(given) == 1 and not given[0].is_dir() and from_file is None:
        if is_result(given[0]):
            raise SettingsError(f"{given[0]}: {OWN_RESULT}")
        if resume or engine != "local" or parquet:
            raise SettingsError(
                "--resume, --engine and --parquet are for batches, but this is a single input"
            )
        results = [_one(given[0], out, settings, force, request, json, quiet, verbose)]
    else:
        if "://" in parquet:
            store(parquet)  # an unusable address is refused before the work, not after it
        inputs = list(found(given, out, None if quiet else say))
        if not inputs:
            raise SettingsError(f"nothing to analyse: all files there were {OWN_RESULT}")
        if all(one.path.is_dir() for one in inputs):
            check_readable(inputs[0].path)  # says what is wrong with the folder
        fetch_weights(settings.scoring, quiet)
        how: dict[str, Any] = {"jobs": jobs, "resume": resume, "force": force, "request": request}
        with Batch(out, settings, **how, **joined(engine, job_cpus, job_gpus)) as batch:
            private = settings.output.private
            results = _all(batch, inputs, out, private, json, quiet, verbose)
        if parquet:
            from deepscan.batches import rows

            rows.write(results, parquet, private)
    raise typer.Exit(_exit_code(results, fail_on))


def _one(
    path: Path,
    out: Path,
    settings: Settings,
    force: bool,
    request: Request,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> Outcome:
    """Scan one input in this process (its decoder has its own)."""
    from deepscan.batches.batch import scan_or_error
    from deepscan.batches.inputs import itself
    from deepscan.batches.outcomes import Outcome
    from deepscan.files import check_free

    folder = out / itself(path).inner
    try:
        check_free(folder, force)  # before any work is done, rather than after
    except OutputError as error:
        raise SettingsError(str(error)) from error
    fetch_weights(settings.scoring, quiet)
    with progress_bars(quiet) as bars:
        report = scan_or_error(path, settings, folder, force, request, bars.stages(path.name))
    result = Outcome.of(path, report)
    if json:
        print_json(result, indent=2)
    elif not result.failed:
        print_table([result])
    if result.failed:
        announce(result)
    elif not quiet:
        if verbose:
            say(timings(result))
        link("Report", folder / "report.html")
    return result


def _all(
    batch: Batch,
    inputs: Sequence[Input],
    out: Path,
    private: bool,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> list[Outcome]:
    """Scan a batch; finished results are shown however the run ends."""
    from deepscan.judgement.words import HEADLINES

    finished: dict[Path, Outcome] = {}
    table = not json and len(inputs) <= MOST_ROWS
    try:
        with progress_bars(quiet) as bars:
            tell = bars.stages(str(out))
            tell("inputs", 0, len(inputs))
            for result in batch.assess(inputs):
                finished[result.path] = result
                tell("inputs", len(finished), len(inputs))
                if json:
                    print_json(result, indent=None)
                if not quiet:
                    announce(result, verbose, reason=not table)
    finally:
        results = [finished[one.path] for one in inputs if one.path in finished]
        index = write_index(out, results, private) if results else None
        if results and table:
            print_table(results)
        if not quiet:
            counts = Counter(HEADLINES[result.verdict].lower() for result in results)
            words = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
            say(f"{len(results)} of {len(inputs)} inputs" + (f": {words}" if words else ""))
        if index is not None and not quiet:
            link("All results", index)
    return results


def _listed(path: Path) -> list[Path]:
    from deepscan.batches.inputs import listed

    if str(path) == "-":
        return listed(sys.stdin.buffer.read())
    try:
        return listed(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"--from-file {path}: cannot be read: {error.strerror}") from error


def _exit_code(results: Sequence[Outcome], fail_on: str | None) -> int:
    verdicts = {result.verdict for result in results if not result.failed}
    if fail_on and "manipulation_indicated" in verdicts:
        return Exit.MANIPULATION
    if not verdicts:
        return Exit.NOTHING_USABLE
    if any(result.failed for result in results):
        return Exit.SOME_FAILED
    return Exit.ANALYSED if any(v.assessed for v in verdicts) else Exit.NOTHING_ASSESSABLE
