"""Following the stream: borders, doubt, and what looks like a record and is none."""

from __future__ import annotations

import os
import struct

import pytest

from dwcp.encoding.pages import PAGE

from .page_ends import PAIRS, Ends, Engines
from .streams import RAM_ID, ZERO, Guest, RamStream, footer, named, nbd_copy, whole_move

both = pytest.mark.parametrize("engines", PAIRS)
BLOCKS = {"pc.ram": 64, "pc.bios": 8}


def content(seed: int) -> bytes:
    return bytes([seed + 1]) * 2048 + os.urandom(2048)


def some(count: int = 20) -> list[tuple[str, int, bytes]]:
    return [("pc.ram", page, content(page)) for page in range(count)]


def begun(**options: bool) -> RamStream:
    stream = RamStream(BLOCKS, **options)  # type: ignore[arg-type]
    stream.start()
    return stream


@both
def test_the_end_of_a_part_is_not_taken_for_a_zero_record(engines: Engines) -> None:
    """End of records, footer and the next header read as a zero record of a block with a two-byte name."""
    stream = begun()
    for page in range(40):
        stream.part([("pc.ram", page, content(page))])
        stream.part([("pc.ram", page, content(page))])
    ends = Ends(engines)
    ends.carry(stream.raw)
    counts = ends.encoder.counts
    assert (counts.records, counts.zero, counts.lost_sync) == (80, 0, False)
    assert ends.near.contents().blocks == (b"pc.ram",)


@both
def test_pages_full_of_what_looks_like_stream_are_pages(engines: Engines) -> None:
    inner = begun()
    inner.part(some())
    pattern = inner.raw[: 40 * PAGE]
    stream = begun()
    stream.part([("pc.ram", n, pattern[n * PAGE :][:PAGE]) for n in range(20)])
    stream.part([("pc.bios", n, b"\xff" * PAGE) for n in range(8)])
    certain = (footer(RAM_ID) + b"\x02" + struct.pack("!IQ", RAM_ID, 16)) * 228
    stream.part([("pc.ram", n, certain[n : n + PAGE]) for n in range(4)])
    ends = Ends(engines)
    ends.carry(stream.raw, 3)
    assert ends.encoder.counts.records == stream.made.pages
    assert not ends.encoder.counts.lost_sync


@both
def test_every_single_border_is_a_good_one(engines: Engines) -> None:
    stream = begun()
    stream.part([("pc.ram", 0, content(0)), ("pc.ram", 1, ZERO), ("pc.bios", 3, content(3)), ("pc.bios", 4, ZERO)])
    stream.part([("pc.ram", 0, content(1))], last=True)
    stream.device(3, "cpu", b"state")
    stream.end()
    interesting = [n for n in range(1, len(stream.raw)) if n < 230 or n % 499 == 0 or 4300 < n < 4330 or n > 12_600]
    for border in interesting:
        for flush in (False, True):
            ends = Ends(engines, 50)
            ends.give(stream.raw[:border], flush=flush)
            ends.give(stream.raw[border:], flush=True)
            assert bytes(ends.received) == stream.raw
            assert ends.encoder.counts.records == 5
            assert not ends.encoder.counts.lost_sync
            ends.agree()


@both
def test_byte_by_byte_with_every_byte_sent_at_once(engines: Engines) -> None:
    stream = begun()
    stream.part([("pc.ram", 0, content(0)), ("pc.ram", 1, ZERO)])
    ends = Ends(engines, 50)
    for place in range(len(stream.raw)):
        ends.give(stream.raw[place : place + 1], flush=True)
    assert bytes(ends.received) == stream.raw
    counts = ends.encoder.counts
    assert (counts.records, counts.zero, counts.fresh, counts.lost_sync) == (2, 1, 1, False)
    ends.agree()


@both
def test_a_page_split_by_a_flush_is_not_remembered_but_the_next_version_is(engines: Engines) -> None:
    stream = begun()
    stream.part([("pc.ram", 0, content(0))])
    ends = Ends(engines, 50)
    ends.give(stream.raw[:2000], flush=True)
    ends.give(stream.raw[2000:], flush=True)
    assert ends.near.used == 0
    stream.made.raw.clear()
    whole = content(7)
    stream.part([("pc.ram", 0, whole), ("pc.ram", 0, whole[:-8] + b"changed!")])
    ends.give(stream.raw, flush=True)
    assert ends.encoder.counts.delta == 1
    ends.agree()


