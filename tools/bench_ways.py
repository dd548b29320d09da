"""What `make bench` times: each way of scoring a clip, in a process of its own.

    python -m tools.bench_ways deepscan CLIP [--made FOLDER]

The last line printed is JSON: the mean logit, seconds by stage, peak MiB by stage, and measured rates.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from deepscan.interrupt import leave

if TYPE_CHECKING:
    from deepscan.records import Frame

FRAMES = 32
BASE, DETECTOR = "base.safetensors", "detector.safetensors"
PEER = "ViT-L-14-quickgelu"  # the tower that published detectors stand on
MARGIN = 1.3  # the side of a peer's crop over that of the face's box

# Matrices whose multiplying is timed are `ROWS` high, as the tokens of a batch of crops are, and a few times.
ROWS, TIMES = 16 * 197, 12


class Laps:
    """Seconds by stage, each from the end of the one before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def __call__(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._began
        self._began = now


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the work in this process and print what only it can know."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_ways", description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("clip", type=Path)
    parser.add_argument(
        "--made", type=Path, help="a folder with a detector to take for the shipped one"
    )
    asked = parser.parse_args(arguments)
    if asked.made:
        _use(asked.made)
    document = {"logit": None, "seconds": {}, "stage_peak": {}} | WAYS[asked.way](asked.clip)
    sys.stdout.write(json.dumps(document) + "\n")
    if asked.way not in ("straight", "peer"):  # which end as scripts do
        leave(0, interrupted=False)


def _use(made: Path) -> None:
    """Let this process take the detector in a folder for the shipped one."""
    from deepscan.model import weights

    weights.detector_file = lambda name: made / DETECTOR  # type: ignore[assignment]
    weights.base_by_hash = lambda digest: None  # type: ignore[assignment,return-value]
    weights.base_file = lambda *_: made / BASE


def deepscan(path: Path) -> dict[str, Any]:
    """`scan`, without the second look, which looks at further frames."""
    from deepscan.config import Sampling, Settings
    from deepscan.flow import Clock, keep_memory_level
    from deepscan.pipeline import scan

    keep_memory_level()
    clock = Clock()
    settings = Settings(sampling=Sampling(frames=FRAMES, second_look=False))
    report = scan(path, settings, clock=clock)
    return {"logit": report.score, "seconds": clock.seconds, "stage_peak": clock.peak}


def straight(path: Path) -> dict[str, Any]:
    """The same detector the way people write it."""
    lap = Laps()
    import torch
    from facenet_pytorch import MTCNN

    from deepscan.faces.alignment import align
    from deepscan.model import checkpoint, weights
    from deepscan.model.header import read_header
    from deepscan.records import Box, Face

    finder = MTCNN(keep_all=True)
    file = weights.detector_file("default")
    base = weights.base_file(weights.base_by_hash(read_header(file).base["sha256"]))
    detector, _ = checkpoint.load(file, base, torch.float32)
    lap("loading")
    logits: list[float] = []
    for frame in _decoded(path, lap):
        boxes, confidences, points = finder.detect(frame.pixels, landmarks=True)
        found = () if boxes is None else zip(boxes, confidences, points, strict=True)
        crops = [
            align(frame, Face(Box(*map(float, box)), float(sure), np.asarray(five, float)), 1)
            for box, sure, five in found
            if sure >= 0.9
        ]
        lap("faces")
        with torch.no_grad():
            logits += [float(detector(torch.tensor(c.pixels[None])).logit) for c in crops]
        lap("scoring")
    return {"logit": float(np.mean(logits)), "seconds": lap.seconds}


def peer(path: Path) -> dict[str, Any]:
    """What users would pick instead: a face detector on each frame, ViT-L/14 in float32, crop by crop.

    As in the inference scripts of GenD and of DeepfakeBench. Random weights cost what trained ones do.
    """
    lap = Laps()
    import open_clip
    import torch
    from facenet_pytorch import MTCNN
    from PIL import Image

    finder = MTCNN(keep_all=True)
    clip, _, preprocess = open_clip.create_model_and_transforms(PEER, load_weights=False)
    tower = clip.visual.eval()
    head = torch.nn.Linear(tower.output_dim, 1)
    lap("loading")
    logits: list[float] = []
    for frame in _decoded(path, lap):
        boxes, confidences = finder.detect(frame.pixels)
        crops = []
        for box, sure in () if boxes is None else zip(boxes, confidences, strict=True):
            centre, half = (box[:2] + box[2:]) / 2, MARGIN / 2 * (box[2:] - box[:2]).max()
            if sure >= 0.9:
                corners = (*(centre - half), *(centre + half))
                crops.append(Image.fromarray(frame.pixels).crop(tuple(map(round, corners))))
        lap("faces")
        with torch.no_grad():
            logits += [float(head(tower(preprocess(crop)[None]))) for crop in crops]
        lap("scoring")
    return {"seconds": lap.seconds}


def _decoded(path: Path, lap: Laps) -> list[Frame]:
    """The frames to look at, of all that are decoded."""
    from deepscan.records import Frame

    with av.open(str(path)) as container:
        total = container.streams.video[0].frames
        wanted = set(np.linspace(0, total - 1, FRAMES, dtype=int).tolist())
        sampled = []
        for i, decoded in enumerate(container.decode(video=0)):
            pixels = decoded.to_ndarray(format="rgb24")
            if i in wanted:
                sampled.append(Frame(i, Fraction(i), pixels))
    lap("decoding")
    return sampled


def floor(path: Path) -> dict[str, Any]:
    """Seconds of the floor by part, and the rates in FLOP/s that were measured for it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from deepscan.config import Settings
    from deepscan.media.isolation import decoder
    from deepscan.model.networks import load_finder, load_scorer
    from deepscan.model.size import size
    from deepscan.records import Frame

    settings = Settings()
    finder = load_finder(settings.faces, settings.scoring.device)
    scorer = load_scorer(settings.scoring)
    began = time.perf_counter()
    with decoder(path, settings.sampling, settings.limits) as decoding:
        frames = [frame for frame in decoding.frames() if isinstance(frame, Frame)]
        decode = time.perf_counter() - began
    with FlopCounterMode(display=False) as counted:
        crops = sum(len(found.faces) for found in finder.find(frames))
    width = scorer.detector.tower.width
    rates = {
        scorer.precision: _rate(width, getattr(torch, scorer.precision)),
        "float32": _rate(width, torch.float32),
    }
    seconds = {
        "decoding alone": decode,
        f"{crops} crops through the detector": crops
        * size(scorer.header.settings).flops_complete
        / rates[scorer.precision],
        "MTCNN": counted.get_total_flops() / rates["float32"],
    }
    return {"seconds": seconds, "rates": rates}


def _rate(width: int, dtype: Any) -> float:
    """FLOP/s of the linear layer that takes most of a tower's time, the best of a few tries."""
    import torch

    layer = torch.nn.Linear(width, 4 * width, dtype=dtype)
    tokens = torch.randn(ROWS, width, dtype=dtype)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(TIMES):
            began = time.perf_counter()
            layer(tokens)
            best = min(best, time.perf_counter() - began)
    return 2 * ROWS * width * 4 * width / best


def start(_: Path) -> dict[str, Any]:
    """Load the networks."""
    from deepscan.config import Faces, Scoring
    from deepscan.model.networks import load_models

    load_models(Faces(), Scoring())
    return {}


def torch_alone(_: Path) -> dict[str, Any]:
    """Import torch."""
    import torch  # noqa: F401

    return {}


WAYS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "deepscan": deepscan,
    "straight": straight,
    "peer": peer,
    "floor": floor,
    "start": start,
    "import torch": torch_alone,
}

if __name__ == "__main__":
    main()
