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
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepscan.config import Settings
from deepscan.errors import UnreadableInput
from deepscan.files import part_folder, sha256
from deepscan.flow import Clock, ahead, chunks
from deepscan.judgement import judge, stretches, thresholds_of
from deepscan.judgement.agreement import agreed
from deepscan.judgement.explain import Score, Specimens, Sums
from deepscan.media import Opened
from deepscan.model import Scorer, each, loading
from deepscan.records import (
    Coverage,
    Credentials,
    Crop,
    DecodeCount,
    Evidence,
    FrameEvidence,
    Output,
    Provenance,
    Report,
    Request,
    SecondLook,
    TrackEvidence,
)
from deepscan.report import json as report_json
from deepscan.report import privacy, provenance
from deepscan.search import CHUNK, Search

if TYPE_CHECKING:
    from deepscan.model.detector import Detector

# Called with a stage, the amount done, and the total, 0 where it is not known. The stages are "loading",
# "faces", "scoring" (of sampled frames), "second look", "explaining" and "writing", one after the other.
Progress = Callable[[str, int, int], None]


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
        settings: what to examine, and how; the defaults are the command line's.
        out: a folder for report.html, report.json, manifest.json and, with settings.heatmaps.draw,
        heatmaps. It
            appears once everything is written, or not at all. None: nothing is written.
        force: replace `out` when it holds an earlier report.
        request: how the run was asked for, for the report; a call from Python needs none.
        progress: called from this thread as stages advance.
        clock: records time and memory; a new one by default.

    Raises:
        InputError: the file cannot be analysed, or not within settings.limits.
        WeightsError: the detector or its base is missing or wrong.
        OutputError: `out` exists, or cannot be written.
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
    """What `scan` does, of an input whose search may have begun.

    Args:
        search: it is used up, and not closed.
        out, force, request, progress: as for `scan`.
        found: called once, when all faces are found but for those of a last chunk, and most of these are
            still to be scored: the time to begin another search.

    Raises:
        InputError, WeightsError, OutputError: as `scan`.
    """
    settings, decoding, clock = search.settings, search.decoding, search.clock
    tell = progress or (lambda stage, done, total: None)
    decoding.count_from_now()
    with (
        part_folder(out, force) if out is not None else nullcontext() as folder,
        ExitStack() as loads,
    ):
        scorers = [loads.enter_context(loading(one, clock)) for one in each(settings.scoring)]
        tell("loading", 0, 0)
        opened = search.opened()
        source, indices = opened.source, opened.indices
        with clock("loading"):
            specimens = Specimens(len(indices)) if settings.heatmaps.explain else None
            sums = Sums()
            pictures = overlays = None
            if folder is not None:
                from deepscan.report.pictures import Pictures

                pictures = Pictures(len(indices), settings.heatmaps.draw)
            if folder is not None and settings.heatmaps.draw:
                from deepscan.report.overlays import Overlays

                drawn = settings.heatmaps
                overlays = Overlays(folder, source, drawn.cls, len(indices), drawn.map)
        try:
            drawers = [w for w in (overlays, pictures) if w is not None]
            awaited = privacy.Awaited() if drawers and settings.output.private else None
            others = (sums, specimens, awaited, *(drawers if awaited is None else ()))
            watchers = [w for w in others if w is not None]
            batch = settings.scoring.batch
            coverage, scored = _look(search, scorers, batch, watchers, tell, found)
            signed = decoding.credentials(clock)
            loaded, *further = [scorer() for scorer in scorers]
            evidence = _judged(search, coverage, scored[0], loaded, tell)
            opinions = [
                _judged(search, coverage, own, other, tell)
                for own, other in zip(scored[1:], further, strict=True)
            ]
            own = next((t for t in evidence.tracks if t.id == evidence.deciding), None)
            tell("writing", 0, 0)
            with clock("drawing"):
                film = None
                if awaited is not None:
                    shown = () if own is None else (own.id, *own.merged)
                    awaited.draw(decoding.further(indices), shown, drawers)
                if overlays is not None:
                    overlays.close()
                    film = overlays.small_film()
                    overlays = None
        finally:
            if overlays is not None:
                overlays.abandon()
        faithfulness = None
        if specimens is not None:
            tell("explaining", 0, 0)
            with clock("explaining"):
                faithfulness = specimens.measure(_logits(loaded.detector, settings.scoring.batch))
        report = replace(
            _report(opened, signed, evidence, loaded, settings, request, search.started, clock),
            evidence_sum=None if own is None else sums.of(own.id, own.merged),
            faithfulness=faithfulness,
        )
        for opinion, other in zip(opinions, further, strict=True):
            report = _with_second(report, opinion, other, each(settings.scoring)[1].weights)
        if folder is not None and pictures is not None:
            from deepscan.report import page, paper
            from deepscan.report.pictures import THUMBNAIL, thumbnail

            kept = pictures.frames(_told(evidence))
            if settings.output.private:
                report = privacy.withheld(report)
            highest = None if own is None else max(own.frames, key=lambda f: f.logit).frame_index
            if small := thumbnail(kept, evidence.deciding, highest):
                (folder / THUMBNAIL).write_bytes(small)
            pdf = [paper.NAME] if settings.output.pdf else []
            names = sorted([*provenance.files(folder), page.NAME, *pdf])
            report = replace(report, folder=out, outputs=tuple(names))
            document = report_json.to_dict(report)
            page.write(document, folder, kept, film)
            if pdf:
                with clock("printing"):
                    paper.write(document, folder, kept)
            (folder / "report.json").write_text(report_json.text(report), "utf-8")
            provenance.write_manifest(folder, source)
            if settings.output.sign:
                from deepscan.report import signing

                signing.sign(folder, signing.private_key(Path(settings.output.sign)))
    return report


