"""Managed disks written and read block by block, without a storage account and without a helper VM.

In: an empty disk in the state of an upload (createOption Upload), pages through its signed address, a VHD footer, then
EndGetAccess, which checks the footer and makes it a disk like any other. Azure takes writes in that state only. So a
delta is a new disk: what did not change is copied from the base inside Azure (Put Page From URL, no bytes of ours), the
changed blocks are sent. That copy takes Azure time in proportion to the base, in every round.

Out: page ranges of a snapshot or of a disk that no running VM holds; a delta is the difference of two incremental
snapshots of one disk. Azure knows no difference between disks that only look alike: there is none between an imported
disk and its deltas.

Cursor of a write: every block below `next_block` was acknowledged or copied. With `calls.parallel` n, a new process
does at most the n steps again that were in flight. Cursor of a read: blocks below are flushed in the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from clouds.azure.access import Leave, reading, revoke, writing
from clouds.azure.ids import ResourceId
from clouds.azure.pages import PIECE, Pages
from clouds.azure.session import AzureSession
from clouds.capabilities import Note, Range
from clouds.disks.content import BLOCK, Block, Disk, Reader, blocks, ranges_of, touched
from clouds.disks.vhd import FOOTER, MIB, aligned, footer
from clouds.errors import BadDisk, Conflict, Invalid, NotFound, OperationFailed
from clouds.pipeline import in_order
from clouds.tokens import TAG, name
from clouds.transfer import Sending, Tally, receive, source_changed, unsent
from models.clouds import Cursor, DeltaOrder, DiskOrder, Snapshot, Transferred

SMALLEST = 20 * MIB
"""Azure takes no smaller upload."""
PARENT_TAG = "novacron-parent"
CONTENT_TAG = "novacron-content"
"""Content hash of what was sent, set before an upload is ended: a later attempt compares."""
DISKS = ("disks", "snapshots")
_UPLOADING = ("ReadyToUpload", "ActiveUpload")
_OPEN = ("ActiveUpload", "ActiveSAS", "ActiveSASFrozen")
_OTHER_TOKEN = "Delete it, and send the disk again under another step's token."


@dataclass(frozen=True)
class _Copying:
    """Blocks that the new disk has from its base."""

    first: int
    count: int


@dataclass
class _Shown:
    """Reader. From several threads."""

    pages: Pages
    size: int

    def read(self, offset: int, length: int) -> bytes:
        return self.pages.read(offset, length)

    def data(self) -> list[Range]:
        return self.pages.ranges(self.size)


class _Mine:
    """Which blocks of the new disk this attempt accounts for: an earlier one may have written others, of a source that
    was another one then, and Azure compares nothing at the end."""

    def __init__(self, size: int, copies: list[_Copying]) -> None:
        self._size, self.copies = size, copies
        self._blocks = bytearray(-(-size // BLOCK))
        for copy in copies:
            self._blocks[copy.first : copy.first + copy.count] = b"\1" * copy.count

    def noting(self, moved: Iterator[Block]) -> Iterator[Block]:
        for block in moved:
            self._blocks[block.index] = 1
            yield block

    def all_of(self, written: list[Range]) -> bool:
        return all(self._blocks[index] for index in touched(self._size, written))


class AzureBlocks:
    """ImageImport, ImageExport and BlockDelta as far as they move blocks."""

    def __init__(self, session: AzureSession) -> None:
        self._azure = session
        self._parallel = session.settings.calls.parallel

    def import_disk(self, order: DiskOrder, source: Reader, note: Note, resume: Cursor | None = None) -> Transferred:
        size = max(SMALLEST, aligned(source.size))
        return self._send(order, size, None, source, (), blocks(source), note, resume)

    def import_delta(
        self, order: DeltaOrder, source: Reader, changed: tuple[Range, ...], note: Note, resume: Cursor | None = None
    ) -> Transferred:
        base = self.get_snapshot(order.base)
        if base.state != "ready":
            raise Conflict(f"disk {order.base} is {base.state}", "A delta needs a base that is complete.")
        if source.size > base.size:
            raise BadDisk(
                f"the disk has {source.size} bytes and its base {order.base} {base.size}",
                "A disk that grew is sent whole.",
            )
        with reading(self._azure, self._azure.find(order.base, *DISKS)) as leave:
            kept = Pages(leave, order.base).ranges(base.size)
            steps = _unchanged(base.size, kept, set(touched(source.size, changed)))
            return self._send(order, base.size, leave, source, steps, blocks(source, changed), note, resume, base.id)

    def get_snapshot(self, disk: str) -> Snapshot:
        """Of a disk, too."""
        thing = self._azure.find(disk, *DISKS)
        return _snapshot(thing, self._azure.call(f"find {thing.name}", thing.kind, "get", *thing.path))

    def create_snapshot(self, volume: str, token: str) -> Snapshot:
        """Incremental: it holds, and is billed for, what changed since the one before."""
        disk = self._azure.find(volume, "disks")
        self._azure.call(f"find {disk.name}", "disks", "get", *disk.path)
        thing = self._azure.id("snapshots", name("novacron", token))
        if self._azure.seek(f"look for snapshot {thing.name}", "snapshots", *thing.path) is None:
            body = {
                "location": self._azure.settings.region,
                "tags": {TAG: token},
                "properties": {
                    "creationData": {"createOption": "Copy", "sourceResourceId": str(disk)},
                    "incremental": True,
                },
            }
            self._azure.call(f"snapshot {disk.name}", "snapshots", "begin_create_or_update", *thing.path, body)
        return self.get_snapshot(str(thing))

    def delete_disk(self, disk: str) -> None:
        try:
            thing = self._azure.find(disk, *DISKS)
            told = self._azure.call(f"find {thing.name}", thing.kind, "get", *thing.path)
            if told.disk_state in _OPEN:  # Azure deletes nothing that an address leads to
                with suppress(OperationFailed, Invalid):  # an upload that is not whole ends badly, and is deleted now
                    revoke(self._azure, thing)
            self._azure.run(f"delete {thing.name}", thing.kind, "begin_delete", *thing.path)
        except NotFound:
            return

    def export_disk(self, disk: str, target: Disk, note: Note, resume: Cursor | None = None) -> Transferred:
        thing = self._azure.find(disk, *DISKS)
        with reading(self._azure, thing) as leave:
            pages = Pages(leave, thing.name)
            size = pages.size()
            listed = ((index, True) for index in touched(size, pages.ranges(size)))
            return self._receive(thing, size, pages, listed, target, note, resume, delta=False)

    def export_delta(self, base: str, disk: str, target: Disk, note: Note, resume: Cursor | None = None) -> Transferred:
        old, new = (self._azure.find(each, *DISKS) for each in (base, disk))
        self._related(old, new)
        with reading(self._azure, old) as earlier, reading(self._azure, new) as leave:
            pages = Pages(leave, new.name)
            size = pages.size()
            written, cleared = pages.changes(earlier, size)
            filled = set(touched(size, written))
            empty = _whole(cleared) - filled
            listed = ((index, index not in empty) for index in sorted(filled | set(touched(size, cleared))))
            return self._receive(new, size, pages, listed, target, note, resume, delta=True)

    @contextmanager
    def open_disk(self, disk: str) -> Iterator[Reader]:
        thing = self._azure.find(disk, *DISKS)
        with reading(self._azure, thing) as leave:
            pages = Pages(leave, thing.name)
            yield _Shown(pages, pages.size())

    def volume_size(self, volume: str) -> int:
        return self.get_snapshot(volume).size

    def changed(self, base: str, disk: str) -> tuple[Range, ...]:
        old, new = (self._azure.find(each, *DISKS) for each in (base, disk))
        self._related(old, new)
        with reading(self._azure, old) as earlier, reading(self._azure, new) as leave:
            pages = Pages(leave, new.name)
            size = pages.size()
            written, cleared = pages.changes(earlier, size)
            return tuple(ranges_of(size, sorted({*touched(size, written), *touched(size, cleared)})))

    # Writing.

    def _send(
        self,
        order: DiskOrder,
        size: int,
        base: Leave | None,
        source: Reader,
        copies: Iterable[_Copying],
        moved: Iterator[Block],
        note: Note,
        resume: Cursor | None,
        parent: str = "",
    ) -> Transferred:
        cursor = resume or Cursor(disk=str(self._start(order, size, parent)))
        note(cursor)
        thing = self._azure.find(cursor.disk, *DISKS)
        told = self._azure.call(f"find {thing.name}", thing.kind, "get", *thing.path)
        there = _snapshot(thing, told)
        if there.state == "failed":
            raise OperationFailed(f"Azure gave disk {cursor.disk} up", _OTHER_TOKEN)
        if there.size != size:
            raise source_changed(cursor.disk)
        tally = Tally()
        sent = there.state == "ready" or CONTENT_TAG in there.tags  # all of it, by an attempt that died at its end
        if sent:
            for _ in unsent(moved, cursor, tally, done=True):
                pass
            if there.tags.get(CONTENT_TAG) != tally.content.hexdigest():
                raise source_changed(cursor.disk)
        else:
            mine = _Mine(size, list(copies))
            sendings = unsent(mine.noting(moved), cursor, tally, done=False)
            begun = told.disk_state == "ActiveUpload"
            self._upload(order, size, base, mine, sendings, note, cursor, begun=begun)
            self._mark(cursor.disk, there, tally)
        if there.state != "ready":
            self._complete(cursor.disk, lambda: note(cursor))
        return Transferred(disk=cursor.disk, size=size, content=tally.content.hexdigest(), blocks=tally.count)

    def _start(self, order: DiskOrder, size: int, parent: str) -> ResourceId:
        thing = self._azure.id("disks", name("novacron", order.token))
        if self._azure.seek(f"look for disk {thing.name}", "disks", *thing.path) is None:
            tags = {"Name": order.name, **order.tags, TAG: order.token}
            if parent:
                tags[PARENT_TAG] = parent
            body = {
                "location": self._azure.settings.region,
                "sku": {"name": self._azure.settings.disk_type},
                "tags": tags,
                "properties": {"creationData": {"createOption": "Upload", "uploadSizeBytes": size + FOOTER}},
            }
            self._azure.run(f"make disk {thing.name}", "disks", "begin_create_or_update", *thing.path, body)
        return thing

    def _upload(
        self,
        order: DiskOrder,
        size: int,
        base: Leave | None,
        mine: _Mine,
        sendings: Iterator[Sending],
        note: Note,
        cursor: Cursor,
        *,
        begun: bool,
    ) -> None:
        thing = self._azure.find(cursor.disk, "disks")
        with writing(self._azure, thing) as leave:
            pages = Pages(leave, thing.name)

            def put(step: Sending | _Copying) -> None:
                if isinstance(step, Sending):
                    offset = step.block.index * BLOCK
                    pages.write(offset, step.block.data[: size - offset])
                elif base is not None:
                    offset, end = step.first * BLOCK, min(size, (step.first + step.count) * BLOCK)
                    pages.copy(base, offset, end - offset)

            with closing(in_order(put, _merged(mine.copies, sendings, cursor.next_block), self._parallel)) as results:
                for step, _ in results:
                    if isinstance(step, Sending):
                        cursor = step.cursor(cursor.disk)
                    else:
                        cursor = cursor.model_copy(update={"next_block": step.first + step.count})
                    note(cursor)
            if begun and not mine.all_of(pages.ranges(size)):
                raise source_changed(cursor.disk)
            pages.write(size, footer(size, order.token))

    def _mark(self, disk: str, there: Snapshot, tally: Tally) -> None:
        thing = self._azure.find(disk, "disks")
        body = {"tags": {**there.tags, CONTENT_TAG: tally.content.hexdigest()}}
        self._azure.run(f"tag {thing.name}", "disks", "begin_update", *thing.path, body)

    def _complete(self, disk: str, beat: Callable[[], None]) -> None:
        thing = self._azure.find(disk, "disks")
        try:
            revoke(self._azure, thing, beat)
        except OperationFailed as error:
            raise OperationFailed(error.what, _OTHER_TOKEN, error.code) from error

        def ready() -> bool:
            state = self.get_snapshot(disk).state
            if state == "failed":
                raise OperationFailed(f"Azure could not complete {thing.name}", _OTHER_TOKEN)
            return state == "ready"

        self._azure.wait(f"complete {thing.name}", ready, beat)

    # Reading.

    def _receive(
        self,
        thing: ResourceId,
        size: int,
        pages: Pages,
        listed: Iterable[tuple[int, bool]],
        target: Disk,
        note: Note,
        resume: Cursor | None,
        *,
        delta: bool,
    ) -> Transferred:
        def get(item: tuple[int, bool]) -> bytes:
            index, filled = item
            offset = index * BLOCK
            return pages.read(offset, min(BLOCK, size - offset)).ljust(BLOCK, b"\0") if filled else bytes(BLOCK)

        return receive(str(thing), size, listed, get, target, note, resume, parallel=self._parallel, delta=delta)

    def _related(self, old: ResourceId, new: ResourceId) -> None:
        """Raises Invalid unless both are incremental snapshots of one disk."""
        lines = []
        for thing in (old, new):
            told = self._azure.call(f"find {thing.name}", thing.kind, "get", *thing.path)
            lines.append(getattr(told, "incremental_snapshot_family_id", None) if thing.kind == "snapshots" else None)
        if lines[0] is None or lines[0] != lines[1]:
            raise Invalid(
                f"{old.name} and {new.name} are not incremental snapshots of one disk",
                "Azure tells no difference between others: take both with create_snapshot of the same disk.",
            )


def _unchanged(size: int, kept: list[Range], changed: set[int]) -> Iterator[_Copying]:
    """Blocks of the base with data that the source did not change, in runs of at most PIECE bytes."""
    most = PIECE // BLOCK
    first, count = 0, 0
    for index in touched(size, kept):
        if index in changed:
            continue
        if count and index == first + count and count < most:
            count += 1
            continue
        if count:
            yield _Copying(first, count)
        first, count = index, 1
    if count:
        yield _Copying(first, count)


def _merged(copies: Iterable[_Copying], sendings: Iterator[Sending], next_block: int) -> Iterator[Sending | _Copying]:
    """Both in the order of their blocks; of the copies those that a cursor does not have behind it."""
    left = iter([copy for copy in copies if copy.first + copy.count > next_block])
    copy = next(left, None)
    for sending in sendings:
        while copy is not None and copy.first < sending.block.index:
            yield copy
            copy = next(left, None)
        yield sending
    while copy is not None:
        yield copy
        copy = next(left, None)


def _whole(ranges: list[Range]) -> set[int]:
    """Blocks that lie in one of the ranges with all their bytes."""
    inside = set[int]()
    for offset, length in ranges:
        inside.update(range(-(-offset // BLOCK), (offset + length) // BLOCK))
    return inside


def _snapshot(thing: ResourceId, told: Any) -> Snapshot:
    tags = dict(told.tags or {})
    size = told.disk_size_bytes or (told.disk_size_gb or 0) * (1 << 30)
    upload = told.creation_data.upload_size_bytes
    if upload and told.disk_state in _UPLOADING:
        size = upload - FOOTER
    return Snapshot(id=str(thing), state=_state(told), size=size, parent=tags.get(PARENT_TAG, ""), tags=tags)


def _state(told: Any) -> Any:
    if told.provisioning_state == "Failed":
        return "failed"
    if told.disk_state in _UPLOADING or told.provisioning_state != "Succeeded":
        return "pending"
    copied = told.completion_percent
    return "ready" if copied is None or copied >= 100 else "pending"
