"""Reading a batch of tokens: control bytes and operands become runs of pages. Nothing in them is believed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from dwcp.encoding import tokens as t
from dwcp.encoding.tokens import PAGE, Op
from dwcp.transport.frames import Buffer

_WORDS: Final = struct.Struct("<512Q")


@dataclass(slots=True)
class Cursor:
    """Where a flow's tokens stand between two batches; the same at both ends."""

    blocks: list[bytes] = field(default_factory=list)
    block: int = 0
    next: int = 0
    """Page number that needs no jump."""
    copied: int = 0
    known: int = 0
    """Slot and index that come next when a run goes on."""
    root: bytes = b""
    started: bool = False
    lost: bool = False

    def copy(self) -> Cursor:
        return replace(self, blocks=list(self.blocks))


class Malformed(ValueError):
    """The tokens say what they must not."""


@dataclass(slots=True)
class Run:
    """`count` pages from `page` on, or a literal of `count` bytes."""

    op: int
    bare: bool
    page: int
    count: int


def put_varint(into: bytearray, value: int) -> None:
    while value > 127:
        into.append(value & 127 | 128)
        value >>= 7
    into.append(value)


def zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def unzigzag(value: int) -> int:
    return -(value + 1 >> 1) if value & 1 else value >> 1


class Walker:
    """The three parts of one batch of tokens, read from their beginnings. Moves `cursor`."""

    def __init__(self, tokens: Buffer, cursor: Cursor, slots: int) -> None:
        self.cursor = cursor
        self._slots = slots
        self._raw = memoryview(tokens)
        if len(self._raw) < t.HEADER.size:
            raise Malformed("tokens are shorter than their header")
        magic, control, operands = t.HEADER.unpack_from(self._raw)
        if magic != t.MAGIC:
            raise Malformed(f"tokens begin with {magic.hex()}, not {t.MAGIC.hex()}")
        self._operands_end = len(self._raw)
        self._operand = self._operands_end - operands
        self._control_end = self._operand
        self._control = self._control_end - control
        self._data_end = self._control
        self._data = t.HEADER.size
        if self._data_end < self._data:
            raise Malformed("the parts are longer than the tokens")

    def data(self, size: int) -> memoryview:
        if size > self._data_end - self._data:
            raise Malformed("the data ends too early")
        self._data += size
        return self._raw[self._data - size : self._data]

    def operand(self) -> int:
        value, self._operand = self._varint(self._operand, self._operands_end)
        return value

    def copied(self) -> int:
        slot = self.cursor.copied + unzigzag(self.operand())
        if not 0 <= slot < self._slots:
            raise Malformed("a copy of a slot that does not exist")
        self.cursor.copied = slot + 1
        return slot

    def known(self) -> int:
        index = self.cursor.known + unzigzag(self.operand())
        if not 0 <= index < t.NONE:
            raise Malformed("an index below zero or too large")
        self.cursor.known = index + 1
        return index

    def delta(self) -> list[tuple[int, int]]:
        """Runs of changed words: (first, one past the last)."""
        runs, at = [], 0
        for _ in range(self._small(256)):
            first = at + self._small(511)
            at = first + 1 + self._small(511)
            if at > 512:
                raise Malformed("a delta leaves its page")
            runs.append((first, at))
        if not runs:
            raise Malformed("a delta without a change")
        return runs

    def runs(self) -> Iterator[Run]:
        while self._control < self._control_end:
            byte = self._raw[self._control]
            self._control += 1
            op = byte & 15
            if t.FIRST_PAGE_OP <= op <= t.LAST_PAGE_OP:
                yield self._pages(byte, op)
            elif byte != op:
                raise Malformed(f"control byte {byte:#x} has flags that it cannot have")
            elif op == Op.LITERAL:
                yield Run(op, False, 0, self._number(1))
            else:
                self._state(op)
        if self._data != self._data_end or self._operand != self._operands_end:
            raise Malformed("data or operands are left over")

    def _pages(self, byte: int, op: int) -> Run:
        if byte & 0x80 or (op == Op.SPLIT and byte & t.RUN):
            raise Malformed(f"control byte {byte:#x} has flags that it cannot have")
        cursor = self.cursor
        if cursor.block >= len(cursor.blocks):
            raise Malformed("a page before any block")
        page = cursor.next
        if byte & t.JUMP:
            page += unzigzag(self._number(0))
        count = self._number(0) + 2 if byte & t.RUN else 1
        if page < 0 or page + count - 1 > t.MAX_PAGE_NUMBER:
            raise Malformed("a page number out of range")
        cursor.next = page + count
        return Run(op, bool(byte & t.BARE), page, count)

    def _state(self, op: int) -> None:
        cursor = self.cursor
        if op == Op.BLOCK:
            cursor.block = self._number(0)
            if cursor.block > len(cursor.blocks) or cursor.block == t.MAX_BLOCKS:
                raise Malformed("a block that was not named")
            if cursor.block == len(cursor.blocks):
                cursor.blocks.append(self._bytes(self._number(1)))
                if len(cursor.blocks[-1]) > 255:
                    raise Malformed("a block's name of more than 255 bytes")
        elif op == Op.ROOT:
            cursor.root = self._bytes(t.KEY_BYTES)
        elif op == Op.SYNC:
            cursor.lost = self._number(0) != 0
        elif op == Op.START:
            if self._number(0) != t.VERSION:
                raise Malformed("tokens of another version")
            if self._number(0) != self._slots:
                raise Malformed(f"the encoder has not {self._slots} slots as we have")
            cursor.started = True
        else:
            raise Malformed(f"control byte {op:#x} is not defined")

    def _bytes(self, size: int) -> bytes:
        if size > self._control_end - self._control:
            raise Malformed("the control bytes end too early")
        self._control += size
        return bytes(self._raw[self._control - size : self._control])

    def _number(self, least: int) -> int:
        value, self._control = self._varint(self._control, self._control_end)
        if value < least:
            raise Malformed("a length of zero")
        return value

    def _small(self, most: int) -> int:
        value = self.operand()
        if value > most:
            raise Malformed("a delta leaves its page")
        return value

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 42:
            byte = self._raw[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
        raise Malformed("a number does not end")


def encode_delta(old: Buffer, new: Buffer) -> list[tuple[int, int]] | None:
    """Runs of words in which two pages differ, as in Walker.delta; None where there is too much."""
    before, after = _WORDS.unpack(old), _WORDS.unpack(new)
    runs: list[tuple[int, int]] = []
    cost = 0
    for place in [n for n in range(512) if before[n] != after[n]]:
        if runs and runs[-1][1] == place:
            runs[-1] = (runs[-1][0], place + 1)
            cost += 8
        else:
            runs.append((place, place + 1))
            cost += 12
        if cost > t.DELTA_LIMIT:
            return None
    return runs


def put_delta(runs: list[tuple[int, int]], operands: bytearray) -> None:
    put_varint(operands, len(runs))
    at = 0
    for first, past in runs:
        put_varint(operands, first - at)
        put_varint(operands, past - first - 1)
        at = past


def apply_delta(page: bytearray, runs: list[tuple[int, int]], walker: Walker) -> None:
    for first, past in runs:
        page[first * 8 : past * 8] = walker.data((past - first) * 8)


assert _WORDS.size == PAGE
