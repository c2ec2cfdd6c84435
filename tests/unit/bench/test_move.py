"""Figures that a move's samples and counters give."""

from __future__ import annotations

import pytest

from bench.carriers import METHODS
from bench.move import bulk_rate
from bench.plan import CUT


def test_the_rate_in_bulk_leaves_the_start_and_the_end_out() -> None:
    slow_start = [(0.0, 0), (5.0, 100)]
    bulk = [(5.0 + i / 10, 100 + i * 10) for i in range(1, 81)]
    slow_end = [(20.0, 990), (30.0, 1000)]
    assert bulk_rate([*slow_start, *bulk, *slow_end]) == pytest.approx(100)


def test_bytes_before_the_first_sample_do_not_count() -> None:
    samples = [(i / 10, 10**9 + i * 7) for i in range(100)]
    assert bulk_rate(samples) == pytest.approx(70)


@pytest.mark.parametrize("samples", [[], [(0.0, 5)], [(0.0, 0), (0.1, 500), (0.2, 1000)]])
def test_too_short_a_move_has_no_rate(samples: list[tuple[float, int]]) -> None:
    assert bulk_rate(samples) is None


def test_only_one_method_has_its_link_cut() -> None:
    assert [name for name, method in METHODS.items() if method.cut_seconds] == [CUT]
