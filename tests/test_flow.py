"""The threads that decode ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from deepscan.errors import UnreadableInput
from deepscan.flow import Clock, ahead, chunks


def test_chunks_are_full_but_the_last() -> None:
    assert list(chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_the_clock_adds_up_what_a_stage_takes() -> None:
    clock = Clock()
    for _ in range(2):
        with clock("faces"):
            pass
    assert clock.seconds.keys() == {"faces"}
    assert clock.seconds["faces"] >= 0


def same(item: int) -> int:
    return item


def test_everything_comes_in_order() -> None:
    parts = [iter(range(0, 100, 3)), iter(range(1, 100, 3)), iter(range(2, 100, 3))]
    with ahead(parts, 3, same) as items:
        assert list(items) == list(range(100))


def test_an_error_in_the_thread_comes_out() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise UnreadableInput("broken off")

    with (
        pytest.raises(UnreadableInput, match="broken off"),
        ahead([iter([5]), broken()], 3, same) as items,
    ):
        list(items)


def test_it_never_runs_further_ahead_than_allowed() -> None:
    made: list[int] = []

    def count() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    with ahead([count()], 4, same) as items:
        for i in items:
            assert len(made) <= i + 4 + 2  # the queue, the one in hand, the one being put


def test_leaving_early_stops_it_and_closes_its_source() -> None:
    closed: list[bool] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    with ahead([endless(), endless()], 2, same) as items:
        next(items)
    assert closed == [True, True]


def test_ctrl_c_waits_for_no_thread() -> None:
    """A search for faces in a large picture takes seconds, and nobody will read what it finds."""
    free = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        free.wait()

    def ctrl_c() -> None:
        with ahead([slow()], 2, same) as items:
            assert next(items) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ctrl_c()
    assert not free.is_set()
    free.set()
