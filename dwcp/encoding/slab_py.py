"""Pages by slot, and slots by address: what both ends of a flow remember alike. The twin is `_pages_slab.h`.

Allocation follows from the calls alone (last freed first, else the next never used), so two ends that make the same
calls have the same pages in the same slots.
"""

from __future__ import annotations

import struct
from array import array
from typing import Final

from blake3 import blake3

from dwcp.encoding.tokens import KEY_BYTES, LEAF_PAGES, NONE, PAGE, Contents
from dwcp.transport.frames import Buffer

_LEAF_SHIFT: Final = LEAF_PAGES.bit_length() - 1


def page_keys(pages: Buffer) -> bytes:
    view = memoryview(pages)
    if len(view) % PAGE:
        raise ValueError(f"pages of {len(view)} bytes are no multiple of {PAGE}")
    return b"".join(blake3(view[at : at + PAGE]).digest(KEY_BYTES) for at in range(0, len(view), PAGE))


def address(block: int, page: int) -> int:
    return block << 32 | page


class Memory:
    """The slab, the map from addresses to slots, and how many addresses share a slot."""

    def __init__(self, slots: int, slab: Buffer) -> None:
        self.slots = slots
        self.slab = memoryview(slab)
        if len(self.slab) < slots * PAGE:
            raise ValueError(f"a slab of {len(self.slab)} bytes has no room for {slots} pages")
        self.blocks: list[bytes] = []
        self.high = 0
        self._map: dict[int, int] = {}
        self._leaves: set[int] = set()
        self._shares = array("I")
        self._free: list[int] = []
        self._taken = False

    def begin(self) -> None:
        """A memory serves one encoder or one decoder."""
        if self._taken:
            raise ValueError("this memory serves another flow already; make one for each")
        self._taken = True

    @property
    def used(self) -> int:
        return self.high - len(self._free)

    def slot(self, key: int) -> int:
        """Slot of the address' last version, or NONE."""
        return self._map.get(key, NONE)

    def page(self, slot: int) -> memoryview:
        return self.slab[slot * PAGE : slot * PAGE + PAGE]

    def live(self, slot: int) -> bool:
        return slot < self.high and self._shares[slot] > 0

    def store(self, key: int, page: Buffer) -> int:
        """Remembers a new version of an address; its slot, or NONE where there is no room."""
        old = self._map.get(key, NONE)
        if old != NONE:
            if self._shares[old] == 1:
                self.slab[old * PAGE : old * PAGE + PAGE] = page
                return old
            self._shares[old] -= 1
        elif not self._room(key):
            return NONE
        slot = self._take()
        if slot == NONE:
            self._map.pop(key, None)
            return NONE
        self._shares[slot] = 1
        self._map[key] = slot
        self.slab[slot * PAGE : slot * PAGE + PAGE] = page
        return slot

    def share(self, key: int, slot: int) -> None:
        """The address has the page of `slot`, which is live."""
        old = self._map.get(key, NONE)
        if old == NONE and not self._room(key):
            return
        self._shares[slot] += 1
        if old != NONE:
            self._release(old)
        self._map[key] = slot

    def drop(self, key: int) -> None:
        old = self._map.pop(key, NONE)
        if old != NONE:
            self._release(old)

    def _room(self, key: int) -> bool:
        leaf = key >> _LEAF_SHIFT
        if leaf in self._leaves:
            return True
        if len(self._leaves) >= self.slots:
            return False
        self._leaves.add(leaf)
        return True

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        if self.high == self.slots:
            return NONE
        self._shares.append(0)
        self.high += 1
        return self.high - 1

    def _release(self, slot: int) -> None:
        self._shares[slot] -= 1
        if not self._shares[slot]:
            self._free.append(slot)

    def contents(self) -> Contents:
        places = b"".join(struct.pack("<III", key >> 32, key & NONE, slot) for key, slot in sorted(self._map.items()))
        return Contents(tuple(self.blocks), places, self.high)

    def keys(self) -> bytes:
        return page_keys(self.slab[: self.high * PAGE])

    def prefault(self) -> None:
        """Nothing: without the C extension the first touch is not what costs."""


class Base:
    """Pages of an earlier visit, by address and by slot. Every page is checked against its key before it is used."""

    def __init__(self, pages: Buffer, contents: Contents, keys: bytes) -> None:
        self.contents = contents
        self.root = contents.root(keys)
        self._pages = memoryview(pages)
        self._keys = keys
        self._blocks = {name: number for number, name in enumerate(contents.blocks)}
        self._map: dict[int, int] = {
            address(block, page): slot for block, page, slot in struct.iter_unpack("<III", contents.places)
        }

    def block(self, name: bytes) -> int:
        return self._blocks.get(name, NONE)

    def slot(self, block: int, page: int) -> int:
        return self._map.get(address(block, page), NONE) if block != NONE else NONE

    def page(self, slot: int) -> memoryview:
        return self._pages[slot * PAGE : slot * PAGE + PAGE]

    def sound(self, slot: int) -> bool:
        return blake3(self.page(slot)).digest(KEY_BYTES) == self._keys[slot * KEY_BYTES : (slot + 1) * KEY_BYTES]

    def supply(self, slots: Buffer, into: Buffer) -> bytes:
        """Copies and checks the pages of `slots` (u32) to their places in `into`, but for NONE. Bad places, u32."""
        bad, target = array("I"), memoryview(into)
        wanted = _u32s(slots)
        if len(target) < len(wanted) * PAGE:
            raise ValueError(f"{len(target)} bytes have no room for {len(wanted)} pages")
        for place, slot in enumerate(wanted):
            if slot == NONE:
                continue
            if slot < self.contents.slots and self.sound(slot):
                target[place * PAGE : place * PAGE + PAGE] = self.page(slot)
            else:
                bad.append(place)
        return bad.tobytes()


class Have:
    """Positions in a list of keys, by key."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._map = {keys[at : at + KEY_BYTES]: at // KEY_BYTES for at in range(len(keys) - KEY_BYTES, -1, -KEY_BYTES)}

    def __len__(self) -> int:
        return len(self._keys) // KEY_BYTES

    def index(self, key: bytes) -> int:
        return self._map.get(key, NONE)

    def check(self, indices: Buffer, pages: Buffer) -> bytes:
        """Places (u32) of those pages that are not what `indices` (u32) promise; NONE is passed over."""
        bad, view = array("I"), memoryview(pages)
        wanted = _u32s(indices)
        if len(view) < len(wanted) * PAGE:
            raise ValueError(f"{len(view)} bytes are less than {len(wanted)} pages")
        for place, index in enumerate(wanted):
            if index == NONE:
                continue
            key = self._keys[index * KEY_BYTES : (index + 1) * KEY_BYTES]
            if index >= len(self) or blake3(view[place * PAGE : place * PAGE + PAGE]).digest(KEY_BYTES) != key:
                bad.append(place)
        return bad.tobytes()


def _u32s(raw: Buffer) -> array[int]:
    numbers = array("I")
    numbers.frombytes(raw)
    return numbers
