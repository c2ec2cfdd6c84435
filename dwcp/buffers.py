"""Large buffers are reused: the first touch of fresh memory costs more than hashing it.

`BufferPool` keeps batch buffers between uses. `keep_freed_memory` makes malloc do the same for what the codecs return
(glibc hands blocks of this size straight back to the kernel otherwise).
"""

from __future__ import annotations

import ctypes
import threading
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEEP: Final = 32 << 20


class BufferPool:
    """Lends byte arrays of at least the asked size. Thread safe. What is not given back is garbage, not a leak."""

    def __init__(self, size: int, keep: int) -> None:
        self._size = size
        self._keep = keep
        self._free: list[bytearray] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> bytearray:
        """At least `size` bytes, contents arbitrary."""
        if size <= self._size:
            with self._lock:
                if self._free:
                    return self._free.pop()
        return bytearray(max(size, self._size))

    def give(self, buffer: bytearray) -> None:
        """Only once nobody reads or writes `buffer` any more."""
        if len(buffer) == self._size:
            with self._lock:
                if len(self._free) < self._keep:
                    self._free.append(buffer)


def keep_freed_memory() -> bool:
    """False where the C library has no mallopt: slower, not wrong."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEEP)) and bool(mallopt(_M_TRIM_THRESHOLD, 4 * _KEEP))
