"""A file as a list of chunks and holes: enough to build it again wherever its chunks can be had.

    offset  size  field
    0       4     magic "NCRP"
    4       2     version, 1
    6       2     zero
    8       4     pieces
    12      8     length of the file
    20      32    BLAKE3 of the whole file, holes included: what `b3sum` says of it
    52      8n    lengths of the pieces, signed: 1..65536 a chunk, negative a hole
    52+8n   32n   names of the chunks; zeros for a hole
    52+40n  32    BLAKE3 of everything before

Integers are big-endian. Invariants, checked by `decode` before anything is believed: lengths add up to the file's; no
hole follows a hole; nothing follows the end. A file may have at most MAX_LENGTH bytes and MAX_PIECES pieces, and a
caller who takes recipes from others says how much less it wants.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from array import array
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Final

from blake3 import blake3

from dwcp.encoding.chunks import ID_BYTES, LEAST, MOST, Chunker, Piece, chunk_id
from dwcp.errors import ProtocolError, TransferFailed
from dwcp.transport.frames import Buffer

MAGIC: Final = b"NCRP"
VERSION: Final = 1
MAX_PIECES: Final = 1 << 25
MAX_LENGTH: Final = 1 << 46
_HEADER = struct.Struct("!4sHHIQ32s")
_NO_ID: Final = bytes(ID_BYTES)
_PORTION: Final = 1 << 20
_ZEROS: Final = bytes(_PORTION)
_LITTLE: Final = sys.byteorder == "little"


@dataclass(frozen=True)
class Recipe:
    lengths: array[int]
    """Of each piece in order; a hole's is negative."""
    ids: bytes
    """32 bytes for each piece, zeros for a hole."""
    digest: bytes

    @cached_property
    def length(self) -> int:
        return sum(map(abs, self.lengths))

    def id(self, piece: int) -> bytes:
        return self.ids[piece * ID_BYTES : (piece + 1) * ID_BYTES]

    def offsets(self) -> array[int]:
        """Where each piece begins in the file."""
        offsets = array("q", [0])
        offsets.extend(accumulate(map(abs, self.lengths)))
        offsets.pop()
        return offsets

    def encode(self) -> bytes:
        lengths = array("q", self.lengths)
        if _LITTLE:
            lengths.byteswap()
        header = _HEADER.pack(MAGIC, VERSION, 0, len(self.lengths), self.length, self.digest)
        body = b"".join((header, lengths.tobytes(), self.ids))
        return body + blake3(body).digest()


class Builder:
    """Pieces in, a recipe out."""

    def __init__(self) -> None:
        self._lengths = array("q")
        self._ids = bytearray()
        self._running = blake3()

    def add(self, pieces: list[Piece]) -> None:
        for length, data in pieces:
            self._lengths.append(-length if data is None else length)
            self._ids += _NO_ID if data is None else chunk_id(data)
            if data is None:
                hash_zeros(self._running, length)
            else:
                self._running.update(data)

    def done(self) -> Recipe:
        return Recipe(self._lengths, bytes(self._ids), self._running.digest())


def size_of(pieces: int) -> int:
    """Bytes of a recipe of so many pieces."""
    return _HEADER.size + pieces * (8 + ID_BYTES) + blake3.digest_size


