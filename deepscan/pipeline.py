"""scan(): a path goes in, a Report comes out.

    path -> source -> frames -> faces -> tracks -> aligned crops -> logits and attention -> evidence

Frames pass through in small chunks and are dropped once scored and drawn, so memory depends on the chunk
and not on the video. Decoding runs ahead in a process of its own (see `media.isolation`), at first while
the networks load. Faces are found in a thread, at first while the detector loads and then while it scores
earlier frames. In a batch both begin on the next input once all faces of the one before are found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from deepscan.config import Settings
from deepscan.errors import UnreadableInput
from deepscan.files import part_folder, sha256
from deepscan.flow import Clock, Progress
from deepscan.judgement import judge, stretches, thresholds_of
from deepscan.judgement.agreement import agreed
from deepscan.judgement.explain import Specimens, Sums
from deepscan.media import Opened
from deepscan.model import Scorer, each, loading
from deepscan.records import (
    Coverage,
    Credentials,
    Evidence,
    FrameEvidence,
    Provenance,
    Report,
    Request,
)
from deepscan.report import json as report_json
from deepscan.report import provenance
from deepscan.scoring import logits, score_closer, score_faces
from deepscan.search import Search


def scan(
    path: str | Path,
    settings: Settings | None = None,
    *,
    out: Path | None = None,
    force: bool = False,
    request: Request | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> Report:
    """Look for manipulated faces in one video or picture.

    Args:
        path: a video or picture file; it is only read.
        settings: what to examine, and how; the defaults are those of the command line.
        out: the folder to write report.html, report.json, manifest.json and heatmaps to,
            atomically. None: nothing is written.
        force: replace `out` if it holds an earlier report.
        request: the command line and case details for the report; not needed in a call from Python.
        progress: called from this thread as stages advance.
        clock: records time and memory; a new one by default.

    Raises:
        InputError: the file cannot be analysed, or exceeds settings.limits.
        WeightsError: the detector or its base is missing or wrong.
        OutputError: `out` exists already, or cannot be written.
    """
    with Search(Path(path), settings or Settings(), clock) as search:
        return examine(search, out=out, force=force, request=request, progress=progress)


def examine(
    search: Search,
    *,
    out: Path | None = None,
    force: bool = False,
    request: Request | None = None,
    progress: Progress | None = None,
    found: Callable[[], None] = lambda: None,
) -> Report:
    """Do what `scan` does, for an input whose search may have started.

    Args:
        search: it is used up, and not closed.
        out, force, request, progress: as for `scan`.
        found: called once, when all faces are found but for those of a last chunk, and most of these are
            still to be scored: the time to begin another search.

    Raises:
        InputError, WeightsError, OutputError: as `scan`.
    """
    settings, decoding, clock = search.settings, search.decoding, search.clock
    progress = progress or (lambda stage, done, total: None)
    decoding.count_from_now()
    with (
        part_folder(out, force) if out is not None else nullcontext() as folder,
        ExitStack() as resources,
    ):
        scorers = [resources.enter_context(loading(one, clock)) for one in each(settings.scoring)]
        progress("loading", 0, 0)
        opened = search.opened()
        instants = len(opened.indices)
        with clock("loading"):
            results = None
            if folder is not None:
                from deepscan.report.folder import ResultFolder

                results = resources.enter_context(
                    ResultFolder(folder, opened.source, instants, settings)
                )
            sums = Sums()
            specimens = Specimens(instants) if settings.heatmaps.explain else None
        watchers = [watcher for watcher in (sums, specimens, results) if watcher is not None]
        coverage, scored = score_faces(search, scorers, watchers, progress, found)
        signed = decoding.credentials(clock)
        detectors = [scorer() for scorer in scorers]
        opinions = [
            _judged(search, coverage, frames, scorer, progress)
            for frames, scorer in zip(scored, detectors, strict=True)
        ]
        evidence, scorer = opinions[0], detectors[0]
        progress("writing", 0, 0)
        if results is not None:
            with clock("drawing"):
                results.draw(evidence, partial(decoding.further, opened.indices))
        faithfulness = None
        if specimens is not None:
            progress("explaining", 0, 0)
            with clock("explaining"):
                faithfulness = specimens.measure(logits(scorer.detector, settings.scoring.batch))
        own = next((t for t in evidence.tracks if t.id == evidence.deciding), None)
        report = replace(
            _report(opened, signed, evidence, scorer, settings, request, search.started, clock),
            evidence_sum=None if own is None else sums.of(own.id, own.merged),
            faithfulness=faithfulness,
        )
        if len(opinions) > 1:
            report = _with_second(
                report, opinions[1], detectors[1], each(settings.scoring)[1].weights
            )
        if results is not None and out is not None:
            report = results.write(report, out, clock)
    return report


def _judged(
    search: Search,
    coverage: Coverage,
    scored: Sequence[FrameEvidence],
    scorer: Scorer,
    progress: Progress,
) -> Evidence:
    """The judgement of one detector's logits, after a second look at a stretch that stands out."""
    opened, sampling = search.opened(), search.settings.sampling
    judged = partial(
        judge,
        opened.source,
        coverage,
        [report_json.as_stated(frame) for frame in scored],
        thresholds_of(scorer.header.calibration),
        declared_duration=opened.declared_duration,
    )
    evidence = judged()
    if sampling.second_look and evidence.scores and evidence.scores.stretch:
        stretch = evidence.scores.stretch
        seen = next(track for track in evidence.tracks if track.id == stretch.track)
        if closer := stretches.closer(stretch, seen.frames, opened.indices):
            progress("second look", 0, 0)
            with search.clock("second look"):
                look = score_closer(search, closer, seen, scorer.detector)
            as_stated = tuple(report_json.as_stated(frame) for frame in look.frames)
            evidence = judged(second_look=replace(look, frames=as_stated))
    return evidence


