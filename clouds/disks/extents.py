"""Which parts of a disk behind NBD hold data, or have changed: the block status of one meta context.

Contexts that QEMU serves: `base:allocation`, and `qemu:dirty-bitmap:<name>` for a bitmap that the export was given.
Only structured replies carry it, so a session for it is one of its own, beside the `Nbd` that reads.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from clouds.disks.nbd import _REMEDY, Nbd
from clouds.errors import BadDisk

ALLOCATION = "base:allocation"
PIECE = 1 << 30
"""Bytes asked about at once; the server may answer for fewer."""
_STRUCTURED_REPLY, _SET_META_CONTEXT, _META_CONTEXT = 8, 10, 4
_REQUEST, _CHUNK, _BLOCK_STATUS = 0x25609513, 0x668E33EF, 7
_DONE, _STATUS = 1, 5
_ZERO, _DIRTY = 2, 1


def dirty(bitmap: str) -> str:
    return f"qemu:dirty-bitmap:{bitmap}"


class Extents(Nbd):
    """An open session that only tells extents; it must not be read from."""

    def __init__(self, path: str, context: str, deadline: float = 60.0, export: str = "") -> None:
        """Raises BadDisk when the server does not have the context."""
        self._context = context
        self._context_id = -1
        super().__init__(path, deadline, export)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of what is dirty, or not known to be zeros; ascending, apart, inside the disk."""
        start, end = 0, 0
        for offset, length, wanted in self._statuses():
            if not wanted:
                continue
            if offset == end and end > start:
                end += length
                continue
            if end > start:
                yield start, end - start
            start, end = offset, offset + length
        if end > start:
            yield start, end - start

    def _statuses(self) -> Iterator[tuple[int, int, bool]]:
        offset = 0
        while offset < self.size:
            for length, flags in self._status(offset, min(PIECE, self.size - offset)):
                length = min(length, self.size - offset)
                wanted = not flags & _ZERO if self._context == ALLOCATION else bool(flags & _DIRTY)
                yield offset, length, wanted
                offset += length

    def _negotiate(self, export: bytes) -> None:
        for _ in self._option(_STRUCTURED_REPLY, b""):
            pass
        query = self._context.encode()
        body = struct.pack(">I", len(export)) + export + struct.pack(">II", 1, len(query)) + query
        for kind, answer in self._option(_SET_META_CONTEXT, body):
            if kind == _META_CONTEXT and answer[4:] == query:
                (self._context_id,) = struct.unpack(">I", answer[:4])
        if self._context_id < 0:
            raise BadDisk(f"the NBD server does not know {self._context} of {export.decode()!r}", _REMEDY)

    def _status(self, offset: int, length: int) -> list[tuple[int, int]]:
        """(length, flags) from `offset` on, one at least."""
        self._cookie += 1
        try:
            self._socket.sendall(struct.pack(">IHHQQI", _REQUEST, 0, _BLOCK_STATUS, self._cookie, offset, length))
        except OSError as error:
            raise BadDisk(f"the NBD server is gone: {error}", _REMEDY) from error
        found: list[tuple[int, int]] = []
        while True:
            magic, flags, kind, cookie, size = struct.unpack(">IHHQI", self._receive(20))
            if magic != _CHUNK or cookie != self._cookie or size > 64 << 20:
                raise BadDisk("the NBD server's answer makes no sense", _REMEDY)
            answer = self._receive(size)
            if kind & 1 << 15:
                raise BadDisk(f"the NBD server cannot tell the status at {offset}+{length}: {answer[:200]!r}", _REMEDY)
            if kind == _STATUS and struct.unpack(">I", answer[:4])[0] == self._context_id:
                found += struct.iter_unpack(">II", answer[4:])
            if flags & _DONE:
                break
        if not found or not all(span for span, _ in found):
            raise BadDisk(f"the NBD server tells no status at {offset}", _REMEDY)
        return found
