"""One TCP connection under TLS that carries frames in one direction, after `hello` has gone both ways.

An SSL object must not be read and written by two threads at once, so a lane has one owner thread: the writer's or the
reader's. Other threads may only call `cut`, which wakes the owner with an error. Every blocking call has a deadline.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import time
from fcntl import ioctl
from typing import Final

from dwcp.buffers import BufferPool
from dwcp.errors import ProtocolError
from dwcp.transport import frames
from dwcp.transport.frames import HEADER_BYTES, Buffer, Data, Header, Message, Type
from dwcp.transport.liveness import LANE_TIMEOUT, WriterLiveness

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS: Final = 5.0
JOIN_BELOW: Final = 16 << 10
"""A frame up to one TLS record is sent as one piece; a larger body is not copied."""
UNPOOLED: Final = 64 << 10
"""A payload up to this gets memory of its own size: many small ones may wait for one missing frame."""
UNSENT_BYTES: Final = 256 << 10
"""Kernel's unsent backlog: lanes pull work as they drain, and small frames do not wait behind megabytes."""
_SIOCOUTQ: Final = 0x5411
_BYTES_ACKED_AT: Final = 120
"""Offset of tcpi_bytes_acked (u64) in struct tcp_info."""


def tune(sock: socket.socket) -> None:
    """TCP options of a lane. BBR keeps a lossy link full; where the kernel lacks it, its default does."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(LANE_TIMEOUT * 1000))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
    except OSError as error:
        log.info("congestion control bbr is not available (%s); the system's default is used", error)


class LaneClosed(OSError):
    """The peer closed the connection."""


class Lane:
    def __init__(self, sock: ssl.SSLSocket, pool: BufferPool, number: int = 0) -> None:
        self.number = number
        """0.. forward, RETURN_LANE the way back; the destination learns it from HELLO."""
        self.opened = time.monotonic()
        self.life = WriterLiveness(self.opened)
        self.next_ping = 0.0
        self.doomed: str | None = None
        self.farewell_said = False
        self._sock = sock
        self._pool = pool
        self._header = bytearray(HEADER_BYTES)

    def send(self, start: bytes, body: Buffer = b"") -> None:
        """One frame: header and first part, then body. Raises OSError."""
        if len(start) + len(body) <= JOIN_BELOW:
            self._sock.sendall(b"".join((start, body)) if body else start)
        else:
            self._sock.sendall(start)
            self._sock.sendall(body)

    def read_raw(self) -> tuple[Header, bytearray, memoryview]:
        """Header, the pooled buffer, and the verified payload in it. Raises OSError, ProtocolError."""
        self._fill(memoryview(self._header))
        header = frames.decode_header(self._header)
        small = header.length <= UNPOOLED
        buffer = bytearray(header.length) if small else self._pool.take(header.length)
        payload = memoryview(buffer)[: header.length]
        self._fill(payload)
        frames.verify(self._header, header, payload)
        return header, buffer, payload

    def read(self) -> tuple[Message, bytearray | None, int]:
        """The next message, the pooled buffer its body lies in (DATA only), and its size on the wire."""
        header, buffer, payload = self.read_raw()
        message = frames.decode_payload(header, payload)
        if not isinstance(message, Data):
            payload.release()
            self._pool.give(buffer)
            return message, None, HEADER_BYTES + header.length
        return message, buffer, HEADER_BYTES + header.length

    def read_hello(self, wanted: frozenset[Type]) -> tuple[Header, bytes]:
        """One frame of the opening exchange. Raises OSError, ProtocolError for any other type."""
        self._fill(memoryview(self._header))
        header = frames.decode_header(self._header)
        if header.type not in wanted:
            raise ProtocolError(f"{header.type.name} before hello; close the lane")
        payload = bytearray(header.length)
        self._fill(memoryview(payload))
        frames.verify(self._header, header, payload)
        return header, bytes(payload)

    def settimeout(self, seconds: float) -> None:
        self._sock.settimeout(seconds)

    def queued(self) -> int:
        """Bytes the kernel holds for the peer, sent or not, and not acknowledged by its TCP."""
        try:
            answer = ioctl(self._sock.fileno(), _SIOCOUTQ, b"\0\0\0\0")
        except (OSError, ValueError):
            return 0
        return int(struct.unpack("i", answer)[0])

    def observe(self, now: float) -> None:
        """Note TCP's own progress for the liveness verdict."""
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        except OSError:
            return  # cut meanwhile: the owner thread sees it
        if len(info) >= _BYTES_ACKED_AT + 8:
            self.life.observe(now, int(struct.unpack_from("Q", info, _BYTES_ACKED_AT)[0]))

    def cut(self, reason: str) -> None:
        """From any thread: wake the owner with an error. The owner closes."""
        self.doomed = self.doomed or reason
        try:
            # Not SSLSocket.shutdown: it drops the TLS state under the owner, whose next write would be plain text.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            return  # already gone

    def finish(self) -> None:
        """Owner: the last frame is sent; let the peer read it before the connection goes."""
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
            self._sock.settimeout(1.0)
            while self._sock.recv(4096):
                pass
        except OSError:
            return  # the peer was faster

    def close(self) -> None:
        self._sock.close()

    def _fill(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            got = self._sock.recv_into(view[done:])
            if not got:
                raise LaneClosed("the peer closed the connection")
            done += got
