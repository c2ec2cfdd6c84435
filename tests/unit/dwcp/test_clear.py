"""Protection none: frames over plain TCP, only where both ends say so."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable

import pytest

from dwcp import control
from dwcp.buffers import BufferPool
from dwcp.transport import frames, lane
from dwcp.transport.frames import Codec, Data
from dwcp.transport.lane import Lane, tune

from .harness import Pair, hung_up, until
from .test_losses import Transfer

Ends = Callable[..., Pair]
CLEAR = {"protection": "none"}


def test_what_goes_in_the_clear_arrives_exactly_and_survives_cut_lanes(ends: Ends) -> None:
    pair = ends()
    pair.start(wire=True, both=CLEAR)
    assert pair.wire
    transfer = Transfer(pair)
    until("bytes pass", lambda: pair.wire and pair.wire.carried > 500_000)
    pair.wire.cut()
    transfer.finish()
    for end in pair.status():
        assert end.carrier.startswith("tcp")


def test_certificates_are_not_even_read_and_tls_is_what_is_used_otherwise(ends: Ends) -> None:
    pair = ends()
    missing = pair.tls["source"].model_copy(update={"authority": "/missing.pem", "key": "/missing.key"})
    pair.start(both={**CLEAR, "tls": missing})
    other = ends()
    other.start()
    assert other.status()[0].carrier.startswith("tls")


def test_a_source_in_the_clear_is_told_at_once_that_the_destination_wants_tls(ends: Ends) -> None:
    pair = ends()
    pair.start_source(pair.start_destination().port, **CLEAR)
    until("the destination says so", lambda: control.status(pair.destination).error)
    for end in pair.status():
        assert "speaks in the clear" in end.error
        assert "give both ends the same" in end.error
    assert pair.wait_state(pair.source, "failed")
    assert control.status(pair.destination).state == "waiting"


def test_a_source_with_tls_is_told_at_once_that_the_destination_goes_in_the_clear(ends: Ends) -> None:
    pair = ends()
    pair.start_source(pair.start_destination(**CLEAR).port)
    assert "answers in the clear" in pair.wait_state(pair.source, "failed").error
    error = until("the destination says so", lambda: control.status(pair.destination).error)
    assert "the peer speaks TLS" in error
    assert control.status(pair.destination).state == "waiting"


def test_a_source_in_the_clear_knows_an_end_that_answers_with_a_tls_alert(ends: Ends) -> None:
    """Whatever listens there refuses by TLS's own means: the source does not take it for a lost link."""
    pair = ends()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            for _ in range(3):
                sock, _ = listener.accept()
                with sock:
                    sock.recv(1000)
                    sock.sendall(bytes.fromhex("15030100020246"))

        threading.Thread(target=refuse, daemon=True).start()
        pair.start_source(listener.getsockname()[1], **CLEAR)
        assert "speaks TLS" in pair.wait_state(pair.source, "failed").error


@pytest.mark.parametrize(
    ("change", "words"),
    [({"migration_id": "m-2"}, "another migration"), ({"owner_token": 7}, "owner token")],
)
def test_without_certificates_migration_and_owner_still_have_to_fit(
    ends: Ends, change: dict[str, object], words: str
) -> None:
    pair = ends()
    pair.start_source(pair.start_destination(**CLEAR).port, **CLEAR, **change)
    assert words in pair.wait_state(pair.source, "failed").error


def test_a_stranger_who_says_nothing_or_nonsense_gets_no_further(ends: Ends) -> None:
    pair = ends()
    port = pair.start_destination(**CLEAR).port
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(os.urandom(200))
        assert hung_up(sock)
    assert "turned away" in until("it is said", lambda: control.status(pair.destination).error)
    pair.start_source(port, **CLEAR)
    pair.wait_state(pair.source, "connected")


def test_a_byte_changed_on_the_way_is_found_and_sent_again(ends: Ends) -> None:
    pair = ends()
    port = pair.start_destination(**CLEAR, codec="raw").port
    relay = Damager(port)
    pair.start_source(relay.port, **CLEAR, codec="raw")
    pair.wait_state(pair.source, "connected")
    transfer = Transfer(pair, 6_000_000)
    relay.damage = 3
    transfer.finish()
    until("lanes were lost by it", lambda: relay.damage == 0)
    until("they are dialled again", lambda: pair.status()[0].redials > 0)
    relay.close()


class Damager:
    """A relay that changes one bit in each of the next `damage` pieces of more than 10 000 bytes."""

    def __init__(self, target: int) -> None:
        self.damage = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._relay, args=(one, other), daemon=True).start()

    def _relay(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while part := bytearray(one.recv(65536)):
                if self.damage and len(part) > 10_000:
                    self.damage -= 1
                    part[5000] ^= 1
                other.sendall(part)
        except OSError:
            pass
        for sock in (one, other):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def close(self) -> None:
        self._listener.close()


def test_a_frame_larger_than_the_sockets_buffers_is_sent_whole() -> None:
    one, other = socket.socketpair()
    sender, receiver = Lane(one, BufferPool(1 << 20, 2)), Lane(other, BufferPool(1 << 20, 2))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    bodies = [os.urandom(size) for size in (1, 3000, 100_000, 1 << 20)]

    def send() -> None:
        for seq, body in enumerate(bodies):
            sender.send(frames.data_head(1, seq, Codec.NONE, len(body), bytes(16), body), body)

    writer = threading.Thread(target=send)
    writer.start()
    for seq, body in enumerate(bodies):
        message, _, size = receiver.read()
        assert isinstance(message, Data)
        assert (message.seq, bytes(message.body)) == (seq, body)
        assert size == len(body) + 48
    writer.join()
    for end in (sender, receiver):
        end.close()


def test_a_kernel_without_bbr_is_mentioned_once_not_for_every_lane(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Old(socket.socket):
        def setsockopt(self, *args: object) -> None:
            if args[1] == socket.TCP_CONGESTION:
                raise OSError(2, "No such file or directory")

    lane._lacks_bbr.cache_clear()
    with caplog.at_level(logging.INFO, logger=lane.__name__), Old() as sock:
        for _ in range(5):
            tune(sock)
    assert len([record for record in caplog.records if "bbr" in record.message]) == 1
