"""Where the pages are in a stream: QEMU's migration stream ("ram") and an NBD block copy ("nbd"). Only a hint.

A parser walks the structure field by field and never searches for pages. `step` looks at the bytes at hand and says how
many of them are structure, to be passed on as they are; when a page or the byte of a zero record is due it sets `due`
and leaves those bytes to its caller. What does not fit ends in `doubt`: the parser then passes everything on, and goes
back to work only at a place that cannot be mistaken (a section's footer followed by a section of RAM with a valid
record). A wrong guess would cost ratio, never a byte.

The layout of the stream is QEMU's migration/savevm.c and migration/ram.c; sizes are checked against QEMU 7.2.
"""

from __future__ import annotations

import struct
from enum import Enum, auto
from typing import Final

from dwcp.encoding.tokens import MAX_BLOCKS, MAX_PAGE_NUMBER, PAGE, Phase

NEED_MORE: Final = 0
HEAD_BYTES: Final = 1024
"""More than any one head that a parser has to see as a whole."""

Block = tuple[bytes, int]
"""Name, and bytes (0: not known)."""


class Due(Enum):
    NOTHING = auto()
    PAGE = auto()
    FILL = auto()
    """The one byte of a zero record."""


class Parser:
    """Common to both grammars. `block` and `page` are the address of what is due."""

    def __init__(self) -> None:
        self.due = Due.NOTHING
        self.skip = 0
        """Bytes still to come that are known to be no page."""
        self.block = b""
        self.page = 0
        self.lost = False
        self.phase: Phase = "precopy"
        self.pages_in_block = 0

    @property
    def in_records(self) -> bool:
        """Records that continue in the same block are expected here: the caller may read such ones itself."""
        return False

    def step(self, buf: memoryview, at: int) -> int:
        """Bytes of structure at `at`; 0: more bytes are needed to say. Not to be called while something is due."""
        raise NotImplementedError

    def done(self) -> None:
        """What was due has been taken."""
        self.due = Due.NOTHING


class _At(Enum):
    MAGIC = auto()
    SECTION = auto()
    RECORD = auto()
    BLOCK_LIST = auto()
    BLOCK_EXTRA = auto()
    FOOTER = auto()
    DEVICE = auto()
    """In a section whose length is not said: until the next certain place."""
    DOUBT = auto()
    REST = auto()


_SECTION_WITH_NAME: Final = (1, 4)
_PAGE_FLAG, _ZERO_FLAG, _LIST_FLAG, _EOS_FLAG, _CONTINUE, _XBZRLE_FLAG = 0x08, 0x02, 0x04, 0x10, 0x20, 0x40
_HEADER_ONLY: Final = (0x80, 0x200)
"""A hook, and multifd's flush: eight bytes and no more."""
_PACKAGED: Final = 7
_LAST_COMMAND: Final = 15
_POSTCOPY_COMMANDS: Final = (4, 5, 7)
_RAM_START: Final = b"\x03ram" + struct.pack("!II", 0, 4)


def _printable(name: bytes) -> bool:
    return len(name) > 0 and all(33 <= byte <= 126 for byte in name)


def _u32(buf: memoryview, at: int) -> int:
    return int.from_bytes(buf[at : at + 4], "big")


def _u64(buf: memoryview, at: int) -> int:
    return int.from_bytes(buf[at : at + 8], "big")


