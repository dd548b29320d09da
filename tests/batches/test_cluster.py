"""A batch on a real Ray cluster of this machine; skipped where ray is not installed."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepscan.batches.batch import Batch
from deepscan.batches.inputs import found
from deepscan.batches.outcomes import Outcome
from deepscan.batches.pool import Death, Pool
from deepscan.cli import run
from deepscan.errors import SettingsError
from tools import kills
from tools.cluster import QUICK, logits, poisonous

ray = pytest.importorskip("ray", reason="ray is not installed")

# Ray leaves sockets and files to the collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# Where a worker finds this file, the builders, and the tools.
PYTHONPATH = os.pathsep.join(map(str, Path(__file__).parents[:3]))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One cluster for this file, of two cores."""
    from deepscan.batches.cluster import connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PYTHONPATH)
        patch.setenv("RAY_worker_niceness", "0")  # by default they yield to whatever else there is
        patch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # left by a cluster that is no more
        connect(None)
        yield
        ray.shutdown()
        gc.collect()  # what Ray leaves to the collector, while its warnings are not heeded


def start() -> None:
    """Nothing to prepare."""


def work(task: tuple[str, int]) -> int:
    kind, number = task
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "raise":
        raise ZeroDivisionError
    return 2 * number


def test_every_task_has_its_result_and_the_deadly_ones_are_named(cluster: None) -> None:
    from deepscan.batches.cluster import Actors

    tasks = deque([("", 1), ("kill", 0), ("", 2), ("raise", 0), ("", 3)])
    pool = Pool(work, 2, start, tries=2, crew=Actors)
    try:
        results = dict(pool.run(lambda: tasks.popleft() if tasks else None))
    finally:
        pool.close()
    assert {task: results[task] for task in results if task[0] == ""} == {
        ("", 1): 2,
        ("", 2): 4,
        ("", 3): 6,
    }
    assert isinstance(results["kill", 0], Death)
    assert isinstance(results["raise", 0], Death)


def broken() -> None:
    raise ImportError("no such detector here")


def test_workers_that_cannot_start_are_told_of_and_not_tried_for_ever(cluster: None) -> None:
    from deepscan.batches.cluster import Actors

    pool = Pool(work, 1, broken, crew=Actors)
    with pytest.raises(SettingsError, match="every machine has the same version of deepscan"):
        next(pool.run(lambda: ("", 1)))
    pool.close()


def test_a_batch_with_poison_and_a_lost_worker_has_every_row_and_the_same_scores(
    cluster: None, tmp_path: Path
) -> None:
    inputs = kills.make_inputs(tmp_path / "in", 5)
    (inputs / "poison.png").write_bytes((inputs / "000.png").read_bytes() + b"\0")

    def assess(out: Path, **more: Any) -> dict[str, Outcome]:
        with Batch(out, QUICK, jobs=2, threads=1, **more) as batch:
            outcomes = {}
            for one in batch.assess(list(found([inputs], out))):
                outcomes[one.path.name] = one
                if more and len(outcomes) == 3:  # in the middle of it a worker is lost
                    busy = batch._pool.crew._busy
                    if busy:
                        ray.kill(next(iter(busy.values()))[0])
            return outcomes

    here, there = assess(tmp_path / "here"), assess(tmp_path / "there", crew=poisonous)
    assert len(here) == len(there) == 6
    assert {n for n, one in there.items() if one.reason == "ProcessDied"} == {"poison.png"}
    sound = {name: one for name, one in here.items() if name != "poison.png"}
    kept = {name: one for name, one in there.items() if name != "poison.png"}
    assert {n: o.verdict for n, o in kept.items()} == {n: o.verdict for n, o in sound.items()}
    assert logits(kept) == logits(sound)


def test_the_same_command_runs_on_a_cluster(
    cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pyarrow import parquet

    inputs = kills.make_inputs(tmp_path / "in", 3)
    options = ["--offline", "-q", "--json", "--frames", "2", "--out", str(tmp_path / "out")]
    rows = ["--parquet", (tmp_path / "rows").as_uri()]
    assert run(["detect", str(inputs), *options, *rows, "--engine", "ray"]) in (0, 4)
    output = [json.loads(line)["input"]["path"] for line in capsys.readouterr().out.splitlines()]
    table = parquet.read_table(tmp_path / "rows").to_pydict()
    assert sorted(table["path"]) == sorted(output) == sorted(map(str, inputs.iterdir()))


def test_sigterm_ends_the_batch_and_leaves_the_cluster(cluster: None, tmp_path: Path) -> None:
    """On a cluster that was there before, joined by its address."""
    inputs = kills.make_inputs(tmp_path / "in", 2)
    Image.fromarray(np.zeros((7000, 7000, 3), np.uint8)).save(inputs / "slow.bmp")
    out, address = tmp_path / "out", ray.get_runtime_context().gcs_address
    options = ["--frames", "2", "--offline", "-q", "--json", "--min-face", "12", "--out", str(out)]
    command = [sys.executable, "-m", "deepscan", "detect", str(inputs), *options]
    with subprocess.Popen(
        [*command, f"--engine=ray={address}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        assert process.stdout.readline()  # and now the slow one
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        output = process.stderr.read()
        assert (process.returncode, output) == (130, b"interrupted; finished results are kept\n")
    names = sorted(p.name for p in out.iterdir() if not p.name.endswith(("-wal", "-shm")))
    assert names == [
        "000.png",
        "001.png",
        "batch.sqlite",
        "index.html",
        "inputs.csv",
        "inputs.parquet",
    ]
    assert ray.cluster_resources()["CPU"] > 0
