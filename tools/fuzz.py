"""Feeds mutated clips to `deepscan detect`, and mutants of all else that deepscan reads to its readers.

python -m tools.fuzz FOLDER --mutants 2000 --seed 1       (make fuzz)

It checks that every input has its row, nothing prints a traceback, only decoders are ended by signals, and
nothing takes longer than its limit. Whatever breaks that is kept in FOLDER/findings and becomes a test.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from builders import clips, reports
from deepscan.batches.pool import cores
from deepscan.config import load_toml
from deepscan.data.crops import read_crops
from deepscan.data.layouts import read_layout
from deepscan.data.listings import read_entries
from deepscan.errors import DeepscanError
from deepscan.files import sha256
from deepscan.model import checkpoint
from deepscan.model.detector import Detector
from deepscan.model.header import read_header
from deepscan.model.weights import detector_file
from deepscan.report import provenance
from deepscan.verification.compare import compare
from deepscan.verification.verify import verify

TIME_LIMIT = 60  # seconds an input may take in detect
READER_LIMIT = 10  # and a reader, on a busy machine
BATCH = 200  # mutants in one run of detect, which loads the networks once

# --- bytes -----------------------------------------------------------------------------------------


def flipped(data: bytes, chance: random.Random) -> bytes:
    """A few bytes are others, mostly near the start, where headers are."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 3, 20, 200))):
        at = chance.randrange(min(len(out), chance.choice((200, 4000, len(out)))))
        out[at] = chance.choice((0, 255, 127, chance.randrange(256)))
    return bytes(out)


def truncated(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data)) or 1]


def lied(data: bytes, chance: random.Random) -> bytes:
    """A length somewhere claims too much, too little, nothing, or less than nothing."""
    out = bytearray(data)
    marks = [
        b"moov",
        b"trak",
        b"stsz",
        b"stco",
        b"stts",
        b"ctts",
        b"mdat",
        b"elst",
        b"stsc",
        b"avc1",
    ]
    marks += [b"LIST", b"RIFF", b"IHDR", b"IDAT", b"\x1aE\xdf\xa3", b"\x16T\xaek", b"FLV\x01"]
    places = [at for mark in marks if (at := data.find(mark)) >= 4]
    at = (chance.choice(places) + chance.choice((-4, 4, 8, 12))) if places else 4
    value = chance.choice((0, 1, 7, 8, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data) * 2, 2**24))
    out[at : at + 4] = struct.pack(chance.choice((">I", "<I")), value)
    return bytes(out)


