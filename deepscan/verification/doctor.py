"""Checks that this machine can run deepscan and computes what it should.

The self-test scans a small clip from the package (the portrait of sample.py, manipulated in its second
half) with the shipped detector and compares each logit with the stored one. `make selftest` makes the clip
and the values again; a new shipped detector needs that.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from deepscan.config import Sampling, Scoring, Settings
from deepscan.errors import DeepscanError
from deepscan.records import Confinement

FOLDER = Path(__file__).resolve().parent / "selftest"
CLIP = FOLDER / "clip.mp4"
VALUES = FOLDER / "values.json"

# Logits may differ this much between processors and decoders in float32. Rounding stays far below it
# (0.0003 from run to run), other weights or other crops go far above it.
TOLERANCE = 0.05

# Codecs that people's videos use; the overlay film needs the encoder.
DECODERS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores")
ENCODER = "libx264"
STILLS = ("jpg", "zlib", "webp", "avif", "jpg_2000")

LITTLE = 2e9  # free bytes


class Health(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"  # deepscan runs, but not all of it, or not well
    FAILED = "failed"  # it does not run, or its results cannot be trusted


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was found and, if something is wrong, what to do."""

    name: str
    state: Health
    found: str
    advice: str = ""


def examine(tell: Callable[[str], None] = lambda name: None) -> Iterator[Check]:
    """Run all checks one by one; `tell` is called with the name of the next one."""
    for name, look in CHECKS.items():
        tell(name)
        try:
            yield from look()
        except (ImportError, OSError) as error:
            yield Check(
                name,
                Health.FAILED,
                f"cannot be used: {error}",
                "reinstall the package that it names",
            )


def _python() -> Iterator[Check]:
    fit = sys.version_info >= (3, 11)
    yield Check(
        "python",
        Health.OK if fit else Health.FAILED,
        f"{platform.python_version()}, {platform.platform()}",
        "" if fit else "install Python 3.11 or later",
    )


def _packages() -> Iterator[Check]:
    from deepscan.report import provenance

    versions = provenance.versions()
    names = [name for name in versions if name not in ("python", "platform", "ffmpeg")]
    yield Check("packages", Health.OK, ", ".join(f"{name} {versions[name]}" for name in names))


def _torch() -> Iterator[Check]:
    import torch

    from deepscan.model.processor import computes_bfloat16

    yield Check("torch", Health.OK, f"{torch.__version__}, {torch.get_num_threads()} threads")
    native = computes_bfloat16()
    offers = "bfloat16" if native else "no bfloat16"
    chosen = "bfloat16" if native else "float32"
    yield Check("processor", Health.OK, f"offers {offers}: here --precision auto means {chosen}")
    if torch.cuda.is_available():
        advice = "update the GPU's driver, or use --device cpu"
        try:
            names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
            right = float((ones := torch.ones(8, 8, device="cuda")).matmul(ones).sum()) == 8**3
        except RuntimeError as error:  # a driver too old, a GPU too new
            found = str(error).splitlines()[0]
            yield Check("cuda", Health.FAILED, f"cannot compute: {found}", advice)
            return
        found = f"CUDA {torch.version.cuda}: {', '.join(names)}"
        if right:
            yield Check("cuda", Health.OK, found)
        else:
            yield Check("cuda", Health.FAILED, f"{found}: gives wrong products", advice)
    elif torch.version.cuda is None:
        yield Check("cuda", Health.OK, "torch has no CUDA, so the processor is used")
    else:
        yield Check(
            "cuda", Health.OK, f"no GPU for CUDA {torch.version.cuda}, so the processor is used"
        )


def _ffmpeg() -> Iterator[Check]:
    import av
    from PIL import features

    versions = av.library_versions
    listed = ", ".join(f"{name} {'.'.join(map(str, versions[name]))}" for name in sorted(versions))
    yield Check("ffmpeg", Health.OK, f"PyAV {av.__version__}: {listed}")
    lacking = [name for name in DECODERS if not _has_codec(name, "r")]
    yield Check(
        "codecs",
        Health.WARNING if lacking else Health.OK,
        f"no decoder for {', '.join(lacking)}" if lacking else f"decodes {', '.join(DECODERS)}",
        "pip install --force-reinstall av; its wheels contain them" if lacking else "",
    )
    if not _has_codec(ENCODER, "w"):
        yield Check(
            "film",
            Health.WARNING,
            f"no encoder {ENCODER}",
            "--heatmap cannot write its film; see the line on codecs",
        )
    lacking = [name for name in STILLS if not features.check(name)]
    yield Check(
        "pictures",
        Health.WARNING if lacking else Health.OK,
        f"Pillow lacks {', '.join(lacking)}" if lacking else f"reads {', '.join(STILLS)}",
        "pip install --force-reinstall pillow" if lacking else "",
    )


