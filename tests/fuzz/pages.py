"""The page stage: streams as QEMU and NBD clients write them, and tokens as an encoder makes them, both damaged.

Promises that are checked: any stream comes back byte by byte; any tokens are the same to both implementations, answer
or refusal; what a decoder asks for and writes is bounded by what the batch may be.
"""

from __future__ import annotations

import importlib
import random
import struct
from array import array
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, Final

from dwcp.encoding import pages_py
from dwcp.encoding.pages import Base, Contents, Decoder, Encoder, Grammar, Have, Memory, bound, page_keys
from dwcp.encoding.tokens import BARE, HEADER, MAGIC, NONE, PAGE, RUN, VERSION, Op
from dwcp.encoding.walk import put_varint
from dwcp.errors import ProtocolError
from dwcp.transport.frames import MAX_BATCH
from tests.fuzz.engine import Case, Wrong
from tests.unit.dwcp.streams import Guest, RamStream

SLOTS: Final = 24
_OUT: Final = bytearray(MAX_BATCH)
BLOCKS: Final = {"pc.ram": 20, "vga.vram": 6}
Engines = tuple[Any, ...]


def engine(name: str) -> Any:
    """One implementation, whatever the environment says. Raises ImportError."""
    return importlib.import_module({"python": "dwcp.encoding.pages_py", "c": "dwcp.encoding._pages"}[name])


def _guest() -> Guest:
    return Guest(3, BLOCKS, kinds=3)


def _stream(rounds: int) -> list[bytes]:
    """Batches of a small guest's migration."""
    guest, stream, batches, done = _guest(), RamStream(BLOCKS), [], 0
    stream.start()
    stream.part(guest.all()[:14])
    for _ in range(rounds):
        batches.append(stream.raw[done:])
        done = len(stream.raw)
        stream.part(guest.at(guest.touch(0.4))[:9])
    stream.part(guest.all()[:3], last=True)
    stream.device(5, "timer", b"x" * 40)
    stream.end()
    return [*batches, stream.raw[done:]]


class World:
    """What both ends know before the first byte: a base with half of the guest, and a have-list with the other."""

    def __init__(self, engine: Any) -> None:
        pages = [content for _, _, content in _guest().all() if any(content)]
        self.base_pages, known = pages[:8], pages[8:14]
        places = b"".join(struct.pack("<III", 0, slot, slot) for slot in range(len(self.base_pages)))
        contents = Contents((b"pc.ram",), places, len(self.base_pages))
        slab = b"".join(self.base_pages)
        keys = page_keys(slab, engine=engine)
        self.base = Base(slab, contents, keys, engine=engine)
        self.known = known
        self.have = Have(page_keys(b"".join(known), engine=engine), engine=engine)

    def supply(self, decoder: Decoder, tokens: bytes) -> bytes:
        """As the destination's store would, and for what it does not have anything of the right length."""
        wanted = decoder.refs(tokens)
        if len(wanted) > MAX_BATCH // PAGE:  # whoever supplies them makes room for them all
            raise Wrong(f"{len(wanted)} pages are asked for, and a batch has at most {MAX_BATCH // PAGE}")
        into = bytearray(len(wanted) * PAGE)
        self.base.supply(array("I", wanted.bases), into)
        for place, index in enumerate(wanted.have):
            if index != NONE and index < len(self.known):
                into[place * PAGE : place * PAGE + PAGE] = self.known[index]
        return bytes(into)


@cache
def world(engine: Any) -> World:
    """Nobody changes it, so one serves all runs."""
    return World(engine)


def _tokens(batches: list[bytes], grammar: Grammar = "ram") -> list[bytes]:
    """Of each batch, in order."""
    known, memory = world(pages_py), Memory(SLOTS, engine=pages_py)
    encoder, found = Encoder(memory, grammar), []
    encoder.base, encoder.have = known.base, known.have
    for raw in batches:
        out = bytearray(bound(len(raw)))
        found.append(bytes(out[: encoder.encode(raw, out, True).size]))
    return found