@both
def test_streams_without_footers_are_followed(engines: Engines) -> None:
    stream = begun(footers=False)
    for _ in range(3):
        stream.part(some())
    ends = Ends(engines)
    ends.carry(stream.raw, 1)
    assert ends.encoder.counts.records == 60
    assert not ends.encoder.counts.lost_sync


@both
def test_post_copy_is_followed_to_its_end(engines: Engines) -> None:
    stream = RamStream(BLOCKS)
    stream.command(1)
    stream.command(2, struct.pack("!I", 1))
    stream.command(3, struct.pack("!QQ", PAGE, PAGE))
    stream.start()
    ends = Ends(engines)
    stream.part(some())
    ends.give(stream.raw)
    phases: list[str] = [ends.encoder.phase]
    stream.made.raw.clear()
    stream.command(6, b"\0" + named("pc.ram") + struct.pack("!QQ", 0, 5 * PAGE))
    package = RamStream(BLOCKS)
    package.made.raw.clear()
    package.command(4)
    package.device(4, "timer", footer(RAM_ID) + b"\x02" + struct.pack("!IQ", RAM_ID, 0x1028) + os.urandom(500))
    package.command(5)
    stream.package(package.raw)
    for page in range(5):
        stream.begin_part()
        stream.page("pc.ram", page, content(page), always_named=True)
        stream.end_part()
    stream.part([("pc.ram", 30, content(2))], last=True)
    stream.put(b"\0")
    ends.carry(stream.raw, 2)
    assert [*phases, ends.encoder.phase] == ["precopy", "postcopy"]
    assert ends.encoder.counts.records == 26
    assert not ends.encoder.counts.lost_sync
    ends.agree()


@both
def test_blocks_of_huge_pages_name_their_page_size_in_post_copy(engines: Engines) -> None:
    for sizes in ({"pc.ram": 2 << 20}, {"pc.bios": 1 << 30}, {"pc.ram": 2 << 20, "pc.bios": 2 << 20}):
        stream = RamStream(BLOCKS)
        stream.start(sizes)
        stream.part([*some(), ("pc.bios", 1, content(9))])
        ends = Ends(engines)
        ends.carry(stream.raw, 6)
        assert ends.encoder.counts.records == 21
        assert not ends.encoder.counts.lost_sync


@both
def test_a_section_of_unknown_length_is_passed_and_ram_found_again(engines: Engines) -> None:
    stream = begun()
    stream.part(some())
    for number in range(3):
        stream.put(b"\x02" + struct.pack("!I", 9) + os.urandom(700) + b"\x7e\x7e\x7e" + footer(9))
        stream.part(some())
        stream.put(b"\x01" + struct.pack("!I", 50 + number) + named("vfio") + struct.pack("!II", 0, 1) + os.urandom(70))
        stream.put(footer(50 + number))
        stream.part(some())
    ends = Ends(engines)
    ends.carry(stream.raw, 4)
    assert ends.encoder.counts.records == 140
    assert not ends.encoder.counts.lost_sync


@both
def test_configuration_subsections_before_ram_are_passed(engines: Engines) -> None:
    stream = RamStream(BLOCKS)
    stream.put(b"\x05" + named("configuration/capabilities") + struct.pack("!II", 1, 1) + named("postcopy-ram"))
    stream.start()
    stream.part(some())
    ends = Ends(engines)
    ends.carry(stream.raw, 4)
    assert ends.encoder.counts.records == 20
    assert not ends.encoder.counts.lost_sync


@both
def test_xbzrle_records_are_passed(engines: Engines) -> None:
    stream = begun()
    stream.begin_part()
    for page in range(10):
        stream.page("pc.ram", page, content(page))
        stream.xbzrle("pc.ram", page, os.urandom(300))
        stream.xbzrle("pc.bios", 2, b"")
        stream.word(0x200)
    stream.end_part()
    ends = Ends(engines)
    ends.carry(stream.raw, 4)
    assert ends.encoder.counts.records == 10
    assert not ends.encoder.counts.lost_sync


@both
@pytest.mark.parametrize(
    "odd",
    [
        struct.pack("!Q", 99 << 12 | 0x28),  # beyond the block
        struct.pack("!Q", 0x08) + named("no.such.block"),
        struct.pack("!Q", 0x1100) + b"compressed",
        struct.pack("!Q", 0x1010),
        struct.pack("!Q", 0x04),
        b"\xff" * 40,
    ],
)
def test_what_does_not_fit_is_passed_on_until_ram_certainly_goes_on(engines: Engines, odd: bytes) -> None:
    stream = begun()
    stream.part(some())
    stream.begin_part()
    stream.put(odd + os.urandom(300) + footer(RAM_ID) + os.urandom(30))
    ends = Ends(engines)
    ends.give(stream.raw, flush=True)
    assert ends.encoder.counts.records == 20
    assert ends.encoder.counts.lost_sync
    assert ends.decoder.counts.lost_sync
    stream.made.raw.clear()
    stream.end_part()
    stream.part(some())
    ends.give(stream.raw, flush=True)
    assert ends.encoder.counts.records == 40
    assert not ends.encoder.counts.lost_sync
    ends.agree()