def _judged(
    search: Search,
    coverage: Coverage,
    scored: Sequence[FrameEvidence],
    loaded: Scorer,
    tell: Progress,
) -> Evidence:
    """What one detector's logits say, after a second look at a stretch that stands out."""
    opened, sampling = search.opened(), search.settings.sampling
    judged = partial(
        judge,
        opened.source,
        coverage,
        [report_json.as_stated(frame) for frame in scored],
        thresholds_of(loaded.header.calibration),
        declared_duration=opened.declared_duration,
    )
    evidence = judged()
    if sampling.second_look and evidence.scores and evidence.scores.stretch:
        stretch = evidence.scores.stretch
        seen = next(track for track in evidence.tracks if track.id == stretch.track)
        if closer := stretches.closer(stretch, seen.frames, opened.indices):
            tell("second look", 0, 0)
            batch = search.settings.scoring.batch
            with search.clock("second look"):
                look = _look_again(search, closer, seen, loaded.detector, batch)
            as_stated = tuple(report_json.as_stated(frame) for frame in look.frames)
            evidence = judged(second_look=replace(look, frames=as_stated))
    return evidence


def _with_second(report: Report, opinion: Evidence, other: Scorer, weights: str) -> Report:
    """The report with what a second detector says, and with the verdict of both."""
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


def _told(evidence: Evidence) -> set[int]:
    """The tracks that the result is about, whose pictures matter most."""
    scores = evidence.scores
    if scores is None:
        return set()
    named = {scores.track, *([scores.stretch.track] if scores.stretch else [])}
    return named.union(*(track.merged for track in evidence.tracks if track.id in named))


def _look(
    search: Search,
    scorers: Sequence[Callable[[], Scorer]],
    batch: int,
    watchers: Sequence[Any],
    tell: Progress,
    found: Callable[[], None],
) -> tuple[Coverage, list[list[FrameEvidence]]]:
    """Score every face of the sampled frames by each detector, while faces are searched in the next ones.

    The detectors may still be loading at first. `watchers` have a method add(frame, crops, output), called
    for every frame with the first one's results. `found`: see `examine`.
    """
    instants, clock = search.opened().indices, search.clock
    scored: list[list[FrameEvidence]] = [[] for _ in scorers]
    cuts: list[Fraction] = []
    sampled = len(instants)
    good = with_face = too_small = too_many = seen = 0
    interlaced = called = False
    tell("faces", 0, sampled)
    for part in search.parts:
        tell("scoring", seen, sampled)
        seen += part.seen
        if not called and sampled - seen <= CHUNK:
            called = True
            found()
        good += len(part.frames)
        interlaced = interlaced or any(frame.interlaced for frame in part.frames)
        with_face += sum(map(bool, part.crops))
        too_small += part.too_small
        too_many += part.too_many
        cuts += part.cuts
        detectors = [scorer().detector for scorer in scorers]
        with clock("scoring"):
            outputs, *further = (_score(detector, part.crops, batch) for detector in detectors)
        tell("scoring", seen, sampled)
        for frames, found_by in zip(scored, (outputs, *further), strict=True):
            for own, output in zip(part.crops, found_by, strict=True):
                frames += [
                    FrameEvidence(c.track, c.frame_index, c.time, c.face, c.quality, float(logit))
                    for c, logit in zip(own, output.logit if output else (), strict=True)
                ]
        with clock("drawing"):
            for watcher in watchers:
                for frame, own, output in zip(part.frames, part.crops, outputs, strict=True):
                    watcher.add(frame, own, output)
    joined = search.follower.same()
    scored = [
        [replace(frame, track=joined.get(frame.track, frame.track)) for frame in frames]
        for frames in scored
    ]
    counts = DecodeCount(sampled=sampled, decoded=good, damaged=sampled - good)
    coverage = Coverage(
        counts, with_face, too_small, interlaced, tuple(instants), tuple(cuts), too_many, joined
    )
    return coverage, scored


def _look_again(
    search: Search,
    indices: Sequence[int],
    seen: TrackEvidence,
    detector: Detector,
    batch: int,
) -> SecondLook:
    """Score one face in further frames, of these display-order indices. Nothing of it is drawn."""
    found: list[Crop] = []
    logits: list[float] = []
    decoded = 0
    with ahead([search.further(indices, seen)], batch, lambda _: 0) as coming:
        for some in chunks(coming, batch):
            decoded += len(some)
            if crops := [crop for _, crop in some if crop is not None]:
                found += crops
                logits += detector.score(np.stack([crop.pixels for crop in crops])).logit.tolist()
    return SecondLook(
        seen.id,
        len(indices),
        decoded,
        tuple(
            FrameEvidence(c.track, c.frame_index, c.time, c.face, c.quality, logit)
            for c, logit in zip(found, logits, strict=True)
        ),
    )


def _logits(detector: Detector, batch: int) -> Score:
    """The detector as a function from crops to logits, `batch` of them at a time."""
    return lambda crops: np.concatenate(
        [detector.score(crops[at : at + batch]).logit for at in range(0, len(crops), batch)]
    )


def _score(detector: Detector, crops: Sequence[Sequence[Crop]], batch: int) -> list[Output | None]:
    """The detector's output for each frame's crops (None: no crops), run in batches across frames."""
    flat = [crop.pixels for own in crops for crop in own]
    if not flat:
        return [None] * len(crops)
    whole = Output.joined([detector.score(np.stack(group)) for group in chunks(flat, batch)])
    outputs: list[Output | None] = []
    at = 0
    for own in crops:
        outputs.append(whole.part(slice(at, at + len(own))) if own else None)
        at += len(own)
    return outputs


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
            " analyse a copy that nothing writes to"
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
    """What a report states about the detector."""
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