def _has_codec(name: str, mode: Any) -> bool:
    import av

    try:
        av.codec.Codec(name, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def _confinement() -> Iterator[Check]:
    """Start a decoder as for an input, and report how it is confined."""
    from deepscan.config import Limits
    from deepscan.media import decoder
    from deepscan.report.rendering import CONFINED

    try:
        with decoder(CLIP, Sampling(frames=1), Limits()) as one:
            held = one.opened().confinement
    except DeepscanError as error:
        yield Check(
            "confinement",
            Health.FAILED,
            f"the decoder does not start: {error}",
            "reinstall deepscan",
        )
        return
    full = held is Confinement.FULL
    yield Check(
        "confinement",
        Health.OK if full else Health.WARNING,
        f"{held}: {CONFINED[held]}",
        ""
        if full
        else "decode hostile files on Linux 5.13 or later, x86-64 or ARM64; see SECURITY.md",
    )


def _weights() -> Iterator[Check]:
    from deepscan.model import weights

    entries = weights.catalogue()
    needed = (entries.default, entries.detectors[entries.default].base)
    for row in weights.describe():
        name, state = row["name"], row["state"]
        if state == "absent" and name not in needed:
            continue
        found = {
            "ready": f"{row['path']}, SHA-256 {row['sha256']}",
            "absent": f"not at {row['path']}",
            "damaged": f"{row['path']} has changed since it was written",
        }[state]
        advice = f"deepscan weights fetch {name}, or weights import FILE without a network"
        if name in entries.detectors:
            advice = "reinstall deepscan"
        elif state == "damaged":
            advice = f"delete it; {advice}"
        ready = state == "ready"
        yield Check(
            f"weights {name}",
            Health.OK if ready else Health.FAILED,
            found,
            "" if ready else advice,
        )


def _places() -> Iterator[Check]:
    from deepscan.model import weights

    cache = weights.cache_folder()
    taken = sum(p.stat().st_size for p in cache.glob("*") if p.is_file()) if cache.is_dir() else 0
    yield _place("cache", cache, f", {taken / 1e9:.2f} GB of weights")
    yield _place("working folder", Path.cwd(), "")


def _place(name: str, folder: Path, more: str) -> Check:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    found = f"{folder}{more}, {free / 1e9:.1f} GB free"
    if not os.access(there, os.W_OK):
        advice = (
            "make it writable, or set DEEPSCAN_CACHE to another folder"
            if name == "cache"
            else "results cannot be written here; choose another folder with --out DIR"
        )
        return Check(name, Health.WARNING, f"{found}, not writable", advice)
    if free < LITTLE:
        return Check(
            name, Health.WARNING, found, "make room, because weights and heatmaps may not fit"
        )
    return Check(name, Health.OK, found)


def _selftest() -> Iterator[Check]:
    """Compare the shipped detector's logits of the packaged clip with the stored ones."""
    from deepscan.files import sha256

    name = "self-test"
    try:
        stored = json.loads(VALUES.read_text("utf-8"))
        if sha256(CLIP) != stored["clip"]:
            yield Check(name, Health.FAILED, f"{CLIP} is damaged", "reinstall deepscan")
            return
        started = time.perf_counter()
        measured = _measure()
    except (OSError, DeepscanError) as error:
        yield Check(
            name, Health.FAILED, f"not run: {error}", "fix what failed above, then run it again"
        )
        return
    took = time.perf_counter() - started
    if measured["detector"] != stored["detector"]:
        found = "the stored values belong to another detector"
        yield Check(name, Health.FAILED, found, "reinstall deepscan; developers: make selftest")
        return
    if len(measured["logits"]) != len(stored["logits"]):
        found = f"{len(measured['logits'])} faces were found, not {len(stored['logits'])}"
        yield Check(name, Health.FAILED, found, "reinstall av, facenet-pytorch and torch")
        return
    pairs = zip(measured["logits"], stored["logits"], strict=True)
    furthest = max(abs(a - b) for a, b in pairs)
    well = furthest <= TOLERANCE
    yield Check(
        name,
        Health.OK if well else Health.FAILED,
        f"{len(stored['logits'])} faces scored in {took:.1f} s; logits within {furthest:.4f} of the stored"
        f" ones (allowed {TOLERANCE})",
        "" if well else "this installation gives wrong results: reinstall it and its packages",
    )


CHECKS: dict[str, Callable[[], Iterator[Check]]] = {
    "python": _python,
    "packages": _packages,
    "torch": _torch,
    "ffmpeg": _ffmpeg,
    "confinement": _confinement,
    "weights": _weights,
    "places": _places,
    "self-test": _selftest,
}


def _measure() -> dict[str, Any]:
    """The shipped detector's logits of the clip, on the processor in float32."""
    from deepscan.pipeline import scan

    scoring = Scoring(device="cpu", precision="float32", offline=True)
    report = scan(CLIP, Settings(sampling=Sampling(frames=6), scoring=scoring))
    return {
        "clip": report.source.sha256,
        "detector": report.provenance.detector["sha256"],
        "logits": [round(f.logit, 5) for track in report.evidence.tracks for f in track.frames],
    }


def store() -> None:
    """Make the clip, unless it exists, and store the shipped detector's logits of it."""
    from deepscan.verification import sample as demo

    FOLDER.mkdir(exist_ok=True)
    if not CLIP.exists():
        clip = demo.Clip(width=320, height=240, seconds=0.48, fake_from=0.24, fake_to=0.48)
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / CLIP.name
            demo.write(made, clip)
            shutil.copyfile(made, CLIP)
    VALUES.write_text(json.dumps(_measure(), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    store()