@both
@pytest.mark.parametrize("raw", [b"no stream at all " * 900, b"QEVM\0\0\0\2" + bytes(9000), os.urandom(50_000)])
def test_what_is_no_stream_is_passed_on(engines: Engines, raw: bytes) -> None:
    for grammar in ("ram", "nbd"):
        ends = Ends(engines, grammar=grammar)
        assert ends.carry(raw, 5) < len(raw) + 20 * len(ends.tokens) + 20
        assert bytes(ends.received) == raw
        assert ends.encoder.counts.records == 0
        assert ends.encoder.counts.lost_sync


@both
def test_a_fill_byte_that_is_not_zero_is_passed_on(engines: Engines) -> None:
    stream = begun()
    stream.begin_part()
    stream.page("pc.ram", 1, content(1))
    stream.word(2 * PAGE | 0x22)
    stream.put(b"\x07")
    stream.page("pc.ram", 3, content(3))
    stream.end_part()
    ends = Ends(engines)
    ends.carry(stream.raw, 1)
    assert ends.encoder.counts.records == 2
    assert not ends.encoder.counts.lost_sync


@both
def test_device_state_after_ram_is_never_parsed(engines: Engines) -> None:
    stream = whole_move(3, rounds=1)
    cut = stream.raw.rindex(b"\x04" + struct.pack("!I", 7))
    trap = footer(RAM_ID) + b"\x02" + struct.pack("!IQ", RAM_ID, 300 << 12 | 0x28) + os.urandom(5000)
    ends = Ends(engines)
    ends.give(stream.raw[:cut], flush=True)
    records = ends.encoder.counts.records
    ends.give(trap + stream.raw[cut:], flush=True)
    assert ends.encoder.counts.records == records


@both
def test_a_long_nbd_request_is_followed(engines: Engines) -> None:
    raw, blocks = nbd_copy(2)
    body = os.urandom(8 * PAGE)
    raw += struct.pack("!IHHQQQ", 0x21E41C71, 0, 1, 7, 3 * PAGE - 100, len(body)) + body
    raw += struct.pack("!IHHQQQ", 0x21E41C71, 0x20, 7, 8, 0, 12) + bytes(12)
    raw += struct.pack("!IHHQQQ", 0x21E41C71, 0, 3, 9, 0, 0)
    ends = Ends(engines, grammar="nbd")
    ends.carry(raw, 2)
    assert ends.encoder.counts.records == blocks + 7
    assert not ends.encoder.counts.lost_sync


@both
def test_a_flush_in_an_nbd_page_keeps_the_next_pages_whole(engines: Engines) -> None:
    head = struct.pack("!I", 3) + struct.pack("!QII", 0x49484156454F5054, 1, 4) + b"disk"
    body = os.urandom(6 * PAGE)
    request = struct.pack("!IHHQQI", 0x25609513, 0, 1, 1, 0, len(body))
    ends = Ends(engines, grammar="nbd")
    ends.give(head + request + body[:5000], flush=True)
    ends.give(body[5000:] + request + body, flush=True)
    counts = ends.encoder.counts
    assert (counts.records, counts.fresh, counts.same, counts.copied) == (12, 7, 5, 0)
    ends.agree()


def test_a_guest_changes_as_it_should() -> None:
    guest = Guest(1, {"pc.ram": 200})
    before = dict(guest.pages)
    places = guest.touch(0.5)
    assert 50 < len(places) < 150
    assert all(guest.pages[place] == before[place] for place in before.keys() - set(places))


@both
def test_the_last_memory_section_is_told_from_those_before_and_from_the_devices(engines: Engines) -> None:
    stream = begun()
    ends = Ends(engines)
    phases: list[str] = []
    for last in (False, True):
        stream.begin_part(last=last)
        stream.page("pc.ram", 1, content(1), always_named=True)
        ends.give(stream.raw, flush=True)
        phases.append(ends.encoder.phase)
        stream.made.raw.clear()
        stream.end_part()
    ends.give(stream.raw, flush=True)
    assert [*phases, ends.encoder.phase] == ["precopy", "final", "device"]