_LENGTH = struct.Struct("!I")


def join(batches: list[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(batch)) + batch for batch in batches)


def cut(data: bytes) -> list[bytes]:
    """At most six batches; the last may be short of what it says."""
    batches: list[bytes] = []
    place = 0
    while place + 4 <= len(data) and len(batches) < 6:
        length = _LENGTH.unpack_from(data, place)[0]
        place += 4
        batches.append(data[place : place + length])
        place += length
    return batches


class _Side:
    """A decoder of one implementation and what it has said so far."""

    def __init__(self, engine: Any) -> None:
        self.memory = Memory(SLOTS, engine=engine)
        self.decoder = Decoder(self.memory)
        self.world = world(engine)
        self.decoder.base = self.world.base

    def take(self, tokens: bytes) -> tuple[str, bytes]:
        """("", bytes) or (the refusal, nothing)."""
        try:
            supply = self.world.supply(self.decoder, tokens)
            size = self.decoder.decode(tokens, supply, _OUT)
        except ProtocolError as error:
            return str(error), b""
        if size > len(_OUT):
            raise Wrong(f"{size} bytes were written into {len(_OUT)}")
        return "", bytes(memoryview(_OUT)[:size])


def tokens(engines: Callable[[], Engines]) -> Callable[[], Case]:
    """Batches of tokens to the decoders of `engines`, which must agree, up to the words of a refusal."""

    def make() -> Case:
        chosen = engines()

        def run(data: bytes) -> Hashable:
            sides = [_Side(engine) for engine in chosen]
            sizes = []
            for batch in cut(data):
                answers = [side.take(batch) for side in sides]
                if len({(bool(refusal), raw) for refusal, raw in answers}) > 1:
                    raise Wrong(f"the implementations differ: {[(why, len(raw)) for why, raw in answers]}")
                if answers[0][0]:
                    raise ProtocolError(answers[0][0])
                sizes.append(len(answers[0][1]).bit_length())
            states = {(side.memory.used, side.memory.contents(), side.decoder.counts) for side in sides}
            if len(states) > 1:
                raise Wrong("the implementations remember differently")
            return tuple(sizes[:2])

        seeds = [join(_tokens(_stream(rounds))) for rounds in (1, 2)]
        seeds += [join([small]) for small in _tokens(_stream(3))] + [join([_greedy(count)]) for count in (3, 5000)]
        return Case(seeds, run, repair=_mend, weight=2)

    return make


def _greedy(count: int) -> bytes:
    """Tokens that ask for so many known pages."""
    control = bytearray((Op.START, VERSION, SLOTS, Op.BLOCK, 0, 4)) + b"disk"
    control.append(Op.KNOWN | BARE | RUN)
    put_varint(control, count - 2)
    return HEADER.pack(MAGIC, len(control), count) + control + bytes(count)


def _mend(data: bytes, dice: random.Random) -> bytes:
    """Lengths and headers that fit, around parts that may not."""
    batches = []
    for batch in cut(data):
        if len(batch) < HEADER.size:
            batches.append(batch)
            continue
        _, control, operands = HEADER.unpack_from(batch)
        room = len(batch) - HEADER.size
        if control + operands > room:
            control = dice.randint(0, min(room, 60))
            operands = dice.randint(0, min(room - control, 60))
        batches.append(HEADER.pack(MAGIC, control, operands) + batch[HEADER.size :])
    if dice.random() < 0.5 and batches:
        batches[-1] = _scramble(batches[-1], dice)
    return join(batches)


