"""A detector's work on a GPU, recorded once for each size of a batch and then replayed: a CUDA graph.

    crops --> page-locked memory --> the recording's own input --> replay --> its own outputs --> host

A few crops keep a GPU busy for less time than Python takes to launch some two hundred kernels for them one by
one; a replay is one launch. What is recorded has one size, so a batch is filled up to the next power of two
with whatever lay there before: crops of one batch do not know of each other, and what is said of those is
cut off.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

# Crops of which a batch is as fast launched one kernel at a time: larger ones are not filled up or recorded.
MOST = 64

# Batches of a size after which it is recorded: that takes as long as it then spares some twenty of them, so
# a single clip's few do without.
WORTH = 8

# Sizes kept ready, of batches and of crops.
KEPT = 16

Crops = UInt8[Tensor, "b height width 3"]
Work = Callable[[Crops], tuple[Tensor, ...]]
Replay = Callable[[], tuple[Tensor, ...]]


class _Batch:
    """One size of batch: where its crops lie on the host and on the device, and its replay, once recorded."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.waiting = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self.crops = torch.empty(shape, dtype=torch.uint8, device=device)
        self.runs = 0
        self.replay: Replay | None = None

    def fill(self, crops: np.ndarray) -> None:
        self.waiting[: len(crops)] = torch.from_numpy(np.require(crops, requirements="W"))
        self.crops[: len(crops)].copy_(self.waiting[: len(crops)], non_blocking=True)


class Recorded:
    """Some work on crops, done by replaying; for one thread at a time, and others wait.

    It has a stream of its own, so that it does not wait for what else is done on the device, as the
    search for faces.

    Args:
        work: from crops on `device` to tensors with a row for each of them, by kernels alone: it may not
            wait for the device or bring values to it.
        most: see MOST.
        record: makes a replay of work on crops that stay where they are; not on a GPU in tests.
    """

    def __init__(
        self,
        work: Work,
        device: torch.device,
        most: int = MOST,
        record: Callable[[Work, Crops], Replay] | None = None,
    ) -> None:
        self._work, self._device, self._most = work, device, most
        self._record = record or graph(device)
        self._batches: OrderedDict[tuple[int, ...], _Batch] = OrderedDict()
        self._lock = threading.Lock()
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(device))  # weights on their way

    @torch.inference_mode()
    def __call__(self, crops: UInt8[np.ndarray, "b height width 3"]) -> tuple[Tensor, ...]:
        """What `work` says of these crops, on the host.

        Raises:
            torch.OutOfMemoryError: the device has no memory for so many.
        """
        with self._lock, torch.cuda.stream(self._stream):  # of None: no change
            batch = self._batch((padded(len(crops), self._most), *crops.shape[1:]))
            batch.fill(crops)
            found = self._run(batch)
            return tuple(one[: len(crops)].to("cpu", copy=True) for one in found)

    def _batch(self, shape: tuple[int, ...]) -> _Batch:
        batch = self._batches.pop(shape, None) or _Batch(shape, self._device)
        if shape[0] <= self._most:
            self._batches[shape] = batch
            if len(self._batches) > KEPT:
                self._batches.popitem(last=False)
        return batch

    def _run(self, batch: _Batch) -> tuple[Tensor, ...]:
        if batch.replay is not None:
            return batch.replay()
        found = self._work(batch.crops)
        batch.runs += 1
        # Recorded right after it was done in this very thread, which has all that the work calls on: nothing
        # is created while recording. Where it fails, as for want of memory, there is the answer all the same.
        if batch.runs == WORTH and len(batch.crops) <= self._most:
            try:
                batch.replay = self._record(self._work, batch.crops)
            except RuntimeError as error:
                warnings.warn(
                    f"the work on {len(batch.crops)} crops is launched step by step, since it cannot be"
                    f" recorded: {error}",
                    stacklevel=2,
                )
        return found


def padded(count: int, most: int) -> int:
    """Crops of the batch that `count` are scored in: the next power of two, or beyond `most` as many."""
    size = 1 << max(count - 1, 0).bit_length()
    return size if size <= most else count


def graph(device: torch.device) -> Callable[[Work, Crops], Replay]:
    """A way to record on `device`; recordings share their memory, since they never run side by side."""
    pool: Any = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def record(work: Work, crops: Crops) -> Replay:
        recording = torch.cuda.CUDAGraph()
        # "thread_local": another thread, looking for faces, may go on as it likes meanwhile.
        with torch.cuda.graph(
            recording,
            pool=pool,
            stream=torch.cuda.current_stream(device),
            capture_error_mode="thread_local",
        ):
            found = work(crops)

        def replay() -> tuple[Tensor, ...]:
            recording.replay()
            return found

        return replay

    return record