def joined(data: bytes, chance: random.Random) -> bytes:
    cut = chance.randrange(len(data))
    return chance.choice((data + data, data[cut:] + data[:cut], data[:cut] + data[cut // 2 :]))


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, truncated, lied, joined)


def mutant(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = chance.choice(MUTATIONS)(data, chance) or b"\0"
    return data


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# --- clips through detect --------------------------------------------------------------------------


def seeds(folder: Path) -> list[Path]:
    """Small clips in the usual containers and codecs, pictures, and the real clips where they are."""
    folder.mkdir(parents=True)
    clips.write(folder / "h264.mp4", 20, options=clips.b_frames(), sound=True)
    clips.write(folder / "h264.mkv", 12)
    clips.write(folder / "mpeg4.avi", 12, "mpeg4")
    clips.write(folder / "vp9.webm", 6, "libvpx-vp9")
    clips.write(folder / "mpeg2.ts", 12, "mpeg2video", ticks=25)
    clips.write(folder / "raw.h264", 10)
    clips.write(folder / "flv1.flv", 10, "flv", ticks=25)
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp", "a.tiff", "a.gif", "a.avif", "a.jp2"):
        Image.fromarray(noise).save(folder / name)
    frames = [Image.fromarray(np.roll(noise, at, 1)) for at in range(4)]
    for name in ("moving.webp", "moving.gif", "moving.png", "moving.avif"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], duration=40)
    found = sorted(folder.iterdir())
    real = sorted(SHARED.glob("clips/*/*.mp4")) if SHARED.is_dir() else []
    return found + [path for path in real if path.stat().st_size < 3 * 2**20]


def fuzz_clips(folder: Path, count: int, seed: int) -> Iterator[str]:
    """Findings of `count` mutants through detect, a batch at a time."""
    chance = random.Random(seed)
    known = [(path.name, path.read_bytes()) for path in seeds(folder / "seeds")]
    verdicts: Counter[str] = Counter()
    for number, start in enumerate(range(0, count, BATCH)):
        inputs, out = folder / f"clips-{number}", folder / f"out-{number}"
        inputs.mkdir()
        for i in range(start, min(count, start + BATCH)):
            name, data = chance.choice(known)
            (inputs / f"{i:05d}-{name}").write_bytes(mutant(data, chance))
        names = {str(path) for path in inputs.iterdir()}
        began = time.monotonic()
        try:
            run = detect(inputs, out, 60 + TIME_LIMIT * len(names))
        except subprocess.TimeoutExpired:
            yield f"{inputs}: detect hangs"
            continue
        rows = [json.loads(line) for line in run.stdout.splitlines()]
        seen = Counter(row["input"]["path"] for row in rows)
        broken = False
        if set(seen) != names or max(seen.values(), default=0) > 1:
            broken = True
            yield f"{inputs}: {len(seen)} rows for {len(names)} inputs, exit code {run.returncode}"
        if b"Traceback" in run.stderr or run.returncode not in (0, 1, 3, 4):
            broken = True
            yield f"{inputs}: exit code {run.returncode}: {run.stderr[-500:]!r}"
        for row in rows:
            reason = row["verdict"]["reason"]
            verdicts[reason] += 1
            late = "time limit" in row["verdict"]["sentence"]
            if (
                late
            ):  # of the input, or of a machine with other things to do? Alone it has a second try.
                again = detect(Path(row["input"]["path"]), out / "again", 60 + TIME_LIMIT)
                late = b"time limit" in again.stdout
            if reason == "ProcessDied" or late:
                broken = True
                yield f"{row['input']['path']}: {row['verdict']['sentence'][-300:]}"
        sys.stderr.write(f"{start + len(names)} mutants, {time.monotonic() - began:.0f} s\n")
        shutil.rmtree(out, ignore_errors=True)
        if not broken:
            shutil.rmtree(inputs)
    sys.stdout.write(f"clips: {dict(verdicts.most_common())}\n")


def detect(inputs: Path, out: Path, seconds: float) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a user would, on a file or a folder.

    Raises:
        subprocess.TimeoutExpired: it took longer than `seconds`.
    """
    command = [sys.executable, "-m", "deepscan", "detect", str(inputs), "--out", str(out), "-q"]
    command += ["--json", "--frames", "2", "--offline", "--time-limit", str(TIME_LIMIT)]
    command += ["--jobs", str(cores())] if inputs.is_dir() else []
    return subprocess.run(command, capture_output=True, timeout=seconds)


# --- what else is read -----------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**70, 1e308, float("nan"), "", "x" * 3000, "../../etc/passwd", "\ud800"),
    *([], {}, [[]], {"": None}, [1, "a"], "/abs", "a\0b", -(10**9), 0.5, 10**9),
)
NESTED = 100_000  # deeper than any reader should follow


def odd(document: Any, chance: random.Random) -> Any:
    """The same JSON with something odd at a random place."""
    if chance.random() < 0.15 or not isinstance(document, dict | list) or not document:
        return chance.choice(ODD)
    if isinstance(document, dict):
        key = chance.choice(list(document))
        changed = dict(document)
        if chance.random() < 0.15:
            del changed[key]
        elif chance.random() < 0.1:
            changed[chance.choice(("", "new", key.upper()))] = chance.choice(ODD)
        else:
            changed[key] = odd(document[key], chance)
        return changed
    at = chance.randrange(len(document))
    return [odd(v, chance) if i == at else v for i, v in enumerate(document)]


def odd_text(document: Any, chance: random.Random) -> bytes:
    """As JSON, now and then damaged as bytes, too."""
    if chance.random() < 0.03:
        return (b"[" if chance.random() < 0.5 else b'{"a":') * NESTED
    text = json.dumps(odd(document, chance)).encode()
    return mutant(text, chance) if chance.random() < 0.3 else text


def odd_checkpoint(data: bytes, chance: random.Random) -> bytes:
    """A checkpoint whose own header, or safetensors', is another; or whose bytes are."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    way = chance.random()
    if way < 0.3:
        return mutant(data, chance)
    if way < 0.35:
        return b"\x80\x02c" + b"os\nsystem\nX\x04\x00\x00\x00true\x85R."  # a pickle
    if way < 0.4:
        return struct.pack("<Q", chance.choice((0, 2**63, 2**32, 10**8))) + data[8:]
    if way < 0.7:
        inner = json.loads(header["__metadata__"]["deepscan"])
        header["__metadata__"]["deepscan"] = odd_text(inner, chance).decode("utf-8", "replace")
    else:
        name = chance.choice([key for key in header if key != "__metadata__"])
        header[name] = odd(header[name], chance)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def readers(folder: Path) -> dict[str, tuple[Callable[[random.Random], None], Callable[[], Any]]]:
    """For each reader: what puts a mutant in its place, and what reads it."""
    folder.mkdir(parents=True)
    whole = detector_file("default").read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    small = checkpoint_like(whole[8 : 8 + length])
    file = folder / "odd.safetensors"
    (clip := folder / "clip.mp4").write_bytes(b"evidence")
    results = reports.written(folder / "results", clip)
    report = json.loads((results / "report.json").read_bytes())
    other = shutil.copytree(results, folder / "other")
    stated = json.loads((results / provenance.NAME).read_text())
    crops = folder / "crops"
    crops.mkdir()
    listing = {"toy": {"toy_real": {"test": {"v": {"label": "toy_real", "frames": ["a/0.png"]}}}}}
    table = b"path,label,method,split,mask\na.mp4,0,real,train,\nb.mp4,1,swap,test,m.mp4\n"
    toml = b'[data]\nroot = "x"\n[train]\nadapter = "lora"\nlr = 1e-4\n'

    def put(path: Path, data: bytes) -> None:
        path.write_bytes(data)

    def put_report(chance: random.Random) -> None:
        put(results / "report.json", odd_text(report, chance))
        state_manifest(results, clip)

    def load_checkpoint() -> None:
        header = read_header(file)
        with torch.device("meta"):
            detector = Detector(header.settings)
        checkpoint.restore(detector, file, checkpoint.read_tensors(file))

    return {
        "checkpoint": (lambda c: put(file, odd_checkpoint(small, c)), load_checkpoint),
        "manifest.json": (
            lambda c: put(results / provenance.NAME, odd_text(stated, c)),
            lambda: provenance.read_manifest(results / provenance.NAME),
        ),
        "report.json": (put_report, lambda: verify(results)),
        "two report.json": (put_report, lambda: compare(results, other)),
        "crops' listing": (
            lambda c: put(crops / "toy.json", odd_text(listing, c)),
            lambda: read_crops(crops),
        ),
        "entries": (
            lambda c: put(folder / "e.json", odd_text({"a.mp4": {"label": "REAL"}}, c)),
            lambda: read_entries(folder / "e.json", ("label",)),
        ),
        "table": (
            lambda c: put(folder / "videos.csv", mutant(table, c)),
            lambda: read_layout(folder / "videos.csv"),
        ),
        "deepscan.toml": (
            lambda c: put(
                folder / "x.toml", mutant(toml, c) if c.random() < 0.98 else b"a=" + b"[" * NESTED
            ),
            lambda: load_toml(folder / "x.toml"),
        ),
    }


def state_manifest(folder: Path, clip: Path) -> None:
    """A manifest.json that is right about a folder of results."""
    (folder / provenance.NAME).unlink(missing_ok=True)
    outputs = {
        name: (sha256(folder / name), (folder / name).stat().st_size)
        for name in provenance.files(folder)
    }
    manifest = provenance.Manifest("fuzz", sha256(clip), clip.stat().st_size, outputs)
    (folder / provenance.NAME).write_text(manifest.text())


def checkpoint_like(header: bytes) -> bytes:
    """A checkpoint's own header over a single small tensor."""
    inner = json.loads(header)["__metadata__"]["deepscan"]
    tensors = {"head.bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    text = json.dumps({"__metadata__": {"deepscan": inner}, **tensors}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


def fuzz_readers(folder: Path, count: int, seed: int) -> Iterator[str]:
    """Findings of `count` mutants, dealt out to all readers: only DeepscanError may come out, and soon."""
    chance = random.Random(seed)
    known = list(readers(folder / "readers").items())
    counts: Counter[str] = Counter()
    for i in range(count):
        name, (put, read) = known[i % len(known)]
        put(chance)
        began = time.monotonic()
        try:
            read()
            counts[f"{name}: read"] += 1
        except DeepscanError:
            counts[f"{name}: refused"] += 1
        except Exception as error:
            kept = folder / f"finding-{i}"
            shutil.copytree(folder / "readers", kept)
            yield f"{name}: {type(error).__name__}: {str(error)[:200]} ({kept})"
        if (took := time.monotonic() - began) > READER_LIMIT:
            yield f"{name}: took {took:.0f} s"
    sys.stdout.write(f"readers: {dict(sorted(counts.items()))}\n")


def main(arguments: list[str] | None = None) -> None:
    """Fuzz, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--mutants", type=int, default=2000, help="of clips, and as many of the rest"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("clips", "readers"))
    options = parser.parse_args(arguments)
    found: list[str] = []
    for name, fuzz in (("readers", fuzz_readers), ("clips", fuzz_clips)):
        if options.only in (None, name):
            for finding in fuzz(options.folder, options.mutants, options.seed):
                sys.stdout.write(f"FOUND {finding}\n")
                sys.stdout.flush()
                found.append(finding)
    sys.stdout.write(f"{len(found)} findings\n")
    if found:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
