"""Batches of crops filled up, cut and replayed; with a GPU, that a recording says what its work says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from deepscan.model import packed, recorded
from deepscan.model.detector import Detector
from deepscan.model.header import DetectorSettings
from deepscan.model.recorded import KEPT, WORTH, Recorded, padded

CPU = torch.device("cpu")

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="recording is CUDA's, and no GPU for it is here"
)


def pictures(rng: np.random.Generator, count: int, side: int = 4) -> np.ndarray:
    return rng.integers(0, 256, (count, side, side, 3), np.uint8)


def sums(crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return crops.float().sum((1, 2, 3)), crops[:, 0].float()


class Fake:
    """A recording without a GPU: the same work on the same memory. It notes the sizes it was made for."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.replayed: list[int] = []

    def __call__(self, work: Callable[..., Any], crops: torch.Tensor) -> Callable[[], Any]:
        self.made.append(len(crops))

        def replay() -> tuple[torch.Tensor, ...]:
            self.replayed.append(len(crops))
            return work(crops)

        return replay


@pytest.mark.parametrize(
    ("count", "size"),
    [(1, 1), (2, 2), (3, 4), (8, 8), (9, 16), (33, 64), (64, 64), (65, 65), (300, 300)],
)
def test_batches_are_filled_up_to_powers_of_two(count: int, size: int) -> None:
    assert padded(count, 64) == size


def test_every_crop_gets_its_own_answer_however_its_batch_is_filled(
    rng: np.random.Generator,
) -> None:
    fake = Fake()
    run = Recorded(sums, CPU, most=8, record=fake)
    for count in (1, 3, 8, 5, 20, 2, *[7] * WORTH, 6, 1):
        crops = pictures(rng, count)
        total, first = run(crops)
        np.testing.assert_array_equal(total, crops.sum((1, 2, 3)))
        np.testing.assert_array_equal(first, crops[:, 0])
    assert fake.made == [8]
    # Of 8, 5 and 7s the first eight were done step by step.
    assert fake.replayed == [8] * 3


def test_answers_outlive_the_next_batch(rng: np.random.Generator) -> None:
    run = Recorded(lambda crops: (crops,), CPU)
    one, two = pictures(rng, 2), pictures(rng, 2)
    (first,) = run(one)
    run(two)
    np.testing.assert_array_equal(first, one)


def test_crops_of_other_sizes_are_batches_of_their_own(rng: np.random.Generator) -> None:
    fake = Fake()
    run = Recorded(sums, CPU, record=fake)
    for _ in range(WORTH):
        for side in (4, 6):
            crops = pictures(rng, 2, side)
            np.testing.assert_array_equal(run(crops)[0], crops.sum((1, 2, 3)))
    assert fake.made == [2, 2]
    for side in range(1, 3 * KEPT):
        run(pictures(rng, 1, side))
    assert len(run._batches) == KEPT


