"""`make bench`: measures how long detect takes and where, beside a straightforward script and the floor.

Each measurement is a whole process of its own, timed from outside, imports included; the ways take
turns, so that a slow moment of the machine strikes all. The straight-line way is how people write it:
decode every frame, run facenet-pytorch on each sampled frame at full size, make the model with
open_clip, score one crop at a time in float32. It looks at the same instants, aligns faces alike, and
has the same weights.

The floor is what no program with these networks goes below: decoding alone, and the operations of the
detector and of MTCNN at the rate at which this machine, at that moment, multiplies matrices of the
detector's shapes. They share the same cores, so that they add up. Imports, reading weights and what is
done to pictures between the networks are not in it; what MTCNN's first layer multiplies with zeros is, a
hundredth of it.
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
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
from rich.console import Console
from rich.table import Table

from deepscan.flow import leave

FRAMES = 32
BASE, DETECTOR = "base.safetensors", "detector.safetensors"
WAYS = ("deepscan", "straight", "floor", "start", "import torch")

# Matrices whose multiplying is timed are `ROWS` high, as the tokens of a batch of crops are, and a few times.
ROWS, TIMES = 16 * 197, 12


@dataclass(frozen=True, slots=True)
class Measured:
    """One process: wall seconds, peak resident MiB, the verdict's logit, and both by stage.

    deepscan decodes in a process of its own, whose peak is the stage's and is added to `peak`, as though
    both came at one moment. Of the floor `wall` is the floor itself, `seconds` its parts, `rates` in FLOP/s.
    """

    wall: float
    peak: float
    logit: float | None
    seconds: dict[str, float]
    stage_peak: dict[str, float]
    rates: dict[str, float] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument(
        "clips", nargs="*", type=Path, help="clips to measure; default: 10 s and 60 s made"
    )
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each (default 3)")
    parser.add_argument(
        "--tower",
        help="with random weights, as ViT-L-14-quickgelu, in place of the shipped detector",
    )
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--made", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        if options.made:
            _use(options.made)
        _one(options.one, options.clips[0])
        if options.one != "straight":  # which ends as scripts do
            leave(0)
        return
    console = Console(width=max(110, Console().width))
    with tempfile.TemporaryDirectory(prefix="deepscan-bench-") as folder:
        clips = options.clips or make_clips(Path(folder))
        if options.tower:
            make_detector(options.tower, Path(folder))
        made = ["--made", folder] if options.tower else []
        results = {clip: _measure(clip, options.runs, made) for clip in clips}
        for clip, ways in results.items():
            console.print(_stages(clip, ways["deepscan"]))
            console.print(_floor(clip, ways))
        console.print(_summary(results))


def make_clips(folder: Path) -> list[Path]:
    """10 s of 1080p made from the sample portrait, and the same six times over: 60 s."""
    from deepscan.verification.sample import Clip, write

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


def make_detector(tower: str, folder: Path) -> None:
    """A base of random weights, and a detector that stands on it with LoRA as the shipped one does."""
    import torch
    from safetensors.torch import save_file

    from deepscan.files import sha256
    from deepscan.model import checkpoint, weights
    from deepscan.model.adapters import load_base
    from deepscan.model.detector import Detector
    from deepscan.model.header import read_header
    from deepscan.model.tower import Tower

    torch.manual_seed(0)
    header = read_header(weights.detector_file("default"))
    header = replace(header, settings=replace(header.settings, tower=tower))
    state = {name: value.bfloat16() for name, value in Tower(tower).visual.state_dict().items()}
    save_file(state, folder / BASE)
    detector = Detector(header.settings)
    load_base(detector.tower, {name: value.float() for name, value in state.items()})
    detector.initialise(torch.Generator().manual_seed(0))
    header = replace(header, base={**header.base, "sha256": sha256(folder / BASE)})
    checkpoint.save(folder / DETECTOR, detector, header)


def _use(made: Path) -> None:
    """Let this process take the detector made by `make_detector` for the shipped one."""
    from deepscan.model import weights

    weights.detector_file = lambda name: made / DETECTOR  # type: ignore[assignment]
    weights.base_by_hash = lambda digest: None  # type: ignore[assignment,return-value]
    weights.base_file = lambda *_: made / BASE


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

    from deepscan.faces.alignment import align
    from deepscan.model import checkpoint, weights
    from deepscan.model.detector import without_detail
    from deepscan.model.header import read_header
    from deepscan.records import Box, Face, Frame

    finder = MTCNN(keep_all=True)
    file = weights.detector_file("default")
    base = weights.base_file(weights.base_by_hash(read_header(file).base["sha256"]))
    detector, header = checkpoint.load(file, base, torch.float32)
    clip, _, preprocess = open_clip.create_model_and_transforms(
        header.settings.tower,
        load_weights=False,
        output_dict=False,
        image_interpolation="bilinear",  # as it was trained; open_clip's own, bicubic, gives other scores
    )
    clip.visual.load_state_dict(detector.tower.visual.state_dict())  # the adapter is merged in
    clip.visual.output_tokens, clip.visual.proj = True, None  # [CLS] as it is, and the patches
    clip.eval()

    @torch.no_grad()
    def logit(image: torch.Tensor) -> float:
        token, patches = clip.visual(image[None])
        if header.settings.with_queries:
            token = detector.aggregation(patches)[0]
        return float(detector.head(token))

    share = header.settings.reference
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
            image = preprocess(Image.fromarray(crop.pixels))
            logits.append(logit(image))
            # A copy of what is normalised is the copy, normalised: both changes are linear.
            if share:
                logits[-1] -= share * logit(without_detail(image[None])[0])
        lap("scoring")
    return float(np.mean(logits)), seconds


def floor(path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the floor by part, and the rates in FLOP/s that were measured for it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from deepscan.config import Settings
    from deepscan.media.isolation import decoder
    from deepscan.model.networks import load_finder, load_scorer
    from deepscan.model.size import size
    from deepscan.records import Frame

    settings = Settings()
    finder = load_finder(settings.faces, settings.scoring.device)
    scorer = load_scorer(settings.scoring)
    began = time.perf_counter()
    with decoder(path, settings.sampling, settings.limits) as decoding:
        frames = [frame for frame in decoding.frames() if isinstance(frame, Frame)]
        decode = time.perf_counter() - began
    with FlopCounterMode(display=False) as counted:
        crops = sum(len(found.faces) for found in finder.find(frames))
    width = scorer.detector.tower.width
    rates = {
        scorer.precision: _rate(width, getattr(torch, scorer.precision)),
        "float32": _rate(width, torch.float32),
    }
    seconds = {
        "decoding alone": decode,
        f"{crops} crops through the detector": crops
        * size(scorer.header.settings).flops_complete
        / rates[scorer.precision],
        "MTCNN": counted.get_total_flops() / rates["float32"],
    }
    return seconds, rates


def _rate(width: int, dtype: Any) -> float:
    """FLOP/s of the linear layer that takes most of a tower's time, the best of a few tries."""
    import torch

    layer = torch.nn.Linear(width, 4 * width, dtype=dtype)
    tokens = torch.randn(ROWS, width, dtype=dtype)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(TIMES):
            began = time.perf_counter()
            layer(tokens)
            best = min(best, time.perf_counter() - began)
    return 2 * ROWS * width * 4 * width / best


