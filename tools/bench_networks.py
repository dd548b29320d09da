"""Measures the networks for `make bench-gpu`: rates, logits and faces, compared with the processor's."""

from __future__ import annotations

import argparse
import copy
import time
import traceback
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from tools.bench_log import Log, matrix_rate, times, walls

if TYPE_CHECKING:
    import torch

    from deepscan.model.detector import Detector
    from deepscan.model.header import DetectorSettings
    from deepscan.records import Frame

SQUARE = 8192  # side of the matrices by which a GPU's rate is measured


def random_detector(settings: DetectorSettings, device: torch.device) -> Detector:
    """A detector of random weights, its tower in bfloat16, made on the device."""
    import torch

    from deepscan.model.detector import Detector
    from deepscan.model.header import MEAN, STD

    with torch.device("meta"):
        detector = Detector(settings)
    detector.to_empty(device=device)
    chance = torch.Generator(device).manual_seed(0)
    for name, parameter in detector.named_parameters():
        with torch.no_grad():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=chance)
            else:  # LayerNorms' weights, and biases
                parameter.fill_(float("ln_" in name and name.endswith("weight")))
    detector.mean = torch.tensor(MEAN, device=device).view(3, 1, 1)
    detector.std = torch.tensor(STD, device=device).view(3, 1, 1)
    detector.tower.to(torch.bfloat16)
    return detector.eval().requires_grad_(False)


def _crops(count: int) -> np.ndarray:
    from deepscan.faces.alignment import CROP_SIDE

    return np.random.default_rng(0).integers(0, 256, (count, CROP_SIDE, CROP_SIDE, 3), np.uint8)


def _ways(plain: Detector, most: int) -> dict[str, Detector]:
    """The detector step by step, with joined activations, and replayed."""
    from deepscan.model import packed
    from deepscan.model.recorded import Recorded

    joined = copy.deepcopy(plain)
    packed.join_activations(joined.tower)
    if plain.mean.device.type != "cuda":  # nothing is recorded there
        return {"plain": plain, "joined": joined}
    replayed = copy.copy(joined)
    replayed.run = Recorded(joined.outputs, plain.mean.device, most=most)
    return {"plain": plain, "joined": joined, "recorded": replayed}


def _on_device(detector: Detector, crops: torch.Tensor, replayed: bool) -> list[float]:
    """Seconds of single batches that lie on the device already."""
    import torch

    from deepscan.model.recorded import graph

    device, work = crops.device, partial(detector.outputs, crops)
    if not replayed:
        return times(work, device)
    with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        replay = graph(device)(detector.outputs, crops)
        return times(replay, device)


