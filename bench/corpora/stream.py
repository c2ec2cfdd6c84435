"""A file of raw pages as the stream that QEMU 7.2 sends for a guest with that RAM: `write_stream`.

Device state is left out but for its framing, so a destination QEMU would not take it; everything that carries RAM is as
in a real stream: configuration, the setup section with the block list, parts with page and zero records, footers, the
last part and the end. A second round sends some pages again, changed as running programs change them.
All integers are big-endian; layout as in QEMU's migration/ram.c and migration/savevm.c.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from bench.corpora.pages import PAGE, ZERO

MACHINE: Final = b"pc-q35-7.2"
BLOCK: Final = b"pc.ram"
RAM_SECTION: Final = 2
PART_BYTES: Final = 4 << 20
"""QEMU ends a part after 50 ms of sending; on a link of 1 Gbit/s that is about this much."""
CHANGED: Final = 0.1
"""Part of the pages that the second round sends again."""
WRITES: Final = (1, 12)
"""How many words of such a page were written, at least and at most."""
SEED: Final = 11

_ZERO, _MEM_SIZE, _PAGE, _EOS, _CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20


def write_stream(pages: Path, out: Path, *, again: float = CHANGED) -> int:
    """Write the stream of the RAM in `pages` to `out`; `again`: how much of it a second round changes. Its length."""
    size = pages.stat().st_size // PAGE * PAGE
    with pages.open("rb") as ram, out.open("wb") as file:
        for piece in stream(ram, size, again):
            file.write(piece)
        return file.tell()


def stream(ram: BinaryIO, size: int, again: float) -> Iterator[bytes]:
    """The pieces of the stream, in order."""
    yield struct.pack("!4sIBI", b"QEVM", 3, 7, len(MACHINE)) + MACHINE
    yield struct.pack("!BIB3sII", 1, RAM_SECTION, 3, b"ram", 0, 4)
    yield struct.pack("!QB", size | _MEM_SIZE, len(BLOCK)) + BLOCK + struct.pack("!QQ", size, _EOS) + _footer()
    yield from _parts(_records(ram, range(0, size, PAGE)))
    draw = random.Random(SEED)
    dirty = sorted(draw.sample(range(0, size, PAGE), int(size // PAGE * again)))
    yield from _parts(_records(ram, dirty, draw))
    yield struct.pack("!BIQ", 3, RAM_SECTION, _EOS) + _footer()
    yield struct.pack("!BIB5sII", 4, 0, 5, b"timer", 0, 2) + struct.pack("!QQQ", 0, 0, 0) + struct.pack("!BI", 0x7E, 0)
    yield b"\0"


def _footer() -> bytes:
    return struct.pack("!BI", 0x7E, RAM_SECTION)


def _parts(records: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
    """Sections of about PART_BYTES. The first record of each names the block, the others continue it."""
    part: list[bytes] = []
    filled = 0
    for address, page in records:
        start = not part
        if start:
            part.append(struct.pack("!BI", 2, RAM_SECTION))
        kind = _ZERO if page == ZERO else _PAGE
        part.append(struct.pack("!Q", address | kind | (0 if start else _CONTINUE)))
        if start:
            part.append(bytes([len(BLOCK)]) + BLOCK)
        part.append(b"\0" if kind == _ZERO else page)
        filled += len(part[-1]) + 8
        if filled >= PART_BYTES:
            yield b"".join(part) + struct.pack("!Q", _EOS) + _footer()
            part, filled = [], 0
    if part:
        yield b"".join(part) + struct.pack("!Q", _EOS) + _footer()


def _records(
    ram: BinaryIO, addresses: range | list[int], draw: random.Random | None = None
) -> Iterator[tuple[int, bytes]]:
    """(address, page). With `draw` each page has had some of its words written."""
    for address in addresses:
        ram.seek(address)
        page = ram.read(PAGE)
        if draw is not None:
            words = bytearray(page)
            for _ in range(draw.randint(*WRITES)):
                at = draw.randrange(PAGE // 8) * 8
                words[at : at + 8] = draw.randbytes(draw.choice((1, 4, 8))).ljust(8, b"\0")
            page = bytes(words)
        yield address, page
