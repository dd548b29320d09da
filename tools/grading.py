"""Grades clips as SDR, HLG and PQ without loss, and compares pixels and logits that deepscan makes of them.

python -m tools.grading CLIP ... [--frames 8] [--seconds 4] [--weights default]

The light of the SDR pixels (BT.1886) gets BT.2020's primaries, and SDR's white becomes HDR's reference white,
203 cd/m2 (ITU-R BT.2408). PQ codes it by SMPTE ST 2084, HLG by ITU-R BT.2100 for a display of 1000 cd/m2. All
are stored as RGB by FFV1, HDR in 16 bits. So nothing is lost, and what differs is what the way back changes.
The last row, for scale, is the SDR with noise of at most one level, as rounding and encoders add it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from deepscan import Sampling, Scoring, Settings
from deepscan.media import open_source
from deepscan.pipeline import scan
from deepscan.records import Frame, Pixels

MOST = 0.3  # logits
WHITE, HLG_PEAK = 203.0, 1000.0  # cd/m2
# Transfer and primaries by ITU-T H.273.
TAGS = {"SDR": (1, 1), "HLG": (18, 9), "PQ": (16, 9), "SDR ± 1 level": (1, 1)}
# From BT.709's primaries to BT.2020's, and the luminance of these (ITU-R BT.2087, BT.2020).
TO_2020 = np.array([(0.6274, 0.3293, 0.0433), (0.0691, 0.9195, 0.0114), (0.0164, 0.0880, 0.8956)])
LUMINANCE = np.array([0.2627, 0.6780, 0.0593])
NOISE = np.random.default_rng(0)


@dataclass(frozen=True, slots=True)
class Look:
    """What deepscan makes of one grading: its pixels, and its face's mean logit, if there is a face."""

    pixels: np.ndarray  # (n, height, width, 3)
    logit: float | None


def code(pixels: Pixels, grading: str) -> np.ndarray:
    """Code values (height, width, 3) from 0 to 1 of SDR pixels in this grading."""
    if grading == "SDR":
        return pixels / 255
    if grading not in ("HLG", "PQ"):
        return np.clip(pixels + NOISE.integers(-1, 2, pixels.shape), 0, 255) / 255
    light = (pixels / 255) ** 2.4 @ TO_2020.T * WHITE  # cd/m2
    if grading == "PQ":
        power = (light / 10000) ** (2610 / 16384)
        return ((3424 + 4096 * 18.8515625 * power) / (4096 * (1 + 18.6875 * power))) ** 78.84375
    luminance = np.maximum(light @ LUMINANCE / HLG_PEAK, 1e-9)[..., None]
    scene = light / HLG_PEAK * luminance ** (1 / 1.2 - 1)
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def write(path: Path, frames: list[Pixels], grading: str) -> Path:
    """Write frames of SDR as a clip in this grading."""
    transfer, primaries = TAGS[grading]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=Fraction(5))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0" if primaries == 1 else "gbrp16le"
        context = stream.codec_context
        context.color_trc, context.color_primaries = transfer, primaries
        for pixels in frames:
            kind = np.uint8 if primaries == 1 else np.uint16
            whole = np.rint(code(pixels, grading) * np.iinfo(kind).max).astype(kind)
            form = "rgb24" if primaries == 1 else stream.pix_fmt
            frame = av.VideoFrame.from_ndarray(whole, format=form).reformat(format=stream.pix_fmt)
            frame.color_trc, frame.color_primaries = transfer, primaries
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def frames_of(path: Path, sampling: Sampling, seconds: float | None = None) -> list[Pixels]:
    """The sampled frames of a clip's first seconds."""
    source = open_source(path)
    items = source.decode(source.choose(sampling))
    return [
        item.pixels
        for item in items
        if isinstance(item, Frame) and (seconds is None or item.time < seconds)
    ]


def looked(path: Path, weights: str) -> Look:
    """Decode a grading, and score it."""
    settings = Settings(sampling=Sampling("all"), scoring=Scoring(offline=True, weights=weights))
    scores = scan(path, settings).evidence.scores
    return Look(np.stack(frames_of(path, Sampling("all"))), scores.video if scores else None)


def main(arguments: list[str] | None = None) -> int:
    """Print a table, one row for each clip and grading; 1 if a grading moves a logit by more than `MOST`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--weights", default="default")
    given = parser.parse_args(arguments)
    every = Sampling("every", seconds=Fraction(given.seconds) / given.frames)
    far = False
    sys.stdout.write(
        "| clip | grading | pixels more than 2 levels off | mean difference | logit | from SDR |\n"
        "|---|---|---|---|---|---|\n"
    )
    for clip in given.clips:
        frames = frames_of(clip, every, given.seconds)
        with tempfile.TemporaryDirectory() as name:
            paths = {one: write(Path(name) / f"{one}.mkv", frames, one) for one in TAGS}
            looks = {one: looked(path, given.weights) for one, path in paths.items()}
        plain = looks["SDR"]
        for grading, look in looks.items():
            off = look.pixels.astype(int) - plain.pixels
            if look.logit is None or plain.logit is None:
                far, words = True, "no face | "
            else:
                moved = look.logit - plain.logit
                far |= grading in ("HLG", "PQ") and abs(moved) > MOST
                words = f"{look.logit:+.2f} | {moved:+.2f}"
            row = f"{(abs(off) > 2).mean():.2%} | {off.mean():+.2f} | {words}"
            sys.stdout.write(f"| {clip.name} | {grading} | {row} |\n")
            sys.stdout.flush()
    return int(far)


if __name__ == "__main__":
    sys.exit(main())
