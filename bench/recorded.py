"""A recorded QEMU stream, and how much guest memory it stands for. Counted here, independently of the data path.

    "QEVM" | version | configuration | sections: type, id, [name, instance, version], chunk, footer

A chunk of the section `ram` is a run of 64-bit words, address | flags, some of which bring a name and a page; the word
with EOS ends it. All integers are big-endian. See QEMU's migration/ram.c and migration/savevm.c.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

PAGE = 4096
ZERO, SIZES, PAGE_FLAG, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
START, PART, END, CONFIGURATION, FOOTER = 0x01, 0x02, 0x03, 0x07, 0x7E
_U32, _U64 = Struct(">I"), Struct(">Q")


class NotAStream(ValueError):
    """The file is no QEMU stream that this bench understands; says what was found, and where."""


def ram_bytes(stream: bytes | mmap.mmap) -> int:
    """Guest memory the stream sends: page and zero records, each time they are sent, times 4096. Raises NotAStream."""
    if stream[:4] != b"QEVM":
        raise NotAStream(f"the stream begins with {stream[:4]!r}, not QEVM: give a file that QEMU migrated to")
    at, records = 8, 0
    try:
        while (kind := stream[at]) in (START, PART, END, CONFIGURATION):
            if kind == CONFIGURATION:
                at += 5 + _U32.unpack_from(stream, at + 1)[0]
                continue
            at += 5
            if kind == START:
                at += 1 + stream[at] + 8
            at, found = _chunk(stream, at)
            records += found
            if stream[at] == FOOTER:
                at += 5
    except (IndexError, ValueError) as error:
        raise NotAStream(f"the stream ends, or is not understood, at byte {at}: {error}") from error
    return records * PAGE


def _chunk(stream: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    """Where the chunk that begins at `at` ends, and how many pages it sends."""
    records, unpack = 0, _U64.unpack_from
    while True:
        if at + 8 > len(stream):
            raise NotAStream(f"byte {at}: the stream ends inside a memory section")
        word = unpack(stream, at)[0]
        at += 8
        flags = word & 0xFFF
        if flags == EOS:
            return at, records
        if flags == SIZES:
            left = word & ~0xFFF
            while left > 0:
                at += 1 + stream[at]
                left -= unpack(stream, at)[0]
                at += 8
            continue
        if not flags & CONTINUE:
            at += 1 + stream[at]
        if flags & ~CONTINUE == PAGE_FLAG:
            at += PAGE
        elif flags & ~CONTINUE == ZERO:
            at += 1
        else:
            raise NotAStream(f"byte {at - 8}: memory record with flags {flags:#x}")
        records += 1


@dataclass(frozen=True)
class Stream:
    """Bytes to be carried, and what they stand for."""

    name: str
    data: mmap.mmap
    ram_bytes: int

    def __len__(self) -> int:
        return len(self.data)


@contextmanager
def opened(name: str, path: Path, at_most: int | None = None) -> Iterator[Stream]:
    """A stream file, all in memory before it is used; of it no more than `at_most` bytes, which then count as RAM.

    Raises NotAStream.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        with mmap.mmap(file.fileno(), min(size, at_most or size), access=mmap.ACCESS_READ) as data:
            data.madvise(mmap.MADV_WILLNEED)
            yield Stream(name, data, len(data) if at_most else ram_bytes(data))
