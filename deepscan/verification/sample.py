"""Makes the sample clip: a public-domain portrait set in motion and manipulated for part of the time.

`deepscan demo` writes and scans it. The portrait (Rear Admiral Grace Hopper, a work of the United
States Navy) ships with matplotlib. The manipulation is a self-blend: the face is recoloured,
softened and slightly turned, and blended back over itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from deepscan.files import part_file
from deepscan.records import Pixels

RATE = 25  # frames per second

# Where the face lies in the portrait (512 x 606): left, top, right, bottom.
FACE = (192, 132, 348, 322)


@dataclass(frozen=True, slots=True)
class Clip:
    """The sample's properties; it is manipulated from `fake_from` to before `fake_to`, in seconds."""

    width: int = 640
    height: int = 480
    seconds: float = 8.0
    fake_from: float = 2.0
    fake_to: float = 4.0


def write(path: Path, clip: Clip | None = None) -> None:
    """Encode the sample clip as H.264 in MP4."""
    clip = clip or Clip()
    with part_file(path) as part, av.open(str(part), "w", format="mp4") as container:
        # One thread, because x264's output depends on their number and the sample must always be the same
        # clip.
        options = {"crf": "18", "preset": "fast", "threads": "1"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        for pixels in frames(clip):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def frames(clip: Clip) -> Iterator[Pixels]:
    """The clip's frames: the portrait drifts, grows and nods before a still, grainy wall."""
    real = portrait()
    fake = self_blend(real)
    rng = np.random.default_rng(0)
    wall = Image.fromarray(
        rng.normal((96, 104, 112), 6, (clip.height, clip.width, 3)).clip(0, 255).astype(np.uint8)
    )
    for i in range(round(clip.seconds * RATE)):
        time = i / RATE
        person = fake if clip.fake_from <= time < clip.fake_to else real
        swing = np.sin(2 * np.pi * time / 5)
        tall = clip.height * (0.92 + 0.06 * swing)
        size = round(tall * real.width / real.height), round(tall)
        figure = person.resize(size, Image.Resampling.BICUBIC)
        figure = figure.rotate(3 * swing, Image.Resampling.BICUBIC, expand=False)
        left = (clip.width - size[0]) * (0.5 + 0.35 * np.sin(2 * np.pi * time / 7))
        frame = wall.copy()
        frame.paste(figure, (round(left), clip.height - size[1]))
        yield np.asarray(frame)


def portrait() -> Image.Image:
    """Grace Hopper, 512 x 606, RGB."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        return image.convert("RGB")


def self_blend(image: Image.Image) -> Image.Image:
    """A pseudo-fake from one picture: its own face, changed and blended back over itself."""
    changed = ImageEnhance.Color(image).enhance(0.55)
    changed = ImageEnhance.Brightness(changed).enhance(1.12).filter(ImageFilter.GaussianBlur(1.5))
    centre = ((FACE[0] + FACE[2]) / 2, (FACE[1] + FACE[3]) / 2)
    changed = changed.rotate(3, Image.Resampling.BICUBIC, center=centre, translate=(3, 2))
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).ellipse(FACE, fill=255)
    return Image.composite(changed, image, mask.filter(ImageFilter.GaussianBlur(6)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m deepscan.verification.sample OUT.mp4")
    write(Path(sys.argv[1]))
