"""The ring of an RDMA lane, and the cards that open it: no byte is lost, doubled, swapped or overwritten; no device."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dwcp.errors import ProtocolError
from dwcp.transport import cards, frames
from dwcp.transport.cards import Card, No, Ready
from dwcp.transport.frames import HEADER_BYTES
from dwcp.transport.ring import WRAP, Incoming, Outgoing, Shape, expand

SMALL = Shape(size=64, depth=8, chunk=16)
shapes = st.builds(
    lambda chunk, rest, depth: Shape(chunk * 2 + rest, depth, chunk),
    st.integers(1, 32),
    st.integers(0, 40),
    st.integers(1, 20),
)


class Device:
    """Both ends' memory and a network that keeps order on each queue pair and none between them."""

    def __init__(self, shape: Shape, pairs: int, chance: random.Random) -> None:
        self.shape, self.chance = shape, chance
        self.out, self.inn = Outgoing(shape), Incoming(shape)
        self.near, self.far = bytearray(shape.size), bytearray(shape.size)
        self.posted: list[deque[tuple[int, int, int]]] = [deque() for _ in range(pairs)]
        self.written: list[int] = []
        self.credits: deque[int] = deque()
        self.unread = [False] * shape.size
        self.received = bytearray()

    def send(self, data: bytes) -> bytes:
        """What there is no room for."""
        while data and (chunk := self.out.reserve(len(data))):
            place = slice(chunk.position, chunk.position + chunk.length)
            self.near[place], data = data[: chunk.length], data[chunk.length :]
            self.posted[chunk.number % len(self.posted)].append((chunk.number, chunk.position, chunk.length))
        return data

    def step(self) -> bool:
        """One thing that can happen next, any of them; False if nothing can."""
        things = [self.deliver] * any(self.posted) + [self.complete] * bool(self.written)
        things += [self.read] * bool(self.inn.readable()[1]) + [self.take_credit] * bool(self.credits)
        if not things:
            return False
        self.chance.choice(things)()
        return True

    def deliver(self) -> None:
        number, position, length = self.chance.choice([pair for pair in self.posted if pair]).popleft()
        assert not any(self.unread[position : position + length]), "overwritten before it was read"
        # the device reads our copy as late as this
        self.far[position : position + length] = self.near[position : position + length]
        self.unread[position : position + length] = [True] * length
        self.inn.arrived(number % WRAP, length)
        self.written.append(number)

    def complete(self) -> None:
        self.out.completed(self.written.pop(self.chance.randrange(len(self.written))))

    def read(self) -> None:
        position, ready = self.inn.readable()
        size = self.chance.randint(1, ready)
        self.received += self.far[position : position + size]
        self.unread[position : position + size] = [False] * size
        self.inn.consume(size)
        if (credit := self.inn.credit()) is not None:
            self.credits.append(credit)

    def take_credit(self) -> None:
        self.out.credited(self.credits.popleft())


@given(shapes, st.integers(1, 9), st.lists(st.binary(min_size=1, max_size=200), max_size=20), st.integers())
@settings(max_examples=300)
def test_whatever_happens_in_whatever_order_the_bytes_arrive_as_they_were_sent(
    shape: Shape, pairs: int, messages: list[bytes], seed: int
) -> None:
    device = Device(shape, pairs, random.Random(seed))
    for message in messages:
        left = message
        while left := device.send(left):
            assert device.step(), "both ends wait for each other"
    while device.step():
        assert device.out.travelling <= shape.size
    assert device.received == b"".join(messages)
    assert device.out.travelling == 0


@given(shapes, st.lists(st.tuples(st.integers(0, WRAP - 1), st.integers(-5, 100)), max_size=60), st.booleans())
def test_whatever_the_peer_announces_only_protocol_error_comes_of_it(
    shape: Shape, announced: list[tuple[int, int]], near: bool
) -> None:
    inn = Incoming(shape)
    for number, length in announced:
        try:
            inn.arrived(number % 12 if near else number, length)
        except ProtocolError:
            return
        position, ready = inn.readable()
        assert 0 <= position < shape.size
        assert position + ready <= shape.size
        if ready:
            inn.consume(ready)


@given(st.integers(0, 1 << 40), st.integers(-(1 << 31) + 1, (1 << 31) - 1))
@example(0, 0)
@example(WRAP - 1, 1)
def test_a_number_is_known_again_by_its_last_32_bits(near: int, away: int) -> None:
    assert expand((near + away) % WRAP, near) == near + away