def test_large_batches_are_neither_filled_up_nor_kept(rng: np.random.Generator) -> None:
    seen: list[int] = []

    def work(crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.append(len(crops))
        return sums(crops)

    fake = Fake()
    run = Recorded(work, CPU, most=4, record=fake)
    for _ in range(2 * WORTH):
        run(pictures(rng, 5))
    assert seen == [5] * 2 * WORTH
    assert not fake.made
    assert not run._batches


def test_what_cannot_be_recorded_is_done_step_by_step(rng: np.random.Generator) -> None:
    def scarce(*_: Any) -> Any:
        raise torch.OutOfMemoryError("no memory left")

    run = Recorded(sums, CPU, record=scarce)
    crops = pictures(rng, 3)
    for turn in range(1, 2 * WORTH):
        if turn == WORTH:
            with pytest.warns(UserWarning, match=r"scoring 4 crops step by step.*no memory"):
                found = run(crops)
        else:
            found = run(crops)
        np.testing.assert_array_equal(found[0], crops.sum((1, 2, 3)))


def tiny(tower: str, token: str = "global") -> Detector:
    torch.manual_seed(0)
    detector = Detector(DetectorSettings(tower=tower, heads=2, token=token)).eval()
    return detector.requires_grad_(False)


@pytest.mark.parametrize("token", ["global", "cls"])
def test_a_detector_scores_alike_in_filled_up_batches(
    tiny_tower: str, rng: np.random.Generator, token: str
) -> None:
    detector = tiny(tiny_tower, token)
    crops = pictures(rng, 5, 32)
    plain = detector.score(crops)
    detector.run = Recorded(detector.outputs, CPU, record=Fake())
    for _ in range(WORTH + 1):
        again = detector.score(crops)
        for name in ("logit", "query_attention", "cls_attention"):
            np.testing.assert_allclose(getattr(again, name), getattr(plain, name), atol=1e-6)


def test_a_batch_too_large_for_the_device_is_halved_as_without(
    tiny_tower: str, rng: np.random.Generator
) -> None:
    detector = tiny(tiny_tower)
    sizes: list[int] = []

    def scarce(crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sizes.append(len(crops))
        if len(crops) > 2:
            raise torch.OutOfMemoryError("no memory left")
        return detector.outputs(crops)

    crops = pictures(rng, 7, 32)
    plain = detector.score(crops)
    detector.run = Recorded(scarce, CPU, record=Fake())
    np.testing.assert_allclose(detector.score(crops).logit, plain.logit, atol=1e-6)
    assert sizes == [8, 4, 2, 2, 4, 2, 1]


@pytest.mark.parametrize(
    ("dtype", "apart"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=["float32", "bfloat16"]
)
def test_joined_activations_compute_the_same(
    tiny_tower: str, dtype: torch.dtype, apart: float
) -> None:
    tower = tiny(tiny_tower).tower.to(dtype)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.inference_mode():
        plain = [tower(images, patches=wanted) for wanted in (True, False)]
        packed.join_activations(tower)
        again = [tower(images, patches=wanted) for wanted in (True, False)]
    for before, after in zip(plain, again, strict=True):
        for name in ("cls", "patches", "cls_attention"):
            torch.testing.assert_close(
                getattr(after, name), getattr(before, name), atol=apart, rtol=0
            )


def test_other_activations_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepscan.model import tower

    plain = tower.TowerSize(32, 8, 32, 2, 16, head_width=8)
    monkeypatch.setattr(tower, "tower_size", lambda name: plain)
    made = tower.Tower("plain")
    packed.join_activations(made)
    assert not any(isinstance(module, packed.Scaled) for module in made.modules())


# --- with a GPU ------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize("token", ["global", "cls"])
def test_a_recording_says_what_its_work_says(
    tiny_tower: str, rng: np.random.Generator, token: str
) -> None:
    detector = tiny(tiny_tower, token).cuda()
    device = detector.mean.device
    detector.run = Recorded(detector.outputs, device)
    for turn in range(3 * WORTH):
        crops = pictures(rng, 5 + turn % 4, 32)
        filled = np.concatenate([crops, crops])[:8]
        with torch.inference_mode():
            plain = detector.outputs(torch.from_numpy(filled))[0][: len(crops)].cpu().numpy()
        np.testing.assert_array_equal(detector.score(crops).logit, plain)
    assert isinstance(detector.run, Recorded)
    assert [batch.replay is not None for batch in detector.run._batches.values()] == [True]


@needs_gpu
def test_recording_bears_another_thread_at_work_on_the_gpu(
    tiny_tower: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, done = tiny(tiny_tower).cuda(), threading.Event()
    failed: list[BaseException] = []

    def bother() -> None:
        try:
            while not done.is_set():
                # Memory is asked of CUDA anew, values are waited for: what a search for faces does. No
                # numbers are drawn: CUDA's generator belongs to the recording while there is one.
                torch.arange(2**20, device="cuda").gt(2**19).nonzero().cpu()
                torch.cuda.empty_cache()
        except RuntimeError as error:
            failed.append(error)

    monkeypatch.setattr(recorded, "WORTH", 1)
    thread = threading.Thread(target=bother)
    thread.start()
    try:
        for side in range(32, 48):
            run = Recorded(detector.outputs, detector.mean.device)
            crops = pictures(rng, 3, side)
            first, again = run(crops), run(crops)
            assert torch.equal(first[0], again[0])
    finally:
        done.set()
        thread.join()
    assert not failed
