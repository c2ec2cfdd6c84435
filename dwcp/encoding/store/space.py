"""What is kept and what goes: worth is the bytes that a byte on disk is likely to save in a move.

A visit saves about its own size once, if the VM moves again soon: its content ages, half of the rest of its worth goes
every AGES. An image's index is 20 bytes for a block of 4096, and does not age; but it can be made again by reading the
image, so losing it costs little of that (REBUILD). What served before is likelier to serve again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dwcp.encoding.store import images, visit
from dwcp.encoding.store.folder import Entry, Folder, Kind, log, marks
from dwcp.errors import StoreFailed
from models.store import StoreSettings

MIB: Final = 1 << 20
VISIT_AGES: Final = 2 * 86400.0
"""VeCycle (Knauth, Fetzer 2015) found 50-70 % of a checkpoint reusable after 2 h, 20-50 % after a day."""
IMAGE_AGES: Final = 30 * 86400.0
REBUILD: Final = 0.1
INDEX_GAIN: Final = 4096 / 20


@dataclass(frozen=True, slots=True)
class Item:
    """An entry as eviction sees it."""

    entry: Entry
    owner: str = ""
    """The visit's VM, or the image's path."""
    useless: bool = False
    """Damaged, superseded, or of an image that has changed."""
    healthy: float = 1.0
    """Share of its pages that are not marked."""


def worth(item: Item, now: float) -> float:
    """Bytes that a byte of it is likely to save; 0: none."""
    if item.useless:
        return 0.0
    entry = item.entry
    age = max(0.0, now - entry.used_at)
    used = 1 + math.log2(1 + entry.uses)
    if entry.kind == "images":
        return used * item.healthy * REBUILD * INDEX_GAIN * 2 ** (-age / IMAGE_AGES)
    return used * item.healthy * 2 ** (-age / VISIT_AGES)


def choose(items: Iterable[Item], over: int, now: float, keep_last: str = "") -> list[Item]:
    """What to remove to free `over` bytes, least worth first; all of them when that is not enough.

    The newest visit of `keep_last`, a VM under way, goes only when nothing else does.
    """
    ordered = sorted(items, key=lambda item: (worth(item, now), item.entry.created))
    own = [item for item in ordered if item.owner == keep_last and item.entry.kind == "visits" and not item.useless]
    if own:
        newest = max(own, key=lambda item: item.entry.created)
        ordered = [item for item in ordered if item is not newest] + [newest]
    chosen: list[Item] = []
    freed = 0
    for item in ordered:
        if freed >= over:
            break
        chosen.append(item)
        freed += item.entry.size
    for item in reversed(chosen):  # a large one may have made smaller, dearer ones needless to remove
        if freed - item.entry.size >= over:
            freed -= item.entry.size
            chosen.remove(item)
    return chosen


def survey(folder: Folder, settings: StoreSettings) -> list[Item]:
    """All entries, with what speaks against them."""
    items: list[Item] = []
    seen: dict[str, int] = {}
    for entry in folder.entries("visits"):
        found = visit.info(entry)
        if found is None:
            items.append(Item(entry, useless=True))
            continue
        seen[found.vm] = seen.get(found.vm, 0) + 1
        marked = len(marks(entry))
        items.append(Item(entry, found.vm, seen[found.vm] > settings.keep_visits, max(0.0, 1 - marked / found.pages)))
    paths: set[str] = set()
    for entry in folder.entries("images"):
        head = images.header(entry)
        if head is None or head.path in paths or not images.unchanged(head):
            items.append(Item(entry, useless=True))
            continue
        paths.add(head.path)
        items.append(Item(entry, head.path, healthy=max(0.0, 1 - len(marks(entry)) / max(1, head.blocks))))
    return items


def make_room(folder: Folder, settings: StoreSettings, need: int, vm: str = "") -> None:
    """See to it that `need` more bytes fit the limit and the disk. Raises StoreFailed. Call it with the folder locked.

    Nothing of worth is removed for what would not fit even so.
    """
    folder.sweep()
    over = _over(folder, settings, need)
    if over <= 0:
        return
    over -= folder.clear_aside()
    items = [item for item in survey(folder, settings) if folder.removable(item.entry.path)]
    while over > 0:
        if sum(item.entry.size for item in items) < over:
            raise StoreFailed(
                f"{need} bytes do not fit {folder.path}: it takes {folder.used()} bytes of {settings.limit_mib} MiB, "
                f"{folder.disk_free()} bytes of its disk are free, of which {settings.leave_free_mib} MiB are to stay "
                f"so, and not enough of it may be removed; give it more room, or the move less page memory"
            )
        for item in choose(items, over, time.time(), vm):
            items.remove(item)
            if folder.remove(item.entry.path):
                over -= item.entry.size
                log.info("removed %s of %s to make room", item.entry.path.name, item.owner or "no use")
    if _over(folder, settings, need) > 0:
        raise StoreFailed(f"{folder.path} is still too full for {need} bytes; something else fills its disk")


def prune(folder: Folder, settings: StoreSettings, limit: int) -> tuple[int, int, int]:
    """Remove what is useless, then the least valuable until `limit` bytes are left: entries removed, freed, left."""
    with folder.locked():
        before = folder.used()
        removed = folder.sweep()
        folder.clear_aside()
        items = [item for item in survey(folder, settings) if folder.removable(item.entry.path)]
        doomed = [item for item in items if item.useless]
        over = folder.used() - sum(item.entry.size for item in doomed) - limit
        if over > 0:
            doomed += choose((item for item in items if not item.useless), over, time.time())
        removed += sum(folder.remove(item.entry.path) for item in doomed)
        left = folder.used()
    return removed, max(0, before - left), left


def drop_useless(folder: Folder, settings: StoreSettings, kind: Kind) -> int:
    """Remove what can serve no move any more and is not open; bytes freed. Call it with the folder locked."""
    return sum(
        item.entry.size
        for item in survey(folder, settings)
        if item.useless and item.entry.kind == kind and folder.remove(item.entry.path)
    )


def _over(folder: Folder, settings: StoreSettings, need: int) -> int:
    """Bytes that must go first."""
    limit = folder.used() + need - settings.limit_mib * MIB
    disk = need + settings.leave_free_mib * MIB - folder.disk_free()
    return max(limit, disk)
