"""Measures videos for `make bench-gpu`: the GPU's decoder, and many clips through the whole pipeline."""

from __future__ import annotations

import argparse
import shutil
import struct
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from tools.bench_log import Log, walls

FRAMES = 32  # instants of a clip
LEAST = 10.0  # seconds: with less time left no batch begins
APART = 50  # frames from one whose pixels are compared to the next


def copies(clip: Path, folder: Path, count: int) -> list[Path]:
    """MP4s of one content and different bytes: what a batch has judged already it does not judge again."""
    made = []
    for number in range(count):
        made.append(folder / f"{number:03d}.mp4")
        shutil.copyfile(clip, made[-1])
        with made[-1].open("ab") as file:
            file.write(struct.pack(">I4sQ", 16, b"free", number))
    return made


def steady(ends: Sequence[float], warm: int) -> float:
    """Inputs a second once `warm` of them are through, from the times at which they ended."""
    return (len(ends) - warm) / (ends[-1] - ends[warm - 1])


def clips(asked: argparse.Namespace, log: Log) -> None:
    """Copies of a clip as `deepscan detect --jobs N` takes them, no heatmaps."""
    from deepscan.batches.batch import Batch
    from deepscan.batches.inputs import itself
    from deepscan.batches.pool import cores
    from deepscan.config import Sampling, Scoring, Settings

    ends = time.monotonic() + asked.seconds
    # Without second looks, so that each clip has as many instants.
    sampling = Sampling(frames=FRAMES, second_look=False)
    settings = Settings(sampling=sampling, scoring=Scoring(device=asked.device, offline=True))
    with tempfile.TemporaryDirectory(prefix="deepscan-clips-") as name:
        folder = Path(name)
        made = copies(asked.clip, folder, asked.clips)
        decoded = _decoding_alone(log, made, cores())
        scoring, faces, both = _networks_alone(log, made[0], settings)
        log.keep("alone", {"decoding": decoded, "scoring": scoring, "faces": faces, "both": both})
        slower = min(decoded, scoring)
        log.head("jobs", "clips", "clips/s, start and end included", "once warm", "of the slower")
        for jobs in asked.jobs:
            some = made[: max(4 * jobs, 6)]
            if ends - time.monotonic() < LEAST:
                log.line(f"\njobs {jobs} left out: no time was left.")
                continue
            began, done = time.monotonic(), list[float]()
            with Batch(folder / f"out-{jobs}", settings, jobs=jobs) as batch:
                for outcome in batch.assess([itself(clip) for clip in some]):
                    if outcome.failed:
                        raise SystemExit(f"{outcome.path}: {outcome}")
                    done.append(time.monotonic() - began)
            whole, warm = len(done) / done[-1], steady(done, min(jobs, len(done) - 1))
            log.row(jobs, len(done), whole, warm, warm / slower)
            log.keep(f"jobs {jobs}", {"whole": whole, "warm": warm, "ends": done})


