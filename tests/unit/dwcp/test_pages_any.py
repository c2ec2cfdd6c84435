"""The page stage under anything: random parts in random order, bytes of any kind, and tokens that were changed."""

from __future__ import annotations

import contextlib
import random
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dwcp.encoding import pages, pages_py
from dwcp.encoding.pages import PAGE, Base, Decoder, Encoder, Memory
from dwcp.errors import ProtocolError

from .page_ends import EACH, ENGINES, PAIRS, Ends, Engines
from .streams import ZERO, Guest, RamStream, footer, nbd_copy, whole_move

both = pytest.mark.parametrize("engines", PAIRS)
each = pytest.mark.parametrize("engine", EACH)
GOLDEN = Path(__file__).parent / "golden"
BLOCKS = {"pc.ram": 40, "pc.bios": 8}
RECORDS, ZEROS = 106, 25
"""In the recorded stream."""
CONTENT = [ZERO, *(random.Random(seed).randbytes(PAGE) for seed in range(6))]


def a_page(kind: int, place: int, size: int) -> bytes:
    """One of few pages, with a change or none: so that every rung of the ladder is met often."""
    page = bytearray(CONTENT[kind % len(CONTENT)])
    at = place % (PAGE - size)
    page[at : at + size] = bytes([1 + place % 255]) * size
    return bytes(page)


class Moves(RuleBasedStateMachine):
    """Any stream in any pieces, with a base of an earlier state, between any two implementations."""

    @initialize(
        engines=st.sampled_from([(near, far) for near in ENGINES for far in ENGINES]),
        slots=st.sampled_from([0, 1, 2, 5, 20, 100]),
        library=st.booleans(),
    )
    def begin(self, engines: Engines, slots: int, library: bool) -> None:
        self.engines, self.slots = engines, slots
        self.library = CONTENT[1:4] if library else None
        self.bases: tuple[Base | None, Base | None] = (None, None)
        self.anew()

    def anew(self) -> None:
        self.ends = Ends(self.engines, self.slots, library=self.library)
        self.ends.encoder.base, self.ends.decoder.base = self.bases
        self.stream = RamStream(BLOCKS)
        self.stream.start()
        self.sent = 0

    @rule(
        pages=st.lists(
            st.tuples(
                st.sampled_from(["pc.ram", "pc.ram", "pc.ram", "pc.bios"]),
                st.integers(0, 7),
                st.integers(0, 6),
                st.integers(0, 5000),
                st.sampled_from([0, 0, 1, 8, 64, 900]),
            ),
            max_size=12,
        )
    )
    def part(self, pages: list[tuple[str, int, int, int, int]]) -> None:
        self.stream.part(
            [(block, page, a_page(kind, place, size)) for block, page, kind, place, size in pages],
        )

    @rule(first=st.integers(0, 30), count=st.integers(1, 9), kind=st.integers(0, 6))
    def run(self, first: int, count: int, kind: int) -> None:
        self.stream.part([("pc.ram", first + n, a_page(kind, n, 8)) for n in range(count)])

    @rule(state=st.binary(max_size=60))
    def device(self, state: bytes) -> None:
        self.stream.put(b"\x02\0\0\0\x63" + state + footer(0x63))

    @rule(odd=st.binary(min_size=8, max_size=30))
    def nonsense(self, odd: bytes) -> None:
        self.stream.begin_part()
        self.stream.put(odd)
        self.stream.end_part()

    @rule(size=st.integers(1, 30_000), flush=st.booleans())
    def send(self, size: int, flush: bool) -> None:
        self.ends.give(self.stream.raw[self.sent : self.sent + size], flush=flush)
        self.sent = min(self.sent + size, len(self.stream.raw))

    @rule()
    def forget_the_base(self) -> None:
        self.ends.encoder.base = None

    @rule()
    def come_back(self) -> None:
        self.ends.give(self.stream.raw[self.sent :], flush=True)
        self.bases = self.ends.visit(*self.engines)
        self.anew()

    @invariant()
    def both_remember_the_same(self) -> None:
        if hasattr(self, "ends"):
            self.ends.agree()
            assert bytes(self.ends.received) == self.stream.raw[: len(self.ends.received)]
            assert self.ends.near.used <= self.slots


