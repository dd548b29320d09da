"""Draws the report's first screen for five made-up results, and each one's PDF: what a designer looks at.

    python -m tools.screens [FOLDER]

Nothing is scored: the portrait of the sample clip stands in every frame, and scores are made up. The made-up
evidence must lie as a red spot between the eyes and over the one on the right.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
from PIL import Image
from playwright.sync_api import sync_playwright

from builders import reports
from deepscan.records import Box, Case, Face
from deepscan.report import json as report_json
from deepscan.report import page, paper
from deepscan.verification import sample

WIDTHS = {1440: 900, 768: 1024, 390: 844}

TESTED = replace(reports.CALIBRATED, unseen=True)

# Of the portrait, 512 x 606: eyes, nose, corners of the mouth.
MARKS = np.array([(236, 196), (304, 193), (272, 236), (243, 272), (302, 269)], float)


def scene(*people: tuple[int, int, int]) -> tuple[np.ndarray, list[Face]]:
    """A wall of 1280 x 720 with portraits: left, top and height of each."""
    image = Image.new("RGB", (1280, 720), (110, 115, 120))
    faces = []
    for left, top, tall in people:
        portrait = sample.portrait()
        scale = tall / portrait.height
        image.paste(portrait.resize((round(portrait.width * scale), tall)), (left, top))
        corners = np.array(sample.FACE) * scale + (left, top, left, top)
        faces.append(Face(Box(*corners), 0.999, MARKS * scale + (left, top)))
    return np.asarray(image), faces


def steady(value: float) -> Callable[[int, int], float]:
    return lambda track, instant: value - track + np.sin(2.1 * instant)


ONE = ((360, 60, 660),)
CROWD = tuple((20 + 205 * i, 90 + 330 * j, 210 + 20 * i) for j in range(2) for i in range(6))

RESULTS: dict[str, dict[str, Any]] = {
    "indicated": {"scene": scene(*ONE), "logit": steady(5.0), "calibration": TESTED},
    "stretch": {
        "scene": scene(*ONE),
        "calibration": replace(TESTED, low=-6.0),
        "logit": lambda track, instant: (4.0 if 10 <= instant < 18 else -4.0) + np.sin(instant),
    },
    "none-indicated": {"scene": scene(*ONE), "logit": steady(-4.0), "calibration": TESTED},
    "crowd": {"scene": scene(*CROWD), "logit": steady(1.5), "calibration": TESTED},
    "no-face": {"scene": scene(), "calibration": TESTED},
}


def main(out: Path) -> None:
    """Write report.html, report.pdf and the pictures of each result into `out`."""
    program = paper.browser()
    if program is None:
        sys.exit("No Chromium here: make chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, how in RESULTS.items():
            report, kept = reports.made(path=f"{name}.mp4", **how)
            request = replace(report.provenance.request, case=Case("2026/114", "A-3", "E. Muster"))
            report = replace(report, provenance=replace(report.provenance, request=request))
            folder = out / name
            folder.mkdir(parents=True, exist_ok=True)
            document = report_json.to_dict(report)
            address = page.write(document, folder, kept).resolve().as_uri()
            for width, height in WIDTHS.items():
                for scheme in ("light", "dark"):
                    view = browser.new_page(
                        viewport={"width": width, "height": height},
                        color_scheme=scheme,
                    )
                    view.goto(address)
                    view.screenshot(path=folder / f"{width}-{scheme}.png")
                    view.close()
            with pypdfium2.PdfDocument(paper.write(document, folder, kept)) as pdf:
                for number, sheet in enumerate(pdf, 1):
                    sheet.render(scale=1.5).to_pil().save(folder / f"sheet-{number}.png")
            print(f"{folder}: {report.verdict.name}, {report.verdict.reason}")  # noqa: T201
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/screens"))
