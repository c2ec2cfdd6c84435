"""Google's archive as a stream: a gzip of a tar of one sparse file `disk.raw`, made without a copy of the disk.

Byte for byte the same from the same content, in any process, with any version of any library: data is stored, not
compressed, and every header is written here. So an upload that broke off can go on at any byte. Zero blocks are holes
of the tar (old GNU's sparse format, the one that Google names) and are not sent. The place of each hole stands in the
tar's header, before the data: the disk is read twice, first by `clouds.disks.survey`, for whole GiB.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from clouds.disks.content import BLOCK, Reader, read_block
from clouds.disks.images import MEMBER
from clouds.disks.survey import Piece, Survey

SECTOR = 512
RECORD = 20 * SECTOR
"""A tar ends at a multiple of this."""
_STORED = 65535
"""Largest stored block of deflate."""
_HEAD_PAIRS, _MORE_PAIRS = 4, 21


def stream(source: Reader, found: Survey) -> Iterator[Piece]:
    """The whole archive. Blocks are read again: a source that changed since the survey gives another content hash."""
    gzip = _Gzip()
    yield Piece(gzip.begin() + gzip.add(_head(found)))
    for first, number in found.runs:
        for index in range(first, first + number):
            block = read_block(source, index)
            yield Piece(gzip.add(block.data), block)
    end = -(-(gzip.length + 2 * SECTOR) // RECORD) * RECORD
    yield Piece(gzip.add(bytes(end - gzip.length)) + gzip.end())


class _Gzip:
    """A gzip of stored blocks."""

    def __init__(self) -> None:
        self.length = 0
        self._crc = 0

    def begin(self) -> bytes:
        return b"\x1f\x8b\x08\0\0\0\0\0\0\xff"

    def add(self, data: bytes) -> bytes:
        self._crc = zlib.crc32(data, self._crc)
        self.length += len(data)
        parts = []
        for at in range(0, len(data), _STORED):
            part = data[at : at + _STORED]
            parts += [struct.pack("<BHH", 0, len(part), len(part) ^ 0xFFFF), part]
        return b"".join(parts)

    def end(self) -> bytes:
        return b"\x01\0\0\xff\xff" + struct.pack("<II", self._crc, self.length & 0xFFFFFFFF)


def _head(found: Survey) -> bytes:
    """Header and map: (offset, length) of each run, and an empty one at the end of the file."""
    pairs = [(first * BLOCK, number * BLOCK) for first, number in found.runs]
    pairs.append((found.size, 0))
    table = [_number(offset, 12) + _number(length, 12) for offset, length in pairs]
    head = bytearray(SECTOR)

    def put(at: int, field: bytes) -> None:
        head[at : at + len(field)] = field

    put(0, MEMBER.encode())
    for at, value, width in ((100, 0o644, 8), (108, 0, 8), (116, 0, 8), (124, found.count * BLOCK, 12), (136, 0, 12)):
        put(at, _number(value, width))
    put(148, b" " * 8)
    put(156, b"S")
    put(257, b"ustar  \0")
    put(386, b"".join(table[:_HEAD_PAIRS]))
    more = table[_HEAD_PAIRS:]
    head[482] = bool(more)
    put(483, _number(found.size, 12))
    put(148, b"%06o\0 " % sum(head))
    parts = [bytes(head)]
    for at in range(0, len(more), _MORE_PAIRS):
        part = b"".join(more[at : at + _MORE_PAIRS]).ljust(_MORE_PAIRS * 24, b"\0")
        parts.append((part + bytes([at + _MORE_PAIRS < len(more)])).ljust(SECTOR, b"\0"))
    return b"".join(parts)


def _number(value: int, width: int) -> bytes:
    """Octal digits and NUL; GNU's base 256 where these are too few."""
    if value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")
