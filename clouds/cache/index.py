"""The index of what a region keeps, in objects of a bucket there:

    <root>/bases/<key>.json      the head of a base: what makes it visible, so it is written last
    <root>/bases/<key>.blocks    the list of its blocks
    <root>/uses/<key>/<who>.open           a move that makes a disk from it right now
    <root>/uses/<key>/<who>.<bytes>.done   one that did, and how much was not sent

Every object has one writer and is written whole; a list of names tells all that evicting needs. Two moves that keep
disks at the same time do not meet. An object that is damaged, or of another version, is as good as not there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from clouds.cache import entry
from clouds.cache.choose import DAY, Removal, Worth, evict
from clouds.cache.entry import Base
from clouds.capabilities import RegionalCache
from clouds.errors import Conflict, Damaged, NotFound
from models.clouds import CacheBounds

ROOT = "novacron/cache/v1"
OPEN_FOR = 31 * DAY
"""A use that was not ended for so long is one of a move that is no more: a step may take 30 days."""
_WHO = re.compile(r"[A-Za-z0-9._-]{1,200}")
_USE = re.compile(r"(?P<key>[0-9a-f]{32})/(?P<who>[A-Za-z0-9._-]{1,200}?)\.(?:(?P<saved>\d{1,19})\.done|open)")
_HEAD = re.compile(r"(?P<key>[0-9a-f]{32})\.json")


@dataclass
class Uses:
    """Of one base."""

    worth: Worth = field(default_factory=Worth)
    stale: list[str] = field(default_factory=list)
    """Objects that tell of what is too long ago."""


class Index:
    def __init__(self, store: RegionalCache, bounds: CacheBounds, beat: Callable[[], None] = lambda: None) -> None:
        """`beat` is called between objects, and may raise."""
        self._store = store
        self.bounds = bounds
        self._root = f"{ROOT}/{bounds.scope}"
        self._beat = beat

    def bases(self) -> tuple[Base, ...]:
        """All that can be read, the newest first."""
        found = []
        for each in self._store.list_objects(f"{self._root}/bases/"):
            told = _HEAD.fullmatch(each.name.rpartition("/")[2])
            if told is None:
                continue
            self._beat()
            with suppress(NotFound, Damaged):
                base = entry.read(self._store.get_object(each.name))
                if base is not None and base.key == told["key"]:
                    found.append(base)
        return tuple(sorted(found, key=lambda base: (-base.made, base.disk)))

    def digests(self, base: Base) -> dict[int, bytes]:
        """SHA-256 of its blocks. Raises NotFound, Damaged."""
        return entry.unpack(base, self._store.get_object(self._list(base)))

    def add(self, base: Base, stored: bytes) -> None:
        """The disk is tagged first: without that its head is worth nothing."""
        self._store.keep_disk(base.disk, base.content)
        self._store.put_object(self._list(base), stored)
        self._store.put_object(self._head(base), entry.write(base))

    def remove(self, base: Base, delete_disk: Callable[[str], None]) -> None:
        """The disk first: it is what costs. A head without one is found, and removed, by the next look."""
        delete_disk(base.disk)
        self._store.delete_object(self._head(base))
        self._store.delete_object(self._list(base))
        for each in list(self._store.list_objects(f"{self._root}/uses/{base.key}/")):
            self._store.delete_object(each.name)

    def begin_use(self, disk: str, who: str) -> None:
        """From here on it is not evicted."""
        self._store.put_object(self._use(disk, who, "open"), b"")

    def end_use(self, disk: str, who: str, saved: int | None) -> None:
        """`saved` bytes were not sent; None: nothing came of it."""
        if saved is not None:
            self._store.put_object(self._use(disk, who, f"{saved}.done"), b"")
        self._store.delete_object(self._use(disk, who, "open"))

    def uses(self, now: float) -> dict[str, Uses]:
        """By key of the base. `now`: seconds since 1970."""
        found: dict[str, Uses] = {}
        for each in self._store.list_objects(f"{self._root}/uses/"):
            told = _USE.fullmatch(each.name.removeprefix(f"{self._root}/uses/"))
            if told is None:
                continue
            uses, when = found.setdefault(told["key"], Uses()), each.modified.timestamp()
            old = now - when > (OPEN_FOR if told["saved"] is None else self.bounds.days * DAY)
            if old:
                uses.stale.append(each.name)
                continue
            worth, done = uses.worth, told["saved"] is not None
            uses.worth = Worth(
                uses=worth.uses + done,
                saved=worth.saved + int(told["saved"] or 0),
                used=max(worth.used, when),
                open=worth.open + (not done),
            )
        return found

    def worths(self, now: float) -> dict[str, Worth]:
        """By disk."""
        uses = self.uses(now)
        return {base.disk: uses[base.key].worth for base in self.bases() if base.key in uses}

    def prune(
        self, delete_disk: Callable[[str], None], there: Callable[[Base], bool], now: float, *, everything: bool = False
    ) -> tuple[tuple[Removal, ...], tuple[Base, ...]]:
        """(what was removed, what stays): bases that are not `there` any more, and what goes by the bounds, or with
        `everything` all that no move uses."""
        bases, uses = self.bases(), self.uses(now)
        worths = {base.disk: uses[base.key].worth for base in bases if base.key in uses}
        lost = [base for base in bases if not there(base)]
        kept = [base for base in bases if base not in lost]
        if everything:
            free = [base for base in kept if not worths.get(base.disk, Worth()).open]
            going: tuple[Removal, ...] = tuple(Removal(base, "everything was to go") for base in free)
            left = tuple(base for base in kept if base not in free)
        else:
            going, left = evict(kept, worths, self.bounds, now)
        removals = (*(Removal(base, "its disk is gone, or not the one that was kept") for base in lost), *going)
        removed, held = [], []
        for each in removals:
            self._beat()
            try:
                self.remove(each.base, delete_disk if each.base not in lost else lambda _: None)
                removed.append(each)
            except Conflict:  # an image is made of it yet: the next one takes it
                held.append(each.base)
        for each_uses in uses.values():
            for name in each_uses.stale:
                self._store.delete_object(name)
        return tuple(removed), (*left, *held)

    def _head(self, base: Base) -> str:
        return f"{self._root}/bases/{base.key}.json"

    def _list(self, base: Base) -> str:
        return f"{self._root}/bases/{base.key}.blocks"

    def _use(self, disk: str, who: str, end: str) -> str:
        safe = who if _WHO.fullmatch(who) else hashlib.sha256(who.encode()).hexdigest()
        return f"{self._root}/uses/{entry.key_of(disk)}/{safe}.{end}"
