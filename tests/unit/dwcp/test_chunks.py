"""The cutter: cuts depend on the bytes alone, both implementations cut alike, an edit moves few of them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from dwcp.encoding import chunks, chunks_py
from dwcp.encoding.chunks import AHEAD, GEAR, HOLE, LEAST, MOST, SIZES, Chunker, Piece, chunk_id

SMALL = (64, 128, 512, 96, 1 << 57, 1 << 60)
"""Sizes at which a few kilobytes are many chunks."""
try:
    from dwcp.encoding._chunks import split as c_split
except ImportError:
    c_split = chunks_py.split
needs_c = pytest.mark.skipif(c_split is chunks_py.split, reason="the C twin is not built here")


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Noise, zeros of all lengths around the hole's, repeats."""
    parts = []
    for _ in range(draw(st.integers(0, 8))):
        size, seed = draw(st.integers(0, 2000)), draw(st.integers(0, 5))
        zeros = draw(st.integers(0, 3 * SMALL[3]))
        parts += [random.Random(seed).randbytes(size), bytes(zeros)]
    return b"".join(parts)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@needs_c
@given(files(), st.booleans(), st.booleans())
def test_the_c_twin_cuts_as_the_definition_does(data: bytes, inside: bool, final: bool) -> None:
    assert c_split(data, GEAR, SMALL, inside, final) == chunks_py.split(data, GEAR, SMALL, inside, final)


@needs_c
def test_the_c_twin_cuts_a_megabyte_as_the_definition_does() -> None:
    data = noise(600_000) + bytes(HOLE) + noise(300_000, 1) + bytes(HOLE - 1) + b"x" * 200_000
    assert c_split(data, GEAR, SIZES, False, True) == chunks_py.split(data, GEAR, SIZES, False, True)


@given(files())
def test_holes_are_the_longest_runs_of_zeros_and_chunks_are_cut_between_them(data: bytes) -> None:
    holes = [(found.start(), found.end()) for found in re.finditer(rb"\0{%d,}" % SMALL[3], data)]
    place, seen = 0, []
    for length in chunks_py.split(data, GEAR, SMALL, False, True):
        if length < 0:
            seen.append((place, place - length))
        place += abs(length)
    assert place == len(data)
    assert seen == holes


@given(files(), st.data())
def test_a_prefix_gives_pieces_that_no_more_bytes_can_change(data: bytes, choice: st.DataObject) -> None:
    whole = chunks_py.split(data, GEAR, SMALL, False, True)
    cut = choice.draw(st.integers(0, len(data)))
    early = c_split(data[:cut], GEAR, SMALL, False, False)
    if early and early[-1] < 0:
        assert whole[len(early) - 1] <= early.pop()
    assert early == whole[: len(early)]


def portions(data: bytes, dice: random.Random) -> Iterator[bytes]:
    place = 0
    while place < len(data):
        size = dice.choice((1, 100, 5000, 70_000, 400_000))
        yield data[place : place + size]
        place += size


def pieces_of(*parts: bytes) -> list[Piece]:
    chunker = Chunker()
    return [piece for part in parts for piece in chunker.feed(part)] + chunker.end()


def joined(pieces: list[Piece]) -> bytes:
    return b"".join(bytes(piece.length) if piece.data is None else piece.data for piece in pieces)


GOLDEN = [21410, 24494, 10700, 16847, 26898, 19059, 17454, 4845, 8293]
SPARSE = noise(300_000) + bytes(3 * HOLE) + noise(1000, 1) + bytes(HOLE - 1) + noise(200_000, 2) + bytes(5 * AHEAD)


@pytest.mark.parametrize("seed", range(20))
def test_pieces_do_not_depend_on_how_the_bytes_come(seed: int) -> None:
    dice = random.Random(seed)
    data = SPARSE[dice.randrange(300_000) :] + dice.choice((b"", b"end"))
    whole = pieces_of(data)
    assert joined(whole) == data
    assert pieces_of(*portions(data, dice)) == whole


@pytest.mark.parametrize("seed", range(20))
def test_zeros_that_are_skipped_are_zeros_that_are_fed(seed: int) -> None:
    dice = random.Random(seed)
    chunker, pieces, fed = Chunker(), [], b""
    for _ in range(12):
        zeros = dice.choice((0, 1, 1000, HOLE - 1, HOLE, HOLE + 1, 3 * AHEAD))
        part = dice.choice((b"", bytes(500), noise(1, seed), noise(60_000, seed), noise(200_000, seed) + bytes(9000)))
        pieces += chunker.feed(part)
        pieces += chunker.skip(zeros)
        fed += part + bytes(zeros)
    pieces += chunker.end()
    assert pieces == pieces_of(fed)


def test_a_skip_over_a_terabyte_takes_no_time_and_no_memory() -> None:
    chunker = Chunker()
    assert chunker.feed(b"start") + chunker.skip(1 << 40) + chunker.feed(b"end") + chunker.end() == [
        Piece(5, b"start"),
        Piece(1 << 40, None),
        Piece(3, b"end"),
    ]


def test_little_is_held_between_calls() -> None:
    chunker = Chunker()
    for part in portions(SPARSE * 3, random.Random(1)):
        chunker.feed(part)
        assert len(chunker._held) < AHEAD


def test_chunks_keep_their_bounds_and_about_their_size() -> None:
    lengths = [piece.length for piece in pieces_of(noise(8 << 20))]
    assert max(lengths) <= MOST
    assert min(lengths[:-1]) >= LEAST
    assert 14_000 < sum(lengths) / len(lengths) < 22_000


def test_bytes_that_never_cut_are_cut_at_the_most() -> None:
    assert [piece.length for piece in pieces_of(b"\1" * (2 * MOST + 5))] == [MOST, MOST, 5]


@pytest.mark.parametrize("place", [0, 1, 100_000, 1_000_000])
def test_an_edit_changes_only_the_chunks_around_it(place: int) -> None:
    data = noise(2 << 20)
    old = {chunk_id(piece.data) for piece in pieces_of(data) if piece.data}
    for edited in (data[:place] + b"!" + data[place:], data[:place] + data[place + 1 :]):
        fresh = [piece.length for piece in pieces_of(edited) if piece.data and chunk_id(piece.data) not in old]
        assert sum(fresh) <= 4 * MOST


def test_the_table_is_what_its_seed_gives_and_cuts_are_what_they_were() -> None:
    """Golden: a change of these makes every recipe ever written useless."""
    assert blake3(b"novacron content-defined chunks, version 1").digest(length=2048) == GEAR
    assert [piece.length for piece in pieces_of(noise(150_000))] == GOLDEN


def test_impossible_sizes_are_refused_by_both() -> None:
    for split in (c_split, chunks_py.split, chunks.split):
        for sizes in ((63, 64, 64, 1, 1, 1), (128, 64, 64, 1, 1, 1), (64, 64, 64, 0, 1, 1)):
            with pytest.raises(ValueError):
                split(b"x", GEAR, sizes, False, True)
        with pytest.raises(ValueError):
            split(b"x", GEAR[1:], SMALL, False, True)
