"""Inputs that once gave wrong figures: prints what is expected of each next to what is found.

python -m tools.faults ../shared/faults          exits with 1 if anything differs

The expected values are facts about the inputs. The inputs of one kind each lie in a folder of their own.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from deepscan.batches.inputs import found, listed
from deepscan.cli.preferences import gather
from deepscan.config import Faces, Sampling
from deepscan.data.cutting import cut_video
from deepscan.errors import DeepscanError
from deepscan.media import open_source
from deepscan.model.networks import load_finder
from deepscan.records import Frame, Pixels, Source


@dataclass(frozen=True, slots=True)
class Case:
    """One input, by its path in the folder; `find` says of it what `expected` says."""

    path: str
    expected: str
    find: Callable[[Path], str]


def seconds(time: Fraction) -> str:
    return f"{float(time):.2f} s"


def all_frames(path: Path) -> tuple[Source, list[Frame]]:
    """The facts about a file and its sound frames."""
    opened = open_source(path)
    items = opened.decode(opened.choose(Sampling("all")))
    return opened.source, [item for item in items if isinstance(item, Frame)]


def frames(path: Path) -> str:
    source, sound = all_frames(path)
    times = [frame.time for frame in sound]
    even = all(b - a == Fraction(1, 25) for a, b in pairwise(times))
    return (
        f"{source.frames} frames, {source.frames - len(sound)} damaged, {seconds(source.duration)},"
        f" {'every 0.04 s' if even else 'at other times'}"
    )


def judged(path: Path) -> str:
    source = open_source(path).source
    size = f"{source.width} x {source.height}"
    return f"stream {source.stream}, {size}; not judged: {len(source.others)} stream"


def takes(path: Path) -> str:
    source, sound = all_frames(path)
    second = [seconds(at - source.start) for at in source.restarts]
    return f"{len(sound)} sound frames, {seconds(source.duration)}; another take at {', '.join(second)}"


def like(name: str) -> Callable[[Path], str]:
    """Whether the first frame has the colours of another file's, whose grading it repeats."""

    def find(path: Path) -> str:
        source, (first, *_) = all_frames(path)
        _, (other, *_) = all_frames(path.with_name(name))
        means = (first.pixels.astype(float) - other.pixels).mean((0, 1))
        near = "as bright" if np.abs(means).max() < 1 else f"{means.round(1)} off, not as bright"
        return f"{source.colour.conversion}: {near} as {name} within a level"

    return find


def whole(path: Path) -> str:
    try:
        source = open_source(path).source
    except DeepscanError as error:
        return "refused: " + (
            "cannot be read completely" if "cannot be read completely" in str(error) else str(error)
        )
    return f"{source.width} x {source.height}, {source.kind}"


def in_list(path: Path) -> str:
    return ", ".join(map(str, listed(path.read_bytes())))


def setting(path: Path) -> str:
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        return f"frames {gather({}).settings.sampling.frames}"
    finally:
        os.chdir(here)


def closed_streams(path: Path) -> str:
    clip = path.with_name("08-windows-text") / "c.mp4"
    environment = os.environ | {"DEEPSCAN": f"{sys.executable} -m deepscan"}
    ran = subprocess.run(
        ["/bin/sh", str(path), str(clip)], env=environment, capture_output=True, text=True
    )
    said = "traceback" if "Traceback" in ran.stderr else "no traceback"
    return f"{ran.stdout.strip() or 'stdout closed'}, {said}"


def masked(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["mask"]]
    finder = load_finder(Faces(), "cpu")
    cuts = [
        cut
        for row in rows
        for cut in cut_video(
            path.with_name(row["path"]), path.with_name(row["mask"]), 8, finder
        ).crops
    ]
    filled = sum(cut.mask is not None and bool(cut.mask.any()) for cut in cuts)
    return f"{len(cuts)} forged crops, {len(cuts) - filled} with an empty mask"


def colour(path: Path) -> str:
    pixels: Pixels = all_frames(path)[1][0].pixels
    return str(tuple(pixels[32, 32].tolist()))


def folder(path: Path) -> str:
    return ", ".join(str(one.inner) for one in found([path], path / "none"))


PAFF = "12 frames, 0 damaged, 0.48 s, every 0.04 s"
REORDERED = "20 frames, 0 damaged, 0.80 s, every 0.04 s"
TWO_TAKES = "40 sound frames, 1.60 s; another take at 0.80 s"
SEVERAL = "stream 1, 640 x 360; not judged: 1 stream"
CASES = (
    Case("01-field-pictures/paff.mp4", PAFF, frames),
    Case("01-field-pictures/paff.ts", PAFF, frames),
    Case("02-stamps-in-decoding-order/h264-without-ctts.mp4", REORDERED, frames),
    Case("02-stamps-in-decoding-order/h264.nut", REORDERED, frames),
    Case("02-stamps-in-decoding-order/mpeg4-as-from-avi.mkv", REORDERED, frames),
    Case("03-several-video-streams/first-track-off.mp4", SEVERAL, judged),
    Case("03-several-video-streams/thumbnail-first.mkv", SEVERAL, judged),
    Case(
        "04-hdr/elon-pq.mp4",
        "PQ to SDR of BT.709: as bright as elon-sdr.mp4 within a level",
        like("elon-sdr.mp4"),
    ),
    Case(
        "04-hdr/hlg.mp4",
        "HLG to SDR of BT.709: as bright as sdr.mp4 within a level",
        like("sdr.mp4"),
    ),
    Case("05-end-to-end/two-takes.mpg", TWO_TAKES, takes),
    Case("05-end-to-end/two-takes.ts", TWO_TAKES, takes),
    Case("06-avif-as-video/grid-1x3-without-ispe.avif", "refused: cannot be read completely", whole),
    Case("06-avif-as-video/without-ispe.avif", "refused: cannot be read completely", whole),
    Case("06-avif-as-video/sound-grid-2x1.avif", "576 x 352, image", whole),
    Case("08-windows-text/list-utf16le.txt", "c.mp4", in_list),
    Case("08-windows-text/toml/deepscan.toml", "frames 2", setting),
    Case("09-closed-streams.sh", "rc=0, no traceback", closed_streams),
    Case("11-mask-picks-face/two.csv", "6 forged crops, 0 with an empty mask", masked),
    Case("12-ten-bits-darker/220-170-140.yuv420p10le.mkv", "(220, 170, 140)", colour),
    Case("13-folders-pass-over", "a.3g2, b.m2t, c.ogg, d.jfif, e.MP4", folder),
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 if all is as expected, 1 if not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    root = parser.parse_args(arguments).folder.resolve()
    wrong = 0
    sys.stdout.write("| input | expected | found |\n|---|---|---|\n")
    for case in CASES:
        said = case.find(root / case.path)
        wrong += said != case.expected
        shown = "as expected" if said == case.expected else said
        sys.stdout.write(f"| {case.path} | {case.expected} | {shown} |\n")
        sys.stdout.flush()
    sys.stdout.write(f"\n{len(CASES) - wrong} of {len(CASES)} as expected\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
