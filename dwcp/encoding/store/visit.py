"""One visit: what both ends of a move remember of a VM's memory. Written once, then only read.

    visit   header (512), contents (opaque: the page stage's map), keys (16 bytes for each slot)
    slab    the pages themselves, slot by slot, 4096 bytes each, no header: it is mapped

Header, big-endian: magic, version, 0, slots u32, length of contents u64, root, VM (length u16, UTF-8, 256), tenant
(length u8, ASCII, 63), zeros, and at 496 the digest of the 496 bytes before it.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from dwcp.encoding.store.folder import WHOLE, Entry, Held, condemn, expecting, hold, log, peek
from dwcp.encoding.store.reading import KEY, PAGE, RUN, Buffer, Readers, digest, gather
from dwcp.errors import StoreDamaged

MAGIC: Final = b"NCVISIT\n"
VERSION: Final = 1
HEADER_BYTES: Final = 512
MAX_SLOTS: Final = WHOLE - 1
_HEAD: Final = struct.Struct(">8sHHIQ16sH256sB63s134x")
_CHECKED: Final = HEADER_BYTES - KEY


def root_of(contents: Buffer, keys: Buffer) -> bytes:
    """Equal roots mean equal pages at equal addresses, at whichever host."""
    return digest(contents, keys)


@dataclass(frozen=True, slots=True)
class VisitHeader:
    slots: int
    contents_bytes: int
    root: bytes
    vm: str
    tenant: str

    def pack(self) -> bytes:
        vm, tenant = self.vm.encode(), self.tenant.encode()
        head = _HEAD.pack(
            MAGIC, VERSION, 0, self.slots, self.contents_bytes, self.root, len(vm), vm, len(tenant), tenant
        )
        return head + digest(head)

    @classmethod
    def parse(cls, data: bytes) -> VisitHeader:
        """Raises StoreDamaged."""
        if len(data) < HEADER_BYTES or data[:8] != MAGIC:
            raise StoreDamaged("it does not begin as a visit does")
        if digest(data[:_CHECKED]) != data[_CHECKED:HEADER_BYTES]:
            raise StoreDamaged("its header was changed")
        _, version, zero, slots, length, root, vm_length, vm, tenant_length, tenant = _HEAD.unpack(data[:_CHECKED])
        if version != VERSION or zero:
            raise StoreDamaged(f"it has format version {version}, this is {VERSION}")
        try:
            return cls(slots, length, root, vm[:vm_length].decode(), tenant[:tenant_length].decode())
        except UnicodeDecodeError as error:
            raise StoreDamaged("its names are no text") from error


@dataclass(frozen=True, slots=True)
class VisitInfo:
    root: bytes
    vm: str
    tenant: str
    created: float
    """Seconds since 1970, at this host."""
    pages: int
    size: int
    """Bytes on disk."""
    uses: int
    path: Path


def info(entry: Entry) -> VisitInfo | None:
    """What the header says; None when the visit is gone, or not to be used."""
    held = peek(entry.path)
    if held is None:
        return None
    try:
        if WHOLE in held.damaged():
            return None
        head = _header(held, entry)
        return VisitInfo(
            entry.root, head.vm, head.tenant, entry.created / 1e9, head.slots, entry.size, entry.uses, entry.path
        )
    except StoreDamaged as error:
        condemn(held, error)
        return None
    finally:
        held.release()


class Visit:
    """A visit opened to be read: it stays as long as it is open. Any thread may read."""

    def __init__(self, held: Held, head: VisitHeader, contents: bytes, keys: bytes) -> None:
        self.root = head.root
        self.vm = head.vm
        self.slots = head.slots
        self.contents = contents
        self.keys = keys
        self.fd = held.open("slab")
        """The slab, to be read or mapped. Not verified: see `pages`."""
        self.path = held.path
        self._held = held
        self._bad = held.damaged()
        self._pages: mmap.mmap | None = None
        self._readers = Readers(self._close)

    @classmethod
    def open(cls, entry: Entry) -> Visit | None:
        """None when it is gone, being removed, or damaged (which is then marked)."""
        held = hold(entry.path)
        if held is None:
            return None
        try:
            if WHOLE not in held.damaged():
                head = _header(held, entry)
                with expecting("map"):
                    data = held.read("visit")
                end = HEADER_BYTES + head.contents_bytes
                contents, keys = data[HEADER_BYTES:end], data[end:]
                if len(keys) != head.slots * KEY:
                    raise StoreDamaged("its keys were cut")
                if root_of(contents, keys) != head.root:
                    raise StoreDamaged("its map or its keys were changed")
                with expecting("slab"):
                    return cls(held, head, contents, keys)
        except StoreDamaged as error:
            condemn(held, error)
        except BaseException:
            held.release()
            raise
        held.release()
        return None

    @property
    def pages(self) -> mmap.mmap:
        """The slab, mapped read only. These pages are NOT verified: what comes out of them must be (`failed`)."""
        if self._pages is None:
            self._pages = mmap.mmap(self.fd, self.slots * PAGE, prot=mmap.PROT_READ)
        return self._pages

    def read(self, slot: int) -> bytes | None:
        """The page, verified; None when it is not what was stored."""
        page = bytearray(PAGE)
        return None if self.supply([slot], page) else bytes(page)

    def supply(self, slots: Sequence[int], into: Buffer) -> list[int]:
        """Read pages into `into`, verified; the positions that failed (zeroed)."""
        if not self._readers.enter():
            return list(range(len(slots)))
        try:
            count, bad, keys = self.slots, self._bad, self.keys
            places = [slot if 0 <= slot < count and slot not in bad else -1 for slot in slots]
            wanted = [keys[place * KEY : place * KEY + KEY] if place >= 0 else b"" for place in places]
            failed = gather(self.fd, places, wanted, into)
            self._mark({places[position] for position in failed} - {-1})
        finally:
            self._readers.leave()
        return failed

    def failed(self, first: int = 0, count: int | None = None) -> list[int]:
        """Verify slots in bulk; those that are not what was stored."""
        end = self.slots if count is None else min(self.slots, first + count)
        buffer = bytearray(RUN * PAGE)
        found: list[int] = []
        for start in range(first, end, RUN):
            some = range(start, min(start + RUN, end))
            found += [some[position] for position in self.supply(some, buffer)]
        return found

    def use(self) -> None:
        """Note that it serves a move."""
        self._held.use()

    def close(self) -> None:
        """Give it free for eviction, once no thread reads any more. A mapping lives on while somebody looks at it."""
        self._readers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close(self) -> None:
        if self._pages is not None:
            try:
                self._pages.close()
            except BufferError:
                log.debug("%s is still looked at", self.path)
        os.close(self.fd)
        self._held.release()

    def _mark(self, slots: set[int]) -> None:
        if slots:
            log.warning("%s: %d pages are not what was stored (first: slot %d)", self.path, len(slots), min(slots))
            self._bad |= slots
            self._held.mark(*sorted(slots))


def _header(held: Held, entry: Entry) -> VisitHeader:
    """Raises StoreDamaged unless header, name and the sizes of both files fit together."""
    with expecting("header or slab"):
        head = VisitHeader.parse(held.read("visit", HEADER_BYTES))
        if head.root != entry.root:
            raise StoreDamaged("its header belongs to another visit")
        for name, size in (
            ("visit", HEADER_BYTES + head.contents_bytes + head.slots * KEY),
            ("slab", head.slots * PAGE),
        ):
            if (found := held.size(name)) != size:
                raise StoreDamaged(f"its {name} has {found} bytes instead of {size}")
    return head
