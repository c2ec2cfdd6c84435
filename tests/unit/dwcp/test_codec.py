"""Codecs and the choice among them."""

from __future__ import annotations

import os

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dwcp.encoding.chooser import DWELL_SECONDS, PRIOR_GAIN, PRIOR_SECONDS, PROBE_EVERY, Chooser, allowed_rungs
from dwcp.encoding.codec import CHAIN_LEVELS, Coder, Rung
from dwcp.encoding.codec import RUNGS as ALL_RUNGS
from dwcp.errors import ProtocolError
from dwcp.transport.frames import MAX_BATCH, Codec
from dwcp.transport.hello import ALL_FEATURES, Features

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


def settled(chooser: Chooser, link: float, *, gain: float = 1.0, slow: float = 1.0, wall: float = 1.0) -> Rung:
    """The choice after a minute on this link: `gain` and `slow` scale the priors, `wall` is wall over CPU time."""
    now = 0.0
    for _ in range(600):
        now += DWELL_SECONDS / 7
        chooser.link(link, limited=True)
        rung = chooser.next(now)
        if rung != "none":
            cpu = PRIOR_SECONDS[rung] * slow * 1e6
            chooser.observe(rung, 1_000_000, int(1e6 * (1 - PRIOR_GAIN[rung] * gain)), cpu, cpu * wall)
    return chooser.choice.rung


@pytest.mark.parametrize(
    ("link", "rung"), [(1e6, "zstd5"), (12e6, "zstd5"), (110e6, "zstd1"), (200e6, "lz4"), (3e9, "none")]
)
def test_a_slower_link_gets_a_smaller_codec(link: float, rung: Rung) -> None:
    assert settled(Chooser(RUNGS, cores=1), link) == rung


def test_a_link_that_turns_out_slow_gets_the_smallest_codec_though_each_step_gains_little() -> None:
    chooser = Chooser(RUNGS, cores=1)
    assert settled(chooser, 110e6, gain=0.95) == "zstd1"
    assert settled(chooser, 11.8e6, gain=0.95) == "zstd5"


def test_a_processor_that_is_taken_gets_a_cheaper_codec() -> None:
    assert RUNGS.index(settled(Chooser(RUNGS, 1), 40e6, wall=6.0)) < RUNGS.index(settled(Chooser(RUNGS, 1), 40e6))
    assert RUNGS.index(settled(Chooser(RUNGS, 1), 40e6, slow=6.0)) < RUNGS.index(settled(Chooser(RUNGS, 1), 40e6))


def test_random_content_is_not_compressed_and_compressible_content_is_found_again() -> None:
    chooser = Chooser(RUNGS, 1)
    assert settled(chooser, 12e6, gain=0.0) == "none"
    assert settled(chooser, 12e6, gain=1.0) == "zstd5"


def test_the_choice_stands_for_a_while_and_only_neighbours_are_tried() -> None:
    chooser = Chooser(RUNGS, 1)
    start = chooser.choice.rung
    tried = {chooser.next(0.0) for _ in range(PROBE_EVERY * 4)}
    place = RUNGS.index(start)
    assert tried == set(RUNGS[place - 1 : place + 2])


def test_a_rate_that_the_link_did_not_limit_is_only_a_lower_bound() -> None:
    chooser = Chooser(RUNGS, 1)
    before = chooser.throughput("none")
    chooser.link(1e6, limited=False)
    assert chooser.throughput("none") == before


def test_configuration_and_peer_bound_the_choice() -> None:
    assert allowed_rungs("auto", ALL_FEATURES) == RUNGS
    assert allowed_rungs("lz4", ALL_FEATURES) == ("lz4",)
    assert allowed_rungs("zstd", Features.LZ4) == ("none",)
    assert allowed_rungs("auto", Features.LZ4) == ("none", "lz4")
    assert Chooser(("none",), 2).next(0.0) == "none"