def most_pieces(length: int) -> int:
    """Of a file: the chunker makes none below LEAST, but before a hole, which is longer than that, and at the end."""
    return min(MAX_PIECES, length // LEAST + 2)


def decode(raw: Buffer, limit: int = MAX_LENGTH) -> Recipe:
    """Raises ProtocolError for anything but a recipe of a file of at most `limit` bytes."""
    view = memoryview(raw)
    if len(view) < size_of(0):
        raise ProtocolError(f"a recipe of {len(view)} bytes is cut short; ask for it again")
    magic, version, zero, pieces, length, digest = _HEADER.unpack_from(view)
    if magic != MAGIC or version != VERSION or zero:
        raise ProtocolError(f"{magic!r} version {version} is no recipe that this end reads; use the same release")
    if length > min(limit, MAX_LENGTH) or pieces > most_pieces(length):
        raise ProtocolError(f"a recipe of {pieces} pieces, {length} bytes is above what is taken here, {limit} bytes")
    if len(view) != size_of(pieces):
        raise ProtocolError(f"a recipe of {pieces} pieces has {size_of(pieces)} bytes, got {len(view)}")
    if blake3(view[: -blake3.digest_size]).digest() != view[-blake3.digest_size :]:
        raise ProtocolError("the recipe is damaged: its checksum does not hold; ask for it again")
    lengths = array("q")
    middle = _HEADER.size + 8 * pieces
    lengths.frombytes(view[_HEADER.size : middle])
    if _LITTLE:
        lengths.byteswap()
    recipe = Recipe(lengths, bytes(view[middle : -blake3.digest_size]), digest)
    _check(recipe, length)
    return recipe


def _check(recipe: Recipe, length: int) -> None:
    lengths = recipe.lengths
    if lengths and max(lengths) > MOST:
        raise ProtocolError(f"the recipe has a chunk of {max(lengths)} bytes, above {MOST}")
    if recipe.length != length:
        raise ProtocolError(f"the recipe's pieces add up to {recipe.length} bytes, not to {length}")
    after_hole = False
    for piece, size in enumerate(lengths):
        hole = size < 0
        if not size or (hole and after_hole):
            raise ProtocolError(f"piece {piece} of the recipe is empty, or a hole after a hole")
        if hole and recipe.id(piece) != _NO_ID:
            raise ProtocolError(f"piece {piece} of the recipe is a hole with a name")
        after_hole = hole


def missing(recipe: Recipe, have: Container[bytes]) -> list[int]:
    """The pieces to get: chunks that `have` lacks, each name once, in the file's order."""
    wanted: set[bytes] = set()
    pieces = []
    for piece, size in enumerate(recipe.lengths):
        if size > 0 and (name := recipe.id(piece)) not in wanted and name not in have:
            wanted.add(name)
            pieces.append(piece)
    return pieces


def of_file(path: Path | str) -> Recipe:
    """Read the whole file; its own holes are not read. Raises OSError, and TransferFailed if it changes meanwhile."""
    with Path(path).open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        chunker, builder = Chunker(), Builder()
        for offset, size, filled in extents(file.fileno(), before.st_size):
            if not filled:
                builder.add(chunker.skip(size))
                continue
            for place in range(offset, offset + size, _PORTION):
                builder.add(chunker.feed(read_at(file.fileno(), place, min(_PORTION, offset + size - place))))
        builder.add(chunker.end())
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise TransferFailed(f"{path} was changed while it was read; stop who writes to it, and try again")
    return builder.done()


def extents(handle: int, length: int) -> Iterator[tuple[int, int, bool]]:
    """(offset, size, whether there are bytes) of each stretch of a file, as its file system tells them."""
    place = 0
    while place < length:
        try:
            begin = min(os.lseek(handle, place, os.SEEK_DATA), length)
        except OSError as error:
            if error.errno != errno.ENXIO:  # that one says: no more data
                raise
            begin = length
        if begin > place:
            yield place, begin - place, False
        if begin == length:
            return
        place = min(os.lseek(handle, begin, os.SEEK_HOLE), length)
        yield begin, place - begin, True


def read_at(handle: int, offset: int, size: int) -> bytes:
    """Exactly `size` bytes. Raises TransferFailed where the file ends before."""
    data = os.pread(handle, size, offset)
    while len(data) < size:
        more = os.pread(handle, size - len(data), offset + len(data))
        if not more:
            raise TransferFailed(f"the file ends at {offset + len(data)}: it was cut while it was read; try again")
        data += more
    return data


def hash_zeros(running: blake3, count: int) -> None:
    while count:
        part = min(count, _PORTION)
        running.update(_ZEROS if part == _PORTION else _ZEROS[:part])
        count -= part
