"""The wire's decisions, without devices or clocks."""

from __future__ import annotations

import random

from workers.lab.wire import MOST_WAITING, Wire


def never() -> float:
    return 1.0


def test_a_frame_comes_out_when_its_delay_is_over() -> None:
    wire = Wire(never, delay=0.04)
    wire.put(10.0, b"one")
    assert wire.next_due() == 10.04
    assert list(wire.due(10.03)) == []
    assert list(wire.due(10.05)) == [b"one"]
    assert wire.next_due() is None


def test_frames_keep_their_order_when_the_delay_gets_shorter() -> None:
    wire = Wire(never, delay=1.0)
    wire.put(0.0, b"first")
    wire.delay = 0.0
    wire.put(0.5, b"second")
    assert list(wire.due(0.9)) == []
    assert list(wire.due(1.0)) == [b"first", b"second"]


def test_about_as_many_frames_are_lost_as_was_asked() -> None:
    wire = Wire(random.Random(1).random, loss=0.1)
    for _ in range(10_000):
        wire.put(0.0, b"x")
    assert 900 < wire.counters.lost < 1100
    assert len(list(wire.due(0.0))) == 10_000 - wire.counters.lost


def test_a_full_wire_drops_instead_of_growing() -> None:
    wire = Wire(never, delay=1.0)
    frame = bytes(1 << 20)
    for _ in range(MOST_WAITING // len(frame) + 3):
        wire.put(0.0, frame)
    assert wire.counters.overrun == 3
    assert len(list(wire.due(1.0))) == MOST_WAITING // len(frame)
    wire.put(2.0, frame)
    assert wire.counters.overrun == 3