class RamParser(Parser):
    """QEMU's stream, version 3."""

    def __init__(self) -> None:
        super().__init__()
        self._at = _At.MAGIC
        self._section = 0
        self._ram: int | None = None
        self._blocks: dict[bytes, int] = {}
        self._unlisted = 0
        """Bytes of RAM whose blocks have not been listed yet."""

    def step(self, buf: memoryview, at: int) -> int:
        if self.skip:
            take = min(self.skip, len(buf) - at)
            self.skip -= take
            return take
        where = self._at
        if where is _At.RECORD:
            taken = self._record(buf, at)
        elif where is _At.SECTION:
            taken = self._section_head(buf, at)
        elif where is _At.FOOTER:
            taken = self._footer(buf, at)
        elif where in (_At.DEVICE, _At.DOUBT):
            return self._search(buf, at)
        elif where is _At.REST:
            return len(buf) - at
        elif where is _At.BLOCK_LIST:
            taken = self._listed_block(buf, at)
        elif where is _At.BLOCK_EXTRA:
            return self._block_extra(buf, at)
        else:
            taken = self._magic(buf, at)
        if taken < 0:
            return self._search(buf, at)
        return taken

    @property
    def in_records(self) -> bool:
        return self._at is _At.RECORD and not self.skip and self.due is Due.NOTHING

    def _doubt(self) -> int:
        self.lost = True
        self._at = _At.DOUBT
        return -1

    def _magic(self, buf: memoryview, at: int) -> int:
        if len(buf) - at < 8:
            return NEED_MORE
        if bytes(buf[at : at + 8]) == b"QEVM\x00\x00\x00\x03":
            self._at = _At.SECTION
            return 8
        self.lost = True
        self._at = _At.REST
        return len(buf) - at

    def _section_head(self, buf: memoryview, at: int) -> int:
        left, kind = len(buf) - at, buf[at]
        if kind == 0:
            self._at = _At.REST
            return 1
        if left < 5:
            return NEED_MORE
        if kind in (6, 7):
            self.skip = _u32(buf, at + 1)
            return 5
        if kind == 8:
            return self._command(buf, at)
        number = _u32(buf, at + 1)
        if kind in (2, 3):
            self._section = number
            if number != self._ram:
                self._at = _At.DEVICE
            else:
                if kind == 3 and self.phase == "precopy":
                    self.phase = "final"
                self._at = _At.RECORD
            return 5
        if kind == 5 and self._ram is None:
            self._at = _At.DEVICE
            return 1
        if kind not in _SECTION_WITH_NAME:
            return self._doubt()
        return self._named_section(buf, at, kind, number)

    def _named_section(self, buf: memoryview, at: int, kind: int, number: int) -> int:
        if len(buf) - at < 6:
            return NEED_MORE
        size = 6 + buf[at + 5] + 8
        if len(buf) - at < size:
            return NEED_MORE
        self._section = number
        self._at = _At.DEVICE
        if kind == 1 and buf[at + 5 : at + size] == _RAM_START:
            self._ram = number
            self._at = _At.RECORD
        elif kind == 4 and self.phase != "postcopy":
            self.phase = "device"
        return size

    def _command(self, buf: memoryview, at: int) -> int:
        command, size = int.from_bytes(buf[at + 1 : at + 3], "big"), int.from_bytes(buf[at + 3 : at + 5], "big")
        if not 1 <= command <= _LAST_COMMAND:
            return self._doubt()
        if command in _POSTCOPY_COMMANDS:
            self.phase = "postcopy"
        if command != _PACKAGED:
            self.skip = size
            return 5
        if len(buf) - at < 9:
            return NEED_MORE
        self.skip = _u32(buf, at + 5)
        return 9

    def _record(self, buf: memoryview, at: int) -> int:
        left = len(buf) - at
        if left < 8:
            return NEED_MORE
        word = _u64(buf, at)
        flags, address = word & (PAGE - 1), word & ~(PAGE - 1)
        if flags == _EOS_FLAG:
            if address:
                return self._doubt()
            if self.phase == "final":
                self.phase = "device"
            self._at = _At.FOOTER
            return 8
        if flags == _LIST_FLAG:
            if self._blocks:
                return self._doubt()
            self._unlisted = address
            self._at = _At.BLOCK_LIST if address else _At.RECORD
            return 8
        if flags in _HEADER_ONLY:
            return 8
        kind, size = flags & ~_CONTINUE, 8
        if kind not in (_PAGE_FLAG, _ZERO_FLAG, _XBZRLE_FLAG):
            return self._doubt()
        block, pages = self.block, self.pages_in_block
        if not flags & _CONTINUE:
            if left < 9 or left < 9 + buf[at + 8]:
                return NEED_MORE
            size = 9 + buf[at + 8]
            block = bytes(buf[at + 9 : at + size])
            pages = self._blocks.get(block, 0) // PAGE
        page = address // PAGE
        if page >= pages:
            return self._doubt()
        if kind == _XBZRLE_FLAG:
            if left < size + 3:
                return NEED_MORE
            length = int.from_bytes(buf[at + size + 1 : at + size + 3], "big")
            if buf[at + size] != 1 or length > PAGE:
                return self._doubt()
            size += 3
            self.skip = length
        else:
            self.due = Due.PAGE if kind == _PAGE_FLAG else Due.FILL
        self.block, self.pages_in_block, self.page = block, pages, page
        return size

    def _listed_block(self, buf: memoryview, at: int) -> int:
        left = len(buf) - at
        size = 9 + buf[at]
        if left < size:
            return NEED_MORE
        name, length = bytes(buf[at + 1 : at + size - 8]), _u64(buf, at + size - 8)
        fits = _printable(name) and name not in self._blocks and length <= self._unlisted and length % PAGE == 0
        if not fits or len(self._blocks) == MAX_BLOCKS or length // PAGE > MAX_PAGE_NUMBER:
            return self._doubt()
        self._blocks[name] = length
        self._unlisted -= length
        self._at = _At.BLOCK_EXTRA
        return size

    def _block_extra(self, buf: memoryview, at: int) -> int:
        """Post-copy names the page size of a block of huge pages: a power of two where a name or record would start."""
        if len(buf) - at < 8:
            return NEED_MORE
        word = _u64(buf, at)
        self._at = _At.BLOCK_LIST if self._unlisted else _At.RECORD
        if PAGE < word < 1 << 48 and word & (word - 1) == 0:
            return 8
        return self.step(buf, at)

    def _footer(self, buf: memoryview, at: int) -> int:
        if buf[at] != 0x7E:  # older machine types have none
            self._at = _At.SECTION
            return self.step(buf, at)
        if len(buf) - at < 5:
            return NEED_MORE
        if _u32(buf, at + 1) != self._section:
            return self._doubt()
        self._at = _At.SECTION
        return 5

    def _search(self, buf: memoryview, at: int) -> int:
        """Bytes up to the next certain place, or to the first that cannot be decided yet."""
        if self._ram is None and self._at is _At.DOUBT:
            self._at = _At.REST  # without a block list no page has an address
            return len(buf) - at
        rest = bytes(buf[at:])
        wanted = b"\x7e" if self._ram is not None else b"\x01"
        place = rest.find(wanted)
        while place >= 0:
            verdict = self._certain(rest, place)
            if verdict is None:
                return place
            if verdict:
                self.lost = False
                self._at = _At.SECTION
                if self._ram is None:
                    return place or self.step(buf, at)
                return place + 5
            place = rest.find(wanted, place + 1)
        return len(rest)

    def _certain(self, rest: bytes, place: int) -> bool | None:
        """Whether RAM goes on here. None: more bytes are needed to say."""
        if self._ram is None:
            want = rest[place + 5 : place + 17]
            if want != _RAM_START[: len(want)]:
                return False
            return True if len(want) == len(_RAM_START) else None
        part = rest[place + 5 : place + 10]
        if not any((kind + struct.pack("!I", self._ram)).startswith(part) for kind in (b"\x02", b"\x03")):
            return False
        if len(rest) - place < 18:
            return None
        word: int = struct.unpack_from("!Q", rest, place + 10)[0]
        flags, page = word & (PAGE - 1), word // PAGE
        if flags in (_PAGE_FLAG, _ZERO_FLAG):
            if len(rest) - place < 19 or len(rest) - place < 19 + rest[place + 18]:
                return None
            name = rest[place + 19 : place + 19 + rest[place + 18]]
            return page < self._blocks.get(name, 0) // PAGE
        if flags in (_PAGE_FLAG | _CONTINUE, _ZERO_FLAG | _CONTINUE):
            return page < self.pages_in_block
        return word == _EOS_FLAG


