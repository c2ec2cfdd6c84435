"""The page stage in pure Python: where the C extension is not built, and the oracle of its tests.

Invariants, here and in `_pages.c`: both ends change their memory only as the tokens say, in the order of the batches,
so a new page needs no slot number on the way; what a decoder returns is what the encoder was given, or ValueError; no
count or offset of a token is believed.
"""

from __future__ import annotations

from array import array
from struct import Struct
from typing import Final

import xxhash
from blake3 import blake3

from dwcp.encoding import tokens as t
from dwcp.encoding.slab_py import Base, Have, Memory, address, page_keys
from dwcp.encoding.stream import HEAD_BYTES, Due, NbdParser, Parser, RamParser
from dwcp.encoding.tokens import NONE, PAGE, Counts, Op
from dwcp.encoding.walk import Cursor, Malformed, Run, Walker, apply_delta, encode_delta, put_delta, put_varint, zigzag
from dwcp.transport.frames import Buffer

__all__ = ["Base", "Decoder", "Encoder", "Have", "Memory", "page_keys"]

_ZERO_PAGE: Final = bytes(PAGE)
_WORD: Final = Struct("!Q")
_PAGE_WORD: Final = 0x28
_ZERO_WORD: Final = 0x22
_WITH_OPERANDS: Final = (Op.DELTA, Op.COPY, Op.KNOWN, Op.BASE, Op.BASE_DELTA)


class Tally:
    """Counts by what tokens say, so that both ends count alike."""

    def __init__(self) -> None:
        self._by_op = [0] * 16
        self.literal_bytes = 0

    def add(self, op: int, count: int) -> None:
        if op == Op.LITERAL:
            self.literal_bytes += count
        else:
            self._by_op[op] += count

    def counts(self, lost: bool) -> Counts:
        sums = dict.fromkeys(t.COUNT_OF.values(), 0)
        for op, name in t.COUNT_OF.items():
            sums[name] += self._by_op[op]
        return Counts(records=sum(sums.values()), literal_bytes=self.literal_bytes, lost_sync=int(lost), **sums)


