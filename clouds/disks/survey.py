"""What a disk holds, found before it is sent: for formats whose map stands before their data.

Two readings cost time, and give two things besides: the content is known before a byte is sent, and a format that is
written here is the same byte for byte from any process, so that an upload goes on anywhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from clouds.disks.content import Block, ContentHash, Reader, blocks


@dataclass(frozen=True)
class Survey:
    """What a disk holds, and where."""

    size: int
    """Bytes, rounded up as the format asks."""
    runs: tuple[tuple[int, int], ...]
    """(first block, number of blocks) of neighbours that are not zero."""
    count: int
    content: str
    """Content hash."""


@dataclass(frozen=True)
class Piece:
    """The next bytes of the stream; with `block`, they end with its data."""

    data: bytes
    block: Block | None = None


def survey(source: Reader, unit: int) -> Survey:
    """`unit`: what the size is rounded up to, in bytes."""
    runs: list[tuple[int, int]] = []
    digest, count = ContentHash(), 0
    for block in blocks(source):
        digest.add(block.index, hashlib.sha256(block.data).digest())
        count += 1
        if runs and sum(runs[-1]) == block.index:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((block.index, 1))
    return Survey(-(-source.size // unit) * unit, tuple(runs), count, digest.hexdigest())
