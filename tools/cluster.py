"""Compares a batch on Ray with the same batch here: rows, scores, and what Ray costs for each clip.

python -m tools.cluster FOLDER --clips 200 --poison 10 --jobs 2 [--nodes 2]      (make cluster)

Poison kills any process that opens it; half-way through, one of Ray's workers is killed as well. With
--nodes the cluster is simulated, with that many nodes of one core each (ray.cluster_utils).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray

from deepscan import Sampling, Scoring, Settings
from deepscan.batches.batch import Batch
from deepscan.batches.cluster import Actors, connect
from deepscan.batches.inputs import found
from deepscan.batches.outcomes import Outcome
from tools import kills

QUICK = Settings(sampling=Sampling(frames=2), scoring=Scoring(offline=True))


def deadly(scan: Callable[[Any], Any], task: Any) -> Any:
    """Scanning; files called poison kill their process, as a file that overcomes torch would."""
    if "poison" in task.path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return scan(task)


def poisonous(scan: Callable[[Any], Any], jobs: int, begin: Callable[[], None]) -> Actors:
    return Actors(partial(deadly, scan), jobs, begin)


def logits(outcomes: dict[str, Outcome]) -> dict[str, list[float]]:
    """Every frame's, of every input that has a report."""
    return {
        name: [
            frame["logit"]
            for track in json.loads((one.folder / "report.json").read_bytes())["tracks"]
            for frame in track["frames"]
        ]
        for name, one in outcomes.items()
        if one.folder is not None
    }


def assess(
    inputs: Path, out: Path, jobs: int, kill_at: int = 0, **more: Any
) -> tuple[dict[str, Outcome], float]:
    """A batch's outcomes by name, and the seconds from its first outcome to its last: no start-up."""
    with Batch(out, QUICK, jobs=jobs, threads=1, **more) as batch:
        crew: Any = batch._pool.crew
        outcomes: dict[str, Outcome] = {}
        began = 0.0
        for one in batch.assess(list(found([inputs], out))):
            began = began or time.monotonic()
            outcomes[one.path.name] = one
            if kill_at and len(outcomes) >= kill_at and crew._busy:
                ray.kill(next(iter(crew._busy.values()))[0])
                kill_at = 0
        return outcomes, time.monotonic() - began


def main(arguments: list[str] | None = None) -> None:
    """Compare, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--poison", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=0)
    options = parser.parse_args(arguments)
    root = Path(__file__).parents[1]
    paths = os.pathsep.join(map(str, (root, root / "tests")))  # of the workers: the builders, too
    os.environ |= {"PYTHONPATH": paths, "RAY_worker_niceness": "0"}
    sound = kills.make_inputs(options.folder / "sound", options.clips - options.poison)
    inputs = options.folder / "all"
    inputs.mkdir()
    for path in sound.iterdir():
        os.link(path, inputs / path.name)
    some = next(path for path in sorted(sound.iterdir()) if path.suffix == ".png").read_bytes()
    for i in range(options.poison):
        (inputs / f"poison-{i:03d}.png").write_bytes(some + bytes(i + 1))
    here, seconds_here = assess(sound, options.folder / "here", options.jobs)
    if options.nodes:
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        for _ in range(options.nodes - 1):
            cluster.add_node(num_cpus=1)
        connect(cluster.address)
    else:
        connect(None)
    plain, seconds_plain = assess(sound, options.folder / "ray", options.jobs, crew=poisonous)
    there, _ = assess(
        inputs, options.folder / "poisoned", options.jobs, options.clips // 2, crew=poisonous
    )
    died = sorted(name for name, one in there.items() if one.reason == "ProcessDied")
    kept = {name: one for name, one in there.items() if not name.startswith("poison")}
    same = logits(kept) == logits(plain) == logits(here)
    verdicts = {n: o.verdict for n, o in kept.items()} == {n: o.verdict for n, o in here.items()}
    cost = (seconds_plain - seconds_here) / max(1, len(here) - 1)
    sys.stdout.write(
        f"{len(ray.nodes())} nodes; {len(there)} rows for {options.clips} inputs, {len(died)} of them died"
        f" ({options.poison} poison), one worker killed half-way\n"
        f"scores {'as' if same else 'NOT as'} here, verdicts {'as' if verdicts else 'NOT as'} here\n"
        f"{seconds_here:.1f} s here and {seconds_plain:.1f} s on Ray for {len(here)} sound inputs, of"
        f" {options.jobs} jobs either way: {1000 * cost:+.0f} ms a clip\n"
    )
    ray.shutdown()
    if options.nodes:
        cluster.shutdown()  # and what tells others of it
    right = [f"poison-{i:03d}.png" for i in range(options.poison)]
    if len(there) != options.clips or died != right or not (same and verdicts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
