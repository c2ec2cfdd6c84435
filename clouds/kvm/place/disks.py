"""Disks of the folder: in and out, whole or as differences, each block by its SHA-256.

In: blocks are written into a sparse file and flushed before the caller hears of them, so that a cursor outlives the
host's power. At the end the file is read back whole and compared with what was sent; only then it is `ready`, and has
its blocks' checksums beside it. A delta is a copy of its base (shared blocks where the file system can) with the
changes. Out: blocks that have a checksum, verified; of a difference, those whose checksums differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from clouds import tokens
from clouds.capabilities import Note, Range
from clouds.disks.content import BLOCK, ZEROS, Block, Disk, RawFile, Reader, blocks, ranges_of, touched
from clouds.disks.ledger import Ledger
from clouds.errors import BadDisk, Conflict, Damaged, Invalid, NotFound
from clouds.kvm.place.store import UNIT, DiskRecord, Store
from clouds.tokens import TAG
from clouds.transfer import Sending, Tally, receive, source_changed, unsent
from models.clouds import CallSettings, Cursor, DeltaOrder, DiskOrder, Snapshot, Transferred

BEAT_EVERY = 256
"""Blocks read back between two calls of `note`, 128 MiB."""
_ZERO = hashlib.sha256(ZEROS).digest()


@dataclass
class _Kept(Tally):
    """With each block's checksum."""

    digests: dict[int, bytes] = field(default_factory=dict)

    def add(self, index: int, digest: bytes) -> None:
        super().add(index, digest)
        self.digests[index] = digest