def test_numbers_go_on_past_32_bits() -> None:
    out, inn = Outgoing(SMALL), Incoming(SMALL)
    start = WRAP - 3
    out._next = out._credited = inn._next = inn._settled = inn._told = start
    for _ in range(20):
        chunk = out.reserve(16)
        assert chunk is not None
        inn.arrived(chunk.wire, chunk.length)
        out.completed(chunk.number)
        inn.consume(inn.readable()[1])
        if (credit := inn.credit()) is not None:
            out.credited(credit)
    assert inn.readable() == (20 * 16 % 64, 0)


def test_a_place_is_free_again_only_when_the_reader_and_our_own_device_are_done_with_it() -> None:
    out = Outgoing(SMALL)
    chunks = [out.reserve(16) for _ in range(4)]
    assert out.reserve(16) is None
    out.credited(1)
    assert out.reserve(16) is None
    first = chunks[0]
    assert first is not None
    out.completed(first.number)
    again = out.reserve(16)
    assert again is not None
    assert (again.number, again.position) == (4, 0)


def test_a_chunk_never_crosses_the_end_of_the_ring() -> None:
    out = Outgoing(Shape(size=40, depth=8, chunk=16))
    lengths = [chunk.length for _ in range(3) if (chunk := out.reserve(100))]
    assert lengths == [16, 16, 8]


@pytest.mark.parametrize(
    ("what", "number", "length"),
    [
        ("a chunk beyond the depth", 8, 4),
        ("a chunk longer than any", 0, 17),
        ("an empty chunk", 0, 0),
        ("a chunk from long ago", WRAP - 1, 4),
    ],
)
def test_an_announcement_that_cannot_be_ends_the_lane(what: str, number: int, length: int) -> None:
    with pytest.raises(ProtocolError):
        Incoming(SMALL).arrived(number, length)


def test_a_chunk_announced_twice_ends_the_lane() -> None:
    inn = Incoming(SMALL)
    inn.arrived(1, 4)
    with pytest.raises(ProtocolError, match="chunk 1 announced while 0 is awaited"):
        inn.arrived(1, 4)


def test_more_bytes_than_the_ring_has_end_the_lane() -> None:
    inn = Incoming(SMALL)
    for number in range(1, 5):
        inn.arrived(number, 16)
    with pytest.raises(ProtocolError, match="ring that holds 64"):
        inn.arrived(0, 1)


@pytest.mark.parametrize("credit", [1, WRAP - 1])
def test_a_credit_for_what_was_never_sent_ends_the_lane(credit: int) -> None:
    with pytest.raises(ProtocolError, match="credit up to chunk"):
        Outgoing(SMALL).credited(credit)


def test_a_completion_of_what_is_not_on_its_way_ends_the_lane() -> None:
    with pytest.raises(ProtocolError, match="chunk 0 completed"):
        Outgoing(SMALL).completed(0)


numbers = st.integers(0, (1 << 24) - 1)
messages = st.one_of(
    st.builds(
        Card,
        st.binary(min_size=16, max_size=16),
        st.integers(1, 5),
        st.integers(0, (1 << 64) - 1),
        st.integers(0, WRAP - 1),
        shapes,
        st.lists(st.tuples(numbers, numbers), min_size=1, max_size=cards.MAX_PAIRS).map(tuple),
    ),
    st.just(Ready()),
    st.builds(No, st.text(max_size=100)),
)


@given(messages)
@example(Card(bytes(16), 5, 0, 0, SMALL, ((1, 2),) * cards.MAX_PAIRS))
def test_a_card_reads_as_it_was_written(message: Card | Ready | No) -> None:
    frame = cards.encode(message)
    header = frames.decode_header(frame[:HEADER_BYTES])
    frames.verify(frame[:HEADER_BYTES], header, frame[HEADER_BYTES:])
    assert cards.decode(header, frame[HEADER_BYTES:]) == message


@given(st.binary(max_size=200), st.sampled_from([b"", b"\0", b"\1", b"\2", b"\1" + cards.encode(Ready())]))
def test_whatever_a_card_holds_only_protocol_error_comes_of_it(tail: bytes, start: bytes) -> None:
    header = frames.Header(frames.Type.RDMA, 0, 0, 0, len(start + tail), 0, 0)
    try:
        cards.decode(header, start + tail)
    except ProtocolError:
        return


@given(messages, st.data())
def test_a_card_with_bytes_missing_or_left_over_is_refused(message: Card | Ready | No, data: st.DataObject) -> None:
    if isinstance(message, No):
        return  # any length is a reason
    frame = cards.encode(message)
    header, payload = frames.decode_header(frame[:HEADER_BYTES]), frame[HEADER_BYTES:]
    cut = data.draw(st.integers(0, len(payload) - 1))
    for wrong in (payload[:cut], payload + b"\0"):
        with pytest.raises(ProtocolError):
            cards.decode(header, wrong)
