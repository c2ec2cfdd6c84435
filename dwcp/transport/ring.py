"""The accounting of an RDMA lane: a ring at the reader that the writer fills from afar. Pure: numbers only, no memory.

A stream is cut into chunks. Chunk n of the stream is written to the place right after chunk n-1, at both ends of the
lane the same place (the writer's staging ring and the reader's ring have one size), and announced by its number. It
never crosses the ring's end. Chunks travel over several queue pairs, so they are announced in any order; the number
restores it, and the place follows from the lengths before. The reader tells now and then how many chunks it has
settled, in order: those are credits, and let the writer use their place again.

Invariants: the writer never writes to a place that holds a byte the reader has not settled, nor to one of its own that
the device may still read; no more than `depth` chunks and `size` bytes are unsettled, so neither end can run out of
posted receives; a reader that has settled everything has told of at least all but a quarter, so neither end waits for
the other for ever. Whatever the peer announces, the only thing raised is ProtocolError.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from dwcp.errors import ProtocolError

WRAP: Final = 1 << 32
"""Numbers travel in the 32 bits of immediate data."""
EARLY: Final = 4
"""A reader tells of its progress when a part of this many of the ring or of the chunks is settled and untold."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What both ends of a lane agree on."""

    size: int
    """Bytes of the ring."""
    depth: int
    """Chunks that may be unsettled."""
    chunk: int
    """Longest chunk in bytes."""

    def __post_init__(self) -> None:
        if not (0 < self.chunk <= self.size // 2 < WRAP // 2 and 0 < self.depth < WRAP // 2):
            raise ProtocolError(f"a ring of {self.size} bytes, {self.depth} chunks of {self.chunk} cannot be")


@dataclass(frozen=True, slots=True)
class Chunk:
    number: int
    position: int
    length: int

    @property
    def wire(self) -> int:
        """The number as it travels."""
        return self.number % WRAP


def expand(wire: int, near: int) -> int:
    """The number that `wire` stands for: of all that fit, the one within 2**31 of `near`."""
    return near + (wire - near + WRAP // 2) % WRAP - WRAP // 2


class Outgoing:
    """The writer's half."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._next = 0
        self._position = 0
        self._credited = 0
        self._out: deque[Chunk] = deque()
        """Chunks whose place is not free yet, in order."""
        self._incomplete: dict[int, int] = {}
        self._unsettled = 0
        """Bytes written whose place is not free again."""
        self.travelling = 0
        """Bytes written that have not been seen to reach the reader's memory."""
        self.settled = 0
        """Bytes the reader has told to be done with, since the start."""

    def reserve(self, wanted: int) -> Chunk | None:
        """A place for the next of `wanted` bytes, or None while the ring is full. Takes what it gives."""
        shape = self._shape
        room = min(wanted, shape.chunk, shape.size - self._unsettled, shape.size - self._position)
        if room <= 0 or len(self._out) >= shape.depth:
            return None
        chunk = Chunk(self._next, self._position, room)
        self._next += 1
        self._position = (self._position + room) % shape.size
        self._out.append(chunk)
        self._incomplete[chunk.number] = room
        self.travelling += room
        self._unsettled += room
        return chunk

    def completed(self, number: int) -> None:
        """The device has written chunk `number` and will not read our copy of it again."""
        if number not in self._incomplete:
            raise ProtocolError(f"chunk {number} completed, which was not on its way; close the lane")
        self.travelling -= self._incomplete.pop(number)
        self._free()

    def credited(self, wire: int) -> None:
        """The reader has settled all chunks below this number."""
        upto = expand(wire, self._credited)
        if not self._credited <= upto <= self._next:
            raise ProtocolError(f"credit up to chunk {upto}, outside {self._credited}..{self._next}; close the lane")
        self._credited = upto
        self._free()

    def _free(self) -> None:
        while self._out and self._out[0].number < self._credited and self._out[0].number not in self._incomplete:
            chunk = self._out.popleft()
            self._unsettled -= chunk.length
            self.settled += chunk.length


class Incoming:
    """The reader's half."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._next = 0
        """The chunk that extends what is in order."""
        self._early: dict[int, int] = {}
        """Lengths of chunks that came before an earlier one."""
        self._lengths: deque[int] = deque()
        """What is left of the chunks that are in order."""
        self._position = 0
        self._end = 0
        self._ready = 0
        self._held = 0
        self._settled = 0
        self._told = 0
        self._untold_bytes = 0

    def arrived(self, wire: int, length: int) -> None:
        """Chunk `wire` of `length` bytes lies in the ring."""
        shape = self._shape
        number = expand(wire, self._next)
        if not self._next <= number < self._settled + shape.depth or number in self._early:
            raise ProtocolError(f"chunk {number} announced while {self._next} is awaited; close the lane")
        if not 0 < length <= shape.chunk or self._held + length > shape.size:
            raise ProtocolError(f"chunk of {length} bytes in a ring that holds {self._held}; close the lane")
        self._early[number] = length
        self._held += length
        while (length := self._early.pop(self._next, 0)) > 0:
            if self._end + length > shape.size:
                raise ProtocolError(f"chunk {self._next} crosses the ring's end; close the lane")
            self._end = (self._end + length) % shape.size
            self._lengths.append(length)
            self._ready += length
            self._next += 1

    def readable(self) -> tuple[int, int]:
        """Position and number of the bytes that can be read in one piece now; 0 bytes while none are in order."""
        return self._position, min(self._ready, self._shape.size - self._position)

    def consume(self, length: int) -> None:
        """`length` of the readable bytes have been copied out."""
        assert 0 < length <= self.readable()[1]
        self._position = (self._position + length) % self._shape.size
        self._ready -= length
        self._held -= length
        self._untold_bytes += length
        while length:
            part = min(length, self._lengths[0])
            length -= part
            if part < self._lengths[0]:
                self._lengths[0] -= part
            else:
                self._lengths.popleft()
                self._settled += 1

    def credit(self) -> int | None:
        """The credit to send now, as it travels; None while it is too early for one."""
        shape = self._shape
        untold = self._settled - self._told
        if not untold or (untold * EARLY < shape.depth and self._untold_bytes * EARLY < shape.size):
            return None
        self._told, self._untold_bytes = self._settled, 0
        return self._settled % WRAP