def _one(way: str, path: Path) -> None:
    """Do the work in this process and print what only it can know."""
    if way == "straight":
        logit, seconds = straight_line(path)
        document: dict[str, Any] = {"logit": logit, "seconds": seconds, "stage_peak": {}}
    elif way == "floor":
        parts, rates = floor(path)
        document = {"logit": None, "seconds": parts, "stage_peak": {}, "rates": rates}
    elif way == "start":
        from deepscan.config import Faces, Scoring
        from deepscan.model.networks import load_models

        load_models(Faces(), Scoring())
        document = {"logit": None, "seconds": {}, "stage_peak": {}}
    elif way == "import torch":
        import torch  # noqa: F401

        document = {"logit": None, "seconds": {}, "stage_peak": {}}
    else:
        from deepscan.flow import Clock, keep_memory_level
        from deepscan.pipeline import scan

        keep_memory_level()
        clock = Clock()
        report = scan(path, clock=clock)
        document = {"logit": report.score, "seconds": clock.seconds, "stage_peak": clock.peak}
    sys.stdout.write(json.dumps(document) + "\n")


def _measure(clip: Path, runs: int, made: Sequence[str]) -> dict[str, list[Measured]]:
    """All ways in turn, `runs` times, after one warm-up each."""
    found: dict[str, list[Measured]] = {way: [] for way in WAYS}
    for number in range(runs + 1):
        for way in WAYS:
            command = [sys.executable, "-m", "tools.bench", *made, "--one", way, str(clip)]
            measured = process(command)
            if way == "floor":
                measured = replace(measured, wall=sum(measured.seconds.values()))
            if number:
                found[way].append(measured)
    return found


def process(command: Sequence[str]) -> Measured:
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
    found = json.loads(output.splitlines()[-1])
    peak = usage.ru_maxrss / 1024 + found["stage_peak"].get("decoding", 0.0)
    return Measured(wall=wall, peak=peak, **found)


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


def _floor(clip: Path, ways: dict[str, list[Measured]]) -> Table:
    runs = ways["floor"]
    table = Table(title=f"{clip.name}: the floor, median of {len(runs)} runs", title_justify="left")
    table.add_column("part")
    table.add_column("seconds", justify="right")
    for part in runs[0].seconds:
        table.add_row(part, f"{median(run.seconds[part] for run in runs):.2f}")
    table.add_row("together", _spread([run.wall for run in runs]))
    table.add_row("deepscan / floor", _ratios(ways["deepscan"], runs))
    for name in runs[0].rates:
        rate = median(run.rates[name] for run in runs)
        table.add_row(f"matrix rate in {name}", f"{rate / 1e9:.0f} GFLOP/s")
    for way, words in (
        ("start", "a process that loads the networks"),
        ("import torch", "one that imports torch"),
    ):
        table.add_row(words, _spread([run.wall for run in ways[way]]))
    table.add_row("the former / the latter", _ratios(ways["start"], ways["import torch"]))
    return table


def _ratios(over: Sequence[Measured], under: Sequence[Measured]) -> str:
    return _spread([a.wall / b.wall for a, b in zip(over, under, strict=True)])


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
        table.add_row(
            clip.name,
            _spread([run.wall for run in ours]),
            _spread([run.wall for run in straight]),
            _ratios(straight, ours),
            f"{median(run.peak for run in ours):.0f}",
            f"{median(run.peak for run in straight):.0f}",
            f"{ours[0].logit:+.2f} / {straight[0].logit:+.2f}",
        )
    return table


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


if __name__ == "__main__":
    main()