class Encoder:
    def __init__(self, memory: Memory, grammar: t.Grammar) -> None:
        memory.begin()
        self._memory = memory
        self._parser: Parser = RamParser() if grammar == "ram" else NbdParser()
        self._cursor = Cursor(blocks=memory.blocks)
        self._ids: dict[bytes, int] = {}
        self._tally = Tally()
        self._carry = b""
        """Bytes of a head that went out before its end had come."""
        self._seen: dict[int, int] = {}
        """XXH3 of a page -> a slot that had it once."""
        self._base: Base | None = None
        self._base_block = NONE
        self._have: Have | None = None

    @property
    def counts(self) -> Counts:
        return self._tally.counts(self._cursor.lost)

    @property
    def phase(self) -> t.Phase:
        return self._parser.phase

    def encode(
        self, raw: Buffer, out: Buffer, flush: bool, base: Base | None, have: Have | None
    ) -> tuple[int, int, bytes, bytes]:
        """(bytes consumed, bytes of tokens, u32 offsets of pages to be supplied, u32 slots of the base for them)."""
        source, target = memoryview(raw), memoryview(out)
        if len(target) < t.bound(len(source)):
            raise ValueError(f"{len(source)} bytes need room for {t.bound(len(source))} of tokens, not {len(target)}")
        if base is not self._base:
            self._base, self._cursor.root = base, b""
            self._find_base_block()
        self._have = have
        self._raw, self._out = source, target
        self._at = self._literal_from = 0
        self._control, self._operands = bytearray(), bytearray()
        self._data = t.HEADER.size
        self._refs, self._bases = array("I"), array("I")
        self._run: Run | None = None
        self._parse(flush)
        if not self._at:
            return 0, 0, b"", b""
        return self._at, self._finish(), self._refs.tobytes(), self._bases.tobytes()

    def _finish(self) -> int:
        self._end_literal()
        self._end_run()
        if self._parser.lost != self._cursor.lost:
            self._cursor.lost = self._parser.lost
            self._control += bytes((Op.SYNC, self._cursor.lost))
        if not self._cursor.started:
            self._cursor.started = True
            start = bytearray((Op.START, t.VERSION))
            put_varint(start, self._memory.slots)
            self._control[:0] = start
        t.HEADER.pack_into(self._out, 0, t.MAGIC, len(self._control), len(self._operands))
        for part in (self._control, self._operands):
            self._out[self._data : self._data + len(part)] = part
            self._data += len(part)
        return self._data

    def _parse(self, flush: bool) -> None:
        end = len(self._raw)
        while self._at < end:
            if self._carry:
                more = self._parse_carried(flush)
            elif self._parser.due is Due.PAGE and not self._parser.skip:
                more = self._due_page(flush)
            elif self._parser.due is Due.FILL:
                if self._raw[self._at] == 0:
                    self._zero(Op.ZERO_RECORD, t.BARE, self._parser.page, 1)
                else:
                    self._at += 1
                self._parser.done()
                more = True
            elif self._parser.in_records and self._records():
                more = True
            else:
                taken = self._parser.step(self._raw, self._at)
                self._at += taken
                more = taken > 0
            if not more:
                if not flush:
                    return
                if self._at < end:
                    self._carry += bytes(self._raw[self._at :])
                    self._at = end

    def _parse_carried(self, flush: bool) -> bool:
        """Goes on with a head whose first bytes have been sent; what is left of it goes as a literal too."""
        sent = len(self._carry)
        joined = memoryview(self._carry + bytes(self._raw[self._at : self._at + HEAD_BYTES]))
        place = 0
        while place < sent:
            taken = self._parser.step(joined, place)
            if not taken:
                self._carry = self._carry[place:]
                return False
            place += taken
        self._carry = b""
        self._at += place - sent
        return True

    def _due_page(self, flush: bool) -> bool:
        left = len(self._raw) - self._at
        if left >= PAGE:
            self._page(t.BARE, self._parser.page, self._at, PAGE)
            self._parser.done()
        elif not flush:
            return False
        else:
            self._open(Op.SPLIT, t.BARE, self._parser.page)
            self._memory.drop(self._address(self._parser.page))
            self._at += left
            self._parser.done()
            self._parser.skip = PAGE - left
        return True

    def _records(self) -> bool:
        """Takes records that continue in the same block; whether there was any."""
        raw, end, first = self._raw, len(self._raw), self._at
        pages = self._parser.pages_in_block
        while self._at + 9 <= end:
            word = _WORD.unpack_from(raw, self._at)[0]
            flags, page = word & (PAGE - 1), word // PAGE
            if page >= pages:
                break
            if flags == _PAGE_WORD:
                if self._at + 8 + PAGE > end:
                    break
                self._page(0, page, self._at + 8, 8 + PAGE)
            elif flags == _ZERO_WORD and raw[self._at + 8] == 0:
                self._zero(Op.ZERO_RECORD, 0, page, 9)
            else:
                break
        return self._at > first

    def _address(self, page: int) -> int:
        return address(self._cursor.block, page)

    def _open(self, op: Op, form: int, page: int) -> None:
        """Says what the page is: one more of the run, or the first of the next."""
        self._end_literal()
        run = self._run
        if run and run.op == op and run.bare == bool(form) and self._same_block() and run.page + run.count == page:
            run.count += 1
            return
        self._end_run()
        if not self._same_block():
            self._enter_block()
        self._run = Run(op, bool(form), page, 1)

    def _same_block(self) -> bool:
        blocks = self._cursor.blocks
        return self._cursor.block < len(blocks) and blocks[self._cursor.block] == self._parser.block

    def _enter_block(self) -> None:
        name, cursor = self._parser.block, self._cursor
        self._control.append(Op.BLOCK)
        if name not in self._ids:
            self._ids[name] = len(cursor.blocks)
            cursor.blocks.append(name)
            put_varint(self._control, self._ids[name])
            put_varint(self._control, len(name))
            self._control += name
        else:
            put_varint(self._control, self._ids[name])
        cursor.block = self._ids[name]
        self._find_base_block()

    def _find_base_block(self) -> None:
        blocks = self._cursor.blocks
        named = self._base is not None and self._cursor.block < len(blocks)
        self._base_block = self._base.block(blocks[self._cursor.block]) if self._base and named else NONE

    def _end_run(self) -> None:
        run, cursor = self._run, self._cursor
        if run is None:
            return
        self._tally.add(run.op, run.count)
        self._control.append(
            run.op
            | (t.BARE if run.bare else 0)
            | (t.JUMP if run.page != cursor.next else 0)
            | (t.RUN if run.count > 1 else 0)
        )
        if run.page != cursor.next:
            put_varint(self._control, zigzag(run.page - cursor.next))
        if run.count > 1:
            put_varint(self._control, run.count - 2)
        cursor.next = run.page + run.count
        self._run = None

    def _end_literal(self) -> None:
        size = self._at - self._literal_from
        if not size:
            return
        self._end_run()
        self._control.append(Op.LITERAL)
        put_varint(self._control, size)
        self._put(self._raw[self._literal_from : self._at])
        self._tally.add(Op.LITERAL, size)
        self._literal_from = self._at

    def _put(self, data: Buffer) -> None:
        self._out[self._data : self._data + len(data)] = data
        self._data += len(data)

    def _zero(self, op: Op, form: int, page: int, size: int) -> None:
        self._open(op, form, page)
        self._memory.drop(self._address(page))
        self._at += size
        self._literal_from = self._at

    def _page(self, form: int, page: int, start: int, size: int) -> None:
        """The page at `start`, in a record of `size` bytes."""
        content = bytes(self._raw[start : start + PAGE])
        if content == _ZERO_PAGE:
            self._zero(Op.ZERO, form, page, size)
            return
        self._end_literal()
        if not self._same_block():
            self._end_run()
            self._enter_block()
        self._climb(form, page, start, content)
        self._at += size
        self._literal_from = self._at

    def _climb(self, form: int, page: int, start: int, content: bytes) -> None:
        """The ladder, cheapest first."""
        memory, key = self._memory, self._address(page)
        old = memory.slot(key)
        if old != NONE:
            before = memory.page(old)
            if before == content:
                self._open(Op.SAME, form, page)
                return
            delta = encode_delta(before, content)
            if delta is not None:
                self._open(Op.DELTA, form, page)
                self._put_delta(delta, content)
                memory.store(key, content)
                return
        if self._try_base(form, page, start, content):
            return
        digest = xxhash.xxh3_64_intdigest(content)
        slot = self._seen.get(digest, NONE)
        if memory.live(slot) and memory.page(slot) == content:
            self._open(Op.COPY, form, page)
            put_varint(self._operands, zigzag(slot - self._cursor.copied))
            self._cursor.copied = slot + 1
            memory.share(key, slot)
            return
        index = self._have.index(blake3(content).digest(t.KEY_BYTES)) if self._have else NONE
        if index != NONE:
            self._open(Op.KNOWN, form, page)
            put_varint(self._operands, zigzag(index - self._cursor.known))
            self._cursor.known = index + 1
            self._refer(start, NONE)
        else:
            self._open(Op.FRESH, form, page)
            self._put(content)
        self._remember(memory.store(key, content), digest)

    def _try_base(self, form: int, page: int, start: int, content: bytes) -> bool:
        base = self._base
        slot = base.slot(self._base_block, page) if base else NONE
        if base is None or slot == NONE:
            return False
        before = base.page(slot)
        delta = None if before == content else encode_delta(before, content)
        if (before != content and delta is None) or not base.sound(slot):
            return False
        if not self._cursor.root:
            self._end_run()
            self._cursor.root = base.root
            self._control.append(Op.ROOT)
            self._control += base.root
        self._open(Op.BASE if delta is None else Op.BASE_DELTA, form, page)
        if delta is not None:
            self._put_delta(delta, content)
        self._refer(start, slot)
        stored = self._memory.store(self._address(page), content)
        if delta is None:
            self._remember(stored, xxhash.xxh3_64_intdigest(content))
        return True

    def _put_delta(self, delta: list[tuple[int, int]], content: bytes) -> None:
        put_delta(delta, self._operands)
        for first, past in delta:
            self._put(content[first * 8 : past * 8])

    def _refer(self, start: int, slot: int) -> None:
        self._refs.append(start)
        self._bases.append(slot)

    def _remember(self, slot: int, digest: int) -> None:
        if slot == NONE:
            return
        if len(self._seen) >= 2 * self._memory.slots:
            self._seen.clear()
        self._seen[digest] = slot


