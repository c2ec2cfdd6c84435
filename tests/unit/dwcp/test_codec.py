"""Codecs of single batches."""

from __future__ import annotations

import os

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dwcp.encoding.codec import CHAIN_LEVELS, Coder, Rung
from dwcp.encoding.codec import RUNGS as ALL_RUNGS
from dwcp.errors import ProtocolError
from dwcp.transport.frames import MAX_BATCH, Codec

RUNGS = tuple(rung for rung in ALL_RUNGS if rung not in CHAIN_LEVELS)
TEXT = b"a page of a guest, and another one much like it. " * 3000


@pytest.mark.parametrize("rung", RUNGS)
@given(raw=st.one_of(st.binary(min_size=1, max_size=5000), st.binary(min_size=1, max_size=40).map(lambda b: b * 200)))
def test_every_codec_gives_back_what_it_was_given(rung: Rung, raw: bytes) -> None:
    coder = Coder()
    codec, body = coder.encode(rung, memoryview(raw))
    assert bytes(coder.decode(codec, body, len(raw))) == raw
    assert len(body) <= len(raw)


@pytest.mark.parametrize("rung", RUNGS)
def test_what_does_not_shrink_goes_as_it_is(rung: Rung) -> None:
    raw = os.urandom(100_000)
    codec, body = Coder().encode(rung, raw)
    assert codec is Codec.NONE
    assert body is raw


@given(st.sampled_from([Codec.LZ4, Codec.ZSTD]), st.binary(max_size=300), st.integers(-1, MAX_BATCH + 1))
def test_any_body_decodes_to_the_length_that_was_said_or_is_a_protocol_error(
    codec: Codec, body: bytes, length: int
) -> None:
    try:
        assert len(Coder().decode(codec, body, length)) == length
    except ProtocolError:
        return


@given(st.sampled_from(["lz4", "zstd1"]), st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_body_decodes_to_the_right_length_or_is_a_protocol_error(rung: Rung, place: int, value: int) -> None:
    codec, body = Coder().encode(rung, TEXT)
    damaged = bytearray(body)
    damaged[place % len(damaged)] = value
    try:
        assert len(Coder().decode(codec, bytes(damaged), len(TEXT))) == len(TEXT)
    except ProtocolError:
        return


def test_a_small_body_that_claims_gigabytes_is_refused_before_memory_is_taken() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    without_size = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20))
    for body, length in ((bomb, 4096), (without_size, 1 << 20)):
        with pytest.raises(ProtocolError):
            Coder().decode(Codec.ZSTD, body, length)
    with pytest.raises(ProtocolError):
        Coder().decode(Codec.LZ4, lz4.block.compress(bytes(1 << 20), store_size=False), 4096)
    with pytest.raises(ProtocolError):
        Coder().decode(Codec.ZSTD, zstandard.ZstdCompressor().compress(TEXT) + b"more", len(TEXT))
