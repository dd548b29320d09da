"""`make bench-gpu`: what a GPU does for deepscan, against what it could: Markdown, and --out FILE.json.

    model     the rate at which it multiplies matrices, and the detector's share of it: as torch runs it step
              by step ("plain"), with QuickGELU's factors in the products around it ("joined"), and that
              replayed from a recording ("recorded"); crops in its memory, or through Detector.score
    logits    what the same ways say of the same crops, against float32 on the processor
    faces     MTCNN, and whether it finds what it finds on the processor
    decoding  the GPU's own video decoder against FFmpeg's on the processor
    clips     many clips through the whole pipeline, against decoding alone and the networks alone
    training  crops a second that the six methods of Table 5 learn from, without the loading of crops

Each section is a process of its own with a time limit: a kernel that fails leaves its process unable to use
the GPU, and a decoder may crash. Whatever was found by then is logged, and the next section runs. A tower
named by --tower has random weights, made on the device.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools import bench_networks, bench_videos
from tools.bench_log import Log

LEAST = 5.0  # seconds: with less time left no section begins


@dataclass(frozen=True, slots=True)
class Section:
    """What measures, the seconds it may take, and whether it needs the clip."""

    work: Callable[[argparse.Namespace, Log], None]
    seconds: float
    clip: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sections, or the one asked for by this program itself."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, help="a JSON file for what was found")
    parser.add_argument("--seconds", type=float, default=480, help="for all sections (480)")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, in their order")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tower", default="ViT-L-14-quickgelu", help="the large one")
    parser.add_argument("--batches", type=_counts, default=(8, 32, 128, 256), help="8,32,128,256")
    parser.add_argument(
        "--clip", type=Path, help="a video; where it is not there, 10 s of 1080p, made meanwhile"
    )
    parser.add_argument("--clips", type=int, default=64, help="copies of it (64)")
    parser.add_argument("--jobs", type=_counts, default=(16, 8), help="16,8: processes of a batch")
    parser.add_argument("--steps", type=int, default=20, help="of training, each method (20)")
    parser.add_argument("--section", choices=(*SECTIONS, "clip"), help=argparse.SUPPRESS)
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.section == "clip":
        from deepscan.verification.sample import Clip, write

        write(asked.clip, Clip(1920, 1080, seconds=10, fake_from=3, fake_to=6))
    elif asked.section:
        SECTIONS[asked.section].work(asked, Log(asked.part))
    elif not _all(asked, sys.argv[1:] if arguments is None else arguments):
        raise SystemExit("not every section came to its end")


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _all(asked: argparse.Namespace, arguments: Sequence[str]) -> bool:
    """Run the sections one after the other; whether all came to their end."""
    ends = time.monotonic() + asked.seconds
    log, whole = Log(asked.out), True
    with tempfile.TemporaryDirectory(prefix="deepscan-bench-") as name:
        clip = asked.clip or Path(name) / "clip.mp4"
        again = [sys.executable, "-m", "tools.bench_gpu", *arguments, "--clip", str(clip)]
        there = clip.is_file()
        making = None if there else subprocess.Popen([*again, "--section", "clip"])
        try:
            for section in asked.only.split(","):
                one, part = SECTIONS[section], Path(name) / f"{section}.json"
                log.line(f"\n## {section}")
                if one.clip and making is not None:
                    with _patience(log, "the clip"):
                        making.wait(max(0.0, ends - time.monotonic()))
                if (left := ends - time.monotonic()) < LEAST:
                    log.line("left out: no time was left.")
                    whole = False
                    continue
                left = min(left, one.seconds)
                began = time.monotonic()
                own = ["--section", section, "--part", str(part), "--seconds", f"{left:.1f}"]
                process = subprocess.Popen([*again, *own])
                with _patience(log, section):
                    process.wait(left)
                if process.returncode != 0:
                    whole = False
                    log.line(f"\n{section} did not come to its end ({process.returncode}).")
                if process.returncode is None:
                    process.kill()  # what it has started ends with it
                    process.wait()
                seconds = round(time.monotonic() - began, 1)
                log.line(f"\n({section}: {seconds} s)")
                found = json.loads(part.read_text("utf-8")) if part.is_file() else {}
                log.keep(section, found | {"section seconds": seconds})
        finally:
            if making is not None:
                making.kill()
                making.wait()
    return whole


@contextmanager
def _patience(log: Log, what: str) -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired as error:
        log.line(f"\n{what} took more than {error.timeout:.0f} s.")


SECTIONS = {
    "model": Section(bench_networks.model, 60),
    "logits": Section(bench_networks.logits, 30),
    "faces": Section(bench_networks.faces, 60),
    "decoding": Section(bench_videos.decoding, 25, clip=True),
    "clips": Section(bench_videos.clips, 120, clip=True),
    "training": Section(bench_networks.training, 120),
}

if __name__ == "__main__":
    main()
