"""Faults byte by byte: streams that break or lie anywhere, frames in any order and number, peers of other versions."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dwcp import control
from dwcp.encoding.codec import RUNGS, Coder, Rung
from dwcp.errors import ProtocolError
from dwcp.flow import Gate
from dwcp.session import Session
from dwcp.transport import frames, hello
from dwcp.transport.carrier import LaneClosed
from dwcp.transport.frames import HEADER_BYTES, Codec, Ending, Fin, Header, Type
from dwcp.transport.hello import Features, Hello, Refuse, RefuseReason, Welcome
from tests.fuzz.session import Said, make_session

from .harness import DEADLINE, Pair, Server, Wire, hung_up, read_all, send_all, until

Ends = Callable[..., Pair]
PROTECTIONS = ("tls", "none")


class FaultyWire(Wire):
    """Does harm once, at the n-th byte that passes in one direction from now on, whatever connection carries it."""

    def __init__(self, port: int) -> None:
        self._left = -1
        self._forward = True
        self._flip = 0
        self._harm = threading.Lock()
        super().__init__(port)

    def harm(self, after: int, *, forward: bool, flip: int = 0) -> None:
        """`flip`: change these bits of the byte. 0: the connection breaks in front of it."""
        with self._harm:
            self._left, self._forward, self._flip = after, forward, flip

    @property
    def harmed(self) -> bool:
        return self._left < 0

    def _relay(self, one: socket.socket, other: socket.socket) -> None:
        forward = any(one is near for near, _ in self._pairs)
        try:
            while part := one.recv(65536):
                kept, broken = self._damage(part, forward)
                self.carried += len(kept)
                other.sendall(kept)
                if broken:
                    break
        except OSError:
            pass  # the connection has ended: so does its other half
        for sock in (one, other):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        one.close()  # the other thread of this pair closes the other

    def _damage(self, part: bytes, forward: bool) -> tuple[bytes, bool]:
        with self._harm:
            if self._left < 0 or forward != self._forward:
                return part, False
            place, self._left = self._left, self._left - len(part)
            if place >= len(part):
                return part, False
            self._left = -1
            if not self._flip:
                return part[:place], True
            return part[:place] + bytes([part[place] ^ self._flip]) + part[place + 1 :], False


@contextmanager
def faulty(pair: Pair, **both: object) -> Iterator[FaultyWire]:
    """Both ends, connected through a faulty wire."""
    wire = FaultyWire(pair.start_destination(**both).port)
    pair.wire = wire
    pair.start_source(wire.port, **both)
    for folder in (pair.source, pair.destination):
        pair.wait_state(folder, "connected")
    yield wire


class Echo:
    """A destination program that gives back what it got, turned around."""

    def __init__(self, pair: Pair, service: str = "ram") -> None:
        self._pair, self._service = pair, service
        self._server = Server(pair.path(service), self._serve)

    def _serve(self, number: int, sock: socket.socket) -> None:
        send_all(sock, read_all(sock)[::-1])

    def check(self, data: bytes) -> None:
        """`data` goes there and back, exactly."""
        with self._pair.connect(self._service) as sock:
            sender = threading.Thread(target=send_all, args=(sock, data))
            sender.start()
            assert read_all(sock) == data[::-1]
            sender.join()

    def close(self) -> None:
        self._server.close()


PLACES = (0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 16, 5000, 70_000)


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_stream_that_breaks_at_any_byte_loses_nothing(ends: Ends, protection: str) -> None:
    pair, dice = ends(), random.Random(1)
    echo = Echo(pair)
    with faulty(pair, protection=protection) as wire:
        for place in PLACES:
            for forward in (True, False):
                wire.harm(place, forward=forward)
                echo.check(dice.randbytes(500_000))
                until("the connection has broken", lambda: wire.harmed)
    assert pair.wait_state(pair.source, "connected").redials >= len(PLACES)
    echo.close()


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_byte_changed_anywhere_is_found_and_what_was_sent_arrives(ends: Ends, protection: str) -> None:
    pair, dice = ends(), random.Random(2)
    echo = Echo(pair)
    with faulty(pair, protection=protection, codec="none") as wire:
        for place in PLACES:
            for forward in (True, False):
                wire.harm(place, forward=forward, flip=1 << dice.randrange(8))
                echo.check(dice.randbytes(500_000))
                until("the byte was changed", lambda: wire.harmed)
    assert pair.wait_state(pair.source, "connected").redials > 0
    for end in pair.status():
        assert end.error == ""
    echo.close()


@pytest.mark.parametrize("protection", PROTECTIONS)
@pytest.mark.parametrize("flip", [0, 0x10])
def test_a_lane_that_breaks_or_lies_while_it_opens_is_dialled_again(ends: Ends, protection: str, flip: int) -> None:
    pair = ends()
    echo = Echo(pair)
    with faulty(pair, protection=protection) as wire:
        for place in (0, 1, 20, HEADER_BYTES, 100, 115):
            wire.harm(place, forward=True, flip=flip)
            wire.cut()  # what comes next are the first bytes of new lanes
            until("it was harmed", lambda: wire.harmed)
            until("all lanes are there again", lambda: pair.status()[0].lanes_alive == 3)
            echo.check(b"still exact" * 9)
    pair.wait_state(pair.source, "connected")
    echo.close()


def deliver(session: Session, raws: list[bytes]) -> str:
    """One lane brings these frames, and ends; why."""
    try:
        session._read_lane(Lossy(raws, session))
    except (ProtocolError, LaneClosed) as error:
        return type(error).__name__
    return "the session ended"


class Lossy(Said):
    """A frame may be cut: then the lane has ended in the middle of it."""

    def read_raw(self) -> tuple[Header, bytearray, memoryview]:
        raw = self._said[0] if self._said else b""
        if len(raw) < HEADER_BYTES or len(raw) < HEADER_BYTES + frames.decode_header(raw[:HEADER_BYTES]).length:
            raise LaneClosed("the peer closed the connection")
        return super().read_raw()


@pytest.mark.parametrize("seed", range(30))
def test_frames_in_any_order_twice_cut_or_damaged_are_delivered_once_and_exactly(seed: int) -> None:
    dice = random.Random(seed)
    parts = [dice.randbytes(dice.choice((1, 50, 3000))) * dice.choice((1, 9)) for _ in range(dice.randint(1, 12))]
    sent = framed(parts, dice.choice(RUNGS[:3]))
    session = make_session("destination")
    program, ours = socket.socketpair()
    flow = session.flow(1)
    flow.start(ours, session.outbound(flow))
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(read_all(program)), daemon=True)
    reader.start()
    arrived: set[int] = set()
    while len(arrived) < len(sent):
        some = dice.choices(range(len(sent)), k=dice.randint(1, 6))
        raws = [sent[number] for number in some]
        harm = dice.choice(("none", "none", "cut", "flip"))
        if harm != "none":
            place, last = dice.randrange(len(raws[-1])), raws.pop()
            raws.append(last[:place] + (bytes([last[place] ^ 4]) + last[place + 1 :] if harm == "flip" else b""))
            some.pop()
        ended = deliver(session, raws)
        assert ended == "LaneClosed" or (harm == "flip" and ended == "ProtocolError")
        arrived |= set(some)
    reader.join(DEADLINE)
    assert got == [b"".join(parts)]
    session.close()
    program.close()


def framed(parts: list[bytes], rung: Rung) -> list[bytes]:
    """A flow of these batches and its end."""
    gate, coder = Gate(), Coder()
    raws: list[bytes] = []
    for seq, part in enumerate(parts):
        codec, body = coder.encode(rung, part)
        raws.append(frames.encode(frames.Data(1, seq, codec, len(part), gate.add(part), body)))
    return [*raws, frames.encode(Fin(1, len(parts), gate.digest, Ending.HALF))]


def test_a_frame_that_was_swapped_for_another_good_one_fails_the_session_and_is_not_written() -> None:
    session = make_session("destination")
    program, ours = socket.socketpair()
    flow = session.flow(1)
    flow.start(ours, session.outbound(flow))
    digest = Gate().add(b"what was read")
    deliver(session, [frames.encode(frames.Data(1, 0, Codec.NONE, 13, digest, b"what was sent"))])
    assert read_all(program) == b""
    assert session.state == "failed"
    assert "not the bytes that were read" in session.error
    program.close()


def test_a_program_that_reads_slowly_holds_the_other_up_and_gets_everything(ends: Ends) -> None:
    pair, data = ends(), os.urandom(12_000_000)
    go, got = threading.Semaphore(0), bytearray()
    done = threading.Event()

    def slowly(number: int, sock: socket.socket) -> None:
        while go.acquire() and (part := sock.recv(100_000)):
            got.extend(part)
        done.set()

    server = Server(pair.path("ram"), slowly)
    pair.start(both={"codec": "none"})
    with pair.connect("ram") as sock:
        writer = threading.Thread(target=send_all, args=(sock, data))
        writer.start()
        until("the window is full", lambda: pair.status()[0].unacked_bytes >= 128 << 10)
        for _ in range(30):
            go.release()
            near = pair.status()[0]
            assert near.raw_out - len(got) < 8_000_000  # two sockets, two batches and a window, not the whole of it
            assert near.unacked_bytes <= frames.MAX_UNACKED_RAW
        while not done.is_set():
            go.release()
        writer.join()
    assert bytes(got) == data
    assert pair.status()[0].resent == 0
    server.close()


# --- peers of another version, in the clear so that a test can speak for them ---


def ask(port: int, asked: Hello) -> Welcome | Refuse:
    """What a destination answers to this HELLO."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        sock.sendall(hello.encode_hello(asked))
        raw = b""
        while len(raw) < HEADER_BYTES or len(raw) < HEADER_BYTES + frames.decode_header(raw[:HEADER_BYTES]).length:
            raw += sock.recv(65536)
        return hello.decode_answer(frames.decode_header(raw[:HEADER_BYTES]), raw[HEADER_BYTES:])


