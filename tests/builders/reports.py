"""Makes reports of made-up videos, with pictures, for the tests of the pages; nothing is scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from deepscan.config import Settings
from deepscan.faces.alignment import align
from deepscan.files import sha256
from deepscan.judgement.explain import Sums
from deepscan.judgement.verdict import judge, thresholds_of
from deepscan.model.header import read_header
from deepscan.model.weights import detector_file
from deepscan.records import (
    Box,
    Calibration,
    Case,
    Confinement,
    Coverage,
    CropQuality,
    DecodeCount,
    Face,
    Frame,
    FrameEvidence,
    Output,
    Provenance,
    Report,
    Request,
    Source,
)
from deepscan.report import page, provenance
from deepscan.report.json import as_stated, text, to_dict
from deepscan.report.pictures import FramePicture, Pictures
from deepscan.report.reading import from_dict

WIDTH, HEIGHT = 320, 180

CALIBRATED = Calibration(
    slope=0.5, intercept=1.0, prior=0.5, low=-3.0, high=2.0, fpr=0.05, fnr=0.05, widening=1.5,
    data="made-up people", real=39, manipulated=40, ece=0.0625, cllr=0.5,
)  # fmt: skip

# Markup, a script, quotes, a direction that runs away with what follows, a bell, and a very long word.
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;{{ 7*7 }}</script>"
    "\u202egpj.exe\u2066\x07 \u05e9\u05dc\u05d5\u05dd " + "w" * 500
)


def logit_of(track: int, instant: int) -> float:
    """Face 1 is raised from instant 10 to 13, everybody else is not."""
    raised = track == 1 and 10 <= instant < 14
    return (3.0 if raised else -4.0 - track) + 0.4 * np.sin(instant)


def face(track: int) -> Face:
    """People stand side by side."""
    left = 20.0 + 60 * (track - 1)
    eyes, mouth = 70.0, 102.0
    marks = [
        (left + 12, eyes),
        (left + 32, eyes),
        (left + 22, 86),
        (left + 14, mouth),
        (left + 30, mouth),
    ]
    return Face(Box(left, 50, left + 44, 115), 0.999, np.array(marks))


def made(
    people: int = 2,
    instants: int = 32,
    *,
    path: str = "clips/interview.mp4",
    heat: bool = True,
    text: str = "",
    seconds: Fraction = Fraction(8),
    logit: Callable[[int, int], float] = logit_of,
    calibration: Calibration | None = None,
    scene: tuple[np.ndarray, Sequence[Face]] | None = None,
) -> tuple[Report, list[FramePicture]]:
    """A report, and the pictures that would have been kept for it.

    `text` stands wherever an input or a user can put some: a tag, its name, the case, the notes. `scene`: the
    pixels of every frame, with its people, instead of a grey ramp."""
    frames = []
    pictures, sums = Pictures(instants, heat), Sums()
    ramp = np.linspace(60, 190, WIDTH).astype(np.uint8)[None, :, None]
    plain = np.broadcast_to(ramp, (HEIGHT, WIDTH, 3)).copy()
    found: Sequence[Face] = [face(t) for t in range(1, people + 1)]
    if scene is not None:
        plain, found = scene
        people = len(found)
    attention = np.full((4, 196), 0.5 / 192)
    attention[:, 90:94] = 0.125
    still = Frame(0, Fraction(0), plain)
    cut = [align(still, one, track=t) for t, one in enumerate(found, 1)]
    for i in range(instants):
        time = seconds * i / instants
        frame = Frame(i, time, plain)
        crops = [replace(crop, frame_index=i, time=time) for crop in cut]
        logits = np.array([logit(t, i) for t in range(1, people + 1)], np.float32)
        maps = np.repeat(attention[None], people, 0)
        # Four patches speak for manipulation, a hundredth of a logit each way elsewhere.
        evidence = np.tile([0.01, -0.01], (people, 98))
        evidence[:, 90:94] = 0.2
        constant = logits - evidence.sum(1)
        none = np.zeros((people, 0))
        output = Output(logits, maps, maps[:, 0], evidence, constant, none) if people else None
        pictures.add(frame, crops, output)
        sums.add(frame, crops, output)
        frames += [
            FrameEvidence(c.track, i, time, c.face, CropQuality(80, 200, 120, 0.1, 1), float(v))
            for c, v in zip(crops, logits, strict=True)
        ]
    source = Source(
        path=Path(path),
        kind="video",
        sha256="ab" * 32,
        bytes=1_234_567,
        container="mov,mp4",
        codec="h264",
        pixel_format="yuv420p",
        width=plain.shape[1],
        height=plain.shape[0],
        rotation=0,
        frames=instants,
        start=Fraction(0),
        duration=seconds,
        nominal_rate=Fraction(25),
        average_rate=Fraction(25),
        variable_rate=False,
        exact_times=True,
        bit_rate=900_000,
        tags={"encoder": "made up", **({text: text} if text else {})},
    )
    counts = DecodeCount(instants, instants, 0)
    looked = Coverage(counts, instants if people else 0, 0, False, tuple(range(instants)))
    origin = Provenance(
        versions={"python": "3.11", "deepscan-forensics": "0.0"},
        detector={
            "name": "toy",
            "sha256": "cd" * 32,
            "base": "toy-base",
            "base_sha256": "ef" * 32,
            "tower": "toy",
            "training": {},
            "licence": "none",
        },
        device="cpu",
        precision="float32",
        threads=1,
        settings={"sampling": {"rule": "uniform", "frames": instants}},
        started="2026-01-02T03:04:05.000+00:00",
        finished="2026-01-02T03:04:06.000+00:00",
        sha256_after="ab" * 32,
        seconds={"faces": 1.0},
        confinement=Confinement.FULL,
        request=Request(
            argv=("deepscan", "detect", path),
            origins={"sampling.frames": "flag"},
            case=Case(text, text, text, f"{text}\nsecond line") if text else None,
        ),
    )
    outputs = ("heatmaps/overlay.mp4", "report.html") if heat else ("report.html",)
    stated = [as_stated(frame) for frame in frames]
    evidence = judge(source, looked, stated, thresholds_of(calibration))
    track = evidence.scores.track if evidence.scores else 0
    report = Report(source, evidence, origin, sums.of(track), outputs=outputs)
    return report, pictures.frames()


def written(folder: Path, clip: Path) -> Path:
    """Results for `clip` as deepscan writes them, by the default detector; nothing was scored."""
    path = detector_file("default")
    header, digest = read_header(path), sha256(clip)
    report, pictures = made(2, 6, path=str(clip), calibration=header.calibration)
    detector = {
        "name": header.name,
        "sha256": sha256(path),
        "base": header.base["name"],
        "base_sha256": header.base["sha256"],
        "tower": header.settings.tower,
        "training": header.training,
        "licence": header.licence,
    }
    origin = replace(
        report.provenance,
        versions=provenance.versions(),
        detector=detector,
        settings=Settings().to_dict(),
        sha256_after=digest,
    )
    names = ("heatmaps/contact_sheet.png", page.NAME)
    source = replace(report.source, sha256=digest, bytes=clip.stat().st_size)
    report = replace(report, source=source, provenance=origin, outputs=names)
    report = from_dict(to_dict(report))  # judged anew: of another file
    (folder / "heatmaps").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(folder / names[0])
    page.write(to_dict(report), folder, pictures)
    (folder / "report.json").write_text(text(report), "utf-8")
    provenance.write_manifest(folder, source)
    return folder
