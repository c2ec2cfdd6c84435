"""TLS over a connected TCP socket, in large pieces.

`ssl.SSLSocket` makes two system calls for each record it reads (16 KiB) and one for each it writes. Here OpenSSL works
in memory, and the socket is read and written a quarter of a MiB at a time, which takes less CPU at both ends
(`make bench-datapath ARGS="--only cpu"`, raw-tls).

Not thread safe: a lane has one owner thread. Time-outs are the socket's own.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import Final, cast

PIECE: Final = 256 << 10


class TlsChannel:
    """`sock` belongs to the caller, who closes it. Raises OSError (ssl errors are) when the handshake fails."""

    def __init__(
        self, sock: socket.socket, using: ssl.SSLContext, *, server_side: bool = False, server_name: str | None = None
    ) -> None:
        self._sock = sock
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._piece = memoryview(bytearray(PIECE))
        self._tls = using.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=server_name)
        self._shake_hands()

    def _shake_hands(self) -> None:
        until = time.monotonic() + (self._sock.gettimeout() or float("inf"))
        while time.monotonic() < until:
            try:
                self._tls.do_handshake()
                self._flush()
                return
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            except ssl.SSLError:
                with contextlib.suppress(OSError):  # he may be gone; why we refuse him is what counts here
                    self._flush()  # the alert that tells him
                raise
        raise TimeoutError("the handshake did not end in time")

    def peer_names(self) -> tuple[str, ...]:
        """DNS names in the peer's verified certificate."""
        entries = (self._tls.getpeercert() or {}).get("subjectAltName", ())
        assert isinstance(entries, tuple)
        return tuple(str(entry[1]) for entry in entries if entry[0] == "DNS")

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Raises OSError."""
        view = memoryview(data)
        for at in range(0, len(view), PIECE):
            self._tls.write(view[at : at + PIECE])
            self._flush()

    def recv_into(self, view: memoryview) -> int:
        """At least a byte, and what else has come; 0 when the peer has closed. Raises OSError."""
        done = 0
        while True:
            try:
                while done < len(view):
                    done += cast(int, self._tls.read(len(view) - done, view[done:]))  # a record at most
                return done
            except ssl.SSLWantReadError:
                self._flush()
                if done or not self._receive():
                    return done
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return done  # with or without TLS's own farewell: frames tell a whole stream from a broken one

    def _receive(self) -> int:
        """Take in what has come; in the handshake OpenSSL makes an error of its end."""
        size = self._sock.recv_into(self._piece)
        if size:
            self._in.write(self._piece[:size])
        else:
            self._in.write_eof()
        return size

    def _flush(self) -> None:
        if self._out.pending:
            self._sock.sendall(self._out.read())