def _decoding_alone(log: Log, clips: Sequence[Path], processors: int) -> float:
    """Clips a second through deepscan's own decoders, the best of some numbers of them at once."""
    from deepscan.config import Limits, Sampling
    from deepscan.media.isolation import decoder

    def decode(clip: Path) -> int:
        with decoder(clip, Sampling(frames=FRAMES), Limits()) as one:
            return sum(1 for _ in one.frames())

    log.head("decoders at once", "clips/s")
    best = 0.0
    for at_once in sorted({max(1, processors // 2), processors}):
        some = clips[: 2 * at_once]
        began = time.perf_counter()
        with ThreadPoolExecutor(at_once) as pool:
            if set(pool.map(decode, some)) != {FRAMES}:
                raise SystemExit("not every instant was decoded")
        speed = len(some) / (time.perf_counter() - began)
        log.row(at_once, speed)
        log.keep(f"decoders {at_once}", speed)
        best = max(best, speed)
    return best


def _networks_alone(log: Log, clip: Path, settings: Any) -> tuple[float, float, float]:
    """Clips a second in this process, frames decoded: scoring, the search for faces, and all between."""
    from deepscan.faces.alignment import align
    from deepscan.flow import chunks
    from deepscan.media.isolation import decoder
    from deepscan.model.networks import load_finder, load_scorer
    from deepscan.records import Frame
    from deepscan.search import CHUNK

    with decoder(clip, settings.sampling, settings.limits) as one:
        frames = [frame for frame in one.frames() if isinstance(frame, Frame)]
    finder = load_finder(settings.faces, settings.scoring.device)
    detector = load_scorer(settings.scoring).detector

    def cut(some: Sequence[Frame]) -> np.ndarray:
        found = [x.faces for x in finder.find(some)]
        pixels = [align(f, x, 0).pixels for f, xs in zip(some, found, strict=True) for x in xs]
        return np.stack(pixels)

    parts = list(chunks(frames, CHUNK))
    crops = [cut(part) for part in parts]
    ways = {
        "scoring": lambda: [detector.score(some) for some in crops],
        "looking for faces": lambda: [finder.find(part) for part in parts],
        "both, and cutting": lambda: [detector.score(cut(part)) for part in parts],
    }
    log.head("networks alone, one process", "clips/s")
    speeds = []
    for name, work in ways.items():
        speeds.append(1 / mean(walls(work, 4, 1.0)))
        log.row(name, speeds[-1])
    return speeds[0], speeds[1], speeds[2]


# --- decoding --------------------------------------------------------------------------------------


def decoding(asked: argparse.Namespace, log: Log) -> None:
    """A clip decoded through, and 32 instants sought, each twelve frames behind a keyframe."""
    import av.error
    from av.codec.hwaccel import hwdevices_available

    from tools.bench import repeat

    log.line(f"\nPyAV {av.__version__} knows of {', '.join(hwdevices_available()) or 'none'}.")
    log.head(
        "decoder", "frames/s", "and to RGB", "32 instants sought, s", "open to first frame, s", "as"
    )
    with tempfile.TemporaryDirectory(prefix="deepscan-long-") as name:
        long = Path(name) / "long.mp4"
        repeat(asked.clip, long, FRAMES)
        reference: list[np.ndarray] = []
        for way, threads in (("one thread", 1), ("all threads", 0), ("GPU", None)):
            try:
                first, form = _first(asked.clip, threads)
                bare, _ = _through(asked.clip, threads, rgb=False)
                whole, seen = _through(asked.clip, threads, rgb=True)
                sought = _sought(long, threads)
            # What PyAV raises, here and there, where a GPU's decoder or its driver is not to be had.
            except (av.error.FFmpegError, RuntimeError, ValueError, NotImplementedError) as error:
                traceback.print_exc()
                log.row(way, f"{type(error).__name__}: {error}"[:90], "", "", "", "")
                log.keep(way, repr(error))
                continue
            log.row(way, bare, whole, sought, first, form)
            reference = reference or seen
            apart = [
                int(np.abs(a.astype(int) - b).max()) for a, b in zip(reference, seen, strict=True)
            ]
            log.keep(
                way,
                {"decoded": bare, "rgb": whole, "sought": sought, "first": first, "as": form}
                | {"apart": apart},
            )
            if way == "GPU":
                log.line(f"\nFurthest from the processor's pixels: {max(apart)} of 255.")


def _opened(path: Path, threads: int | None) -> Any:
    """A container decoded by so many threads (0: all), or by the GPU (None)."""
    import av
    from av.codec.hwaccel import HWAccel

    if threads is None:
        return av.open(str(path), hwaccel=HWAccel("cuda", allow_software_fallback=False))
    container = av.open(str(path))
    context = container.streams.video[0].codec_context
    context.thread_count = threads
    context.thread_type = "AUTO"
    return container


def _first(path: Path, threads: int | None) -> tuple[float, str]:
    began = time.perf_counter()
    with closing(_opened(path, threads)) as container:
        frame = next(container.decode(video=0))
        return time.perf_counter() - began, frame.format.name


def _through(path: Path, threads: int | None, rgb: bool) -> tuple[float, list[np.ndarray]]:
    """Frames a second, and some of their pixels."""
    from deepscan.media.display import display

    began, count, seen = time.perf_counter(), 0, list[np.ndarray]()
    with closing(_opened(path, threads)) as container:
        for count, frame in enumerate(container.decode(video=0), 1):
            if rgb:
                pixels = display(frame, Fraction(1), path)
                if count % APART == 1:
                    seen.append(pixels)
    return count / (time.perf_counter() - began), seen


def _sought(path: Path, threads: int | None) -> float:
    """Seconds for 32 instants, evenly spread, brought to RGB."""
    from deepscan.media.display import display
    from deepscan.verification.sample import RATE

    began = time.perf_counter()
    with closing(_opened(path, threads)) as container:
        stream = container.streams.video[0]
        for keyframe in range(FRAMES):
            instant = (keyframe * 10 * RATE + 12) / RATE
            container.seek(int(instant / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time >= instant - 0.5 / RATE:
                    display(frame, Fraction(1), path)
                    break
    return time.perf_counter() - began
