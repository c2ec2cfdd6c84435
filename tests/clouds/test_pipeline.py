"""Work in any order, results in order, nothing left running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from threading import Event

import pytest

from clouds.pipeline import in_order


def test_results_come_in_the_order_of_the_items() -> None:
    second_done = Event()

    def work(item: int) -> int:
        if item == 1:
            assert second_done.wait(30)
        if item == 2:
            second_done.set()
        return item * 10

    assert list(in_order(work, [1, 2, 3], parallel=2)) == [(1, 10), (2, 20), (3, 30)]


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_more_items_are_taken_than_may_be_in_flight(parallel: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    for given, _ in in_order(lambda item: item, items(), parallel):
        assert len(taken) <= given + 1 + parallel


def test_an_error_ends_it_and_nothing_runs_on() -> None:
    ended: list[int] = []

    def work(item: int) -> None:
        if item == 2:
            raise ValueError(item)
        ended.append(item)

    with pytest.raises(ValueError, match="2"):
        list(in_order(work, range(100), parallel=2))
    assert max(ended) <= 4


def test_a_caller_that_stops_waits_for_what_runs() -> None:
    running: set[int] = set()

    def work(item: int) -> None:
        running.add(item)
        running.discard(item)

    with closing(in_order(work, range(100), parallel=4)) as results:
        next(results)
    assert not running
