"""Makes single pieces of evidence: a face in a frame, a source, a coverage; sound unless told otherwise."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from deepscan.records import Box, Coverage, CropQuality, DecodeCount, Face, FrameEvidence, Source


def seen(
    track: int, index: int, logit: float, size: float = 100, confidence: float = 0.999
) -> FrameEvidence:
    """A face of `size` pixels in frame `index`."""
    face = Face(Box(0, 0, size, size), confidence, np.zeros((5, 2)))
    quality = CropQuality(size, 100, 128, 0, 1)
    return FrameEvidence(track, index, Fraction(index, 10), face, quality, logit)


def source(**changes: object) -> Source:
    plain = {
        "path": Path("a.mp4"),
        "kind": "video",
        "sha256": "0" * 64,
        "bytes": 100_000,
        "container": "mp4",
        "codec": "h264",
        "pixel_format": "yuv420p",
        "width": 64,
        "height": 64,
        "rotation": 0,
        "frames": 100,
        "start": Fraction(0),
        "duration": Fraction(10),
        "nominal_rate": Fraction(10),
        "average_rate": Fraction(10),
        "variable_rate": False,
        "exact_times": True,
        "bit_rate": None,
    }
    return Source(**{**plain, **changes})  # type: ignore[arg-type]


def coverage(sampled: int = 32, damaged: int = 0, too_small: int = 0) -> Coverage:
    decoding = DecodeCount(sampled, sampled - damaged, damaged)
    return Coverage(decoding, 0, too_small, False, tuple(range(sampled)))