TestMoves = Moves.TestCase
TestMoves.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@both
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_come_through(engines: Engines, data: st.DataObject) -> None:
    grammar = data.draw(st.sampled_from(["ram", "nbd"]))
    start = whole_move(1, {"pc.ram": 6}, rounds=1).raw if grammar == "ram" else nbd_copy(1)[0][:60_000]
    cut = data.draw(st.integers(0, len(start)))
    ends = Ends(engines, 10, grammar=grammar)  # type: ignore[arg-type]
    raw = start[:cut] + data.draw(st.binary(max_size=200)) + start[data.draw(st.integers(0, len(start))) :]
    ends.carry(raw, data.draw(st.integers(0, 99)))
    assert bytes(ends.received) == raw
    ends.agree()


def batches(engine: Any) -> tuple[list[bytes], Base]:
    """Tokens of every kind for 64 slots, and their base."""
    guest = Guest(1, {"pc.ram": 24})
    first = Ends((engine, engine), 64)
    stream = RamStream(guest.blocks)
    stream.start()
    stream.part(guest.all())
    first.carry(stream.raw)
    base = first.visit(engine, engine)[0]
    guest.touch(0.7, changes=2)
    ends = Ends((engine, engine), 64, library=[page for page in list(guest.pages.values())[::2] if page != ZERO])
    ends.encoder.base = ends.decoder.base = base
    stream = RamStream(guest.blocks)
    stream.start()
    for _ in range(3):
        stream.part(guest.all())
        ends.give(stream.raw[len(ends.received) :], flush=True)
        guest.touch(0.5)
    return ends.tokens, base


def try_decode(decoder: Decoder, tokens: bytes, room: int) -> None:
    """Decodes what refs asks for, with pages of nothing."""
    out = bytearray(room + 64)
    out[room:] = b"\xa5" * 64
    with contextlib.suppress(ProtocolError):
        refs = decoder.refs(tokens)
        size = decoder.decode(tokens, bytes(PAGE * len(refs.have)), memoryview(out)[:room])
        assert size <= room
    assert out[room:] == b"\xa5" * 64


@each
def test_changed_tokens_decode_to_something_or_are_a_protocol_error(engine: Any) -> None:
    made, base = batches(engine)
    chance = random.Random(7)
    for _ in range(400):
        decoder = Decoder(Memory(64, engine=engine))
        decoder.base = base
        for tokens in made:
            changed = bytearray(tokens)
            control = len(changed) - chance.randrange(1, min(len(changed), 400))
            for _ in range(chance.choice([0, 1, 1, 2, 8])):
                place = chance.choice([control, chance.randrange(len(changed)), chance.randrange(12)])
                changed[place] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
            if chance.random() < 0.2:
                del changed[chance.randrange(len(changed)) :]
            try_decode(decoder, bytes(changed), 200_000)


@each
@settings(max_examples=300, deadline=None)
@given(control=st.binary(max_size=60), operands=st.binary(max_size=40), data=st.binary(max_size=80))
def test_any_tokens_decode_to_something_or_are_a_protocol_error(
    engine: Any, control: bytes, operands: bytes, data: bytes
) -> None:
    start = bytes([14, 1, 10, 1, 0, 1]) + b"x"
    header = b"PT\0\1" + (len(start) + len(control)).to_bytes(4, "big") + len(operands).to_bytes(4, "big")
    decoder = Decoder(Memory(10, engine=engine))
    for _ in range(2):
        try_decode(decoder, header + data + start + control + operands, 50_000)
    try_decode(decoder, data, 100)


