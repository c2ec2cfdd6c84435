"""What a disk holds, found before it is sent: for formats whose map stands before their data.

Two readings cost time, and give two things besides: the content is known before a byte is sent, and a format that is
written here is the same byte for byte from any process, so that an upload goes on anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from clouds.disks.content import Block, ContentHash, Reader, read_block, touched

BEAT_EVERY = 256
"""Blocks, 128 MiB: seconds of reading."""


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


def survey(source: Reader, unit: int, beat: Callable[[], None] = lambda: None) -> Survey:
    """`unit`: what the size is rounded up to, in bytes. `beat` is called now and then, and may raise to end it."""
    runs: list[tuple[int, int]] = []
    digest, count = ContentHash(), 0
    for read, index in enumerate(touched(source.size, source.data()), start=1):
        if read % BEAT_EVERY == 0:
            beat()
        block = read_block(source, index)
        if block.empty:
            continue
        digest.add(block.index, hashlib.sha256(block.data).digest())
        count += 1
        if runs and sum(runs[-1]) == block.index:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((block.index, 1))
    return Survey(-(-source.size // unit) * unit, tuple(runs), count, digest.hexdigest())
