"""Measures what docs/million-clips.md multiplies by a million: seconds, bytes and rows (`make rates`)."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from builders import reports
from deepscan import Scoring, Settings
from deepscan.batches.outcomes import NAME, Attempt, Outcome, Outcomes
from deepscan.pipeline import scan
from deepscan.verification import sample as demo

ROWS, SCANS = 2_000, 3


def main() -> None:
    """Measure and print."""
    report, _ = reports.made(path="a.mp4")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo.write(folder / "sample.mp4")
        settings = Settings(scoring=Scoring(offline=True))
        scan(folder / "sample.mp4", settings, out=folder / "first")  # loads the networks
        wall, used = time.perf_counter(), _used()
        for i in range(SCANS):
            scan(folder / "sample.mp4", settings, out=folder / f"{i}")
        wall, used = time.perf_counter() - wall, _used() - used
        files = [path for path in (folder / "first").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        sys.stdout.write(
            f"sample clip (8 s, one face, 32 instants), networks loaded: {wall / SCANS:.2f} s,"
            f" {used / SCANS:.2f} core-seconds; results {size / 1024:.0f} KiB in {len(files)} files\n"
        )
        out = folder / "batch"
        rows, began = Outcomes(out), time.perf_counter()
        for i in range(ROWS):
            path = folder / f"{i}.mp4"
            attempt = Attempt(out / f"{i}.mp4", i, 0, "work")
            rows.begin(path, attempt)
            rows.finish(path, attempt, replace(Outcome.of(path, report), folder=attempt.folder))
        took = time.perf_counter() - began
        rows.close()
        each = (out / NAME).stat().st_size / ROWS
        sys.stdout.write(f"batch.sqlite: {ROWS / took:.0f} inputs/s, {each:.0f} bytes a row\n")
    kept = [Outcome.of(Path(f"/folder/{i}.mp4"), report) for i in range(ROWS)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{len(kept)} outcomes held; peak memory of this process {peak:.0f} MiB\n")


def _used() -> float:
    """Processor seconds of this process and those of its decoders that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


if __name__ == "__main__":
    main()
