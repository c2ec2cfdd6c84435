"""The chained codec: exact in order, and bounded whatever comes in."""

from __future__ import annotations

import contextlib
import os
import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp.encoding.chain import ChainPacker, ChainUnpacker
from dwcp.errors import ProtocolError
from dwcp.transport.frames import MAX_TOKENS, chain_bound

LOG = 20
"""A small window: tests make many chains."""
TEXT = b"a page of a guest, and another one much like it. " * 3000
NOISE = random.Random(7).randbytes(300_000)
EMPTY_BLOCK = bytes(3)

batches = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=3000),
        st.binary(min_size=1, max_size=30).map(lambda some: some * 3000),
        st.integers(1, len(NOISE)).map(lambda size: NOISE[:size]),
        st.integers(1, len(TEXT)).map(lambda size: TEXT[:size]),
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=50)
@given(batches, st.sampled_from([1, 3, 5, 9]))
def test_each_batch_decodes_given_those_before_it(raws: list[bytes], level: int) -> None:
    packer, unpacker = ChainPacker(level, LOG), ChainUnpacker(LOG)
    for raw in raws:
        body = packer.pack(memoryview(raw))
        assert len(body) <= chain_bound(len(raw))
        assert unpacker.unpack(body, len(raw)) == raw


def test_what_came_before_makes_a_batch_small() -> None:
    packer = ChainPacker(3, LOG)
    assert len(packer.pack(NOISE)) >= len(NOISE)
    assert len(packer.pack(NOISE)) < 100


def test_a_batch_longer_than_the_window_is_carried() -> None:
    packer, unpacker = ChainPacker(1, LOG), ChainUnpacker(LOG)
    raw = os.urandom(3 << 20) + bytes(1 << 20)
    for _ in range(2):
        assert unpacker.unpack(packer.pack(raw), len(raw)) == raw


@pytest.mark.parametrize("raw", [NOISE, TEXT, bytes(300_000)], ids=["noise", "text", "zeros"])
@pytest.mark.parametrize("off", [-200_000, -131_072, -4096, -1, 1, 4096, 1_000_000])
def test_another_length_than_was_said_is_refused(raw: bytes, off: int) -> None:
    said = len(raw) + off
    if said < 1:
        return
    with pytest.raises(ProtocolError):
        ChainUnpacker(LOG).unpack(ChainPacker(3, LOG).pack(raw), said)


@pytest.mark.parametrize("said", [-1, 0, MAX_TOKENS + 1])
def test_a_length_out_of_bounds_is_refused(said: int) -> None:
    with pytest.raises(ProtocolError, match="outside"):
        ChainUnpacker(LOG).unpack(ChainPacker(3, LOG).pack(TEXT), said)


@pytest.mark.parametrize("tail", [b"\0", b"\1\0\0", b"\6\0\0", TEXT[:4096], ChainPacker(3, LOG).pack(TEXT)])
def test_bytes_behind_the_batch_are_refused(tail: bytes) -> None:
    with pytest.raises(ProtocolError):
        ChainUnpacker(LOG).unpack(ChainPacker(3, LOG).pack(TEXT) + tail, len(TEXT))


def test_a_batch_that_lacks_its_end_is_refused() -> None:
    body = ChainPacker(3, LOG).pack(NOISE + TEXT)
    for cut in (0, 1, 5, 9, 10, len(body) // 2, len(body) - 1):
        with pytest.raises(ProtocolError):
            ChainUnpacker(LOG).unpack(body[:cut], len(NOISE + TEXT))


def test_a_small_body_that_swells_to_megabytes_is_stopped_at_the_length_that_was_said() -> None:
    bomb = ChainPacker(9, LOG).pack(bytes(256 << 20))
    assert len(bomb) < 1 << 20
    with pytest.raises(ProtocolError):
        ChainUnpacker(LOG).unpack(bomb, 4096)


def test_a_body_of_countless_empty_blocks_is_refused_unread() -> None:
    with pytest.raises(ProtocolError, match="too many blocks"):
        ChainUnpacker(LOG).unpack(ChainPacker(3, LOG).pack(TEXT) + EMPTY_BLOCK * 1_000_000, len(TEXT))


def test_a_window_larger_than_agreed_is_refused_before_it_is_allocated() -> None:
    body = ChainPacker(3, 27).pack(TEXT)
    assert ChainUnpacker(27).unpack(body, len(TEXT)) == TEXT
    with pytest.raises(ProtocolError, match="window"):
        ChainUnpacker(26).unpack(body, len(TEXT))


@pytest.mark.parametrize(
    "start",
    [
        zstandard.ZstdCompressor().compress(TEXT),
        zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(TEXT),
        b"\x50\x2a\x4d\x18\x03\0\0\0abc",
        b"\x28\xb5\x2f\xfd",
        b"\x28\xb5\x2f\xfd\x01\x58\x07\0\0\0",
        b"",
    ],
    ids=["whole frame", "checksum", "skippable frame", "magic only", "dictionary", "nothing"],
)
def test_only_the_start_of_an_endless_frame_starts_a_chain(start: bytes) -> None:
    with pytest.raises(ProtocolError):
        ChainUnpacker(LOG).unpack(start, len(TEXT))


def test_after_an_error_nothing_decodes_until_a_new_chain() -> None:
    packer, unpacker = ChainPacker(3, LOG), ChainUnpacker(LOG)
    assert unpacker.unpack(packer.pack(TEXT), len(TEXT)) == TEXT
    with pytest.raises(ProtocolError):
        unpacker.unpack(packer.pack(TEXT), len(TEXT) - 1)
    with pytest.raises(ProtocolError, match="after one that did not decode"):
        unpacker.unpack(packer.pack(TEXT), len(TEXT))
    assert ChainUnpacker(LOG).unpack(ChainPacker(3, LOG).pack(TEXT), len(TEXT)) == TEXT


def test_a_missed_batch_never_gives_bytes_of_another_length() -> None:
    packer, unpacker = ChainPacker(3, LOG), ChainUnpacker(LOG)
    unpacker.unpack(packer.pack(NOISE), len(NOISE))
    packer.pack(TEXT)
    with contextlib.suppress(ProtocolError):
        assert len(unpacker.unpack(packer.pack(NOISE + TEXT), len(NOISE + TEXT))) == len(NOISE + TEXT)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 1), st.integers(0, 1 << 16), st.integers(0, 255))
def test_a_damaged_body_decodes_to_the_length_that_was_said_or_is_refused(which: int, place: int, value: int) -> None:
    packer, unpacker = ChainPacker(3, LOG), ChainUnpacker(LOG)
    for number, raw in enumerate((TEXT, TEXT[:60_000] + NOISE[:60_000])):
        body = bytearray(packer.pack(raw))
        if number == which:
            body[place % len(body)] = value
        try:
            assert len(unpacker.unpack(body, len(raw))) == len(raw)
        except ProtocolError:
            return


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300), st.integers(-1, MAX_TOKENS + 1), st.booleans())
def test_any_body_decodes_to_the_length_that_was_said_or_is_refused(body: bytes, length: int, later: bool) -> None:
    unpacker = ChainUnpacker(LOG)
    if later:
        unpacker.unpack(ChainPacker(3, LOG).pack(TEXT), len(TEXT))
    try:
        assert len(unpacker.unpack(body, length)) == length
    except ProtocolError:
        return


def test_an_unusable_window_is_refused() -> None:
    for log in (19, 28):
        with pytest.raises(ValueError, match="window_log"):
            ChainPacker(3, log)