def _scramble(batch: bytes, dice: random.Random) -> bytes:
    """Changes control bytes or operands, which a change anywhere in the batch hardly ever meets."""
    if len(batch) < HEADER.size:
        return batch
    changed = bytearray(batch)
    _, control, operands = HEADER.unpack_from(batch)
    first = len(batch) - operands - control if dice.random() < 0.7 else len(batch) - operands
    for _ in range(dice.choice((1, 1, 2, 4))):
        if HEADER.size <= first < len(changed):
            at = dice.randrange(first, len(changed))
            changed[at] = dice.choice(
                (dice.randrange(256), dice.randrange(16), dice.randrange(8) << 4 | changed[at] & 15, 255)
            )
    return bytes(changed)


def stream(grammar: Grammar, engines: Callable[[], Engines]) -> Callable[[], Case]:
    """Any bytes as a stream: encoded by one implementation, decoded by the next, they come back."""

    def make() -> Case:
        chosen = engines()

        def run(data: bytes) -> Hashable:
            found: Hashable = None
            for number, engine in enumerate(chosen):
                found = _round_trip(cut(data), grammar, engine, chosen[(number + 1) % len(chosen)])
            return found

        return Case(_streams(grammar), run, refusals=(), repair=_mend_stream, weight=2)

    return make


def _streams(grammar: Grammar) -> list[bytes]:
    if grammar == "ram":
        return [join(_stream(1)), join(_stream(2)), *(join([batch]) for batch in _stream(2))]
    dice = random.Random(5)
    page = dice.randbytes(PAGE)
    greeting = b"NBDMAGIC" + b"IHAVEOPT" + struct.pack("!H", 3) + struct.pack("!I", 3)
    option = b"IHAVEOPT" + struct.pack("!II", 7, 10) + struct.pack("!I", 4) + b"disk" + struct.pack("!H", 0)
    write = struct.pack("!IHHQQI", 0x25609513, 0, 1, 9, 8192, 2 * PAGE) + page + page
    zeroes = struct.pack("!IHHQQI", 0x25609513, 0, 6, 10, 65536, 4 * PAGE)
    client = struct.pack("!I", 3) + option + write + zeroes + write
    return [join([client]), join([greeting, client, write]), join([client[:600], client[600:]])]


def _mend_stream(data: bytes, dice: random.Random) -> bytes:
    """Batches cut anywhere, as sockets do."""
    raw = b"".join(cut(data))[: 1 << 16]
    batches: list[bytes] = []
    while raw and len(batches) < 5:
        size = dice.choice((1, 9, 4096, 5000, 1 << 16))
        batches.append(raw[:size])
        raw = raw[size:]
    return join([*batches, raw] if raw else batches)


def _round_trip(batches: list[bytes], grammar: Grammar, one: Any, other: Any) -> Hashable:
    sending, receiving = world(one), world(other)
    near, far = Memory(SLOTS, engine=one), Memory(SLOTS, engine=other)
    encoder, decoder = Encoder(near, grammar), Decoder(far)
    encoder.base, encoder.have, decoder.base = sending.base, sending.have, receiving.base
    held = b""
    for number, batch in enumerate(batches):
        held += batch
        flush = number == len(batches) - 1 or number % 2 == 1
        out = bytearray(bound(len(held)))
        done = encoder.encode(held, out, flush)
        if not 0 <= done.consumed <= len(held) or (flush and done.consumed != len(held)):
            raise Wrong(f"{done.consumed} of {len(held)} bytes were consumed, flush {flush}")
        if done.size:
            said = bytes(memoryview(out)[: done.size])
            size = decoder.decode(said, receiving.supply(decoder, said), _OUT)
            if bytes(memoryview(_OUT)[:size]) != held[: done.consumed]:
                raise Wrong(f"{done.consumed} bytes do not come back as they were, {size} do")
        held = held[done.consumed :]
    if encoder.counts != decoder.counts or near.contents() != far.contents():
        raise Wrong(f"the ends differ: {encoder.counts}, {decoder.counts}")
    return encoder.phase, encoder.counts.lost_sync, encoder.counts.records.bit_length()
