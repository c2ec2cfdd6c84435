"""The page stage: what is said instead of a page, that both ends remember the same, and that any bytes come through."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from array import array
from typing import Any

import pytest
from blake3 import blake3

from dwcp.encoding import pages, pages_py
from dwcp.encoding.pages import NONE, PAGE, Base, Encoder, Have, Memory
from dwcp.errors import ProtocolError

from .page_ends import EACH, PAIRS, Ends, Engines
from .streams import ZERO, Guest, RamStream, nbd_copy, whole_move

both = pytest.mark.parametrize("engines", PAIRS)
each = pytest.mark.parametrize("engine", EACH)


def first_visit(guest: Guest) -> RamStream:
    stream = RamStream(guest.blocks)
    stream.start()
    stream.part(guest.all())
    return stream


@both
@pytest.mark.parametrize("slots", [0, 1, 7, 100, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_a_move_comes_through_whatever_the_borders_and_every_record_is_counted(
    engines: Engines, slots: int, seed: int
) -> None:
    stream = whole_move(seed)
    ends = Ends(engines, slots)
    ends.carry(stream.raw, seed)
    assert bytes(ends.received) == stream.raw
    counts = ends.encoder.counts
    assert counts.records == stream.made.pages + stream.made.zeros
    assert counts.zero == stream.made.zeros
    assert not counts.lost_sync
    kinds = counts.zero + counts.same + counts.copied + counts.known + counts.base + counts.delta + counts.fresh
    assert kinds == counts.records
    assert ends.encoder.phase == "device"
    ends.agree()


@both
def test_in_whole_batches_nothing_but_structure_is_literal(engines: Engines) -> None:
    stream = whole_move(9)
    ends = Ends(engines)
    ends.carry(stream.raw)
    structure = len(stream.raw) - stream.made.pages * (PAGE + 8) - stream.made.zeros * 9
    assert structure <= ends.encoder.counts.literal_bytes < structure + 200


@both
def test_nbd_writes_are_pages_of_the_disk(engines: Engines) -> None:
    raw, blocks = nbd_copy(5)
    ends = Ends(engines, grammar="nbd")
    ends.carry(raw, 5)
    assert ends.encoder.counts.records == blocks
    assert not ends.encoder.counts.lost_sync
    assert ends.near.contents().blocks == (b"disk",)
    ends.agree()


@both
def test_what_is_sent_again_unchanged_costs_next_to_nothing(engines: Engines) -> None:
    guest = Guest(1, {"pc.ram": 500})
    stream = first_visit(guest)
    ends = Ends(engines)
    ends.carry(stream.raw)
    stream.made.raw.clear()
    stream.part(guest.all())
    assert ends.give(stream.raw, flush=True) < 1000
    assert ends.encoder.counts.fresh <= 500


@both
def test_a_change_of_64_bytes_costs_64_bytes_and_a_few(engines: Engines) -> None:
    stream = RamStream({"pc.ram": 100})
    stream.start()
    content = [bytearray(os.urandom(PAGE)) for _ in range(100)]
    stream.part([("pc.ram", page, bytes(content[page])) for page in range(100)])
    ends = Ends(engines)
    ends.carry(stream.raw)
    stream.made.raw.clear()
    for page in content:
        page[640:704] = os.urandom(64)
    stream.part([("pc.ram", page, bytes(content[page])) for page in range(100)])
    assert ends.give(stream.raw, flush=True) < 100 * (64 + 4) + 100
    assert ends.encoder.counts.delta == 100


@both
def test_zero_pages_of_a_whole_guest_cost_a_few_bytes(engines: Engines) -> None:
    stream = RamStream({"pc.ram": 20_000})
    stream.start()
    stream.part([("pc.ram", page, ZERO) for page in range(20_000)])
    ends = Ends(engines)
    assert ends.carry(stream.raw) < 200
    assert ends.encoder.counts.zero == 20_000
    assert ends.near.used == 0


@both
def test_a_returning_guest_is_said_by_its_last_visit(engines: Engines) -> None:
    guest = Guest(2, {"pc.ram": 400, "vga.vram": 32})
    first = Ends(engines, 1000)
    first.carry(first_visit(guest).raw, 1)
    bases = first.visit(*engines)
    changed = guest.touch(0.5)
    again = Ends(engines, 1000)
    again.encoder.base, again.decoder.base = bases
    stream = first_visit(guest)
    size = again.carry(stream.raw)
    counts = again.encoder.counts
    assert counts.base > 100
    assert counts.delta > 0
    assert size < len(changed) * PAGE
    assert again.near.contents() == again.far.contents()
    again.agree()


@both
def test_a_visit_of_a_visit_knows_what_was_never_sent_whole(engines: Engines) -> None:
    guest = Guest(3, {"pc.ram": 100})
    first = Ends(engines)
    first.carry(first_visit(guest).raw)
    bases = first.visit(*engines)
    for _ in range(3):
        again = Ends(engines)
        again.encoder.base, again.decoder.base = bases
        guest.touch(0.3, changes=1)
        again.carry(first_visit(guest).raw)
        bases = again.visit(*engines)
        for place, (name, page) in enumerate(guest.pages):
            slot = bases[1].slot(name.encode(), page)
            if guest.pages[name, page] != ZERO:
                into = bytearray(PAGE)
                assert bases[1].supply(array("I", [slot]), into) == []
                assert into == guest.pages[name, page], place


@both
def test_pages_that_the_far_store_has_are_not_sent(engines: Engines) -> None:
    library = [os.urandom(PAGE) for _ in range(40)]
    ends = Ends(engines, library=library)
    stream = RamStream({"pc.ram": 100})
    stream.start()
    stream.part([("pc.ram", page, library[page % 40]) for page in range(60)])
    assert ends.carry(stream.raw) < 300
    counts = ends.encoder.counts
    assert (counts.known, counts.copied) == (40, 20)
    ends.agree()


@both
def test_base_and_have_may_come_in_the_middle_of_a_flow(engines: Engines) -> None:
    guest = Guest(4, {"pc.ram": 200})
    first = Ends(engines)
    first.carry(first_visit(guest).raw)
    bases = first.visit(*engines)
    raw = first_visit(guest).raw
    ends = Ends(engines)
    ends.give(raw[: len(raw) // 3])
    assert ends.encoder.counts.base == 0
    ends.encoder.base, ends.decoder.base = bases
    ends.give(raw[len(raw) // 3 : len(raw) // 2])
    assert ends.encoder.counts.base > 0
    ends.encoder.base = None
    ends.give(raw[len(raw) // 2 :], flush=True)
    assert bytes(ends.received) == raw
    ends.agree()


@both
def test_a_damaged_page_of_the_base_is_not_used_and_not_supplied(engines: Engines) -> None:
    guest = Guest(5, {"pc.ram": 20})
    first = Ends(engines)
    first.carry(first_visit(guest).raw)
    contents, keys = first.near.contents(), first.near.keys()
    damaged = bytearray(bytes(first.near.slab))
    for slot in range(contents.slots):
        damaged[slot * PAGE + 9] ^= 1
    near = Base(bytes(damaged), contents, keys, engine=engines[0])
    far = Base(bytes(damaged), contents, keys, engine=engines[1])
    ends = Ends(engines)
    ends.encoder.base, ends.decoder.base = near, first.visit(*engines)[1]
    ends.carry(first_visit(guest).raw)
    assert ends.encoder.counts.base == ends.encoder.counts.delta == 0
    slots = array("I", [0, NONE, 1, contents.slots, NONE])
    assert far.supply(slots, bytearray(5 * PAGE)) == [0, 2, 3]


@each
def test_a_base_that_the_decoder_has_not_is_a_protocol_error(engine: Any) -> None:
    guest = Guest(6, {"pc.ram": 20})
    first = Ends((engine, engine))
    first.carry(first_visit(guest).raw)
    bases = first.visit(engine, engine)
    ends = Ends((engine, engine))
    ends.encoder.base = bases[0]
    with pytest.raises(ProtocolError, match="base"):
        ends.carry(first_visit(guest).raw)


@each
def test_supply_that_does_not_fit_is_a_protocol_error(engine: Any) -> None:
    library = [os.urandom(PAGE)]
    for supply in (b"", library[0] * 2, library[0][:-1]):
        ends = Ends((engine, engine), library=library)
        stream = RamStream({"pc.ram": 4})
        stream.start()
        stream.part([("pc.ram", 0, library[0])])
        out = bytearray(pages.bound(len(stream.raw)))
        done = ends.encoder.encode(stream.raw, out, True)
        assert ends.decoder.refs(out[: done.size]).have.tolist() == [0]
        with pytest.raises(ProtocolError, match="supplied"):
            ends.decoder.decode(out[: done.size], supply, bytearray(len(stream.raw)))


@each
def test_out_that_is_too_small_is_never_overrun(engine: Any) -> None:
    stream = whole_move(1, rounds=1)
    encoder = Encoder(Memory(100, engine=engine), "ram")
    with pytest.raises(ValueError, match="room"):
        encoder.encode(stream.raw, bytearray(100), True)
    out = bytearray(pages.bound(len(stream.raw)))
    size = encoder.encode(stream.raw, out, True).size
    for room in (0, 8, 5000, len(stream.raw) - 1):
        decoder = pages.Decoder(Memory(100, engine=engine))
        with pytest.raises(ProtocolError, match="raw bytes"):
            decoder.decode(out[:size], b"", bytearray(room))


@each
def test_memories_of_different_size_are_a_protocol_error(engine: Any) -> None:
    out = bytearray(pages.bound(20))
    size = Encoder(Memory(10, engine=engine), "ram").encode(b"QEVM" + bytes(16), out, True).size
    with pytest.raises(ProtocolError, match="slots"):
        pages.Decoder(Memory(11, engine=engine)).decode(out[:size], b"", bytearray(20))


@each
def test_a_memory_serves_one_flow(engine: Any) -> None:
    memory = Memory(10, engine=engine)
    Encoder(memory, "ram")
    with pytest.raises(ValueError, match="another flow"):
        pages.Decoder(memory)


@each
def test_a_memory_in_a_file_leaves_its_pages_there(engine: Any) -> None:
    guest = Guest(8, {"pc.ram": 50})
    with tempfile.TemporaryFile() as file:
        file.truncate(100 * PAGE)
        memory = Memory(100, file.fileno(), engine=engine)
        memory.prefault()
        encoder = Encoder(memory, "ram")
        raw = first_visit(guest).raw
        encoder.encode(raw, bytearray(pages.bound(len(raw))), True)
        base = Base(file.fileno(), memory.contents(), memory.keys(), engine=engine)
        for (name, page), content in guest.pages.items():
            slot = base.slot(name.encode(), page)
            assert (slot == NONE) == (content == ZERO)
            into = bytearray(PAGE)
            assert slot == NONE or (base.supply(array("I", [slot]), into) == [] and into == content)
        assert base.slot(b"no such block", 0) == NONE
        assert memory.used == base.contents.slots


@each
def test_a_visit_whose_parts_do_not_fit_is_refused(engine: Any) -> None:
    ends = Ends((engine, engine))
    ends.carry(first_visit(Guest(8, {"pc.ram": 9})).raw)
    contents, keys, slab = ends.near.contents(), ends.near.keys(), ends.near.slab
    for wrong in (
        (slab, contents, keys[:-1]),
        (b"", contents, keys),
        (slab, pages.Contents((), contents.places, contents.slots), keys),
        (slab, pages.Contents(contents.blocks, contents.places[:-1], contents.slots), keys),
        (slab, pages.Contents(contents.blocks, contents.places, 1), keys[:16]),
    ):
        with pytest.raises(ValueError, match="visit"):
            Base(*wrong, engine=engine)


@each
def test_keys_are_the_first_16_bytes_of_blake3(engine: Any) -> None:
    for count in (0, 1, 2, 3, 1000):
        content = os.urandom(PAGE * count)
        keys = pages.page_keys(content, engine=engine)
        assert keys == b"".join(blake3(content[n * PAGE :][:PAGE]).digest(16) for n in range(count))
    assert pages.page_keys(bytes(PAGE), engine=engine) == blake3(bytes(PAGE)).digest(16)
    with pytest.raises(ValueError, match="multiple"):
        pages.page_keys(bytes(PAGE + 1), engine=engine)


@each
def test_the_have_list_finds_each_key_at_its_first_place(engine: Any) -> None:
    keys = [os.urandom(16) for _ in range(500)]
    same_start = [b"same key's start"[:8] + os.urandom(8) for _ in range(40)]
    have = Have(b"".join(keys + same_start + keys), engine=engine)
    assert len(have) == 1040
    assert [have.index(key) for key in keys + same_start] == list(range(540))
    assert have.index(os.urandom(16)) == NONE
    assert Have(b"", engine=engine).index(bytes(16)) == NONE


@each
def test_keys_made_to_collide_cost_matches_and_nothing_else(engine: Any) -> None:
    keys = [bytes(8) + n.to_bytes(8, "little") for n in range(5000)]
    have = Have(b"".join(keys), engine=engine)
    found = [have.index(key) for key in keys]
    assert all(index in (place, NONE) for place, index in enumerate(found))
    assert have.index(b"\xff" * 16) == NONE


def test_pure_python_may_be_asked_for() -> None:
    asked = "from dwcp.encoding import pages; print(pages.ENGINE.__name__)"
    environment = {**os.environ, "NOVACRON_PURE": "1"}
    done = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "dwcp.encoding.pages_py"


@pytest.mark.skipif(pages.ENGINE is pages_py, reason="the C extension is not built")
def test_both_implementations_write_the_same_tokens() -> None:
    stream = whole_move(12)
    written = []
    for engine in (pages_py, pages.ENGINE):
        ends = Ends((engine, engine), 200)
        ends.carry(stream.raw, 4)
        written.append(ends.tokens)
    assert written[0] == written[1]
