"""Records a detector's work on a GPU once for each batch size and replays it: CUDA graphs.

    crops --> page-locked memory --> the recording's own input --> replay --> its own outputs --> host

For a few crops Python needs longer to launch some two hundred kernels than the GPU needs to run them; a
replay is one launch. A recording has a fixed size, so a batch is filled up to the next power of two with
whatever is in
memory: crops of one batch do not affect each other, and the surplus results are dropped.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepscan.shapes import UInt8

# Batches of more crops than this are as fast without a recording, so they are neither filled up nor recorded.
MOST = 64

# A size is recorded after this many batches of it. Recording costs as much as it saves in about twenty
# batches, so the few of a single clip do without.
WORTH = 8

# Sizes kept ready, of batches and of crops.
KEPT = 16

Crops = UInt8[Tensor, "b height width 3"]
Work = Callable[[Crops], tuple[Tensor, ...]]
Replay = Callable[[], tuple[Tensor, ...]]


class _Batch:
    """One batch size: its buffers on the host and on the device, and its replay once recorded."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.waiting = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self.crops = torch.empty(shape, dtype=torch.uint8, device=device)
        self.runs = 0
        self.replay: Replay | None = None

    def fill(self, crops: np.ndarray) -> None:
        self.waiting[: len(crops)] = torch.from_numpy(np.require(crops, requirements="W"))
        self.crops[: len(crops)].copy_(self.waiting[: len(crops)], non_blocking=True)


class Recorded:
    """Work on crops, done by replaying, for one thread at a time; others wait.

    It uses a stream of its own, so that it does not wait for other work on the device, such as finding faces.

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
        """The results of `work` for these crops, on the host.

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
                    f"scoring {len(batch.crops)} crops step by step, because the work cannot be"
                    f" recorded: {error}",
                    stacklevel=2,
                )
        return found


def padded(count: int, most: int) -> int:
    """The batch size used for `count` crops: the next power of two, or above `most` just `count`."""
    size = 1 << max(count - 1, 0).bit_length()
    return size if size <= most else count


def graph(device: torch.device) -> Callable[[Work, Crops], Replay]:
    """A way to record on `device`; recordings share memory because they never run at the same time."""
    pool: Any = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def record(work: Work, crops: Crops) -> Replay:
        recording = torch.cuda.CUDAGraph()
        # "thread_local": another thread, finding faces, may go on meanwhile.
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
