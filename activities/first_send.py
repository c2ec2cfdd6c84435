"""The first time that a disk is sent: from a base that the region keeps, where one is worth it, else whole.

What was decided stands in the ledger before anything is sent: a base with its blocks, or none. So another attempt, in
another process, does not decide anew. A base that is gone meanwhile is no error: what was made from it is dropped, and
the disk is sent whole. A disk that is sent whole and one that is made from a base have different tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from activities.pulse import Pulse
from clouds import tokens
from clouds.cache import TAG, choose
from clouds.cache.entry import Base
from clouds.cache.index import Index
from clouds.capabilities import Adapter
from clouds.disks.content import BLOCK, Reader, read_block
from clouds.disks.ledger import Ledger, Recorded
from clouds.errors import CloudError, Damaged, Final, NotFound, SourceChanged
from models.cloud_move import SendDisk
from models.clouds import Cursor, DeltaOrder, DiskOrder, Transferred


def index_of(adapter: Adapter, pulse: Pulse | None = None) -> Index | None:
    """None: the place keeps nothing."""
    cache = adapter.cache
    if cache is None or cache.bounds is None or adapter.block_delta is None:
        return None
    return Index(cache, cache.bounds, pulse.beat if pulse else lambda: None)


def send_first(adapter: Adapter, order: SendDisk, path: Path, source: Reader, pulse: Pulse) -> tuple[Ledger, str, str]:
    """(the ledger as it is then, on disk; the content hash of the source; what the cache said)."""
    index = index_of(adapter, pulse) if order.cached else None
    if index is None:
        return *_whole(adapter, order, path, source, pulse, pulse.resume), ""
    who = _who(order.move, order.disk.target)
    ledger, said = _decided(path, order.move), "as an earlier attempt decided"
    if ledger is None:
        ledger, said = _decide(adapter, index, source, who)
        ledger.write(path, order.move)
    if ledger.origin:
        base_content = ledger.content()
        try:
            content, reason = _from_base(adapter, index, order, path, ledger, source, pulse)
            return ledger, content, f"{said}; {reason}"
        except _NotWorthIt as error:
            said = f"miss: {error}"
        except Final as error:
            if isinstance(error, SourceChanged) or usable(adapter, ledger.origin, base_content):
                raise
            said = f"miss: {ledger.origin} is gone, or is no base any more"
            pulse.drop(adapter)
            pulse.forget()
        _end_use(index, ledger.origin, who, None)
        Ledger(source.size).write(path, order.move)
    return *_whole(adapter, order, path, source, pulse, _resume(adapter, pulse, "")), said


def release(adapter: Adapter, move: str, target: str, path: Path) -> None:
    """The disk is given up: the base that its ledger says it starts from is not used any more."""
    index, ledger = index_of(adapter), _decided(path, move)
    if index is not None and ledger is not None and ledger.origin:
        _end_use(index, ledger.origin, _who(move, target), None)


def usable(adapter: Adapter, disk: str, content: str) -> bool:
    """It is there, finished, and has the tag of this very content."""
    assert adapter.image_import is not None
    try:
        there = adapter.image_import.get_snapshot(disk)
    except NotFound:
        return False
    return there.state == "ready" and there.tags.get(TAG) == content


def seen(source: Reader, blocks: Iterable[int]) -> dict[int, str]:
    """SHA-256 of these blocks, by index."""
    return {index: hashlib.sha256(read_block(source, index).data).hexdigest() for index in blocks}


def _decided(path: Path, move: str) -> Ledger | None:
    """What an attempt of this move wrote that did not come to its end."""
    try:
        ledger = Ledger.read(path, move)
    except SourceChanged:
        return None
    return ledger if not ledger.token else None


def _decide(adapter: Adapter, index: Index, source: Reader, who: str) -> tuple[Ledger, str]:
    """(a ledger that holds the base's blocks, or none; why). What is wrong with the cache is a miss: it only saves."""
    try:
        bases = choose.candidates(index.bases(), source.size)
        looked = seen(source, choose.asked(bases))
        choice = choose.pick(bases, looked)
        while choice.base is not None:
            found = _of(adapter, index, choice.base, who)
            if found is not None:
                return found, f"hit: {choice.reason}"
            bases = tuple(base for base in bases if base != choice.base)
            choice = choose.pick(bases, looked)
    except CloudError as error:
        return Ledger(source.size), f"miss: the cache cannot be used: {error}"
    return Ledger(source.size), f"miss: {choice.reason}"


def _of(adapter: Adapter, index: Index, base: Base, who: str) -> Ledger | None:
    """None: the base is not what the index says. It is looked at after its use is known: from there on it stays."""
    with suppress(NotFound, Damaged):
        digests = index.digests(base)
        index.begin_use(base.disk, who)
        if usable(adapter, base.disk, base.content):
            return Ledger(base.size, origin=base.disk, digests=digests)
        index.end_use(base.disk, who, None)
    return None


def _from_base(
    adapter: Adapter, index: Index, order: SendDisk, path: Path, ledger: Ledger, source: Reader, pulse: Pulse
) -> tuple[str, str]:
    """(content hash of the source, what came of it); the ledger is of the new disk then."""
    assert adapter.block_delta is not None
    base = ledger.origin
    if not usable(adapter, base, ledger.content()):
        raise NotFound(f"{base} is no base any more", "The disk is sent whole.")
    counted = _Counted(source)
    differs, content = ledger.compare(counted)
    worth = choose.worth_it(counted.blocks, len(differs))
    if not worth.yes:
        raise _NotWorthIt(worth.reason)
    wanted = DeltaOrder(name=order.name, token=tokens.token(order.token, f"base/{base}"), base=base)
    resume = _resume(adapter, pulse, base)
    moved = adapter.block_delta.import_delta(wanted, Recorded(source, ledger), differs, pulse, resume)
    if ledger.content() != content:
        raise Damaged(f"{order.disk.path} was read as something else than it was sent", "It is sent again.")
    ledger.disk, ledger.token, ledger.sent = moved.disk, order.token, moved.blocks * BLOCK
    ledger.saved = max(0, (counted.blocks - moved.blocks) * BLOCK)
    ledger.write(path, order.move)
    _end_use(index, base, _who(order.move, order.disk.target), ledger.saved)
    return content, worth.reason


def _whole(
    adapter: Adapter, order: SendDisk, path: Path, source: Reader, pulse: Pulse, resume: Cursor | None
) -> tuple[Ledger, str]:
    adapter.require("ImageImport")
    assert adapter.image_import is not None
    ledger = Ledger(source.size)
    wanted = DiskOrder(name=order.name, token=order.token)
    moved: Transferred = adapter.image_import.import_disk(wanted, Recorded(source, ledger), pulse, resume)
    if moved.content != ledger.content():
        raise Damaged(f"{order.disk.path} was read as something else than it was sent", "It is sent again.")
    ledger.disk, ledger.token, ledger.sent = moved.disk, order.token, moved.blocks * BLOCK
    ledger.write(path, order.move)
    return ledger, moved.content


def _resume(adapter: Adapter, pulse: Pulse, parent: str) -> Cursor | None:
    """The heartbeat's cursor, if it is of a disk that is there and was begun from this base, or from none."""
    cursor = pulse.resume
    if cursor is None or adapter.image_import is None:
        return None
    with suppress(NotFound):
        if adapter.image_import.get_snapshot(cursor.disk).parent == parent:
            return cursor
    return None


def _who(move: str, target: str) -> str:
    return f"{move}.{target}"


def _end_use(index: Index, base: str, who: str, saved: int | None) -> None:
    with suppress(CloudError):  # the index takes it for stale after a while
        index.end_use(base, who, saved)


class _NotWorthIt(Exception):
    """All blocks compared, the base saves too little."""


class _Counted:
    """A Reader that counts the blocks that are not all zeros, of those that are read whole and once."""

    def __init__(self, source: Reader) -> None:
        self.size = source.size
        self.blocks = 0
        self._source = source

    def read(self, offset: int, length: int) -> bytes:
        data = self._source.read(offset, length)
        self.blocks += bool(data.strip(b"\0"))
        return data

    def data(self) -> Iterable[tuple[int, int]]:
        return self._source.data()
