"""Processes that may die of a task without loss of the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest

from deepscan.batches.pool import Death, Pool


def start() -> None:
    """Nothing to prepare."""


def work(task: tuple[str, int]) -> int:
    """Doubles a number; "kill" and "leave" end the process, "once" only where its file is not there yet."""
    kind, number = task
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "leave":
        os._exit(7)
    if kind.startswith("once "):
        mark = Path(kind.removeprefix("once "))
        if not mark.exists():
            mark.touch()
            os._exit(1)
    return 2 * number


def run(tasks: list[tuple[str, int]], jobs: int = 2) -> dict[tuple[str, int], int | Death]:
    left = deque(tasks)
    pool = Pool(work, jobs, start, tries=2)
    try:
        return dict(pool.run(lambda: left.popleft() if left else None))
    finally:
        pool.close()


def test_every_task_has_its_result_and_the_deadly_ones_are_named(tmp_path: Path) -> None:
    once = f"once {tmp_path / 'mark'}"
    tasks = [("", 1), ("kill", 0), ("", 2), (once, 5), ("leave", 0), ("", 3)]
    assert run(tasks) == {
        ("", 1): 2,
        ("", 2): 4,
        ("", 3): 6,
        (once, 5): 10,
        ("kill", 0): Death("SIGKILL", 2),
        ("leave", 0): Death("exit code 7", 2),
    }


def test_what_a_dead_process_left_can_be_cleared_up(tmp_path: Path) -> None:
    lost: list[tuple[str, int]] = []
    left = deque([("kill", 0), ("", 1)])
    pool = Pool(work, 1, start, tries=2, lost=lost.append)
    assert dict(pool.run(lambda: left.popleft() if left else None))["", 1] == 2
    pool.close()
    assert lost == [("kill", 0)] * 2


def test_processes_are_kept_and_nothing_queues_up() -> None:
    pool, taken = Pool(work, 1, start), deque(("", i) for i in range(3))
    try:
        seen = []
        for task, result in pool.run(lambda: taken.popleft() if taken else None):
            seen.append((task, result, len(taken)))
        assert seen == [(("", 0), 0, 2), (("", 1), 2, 1), (("", 2), 4, 0)]
        (worker,) = pool.crew._idle
        before = worker.process.pid
        assert list(pool.run(iter([("", 9), None]).__next__)) == [(("", 9), 18)]
        assert pool.crew._idle[0].process.pid == before
    finally:
        pool.close()


def test_no_tasks_start_no_process() -> None:
    assert run([]) == {}


def test_closing_ends_what_is_under_way() -> None:
    pool = Pool(time.sleep, 2, start)  # type: ignore[arg-type]
    tasks = iter([0.0, 3600.0, 3600.0, 3600.0])  # waiting for one would outlast every test's limit
    next(pool.run(lambda: next(tasks)))
    processes = [
        worker.process
        for worker in (*pool.crew._idle, *(busy[0] for busy in pool.crew._busy.values()))
    ]
    assert processes
    pool.close()
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_order_is_that_of_finishing(jobs: int) -> None:
    assert sorted(run([("", i) for i in range(6)], jobs).values()) == [0, 2, 4, 6, 8, 10]


# Names of modules that Python imports on its way into a process of a batch.
IMPORTED = ("multiprocessing", "pickle", "signal", "struct", "tempfile", "numpy", "typer")


WORKER = """
import sys
from deepscan.batches.pool import Worker
worker = Worker(print, dict)
worker.pipe.close()
worker.process.join()
sys.exit(worker.process.exitcode)
"""


@pytest.mark.parametrize(
    "command",
    [
        ["-c", WORKER],
        ["-m", "deepscan", "--version"],
    ],
    ids=["a process of a batch", "the command"],
)
def test_nothing_is_imported_from_a_folder_of_evidence(tmp_path: Path, command: list[str]) -> None:
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    for name in IMPORTED:
        (evidence / f"{name}.py").write_text(
            "open('../imported', 'w'); raise ImportError('taken over')"
        )
    # As an installed command begins: the working folder is not on the path.
    safe = ["-P"] if command[0] == "-c" else []
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, *safe, *command], cwd=evidence, env=env, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "imported").exists()


FIRST = """
import sys
from multiprocessing import get_context
from deepscan.batches.pool import _alone
if __name__ == "__main__":
    said = "import signal, sys; sys.exit(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    process = get_context("spawn").Process(target=exec, args=(said,))
    with _alone():
        process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs signal masks")
def test_the_first_process_does_not_hear_ctrl_c_while_it_imports(tmp_path: Path) -> None:
    """It starts multiprocessing's tracker of resources, which unblocks SIGINT in its parent."""
    script = tmp_path / "first.py"
    script.write_text(FIRST, "utf-8")
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, str(script)], env=env).returncode == 1  # it is blocked
