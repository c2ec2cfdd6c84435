"""What goes wrong between the hosts: lanes cut, black holes, lost links, wrong peers, restarts."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dwcp import control, process
from dwcp.encoding.codec import Coder
from dwcp.errors import ControlFailed, NotRunning, StartFailed
from dwcp.source import listen_unix
from dwcp.transport.frames import Buffer, Codec

from .harness import Authority, Pair, Server, Wire, hung_up, read_all, send_all, until

Ends = Callable[..., Pair]


class Transfer:
    """Random bytes both ways through one flow, slowly enough to be interrupted. `finish` checks every byte."""

    def __init__(self, pair: Pair, size: int = 24_000_000) -> None:
        self.data, self.answer = os.urandom(size), os.urandom(size // 4)
        self.sent = 0
        self.back = b""
        self._got: dict[int, bytes] = {}
        self._go = threading.Event()
        self._server = Server(pair.path("ram"), self._serve)
        self._sock = pair.connect("ram")
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def _serve(self, number: int, sock: socket.socket) -> None:
        writer = threading.Thread(target=send_all, args=(sock, self.answer))
        writer.start()
        self._got[number] = read_all(sock)
        writer.join()

    def _send(self) -> None:
        step = 100_000
        for place in range(0, len(self.data), step):
            if place >= len(self.data) // 2:
                self._go.wait(60)
            self._sock.sendall(self.data[place : place + step])
            self.sent = place
        self._sock.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        self.back = read_all(self._sock)

    def half_way(self) -> None:
        until("half of it is sent", lambda: self.sent >= len(self.data) // 2 - 200_000)

    def go_on(self) -> None:
        self._go.set()

    def finish(self) -> None:
        self.go_on()
        for thread in self._threads:
            thread.join()
        until("the last byte", lambda: 0 in self._got, 60)
        assert self._got[0] == self.data
        assert self.back == self.answer
        self._sock.close()
        self._server.close()


def passes(wire: Wire) -> Callable[[], bool]:
    """Whether half a megabyte has passed since now."""
    before = wire.carried
    return lambda: wire.carried > before + 500_000


def test_lanes_cut_in_the_middle_are_dialled_again_and_nothing_is_lost(ends: Ends) -> None:
    pair = ends()
    pair.start(wire=True)
    wire = pair.wire
    assert wire
    transfer = Transfer(pair)
    for place in range(3):
        until("bytes pass", passes(wire))
        wire.cut(place)
    transfer.half_way()
    wire.cut()
    transfer.finish()
    until("every lane is dialled again", lambda: pair.status()[0].redials >= 3)
    until("its trouble is over", lambda: pair.wait_state(pair.source, "connected").error == "")
    near, far = pair.status()
    assert near.flows[0].digest_out == far.flows[0].digest_in


def test_a_black_holed_lane_is_given_up_and_its_frames_go_another_way(ends: Ends) -> None:
    pair = ends()
    pair.start(wire=True)
    assert pair.wire
    transfer = Transfer(pair)
    until("bytes pass", lambda: pair.wire and pair.wire.carried > 500_000)
    pair.wire.stall(1)
    transfer.finish()


def test_a_link_lost_for_seconds_only_holds_the_programs_up(ends: Ends) -> None:
    pair = ends()
    pair.start(wire=True)
    assert pair.wire
    transfer = Transfer(pair)
    transfer.half_way()
    pair.wire.lose()
    transfer.go_on()
    for folder in (pair.source, pair.destination):
        lost = pair.wait_state(folder, "link-lost")
        assert lost.error
    pair.wire.heal()
    transfer.finish()
    until("every lane is dialled again", lambda: pair.status()[0].redials >= 3)
    pair.wait_state(pair.source, "connected")


def test_a_peer_that_stays_away_fails_the_session_and_closes_the_programs_sockets(ends: Ends) -> None:
    pair = ends(processes=True)
    server = Server(pair.path("ram"), lambda _, sock: None)
    pair.start(both={"resume_within": 1.0})
    sock = pair.connect("ram")
    sock.sendall(b"x")
    until("it is carried", lambda: pair.status()[1].raw_in == 1)
    os.kill(pair.status()[1].pid, signal.SIGKILL)
    failed = pair.wait_state(pair.source, "failed")
    assert "lost for over 1 s" in failed.error
    assert hung_up(sock)
    until("its listening sockets are gone", lambda: not (pair.source / "ram.sock").exists())
    with pytest.raises(OSError):
        pair.connect("ram")
    sock.close()
    server.close()


def test_a_destination_that_ended_is_told_from_a_lost_link(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dwcp.dialler.REFUSED_FOR", 0.5)
    pair = ends()
    port = pair.start_destination().port
    wire = Wire(port)
    pair.start_source(wire.port)
    pair.wait_state(pair.source, "connected")
    wire.close()

    def gave_up() -> bool:
        wire.cut()  # a dial that was already accepted when the listener went
        return control.status(pair.source).state == "failed"

    until("the source gives up", gave_up)
    assert "nobody listens" in control.status(pair.source).error


def test_a_source_that_dies_hangs_up_at_the_destination_too(ends: Ends) -> None:
    pair = ends(processes=True)
    server = Server(pair.path("ram"), lambda _, sock: None)
    pair.start(both={"resume_within": 1.0})
    sock = pair.connect("ram")
    sock.sendall(b"x")
    until("it is carried", lambda: pair.status()[1].raw_in == 1)
    os.kill(pair.status()[0].pid, signal.SIGKILL)
    pair.wait_state(pair.destination, "failed")
    assert hung_up(server.accepted[0])
    sock.close()
    server.close()


def test_abort_fails_both_ends_with_the_reason(ends: Ends) -> None:
    pair = ends()
    server = Server(pair.path("ram"), lambda _, sock: None)
    pair.start()
    sock = pair.connect("ram")
    until("it is open", lambda: server.accepted)
    control.stop(pair.source, abort=True)
    assert "aborted" in pair.wait_state(pair.destination, "failed").error
    assert hung_up(sock)
    assert hung_up(server.accepted[0])
    sock.close()
    server.close()


def test_sigterm_is_a_clean_stop(ends: Ends) -> None:
    pair = ends(processes=True)
    pair.start()
    os.kill(pair.status()[0].pid, signal.SIGTERM)
    until("the source ends", lambda: not control.is_running(pair.source))
    assert pair.wait_state(pair.destination, "closed")
    assert not (pair.source / "control.sock").exists()


def test_a_service_nobody_listens_on_closes_the_clients_connection_and_nothing_else(ends: Ends) -> None:
    pair = ends()
    server = Server(pair.path("nbd"), lambda _, sock: sock.sendall(b"alive"))
    pair.start()
    with pair.connect("ram") as sock:
        assert hung_up(sock)
    with pair.connect("nbd") as sock:
        assert sock.recv(5) == b"alive"
    until("both ends have closed it", lambda: not any(end.flows[0].open for end in pair.status()))
    assert "ram.sock" in pair.status()[0].flows[0].error
    server.close()


def test_a_destination_program_that_dies_is_seen_by_the_source_program(ends: Ends) -> None:
    pair = ends()
    server = Server(pair.path("ram"), lambda _, sock: sock.close())
    pair.start()
    with pair.connect("ram") as sock, pytest.raises(OSError):
        while True:
            sock.sendall(bytes(100_000))
    server.close()


def test_bytes_changed_behind_the_checksum_are_never_written_and_fail_both_ends(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Coder.decode
    batches = 0

    def damage(coder: Coder, codec: Codec, body: Buffer, raw_length: int) -> Buffer:
        nonlocal batches
        batches += 1
        raw = bytearray(decode(coder, codec, body, raw_length))
        if batches == 20:
            raw[raw_length // 2] ^= 1
        return bytes(raw)

    monkeypatch.setattr(Coder, "decode", damage)
    pair = ends()
    got: dict[int, bytes] = {}

    def behaviour(number: int, sock: socket.socket) -> None:
        got[number] = read_all(sock)

    server = Server(pair.path("ram"), behaviour)
    pair.start()
    data = os.urandom(40_000_000)
    with pair.connect("ram") as sock, pytest.raises(OSError):
        sock.sendall(data)
    assert "not the bytes that were read" in pair.wait_state(pair.destination, "failed").error
    assert "not the bytes that were read" in pair.wait_state(pair.source, "failed").error
    arrived = until("the destination's program sees the end", lambda: got.get(0))
    assert data.startswith(arrived)
    server.close()


def test_a_path_too_long_for_a_socket_is_refused_with_its_length(tmp_path: Path) -> None:
    path = str(tmp_path / ("x" * 120))
    with pytest.raises(StartFailed, match=rf"\({len(path)} bytes\)"):
        listen_unix(path, 0o600)


def test_a_wrong_authority_is_refused_in_the_handshake_and_said_at_both_ends(ends: Ends, tmp_path: Path) -> None:
    pair = ends()
    pair.tls["source"] = Authority(tmp_path / "other").issue("host-a")
    port = pair.start_destination().port
    pair.start_source(port)
    assert "certificate" in pair.wait_state(pair.source, "failed").error.lower()
    assert "turned away" in until("the destination says so", lambda: control.status(pair.destination).error)
    assert control.status(pair.destination).state == "waiting"


def test_a_client_without_a_certificate_gets_no_further_than_the_handshake(ends: Ends) -> None:
    pair = ends()
    port = pair.start_destination().port
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"DW" + bytes(200))
        assert hung_up(sock)
    assert "turned away" in until("it is said", lambda: control.status(pair.destination).error)
    pair.start_source(port)
    pair.wait_state(pair.source, "connected")


def test_a_certificate_of_another_host_is_refused_by_the_source(ends: Ends, authority: Authority) -> None:
    pair = ends()
    pair.tls["destination"] = authority.issue("host-x")
    pair.start_source(pair.start_destination().port)
    assert "host-b" in pair.wait_state(pair.source, "failed").error


def test_a_certificate_of_another_host_is_refused_by_the_destination(ends: Ends, authority: Authority) -> None:
    pair = ends()
    pair.tls["source"] = authority.issue("host-x")
    pair.start_source(pair.start_destination().port)
    error = pair.wait_state(pair.source, "failed").error
    assert "host-x" in error
    assert "host-a" in error


@pytest.mark.parametrize(
    ("change", "words"),
    [({"migration_id": "m-2"}, "another migration"), ({"owner_token": 7}, "owner token")],
)
def test_a_source_of_another_migration_or_owner_is_refused(ends: Ends, change: dict[str, object], words: str) -> None:
    pair = ends()
    pair.start_source(pair.start_destination().port, **change)
    assert words in pair.wait_state(pair.source, "failed").error
    until("the destination says so", lambda: words in control.status(pair.destination).error)
    assert control.status(pair.destination).state == "waiting"


def test_a_restarted_source_is_refused(ends: Ends) -> None:
    pair = ends(processes=True)
    pair.start()
    first = control.status(pair.source)
    os.kill(first.pid, signal.SIGKILL)
    until("it is gone", lambda: not control.is_running(pair.source))
    pair.start_source(first.port)
    assert "restarted" in pair.wait_state(pair.source, "failed").error


def test_a_restarted_destination_is_refused(ends: Ends) -> None:
    pair = ends(processes=True)
    pair.start()
    first = control.status(pair.destination)
    os.kill(first.pid, signal.SIGKILL)
    until("it is gone", lambda: not control.is_running(pair.destination))
    pair.start_destination(port=first.port)
    assert "restarted" in pair.wait_state(pair.source, "failed").error


def test_a_peer_that_never_comes_is_given_up(ends: Ends) -> None:
    pair = ends()
    pair.start_destination(open_within=0.3)
    assert "no complete connection" in pair.wait_state(pair.destination, "failed").error


def test_a_second_process_on_one_folder_is_refused_and_the_first_goes_on(ends: Ends) -> None:
    pair = ends(processes=True)
    pair.start()
    with pytest.raises(StartFailed, match="already"):
        process.spawn(pair.config("source", port=1), pair.source)
    assert control.status(pair.source).state == "connected"


def test_a_start_that_fails_quotes_the_log(ends: Ends) -> None:
    pair = ends(processes=True)
    with pytest.raises(StartFailed, match=r"authority .*missing\.pem"):
        tls = pair.tls["destination"].model_copy(update={"authority": "/missing.pem"})
        process.spawn(pair.config("destination", tls=tls), pair.destination)
    assert not control.is_running(pair.destination)


def test_nobody_there_and_nonsense_are_told_apart(ends: Ends) -> None:
    pair = ends()
    with pytest.raises(NotRunning):
        control.status(pair.source)
    pair.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(pair.source / "control.sock"))
        sock.sendall(b"nonsense\n")
        assert b"error" in sock.recv(10_000)
    with pytest.raises(ControlFailed, match="unknown op"):
        control._ask(pair.source, "dance", 5.0)
