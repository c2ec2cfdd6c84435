"""A disk behind NBD, the protocol that qemu-nbd speaks over a UNIX socket: read and write any format without a copy.

Only what is needed of https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md: fixed newstyle handshake,
NBD_OPT_GO, simple replies, one request at a time. Anything unexpected ends the session with BadDisk.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from types import TracebackType

from clouds.errors import BadDisk

PIECE = 8 << 20
"""Bytes in one request; qemu-nbd takes 32 MiB."""
_MAGIC, _OPTION_MAGIC, _REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x0003E889045565A9
_REQUEST, _SIMPLE_REPLY = 0x25609513, 0x67446698
_GO, _ACK, _INFO, _INFO_EXPORT = 7, 1, 3, 0
_READ, _WRITE, _DISCONNECT, _FLUSH, _WRITE_ZEROES = 0, 1, 2, 3, 6
_REMEDY = "See that qemu-nbd runs, and the image's storage."


class Nbd:
    """An open session. From one thread at a time; a context manager."""

    def __init__(self, path: str, deadline: float = 60.0, export: str = "") -> None:
        """`deadline`: seconds that one answer may take."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(deadline)
        try:
            self._socket.connect(path)
            self._greet()
            self._negotiate(export.encode())
            self.size = self._go(export.encode())
        except BaseException:
            self._socket.close()
            raise
        self._cookie = 0

    def __enter__(self) -> Nbd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._socket.sendall(struct.pack(">IHHQQI", _REQUEST, 0, _DISCONNECT, 0, 0, 0))
        except OSError:
            pass  # it is gone already
        finally:
            self._socket.close()

    def read(self, offset: int, length: int) -> bytes:
        found = bytearray()
        while len(found) < length:
            piece = min(PIECE, length - len(found))
            found += self._ask(_READ, offset + len(found), piece, answer=piece)
        return bytes(found)

    def write(self, offset: int, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            self._ask(_WRITE, offset + start, len(piece), piece)

    def zero(self, offset: int, length: int) -> None:
        while length:
            piece = min(length, 1 << 30)
            self._ask(_WRITE_ZEROES, offset, piece)
            offset, length = offset + piece, length - piece

    def flush(self) -> None:
        self._ask(_FLUSH, 0, 0)

    def _greet(self) -> None:
        magic, option, flags = struct.unpack(">QQH", self._receive(18))
        if (magic, option) != (_MAGIC, _OPTION_MAGIC) or not flags & 1:
            raise BadDisk("what listens there does not speak fixed newstyle NBD", _REMEDY)
        self._socket.sendall(struct.pack(">I", flags & 3))

    def _negotiate(self, export: bytes) -> None:
        """Options asked for before the export is entered."""

    def _go(self, export: bytes) -> int:
        """Enter the export; its size."""
        size = -1
        for kind, answer in self._option(_GO, struct.pack(">I", len(export)) + export + struct.pack(">H", 0)):
            if kind == _INFO and len(answer) >= 12 and struct.unpack(">H", answer[:2])[0] == _INFO_EXPORT:
                (size,) = struct.unpack(">Q", answer[2:10])
        if size < 0:
            raise BadDisk("the NBD server does not tell the export's size", _REMEDY)
        return int(size)

    def _option(self, option: int, body: bytes) -> Iterator[tuple[int, bytes]]:
        """What the server says to an option, up to its ACK. Raises BadDisk when it refuses."""
        self._socket.sendall(struct.pack(">QII", _OPTION_MAGIC, option, len(body)) + body)
        while True:
            reply, _, kind, length = struct.unpack(">QIII", self._receive(20))
            if reply != _REPLY_MAGIC or length > 65536:
                raise BadDisk("the NBD server's answer makes no sense", _REMEDY)
            answer = self._receive(length)
            if kind == _ACK:
                return
            if kind & 1 << 31:
                raise BadDisk(f"the NBD server refuses the export ({kind:#x}): {answer[:200]!r}", _REMEDY)
            yield kind, answer

    def _ask(self, command: int, offset: int, length: int, data: bytes = b"", answer: int = 0) -> bytes:
        self._cookie += 1
        try:
            self._socket.sendall(struct.pack(">IHHQQI", _REQUEST, 0, command, self._cookie, offset, length) + data)
        except OSError as error:
            raise BadDisk(f"the NBD server is gone: {error}", _REMEDY) from error
        magic, failure, cookie = struct.unpack(">IIQ", self._receive(16))
        if magic != _SIMPLE_REPLY or cookie != self._cookie:
            raise BadDisk("the NBD server's answer makes no sense", _REMEDY)
        if failure:
            raise BadDisk(f"the NBD server cannot do command {command} at {offset}+{length}: error {failure}", _REMEDY)
        return self._receive(answer)

    def _receive(self, length: int) -> bytes:
        found = bytearray(length)
        view = memoryview(found)
        while view:
            try:
                done = self._socket.recv_into(view)
            except OSError as error:
                raise BadDisk(f"the NBD server does not answer: {error}", _REMEDY) from error
            if not done:
                raise BadDisk("the NBD server hung up", _REMEDY)
            view = view[done:]
        return bytes(found)
