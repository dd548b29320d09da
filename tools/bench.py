"""`make bench`: measures how long detect takes and where, beside a straightforward script and the floor.

Each measurement is a whole process of its own, timed from outside, imports included; the ways take
turns, so that a slow moment of the machine strikes all. The straight-line way is how people write it:
decode every frame, run facenet-pytorch on each sampled frame at full size, score one crop at a time in
float32. It looks at the same instants, aligns faces alike, and has the same detector. The peer is what
users would pick instead: the same, with a box for a crop and ViT-L/14 for a detector. Processor time is
less unsteady than wall time where a machine is shared.

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
from pathlib import Path
from statistics import median
from typing import Any

import av
from rich.console import Console
from rich.table import Table

from tools.bench_ways import BASE, DETECTOR, FRAMES, WAYS

# What Linux says of the energy that the processor took, in microjoules.
ENERGY = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


@dataclass(frozen=True, slots=True)
class Measured:
    """One process: seconds by the clock and of processors, peak resident MiB, the verdict's logit, stages.

    deepscan decodes in a process of its own, whose peak is the stage's and is added to `peak`, as though
    both came at one moment. Of the floor `wall` is the floor itself, `seconds` its parts, `rates` in FLOP/s.
    `joules` are the whole machine's; None where it does not tell.
    """

    wall: float
    cpu: float
    peak: float
    logit: float | None
    seconds: dict[str, float]
    stage_peak: dict[str, float]
    rates: dict[str, float] = field(default_factory=dict)
    joules: float | None = None


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
    options = parser.parse_args(arguments)
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
    header = replace(
        header, settings=replace(header.settings, tower=tower, depth=None, layers=None)
    )
    state = {name: value.bfloat16() for name, value in Tower(tower).visual.state_dict().items()}
    save_file(state, folder / BASE)
    detector = Detector(header.settings)
    load_base(detector.tower, {name: value.float() for name, value in state.items()})
    detector.initialise(torch.Generator().manual_seed(0))
    header = replace(header, base={**header.base, "sha256": sha256(folder / BASE)})
    checkpoint.save(folder / DETECTOR, detector, header)


def _measure(clip: Path, runs: int, made: Sequence[str]) -> dict[str, list[Measured]]:
    """All ways in turn, `runs` times, after one warm-up each."""
    found: dict[str, list[Measured]] = {way: [] for way in WAYS}
    for number in range(runs + 1):
        for way in WAYS:
            command = [sys.executable, "-m", "tools.bench_ways", way, str(clip), *made]
            measured = process(command)
            if way == "floor":
                measured = replace(measured, wall=sum(measured.seconds.values()))
            if number:
                found[way].append(measured)
    return found


def process(command: Sequence[str]) -> Measured:
    """Run a process to its end and measure it from outside."""
    before, began = _energy(), time.perf_counter()
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
    after, cpu = _energy(), usage.ru_utime + usage.ru_stime
    # The counter starts anew now and then.
    known = before is not None and after is not None and after >= before
    joules = (after - before) / 1e6 if known else None  # type: ignore[operator]
    return Measured(wall=wall, cpu=cpu, peak=peak, joules=joules, **found)


def _energy() -> int | None:
    """Microjoules so far; None where the machine does not tell."""
    try:
        return int(ENERGY.read_text("ascii"))
    except (OSError, ValueError):
        return None


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
        "way",
        "seconds",
        "instants/s",
        "deepscan is so many times faster",
        "processor s",
        "times less",
        "J",
        "MiB",
        "logit",
    ):
        table.add_column(column, justify="left" if column in ("clip", "way") else "right")
    for clip, ways in results.items():
        ours = ways["deepscan"]
        for way in ("deepscan", "straight", "peer"):
            runs = ways[way]
            wall, logit = median(run.wall for run in runs), runs[0].logit
            joules = [run.joules for run in runs if run.joules is not None]
            table.add_row(
                clip.name,
                way,
                _spread([run.wall for run in runs]),
                f"{FRAMES / wall:.2f}",
                _ratios(runs, ours),
                _spread([run.cpu for run in runs]),
                _spread([a.cpu / b.cpu for a, b in zip(runs, ours, strict=True)]),
                f"{median(joules):.0f}" if joules else "not told",
                f"{median(run.peak for run in runs):.0f}",
                "" if logit is None else f"{logit:+.2f}",
            )
    return table


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


if __name__ == "__main__":
    main()
