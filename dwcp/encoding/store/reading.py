"""Pages, their keys, and the one way in which pages are read: into the caller's memory, and checked there.

A key is the first 16 bytes of the BLAKE3 of a page of 4096 bytes. What is compared is the caller's own copy, so nothing
that happens to the file afterwards matters.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from blake3 import blake3

log = logging.getLogger("dwcp.store")

Buffer: TypeAlias = bytes | bytearray | memoryview

PAGE: Final = 4096
KEY: Final = 16
ZERO_KEY: Final = blake3(bytes(PAGE)).digest(KEY)
RUN: Final = 256
"""Pages read and hashed at once."""


def digest(*parts: Buffer) -> bytes:
    """The first 16 bytes of the BLAKE3 of all parts, one after the other."""
    running = blake3()
    for part in parts:
        running.update(part)
    return running.digest(KEY)


def page_keys(pages: Buffer) -> bytes:
    """Keys of whole pages, one after the other; in bulk and without the GIL where the page stage's C part is built."""
    from dwcp.encoding.pages import page_keys as bulk  # late: most commands hash nothing

    return bulk(pages)


class Readers:
    """Lets a file be closed while threads read it: the last one out closes it."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._count = 1
        self._closed = False
        self._lock = threading.Lock()

    def enter(self) -> bool:
        """False once it is closed. True must be followed by `leave`."""
        with self._lock:
            if self._closed:
                return False
            self._count += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count:
                return
        self._close()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.leave()


def gather(file: int, places: Sequence[int], keys: Sequence[bytes], into: Buffer) -> list[int]:
    """Read pages into `into`, one for each of `places` (page numbers in `file`; negative: not to be had).

    The positions whose page could not be read or has not its key; their part of `into` is zeroed.
    """
    view = memoryview(into).cast("B")
    count = len(places)
    if len(keys) != count or len(view) < count * PAGE:
        raise ValueError(f"{count} pages need as many keys and {count * PAGE} bytes, got {len(keys)} and {len(view)}")
    failed: list[int] = []
    start = 0
    while start < count:
        end = start + 1
        if places[start] >= 0:
            while end < count and end - start < RUN and places[end] == places[end - 1] + 1:
                end += 1
            failed += _run(file, places[start], keys, view, start, end)
        else:
            failed.append(start)
        start = end
    for position in failed:
        view[position * PAGE : (position + 1) * PAGE] = bytes(PAGE)
    return failed


def _run(file: int, place: int, keys: Sequence[bytes], view: memoryview, start: int, end: int) -> list[int]:
    """Neighbours in the file, with one read; page by page only where the disk fails, or something is not right."""
    part = view[start * PAGE : end * PAGE]
    try:
        got = os.preadv(file, [part], place * PAGE) // PAGE
    except OSError as error:
        if end - start > 1:
            halves = ((start, (start + end) // 2), ((start + end) // 2, end))
            return [bad for low, high in halves for bad in _run(file, place + low - start, keys, view, low, high)]
        log.warning("page %d cannot be read: %s; it is not used", place, error)
        return [start]
    found = page_keys(part[: got * PAGE])
    return [start + i for i in range(end - start) if found[i * KEY : (i + 1) * KEY] != keys[start + i]]