def greeting(version: int, oldest: int) -> Hello:
    return Hello("m-1", 0, b"s" * 16, bytes(16), 0, 2, 2, version=version, oldest=oldest)


def test_a_source_of_another_version_is_refused_with_both_ranges_and_ours_is_still_welcome(ends: Ends) -> None:
    pair = ends()
    port = pair.start_destination(protection="none").port
    for version, oldest in ((hello.VERSION + 7, hello.VERSION + 1), (hello.OLDEST_VERSION - 1, 1)):
        answer = ask(port, greeting(version, oldest))
        assert isinstance(answer, Refuse)
        assert answer.reason is RefuseReason.VERSION
        assert f"{oldest}..{version}" in answer.text
        assert (answer.oldest, answer.version) == (hello.OLDEST_VERSION, hello.VERSION)
    assert control.status(pair.destination).state == "waiting"
    pair.start_source(port, protection="none")
    pair.wait_state(pair.source, "connected")


def test_a_newer_source_that_still_speaks_our_version_is_welcome_in_it(ends: Ends) -> None:
    pair = ends()
    answer = ask(pair.start_destination(protection="none").port, greeting(hello.VERSION + 7, hello.OLDEST_VERSION))
    assert isinstance(answer, Welcome)
    assert answer.version == hello.VERSION


