"""A lane over one TCP connection, under TLS or plain: frames in one direction, after `hello` has gone both ways.

An SSL object must not be read and written by two threads at once, so a lane has one owner thread: the writer's or the
reader's. Other threads may only do what dwcp/transport/carrier.py says. Every blocking call has a deadline.
"""

from __future__ import annotations

import logging
import socket
import struct
from fcntl import ioctl
from functools import cache
from typing import Final

from dwcp.buffers import BufferPool
from dwcp.errors import ProtocolError, WrongProtection
from dwcp.transport import frames
from dwcp.transport.carrier import UNSENT_BYTES, Carrier, LaneClosed, Progress
from dwcp.transport.channel import TlsChannel
from dwcp.transport.frames import HEADER_BYTES, Buffer, Header, Type
from dwcp.transport.liveness import LANE_TIMEOUT

__all__ = ["HANDSHAKE_SECONDS", "Lane", "LaneClosed", "tune"]
log = logging.getLogger(__name__)

HANDSHAKE_SECONDS: Final = 5.0
RECORD: Final = 16 << 10
"""Plain bytes of a full TLS record. A frame's start is joined with as much of its body; the rest is not copied."""
UNPOOLED: Final = 64 << 10
"""A payload up to this gets memory of its own size: many small ones may wait for one missing frame."""
_TLS_STARTS: Final = (0x15, 0x16)
"""First byte of what an end that speaks TLS sends first: an alert or a handshake."""
_SIOCOUTQ: Final = 0x5411
_INFO: Final = struct.Struct("=16xI48xI8xI16xI16xQ8xI8xI")
"""Of struct tcp_info: snd_mss, rtt, snd_cwnd, total_retrans, bytes_acked, segs_out, min_rtt."""


def tune(sock: socket.socket) -> None:
    """TCP options of a lane. BBR keeps a lossy link full; where the kernel lacks it, its default does."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(LANE_TIMEOUT * 1000))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
    except OSError as error:
        _lacks_bbr(str(error))


@cache
def _lacks_bbr(error: str) -> None:
    """Said once in a process, not for each lane."""
    log.info("congestion control bbr is not available (%s); the system's default is used", error)


class Lane(Carrier):
    """`channel`: TLS over `sock`, whose handshake is done; None: in the clear."""

    def __init__(
        self, sock: socket.socket, pool: BufferPool, number: int = 0, channel: TlsChannel | None = None
    ) -> None:
        super().__init__(pool, number)
        self.kind = "tls" if channel else "tcp"
        self._sock = sock
        self._channel = channel
        self._header = bytearray(HEADER_BYTES)

    def send(self, start: bytes, body: Buffer = b"") -> None:
        """One frame: header and first part, then body. Raises OSError."""
        if self._channel is None:
            self._send_both(start, body)
            return
        first = RECORD - len(start)
        view = memoryview(body)
        self._channel.sendall(b"".join((start, view[:first])) if body else start)
        if first < len(view):
            self._channel.sendall(view[first:])

    def _send_both(self, start: bytes, body: Buffer) -> None:
        """In one system call when the kernel takes it all, and never joined here."""
        try:
            done = self._sock.sendmsg((start, body)) - len(start)
            while done < 0:
                done += self._sock.send(start[done:])
            rest = memoryview(body)
            while done < len(rest):
                done += self._sock.send(rest[done:])
        except BlockingIOError as error:
            raise TimeoutError("the peer took nothing in time") from error

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

    def read_hello(self, wanted: frozenset[Type]) -> tuple[Header, bytes]:
        """One frame of the opening exchange. Raises OSError, WrongProtection, ProtocolError for any other type."""
        try:
            self._fill(memoryview(self._header))
        except LaneClosed as error:
            self._check_protection()
            raise error
        self._check_protection()
        header = frames.decode_header(self._header)
        if header.type not in wanted:
            raise ProtocolError(f"{header.type.name} before hello; close the lane")
        payload = bytearray(header.length)
        self._fill(memoryview(payload))
        frames.verify(self._header, header, payload)
        return header, bytes(payload)

    def _check_protection(self) -> None:
        if self._channel is None and self._header[0] in _TLS_STARTS and self._header[1] == 3:
            raise WrongProtection("the peer speaks TLS, this end has protection none; give both ends the same")

    def settimeout(self, seconds: float) -> None:
        """How long nothing may move. In the clear the kernel waits itself, for whole frames: fewer wake-ups."""
        if self._channel:
            self._sock.settimeout(seconds)
            return
        self._sock.setblocking(True)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6)))

    def queued(self) -> int:
        """Bytes the kernel holds for the peer, sent or not, and not acknowledged by its TCP."""
        try:
            answer = ioctl(self._sock.fileno(), _SIOCOUTQ, b"\0\0\0\0")
        except (OSError, ValueError):
            return 0
        return int(struct.unpack("i", answer)[0])

    def observe(self, now: float) -> None:
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        except OSError:
            return  # cut meanwhile: the owner thread sees it
        if len(info) < _INFO.size:
            return
        size, trip, window, again, acked, segments, least = _INFO.unpack_from(info)
        self.life.observe(now, acked)
        self.progress = Progress(acked, trip / 1e6, least / 1e6, window * size, segments, again)

    def keep_unsent(self, size: int) -> None:
        self.unsent = size
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)
        except OSError:
            return  # cut meanwhile: the owner thread sees it

    def cut(self, reason: str) -> None:
        """From any thread: wake the owner with an error. The owner closes."""
        self.doomed = self.doomed or reason
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # already gone

    def finish(self) -> None:
        """Owner: the last frame is sent; let the peer read it before the connection goes."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
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
            try:
                if self._channel:
                    got = self._channel.recv_into(view[done:])
                else:
                    got = self._sock.recv_into(view[done:], 0, socket.MSG_WAITALL)
            except BlockingIOError as error:
                raise TimeoutError("the peer said nothing in time") from error
            if not got:
                raise LaneClosed("the peer closed the connection")
            done += got
