"""What one end of a session knows of the VM's pages from before, and keeps for the next time.

While the memory stream runs, every page that went by lies in a slab, which both ends fill alike. If the host has a
store, the slab becomes a visit of it afterwards: when the VM comes back, both hosts have the same base. (Mapping a file
of the store as the slab would save that writing, and cost page faults and write-back while the guest waits.) All this
is only ever a saving. Whatever fails here (no room, a damaged page, a store of another version) costs bytes, never the
move; that the right bytes arrive is the gate's business.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dwcp.encoding.messages import KEY, MAX_KEYS, PAGE
from dwcp.encoding.pages import NONE, Base, Contents, Have, Memory
from dwcp.encoding.store import Store, Visit, VisitInfo
from models.datapath import DataPathConfig

log = logging.getLogger(__name__)

DISK_SLOTS: Final = 65536
"""256 MiB for the blocks of each copied disk: repeats inside a disk image lie close together."""
SLOTS_PER_MIB: Final = 256
WRITE_BYTES: Final = 8 << 20

Supply = Callable[[list[int], memoryview], list[int]]
"""Pages by their numbers in a set, verified, into the view; the positions that could not be supplied."""


@dataclass(frozen=True, slots=True)
class KnownSet:
    """Part of the have-list, at the destination."""

    start: int
    count: int
    supply: Supply


class Known:
    def __init__(self, config: DataPathConfig) -> None:
        self._use = config.store
        self._slots = config.page_memory_mib * SLOTS_PER_MIB
        self.store = Store(config.store.settings) if config.store and config.store.settings.limit_mib else None
        self.base: Base | None = None
        """The VM's last visit, once both ends are known to have it."""
        self.have: Have | None = None
        """Source: what the destination says it has."""
        self._visits: dict[bytes, Visit] = {}
        self._sets: list[KnownSet] = []
        self._lock = threading.Lock()
        self._ram: Memory | None = None
        self._ram_taken = False
        self._kept = False

    @property
    def looks_at_pages(self) -> bool:
        return self._slots > 0

    # --- the slab ---

    def memory(self, service: str) -> Memory | None:
        """For a new bulk flow. Only the first memory stream is looked at: QEMU's further channels have no pages."""
        with self._lock:
            if not self._slots:
                return None
            if service != "ram":
                return Memory(min(self._slots, DISK_SLOTS))
            if self._ram_taken:
                return None
            self._ram_taken = True
            return self._prepared()

    def prepare(self) -> None:
        """Make room before the move begins: the first touch of memory costs more than hashing it."""
        with self._lock:  # a stream that comes meanwhile waits: one thread at a time may use a memory
            if self._slots:
                self._prepared().prefault()

    def _prepared(self) -> Memory:
        if self._ram is None:
            self._ram = Memory(self._slots)
        return self._ram

    # --- what both ends have ---

    def visit_roots(self) -> tuple[bytes, ...]:
        """Of this VM, newest first."""
        return tuple(info.root for info in self._own_visits())

    def _own_visits(self) -> list[VisitInfo]:
        if not (self.store and self._use):
            return []
        return [info for info in self.store.visits(self._use) if info.vm == self._use.vm]

    def image_roots(self) -> tuple[bytes, ...]:
        return tuple(info.root for info in self.store.images()) if self.store else ()

    def use_base(self, root: bytes) -> bool:
        """Take the visit `root` for the base. False: it is not there after all."""
        visit = self._visit(root)
        if visit is None:
            return False
        try:
            self.base = Base(visit.fd, unpack_contents(visit.contents), visit.keys)
        except ValueError as error:
            log.warning("visit %s cannot be used: %s", root.hex(), error)
            return False
        log.info("both ends have visit %s: %d pages", root.hex(), visit.slots)
        return True

    def _visit(self, root: bytes) -> Visit | None:
        """Open, and so safe from eviction, until the session is over."""
        with self._lock:
            if root not in self._visits and self.store and (visit := self.store.open(root, self._use)):
                self._visits[root] = visit
            return self._visits.get(root)

    def sets(self, base: bytes | None, common_images: frozenset[bytes]) -> list[tuple[bytes | None, bytes]]:
        """Destination: what to tell the source, as (root of the visit or image if it has that too, or None; keys).

        Everything named here can be supplied from now on. The VM's own visits come first, then images, then others'.
        """
        found: list[tuple[bytes | None, bytes]] = []
        if not (self.store and self._use):
            return found
        room = MAX_KEYS
        visits = self.store.visits(self._use)
        own = [info.root for info in visits if info.vm == self._use.vm]
        others = [info.root for info in visits if info.vm != self._use.vm]
        for root in sorted(own, key=lambda root: root != base):
            room -= self._add_visit(root, room, found, common=root == base)
        for image in self.store.images():
            keys = self.store.image_keys(image.root)[: room * KEY]
            if keys:
                room -= self._add(len(keys) // KEY, self._image_supply(self.store, image.root))
                found.append((image.root if image.root in common_images else None, keys))
        for root in others:
            room -= self._add_visit(root, room, found, common=False)
        return found

    def _add_visit(self, root: bytes, room: int, found: list[tuple[bytes | None, bytes]], *, common: bool) -> int:
        visit = self._visit(root) if room > 0 else None
        if visit is None:
            return 0
        keys = visit.keys[: room * KEY]
        found.append((root if common else None, keys))
        return self._add(len(keys) // KEY, visit.supply)

    def _image_supply(self, store: Store, root: bytes) -> Supply:
        return lambda numbers, into: store.supply(root, numbers, into)

    def _add(self, count: int, supply: Supply) -> int:
        start = self._sets[-1].start + self._sets[-1].count if self._sets else 0
        self._sets.append(KnownSet(start, count, supply))
        return count

    def supply(self, numbers: array[int], into: memoryview) -> list[int]:
        """Destination: pages of the have-list to their places in `into`, NONE passed over; the places that failed."""
        failed: list[int] = []
        by_set: dict[int, list[int]] = {}
        starts = [each.start for each in self._sets]
        for place, number in enumerate(numbers):
            if number == NONE:
                continue
            at = bisect_right(starts, number) - 1
            if at < 0 or number - starts[at] >= self._sets[at].count:
                failed.append(place)
            else:
                by_set.setdefault(at, []).append(place)
        for at, places in by_set.items():
            pages = memoryview(bytearray(len(places) * PAGE))
            bad = self._sets[at].supply([numbers[place] - starts[at] for place in places], pages)
            failed += [places[position] for position in bad]
            for position, place in enumerate(places):
                into[place * PAGE : (place + 1) * PAGE] = pages[position * PAGE : (position + 1) * PAGE]
        return failed

    def keys_of(self, root: bytes) -> bytes:
        """Source: of a set that both ends have; nothing if it is gone."""
        if visit := self._visits.get(root):
            return visit.keys
        return self.store.image_keys(root) if self.store else b""

    # --- the next time ---

    def keep(self) -> None:
        """The memory stream is over, however it ended: what went by is worth knowing. Idempotent."""
        with self._lock:
            memory, kept, self._kept = self._ram, self._kept, True
        if kept or memory is None or not (self.store and self._use) or not (slots := memory.contents().slots):
            return
        best = max((info.pages for info in self._own_visits()), default=0)
        if slots * 2 < best:
            log.info("not kept: a move that broke off after %d pages; the last visit has %d", slots, best)
            return
        draft = self.store.begin(self._use, slots)
        if draft is None:
            return
        with draft:
            try:
                write_all(draft.fd, memoryview(memory.slab)[: slots * PAGE])
            except OSError as error:
                log.warning("not kept: %s", error)
                return
            root = draft.commit(pack_contents(memory.contents()), memory.keys(), slots)
        if root:
            log.info("kept as visit %s: %d pages", root.hex(), slots)

    def close(self, *, whole: bool) -> None:
        """Keep what went by, if nobody writes to it any more, and let go of the rest."""
        if whole:
            self.keep()
        with self._lock:
            visits, self._visits = list(self._visits.values()), {}
        for visit in visits:
            visit.close()
        if self.store:
            self.store.close()


def write_all(fd: int, data: memoryview) -> None:
    """From the file's start. Raises OSError."""
    at = 0
    while at < len(data):
        at += os.pwrite(fd, data[at : at + WRITE_BYTES], at)


def pack_contents(contents: Contents) -> bytes:
    """u32 slots, u32 blocks, then each block's name (u8 length first), then (block, page, slot) as they are."""
    names = b"".join(bytes((len(name),)) + name for name in contents.blocks)
    return struct.pack("<II", contents.slots, len(contents.blocks)) + names + contents.places


def unpack_contents(raw: bytes) -> Contents:
    """Raises ValueError; what the numbers mean is checked by whoever uses them."""
    try:
        slots, count = struct.unpack_from("<II", raw)
    except struct.error as error:
        raise ValueError(f"contents of {len(raw)} bytes are too short") from error
    at, names = 8, list[bytes]()
    for _ in range(count):
        if at >= len(raw) or at + 1 + raw[at] > len(raw):
            raise ValueError(f"contents end within the names of {count} blocks")
        names.append(raw[at + 1 : at + 1 + raw[at]])
        at += 1 + raw[at]
    return Contents(tuple(names), raw[at:], slots)
