"""A disk from one cloud to another: blocks are read there and written here, and none of them is kept on the way.

What the source gave is in a ledger (clouds.disks.ledger), each block as it was verified when it was read. What the
target holds is read back, where the target gives its disks out at all, and compared block by block with that.

A target that must know a disk before it takes it (Google's and Oracle's archives) reads the source twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clouds.ahead import Ahead
from clouds.capabilities import Adapter, Note, Range
from clouds.disks.content import BLOCK, Reader
from clouds.disks.ledger import Ledger, Recorded
from clouds.errors import NotFound, SourceChanged
from models.clouds import Cursor, DeltaOrder, DiskOrder

Beat = Callable[[], None]
"""Called for each block; may raise, which is how a caller cancels."""


@dataclass(frozen=True)
class Leg:
    """From one snapshot to one disk. `parallel`: blocks that are read at once."""

    source: Adapter
    target: Adapter
    snapshot: str
    parallel: int
    beat: Beat

    def whole(self, order: DiskOrder, note: Note, resume: Cursor | None) -> Ledger:
        """All of it. Raises clouds.errors."""
        self.source.require("ImageExport")
        self.target.require("ImageImport")
        assert self.target.image_import is not None
        with self._shown(self.source, self.snapshot) as shown:
            ledger = Ledger(shown.size)
            with Ahead(shown, self.parallel) as ahead:
                read = Recorded(_Beating(ahead, self.beat), ledger)
                moved = self.target.image_import.import_disk(order, read, note, resume)
        ledger.disk, ledger.token, ledger.sent = moved.disk, order.token, moved.blocks * BLOCK
        return ledger

    def delta(self, order: DeltaOrder, base: str, held: Ledger, note: Note, resume: Cursor | None) -> tuple[Range, ...]:
        """What changed since the snapshot `base`, onto the target's disk `order.base`; `held` tells of that, and then
        of the new disk. The ranges that were sent; without any there is no new disk. Raises SourceChanged when one of
        the two is gone."""
        self.source.require("BlockDelta")
        self.target.require("BlockDelta")
        assert self.source.block_delta is not None
        assert self.target.block_delta is not None
        with _gone(base):
            changed = self.source.block_delta.changed(base, self.snapshot)
        disk, sent = order.base, 0
        if changed:
            with self._shown(self.source, self.snapshot) as shown, Ahead(shown, self.parallel, changed) as ahead:
                if shown.size != held.size:
                    raise SourceChanged(f"{self.snapshot} is not as large as {base}", "The disk is sent whole.")
                read = Recorded(_Beating(ahead, self.beat), held)
                with _gone(order.base):
                    moved = self.target.block_delta.import_delta(order, read, changed, note, resume)
            disk, sent = moved.disk, moved.blocks * BLOCK
        held.disk, held.token, held.sent = disk, order.token, sent
        return changed

    def read_back(self, ledger: Ledger, ranges: Iterable[Range] | None = None) -> None:
        """The target's disk holds what the source gave: all of it, or these ranges. Raises SourceChanged."""
        with self._shown(self.target, ledger.disk) as shown:
            looked = None if ranges is None else tuple(_inside(ranges, shown.size))
            with Ahead(shown, self.parallel, looked) as ahead:
                seen, differs = set[int](), 0
                for index, data in ahead.blocks():
                    self.beat()
                    seen.add(index)
                    differs += ledger.differs(index, data)
        if ranges is None:
            differs += len(ledger.digests.keys() - seen)
        if differs:
            raise SourceChanged(
                f"{ledger.disk} does not hold what {self.snapshot} gave: {differs} blocks differ",
                "The disk is sent whole again.",
            )

    def survey(self) -> Ledger:
        """What the snapshot holds, by reading all of it."""
        with self._shown(self.source, self.snapshot) as shown:
            ledger = Ledger(shown.size)
            with Ahead(shown, self.parallel) as ahead:
                for index, data in ahead.blocks():
                    self.beat()
                    ledger.take(index, data)
        return ledger

    @contextmanager
    def _shown(self, adapter: Adapter, disk: str) -> Iterator[Reader]:
        adapter.require("ImageExport")
        assert adapter.image_export is not None
        with adapter.image_export.open_disk(disk) as shown:
            yield shown


class _Beating:
    def __init__(self, source: Reader, beat: Beat) -> None:
        self.size = source.size
        self._source, self._beat = source, beat

    def read(self, offset: int, length: int) -> bytes:
        self._beat()
        return self._source.read(offset, length)

    def data(self) -> Iterable[Range]:
        return self._source.data()


@contextmanager
def _gone(what: str) -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        raise SourceChanged(f"{what} is no base any more: {error.what}", "The disk is sent whole.") from error


def _inside(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    """A target may end before the last block of its source, with nothing but zeros behind."""
    for offset, length in ranges:
        if offset < size:
            yield offset, min(length, size - offset)
