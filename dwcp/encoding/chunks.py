"""Content-defined chunks of files and images: where they are cut, and what names them.

The cutter is FastCDC (Xia et al., USENIX ATC 2016; IEEE TPDS 2020): a gear hash of the last 64 bytes cuts where it
falls below a bound. Kept from it are the skipped minimum and normalised chunking, level 2. Two things differ: the
bound judges the hash's top bits instead of a padded mask, because only they depend on all 64 bytes; and the hash is
warmed with the 63 bytes before the minimum instead of starting empty there, so a cut depends on content alone and
chunks fall into step again sooner after an edit. Rabin fingerprints cut as well, at a fraction of the speed (the
papers' own comparison).

The papers cut at 2, 8 and 64 KiB (least, normal, most); 4, 16 and 64 are taken here. Measured between two releases,
with the recipe, twice that sends 14 to 25 in a hundred more, and half of it 4 to 17 less for twice the recipe (`python
-m bench.chunks OLD NEW`; docs/chunks.md has the tables). C cuts random bytes at 3.3 GB/s on one core. A run of HOLE
zeros or more is no chunk but a hole: it has no name and takes no bytes on the wire.

The gear table is BLAKE3's extendable output of GEAR_SEED: anyone can derive it, and it is no secret. A chunk's name
is BLAKE3, 32 bytes: names cross hosts, so that nobody must be able to make two chunks of one name.

`NOVACRON_PURE=1`, or a C twin that is not built, gives the pure-Python cutter: same cuts, some hundred times slower.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from blake3 import blake3

from dwcp.encoding import chunks_py
from dwcp.transport.frames import Buffer

split = chunks_py.split
if os.environ.get("NOVACRON_PURE") != "1":
    try:
        from dwcp.encoding._chunks import split
    except ImportError:  # not built here: the twin does the same
        split = chunks_py.split

ID_BYTES: Final = 32
GEAR_SEED: Final = b"novacron content-defined chunks, version 1"
GEAR: Final = blake3(GEAR_SEED).digest(length=2048)
"""256 little-endian numbers of 64 bits."""
LEAST: Final = 4 << 10
"""Chunks are at least this long, but for those before a hole or the end."""
NORMAL: Final = 16 << 10
MOST: Final = 64 << 10
HOLE: Final = 16 << 10
"""A run of this many zeros is a hole."""
_LEVEL: Final = 2
_BITS: Final = NORMAL.bit_length() - 1
SIZES: Final = (LEAST, NORMAL, MOST, HOLE, 1 << (64 - _BITS - _LEVEL), 1 << (64 - _BITS + _LEVEL))
"""What `split` takes: the last two cut once in 64 KiB before NORMAL, and once in 4 KiB after it."""
AHEAD: Final = MOST + HOLE
"""With this much in view the next piece is certain, whatever follows."""


class Piece(NamedTuple):
    """A chunk and its bytes; a hole has none."""

    length: int
    data: bytes | None


def chunk_id(data: Buffer) -> bytes:
    return blake3(data).digest()


class Chunker:
    """Bytes in, in portions of any size; pieces out, the same for any portions. Holds less than AHEAD between calls."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._hole = 0
        """Zeros of the hole that may go on."""

    def feed(self, data: Buffer) -> list[Piece]:
        """The pieces that are certain now. Portions of about a megabyte are fastest."""
        self._held += data
        return self._cut(final=False) if len(self._held) >= AHEAD else []

    def skip(self, zeros: int) -> list[Piece]:
        """As `feed` with so many zeros, at no cost: for a file's own holes."""
        if zeros < HOLE:
            return self.feed(bytes(zeros))
        filled = len(self._held.rstrip(b"\0"))
        before = len(self._held) - filled
        del self._held[filled:]
        pieces = self._cut(final=True)
        self._hole += before + zeros
        return pieces

    def end(self) -> list[Piece]:
        """The rest. The chunker is as new afterwards."""
        pieces = self._cut(final=True)
        if self._hole:
            pieces.append(Piece(self._hole, None))
            self._hole = 0
        return pieces

    def _cut(self, *, final: bool) -> list[Piece]:
        pieces: list[Piece] = []
        place = 0
        for length in split(self._held, GEAR, SIZES, self._hole > 0, final):
            if length < 0:
                self._hole -= length
                place -= length
                continue
            if self._hole:
                pieces.append(Piece(self._hole, None))
                self._hole = 0
            pieces.append(Piece(length, bytes(memoryview(self._held)[place : place + length])))
            place += length
        del self._held[:place]
        return pieces