class KvmDisks:
    """ImageImport, ImageExport and BlockDelta as far as they move blocks."""

    def __init__(self, store: Store, calls: CallSettings) -> None:
        self._store = store
        self._calls = calls

    def import_disk(self, order: DiskOrder, source: Reader, note: Note, resume: Cursor | None = None) -> Transferred:
        return self.send(order, None, source, blocks(source), note, resume)

    def import_delta(
        self, order: DeltaOrder, source: Reader, changed: tuple[Range, ...], note: Note, resume: Cursor | None = None
    ) -> Transferred:
        base = self._store.disk(order.base)
        if base.snapshot.state != "ready":
            raise Conflict(f"disk {order.base} is {base.snapshot.state}", "A delta needs a base that is complete.")
        if source.size > base.snapshot.size:
            raise BadDisk(
                f"the disk has {source.size} bytes and its base {order.base} {base.snapshot.size}",
                "A disk that grew is sent whole.",
            )
        return self.send(order, base, source, blocks(source, changed), note, resume)

    def get_snapshot(self, disk: str) -> Snapshot:
        return self._store.disk(disk).snapshot

    def delete_disk(self, disk: str) -> None:
        try:
            self._store.disk(disk)
        except NotFound:
            return
        for image in self._store.images():
            if disk in image.image.disks:
                raise Conflict(f"image {image.image.id} is made of {disk}", "Delete the image first.")
        if self._store.raw(disk).exists():
            with self._store.writing(disk):
                self._store.forget_disk(disk)
        self._store.forget_disk(disk)

    def export_disk(self, disk: str, target: Disk, note: Note, resume: Cursor | None = None) -> Transferred:
        wanted = sorted(self._ledger(disk).digests.items())
        return self._receive(disk, wanted, target, note, resume, delta=False)

    def export_delta(self, base: str, disk: str, target: Disk, note: Note, resume: Cursor | None = None) -> Transferred:
        return self._receive(disk, self._differences(base, disk), target, note, resume, delta=True)

    @contextmanager
    def open_disk(self, disk: str) -> Iterator[Reader]:
        digests, size = self._ledger(disk).digests, self._store.disk(disk).snapshot.size
        with RawFile(self._store.raw(disk)) as file:
            yield _Shown(self, disk, file, digests, size)

    def changed(self, base: str, disk: str) -> tuple[Range, ...]:
        size = self._store.disk(disk).snapshot.size
        return tuple(ranges_of(size, (index for index, _ in self._differences(base, disk))))

    # Writing.

    def send(
        self,
        order: DiskOrder,
        base: DiskRecord | None,
        source: Reader,
        moved: Iterator[Block],
        note: Note,
        resume: Cursor | None,
        line: str = "",
        round: int = 0,
    ) -> Transferred:
        """`line`, `round`: of a snapshot of a volume."""
        if resume is None:
            self._start(order, base, source.size, line, round)
        cursor = resume or Cursor(disk=tokens.name("disk", order.token))
        note(cursor)
        record = self._store.disk(cursor.disk)
        done, tally = record.snapshot.state == "ready", _Kept()
        if done:
            for _ in unsent(moved, cursor, tally, done):
                pass
            if record.content != tally.content.hexdigest():
                raise source_changed(cursor.disk)
        else:
            with self._store.writing(cursor.disk) as file:
                for batch in _batches(unsent(moved, cursor, tally, done), self._calls.parallel):
                    for item in batch:
                        self._store.write_block(file, item.block.index, item.block.data)
                    file.flush()
                    for item in batch:
                        cursor = item.cursor(cursor.disk)
                        note(cursor)
                self._finish(record, base, file, tally, partial(note, cursor))
        return Transferred(
            disk=cursor.disk, size=record.snapshot.size, content=tally.content.hexdigest(), blocks=tally.count
        )

    def _start(self, order: DiskOrder, base: DiskRecord | None, size: int, line: str, round: int) -> None:
        id = tokens.name("disk", order.token)
        size = base.snapshot.size if base else -(-size // UNIT) * UNIT
        parent = base.snapshot.id if base else ""
        try:
            found = self._store.disk(id)
        except NotFound:
            found = DiskRecord(
                snapshot=Snapshot(
                    id=id,
                    state="pending",
                    size=size,
                    parent=parent,
                    tags={"Name": order.name, **order.tags, TAG: order.token},
                ),
                token=order.token,
                line=line or (base.line if base else id),
                round=round,
            )
            self._store.save_disk(found)
        if (found.snapshot.size, found.snapshot.parent) != (size, parent):
            raise source_changed(id)
        self._store.make(id, size, base.snapshot.id if base else None)

    def _finish(
        self, record: DiskRecord, base: DiskRecord | None, file: RawFile, tally: _Kept, beat: partial[None]
    ) -> None:
        """Raises SourceChanged when the file does not hold exactly base and what was sent: an attempt whose cursor was
        lost sent something else, or the storage does not keep what it is given."""
        id = record.snapshot.id
        held = dict(self._ledger(base.snapshot.id).digests) if base else {}
        held |= tally.digests
        held = {index: digest for index, digest in held.items() if digest != _ZERO}
        beat()
        found: dict[int, bytes] = {}
        for read, index in enumerate(touched(file.size, file.data()), start=1):
            if read % BEAT_EVERY == 0:
                beat()
            data = file.read(index * BLOCK, min(BLOCK, file.size - index * BLOCK))
            if data.strip(b"\0"):
                found[index] = hashlib.sha256(data.ljust(BLOCK, b"\0")).digest()
        if found != held:
            raise source_changed(id)
        Ledger(size=file.size, disk=id, token=record.token, digests=found).write(self._store.sums(id), id)
        snapshot = record.snapshot.model_copy(update={"state": "ready"})
        content = tally.content.hexdigest()
        self._store.save_disk(record.model_copy(update={"snapshot": snapshot, "content": content}))

    # Reading.

    def _ledger(self, disk: str) -> Ledger:
        record = self._store.disk(disk)
        if record.snapshot.state != "ready":
            raise Conflict(f"disk {disk} is {record.snapshot.state}", "Wait until it is ready, or send it again.")
        return self._store.ledger(disk)

    def _differences(self, base: str, disk: str) -> list[tuple[int, bytes | None]]:
        """Blocks, with their new checksum; None: zeros now."""
        old, new = self._store.disk(base), self._store.disk(disk)
        if old.line != new.line:
            raise Invalid(f"{base} and {disk} have no common history", "Export the disk whole.")
        before, after = self._ledger(base).digests, self._ledger(disk).digests
        return [
            (index, after.get(index)) for index in sorted({*before, *after}) if before.get(index) != after.get(index)
        ]

    def read_verified(self, file: RawFile, disk: str, index: int, digest: bytes | None) -> bytes:
        if digest is None:
            return bytes(BLOCK)
        data = self._store.read_block(file, index)
        if hashlib.sha256(data).digest() != digest:
            raise Damaged(
                f"block {index} of {disk} does not fit its checksum",
                "It is read again; if it stays so, look at the storage.",
            )
        return data

    def _receive(
        self,
        disk: str,
        wanted: Iterable[tuple[int, bytes | None]],
        target: Disk,
        note: Note,
        resume: Cursor | None,
        *,
        delta: bool,
    ) -> Transferred:
        size = self._store.disk(disk).snapshot.size
        with RawFile(self._store.raw(disk)) as file:

            def get(listed: tuple[int, bytes | None]) -> bytes:
                return self.read_verified(file, disk, *listed)

            parallel = self._calls.parallel
            return receive(disk, size, wanted, get, target, note, resume, parallel=parallel, delta=delta)


@dataclass
class _Shown:
    """Reader. From several threads."""

    disks: KvmDisks
    disk: str
    file: RawFile
    digests: dict[int, bytes]
    size: int

    def read(self, offset: int, length: int) -> bytes:
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        found = (
            self.disks.read_verified(self.file, self.disk, index, self.digests.get(index))
            for index in range(first, last + 1)
        )
        return b"".join(found)[offset - first * BLOCK :][:length]

    def data(self) -> Iterator[Range]:
        return ranges_of(self.size, sorted(self.digests))


def _batches(items: Iterator[Sending], most: int) -> Iterator[list[Sending]]:
    while batch := list(islice(items, most)):
        yield batch
