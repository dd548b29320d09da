"""Tests that a batch survives kill -9: compares one killed at random moments with an undisturbed one.

python -m tools.kills FOLDER --clips 60 --kills 20 --seed 1     (make kills)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from builders import clips
from deepscan.batches.outcomes import NAME
from deepscan.verification import sample as demo


def make_inputs(folder: Path, count: int) -> Path:
    """`count` different inputs: pictures and clips of a face, some with nobody in them, some broken."""
    folder.mkdir(parents=True)
    face = np.asarray(demo.portrait().convert("RGB").resize((192, 228)))
    rng = np.random.default_rng(0)
    for i in range(count):
        noisy = np.clip(face.astype(int) + rng.integers(-8, 9, face.shape), 0, 255).astype(np.uint8)
        name = folder / f"{i:03d}"
        if i % 5 == 4:
            name.with_suffix(".mp4").write_bytes(rng.bytes(2000))
        elif i % 5 == 3:
            clips.write(name.with_suffix(".mp4"), [noisy] * 3)
        elif i % 5 == 2:
            Image.fromarray(rng.integers(0, 60, (64, 64, 3), np.uint8)).save(
                name.with_suffix(".png")
            )
        else:
            Image.fromarray(noisy).save(name.with_suffix(".png"))
    return folder


def command(inputs: Path, out: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "deepscan", "detect", str(inputs), "--out", str(out)]
    return [*start, "--json", "--frames", "2", "--offline", "--jobs", "2", "-q", *more]


def results(out: Path) -> dict[str, Any]:
    """All that a batch has come to, but for clocks and command lines: rows, reports and file names."""
    with sqlite3.connect(out / NAME) as rows:
        names = (
            "path, folder, verdict, reason, sentence, score, probability, faces, sha256, same_as"
        )
        table = rows.execute(f"SELECT {names} FROM inputs ORDER BY path").fetchall()
    rows.close()
    reports = {}
    for path in sorted(out.rglob("report.json")):
        report = json.loads(path.read_bytes())
        del report["run"]
        reports[path.relative_to(out).as_posix()] = report
    files = sorted(
        p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and p.parent != out
    )
    return {"rows": table, "reports": reports, "files": files}


def children(parent: int) -> list[int]:
    """Processes whose parent this is, and theirs."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(stat[1]) == parent:
                found += [int(entry.name), *children(int(entry.name))]
    return found


def disturbed(inputs: Path, out: Path, kills: int, seed: int, within: float) -> list[str]:
    """Run the batch, killing it or one of its processes `kills` times, to its end; what was killed when."""
    chance = random.Random(seed)
    deaths: list[str] = []
    while len(deaths) < kills:
        with subprocess.Popen(command(inputs, out, "--resume"), stdout=subprocess.DEVNULL) as run:
            while len(deaths) < kills:
                with suppress(subprocess.TimeoutExpired):
                    run.wait(chance.uniform(0, within))
                    break  # finished before it was killed: begin once more
                victims = [run.pid] if chance.random() < 0.5 else children(run.pid)
                if not victims:
                    continue
                victim = chance.choice(victims)
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    deaths.append("main" if victim == run.pid else "a process of it")
                if victim == run.pid:
                    break
        if run.returncode is not None and run.returncode >= 0 and len(deaths) < kills:
            shutil.rmtree(out)  # all done with kills to spare
    return deaths


def main(arguments: list[str] | None = None) -> None:
    """Compare, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    inputs = make_inputs(options.folder / "inputs", options.clips)
    began = time.monotonic()
    whole, killed = options.folder / "undisturbed", options.folder / "killed"
    subprocess.run(command(inputs, whole), check=False, stdout=subprocess.DEVNULL)
    took = time.monotonic() - began
    deaths = disturbed(inputs, killed, options.kills, options.seed, took / 3)
    last = subprocess.run(command(inputs, killed, "--resume"), stdout=subprocess.PIPE)
    lines = [json.loads(line)["input"]["path"] for line in last.stdout.splitlines()]
    expected, found = results(whole), results(killed)
    rows = found["rows"]
    sys.stdout.write(
        f"{len(deaths)} kills ({deaths.count('main')} of the main process); {len(rows)} rows for"
        f" {options.clips} inputs, {len(lines)} of them reported, {len(set(lines))} different; undisturbed"
        f" {took:.0f} s\n"
    )
    for what, value in expected.items():
        same = value == found[what]
        sys.stdout.write(f"{what}: {'as undisturbed' if same else 'DIFFERENT'}\n")
    left = [p.name for p in killed.rglob(".*") if ".part-" in p.name]
    sys.stdout.write(f"left over: {left or 'nothing'}\n")
    counted = len(lines) == len(set(lines)) == len(rows) == options.clips
    if expected != found or left or not counted:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
