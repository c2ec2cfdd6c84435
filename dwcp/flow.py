"""The receiving half of a flow, without input or output: put frames in order, let nothing through unverified.

Frames of a flow come over several lanes, so in any order, and some of them twice after a lane was lost. `Reassembly`
hands them out once each, in order; `Gate` holds the running digest, and bytes pass it only when the sender's digest of
everything up to their end equals ours. Both are bounded: a peer that sends more than the protocol allows
unacknowledged is in error, it does not get more memory.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from xxhash import xxh3_128

from dwcp.errors import DigestMismatch, ProtocolError
from dwcp.transport.frames import MAX_UNACKED_FRAMES, MAX_UNACKED_RAW, Buffer

Item = TypeVar("Item")
EMPTY_DIGEST: Final = xxh3_128().digest()


class Reassembly(Generic[Item]):
    """In order and once. `acked` = items below it are settled (written to the local socket, or dropped on purpose)."""

    def __init__(self) -> None:
        self.acked = 0
        self.held = 0
        """Raw bytes that came and are not settled."""
        self._next = 0
        self._waiting: dict[int, tuple[Item, int]] = {}
        self._taken: list[int] = []

    def add(self, seq: int, item: Item, size: int) -> bool:
        """True if `item` was kept, False if it is a repeat. Raises ProtocolError beyond the bounds."""
        if seq < self._next or seq in self._waiting:
            return False
        if seq >= self.acked + MAX_UNACKED_FRAMES:
            raise ProtocolError(f"frame {seq} is too far ahead of {self.acked}; the peer ignores the bound")
        if self.held + size > MAX_UNACKED_RAW:
            raise ProtocolError(f"over {MAX_UNACKED_RAW} raw bytes unacknowledged; the peer ignores the bound")
        self._waiting[seq] = (item, size)
        self.held += size
        return True

    def ready(self) -> bool:
        return self._next in self._waiting

    def take(self) -> Item:
        """The next item in order; call only when `ready`. Settle it before or after taking more."""
        item, size = self._waiting.pop(self._next)
        self._next += 1
        self._taken.append(size)
        return item

    def settle(self) -> int:
        """Everything taken so far is done with: the cumulative acknowledgement."""
        self.held -= sum(self._taken)
        self._taken.clear()
        self.acked = self._next
        return self.acked


class Gate:
    """Running XXH3-128 of one flow and direction: it finds faults. Who must not change a byte is TLS's business."""

    def __init__(self) -> None:
        self._running = xxh3_128()
        self.digest = EMPTY_DIGEST

    def add(self, raw: Buffer) -> bytes:
        """Sender: take `raw` into account; the digest of everything up to its end."""
        self._running.update(raw)
        self.digest = self._running.digest()
        return self.digest

    def admit(self, raw: Buffer, digest: bytes) -> None:
        """Receiver: raise DigestMismatch unless everything up to the end of `raw` is what the sender read."""
        if self.add(raw) != digest:
            raise DigestMismatch("bytes that arrived are not the bytes that were read; nothing of them was written")
