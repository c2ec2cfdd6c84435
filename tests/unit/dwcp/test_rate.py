"""The rate limit: as a pure bucket, over all lanes of a session, and what passes in spite of it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp import control
from dwcp.buffers import BufferPool
from dwcp.errors import ControlFailed
from dwcp.outbox import LEAST_BATCH, SMALL_BATCH, URGENT_SECONDS, URGENT_UNSENT, Batch, Outbound, Outbox
from dwcp.transport.carrier import UNSENT_BYTES
from dwcp.transport.frames import MAX_BATCH
from dwcp.transport.lane import Lane
from dwcp.transport.rate import BURST_SECONDS, Pacer

from .harness import Pair, Server, read_all, until

Ends = Callable[..., Pair]


@given(
    st.integers(10_000, 10**9),
    st.lists(st.tuples(st.integers(1, 4 << 20), st.floats(0, 0.5)), min_size=1, max_size=60),
)
def test_no_span_carries_more_than_the_rate_and_one_burst_and_one_frame(
    limit: int, frames: list[tuple[int, float]]
) -> None:
    pacer, now = Pacer(), 1000.0
    pacer.change(limit, now)
    sent: list[tuple[float, int]] = []
    for size, pause in frames:
        now += pause
        now += pacer.wait(now)
        pacer.charge(size, now)
        sent.append((now, size))
    for first, (begun, _) in enumerate(sent):
        for last, (ended, size) in enumerate(sent[first:], first):
            carried = sum(part for _, part in sent[first : last + 1])
            assert carried <= limit * (ended - begun + BURST_SECONDS) * 1.0001 + size + 1


def test_a_busy_program_gets_all_of_the_rate() -> None:
    pacer, now, carried = Pacer(), 0.0, 0
    pacer.change(1_000_000, now)
    while now < 10:
        now += pacer.wait(now) + 0.0005
        pacer.charge(64 << 10, now)
        carried += 64 << 10
    assert 0.95 < carried / 10e6 < 1.05


def test_a_change_keeps_the_debt_in_bytes_and_zero_is_no_bound() -> None:
    pacer = Pacer(1_000_000)
    pacer.charge(500_000, 10.0)
    assert pacer.wait(10.0) == pytest.approx(0.48)
    pacer.change(2_000_000, 10.0)
    assert pacer.wait(10.0) == pytest.approx(0.24)
    pacer.change(0, 10.0)
    assert pacer.wait(10.0) == 0.0


def queue(limit: int) -> tuple[Outbox, Outbound, Outbound, Lane]:
    """An outbox with a bulk flow and a small one, and a lane that has said its ping."""
    box = Outbox(0.1, BufferPool(1 << 20, 4), limit)
    one, _ = socket.socketpair()
    lane = Lane(one, BufferPool(1 << 20, 4))
    lane.next_ping = float("inf")
    return box, box.open_flow(1, bulk=True), box.open_flow(2, bulk=False), lane


def put(box: Outbox, out: Outbound, size: int) -> None:
    assert box.put(out, memoryview(bytes(size)), size, bytes(16), None)


def test_bulk_waits_for_the_limit_and_a_program_that_says_little_does_not() -> None:
    box, bulk, small, lane = queue(100)
    put(box, bulk, 1000)
    first = box.next(lane)
    assert isinstance(first, Batch)
    assert first.flow is bulk
    put(box, bulk, 1000)
    put(box, small, 10)
    second = box.next(lane)
    assert isinstance(second, Batch)
    assert second.flow is small
    assert box.paced
    assert not box.starving(bulk)
    box.limit(0)
    third = box.next(lane)
    assert isinstance(third, Batch)
    assert third.flow is bulk


def test_an_urgent_flow_goes_first_with_a_short_window_and_a_small_backlog() -> None:
    box, bulk, _, lane = queue(0)
    other = box.open_flow(3, bulk=True)
    put(box, bulk, 100_000)
    put(box, other, 100_000)
    box.hasten(other)
    assert other.window.seconds == URGENT_SECONDS < bulk.window.seconds
    first = box.next(lane)
    assert isinstance(first, Batch)
    assert first.flow is other
    assert lane.unsent == URGENT_UNSENT


def test_batches_shrink_with_the_limit_but_never_become_small_talk() -> None:
    box, bulk, small, _ = queue(0)
    assert box.batch_bound(bulk) == MAX_BATCH
    box.limit(10_000_000)
    assert box.batch_bound(bulk) == 200_000
    assert box.batch_bound(small) == MAX_BATCH
    box.limit(1000)
    assert box.batch_bound(bulk) == LEAST_BATCH > SMALL_BATCH
    box.limit(0)
    bulk.window.rate = 100e6
    box.hasten(bulk)
    assert box.batch_bound(bulk) == 100e6 * URGENT_SECONDS / 4


def test_many_lanes_share_a_small_window_in_small_parts_and_two_are_left_as_they_are() -> None:
    box, bulk, _, lane = queue(0)
    bulk.window.rate = 12e6
    box.spread(2)
    assert box.batch_bound(bulk) == MAX_BATCH
    put(box, bulk, 1000)
    assert isinstance(box.next(lane), Batch)
    assert lane.unsent == 0  # as it was made
    box.spread(8)
    assert box.batch_bound(bulk) == 12e6 * 0.1 / 16
    put(box, bulk, 1000)
    assert isinstance(box.next(lane), Batch)
    assert lane.unsent == 64 << 10
    bulk.window.rate = 1e9
    box.spread(8)
    put(box, bulk, 1000)
    assert isinstance(box.next(lane), Batch)
    assert lane.unsent == UNSENT_BYTES


class Stream:
    """A program that writes as fast as it is let, and one that counts what comes."""

    def __init__(self, pair: Pair) -> None:
        self.arrived = 0
        self._data = os.urandom(1 << 20)
        self._server = Server(pair.path("ram"), self._count)
        self._sock = pair.connect("ram")
        threading.Thread(target=self._write, daemon=True).start()

    def _count(self, _: int, sock: socket.socket) -> None:
        try:
            while part := sock.recv(1 << 20):
                self.arrived += len(part)
        except OSError:
            return  # the test is over

    def _write(self) -> None:
        try:
            while True:
                self._sock.sendall(self._data)
        except OSError:
            return  # the test is over

    def close(self) -> None:
        self._sock.close()
        self._server.close()


def sent_within(pair: Pair, limit: int, size: int) -> None:
    """`size` bytes go out, not faster than `limit` allows; a frame and a burst more are none of its business."""
    begun, first = time.monotonic(), control.status(pair.source).wire_out
    until(f"{size} more bytes", lambda: control.status(pair.source).wire_out >= first + size)
    last = control.status(pair.source).wire_out
    assert last - first <= limit * (time.monotonic() - begun + BURST_SECONDS) + 3 * LEAST_BATCH


def test_the_limit_holds_over_all_lanes_can_be_changed_and_is_shown(ends: Ends) -> None:
    pair = ends()
    pair.start(both={"codec": "raw", "rate_limit": 2_000_000, "lanes": 4})
    stream = Stream(pair)
    until("the stream has begun", lambda: stream.arrived)
    assert pair.status()[0].rate_limit == 2_000_000
    sent_within(pair, 2_000_000, 2_000_000)
    assert control.limit(pair.source, 3_000_000).rate_limit == 3_000_000
    sent_within(pair, 3_000_000, 3_000_000)
    assert control.limit(pair.source, 0).rate_limit == 0
    before = stream.arrived
    until("it goes on without a bound", lambda: stream.arrived > before + 20_000_000)
    stream.close()


def test_small_talk_passes_a_bulk_stream_that_is_held_back(ends: Ends) -> None:
    pair = ends()

    def answer(_: int, sock: socket.socket) -> None:
        sock.sendall(read_all(sock).upper())
        sock.close()

    server = Server(pair.path("virt"), answer)
    pair.start(both={"codec": "raw", "rate_limit": 200_000})
    stream = Stream(pair)
    until("the stream has begun", lambda: stream.arrived)
    with pair.connect("virt") as sock:
        sock.sendall(b"a question")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"A QUESTION"
    stream.close()
    server.close()


def test_a_limit_that_is_no_number_of_bytes_is_refused(ends: Ends) -> None:
    pair = ends()
    pair.start_destination()
    with pytest.raises(ControlFailed, match="greater than or equal to 0"):
        control.limit(pair.destination, -1)
    assert control.status(pair.destination).rate_limit == 0
