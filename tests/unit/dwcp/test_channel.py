"""TLS in memory over a socket: every byte, in order, and a clear end."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dwcp.security import tls
from dwcp.transport.channel import PIECE, TlsChannel

from .harness import Authority

Pair = tuple[tuple[TlsChannel, socket.socket], tuple[TlsChannel, socket.socket]]


@pytest.fixture
def pair(authority: Authority) -> Iterator[Pair]:
    near, far = socket.socketpair()
    with near, far, ThreadPoolExecutor(1) as beside:
        near.settimeout(20)
        far.settimeout(20)
        server = beside.submit(TlsChannel, far, tls.context("destination", authority.issue("host-b")), server_side=True)
        client = TlsChannel(near, tls.context("source", authority.issue("host-a")), server_name="host-b")
        yield (client, near), (server.result(20), far)


def read(channel: TlsChannel, size: int) -> bytes:
    got = bytearray(size)
    done = 0
    while done < size and (part := channel.recv_into(memoryview(got)[done:])):
        done += part
    return bytes(got[:done])


@pytest.mark.parametrize("size", [1, 16 << 10, (16 << 10) + 1, PIECE, 3 * PIECE + 17])
def test_what_goes_in_comes_out_both_ways(pair: Pair, size: int) -> None:
    (client, _), (server, _) = pair
    data = os.urandom(size)
    for sender, receiver in ((client, server), (server, client)):
        thread = threading.Thread(target=sender.sendall, args=(memoryview(data),))
        thread.start()
        assert read(receiver, size) == data
        thread.join()


def test_a_read_gives_all_that_has_come_but_waits_only_for_the_first_byte(pair: Pair) -> None:
    (client, _), (server, _) = pair
    data = os.urandom(3 * (16 << 10))
    client.sendall(data)
    assert server.recv_into(memoryview(bytearray(1 << 20))) == len(data)


def test_the_end_of_the_connection_reads_as_nothing_after_what_came_before(pair: Pair) -> None:
    (client, sock), (server, _) = pair
    client.sendall(b"the last words")
    sock.shutdown(socket.SHUT_WR)
    room = memoryview(bytearray(100))
    assert [server.recv_into(room), server.recv_into(room), server.recv_into(room)] == [14, 0, 0]


def test_bytes_changed_on_the_way_are_an_error(pair: Pair) -> None:
    (_, near), (server, _) = pair
    near.sendall(b"\x17\x03\x03\x00\x20" + os.urandom(32))
    with pytest.raises(ssl.SSLError):
        server.recv_into(memoryview(bytearray(100)))


def test_a_stranger_is_told_why_before_he_is_hung_up_on(authority: Authority) -> None:
    near, far = socket.socketpair()
    with near, far, ThreadPoolExecutor(1) as beside:
        far.settimeout(20)
        near.settimeout(20)
        destination = tls.context("destination", authority.issue("host-b"))
        server = beside.submit(TlsChannel, far, destination, server_side=True)
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
        client = TlsChannel(near, nobody)
        with pytest.raises(ssl.SSLError, match="did not return a certificate"):
            server.result(20)
        with pytest.raises(ssl.SSLError, match="certificate required"):
            client.recv_into(memoryview(bytearray(10)))
