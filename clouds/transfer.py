"""A disk on its way, whatever the cloud: which blocks are still to be moved, and whether what was moved before a crash
is still the same. How one block is written or read is the adapter's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from clouds.capabilities import Note
from clouds.disks.content import BLOCK, Block, ContentHash, Disk
from clouds.errors import BadDisk, SourceChanged
from clouds.pipeline import in_order
from models.clouds import Cursor, Transferred

T = TypeVar("T")
FLUSH_EVERY = 64
"""Blocks read between two flushes of the target, 32 MiB: what may have to be read again after a crash."""


@dataclass
class Tally:
    """What was moved so far, as all hashes need it."""

    content: ContentHash = field(default_factory=ContentHash)
    checksums: Any = field(default_factory=hashlib.sha256)
    """Over the blocks' SHA-256 in order."""
    count: int = 0

    def add(self, index: int, digest: bytes) -> None:
        self.content.add(index, digest)
        self.checksums.update(digest)
        self.count += 1


@dataclass(frozen=True)
class Sending:
    block: Block
    digest: bytes
    after: str
    """Content hash up to and with this block."""
    count: int

    def cursor(self, disk: str) -> Cursor:
        """With this block sent."""
        return Cursor(disk=disk, next_block=self.block.index + 1, sent=self.count, prefix=self.after)


def unsent(moved: Iterable[Block], cursor: Cursor, tally: Tally, done: bool) -> Iterator[Sending]:
    """Blocks from the cursor on, none when `done`. What lies below is read for the hashes, and has to be what was sent:
    raises SourceChanged."""
    checked = cursor.next_block == 0
    for block in moved:
        if not checked and block.index >= cursor.next_block:
            _same(cursor, tally)
            checked = True
        digest = hashlib.sha256(block.data).digest()
        tally.add(block.index, digest)
        if block.index >= cursor.next_block and not done:
            yield Sending(block, digest, tally.content.hexdigest(), tally.count)
    if not checked:
        _same(cursor, tally)


def source_changed(disk: str) -> SourceChanged:
    return SourceChanged(
        f"the source is not what an earlier attempt sent to {disk}",
        "Send it again under another step's token, from a source that does not change.",
    )


def receive(
    disk: str,
    size: int,
    listed: Iterable[tuple[int, T]],
    get: Callable[[tuple[int, T]], bytes],
    target: Disk,
    note: Note,
    resume: Cursor | None,
    *,
    parallel: int,
    delta: bool,
) -> Transferred:
    """Blocks of `listed` (index and what `get` needs, ascending) into the target. Cursor: those below are flushed.

    A whole disk leaves zero blocks out, because the target reads as zeros; a `delta` writes them.
    """
    cursor = resume or Cursor(disk=disk)
    tally = Tally()
    unflushed = 0
    with closing(in_order(get, _unread(listed, cursor, tally, target, delta), parallel)) as results:
        for (index, _), data in results:
            block = Block(index, data)
            if delta or not block.empty:
                _write(target, block)
                tally.add(index, hashlib.sha256(data).digest())
            unflushed += 1
            if unflushed == FLUSH_EVERY:
                target.flush()
                unflushed = 0
                note(Cursor(disk=disk, next_block=index + 1, sent=tally.count, prefix=tally.content.hexdigest()))
    target.flush()
    return Transferred(disk=disk, size=size, content=tally.content.hexdigest(), blocks=tally.count)


def _unread(
    listed: Iterable[tuple[int, T]], cursor: Cursor, tally: Tally, target: Disk, delta: bool
) -> Iterator[tuple[int, T]]:
    """Blocks from the cursor on. What the target holds below it is read back, and has to be what was written."""
    checked = cursor.next_block == 0
    for index, item in listed:
        if index < cursor.next_block:
            block = _read_back(target, index)
            if delta or not block.empty:
                tally.add(index, hashlib.sha256(block.data).digest())
            continue
        if not checked:
            _kept(cursor, tally)
            checked = True
        yield index, item
    if not checked:
        _kept(cursor, tally)


def _same(cursor: Cursor, tally: Tally) -> None:
    prefix = cursor.prefix or ContentHash().hexdigest()  # blocks that the cloud copies itself are not sent
    if (tally.count, tally.content.hexdigest()) != (cursor.sent, prefix):
        raise source_changed(cursor.disk)


def _kept(cursor: Cursor, tally: Tally) -> None:
    if (tally.count, tally.content.hexdigest()) != (cursor.sent, cursor.prefix):
        raise SourceChanged(
            f"the target does not hold the first {cursor.sent} blocks of {cursor.disk} that were written to it",
            "Export it again, into a fresh target.",
        )


def _write(target: Disk, block: Block) -> None:
    offset = block.index * BLOCK
    room = max(0, min(BLOCK, target.size - offset))
    if block.data[room:].strip(b"\0"):
        raise BadDisk(
            f"the snapshot has data at byte {offset + room}, behind the target's {target.size}",
            "Make the target as large as the snapshot.",
        )
    if room and block.empty:
        target.zero(offset, room)
    elif room:
        target.write(offset, block.data[:room])


def _read_back(target: Disk, index: int) -> Block:
    room = max(0, min(BLOCK, target.size - index * BLOCK))
    return Block(index, target.read(index * BLOCK, room).ljust(BLOCK, b"\0") if room else bytes(BLOCK))
