"""The talk about RDMA and an RDMA lane itself, with a device made of memory: what it carries, refuses, gives up."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from dwcp.buffers import BufferPool
from dwcp.errors import NoRdma, ProtocolError
from dwcp.transport import cards, frames, rdma, verbs
from dwcp.transport.cards import Card
from dwcp.transport.carrier import Carrier, LaneClosed
from dwcp.transport.frames import Codec, Data
from dwcp.transport.lane import Lane
from dwcp.transport.rdma import Rdma, RdmaFailed, RdmaLane
from dwcp.transport.ring import Chunk, Shape
from dwcp.transport.verbs import Completion, What
from models.datapath import DataPathConfig, Service, TlsFiles


class MemoryEnd:
    """An `Endpoint` whose card is its place in `everywhere`; what is written completes at once."""

    name = "memory0"
    everywhere: ClassVar[list[MemoryEnd]] = []

    def __init__(self, address: str, shape: Shape, pairs: int, *, writes: bool) -> None:
        self.memory = memoryview(bytearray(shape.size))
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.found: list[Completion] = []
        self.lock = threading.Lock()
        self.peer: MemoryEnd | None = None
        self.closed = False
        self.spoil: Callable[[MemoryEnd, Chunk], None] | None = None
        MemoryEnd.everywhere.append(self)
        place = len(MemoryEnd.everywhere) - 1
        self.card = Card(bytes(16), 3, place, 0, shape, tuple((n, n) for n in range(pairs)))

    def connect(self, far: Card) -> None:
        self.peer = MemoryEnd.everywhere[far.address]

    def complete(self, done: Completion) -> None:
        with self.lock:
            self.found.append(done)
        os.eventfd_write(self.fd, 1)

    def completions(self) -> list[Completion]:
        with self.lock:
            found, self.found = self.found, []
        return found

    def rearm(self) -> None:
        os.eventfd_read(self.fd)

    def write(self, chunk: Chunk) -> None:
        assert self.peer
        place = slice(chunk.position, chunk.position + chunk.length)
        self.peer.memory[place] = self.memory[place]
        if self.spoil:
            self.spoil(self.peer, chunk)
        self.peer.complete(Completion(What.ARRIVED, chunk.wire, chunk.length))
        self.complete(Completion(What.WRITTEN, chunk.number))

    def tell(self, credit: int) -> None:
        assert self.peer
        self.peer.complete(Completion(What.CREDIT, credit))

    def close(self) -> None:
        self.closed = True


class Absent:
    def __init__(self, *_: Any, **__: Any) -> None:
        raise NoRdma("no RDMA device has the address 127.0.0.1")


class Ends:
    """Lane 0 at both ends, and what the two sessions know of RDMA."""

    def __init__(self, source: dict[str, Any], destination: dict[str, Any]) -> None:
        near, far = connected()
        self.knows = {"source": Rdma(config("source", source)), "destination": Rdma(config("destination", destination))}
        plain = {"source": Lane(near, POOL, 0), "destination": Lane(far, POOL, 0)}
        self.lanes: dict[str, Carrier] = {}

        def upgrade(role: str) -> None:
            self.lanes[role] = self.knows[role].upgrade(plain[role])

        other = threading.Thread(target=upgrade, args=("destination",))
        other.start()
        upgrade("source")
        other.join()
        self.writer, self.reader = self.lanes["source"], self.lanes["destination"]

    def why(self) -> tuple[str, str]:
        return self.knows["source"].why, self.knows["destination"].why

    def kinds(self) -> set[str]:
        return {lane.kind for lane in self.lanes.values()}


POOL = BufferPool(1 << 20, keep=4)
PLAIN = {"protection": "none"}


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


def config(role: str, changes: dict[str, Any]) -> DataPathConfig:
    values: dict[str, Any] = {
        "role": role,
        "migration_id": "m-1",
        "peer_name": "host-b" if role == "source" else "host-a",
        "address": "127.0.0.1",
        "port": 20000,
        "services": (Service(name="ram", path="/run/ram.sock"),),
        "tls": TlsFiles(certificate="/x", key="/x", authority="/x"),
    }
    return DataPathConfig(**{**values, **PLAIN, **changes})


def batch(number: int, size: int) -> Data:
    body = random.Random(number).randbytes(size)
    return Data(1, number, Codec.NONE, size, bytes(16), body)


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(verbs, "probe", lambda: "")
    monkeypatch.setattr(rdma, "Endpoint", MemoryEnd)
    monkeypatch.setattr(MemoryEnd, "everywhere", [])
    yield
    for end in MemoryEnd.everywhere:
        os.close(end.fd)


def close(ends: Ends) -> None:
    for lane in ends.lanes.values():
        lane.close()


def test_frames_larger_than_the_ring_come_out_as_they_went_in() -> None:
    ends = Ends({"queue_pairs": 7}, {})
    assert ends.kinds() == {"rdma"}
    assert ends.why() == ("", "")
    sent = [batch(n, size) for n, size in enumerate((1, 700, 4 << 20, 3 << 20, 5, 4 << 20))]

    def write() -> None:
        for data in sent:
            frame = frames.encode(data)
            ends.writer.send(frame[:48], frame[48:])
        ends.writer.finish()

    writer = threading.Thread(target=write)
    writer.start()
    for data in sent:
        message, _, _ = ends.reader.read()
        assert isinstance(message, Data)
        assert (message.seq, bytes(message.body)) == (data.seq, data.body)
    with pytest.raises(LaneClosed):
        while True:
            ends.reader.read()
    ends.reader.close()
    writer.join()
    ends.writer.close()
    assert all(end.closed for end in MemoryEnd.everywhere), "the right to write must end with the lane"


def test_what_was_sent_before_the_peer_hung_up_is_still_read() -> None:
    ends = Ends({}, {})
    ends.writer.send(frames.encode(batch(0, 5000)))
    ends.writer.close()
    assert isinstance(ends.reader.read()[0], Data)
    with pytest.raises(LaneClosed):
        ends.reader.read()
    ends.reader.close()
    assert ends.why() == ("", ""), "a peer that leaves is no failure of RDMA"


@pytest.mark.parametrize(
    ("source", "destination", "why"),
    [
        ({"rdma": "never"}, {}, ("", "host-a: RDMA is turned off")),
        ({}, {"rdma": "never"}, ("host-b: RDMA is turned off", "")),
        ({"protection": "tls"}, {"protection": "tls"}, ("RDMA needs protection none", "RDMA needs protection none")),
    ],
)
def test_an_end_that_does_not_want_rdma_keeps_tcp_and_the_other_says_why(
    source: dict[str, Any], destination: dict[str, Any], why: tuple[str, str]
) -> None:
    ends = Ends(source, destination)
    assert ends.kinds() == {"tcp"}
    assert ends.why() == why
    ends.writer.send(frames.encode(batch(0, 9)))
    assert isinstance(ends.reader.read()[0], Data)
    close(ends)


def test_a_lane_without_a_device_says_so_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rdma, "Endpoint", Absent)
    ends = Ends({}, {})
    reason = "no RDMA device has the address 127.0.0.1"
    assert ends.why() == (reason, f"host-a: {reason}")
    assert ends.kinds() == {"tcp"}
    close(ends)


def test_a_frame_damaged_in_the_ring_is_not_delivered_and_ends_rdma() -> None:
    ends = Ends({}, {})

    def flip(peer: MemoryEnd, chunk: Chunk) -> None:
        peer.memory[chunk.position + chunk.length - 1] ^= 1

    MemoryEnd.everywhere[0].spoil = flip
    ends.writer.send(frames.encode(batch(0, 300)))
    with pytest.raises(ProtocolError, match="checksum"):
        ends.reader.read()
    assert "a frame was damaged" in ends.why()[1]
    close(ends)


@pytest.mark.parametrize("done", [Completion(What.ARRIVED, 77, 10), Completion(What.ARRIVED, 400, 10)])
def test_an_announcement_out_of_order_or_out_of_range_delivers_nothing(done: Completion) -> None:
    ends = Ends({}, {})
    MemoryEnd.everywhere[1].complete(done)
    ends.writer.close()
    with pytest.raises((ProtocolError, LaneClosed)):
        ends.reader.read()
    ends.reader.close()


def test_rdma_that_fails_while_the_connection_is_heard_is_given_up_on_all_lanes_for_good() -> None:
    ends = Ends({}, {})

    def read() -> None:
        with pytest.raises(LaneClosed):
            ends.reader.read()

    hears = threading.Thread(target=read)
    hears.start()  # a reader beats
    MemoryEnd.everywhere[0].complete(Completion(What.FAILED, text="IBV_WC_RETRY_EXC_ERR"))
    with pytest.raises(RdmaFailed, match="RETRY_EXC"):
        ends.writer.send(frames.encode(batch(0, 9)))
    assert ends.why()[0] == "RDMA failed: IBV_WC_RETRY_EXC_ERR"
    assert ends.writer.doomed
    ends.writer.close()
    hears.join()
    ends.reader.close()
    near, far = connected()
    asked = Lane(far, POOL, 1)
    again = ends.knows["source"].upgrade(Lane(near, POOL, 1))
    assert again.kind == "tcp"
    answer = cards.decode(*asked.read_hello(frozenset({frames.Type.RDMA})))
    assert answer == cards.No("RDMA failed: IBV_WC_RETRY_EXC_ERR")
    for lane in (again, asked):
        lane.close()


def test_rdma_that_fails_while_nobody_is_heard_is_a_lost_link_and_tried_again() -> None:
    ends = Ends({}, {})  # nobody reads at the far end, so nobody beats
    MemoryEnd.everywhere[0].complete(Completion(What.FAILED, text="IBV_WC_RETRY_EXC_ERR"))
    with pytest.raises(TimeoutError, match="the link is lost"):
        ends.writer.send(frames.encode(batch(0, 9)))
    assert ends.why() == ("", "")
    close(ends)


def test_a_reader_that_reads_nothing_holds_the_writer_back_within_the_ring() -> None:
    ends = Ends({}, {})
    ends.writer.settimeout(0.3)
    lane = ends.writer
    assert isinstance(lane, RdmaLane)
    with pytest.raises(TimeoutError, match="no room"):
        while True:
            lane.send(frames.encode(batch(0, 1 << 20)))
    assert lane.queued() <= rdma.SHAPE.size
    close(ends)


def test_a_cut_wakes_the_reader() -> None:
    ends = Ends({}, {})
    threading.Timer(0.1, ends.reader.cut, ("the session is over",)).start()
    with pytest.raises(LaneClosed):
        ends.reader.read()
    assert ends.reader.doomed == "the session is over"
    close(ends)
