"""Two ends on loopback: bytes in, bytes out, exactly, for every flow and both ways."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import threading
from collections.abc import Callable

import pytest

from dwcp import control, session

from .harness import Pair, Server, read_all, send_all, until

Ends = Callable[..., Pair]


def content(seed: int, size: int) -> bytes:
    """Pages of several kinds: zero, text, random, repeated."""
    dice = random.Random(seed)
    kinds = (bytes(4096), b"some text of a guest. " * 186, dice.randbytes(4096), dice.randbytes(512) * 8)
    out = bytearray()
    while len(out) < size:
        out += dice.choice(kinds)[: dice.choice((1, 9, 100, 4096, 4096, 4096))]
    return bytes(out[:size])


def echo_back(sent: dict[int, bytes]) -> Callable[[int, socket.socket], None]:
    """Reads to the end, then sends what it has for this connection, then closes its side."""

    def behaviour(number: int, sock: socket.socket) -> None:
        sent[number] = read_all(sock)
        sock.sendall(sent[number][::-1])
        sock.shutdown(socket.SHUT_WR)

    return behaviour


@pytest.mark.parametrize("codec", ["auto", "none", "lz4", "zstd"])
def test_any_input_is_carried_exactly_both_ways_through_several_flows(ends: Ends, codec: str) -> None:
    pair = ends(processes=True)
    got: dict[str, dict[int, bytes]] = {name: {} for name in pair.services}
    servers = [Server(pair.path(name), echo_back(got[name])) for name in pair.services]
    pair.start(both={"codec": codec})
    sizes = {"ram": 6_000_001, "virt": 1, "nbd": 700_000}
    back: dict[str, bytes] = {}

    def use(name: str, seed: int) -> None:
        with pair.connect(name) as sock:
            data, dice = content(seed, sizes[name]), random.Random(seed)
            place = 0
            while place < len(data):
                step = dice.choice((1, 100, 40_000, 300_000))
                sock.sendall(data[place : place + step])
                place += step
            sock.shutdown(socket.SHUT_WR)
            back[name] = read_all(sock)

    threads = [threading.Thread(target=use, args=(name, seed)) for seed, name in enumerate(sizes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, name in enumerate(sizes):
        data = content(seed, sizes[name])
        assert got[name][0] == data
        assert back[name] == data[::-1]
    near, far = (until("all flows closed", lambda: closed(pair)), control.status(pair.destination))
    for ours, theirs in zip(near.flows, far.flows, strict=True):
        assert (ours.service, ours.ordinal) == (theirs.service, theirs.ordinal)
        assert ours.digest_out == theirs.digest_in != ""
        assert ours.digest_in == theirs.digest_out != ""
        assert ours.raw_out == theirs.raw_in == sizes[ours.service]
        assert not ours.error
    assert near.raw_out == sum(sizes.values())
    assert near.cpu_seconds > 0
    assert near.lanes_alive == 3
    for server in servers:
        server.close()


def closed(pair: Pair) -> object:
    near, far = pair.status()
    return near if near.flows and not any(flow.open for flow in near.flows + far.flows) else None


def test_small_messages_go_to_and_fro_while_both_directions_stay_open(ends: Ends) -> None:
    pair = ends()

    def answer(_: int, sock: socket.socket) -> None:
        while part := sock.recv(100):
            sock.sendall(part.upper())

    server = Server(pair.path("virt"), answer)
    pair.start()
    with pair.connect("virt") as sock:
        for number in range(200):
            message = b"call %d" % number
            sock.sendall(message)
            assert sock.recv(100) == message.upper()
    server.close()


def test_a_half_close_passes_after_the_data_and_the_other_half_goes_on(ends: Ends) -> None:
    pair = ends()
    seen = threading.Event()

    def behaviour(_: int, sock: socket.socket) -> None:
        assert read_all(sock) == b"question"
        seen.set()
        for part in (b"a", b"b", b"c"):
            sock.sendall(part)
        sock.close()

    server = Server(pair.path("ram"), behaviour)
    pair.start()
    with pair.connect("ram") as sock:
        sock.sendall(b"question")
        assert not seen.is_set()
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"abc"
    server.close()


def test_a_destination_that_half_closes_first_still_gets_data(ends: Ends) -> None:
    pair = ends()
    got: dict[int, bytes] = {}

    def behaviour(number: int, sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)
        got[number] = read_all(sock)

    server = Server(pair.path("ram"), behaviour)
    pair.start()
    with pair.connect("ram") as sock:
        assert read_all(sock) == b""
        sock.sendall(b"x" * 500_000)
    assert until("data", lambda: got.get(0)) == b"x" * 500_000
    server.close()


def test_connections_reach_the_destination_in_the_order_they_were_made(ends: Ends) -> None:
    pair = ends()
    hellos: list[bytes] = []
    lock = threading.Lock()
    order: dict[int, bytes] = {}

    def behaviour(number: int, sock: socket.socket) -> None:
        first = sock.recv(10)
        with lock:
            order[number] = first
            hellos.append(first)

    server = Server(pair.path("ram"), behaviour)
    pair.start()
    socks = [pair.connect("ram") for _ in range(12)]
    for number, sock in reversed(list(enumerate(socks))):
        sock.sendall(b"%02d" % number)
    until("all twelve", lambda: len(hellos) == 12)
    assert order == {number: b"%02d" % number for number in range(12)}
    for sock in socks:
        sock.close()
    server.close()


def test_data_sent_before_closing_is_delivered_though_the_sender_left_answers_unread(ends: Ends) -> None:
    pair = ends()
    got: dict[int, bytes] = {}
    data = content(5, 3_000_000)

    def behaviour(number: int, sock: socket.socket) -> None:
        with contextlib.suppress(BrokenPipeError):  # the sender may have left already
            for _ in range(100):
                sock.sendall(b"an answer nobody reads" * 10)
        got[number] = read_all(sock)

    server = Server(pair.path("ram"), behaviour)
    pair.start()
    sock = pair.connect("ram")
    sock.sendall(data)
    sock.close()
    arrived = until("the data", lambda: got.get(0))
    assert hashlib.sha256(arrived).digest() == hashlib.sha256(data).digest()
    server.close()


def test_a_program_that_does_not_read_holds_up_only_its_own_flow(ends: Ends) -> None:
    pair = ends()
    got: dict[int, bytes] = {}
    go = threading.Event()

    def slow(number: int, sock: socket.socket) -> None:
        go.wait(60)
        got[number] = read_all(sock)

    slow_server = Server(pair.path("ram"), slow)
    other: dict[int, bytes] = {}
    server = Server(pair.path("nbd"), echo_back(other))
    pair.start(both={"codec": "none"})
    data = os.urandom(30_000_000)
    with pair.connect("ram") as stuck:
        writer = threading.Thread(target=send_all, args=(stuck, data))
        writer.start()
        until("the window is full", lambda: pair.status()[0].unacked_bytes >= 128 << 10)
        with pair.connect("nbd") as sock:
            sock.sendall(data[:4_000_000])
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == data[:4_000_000][::-1]
        near, far = pair.status()
        assert near.raw_out < len(data)  # back-pressure: the writer is still in sendall
        assert far.lanes_alive == 3
        go.set()
        writer.join()
        assert until("all of it", lambda: got.get(0)) == data
    slow_server.close()
    server.close()


def test_a_lane_that_has_carried_its_share_gets_new_keys_and_nothing_is_lost(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LANE_BYTES", 500_000)
    pair = ends()
    got: dict[int, bytes] = {}
    server = Server(pair.path("ram"), echo_back(got))
    pair.start()
    data = random.Random(1).randbytes(6_000_000)
    with pair.connect("ram") as sock:
        send_all(sock, data)
        assert read_all(sock) == data[::-1]
    near, _ = pair.status()
    assert got[0] == data
    assert near.redials > 3
    server.close()


def test_stop_ends_both_sides_and_leaves_no_socket(ends: Ends) -> None:
    pair = ends(processes=True)
    pair.start()
    last = control.stop(pair.source)
    assert last.state == "closed"
    assert not control.is_running(pair.source)
    assert sorted(path.name for path in pair.source.iterdir()) == ["config.json", "log"]
    assert pair.wait_state(pair.destination, "closed").lanes_alive == 0
    control.stop(pair.destination)
    assert sorted(path.name for path in pair.destination.iterdir()) == ["config.json", "log"]


def test_an_end_that_lingered_long_enough_goes_by_itself(ends: Ends) -> None:
    pair = ends()
    got: dict[int, bytes] = {}
    server = Server(pair.path("virt"), echo_back(got))
    pair.start(both={"linger": 0.5})
    with pair.connect("virt") as sock:
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    for folder in (pair.source, pair.destination):
        pair.wait_end(folder)
    assert [path.name for path in pair.source.iterdir()] == ["config.json"]
    server.close()
