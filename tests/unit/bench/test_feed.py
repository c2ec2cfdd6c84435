"""What is fed must come out, and every difference is an error."""

from __future__ import annotations

import mmap
import socket
from collections.abc import Iterator

import pytest

from bench.feed import PIECE, Sink, WrongBytes, feed
from bench.recorded import Stream

SIZE = 2 * PIECE + 77


@pytest.fixture
def stream() -> Iterator[Stream]:
    with mmap.mmap(-1, SIZE) as data:
        data.write(bytes(range(256)) * (SIZE // 256) + bytes(SIZE % 256))
        yield Stream("sample", data, SIZE)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_all_bytes_and_the_end_are_seen(stream: Stream, pair: tuple[socket.socket, socket.socket]) -> None:
    sink = Sink(lambda: pair[1], stream)
    sink.start()
    feed(pair[0], stream, None, close=True)
    sink.over()
    assert sink.complete.is_set()
    assert sink.last_at > 0


def test_the_last_byte_is_seen_before_the_stream_ends(
    stream: Stream, pair: tuple[socket.socket, socket.socket]
) -> None:
    sink = Sink(lambda: pair[1], stream)
    sink.start()
    feed(pair[0], stream, 1e9, close=False)
    assert sink.complete.wait(30)
    assert sink.is_alive()
    pair[0].close()
    sink.over()


def test_a_changed_byte_is_found_and_placed(stream: Stream, pair: tuple[socket.socket, socket.socket]) -> None:
    sink = Sink(lambda: pair[1], stream)
    sink.start()
    pair[0].sendall(stream.data[:100] + b"\xff" + stream.data[101:200])
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(WrongBytes, match="the bytes from 0 to 200"):
        sink.over()


def test_a_stream_that_ends_early_is_an_error(stream: Stream, pair: tuple[socket.socket, socket.socket]) -> None:
    sink = Sink(lambda: pair[1], stream)
    sink.start()
    pair[0].sendall(stream.data[:100])
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(WrongBytes, match=f"after 100 of {SIZE}"):
        sink.over()
