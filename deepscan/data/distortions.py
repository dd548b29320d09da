"""Distorts videos and crops in fixed strengths, to measure robustness.

Seven kinds in five levels change whole frames, before faces are searched. Source of kinds and strengths: L.
Jiang et al., "DeeperForensics-1.0: a large-scale dataset for real-world face forgery detection", CVPR 2020,
and its published settings. Two kinds change crops: JPEG, and shrinking.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from scipy import ndimage

from deepscan.errors import SettingsError
from deepscan.media.video import DamagedFrame, VideoSource
from deepscan.records import Frame, Pixels
from deepscan.shapes import Float

LEVELS: dict[str, tuple[float, ...]] = {
    "saturation": (0.4, 0.3, 0.2, 0.1, 0.0),  # what is left of the chroma
    "contrast": (0.85, 0.725, 0.6, 0.475, 0.35),  # what grey levels are multiplied by
    "blocks": (16, 32, 48, 64, 80),  # grey 8 x 8 patches for each 256 pixels of the shorter side
    "noise": (
        0.001,
        0.002,
        0.005,
        0.01,
        0.05,
    ),  # variance of white noise in YCbCr, of values in 0..1
    "blur": (7, 9, 13, 17, 21),  # width of the Gaussian's kernel, six deviations
    "pixelation": (2, 3, 4, 5, 6),  # how many times fewer pixels a side
    "h264": (30, 32, 35, 38, 40),  # CRF
}
CROP_LEVELS: dict[str, tuple[int, ...]] = {
    "jpeg": (100, 90, 80, 70, 60, 50, 40, 30, 20, 10),  # quality
    "resize": (224, 112, 64),  # pixels a side, then back
}

# ITU-R BT.601, full range, as JPEG and Pillow have it.
TO_YCBCR = np.array(
    [(0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)]
)
BLOCK, GREY = 8, 128


@dataclass(frozen=True, slots=True)
class Distortion:
    """One kind at one strength, such as "blur:3" (the third level) or "jpeg:30" (a quality)."""

    kind: str
    level: int
    strength: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.level}"

    @property
    def on_crops(self) -> bool:
        """Whether it changes crops instead of the frames they are cut from."""
        return self.kind in CROP_LEVELS

    def __call__(self, pixels: Pixels, seed: int = 0) -> Pixels:
        """The distorted picture; randomness comes from `seed` alone.

        H.264 treats the picture as a key frame; for a whole video use `recompress`.
        """
        return CHANGES[self.kind](pixels, self.strength, np.random.default_rng([seed, self.level]))

    def frame(self, frame: Frame) -> Frame:
        """The distorted frame, with randomness of its own."""
        seed = zlib.crc32(f"{self}/{frame.index}".encode())
        return Frame(frame.index, frame.time, self(frame.pixels, seed))


def parse(text: str) -> Distortion:
    """Read "kind:level".

    Raises:
        SettingsError: no such kind, or none of its levels.
    """
    kind, _, level = text.partition(":")
    if kind in CROP_LEVELS and level in map(str, CROP_LEVELS[kind]):
        return Distortion(kind, int(level), int(level))
    if kind in LEVELS and level in map(str, range(1, len(LEVELS[kind]) + 1)):
        return Distortion(kind, int(level), LEVELS[kind][int(level) - 1])
    offered = [f"{kind}:1 to {len(levels)}" for kind, levels in LEVELS.items()]
    offered += [f"{kind}:{' '.join(map(str, levels))}" for kind, levels in CROP_LEVELS.items()]
    raise SettingsError(f"distortion {text!r} is not one of {', '.join(offered)}")


def every(kind: str) -> list[Distortion]:
    """All levels of a kind, weakest first.

    Raises:
        SettingsError: no such kind.
    """
    levels = CROP_LEVELS.get(kind) or range(1, len(LEVELS.get(kind, ())) + 1)
    if not levels:
        raise SettingsError(
            f"distortion {kind!r} is not one of {', '.join([*LEVELS, *CROP_LEVELS])}, all"
        )
    return [parse(f"{kind}:{level}") for level in levels]


def recompress(source: Path, target: Path, crf: float) -> None:
    """Write a video's pictures as H.264 with this CRF, each at its own time, without sound.

    Raises:
        InputError: it cannot be read.
    """
    video = VideoSource(source)
    rate = video.source.average_rate or Fraction(25)
    base = Fraction(1, 90_000)
    with av.open(str(target), "w", format="mp4") as out:
        options = {"crf": f"{crf:g}", "preset": "medium"}
        stream = out.add_stream("libx264", rate=rate, options=options)
        # 4:2:0 halves both sides: an odd one loses its last line.
        stream.width, stream.height = video.source.width // 2 * 2, video.source.height // 2 * 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = stream.time_base = base
        first: Fraction | None = None
        for item in video.decode(range(video.source.frames)):
            if isinstance(item, DamagedFrame):
                continue
            first = item.time if first is None else first
            even = np.ascontiguousarray(item.pixels[: stream.height, : stream.width])
            picture = av.VideoFrame.from_ndarray(even, "rgb24")
            picture.pts, picture.time_base = int((item.time - first) / base), base
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


def h264(pixels: Pixels, crf: float) -> Pixels:
    """A picture after H.264 at a constant rate factor, 0 (best) to 51; odd sides lose their last pixel line.

    It uses 4:2:0, as videos do, and one thread, so that the result is always the same.
    """
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(25), Fraction(1, 25)
    encoder.options = {"crf": f"{crf:g}", "preset": "veryfast", "threads": "1"}
    frame = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(pixels[:height, :width]), format="rgb24"
    ).reformat(format="yuv420p", threads=1)
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    # Straight to the decoder: a container and threaded conversion would take as long as the coding.
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    (shown,) = (shown for packet in (*packets, None) for shown in decoder.decode(packet))
    return shown.reformat(format="rgb24", threads=1).to_ndarray()


# --- the changes -----------------------------------------------------------------------------------

Random = np.random.Generator


def _saturation(pixels: Pixels, left: float, _: Random) -> Pixels:
    colours = pixels @ TO_YCBCR.T
    colours[..., 1:] *= left
    return _rgb(colours)


def _contrast(pixels: Pixels, factor: float, _: Random) -> Pixels:
    return (pixels * factor).round().astype(np.uint8)


def _blocks(pixels: Pixels, count: float, rng: Random) -> Pixels:
    height, width = pixels.shape[:2]
    out = pixels.copy()
    for _ in range(round(count * min(height, width) / 256)):
        y = int(rng.integers(max(1, height - BLOCK + 1)))
        x = int(rng.integers(max(1, width - BLOCK + 1)))
        out[y : y + BLOCK, x : x + BLOCK] = GREY
    return out


def _noise(pixels: Pixels, variance: float, rng: Random) -> Pixels:
    return _rgb(pixels @ TO_YCBCR.T + 255 * variance**0.5 * rng.standard_normal(pixels.shape))


def _blur(pixels: Pixels, kernel: float, _: Random) -> Pixels:
    radius = int(kernel) // 2
    blurred = ndimage.gaussian_filter(
        pixels.astype(np.float32), kernel / 6, radius=radius, axes=(0, 1)
    )
    return blurred.round().astype(np.uint8)


def _pixelation(pixels: Pixels, factor: float, _: Random) -> Pixels:
    image = Image.fromarray(pixels)
    small = max(1, round(image.width / factor)), max(1, round(image.height / factor))
    shrunk = image.resize(small, Image.Resampling.BILINEAR)
    return np.asarray(shrunk.resize(image.size, Image.Resampling.NEAREST))


def _jpeg(pixels: Pixels, quality: float, _: Random) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(quality))
    return np.asarray(Image.open(buffer))


def _resize(pixels: Pixels, side: float, _: Random) -> Pixels:
    image = Image.fromarray(pixels)
    small = image.resize((int(side), int(side)), Image.Resampling.BILINEAR)
    return np.asarray(small.resize(image.size, Image.Resampling.BILINEAR))


def _rgb(colours: Float[np.ndarray, "h w 3"]) -> Pixels:
    back = colours @ np.linalg.inv(TO_YCBCR).T
    return np.clip(back.round(), 0, 255).astype(np.uint8)


def _h264(pixels: Pixels, crf: float, _: Random) -> Pixels:
    return h264(pixels, crf)


CHANGES: dict[str, Callable[[Pixels, float, Random], Pixels]] = {
    "saturation": _saturation,
    "contrast": _contrast,
    "blocks": _blocks,
    "noise": _noise,
    "blur": _blur,
    "pixelation": _pixelation,
    "h264": _h264,
    "jpeg": _jpeg,
    "resize": _resize,
}
