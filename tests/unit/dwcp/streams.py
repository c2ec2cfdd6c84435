"""Makes streams as QEMU and an NBD client write them, and knows what is in them."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

PAGE = 4096
ZERO = bytes(PAGE)
RAM_ID = 2


@dataclass
class Made:
    raw: bytearray = field(default_factory=bytearray)
    pages: int = 0
    zeros: int = 0


def footer(section: int) -> bytes:
    return b"\x7e" + struct.pack("!I", section)


def named(name: str) -> bytes:
    return bytes([len(name)]) + name.encode()


class RamStream:
    """Writes a migration stream part by part. Page numbers are per block."""

    def __init__(self, blocks: dict[str, int], *, machine: str = "pc-q35-7.2", footers: bool = True) -> None:
        self.blocks = blocks
        self.made = Made()
        self._footers = footers
        self._block = ""
        self.put(b"QEVM" + struct.pack("!I", 3) + b"\x07" + struct.pack("!I", len(machine)) + machine.encode())

    @property
    def raw(self) -> bytes:
        return bytes(self.made.raw)

    def put(self, data: bytes) -> None:
        self.made.raw += data

    def start(self, page_sizes: dict[str, int] | None = None) -> None:
        self.put(b"\x01" + struct.pack("!I", RAM_ID) + named("ram") + struct.pack("!II", 0, 4))
        self.word(sum(self.blocks.values()) * PAGE | 0x04)
        for name, pages in self.blocks.items():
            self.put(named(name) + struct.pack("!Q", pages * PAGE))
            if page_sizes and name in page_sizes:
                self.put(struct.pack("!Q", page_sizes[name]))
        self.end_part()

    def word(self, word: int) -> None:
        self.put(struct.pack("!Q", word))

    def begin_part(self, *, last: bool = False) -> None:
        self.put((b"\x03" if last else b"\x02") + struct.pack("!I", RAM_ID))

    def end_part(self) -> None:
        self.word(0x10)
        if self._footers:
            self.put(footer(RAM_ID))

    def _address(self, block: str, page: int, flag: int, *, always_named: bool = False) -> None:
        if block == self._block and not always_named:
            self.word(page * PAGE | flag | 0x20)
        else:
            self.word(page * PAGE | flag)
            self.put(named(block))
            self._block = block

    def page(self, block: str, page: int, content: bytes, *, always_named: bool = False) -> None:
        self._address(block, page, 0x08, always_named=always_named)
        self.put(content)
        self.made.pages += 1

    def zero(self, block: str, page: int) -> None:
        self._address(block, page, 0x02)
        self.put(b"\0")
        self.made.zeros += 1

    def xbzrle(self, block: str, page: int, delta: bytes) -> None:
        self._address(block, page, 0x40)
        self.put(b"\x01" + struct.pack("!H", len(delta)) + delta)

    def part(self, pages: list[tuple[str, int, bytes]], *, last: bool = False) -> None:
        """(block, page number, content); QEMU writes nine bytes for a page of zeros."""
        self.begin_part(last=last)
        for block, page, content in pages:
            if content == ZERO:
                self.zero(block, page)
            else:
                self.page(block, page, content)
        self.end_part()

    def device(self, section: int, name: str, state: bytes) -> None:
        self.put(
            b"\x04" + struct.pack("!I", section) + named(name) + struct.pack("!II", 0, 1) + state + footer(section)
        )

    def end(self, description: bytes = b'{"page_size": 4096}') -> None:
        self.put(b"\x00\x06" + struct.pack("!I", len(description)) + description)

    def command(self, number: int, data: bytes = b"") -> None:
        self.put(b"\x08" + struct.pack("!HH", number, len(data)) + data)

    def package(self, blob: bytes) -> None:
        self.command(7, struct.pack("!I", len(blob)))
        self.put(blob)


class Guest:
    """A guest's memory that changes as guests do: some pages new, some a little different, some moved or cleared."""

    def __init__(self, seed: int, blocks: dict[str, int], *, kinds: int = 12) -> None:
        self.random = random.Random(seed)
        self.blocks = blocks
        self.common = [self.random.randbytes(PAGE) for _ in range(kinds)]
        self.pages = {(name, page): self._any() for name, count in blocks.items() for page in range(count)}

    def _any(self) -> bytes:
        dice = self.random.random()
        if dice < 0.3:
            return ZERO
        if dice < 0.5:
            return self.random.choice(self.common)
        return self.random.randbytes(PAGE)

    def touch(self, share: float, changes: int = 4, size: int = 64) -> list[tuple[str, int]]:
        """Changes that share of the pages; where."""
        places = [place for place in self.pages if self.random.random() < share]
        for place in places:
            dice = self.random.random()
            if dice < 0.15:
                self.pages[place] = self._any()
            elif dice < 0.9:
                page = bytearray(self.pages[place])
                for _ in range(changes):
                    at = self.random.randrange(PAGE - size)
                    page[at : at + size] = self.random.randbytes(size)
                self.pages[place] = bytes(page)
        return places

    def all(self) -> list[tuple[str, int, bytes]]:
        return [(name, page, content) for (name, page), content in self.pages.items()]

    def at(self, places: list[tuple[str, int]]) -> list[tuple[str, int, bytes]]:
        return [(name, page, self.pages[name, page]) for name, page in places]


def whole_move(seed: int, blocks: dict[str, int] | None = None, rounds: int = 3, share: float = 0.2) -> RamStream:
    """Pre-copy from the first byte to the last."""
    guest = Guest(seed, blocks or {"pc.ram": 300, "/rom@etc/acpi/tables": 8, "pc.bios": 16})
    stream = RamStream(guest.blocks)
    stream.start()
    stream.part(guest.all())
    for number in range(rounds):
        stream.part(guest.at(guest.touch(share)), last=number == rounds - 1)
    stream.device(0, "timer", guest.random.randbytes(40))
    stream.device(7, "cpu", guest.random.randbytes(3000))
    stream.end()
    return stream


def nbd_copy(seed: int, size: int = 1 << 20) -> tuple[bytes, int]:
    """A client's side of an NBD block copy, and the number of whole aligned blocks that it writes."""
    chance, blocks = random.Random(seed), 0
    raw = bytearray(struct.pack("!I", 3))
    for option, data in ((8, b""), (7, struct.pack("!I", 4) + b"disk" + struct.pack("!H", 0))):
        raw += struct.pack("!QII", 0x49484156454F5054, option, len(data)) + data
    for cookie in range(60):
        kind = chance.choice([1, 1, 1, 3, 6])
        offset, length = chance.randrange(size), chance.choice([512, 4096, 8192, 65536, 5000])
        if chance.random() < 0.7:
            offset, length = offset // PAGE * PAGE, max(PAGE, length // PAGE * PAGE)
        raw += struct.pack("!IHHQQI", 0x25609513, 0, kind, cookie, offset, length)
        if kind == 1:
            pattern = chance.choice([ZERO, chance.randbytes(PAGE)])
            raw += (pattern * (length // PAGE + 2))[offset % PAGE :][:length]
            first, last = -(-offset // PAGE), (offset + length) // PAGE
            blocks += max(0, last - first)
    raw += struct.pack("!IHHQQI", 0x25609513, 0, 2, 99, 0, 0)
    return bytes(raw), blocks
