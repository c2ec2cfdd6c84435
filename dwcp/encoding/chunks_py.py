"""Boundaries of content-defined chunks in plain Python: the definition, and what runs where the C twin is not built.

Two layers, so that the result depends on the bytes alone, never on how they came:

1. A *hole* is a run of at least `hole` zero bytes that is as long as it can be. Holes are found first.
2. Each stretch between holes is cut by FastCDC (see chunks.py): from `least` bytes on, the gear hash of the last 64
   bytes decides; below `normal` it must be under `strict`, then under `loose`; at `most` the chunk ends anyway.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from dwcp.transport.frames import Buffer

WINDOW: Final = 64
"""Bytes that a 64-bit gear hash remembers."""
_MASK: Final = (1 << 64) - 1
_NOT_ZERO: Final = re.compile(rb"[^\0]")

Sizes = tuple[int, int, int, int, int, int]
"""least, normal, most, hole, strict, loose."""


def split(data: Buffer, gear: bytes, sizes: Sizes, inside: bool, final: bool, /) -> list[int]:
    """Lengths of the chunks at the start of `data`, holes as negative lengths; `data` begins where a piece begins.

    inside: what came before was a hole, and zeros go on with it, however few. Without `final` it stops where what may
    follow could change the result; what is not covered is to be given again, with more behind it.
    """
    least, normal, most, least_hole, _, _ = sizes
    if len(gear) != 2048 or not WINDOW <= least <= normal <= most or least_hole < 1:
        raise ValueError("a gear table of 2048 bytes and 64 <= least <= normal <= most, hole >= 1 wanted")
    raw = bytes(data)
    table = struct.unpack("<256Q", gear)
    run = bytes(least_hole)
    lengths: list[int] = []
    place, hole = 0, -1
    if inside and (place := _zeros(raw, 0)):
        lengths.append(-place)
    while place < len(raw) and (final or len(raw) - place >= most + least_hole):
        if hole < place:
            hole = raw.find(run, place)
            hole = len(raw) if hole < 0 else hole
        if hole == place:
            size = _zeros(raw, place)
            lengths.append(-size)
        else:
            size = _cut(raw, place, hole - place, table, sizes)
            lengths.append(size)
        place += size
    return lengths


def _zeros(raw: bytes, place: int) -> int:
    """The number of zero bytes at `place`."""
    found = _NOT_ZERO.search(raw, place)
    return (found.start() if found else len(raw)) - place


def _cut(raw: bytes, place: int, length: int, table: tuple[int, ...], sizes: Sizes) -> int:
    """The length of the chunk at `place`, of at most `length` bytes."""
    least, normal, most, _, strict, loose = sizes
    if length <= least:
        return length
    stop = place + min(length, most)
    middle = min(place + normal, stop)
    start = place + least - 1
    value = 0
    for byte in raw[start - WINDOW + 1 : start]:
        value = (value << 1) + table[byte]
    value &= _MASK
    for first, last, limit in ((start, middle, strict), (middle, stop, loose)):
        for at in range(first, last):
            value = ((value << 1) + table[raw[at]]) & _MASK
            if value < limit:
                return at + 1 - place
    return stop - place
