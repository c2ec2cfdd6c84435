"""What a cloud was given of a disk: the SHA-256 of each block as it was last taken there, kept beside the image. Of a
disk that comes from a cloud: what the cloud gave.

It turns a later look at the disk into the exact list of what differs, whether QEMU's bitmap survived or not; and once
all differences are sent, it and the disk have one content hash, or something went wrong. 32 bytes for each 512 KiB.

    one line of JSON: {"move": ..., "disk": ..., "size": ..., "token": ..., "sent": ..., "toward": ...,
     "origin": ..., "saved": ...}
    SHA-256 of block 0, block 1, ...; 32 zero bytes for a block of zeros
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from clouds.disks.content import BLOCK, ContentHash, Disk, Reader, read_block, touched
from clouds.errors import SourceChanged

EMPTY = bytes(32)
SUFFIX = ".novacron-cloud"
_HEADER_LIMIT = 4096


@dataclass
class Ledger:
    size: int
    """Of the disk, in bytes."""
    disk: str = ""
    """The cloud's disk that holds what this says; empty before the first has arrived."""
    token: str = ""
    """Of the step that brought it there: the step, done again, finds that it is done."""
    sent: int = 0
    """Bytes that step sent."""
    toward: str = ""
    """The cloud's disk whose changes are being written into the image, which lies between `disk` and it until then."""
    origin: str = ""
    """The cached disk that the first one was made from, and..."""
    saved: int = 0
    """...bytes that were not sent for it."""
    digests: dict[int, bytes] = field(default_factory=dict)
    """By block; zero ones are left out."""

    @classmethod
    def read(cls, path: Path, move: str) -> Self:
        """Raises SourceChanged when there is none, or it is of another move."""
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            raise _lost(path, "is not there") from None
        header = raw[:_HEADER_LIMIT].partition(b"\n")[0]
        body = raw[len(header) + 1 :]
        try:
            told = json.loads(header)
            size, sent = int(told["size"]), int(told["sent"])
            disk, token, of = str(told["disk"]), str(told["token"]), str(told["move"])
            toward, origin = str(told.get("toward", "")), str(told.get("origin", ""))
            saved = int(told.get("saved", 0))
        except (ValueError, KeyError, TypeError):
            raise _lost(path, "is damaged") from None
        if of != move:
            raise _lost(path, f"belongs to another move, {of}")
        if len(body) != 32 * -(-size // BLOCK):
            raise _lost(path, "is damaged")
        held = {index: body[at : at + 32] for index, at in enumerate(range(0, len(body), 32))}
        digests = {index: digest for index, digest in held.items() if digest != EMPTY}
        return cls(size, disk, token, sent, toward, origin, saved, digests)

    def write(self, path: Path, move: str) -> None:
        """On disk, whole, when it returns."""
        fresh = path.with_name(f"{path.name}.new")
        with fresh.open("wb") as out:
            header = {"move": move, "disk": self.disk, "size": self.size, "token": self.token, "sent": self.sent}
            header |= {"toward": self.toward} if self.toward else {}
            header |= {"origin": self.origin, "saved": self.saved} if self.origin else {}
            out.write(json.dumps(header).encode() + b"\n")
            for index in range(-(-self.size // BLOCK)):
                out.write(self.digests.get(index, EMPTY))
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(path)

    def take(self, index: int, data: bytes) -> None:
        if data.strip(b"\0"):
            self.digests[index] = hashlib.sha256(data.ljust(BLOCK, b"\0")).digest()
        else:
            self.digests.pop(index, None)

    def differs(self, index: int, data: bytes) -> bool:
        mine = self.digests.get(index)
        if not data.strip(b"\0"):
            return mine is not None
        return mine != hashlib.sha256(data.ljust(BLOCK, b"\0")).digest()

    def content(self) -> str:
        """The content hash of the disk as the cloud has it."""
        found = ContentHash()
        for index, digest in sorted(self.digests.items()):
            found.add(index, digest)
        return found.hexdigest()

    def differences(self, source: Reader, ranges: Iterable[tuple[int, int]] | None = None) -> Iterator[tuple[int, int]]:
        """(offset, length) of blocks in `ranges` that are not as the cloud has them; of the whole disk by default.
        Blocks that the source says are zeros are not read."""
        for index in self._worth_reading(source, ranges):
            offset = index * BLOCK
            length = min(BLOCK, source.size - offset)
            if self.differs(index, read_block(source, index).data):
                yield offset, length

    def compare(self, source: Reader) -> tuple[tuple[tuple[int, int], ...], str]:
        """(all differences, the content hash of the source) in one pass over a disk that nobody writes to."""
        found, differs = ContentHash(), []
        for index in self._worth_reading(source, None):
            data = read_block(source, index).data
            if data.strip(b"\0"):
                found.add(index, hashlib.sha256(data).digest())
            if self.differs(index, data):
                differs.append((index * BLOCK, min(BLOCK, source.size - index * BLOCK)))
        return tuple(differs), found.hexdigest()

    def _worth_reading(self, source: Reader, ranges: Iterable[tuple[int, int]] | None) -> Iterable[int]:
        if ranges is not None:
            return touched(source.size, ranges)
        return sorted({*touched(source.size, source.data()), *self.digests})


class Recorded:
    """A Reader whose blocks are noted in a ledger as they are read: what is sent is what is noted."""

    def __init__(self, source: Reader, ledger: Ledger) -> None:
        self.size = source.size
        self._source = source
        self._ledger = ledger

    def read(self, offset: int, length: int) -> bytes:
        """Whole blocks, as adapters read. Raises ValueError for less, which no ledger could hold."""
        if offset % BLOCK or (length % BLOCK and offset + length != self.size):
            raise ValueError(f"{offset}+{length} of a disk of {self.size} bytes are not whole blocks")
        data = self._source.read(offset, length)
        for start in range(0, length, BLOCK):
            self._ledger.take((offset + start) // BLOCK, data[start : start + BLOCK])
        return data

    def data(self) -> Iterable[tuple[int, int]]:
        return self._source.data()


class Noted:
    """A Disk whose blocks are noted in a ledger as they are written, or read back: what came is what is noted."""

    def __init__(self, target: Disk, ledger: Ledger, beat: Callable[[], None] = lambda: None) -> None:
        """`beat` is called for each block, and may raise."""
        self.size = target.size
        self._target = target
        self._ledger = ledger
        self._beat = beat

    def write(self, offset: int, data: bytes) -> None:
        self._beat()
        self._ledger.take(self._index(offset, len(data)), data)
        self._target.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._beat()
        self._ledger.take(self._index(offset, length), b"")
        self._target.zero(offset, length)

    def read(self, offset: int, length: int) -> bytes:
        self._beat()
        data = self._target.read(offset, length)
        self._ledger.take(self._index(offset, length), data)
        return data

    def flush(self) -> None:
        self._target.flush()

    def _index(self, offset: int, length: int) -> int:
        """Of the one block that adapters write and read at a time."""
        if offset % BLOCK or length != min(BLOCK, self.size - offset):
            raise ValueError(f"{offset}+{length} of a disk of {self.size} bytes are not one block")
        return offset // BLOCK


def _lost(path: Path, why: str) -> SourceChanged:
    return SourceChanged(f"{path} {why}: what the cloud has of this disk is not known here", "The disk is sent whole.")
