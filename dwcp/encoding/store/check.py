"""Verify a whole store: read every page and block once, compare it with its key, mark what differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dwcp.encoding.store import images
from dwcp.encoding.store.folder import WHOLE, Entry, Folder, marks
from dwcp.encoding.store.images import Image
from dwcp.encoding.store.indexing import Tell, silent
from dwcp.encoding.store.reading import PAGE, RUN
from dwcp.encoding.store.visit import Visit


@dataclass(frozen=True, slots=True)
class Damage:
    what: str
    """The visit's or index's folder."""
    pages: int
    """Pages marked in it; 0: the entry as a whole."""
    found_now: bool


@dataclass
class Verified:
    visits: int = 0
    images: int = 0
    pages: int = 0
    """Pages and blocks that were read."""
    changed: list[str] = field(default_factory=list)
    """Images that are not what was indexed, so not looked at: index them again."""
    damage: list[Damage] = field(default_factory=list)

    @property
    def found_now(self) -> bool:
        return any(one.found_now for one in self.damage)


def run(folder: Folder, tell: Tell = silent) -> Verified:
    report = Verified()
    if not folder.is_store():
        return report
    for entry in folder.entries("visits"):
        before = marks(entry)
        if (seen := Visit.open(entry)) is not None:
            with seen:
                report.visits += 1
                report.pages += _all(str(entry.path), seen.slots, seen.failed, tell)
        _note(report, entry, before)
    for entry in folder.entries("images"):
        before = marks(entry)
        if (image := Image.open(entry)) is not None:
            try:
                report.images += 1
                report.pages += _all(str(image.path), image.blocks, image.failed, tell)
            finally:
                image.close()
        elif (head := images.header(entry)) is not None and not images.unchanged(head):
            report.changed.append(head.path)
        _note(report, entry, before)
    return report


def damaged_pages(entry: Entry) -> int:
    """Pages of an entry that are not used any more."""
    found = marks(entry)
    if WHOLE not in found:
        return len(found)
    slab = entry.path / ("slab" if entry.kind == "visits" else "blocks")
    unit = PAGE if entry.kind == "visits" else images.PLACE_BYTES
    try:
        return max(1, slab.stat().st_size // unit)
    except OSError:
        return 1


def _all(what: str, count: int, failed: Callable[[int, int], list[int]], tell: Tell) -> int:
    for first in range(0, count, RUN):
        failed(first, RUN)
        tell(what, min(first + RUN, count) * PAGE, count * PAGE)
    return count


def _note(report: Verified, entry: Entry, before: set[int]) -> None:
    now = marks(entry)
    if now:
        report.damage.append(Damage(str(entry.path), 0 if WHOLE in now else len(now), found_now=now != before))
