"""The window and the liveness verdict, as pure functions on a simulated link."""

from __future__ import annotations

from collections import deque

import pytest

from dwcp.transport.liveness import LANE_TIMEOUT, PATIENCE, WriterLiveness
from dwcp.transport.window import CAP, FLOOR, Window

BATCH = 64 << 10


def run(
    window: Window, rate: float, seconds: float, *, delay: float = 0.005, start: float = 0.0, offered: float = 1e12
) -> float:
    """A link of `rate` bytes a second with a queue, and a program that offers `offered`; the part of `rate` used."""
    now, free, sent, done = start, start, 0, 0
    way: deque[float] = deque()
    while now < start + seconds:
        while way and way[0] <= now:
            way.popleft()
            window.acked(BATCH, now)
            done += BATCH
        while sent + BATCH <= offered * (now - start) and window.has_room(delay):
            window.sent(BATCH, now)
            sent += BATCH
            free = max(free, now) + BATCH / rate
            way.append(free + delay)
        now += 0.001
    for _ in way:
        window.acked(BATCH, now)
    return done / (rate * seconds)


@pytest.mark.parametrize("rate", [12.5e6, 125e6, 500e6])
def test_the_window_ramps_up_by_itself_and_fills_the_link(rate: float) -> None:
    assert run(Window(0.1), rate, 2.0) > 0.9


@pytest.mark.parametrize("rate", [12.5e6, 125e6])
def test_a_full_link_holds_about_the_window_in_time(rate: float) -> None:
    window = Window(0.1)
    run(window, rate, 3.0)
    assert 0.08 < window.limit(0.005) / rate < 0.16


def test_a_link_that_becomes_slow_shrinks_the_window() -> None:
    window = Window(0.1)
    run(window, 125e6, 2.0)
    run(window, 5e6, 6.0, start=3.0)
    assert window.limit(0.005) / 5e6 < 0.3


def test_a_long_way_is_filled_too() -> None:
    assert run(Window(0.1), 12.5e6, 20.0, delay=0.2) > 0.85


def test_a_program_that_says_little_does_not_shrink_the_window_fast() -> None:
    window = Window(0.1)
    run(window, 125e6, 2.0)
    before = window.rate
    run(window, 125e6, 0.3, start=3.0, offered=2e6)
    assert window.rate > before / 2


def test_a_burst_after_a_lost_link_does_not_open_the_window_wide() -> None:
    window = Window(0.1)
    run(window, 12.5e6, 2.0)
    before = window.limit(0.005)
    window.sent(before, 10.0)
    window.has_room(0.005)
    window.acked(before, 20.0)
    window.sent(BATCH, 20.0)
    window.acked(BATCH, 20.051)
    assert window.limit(0.005) <= before * 2.5


def test_floor_and_cap_hold() -> None:
    window = Window(10.0)
    assert window.limit(0.0) == FLOOR
    window.rate = 1e12
    assert window.limit(0.0) == CAP
    window.sent(100, 0.0)
    window.forget(100)
    assert window.out == 0


def test_a_lane_is_dead_when_its_echo_stays_away_while_others_are_heard() -> None:
    life = WriterLiveness(echoed=100.0)
    assert life.verdict(100.0 + LANE_TIMEOUT * 0.9, 90.0, 100.0 + LANE_TIMEOUT * 0.8, 0) is None
    assert life.verdict(100.0 + LANE_TIMEOUT * 1.1, 90.0, 100.0 + LANE_TIMEOUT, 0)


def test_a_lane_is_not_judged_while_nothing_is_heard_at_all() -> None:
    life = WriterLiveness(echoed=100.0)
    assert life.verdict(1000.0, None, 1000.0, 0) is None
    assert life.verdict(1000.0, 999.0, 1000.0, 0) is None
    assert life.verdict(1000.0, 90.0, 100.0, 0) is None


def test_a_crawling_lane_is_given_time_but_not_for_ever() -> None:
    life = WriterLiveness(echoed=100.0)
    for second in range(1, 100):
        now = 100.0 + second
        life.observe(now, second * 1000)
        verdict = life.verdict(now, 90.0, now, 50_000)
        assert (verdict is None) == (second < LANE_TIMEOUT * PATIENCE)
