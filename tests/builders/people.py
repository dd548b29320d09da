"""Makes frames with the sample clip's portrait in them, where the test wants it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from PIL import Image

from deepscan.records import Box, Frame
from deepscan.verification import sample as demo


def scene(width: int, height: int, *faces: tuple[int, int, int]) -> Frame:
    """A grey wall with the sample portrait on it: left, top and height of each."""
    image = Image.new("RGB", (width, height), (110, 115, 120))
    for left, top, tall in faces:
        person = demo.portrait()
        image.paste(person.resize((round(tall * person.width / person.height), tall)), (left, top))
    return Frame(0, Fraction(0), np.asarray(image))


def in_portrait(left: int, top: int, tall: int) -> Box:
    """Where the face of a portrait pasted at `left`, `top` and so tall lies, roughly."""
    scale = tall / 606
    a, b, c, d = demo.FACE
    return Box(left + a * scale, top + b * scale, left + c * scale, top + d * scale)
