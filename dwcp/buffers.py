"""Large buffers are reused: the first touch of fresh memory costs more than hashing it.

(Telling malloc to keep freed blocks for the codecs' results as well was measured and made no difference.)
"""

from __future__ import annotations

import threading


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