@pytest.mark.skipif(pages.ENGINE is pages_py, reason="the C extension is not built")
@settings(max_examples=300, deadline=None)
@given(
    ops=st.lists(
        st.one_of(
            st.tuples(st.just(0), st.integers(1, 40)),
            st.tuples(st.integers(2, 11), st.integers(0, 3)),
            st.tuples(st.integers(18, 27), st.integers(0, 3)),
            st.tuples(st.integers(66, 75), st.integers(0, 3)),
            st.tuples(st.integers(34, 43), st.integers(0, 90)),
            st.tuples(st.just(1), st.integers(0, 2)),
        ),
        max_size=12,
    ),
    operands=st.lists(st.integers(0, 6), max_size=30),
    size=st.integers(0, 4 * PAGE),
)
def test_both_implementations_judge_tokens_alike(ops: list[tuple[int, int]], operands: list[int], size: int) -> None:
    control = (
        bytes([14, 1, 10, 1, 0, 1])
        + b"x"
        + b"".join(bytes(op) if op[0] & 0x60 or op[0] < 2 else bytes(op[:1]) for op in ops)
    )
    data = random.Random(size).randbytes(size)
    tokens = (
        b"PT\0\1"
        + len(control).to_bytes(4, "big")
        + len(operands).to_bytes(4, "big")
        + data
        + control
        + bytes(operands)
    )
    verdicts = []
    for engine in ENGINES:
        memory = Memory(10, engine=engine)
        decoder = Decoder(memory)
        out = bytearray(20 * PAGE)
        try:
            refs = decoder.refs(tokens)
            done = decoder.decode(tokens, bytes(PAGE * len(refs.have)), out)
            verdicts.append((done, bytes(out[:done]), decoder.counts, memory.contents(), memory.used))
        except ProtocolError:
            verdicts.append("malformed")  # type: ignore[arg-type]
    assert verdicts[0] == verdicts[1]


@each
def test_a_run_of_four_billion_pages_ends_at_once(engine: Any) -> None:
    many = b"\xfe\xff\xff\xff\x0f"
    for op in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11):
        control = bytes([14, 1, 10, 1, 0, 1]) + b"x" + bytes([op | 0x40]) + many
        tokens = b"PT\0\1" + len(control).to_bytes(4, "big") + bytes(4) + control
        decoder = Decoder(Memory(10, engine=engine))
        with pytest.raises(ProtocolError):
            decoder.refs(tokens)
            decoder.decode(tokens, b"", bytearray(100_000))


@pytest.mark.skipif(pages.ENGINE is pages_py, reason="the C extension is not built")
def test_two_threads_cannot_work_on_one_memory_and_others_run_meanwhile() -> None:
    guest = Guest(3, {"pc.ram": 3000})
    stream = RamStream(guest.blocks)
    stream.start()
    stream.part(guest.all())
    raw = stream.raw
    memory = Memory(4000, engine=pages.ENGINE)
    Encoder(memory, "ram").encode(raw, bytearray(pages.bound(len(raw))), True)
    refused = threading.Event()

    def use(what: Callable[[], object]) -> None:
        for _ in range(20_000):
            if refused.is_set():
                return
            try:
                what()
            except RuntimeError:
                refused.set()

    threads = [threading.Thread(target=use, args=(what,)) for what in (memory.contents, memory.keys)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused.is_set()


def golden_stream() -> bytes:
    """One of each: see docs/dwcp-pages.md."""
    stream = RamStream({"pc.ram": 8})
    stream.start()
    first, second = bytes(range(256)) * 16, b"\xff" * PAGE
    changed = first[:64] + b"CHANGED!" + first[72:]
    stream.part([("pc.ram", 0, first), ("pc.ram", 1, first), ("pc.ram", 2, ZERO), ("pc.ram", 3, ZERO)])
    stream.part([("pc.ram", 0, changed), ("pc.ram", 1, first), ("pc.ram", 4, second)], last=True)
    stream.device(3, "timer", b"\0" * 8)
    stream.end(b"{}")
    return stream.raw


@each
def test_the_golden_tokens_are_written_and_read(engine: Any) -> None:
    raw = golden_stream()
    out = bytearray(pages.bound(len(raw)))
    done = Encoder(Memory(8, engine=engine), "ram").encode(raw, out, True)
    tokens = bytes.fromhex((GOLDEN / "page-tokens.hex").read_text())
    assert bytes(out[: done.size]) == tokens
    back = bytearray(len(raw))
    assert Decoder(Memory(8, engine=engine)).decode(tokens, b"", back) == len(raw)
    assert back == raw


@both
def test_a_real_stream_is_understood(engines: Engines) -> None:
    """A QEMU 7.2 migration, q35, without most of its records and of its device state; page contents were replaced."""
    raw = zlib.decompress(bytes.fromhex((GOLDEN / "qemu-7.2-stream.zlib.hex").read_text()))
    for seed in (None, 1, 2):
        ends = Ends(engines)
        ends.carry(raw, seed)
        counts = ends.encoder.counts
        assert (counts.records, counts.zero, counts.lost_sync) == (RECORDS, ZEROS, False)
        assert ends.encoder.phase == "device"
        assert ends.near.contents().blocks[0] == b"pc.ram"
        ends.agree()
