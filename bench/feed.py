"""Feed a stream into what carries it, and compare every byte that comes out."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from bench.recorded import Stream

PIECE = 1 << 20
PACED_PIECE = 128 << 10
WITHIN = 300
"""Seconds the socket of either end may stand still before the row is given up."""


class WrongBytes(RuntimeError):
    """What came out is not what was put in: there is no measurement."""


class Sink(threading.Thread):
    """Takes the bytes at the far end. `complete` is set with the last of them, or when there is an error."""

    def __init__(self, accept: Callable[[], socket.socket], stream: Stream) -> None:
        super().__init__(name="sink", daemon=True)
        self._accept = accept
        self._stream = stream
        self.complete = threading.Event()
        self.last_at = 0.0
        self.error = ""

    def run(self) -> None:
        try:
            self._take()
        except OSError as error:
            self.error = f"the far end got no further: {error}"
        finally:
            self.complete.set()

    def _take(self) -> None:
        data, at = self._stream.data, 0
        with self._accept() as sock:
            sock.settimeout(WITHIN)
            while got := sock.recv(PIECE):
                now = time.monotonic()
                if got != data[at : at + len(got)]:
                    self.error = f"the bytes from {at} to {at + len(got)} are not those that were sent"
                    return
                at += len(got)
                if at == len(data):
                    self.last_at = now
                    self.complete.set()
        if at < len(data):
            self.error = f"the stream ended after {at} of {len(data)} bytes"

    def over(self) -> None:
        """Until it has seen the end of the stream. Raises WrongBytes."""
        self.join(WITHIN)
        if self.is_alive():
            raise WrongBytes(f"the stream did not end within {WITHIN} s of its last byte")
        if self.error:
            raise WrongBytes(self.error)


def feed(sock: socket.socket, stream: Stream, pace: float | None, close: bool) -> float:
    """Write the stream; when the last byte was written. `pace`: bytes a second. `close`: end the stream after it."""
    sock.settimeout(WITHIN)
    view = memoryview(stream.data)
    began = time.monotonic()
    try:
        piece = PACED_PIECE if pace else PIECE
        for at in range(0, len(view), piece):
            if pace and (ahead := began + at / pace - time.monotonic()) > 0:
                time.sleep(ahead)
            sock.sendall(view[at : at + piece])
        if close:
            sock.shutdown(socket.SHUT_WR)
        return time.monotonic()
    finally:
        view.release()
