"""Reassembly and the digest gate: in order, once, verified, bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp.errors import DigestMismatch, ProtocolError
from dwcp.flow import EMPTY_DIGEST, Gate, Reassembly
from dwcp.transport.frames import MAX_UNACKED_FRAMES, MAX_UNACKED_RAW

batches = st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=30)


@given(batches, st.data())
def test_any_order_with_repeats_comes_out_in_order_and_once(parts: list[bytes], data: st.DataObject) -> None:
    numbered = list(enumerate(parts))
    arrivals = data.draw(st.permutations(numbered + data.draw(st.lists(st.sampled_from(numbered), max_size=20))))
    reassembly: Reassembly[bytes] = Reassembly()
    out: list[bytes] = []
    for seq, part in arrivals:
        reassembly.add(seq, part, len(part))
        while reassembly.ready():
            out.append(reassembly.take())
            assert reassembly.settle() == len(out)
    assert out == parts
    assert reassembly.held == 0
    assert reassembly.acked == len(parts)


@given(batches, st.data())
def test_the_gate_admits_exactly_what_was_read(parts: list[bytes], data: st.DataObject) -> None:
    sender, receiver = Gate(), Gate()
    digests = [sender.add(part) for part in parts]
    place = data.draw(st.integers(0, len(parts) - 1))
    for part, digest in zip(parts[:place], digests, strict=False):
        receiver.admit(part, digest)
    damaged = bytearray(parts[place])
    bit = data.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DigestMismatch):
        receiver.admit(bytes(damaged), digests[place])


def test_a_missing_or_swapped_batch_does_not_pass_the_gate() -> None:
    sender, receiver = Gate(), Gate()
    _, second = sender.add(b"one"), sender.add(b"two")
    with pytest.raises(DigestMismatch):
        receiver.admit(b"two", second)


def test_the_digest_does_not_depend_on_how_the_bytes_were_cut() -> None:
    whole, parts = Gate(), Gate()
    assert whole.digest == EMPTY_DIGEST
    whole.add(b"some bytes")
    parts.add(b"some ")
    assert parts.add(b"bytes") == whole.digest


def test_what_is_unsettled_is_bounded_in_frames_and_bytes() -> None:
    reassembly: Reassembly[bytes] = Reassembly()
    with pytest.raises(ProtocolError):
        reassembly.add(MAX_UNACKED_FRAMES, b"", 0)
    assert reassembly.add(MAX_UNACKED_FRAMES - 1, b"", 0)
    assert reassembly.add(0, b"", MAX_UNACKED_RAW)
    with pytest.raises(ProtocolError):
        reassembly.add(1, b"", 1)
    reassembly.take()
    with pytest.raises(ProtocolError):
        reassembly.add(1, b"", 1)  # taken is not settled: it may still wait for the local socket
    reassembly.settle()
    assert reassembly.add(1, b"", 1)