_OPTION: Final = 0x49484156454F5054
_REQUEST, _LONG_REQUEST = 0x25609513, 0x21E41C71
_EXPORT_NAME, _GO, _WRITE, _PAYLOAD_FLAG = 1, 7, 1, 0x20


class NbdParser(Parser):
    """What an NBD client sends: newstyle options, then requests; the payload of WRITE is made of pages of one disk."""

    def __init__(self) -> None:
        super().__init__()
        self.block = b"disk"
        self._at = "flags"
        self._offset = 0
        self._payload = 0
        """Bytes of the payload from `_offset` on."""

    def step(self, buf: memoryview, at: int) -> int:
        left = len(buf) - at
        if self._payload and not self.skip:
            self.skip = self._edge()
        if self.skip:
            take = min(self.skip, left)
            self.skip -= take
            if not self.skip:
                self._look()
            return take
        if self._at == "rest":
            return left
        if self._at == "flags":
            if left < 4:
                return NEED_MORE
            self._at = "options"
            return 4
        return self._head(buf, at)

    def done(self) -> None:
        self.due = Due.NOTHING
        self._offset += PAGE
        self._payload -= PAGE
        self._look()

    def _look(self) -> None:
        """A whole block of the disk at a multiple of its size is a page."""
        number, edge = divmod(self._offset, PAGE)
        if self._payload >= PAGE and not edge and number <= MAX_PAGE_NUMBER:
            self.due, self.page = Due.PAGE, number

    def _edge(self) -> int:
        """Bytes of the payload that are no whole block; what follows them is looked at when they are gone."""
        edge = self._payload
        if self._offset // PAGE <= MAX_PAGE_NUMBER:
            edge = min(edge, -self._offset % PAGE or edge)
        self._offset += edge
        self._payload -= edge
        return edge

    def _head(self, buf: memoryview, at: int) -> int:
        left = len(buf) - at
        if left < 16:
            return NEED_MORE
        if self._at != "requests" and _u64(buf, at) == _OPTION:
            if _u32(buf, at + 8) in (_EXPORT_NAME, _GO):
                self._at = "started"
            self.skip = _u32(buf, at + 12)
            return 16
        magic = _u32(buf, at)
        size = {_REQUEST: 28, _LONG_REQUEST: 32}.get(magic, 0)
        if self._at == "options" or not size:
            self.lost = True
            self._at = "rest"
            return left
        if left < size:
            return NEED_MORE
        self._at = "requests"
        flags, kind = struct.unpack_from("!HH", buf, at + 4)
        length = _u32(buf, at + 24) if size == 28 else _u64(buf, at + 24)
        if kind == _WRITE or (size == 32 and flags & _PAYLOAD_FLAG):
            self._offset, self._payload = _u64(buf, at + 16), length
            if kind != _WRITE:
                self.skip, self._payload = length, 0
            self._look()
        return size