def _with_second(report: Report, opinion: Evidence, other: Scorer, weights: str) -> Report:
    """The report with a second detector's result and the verdict of both."""
    origin = report.provenance
    scoring = {**origin.settings["scoring"], "weights": weights}
    second = replace(
        report,
        evidence=opinion,
        evidence_sum=None,
        faithfulness=None,
        provenance=replace(
            origin,
            detector=_facts(other),
            precision=other.precision,
            settings={**origin.settings, "scoring": scoring},
        ),
    )
    return replace(report, second=second, joint=agreed(report, second))


def _report(
    opened: Opened,
    signed: Credentials,
    evidence: Evidence,
    scorer: Scorer,
    settings: Settings,
    request: Request | None,
    started: datetime,
    clock: Clock,
) -> Report:
    source = opened.source
    with clock("hashing again"):
        after = sha256(source.path)
    if after != source.sha256:
        raise UnreadableInput(
            f"{source.path}: changed while it was analysed (SHA-256 {source.sha256}, then {after});"
            f" analyse a copy that no program writes to"
        )
    origin = Provenance(
        versions=provenance.versions(),
        detector=_facts(scorer),
        device=scorer.device,
        precision=scorer.precision,
        threads=scorer.threads,
        settings=settings.to_dict(),
        started=started.isoformat(timespec="milliseconds"),
        finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
        sha256_after=after,
        seconds={stage: round(spent, 4) for stage, spent in clock.seconds.items()},
        confinement=opened.confinement,
        request=request or Request(origins=settings.origins()),
        credentials=signed,
    )
    return Report(source, evidence, origin)


def _facts(scorer: Scorer) -> dict[str, Any]:
    """The facts about the detector for a report."""
    header = scorer.header
    return {
        "name": header.name,
        "sha256": scorer.sha256,
        "base": header.base["name"],
        "base_sha256": header.base["sha256"],
        "tower": header.settings.tower,
        "training": header.training,
        "licence": header.licence,
    }