class OtherRelease:
    """A destination that answers each HELLO with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._answer = answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(DEADLINE)
                sock.recv(65536)
                sock.sendall(self._answer)
                hung_up(sock, 5)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Refuse(RefuseReason.VERSION, "source speaks DWCP 2..2, destination 7..9", 9, 7), "destination 7..9"),
        (
            Welcome(
                9,
                Features(0),
                b"d" * 16,
            ),
            "version 9",
        ),
    ],
)
def test_a_destination_of_another_version_fails_the_source_with_its_words(
    ends: Ends, answer: Welcome | Refuse, words: str
) -> None:
    pair, other = ends(), OtherRelease(hello.encode_answer(answer))
    pair.start_source(other.port, protection="none")
    until("it is said", lambda: words in control.status(pair.source).error)
    other.close()


def test_a_frame_of_a_type_we_do_not_know_ends_its_lane_only() -> None:
    session = make_session("destination")
    unknown = frames.encode(frames.Ping(0, 1))
    unknown = unknown[:2] + bytes([77]) + unknown[3:]
    assert deliver(session, [unknown]) == "ProtocolError"
    assert deliver(session, [frames.head(Type.HELLO, bytes(frames.HELLO_BYTES))]) == "ProtocolError"
    assert session.state == "waiting"
    session.close()
