"""Draw evidence maps of people held out: python -m tools.evidence.sheet HELD OUT.jpg [--pixels]

HELD is a folder that `tools.evidence.held` wrote. Four rows of ten, one crop of a video each: real ones and
manipulated ones drawn at random, then the worst errors, the real ones that score highest and the manipulated
ones that score lowest. The pictures are other people's and stay where they are: maps are drawn over the
outline of a face. With --pixels they are drawn over the crops, for your own eyes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from deepscan.config import Scoring
from deepscan.faces.alignment import CROP_SIDE, FACE, TEMPLATE, seen
from deepscan.files import part_file
from deepscan.model.networks import load_scorer
from deepscan.records import Pixels
from deepscan.report import heatmap
from deepscan.shapes import Float
from tools.evidence.folds import HELD

ACROSS = 10
SIDE = 128
GROUND, LINE = (236, 236, 236), (150, 150, 150)


@dataclass(frozen=True, slots=True)
class Scored:
    """A crop, the part of it that the detector sees, and what it finds there."""

    collection: str
    manipulated: bool
    pixels: Pixels
    logit: float
    evidence: Float[np.ndarray, "side side"]

    @property
    def label(self) -> str:
        return f"{self.collection} {self.logit:+.1f}"


def main(arguments: list[str] | None = None) -> None:
    """Score, draw, and list the worst errors as rows of a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("held", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--pixels", action="store_true")
    asked = parser.parse_args(arguments)
    scorer = load_scorer(Scoring(weights=asked.weights))
    view = scorer.header.settings.view
    scored = []
    for collection in HELD:
        for path in sorted((asked.held / collection).glob("*/*.jpg")):
            with Image.open(path) as image:
                crop = np.asarray(image.convert("RGB"))
            output = scorer.detector.score(crop[None])
            left, top, size = seen(view, len(crop))
            pixels = crop[top : top + size, left : left + size]
            (evidence,) = heatmap.maps(output, heatmap.EVIDENCE)
            manipulated = path.parent.name == "fake"
            scored.append(Scored(collection, manipulated, pixels, float(output.logit[0]), evidence))
    drawn = chosen(scored)
    cells = [(cell(one, view, asked.pixels), one.label) for one in drawn]
    sheet = heatmap.contact_sheet(cells, heatmap.EVIDENCE, ACROSS)
    with part_file(asked.out) as part:
        Image.fromarray(sheet).save(part, "JPEG", quality=85)
    for one in drawn[2 * ACROSS :]:
        kind = "manipulated" if one.manipulated else "real"
        sys.stdout.write(f"| {one.collection} | {kind} | {one.logit:+.2f} |\n")


def chosen(scored: list[Scored]) -> list[Scored]:
    """Ten real ones and ten manipulated ones at random; of each the ten that are wrong by most."""
    rng = np.random.default_rng(0)
    real = [one for one in scored if not one.manipulated]
    manipulated = [one for one in scored if one.manipulated]
    some = [one for group in (real, manipulated) for one in _drawn(rng, group)]
    highest = sorted(real, key=lambda one: -one.logit)[:ACROSS]
    lowest = sorted(manipulated, key=lambda one: one.logit)[:ACROSS]
    return [*some, *highest, *lowest]


def _drawn(rng: np.random.Generator, group: list[Scored]) -> list[Scored]:
    places = rng.permutation(len(group))[:ACROSS]
    return [group[place] for place in np.sort(places)]


def cell(one: Scored, view: float, pixels: bool) -> Pixels:
    """A crop's map over its pixels, or over the outline of a face."""
    ground = np.asarray(
        Image.fromarray(one.pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        if pixels
        else outline(view)
    )
    return heatmap.blend(ground, heatmap.smooth(one.evidence, SIDE), heatmap.EVIDENCE)


def outline(view: float) -> Image.Image:
    """What a view shows of the face that crops are aligned to: its outline, eyes, nose and mouth."""
    left, top, size = seen(view)
    image = Image.new("RGB", (SIDE, SIDE), GROUND)
    draw = ImageDraw.Draw(image)

    def placed(points: Float[np.ndarray, "n 2"]) -> list[tuple[float, float]]:
        x, y = ((points - (left, top)) * SIDE / size).T
        return list(zip(x.tolist(), y.tolist(), strict=True))

    half = FACE * (-1, 1)
    ring = np.concatenate([FACE, half[::-1]])
    ring[:, 0] += CROP_SIDE / 2
    draw.line(placed(np.concatenate([ring, ring[:1]])), LINE, 2)
    *eyes_and_nose, one_corner, other_corner = placed(TEMPLATE)
    for x, y in eyes_and_nose:
        draw.ellipse((x - 3, y - 2, x + 3, y + 2), outline=LINE, width=2)
    draw.line((one_corner, other_corner), LINE, 2)
    return image


if __name__ == "__main__":
    main()
