"""A snapshot of EBS, read as one likes. Each block needs a token of a list, and tokens live for a while only: of the
list the newest pages are kept, and asked for again when a block lies outside them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

from clouds.disks.content import BLOCK, ranges_of

PAGE = 1000
"""Blocks listed at once."""
KEPT = 2
"""Pages: threads that read ahead of each other lie on both sides of a border."""
YOUNG = 600.0
"""Seconds for which a page is used. AWS's tokens live longer."""
Listed = dict[str, Any]


@dataclass(frozen=True)
class _Page:
    first: int
    end: int | None
    """None: to the end of the disk."""
    blocks: dict[int, Listed]
    asked: float

    def tells(self, index: int) -> bool:
        fresh = time.monotonic() - self.asked < YOUNG
        return fresh and self.first <= index and (self.end is None or index < self.end)


class AwsReader:
    """Reader. From several threads."""

    def __init__(
        self,
        size: int,
        page: Callable[[int], tuple[list[Listed], bool]],
        all_of_them: Callable[[], Iterator[Listed]],
        get: Callable[[int, Listed], bytes],
    ) -> None:
        """`page` lists blocks from an index on, and whether there are more; `get` reads one, verified."""
        self.size = size
        self._page, self._all, self._get = page, all_of_them, get
        self._pages: list[_Page] = []
        self._lock = Lock()

    def data(self) -> Iterator[tuple[int, int]]:
        yield from ranges_of(self.size, (item["BlockIndex"] for item in self._all()))

    def read(self, offset: int, length: int) -> bytes:
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        data = b"".join(self._block(index) for index in range(first, last + 1))
        return data[offset - first * BLOCK :][:length]

    def _block(self, index: int) -> bytes:
        item = self._find(index)
        return self._get(index, item) if item is not None else bytes(BLOCK)

    def _find(self, index: int) -> Listed | None:
        with self._lock:
            for kept in self._pages:
                if kept.tells(index):
                    return kept.blocks.get(index)
            asked = time.monotonic()
            items, more = self._page(index)
            end = items[-1]["BlockIndex"] + 1 if more and items else None
            fresh = _Page(index, end, {item["BlockIndex"]: item for item in items}, asked)
            self._pages = [fresh, *self._pages][:KEPT]
            return fresh.blocks.get(index)