def model(asked: argparse.Namespace, log: Log) -> None:
    """Crops a second, as a share of the rate at which matrices are multiplied."""
    import torch

    from deepscan.config import Scoring
    from deepscan.errors import WeightsMissing
    from deepscan.model.header import DetectorSettings
    from deepscan.model.networks import load_detector

    device = torch.device(asked.device)
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else "processor"
    log.line(f"\n{name}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    log.keep("device", [name, torch.__version__, torch.version.cuda])
    large = DetectorSettings(tower=asked.tower)
    try:
        shipped = load_detector(Scoring(device=asked.device, offline=True))[0]
    except WeightsMissing as error:
        shipped = None
        log.line(f"\nThe shipped detector is not measured: {error}")
    with torch.inference_mode():
        side = SQUARE if cuda else SQUARE // 16
        rate = matrix_rate(side, side, side, device)
        _rates(log, large, random_detector(large, device), asked.batches, rate)
        last = asked.batches[-1:]
        bare = DetectorSettings(tower=asked.tower, token="cls")
        _rates(log, bare, random_detector(bare, device), last, rate)
        if shipped is not None:
            _rates(log, shipped.settings, shipped, asked.batches, rate)
        again = matrix_rate(side, side, side, device)
        log.line(f"\nThe matrix rate once more: {again / 1e12:.1f} TFLOP/s.")
        log.keep("matrix rate at the end", again)


def _rates(
    log: Log,
    settings: DetectorSettings,
    detector: Detector,
    batches: Sequence[int],
    rate: float,
) -> None:
    """A table of crops a second, the ways in turn at each batch."""
    import torch

    from deepscan.model.recorded import WORTH
    from deepscan.model.size import size

    each = size(settings).flops_complete
    queries = "with" if settings.with_queries else "without"
    title = f"{settings.tower} {queries} queries"
    log.line(f"\n{title}, {each / 1e9:.1f} GFLOP a crop")
    log.head("batch", "way", "crops/s on the device", "of the matrix rate", "score()", "of it")
    device, found = detector.mean.device, list[dict[str, Any]]()
    ways = _ways(detector, max(batches))
    for batch in batches:
        crops = _crops(batch)
        there = torch.from_numpy(crops).to(device)
        for name, way in ways.items():
            try:
                inside = batch / median(_on_device(way, there, name == "recorded"))
                warm = WORTH + 2 if name == "recorded" else 2
                outside = batch / median(walls(partial(way.score, crops), warm))
            except RuntimeError as error:  # of this way alone; the section goes on
                traceback.print_exc()
                log.row(batch, name, str(error).partition("\n")[0][:80], "", "", "")
                continue
            shares = [speed * each / rate for speed in (inside, outside)]
            log.row(batch, name, inside, shares[0], outside, shares[1])
            found.append(
                {"batch": batch, "way": name, "device": inside, "score": outside, "shares": shares}
            )
            log.keep(title, found)
    if len(batches) > 1:
        _recording(log, title, ways["joined"], batches[0])


def _recording(log: Log, title: str, detector: Detector, batch: int) -> None:
    """What it takes to record a batch."""
    import torch

    from deepscan.model.recorded import graph

    device = detector.mean.device
    if device.type != "cuda":
        return
    crops = torch.from_numpy(_crops(batch)).to(device)
    with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
        detector.outputs(crops)
        torch.cuda.synchronize()
        began = time.perf_counter()
        graph(device)(detector.outputs, crops)
        taken = time.perf_counter() - began
    log.line(f"\nRecording a batch of {batch} takes {1000 * taken:.0f} ms.")
    log.keep(f"{title}, recording s", taken)


# --- what they compute -----------------------------------------------------------------------------


def _frames(width: int, height: int, count: int) -> list[Frame]:
    """The sample's frames, the second half manipulated."""
    from deepscan.records import Frame
    from deepscan.verification import sample as demo

    clip = demo.Clip(width, height, count / demo.RATE, count / 2 / demo.RATE, count / demo.RATE)
    return [Frame(i, Fraction(i, demo.RATE), p) for i, p in enumerate(demo.frames(clip))]


def logits(asked: argparse.Namespace, log: Log) -> None:
    """The shipped detector on the sample's face, 48 times."""
    from deepscan.config import Faces, Scoring
    from deepscan.faces.alignment import align
    from deepscan.model.networks import load_detector, load_finder

    frames = _frames(640, 480, 48)
    faces = [found.faces for found in load_finder(Faces(), "cpu").find(frames)]
    crops = np.stack(
        [align(f, x, 0).pixels for f, xs in zip(frames, faces, strict=True) for x in xs]
    )
    exact = load_detector(Scoring(device="cpu", precision="float32", offline=True))[0]
    expected = exact.score(crops).logit
    half = load_detector(Scoring(device=asked.device, precision="bfloat16", offline=True))[0]
    ways = _ways(half, 64)
    ways["float32"] = load_detector(
        Scoring(device=asked.device, precision="float32", offline=True)
    )[0]
    log.line(f"\n{len(crops)} crops, logits {expected.min():+.2f} to {expected.max():+.2f}")
    log.keep("expected", expected.tolist())
    log.head("way", "largest difference from float32 on the processor", "mean", "again the same")
    for name, way in ways.items():
        try:
            first = way.score(crops).logit
            for _ in range(12):  # the last of them are replayed
                again = way.score(crops).logit
        except RuntimeError as error:
            traceback.print_exc()
            log.row(name, str(error).partition("\n")[0][:80], "", "")
            continue
        apart = np.abs(first - expected)
        log.row(name, float(apart.max()), float(apart.mean()), bool((first == again).all()))
        log.keep(name, first.tolist())


def faces(asked: argparse.Namespace, log: Log) -> None:
    """Eight frames of 1080p, as detect looks for faces in them."""
    from deepscan.config import Faces
    from deepscan.faces.finder import shrink
    from deepscan.model.networks import load_finder

    frames = _frames(1920, 1080, 8)
    log.head("where", "frames/s", "faces", "furthest edge or landmark from the processor's, pixels")
    found: dict[str, Any] = {}
    for device in ("cpu", asked.device):
        finder = load_finder(Faces(), device)
        found[device] = finder.find(frames)
        speed = len(frames) / median(walls(partial(finder.find, frames), 3, 1.0))
        pairs = [
            (a, b)
            for one, other in zip(found["cpu"], found[device], strict=True)
            for a, b in zip(one.faces, other.faces, strict=True)
        ]
        apart = [float(np.abs(_places(a) - _places(b)).max()) for a, b in pairs]
        log.row(device, speed, len(pairs), max(apart, default=0.0))
        log.keep(device, {"frames/s": speed, "faces": len(pairs), "apart": apart})
    shrunk = [shrink(frame.pixels, (960, 540)) for frame in frames]
    taken = median(walls(lambda: [shrink(frame.pixels, (960, 540)) for frame in frames], 2))
    log.line(f"\nOf both: shrinking {len(shrunk)} frames on the processor, {1000 * taken:.1f} ms.")
    log.keep("shrinking s", taken)


def training(asked: argparse.Namespace, log: Log) -> None:
    """Crops a second of each method, and what its step costs over Effort's beside it."""
    from deepscan.benchmark.efficiency import measure, ratio
    from deepscan.training.settings import TrainSettings

    settings = TrainSettings(
        (Path(),), Path(), batch=min(32, asked.batches[-1]), device=asked.device
    )
    timing = measure(settings, asked.tower, asked.steps, log.line)
    log.keep("seconds", timing.seconds)
    log.head("method", "crops/s", "of Effort's time")
    for name, (own, effort) in timing.seconds.items():
        log.row(name, timing.batch / median(own), ratio(own, effort).value)
    first = next(iter(timing.seconds.values()))
    log.row("effort", timing.batch / median(first[1]), 1.0)


def _places(face: Any) -> np.ndarray:
    box = face.box
    return np.concatenate([(box.left, box.top, box.right, box.bottom), face.landmarks.ravel()])
