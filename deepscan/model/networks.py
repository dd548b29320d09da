"""Loads the networks as the settings ask, and keeps them for the next run with the same settings."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deepscan.config import Faces, Scoring, detectors
from deepscan.errors import SettingsError
from deepscan.files import weights_sha256
from deepscan.flow import Clock, beside

if TYPE_CHECKING:
    from deepscan.faces.finder import FaceFinder
    from deepscan.model.detector import Detector
    from deepscan.model.header import Header

SCHEDULE_BLOCKING_SYNC = 4  # of CUDA's driver_types.h

EMULATED = "note: this processor has no bfloat16 and emulates it; --precision float32 is several times faster"


@dataclass(frozen=True, slots=True)
class Scorer:
    """The detector, ready to run, with the facts that a report states about it."""

    detector: Detector
    header: Header
    sha256: str
    device: str
    precision: str
    threads: int


def prepare_weights(scoring: Scoring, progress: Callable[[int, int], None] | None = None) -> None:
    """Make sure before a scan that the detector and its base are here; fetch the base if need be.

    Raises:
        WeightsError: they are missing and cannot be fetched.
    """
    from deepscan.model import header, weights

    for one in each(scoring):
        needed = header.read_header(weights.detector_file(one.weights)).base["sha256"]
        weights.base_file(weights.base_by_hash(needed), scoring.offline, progress)


def each(scoring: Scoring) -> tuple[Scoring, ...]:
    """The settings of each detector that --weights names.

    Raises:
        SettingsError: more than two, or one twice.
    """
    return tuple(replace(scoring, weights=name) for name in detectors(scoring.weights))


def caution(scoring: Scoring) -> str:
    """A warning for bfloat16 on a processor that only emulates it, in one line; else ""."""
    # A GPU that is named need not be this machine's: a cluster's workers have their own.
    named = scoring.device.startswith("cuda")
    if scoring.precision != "bfloat16" or named or device_for(scoring.device) != "cpu":
        return ""
    from deepscan.model.processor import computes_bfloat16

    return "" if computes_bfloat16() else EMULATED


def load_models(faces: Faces, scoring: Scoring) -> None:
    """Load the networks for these settings now, so that the next scan with the same ones need not.

    Raises:
        WeightsError, SettingsError: as `load_finder` and `load_scorer`.
    """
    load_finder(faces, scoring.device)
    for one in each(scoring):
        load_scorer(one)


@functools.lru_cache(maxsize=1)
def load_finder(faces: Faces, device: str) -> FaceFinder:
    """MTCNN for these settings, kept for the next scan with the same ones.

    Raises:
        WeightsError: facenet-pytorch's weights are missing or wrong.
        SettingsError: the device is not there.
    """
    from deepscan.faces.finder import FaceFinder

    return FaceFinder(faces.min_size, faces.min_confidence, faces.working_side, device_for(device))


@functools.lru_cache(maxsize=2)
def load_scorer(scoring: Scoring) -> Scorer:
    """The detector for these settings, kept for the next scan with the same ones.

    Raises:
        WeightsError: see `model.checkpoint.load`.
        SettingsError: the device is not there.
    """
    import torch

    detector, header, device, precision = load_detector(scoring, pack=True)
    digest = weights_sha256(weights_file(scoring.weights))
    return Scorer(detector, header, digest, device, precision, torch.get_num_threads())


@contextmanager
def loading(scoring: Scoring, clock: Clock) -> Iterator[Callable[[], Scorer]]:
    """Load torch and the detector beside the block; the function given to it waits for them."""
    loaded: Future[Scorer] = Future()

    def load() -> None:
        try:
            with clock("loading"):
                loaded.set_result(load_scorer(scoring))
        except BaseException as error:
            loaded.set_exception(error)

    with beside(load):
        yield loaded.result


def weights_file(name: str) -> Path:
    """The checkpoint that --weights names."""
    from deepscan.model import weights

    return weights.detector_file(name)


def load_detector(scoring: Scoring, pack: bool = False) -> tuple[Detector, Header, str, str]:
    """The detector on its device, its checkpoint's header, and the device and precision it runs in.

    With `pack` it is optimised for its device where possible; it can then only score.

    Raises:
        WeightsError, SettingsError: as `load_models`.
    """
    import torch

    from deepscan.model import checkpoint, packed, weights
    from deepscan.model.header import read_header
    from deepscan.model.recorded import Recorded

    device = device_for(scoring.device)
    precision = _precision(scoring.precision, device)
    path = weights_file(scoring.weights)
    needed = read_header(path).base["sha256"]
    base = weights.base_file(weights.base_by_hash(needed), scoring.offline)
    detector, header = checkpoint.load(path, base, getattr(torch, precision))
    detector.to(device)
    if pack:
        packed.pack(detector.tower)
        if detector.mean.is_cuda:
            detector.run = Recorded(detector.outputs, detector.mean.device)
    return detector, header, device, precision


def sleep_for_gpu() -> None:
    """Let this process sleep while it waits for the GPU, instead of polling it.

    For processes that share a GPU and the cores, before they use the GPU: each waits most of the time, and
    with CUDA's default would take a core away from a decoder. Only the first GPU is set, which needs no
    CUDA context.
    """
    import torch

    if torch.version.cuda is not None:
        with suppress(OSError, AttributeError):  # the library has another name outside Linux
            runtime = ctypes.CDLL(f"libcudart.so.{torch.version.cuda.partition('.')[0]}")
            runtime.cudaSetDeviceFlags(SCHEDULE_BLOCKING_SYNC)


def limit_threads(most: int) -> None:
    """Let torch compute in at most `most` threads from now on, for processes that share the cores."""
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), most))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute in `count` threads: it splits sums over them, so their number changes results."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_for(wanted: str) -> str:
    """The device that a setting asks for; "auto" is the GPU where there is one.

    Raises:
        SettingsError: this machine has no such GPU.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda"):
        number = int(wanted.partition(":")[2] or 0)
        if not torch.cuda.is_available() or number >= torch.cuda.device_count():
            raise SettingsError(
                f"device {wanted}: this machine has no such GPU; use --device cpu or auto"
            )
    return wanted


def _precision(wanted: str, device: str) -> str:
    """bfloat16 where the hardware multiplies in it, float32 elsewhere: emulation would be slower."""
    import torch

    from deepscan.model.processor import computes_bfloat16

    if wanted != "auto":
        return wanted
    on_cpu = device == "cpu"
    native = computes_bfloat16() if on_cpu else torch.cuda.get_device_capability(device) >= (8, 0)
    return "bfloat16" if native else "float32"
