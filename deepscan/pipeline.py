"""scan(): a path goes in, a Report comes out.

    path -> source -> frames -> faces -> tracks -> aligned crops -> logits and attention -> evidence

Frames pass through in small chunks and are dropped once scored and drawn, so memory depends on the chunk
and not on the video. Decoding runs ahead in a process of its own (see `media.isolation`), at first while
the networks load. Faces are found in a thread, at first while the detector loads and then while it scores
earlier frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepscan.config import Settings
from deepscan.errors import UnreadableInput
from deepscan.faces import Follower, align, look_of
from deepscan.files import part_folder, sha256
from deepscan.flow import Clock, ahead, chunks
from deepscan.judgement import judge, thresholds_of, timeline
from deepscan.judgement.explain import Score, Specimens, Sums
from deepscan.media import Decoder, Opened, decoder
from deepscan.media.video import DamagedFrame
from deepscan.model import Scorer, load_finder, loading
from deepscan.records import (
    Coverage,
    Credentials,
    Crop,
    DecodeCount,
    Evidence,
    Frame,
    FrameEvidence,
    Output,
    Provenance,
    Report,
    Request,
    SecondLook,
    TrackEvidence,
)
from deepscan.report import json as report_json
from deepscan.report import provenance

if TYPE_CHECKING:
    from deepscan.faces.finder import FaceFinder
    from deepscan.model.detector import Detector

# Frames searched for faces in one batch; fewer if they are large (8K), to bound memory.
CHUNK, CHUNK_PIXELS = 8, 2**25

# Called with a stage ("decoding", "faces", "scoring"), the amount done, and the total.
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
    settings = settings or Settings()
    tell = progress or (lambda stage, done, total: None)
    started, clock = datetime.now(UTC), clock or Clock()
    with (
        part_folder(out, force) if out is not None else nullcontext() as folder,
        decoder(Path(path), settings.sampling, settings.limits) as decoding,
        loading(settings.scoring, clock) as scorer,
    ):
        with clock("opening"):
            opened = decoding.opened()
        source, indices = opened.source, opened.indices
        with clock("loading"):
            finder = load_finder(settings.faces, settings.scoring.device)
            specimens = Specimens(len(indices)) if settings.heatmaps.explain else None
            sums = Sums()
            pictures = overlays = None
            if folder is not None:
                from deepscan.report.pictures import Pictures

                pictures = Pictures(len(indices), settings.heatmaps.draw)
            if folder is not None and settings.heatmaps.draw:
                from deepscan.report.overlays import Overlays

                drawn = settings.heatmaps
                private = settings.output.private
                overlays = Overlays(folder, source, drawn.cls, len(indices), drawn.map, private)
        try:
            watchers = [w for w in (sums, overlays, pictures, specimens) if w is not None]
            batch = settings.scoring.batch
            coverage, scored, follower = _look(
                decoding, finder, scorer, batch, watchers, clock, tell
            )
            signed = decoding.credentials(clock)
            loaded = scorer()
            judged = partial(
                judge,
                source,
                coverage,
                [report_json.as_stated(frame) for frame in scored],
                thresholds_of(loaded.header.calibration),
                declared_duration=opened.declared_duration,
            )
            evidence = judged()
            if settings.sampling.second_look and evidence.scores and evidence.scores.stretch:
                stretch = evidence.scores.stretch
                seen = next(track for track in evidence.tracks if track.id == stretch.track)
                if closer := timeline.closer(stretch, seen.frames, indices):
                    with clock("second look"):
                        again = partial(decoder, Path(path), settings.sampling, settings.limits)
                        look = _look_again(again, closer, seen, finder, follower, loaded, batch)
                    as_stated = tuple(report_json.as_stated(frame) for frame in look.frames)
                    evidence = judged(second_look=replace(look, frames=as_stated))
            own = next((t for t in evidence.tracks if t.id == evidence.deciding), None)
            with clock("drawing"):
                if overlays is not None:
                    overlays.close(evidence.scores.track if evidence.scores else None)
                    overlays = None
        finally:
            if overlays is not None:
                overlays.abandon()
        faithfulness = None
        if specimens is not None:
            with clock("explaining"):
                faithfulness = specimens.measure(_logits(loaded.detector, settings.scoring.batch))
        report = replace(
            _report(opened, signed, evidence, loaded, settings, request, started, clock),
            evidence_sum=None if own is None else sums.of(own.id, own.merged),
            faithfulness=faithfulness,
        )
        if folder is not None and pictures is not None:
            from deepscan.report import page, privacy

            kept = pictures.frames()
            if settings.output.private:
                report = privacy.withheld(report)
                track = evidence.scores.track if evidence.scores else None
                boxes = {f.frame_index: f.face.box for f in evidence.crops() if f.track == track}
                kept = privacy.hidden(kept, track, boxes)
            names = sorted([*provenance.files(folder), page.NAME])
            report = replace(report, folder=out, outputs=tuple(names))
            page.write(report_json.to_dict(report), folder, kept)
            (folder / "report.json").write_text(report_json.text(report), "utf-8")
            provenance.write_manifest(folder, source)
            if settings.output.sign:
                from deepscan.report import signing

                signing.sign(folder, signing.private_key(Path(settings.output.sign)))
    return report


@dataclass(frozen=True, slots=True)
class _Looked:
    """A chunk of frames after the search for faces, with all that is needed to score and count them."""

    seen: int  # instants, damaged ones too
    frames: tuple[Frame, ...]
    crops: tuple[tuple[Crop, ...], ...]  # of each frame
    cuts: tuple[Fraction, ...]  # times of those before which the scene was cut
    too_small: int
    too_many: int


def _faces(
    decoded: Iterator[Frame | DamagedFrame],
    size: int,
    finder: FaceFinder,
    follower: Follower,
    clock: Clock,
) -> Iterator[_Looked]:
    """Find, follow and cut the faces of all frames, a chunk at a time; frames have `size` pixels."""
    scenes = timeline.Scenes()
    for chunk in chunks(decoded, max(1, min(CHUNK, CHUNK_PIXELS // size))):
        frames = tuple(item for item in chunk if isinstance(item, Frame))
        with clock("faces"):
            found = finder.find(frames)
            crops: list[tuple[Crop, ...]] = []
            cuts: list[Fraction] = []
            for frame, here in zip(frames, found, strict=True):
                own = [align(frame, face, track=0) for face in here.faces]
                looks = [look_of(crop.pixels) for crop in own]
                if cut := scenes.add(frame):
                    cuts.append(frame.time)
                ids = follower.follow(here.faces, looks, frame.time, cut)
                crops.append(tuple(replace(c, track=i) for c, i in zip(own, ids, strict=True)))
        small, many = sum(one.too_small for one in found), sum(one.too_many for one in found)
        yield _Looked(len(chunk), frames, tuple(crops), tuple(cuts), small, many)


def _look(
    decoding: Decoder,
    finder: FaceFinder,
    scorer: Callable[[], Scorer],
    batch: int,
    watchers: Sequence[Any],
    clock: Clock,
    tell: Progress,
) -> tuple[Coverage, list[FrameEvidence], Follower]:
    """Score every face of the sampled frames, while faces are searched in the next ones.

    The detector may still be loading at first. `watchers` have a method add(frame, crops, output), called for
    every frame with its results.
    """
    source, instants = decoding.opened().source, decoding.opened().indices
    scored: list[FrameEvidence] = []
    cuts: list[Fraction] = []
    sampled = len(instants)
    good = with_face = too_small = too_many = seen = 0
    interlaced = False
    follower = Follower()
    found = _faces(decoding.frames(), source.width * source.height, finder, follower, clock)
    with ahead([found], 1, lambda _: 0) as parts, ExitStack() as broken_off:
        # Waits for the search, which may be waiting for the decoder.
        broken_off.callback(decoding.close)
        for part in parts:
            seen += part.seen
            tell("decoding", seen, sampled)
            tell("faces", seen, sampled)
            good += len(part.frames)
            interlaced = interlaced or any(frame.interlaced for frame in part.frames)
            with_face += sum(map(bool, part.crops))
            too_small += part.too_small
            too_many += part.too_many
            cuts += part.cuts
            detector = scorer().detector
            with clock("scoring"):
                outputs = _score(detector, part.crops, batch)
            tell("scoring", seen, sampled)
            for own, output in zip(part.crops, outputs, strict=True):
                scored += [
                    FrameEvidence(c.track, c.frame_index, c.time, c.face, c.quality, float(logit))
                    for c, logit in zip(own, output.logit if output else (), strict=True)
                ]
            with clock("drawing"):
                for watcher in watchers:
                    for frame, own, output in zip(part.frames, part.crops, outputs, strict=True):
                        watcher.add(frame, own, output)
        broken_off.pop_all()
    joined = follower.same()
    scored = [replace(frame, track=joined.get(frame.track, frame.track)) for frame in scored]
    counts = DecodeCount(sampled=sampled, decoded=good, damaged=sampled - good)
    coverage = Coverage(
        counts, with_face, too_small, interlaced, tuple(instants), tuple(cuts), too_many, joined
    )
    return coverage, scored, follower


def _look_again(
    decoding: Callable[..., AbstractContextManager[Decoder]],
    indices: Sequence[int],
    seen: TrackEvidence,
    finder: FaceFinder,
    follower: Follower,
    scorer: Scorer,
    batch: int,
) -> SecondLook:
    """Score one face in further frames, of these display-order indices. Nothing of it is drawn."""
    found: list[Crop] = []
    decoded = 0
    with decoding(only=indices) as again:
        source = again.opened().source
        size = max(1, min(CHUNK, CHUNK_PIXELS // (source.width * source.height)))
        for chunk in chunks(again.frames(), size):
            frames = [item for item in chunk if isinstance(item, Frame)]
            decoded += len(frames)
            for frame, here in zip(frames, finder.find(frames), strict=True):
                crops = [align(frame, face, seen.id) for face in here.faces]
                near = min(seen.frames, key=lambda known: abs(known.time - frame.time)).face
                looks = [look_of(crop.pixels) for crop in crops]
                own = follower.find(seen.id, near, here.faces, looks)
                found += [] if own is None else [crops[own]]
    logits = np.empty(0)
    if found:
        logits = _logits(scorer.detector, batch)(np.stack([crop.pixels for crop in found]))
    return SecondLook(
        seen.id,
        len(indices),
        decoded,
        tuple(
            FrameEvidence(c.track, c.frame_index, c.time, c.face, c.quality, float(logit))
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
    header, source = scorer.header, opened.source
    with clock("hashing again"):
        after = sha256(source.path)
    if after != source.sha256:
        raise UnreadableInput(
            f"{source.path}: changed while it was analysed (SHA-256 {source.sha256}, then {after});"
            " analyse a copy that nothing writes to"
        )
    origin = Provenance(
        versions=provenance.versions(),
        detector={
            "name": header.name,
            "sha256": scorer.sha256,
            "base": header.base["name"],
            "base_sha256": header.base["sha256"],
            "tower": header.settings.tower,
            "training": header.training,
            "licence": header.licence,
        },
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
