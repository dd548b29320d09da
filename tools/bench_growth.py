"""`make bench-long` and `make growth`: measure how time and memory grow with length, faces and instants.

Each measurement is a whole process of its own, its decoder's peak added to its own. A cost is linear if the
next face or instant costs as much among many as among few: the last line of a table is the ratio of the two.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import av
import numpy as np
from PIL import Image

from deepscan.records import Pixels
from deepscan.verification import sample as demo
from tools.bench import Measured, process, repeat

LONG = (1, 60)  # minutes
FACES, FRAMES = (1, 8, 64), (32, 128, 512)

# The portrait so tall has a face of 56 pixels; so many stand side by side in 1080p.
TALL, ACROSS, SIZE = 180, 11, (1920, 1080)

STAGES = ("decoding", "faces", "scoring")


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured with so many minutes, faces a frame, and frames."""

    minutes: int
    faces: int
    frames: int
    runs: tuple[Measured, ...]

    @property
    def wall(self) -> float:
        return median(run.wall for run in self.runs)

    @property
    def peak(self) -> float:
        return median(run.peak for run in self.runs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_growth", description=__doc__)
    parser.add_argument(
        "what", choices=("length", "load", "one"), help="one: a run, for the others"
    )
    parser.add_argument(
        "--runs", type=int, default=1, help="counted runs of each, after one of the first"
    )
    parser.add_argument("--clip", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--faces", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, default=FRAMES[0], help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.what == "one":
        _one(asked.clip, asked.faces, asked.frames)
        return
    with tempfile.TemporaryDirectory(prefix="deepscan-growth-") as name:
        folder = Path(name)
        lines = _length(folder, asked.runs) if asked.what == "length" else _load(folder, asked.runs)
        for line in lines:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


def write(path: Path, faces: int, frames: int) -> None:
    """A 1080p clip, 25 frames a second, of `faces` portraits side by side that sway together."""
    with av.open(str(path), "w") as out:
        options = {"crf": "23", "preset": "veryfast", "threads": "1"}
        stream = out.add_stream("libx264", rate=demo.RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for i in range(frames):
            picture = av.VideoFrame.from_ndarray(_crowd(faces, i), format="rgb24")
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


def _crowd(faces: int, frame: int) -> Pixels:
    person = demo.portrait()
    person = person.resize((round(TALL * person.width / person.height), TALL))
    image = Image.new("RGB", SIZE, (110, 115, 120))
    sway = round(8 * np.sin(2 * np.pi * frame / demo.RATE))
    for one in range(faces):
        row, column = divmod(one, ACROSS)
        image.paste(person, (10 + column * SIZE[0] // ACROSS + sway, row * TALL))
    return np.asarray(image)


def _length(folder: Path, runs: int) -> Iterator[str]:
    """32 instants of 1 minute and of 60."""
    second, clips = folder / "10s.mp4", []
    write(second, 1, 10 * demo.RATE)
    for minutes in LONG:
        clips.append(folder / f"{minutes}min.mp4")
        repeat(second, clips[-1], minutes * 6)
    _run(clips[0], 1, FRAMES[0])  # warms the disk's cache
    taken: list[list[Measured]] = [[], []]
    for _ in range(runs):
        for each, clip in zip(taken, clips, strict=True):
            each.append(_run(clip, 1, FRAMES[0]))
    points = [Point(m, 1, FRAMES[0], tuple(t)) for m, t in zip(LONG, taken, strict=True)]
    yield from _table("minutes", [point.minutes for point in points], points)
    short, long = points
    yield ""
    yield f"60 minutes over 1: {long.wall / short.wall:.2f} times the time (bar: 3),"
    yield f"{long.peak / short.peak:.2f} times the peak memory (bar: 1.1)."


def _load(folder: Path, runs: int) -> Iterator[str]:
    """Faces a frame in 32 instants; instants with one face each."""
    clips = {faces: folder / f"{faces}.mp4" for faces in FACES}
    for faces, clip in clips.items():
        part = folder / "part.mp4"
        write(part, faces, FRAMES[-1] // 4)
        repeat(part, clip, 4)
    _run(clips[1], 1, FRAMES[0])

    def measured(faces: int, frames: int) -> Point:
        taken = tuple(_run(clips[faces], faces, frames) for _ in range(runs))
        return Point(0, faces, frames, taken)

    by_faces = [measured(faces, FRAMES[0]) for faces in FACES]
    yield from _table("faces a frame (32 instants)", FACES, by_faces)
    yield from _growth("face and instant", [f * FRAMES[0] for f in FACES], by_faces)
    yield ""
    by_frames = by_faces[:1] + [measured(1, frames) for frames in FRAMES[1:]]
    yield from _table("instants (1 face each)", FRAMES, by_frames)
    yield from _growth("instant", FRAMES, by_frames)


def _table(first: str, counts: Sequence[int], points: Sequence[Point]) -> Iterator[str]:
    yield "| " + " | ".join((first, "seconds", *STAGES, "peak MiB")) + " |"
    yield "|--:" * (len(STAGES) + 3) + "|"
    for count, point in zip(counts, points, strict=True):
        stages = [f"{median(run.seconds[stage] for run in point.runs):.1f}" for stage in STAGES]
        cells = [f"{count}", f"{point.wall:.1f}", *stages, f"{point.peak:.0f}"]
        yield "| " + " | ".join(cells) + " |"


def _growth(of: str, counts: Sequence[int], points: Sequence[Point]) -> Iterator[str]:
    """What the next one costs, between few and between many, and the ratio of the two."""
    few, many = (
        (points[i + 1].wall - points[i].wall) / (counts[i + 1] - counts[i]) for i in (0, 1)
    )
    yield ""
    yield f"The next {of} costs {1000 * few:.0f} ms among few and {1000 * many:.0f} ms among many:"
    yield f"{many / few:.2f} times as much (linear: 1)."


def _run(clip: Path, faces: int, frames: int) -> Measured:
    options = [f"--clip={clip}", f"--faces={faces}", f"--frames={frames}"]
    return process([sys.executable, "-m", "tools.bench_growth", "one", *options])


def _one(clip: Path, faces: int, frames: int) -> None:
    """Look at `frames` instants in this process and print what only it can know."""
    from deepscan.config import Sampling, Settings
    from deepscan.flow import Clock, keep_memory_level
    from deepscan.pipeline import scan

    keep_memory_level()
    clock = Clock()
    report = scan(clip, Settings(sampling=Sampling(frames=frames)), clock=clock)
    found = sum(1 for _ in report.evidence.crops())
    if not 0.98 * faces * frames <= found <= 1.02 * faces * frames:
        raise SystemExit(f"{clip}: {found} faces found in place of {faces * frames}")
    document = {"logit": report.score, "seconds": clock.seconds, "stage_peak": clock.peak}
    sys.stdout.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