class Decoder:
    def __init__(self, memory: Memory) -> None:
        memory.begin()
        self._memory = memory
        self._cursor = Cursor(blocks=memory.blocks)
        self._tally = Tally()

    @property
    def counts(self) -> Counts:
        return self._tally.counts(self._cursor.lost)

    def refs(self, tokens: Buffer, base: Base | None) -> tuple[bytes, bytes]:
        """Indices of the have-list and slots of the base, u32 each; where one has a number the other has NONE."""
        have, bases = array("I"), array("I")
        walker = Walker(tokens, self._cursor.copy(), self._memory.slots)
        for run in walker.runs():
            if run.op == Op.FRESH:
                walker.data(run.count * PAGE)
            for page in range(run.page, run.page + run.count) if run.op in _WITH_OPERANDS else ():
                if run.op == Op.KNOWN:
                    have.append(walker.known())
                    bases.append(NONE)
                elif run.op == Op.COPY:
                    walker.copied()
                elif run.op in (Op.BASE, Op.BASE_DELTA):
                    have.append(NONE)
                    bases.append(self._base_slot(walker.cursor, base, page))
                if run.op in (Op.DELTA, Op.BASE_DELTA):
                    walker.data(8 * sum(past - first for first, past in walker.delta()))
            if run.op == Op.LITERAL:
                walker.data(run.count)
        return have.tobytes(), bases.tobytes()

    def decode(self, tokens: Buffer, supply: Buffer, out: Buffer, base: Base | None) -> int:
        """Bytes written to `out`. After a ValueError the memory is of no more use."""
        self._out, self._written = memoryview(out), 0
        self._supply, self._supplied = memoryview(supply), 0
        walker = Walker(tokens, self._cursor, self._memory.slots)
        for run in walker.runs():
            if not self._cursor.started:
                raise Malformed("tokens that do not begin with a start")
            if run.op == Op.LITERAL:
                self._write(walker.data(run.count))
            else:
                for page in range(run.page, run.page + run.count):
                    self._record(walker, run, page, base)
            self._tally.add(run.op, run.count)
        if self._supplied != len(self._supply):
            raise Malformed("more pages were supplied than the tokens ask for")
        return self._written

    def _record(self, walker: Walker, run: Run, page: int, base: Base | None) -> None:
        op, memory = run.op, self._memory
        key = address(walker.cursor.block, page)
        if op == Op.SPLIT:
            memory.drop(key)
            return
        if not run.bare:
            self._write(_WORD.pack(page * PAGE | (_ZERO_WORD if op == Op.ZERO_RECORD else _PAGE_WORD)))
        if op in (Op.ZERO_RECORD, Op.ZERO):
            self._write(b"\0" if op == Op.ZERO_RECORD else _ZERO_PAGE)
            memory.drop(key)
            return
        if op in (Op.SAME, Op.DELTA):
            slot = memory.slot(key)
            if slot == NONE:
                raise Malformed("a page like one that was never sent")
            content: Buffer = memory.page(slot)
        elif op == Op.COPY:
            slot = walker.copied()
            if not memory.live(slot):
                raise Malformed("a copy of an empty slot")
            content = memory.page(slot)
            memory.share(key, slot)
        elif op == Op.FRESH:
            content = walker.data(PAGE)
        else:
            if op == Op.KNOWN:
                walker.known()
            else:
                self._base_slot(walker.cursor, base, page)
            content = self._next_supplied()
        if op in (Op.DELTA, Op.BASE_DELTA):
            content = bytearray(content)
            apply_delta(content, walker.delta(), walker)
        self._write(content)
        if op not in (Op.SAME, Op.COPY):
            memory.store(key, content)

    def _write(self, data: Buffer) -> None:
        if len(data) > len(self._out) - self._written:
            raise Malformed(f"tokens of more than {len(self._out)} raw bytes")
        self._out[self._written : self._written + len(data)] = data
        self._written += len(data)

    def _next_supplied(self) -> memoryview:
        if len(self._supply) - self._supplied < PAGE:
            raise Malformed("fewer pages were supplied than the tokens ask for")
        self._supplied += PAGE
        return self._supply[self._supplied - PAGE : self._supplied]

    @staticmethod
    def _base_slot(cursor: Cursor, base: Base | None, page: int) -> int:
        if base is None or cursor.root != base.root:
            raise Malformed(f"the encoder has base {cursor.root.hex() or 'none'}, which we have not")
        slot = base.slot(base.block(cursor.blocks[cursor.block]), page)
        if slot == NONE:
            raise Malformed("a page of the base that it does not have")
        return slot
