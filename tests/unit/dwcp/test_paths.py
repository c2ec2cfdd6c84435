"""Several networks between two hosts: which lane is dialled where, and what happens when one of them is cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp import control
from dwcp.destination import listen_tcp
from dwcp.errors import StartFailed
from dwcp.transport.hello import RETURN_LANE
from dwcp.transport.paths import FIRST_RETRY, LAST_RETRY, Paths

from .harness import Pair, until
from .test_losses import Transfer

Ends = Callable[..., Pair]


def test_lanes_spread_evenly_and_the_way_back_takes_the_first() -> None:
    paths = Paths(3)
    assert [paths.choose(lane, 0.0) for lane in (0, 1, 2, 3, RETURN_LANE, 4, 5, 6)] == [0, 1, 2, 0, 0, 1, 2, 0]


def test_a_path_that_fails_takes_no_lanes_until_it_has_answered_again() -> None:
    paths = Paths(2)
    for lane in range(4):
        paths.opened(lane, paths.choose(lane, 0.0))
    paths.lost(1, 1, 10.0)
    assert paths.choose(1, 10.0) == 0
    paths.lost(3, 1, 10.0)
    assert paths.choose(3, 10.0) == 0
    assert paths.due(10.0) is None
    assert paths.due(10.0 + 2 * FIRST_RETRY) == 1
    assert paths.due(10.0 + 2 * FIRST_RETRY) is None  # it is being tried
    assert paths.mover(1) == 3
    paths.move(3, 1, 12.0)
    assert paths.due(12.0) is None
    assert paths.due(12.0 + FIRST_RETRY) == 1
    paths.move(2, 1, 13.0)
    assert paths.mover(1) is None
    assert [paths.choose(lane, 13.0) for lane in (4, 5)] == [0, 1]


def test_a_path_that_stays_dead_is_tried_ever_more_seldom() -> None:
    paths = Paths(2)
    for lane in range(4):
        paths.opened(lane, paths.choose(lane, 0.0) * 0)
    now, tries = 0.0, 0
    paths.lost(1, 1, now)
    paths.lost(3, 1, now)
    for lane in (1, 3):
        paths.opened(lane, paths.choose(lane, now))
    while now < 600:
        if paths.due(now) == 1:
            tries += 1
            paths.lost(-1, 1, now)
        now += 0.1
    assert 10 <= tries <= 10 + 600 / LAST_RETRY


def test_with_every_path_dead_each_is_tried_in_turn() -> None:
    paths = Paths(3)
    tried = []
    for step in range(6):
        path = paths.choose(0, float(step))
        tried.append(path)
        paths.lost(0, path, float(step))
    assert tried == [0, 1, 2, 0, 1, 2]
    assert not paths.living()
    assert paths.due(1e9) is None  # nothing could move: lanes are dialled by themselves


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=80))
def test_whatever_happens_a_lane_counts_on_one_path_at_most(count: int, events: list[tuple[int, bool]]) -> None:
    paths, where = Paths(count), dict[int, int]()
    for step, (lane, lost) in enumerate(events):
        now = float(step)
        if lost and lane in where:
            paths.lost(lane, where.pop(lane), now)
        else:
            where[lane] = paths.choose(lane, now)
            assert 0 <= where[lane] < count
            paths.opened(lane, where[lane])
        due = paths.due(now)
        if due is not None:
            mover = paths.mover(due)
            assert mover in where
            paths.move(mover, due, now)
            where[mover] = due
        held = [lane for path in paths._paths for lane in path.lanes]
        assert sorted(held) == sorted(where)


def test_one_port_is_bound_at_every_address_or_at_none() -> None:
    """At addresses that nothing else here uses: at the usual one another test may have the port meanwhile."""
    with socket.create_server(("127.0.7.2", 0)) as taken:
        port = taken.getsockname()[1]
        first, second = listen_tcp(("127.0.7.1", "127.0.7.2"), 0, (port, port + 20))
        with first, second:
            assert first.getsockname()[1] == second.getsockname()[1] > port
            assert second.getsockname()[0] == "127.0.7.2"
        with pytest.raises(StartFailed, match=f"127.0.7.2 port {port}"):
            listen_tcp(("127.0.7.1", "127.0.7.2"), port, (port, port))
        with pytest.raises(StartFailed, match=r"127\.0\.7\.1 and 127\.0\.7\.2"):
            listen_tcp(("127.0.7.1", "127.0.7.2"), 0, (port, port))
        with socket.create_server(("127.0.7.1", port)):
            pass  # it was given free again


class Network:
    """Relays from one port at several addresses of this machine to the same at others; each can be cut by itself."""

    def __init__(self, addresses: tuple[str, ...], port: int) -> None:
        self.listeners = listen_tcp(addresses, 0, (30000, 31999))
        self.port: int = self.listeners[0].getsockname()[1]
        self.down: set[str] = set()
        self.carried: dict[str, int] = dict.fromkeys(addresses, 0)
        self._target = port
        self._open: list[tuple[str, socket.socket]] = []
        for address, listener in zip(addresses, self.listeners, strict=True):
            threading.Thread(target=self._accept, args=(address, listener), daemon=True).start()

    def _accept(self, address: str, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            if address in self.down:
                near.close()
                continue
            far = socket.create_connection((address, self._target))
            self._open += [(address, near), (address, far)]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._relay, args=(address, one, other), daemon=True).start()

    def _relay(self, address: str, one: socket.socket, other: socket.socket) -> None:
        try:
            while part := one.recv(65536):
                self.carried[address] += len(part)
                other.sendall(part)
        except OSError:
            pass
        for sock in (one, other):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def cut(self, address: str) -> None:
        """Nothing passes there any more."""
        self.down.add(address)
        for where, sock in list(self._open):
            if where == address:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()
        for address in self.carried:
            self.cut(address)


ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


def start(pair: Pair, lanes: int) -> Network:
    more = {"more_addresses": ADDRESSES[1:], "lanes": lanes, "codec": "raw"}
    network = Network(ADDRESSES, pair.start_destination(**more).port)
    pair.start_source(network.port, **more)
    for folder in (pair.source, pair.destination):
        pair.wait_state(folder, "connected")
    return network


@pytest.mark.parametrize("broken", ADDRESSES)
def test_lanes_of_a_path_that_is_cut_go_on_over_the_others_and_come_back(ends: Ends, broken: str) -> None:
    pair = ends()
    network = start(pair, 3)
    transfer = Transfer(pair)
    transfer.half_way()
    assert all(carried > 100_000 for carried in network.carried.values())
    network.cut(broken)
    until("all lanes live on the other paths", lambda: all(end.lanes_alive == 4 for end in pair.status()))
    before = network.carried[broken]
    network.down.clear()
    until("a lane has moved back", lambda: network.carried[broken] > before)
    transfer.finish()
    assert pair.wait_state(pair.source, "connected").error == ""
    network.close()


def test_a_path_that_is_dead_from_the_beginning_does_not_keep_the_session_from_starting(ends: Ends) -> None:
    pair = ends()
    more = {"more_addresses": ("127.0.0.9",), "codec": "raw"}
    port = pair.start_destination(codec="raw").port
    pair.start_source(port, **more)
    pair.wait_state(pair.source, "connected")
    assert control.status(pair.source).lanes_alive == 3
    Transfer(pair, 3_000_000).finish()


def test_every_path_gets_a_lane_though_fewer_lanes_were_asked_for(ends: Ends) -> None:
    pair = ends()
    network = start(pair, 1)
    assert pair.status()[0].lanes_alive == 4
    assert all(network.carried.values())
    network.close()
