"""`make bench`: how long detect takes, where, and against the straight-line way of doing the same.

Each measurement is a whole process of its own, timed from outside, imports included; the two ways
take turns, so that a slow moment of the machine strikes both. The straight-line way is how people
write it: decode every frame, run facenet-pytorch on each sampled frame at full size, make the model
with open_clip, score one crop at a time in float32. It looks at the same instants, aligns faces alike,
and has the same weights.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
from rich.console import Console
from rich.table import Table

FRAMES = 32
WAYS = ("deepscan", "straight")


@dataclass(frozen=True, slots=True)
class Measured:
    """One process: wall seconds, peak resident MiB, the verdict's logit, and both by stage.

    deepscan decodes in a process of its own, whose peak is the stage's and is added to `peak`, as though
    both came at one moment.
    """

    wall: float
    peak: float
    logit: float | None
    seconds: dict[str, float]
    stage_peak: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m deepscan.bench", description=__doc__)
    parser.add_argument(
        "clips", nargs="*", type=Path, help="clips to measure; default: 10 s and 60 s made"
    )
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each (default 3)")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        _one(options.one, options.clips[0])
        return
    console = Console(width=max(110, Console().width))
    with tempfile.TemporaryDirectory(prefix="deepscan-bench-") as folder:
        clips = options.clips or make_clips(Path(folder))
        results = {clip: _measure(clip, options.runs) for clip in clips}
        for clip, ways in results.items():
            console.print(_stages(clip, ways["deepscan"]))
        console.print(_summary(results))


def make_clips(folder: Path) -> list[Path]:
    """10 s of 1080p made from the sample portrait, and the same six times over: 60 s."""
    from deepscan.demo import Clip, write

    short, long = folder / "10s-1080p.mp4", folder / "60s-1080p.mp4"
    write(short, Clip(1920, 1080, seconds=10, fake_from=3, fake_to=6))
    repeat(short, long, 6)
    return [short, long]


def repeat(source: Path, target: Path, times: int) -> None:
    """Write a video several times after itself without decoding it."""
    with av.open(str(target), "w") as out:
        stream: Any = None
        shift = 0
        for _ in range(times):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                for packet in container.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    out.mux(packet)
                assert video.duration is not None
                shift += video.duration


def straight_line(path: Path) -> tuple[float, dict[str, float]]:
    """The same work the way people write it; returns the mean logit and seconds by stage."""
    began = time.perf_counter()
    seconds: dict[str, float] = {}

    def lap(stage: str) -> None:
        nonlocal began
        now = time.perf_counter()
        seconds[stage] = seconds.get(stage, 0.0) + now - began
        began = now

    import numpy as np
    import open_clip
    import torch
    from facenet_pytorch import MTCNN
    from PIL import Image

    from deepscan.align import align
    from deepscan.model import checkpoint, weights
    from deepscan.model.header import read_header
    from deepscan.records import Box, Face, Frame

    finder = MTCNN(keep_all=True)
    file = weights.detector_file("default")
    base = weights.base_file(weights.base_by_hash(read_header(file).base["sha256"]))
    detector, header = checkpoint.load(file, base, torch.float32)
    clip, _, preprocess = open_clip.create_model_and_transforms(
        header.settings.tower, load_weights=False, output_dict=False
    )
    clip.visual.load_state_dict(detector.tower.visual.state_dict())  # the adapter is merged in
    clip.visual.output_tokens = True
    clip.eval()
    lap("loading")
    with av.open(str(path)) as container:
        total = container.streams.video[0].frames
        wanted = set(np.linspace(0, total - 1, FRAMES, dtype=int).tolist())
        sampled = []
        for i, decoded in enumerate(container.decode(video=0)):
            pixels = decoded.to_ndarray(format="rgb24")
            if i in wanted:
                sampled.append(Frame(i, Fraction(i), pixels))
    lap("decoding")
    logits = []
    for frame in sampled:
        boxes, confidences, points = finder.detect(frame.pixels, landmarks=True)
        if boxes is None:
            lap("faces")
            continue
        crops = [
            align(frame, Face(Box(*map(float, box)), float(sure), np.asarray(five, float)), 1)
            for box, sure, five in zip(boxes, confidences, points, strict=True)
            if sure >= 0.9
        ]
        lap("faces")
        for crop in crops:
            with torch.no_grad():
                _, patches = clip.visual(preprocess(Image.fromarray(crop.pixels))[None])
                logits.append(float(detector.head(detector.aggregation(patches)[0])))
        lap("scoring")
    return float(np.mean(logits)), seconds


def _one(way: str, path: Path) -> None:
    """Do the work in this process and print what only it can know."""
    if way == "straight":
        logit, seconds = straight_line(path)
        document: dict[str, Any] = {"logit": logit, "seconds": seconds, "stage_peak": {}}
    else:
        from deepscan.flow import Clock, keep_memory_level
        from deepscan.pipeline import scan

        keep_memory_level()
        clock = Clock()
        report = scan(path, clock=clock)
        document = {"logit": report.score, "seconds": clock.seconds, "stage_peak": clock.peak}
    sys.stdout.write(json.dumps(document) + "\n")


def _measure(clip: Path, runs: int) -> dict[str, list[Measured]]:
    """Both ways in turn, `runs` times, after one warm-up each."""
    found: dict[str, list[Measured]] = {way: [] for way in WAYS}
    for number in range(runs + 1):
        for way in WAYS:
            measured = _process([sys.executable, "-m", "deepscan.bench", "--one", way, str(clip)])
            if number:
                found[way].append(measured)
    return found


def _process(command: Sequence[str]) -> Measured:
    """Run a process to its end and measure it from outside."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}")
    told = json.loads(output.splitlines()[-1])
    peak = usage.ru_maxrss / 1024 + told["stage_peak"].get("decoding", 0.0)
    return Measured(wall=wall, peak=peak, **told)


def _stages(clip: Path, runs: Sequence[Measured]) -> Table:
    table = Table(
        title=f"{clip.name}: deepscan by stage, median of {len(runs)} runs", title_justify="left"
    )
    table.add_column("stage")
    table.add_column("seconds (stages overlap)", justify="right")
    table.add_column("peak MiB by its end", justify="right")
    for stage in runs[0].seconds:
        table.add_row(
            stage,
            f"{median(run.seconds[stage] for run in runs):.2f}",
            f"{median(run.stage_peak[stage] for run in runs):.0f}",
        )
    return table


def _summary(results: dict[Path, dict[str, list[Measured]]]) -> Table:
    table = Table(title="whole process, median [lowest, highest]", title_justify="left")
    for column in (
        "clip",
        "deepscan s",
        "straight line s",
        "times faster",
        "deepscan MiB",
        "straight MiB",
        "logits",
    ):
        table.add_column(column, justify="left" if column == "clip" else "right")
    for clip, ways in results.items():
        ours, straight = ways["deepscan"], ways["straight"]
        ratios = [b.wall / a.wall for a, b in zip(ours, straight, strict=True)]
        table.add_row(
            clip.name,
            _spread([run.wall for run in ours]),
            _spread([run.wall for run in straight]),
            _spread(ratios),
            f"{median(run.peak for run in ours):.0f}",
            f"{median(run.peak for run in straight):.0f}",
            f"{ours[0].logit:+.2f} / {straight[0].logit:+.2f}",
        )
    return table


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


if __name__ == "__main__":
    main()
