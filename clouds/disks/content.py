"""A disk's content as its guest sees it: in blocks of 512 KiB, with a hash that is the same in every format.

The content hash is SHA-256 over, for each block that is not all zeros, in order: its index (8 bytes, big-endian) and
its SHA-256. The last block counts as filled up with zeros. So neither the format, nor what is sparse, nor zeros that a
cloud puts behind the end change it; two disks with one hash read alike, up to zeros at the end. Zeros cost nothing,
and it is built from the checksums that EBS itself keeps for each block.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from clouds.errors import BadDisk

BLOCK = 512 << 10
"""Bytes; EBS's unit, and small enough for a change to cost little elsewhere."""
ZEROS = bytes(BLOCK)


class Reader(Protocol):
    """Content to read. From one thread at a time."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes, all inside the disk. Raises BadDisk."""

    def data(self) -> Iterable[tuple[int, int]]:
        """(offset, length) of all that may be other than zeros, ascending and apart."""


class Writer(Protocol):
    """Content to write. Nothing is certain before `flush`."""

    size: int

    def write(self, offset: int, data: bytes) -> None: ...
    def zero(self, offset: int, length: int) -> None: ...
    def flush(self) -> None: ...


class Disk(Writer, Protocol):
    """A Writer that can be read back, to see after a crash that it holds what was written."""

    def read(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True)
class Block:
    index: int
    data: bytes
    """BLOCK bytes, filled up with zeros behind the disk's end."""

    @property
    def empty(self) -> bool:
        return self.data == ZEROS


class ContentHash:
    """The hash, as it grows. Blocks are added in ascending order, zero ones may be left out."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._above = 0

    def add(self, index: int, digest: bytes) -> None:
        """`digest` is the block's SHA-256."""
        if index < self._above:
            raise ValueError(f"block {index} comes after block {self._above - 1}")
        self._above = index + 1
        self._hash.update(index.to_bytes(8, "big") + digest)

    def hexdigest(self) -> str:
        return self._hash.copy().hexdigest()


def blocks(source: Reader, ranges: Iterable[tuple[int, int]] | None = None) -> Iterator[Block]:
    """Blocks that `ranges` touch, ascending, each once; by default those that may hold data, without zero ones."""
    for index in touched(source.size, source.data() if ranges is None else ranges):
        block = read_block(source, index)
        if ranges is not None or not block.empty:
            yield block


def touched(size: int, ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Indices of the blocks that `ranges` of a disk of `size` bytes touch. Raises BadDisk when one is outside it, or
    when they do not ascend."""
    above = 0
    end = 0
    for offset, length in ranges:
        if length < 1 or offset < end or offset + length > size:
            raise BadDisk(
                f"range {offset}+{length} does not fit a disk of {size} bytes, or comes before another's end",
                "Give ascending ranges inside the disk.",
            )
        end = offset + length
        first = max(above, offset // BLOCK)
        above = max(above, (end - 1) // BLOCK + 1)
        yield from range(first, above)


def ranges_of(size: int, indices: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(offset, length) of ascending blocks of a disk of `size` bytes, neighbours joined; what is behind its end is left
    out."""
    start = end = 0
    for index in indices:
        offset = index * BLOCK
        if offset >= size:
            break
        if offset != end and end > start:
            yield start, min(end, size) - start
        start, end = (start if offset == end and end > start else offset), offset + BLOCK
    if end > start:
        yield start, min(end, size) - start


def read_block(source: Reader, index: int) -> Block:
    offset = index * BLOCK
    data = source.read(offset, min(BLOCK, source.size - offset))
    return Block(index, data.ljust(BLOCK, b"\0"))


def content_hash(source: Reader) -> str:
    """Reads all that may be data."""
    digest = ContentHash()
    for block in blocks(source):
        digest.add(block.index, hashlib.sha256(block.data).digest())
    return digest.hexdigest()


class RawFile:
    """A raw image or a block device, sparse where its file system says so. Reads and writes; a context manager."""

    def __init__(self, path: str | Path, writable: bool = False) -> None:
        self.path = str(path)
        try:
            self._handle = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
            self.size = os.lseek(self._handle, 0, os.SEEK_END)
        except OSError as error:
            raise BadDisk(
                f"{path} cannot be opened: {error.strerror}", "Check the path and its permissions."
            ) from error

    def __enter__(self) -> RawFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def read(self, offset: int, length: int) -> bytes:
        found = bytearray()
        while len(found) < length:
            piece = os.pread(self._handle, length - len(found), offset + len(found))
            if not piece:
                raise BadDisk(
                    f"{self.path} ends at byte {offset + len(found)}, before its {self.size}",
                    "It was cut while it was read.",
                )
            found += piece
        return bytes(found)

    def data(self) -> Iterator[tuple[int, int]]:
        at = 0
        while at < self.size:
            try:
                start = os.lseek(self._handle, at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            at = os.lseek(self._handle, start, os.SEEK_HOLE)
            yield start, at - start

    def write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._handle, view, offset)
            view, offset = view[done:], offset + done

    def zero(self, offset: int, length: int) -> None:
        """Skips what is a hole already, so that a sparse file stays sparse."""
        while length:
            piece = min(length, BLOCK)
            if self.read(offset, piece).strip(b"\0"):
                self.write(offset, bytes(piece))
            offset, length = offset + piece, length - piece

    def flush(self) -> None:
        os.fdatasync(self._handle)
