"""Two halves over any stream: the file arrives exactly, only what is missing is sent, and no bytes do harm."""

from __future__ import annotations

import random
import socket
import threading
from array import array
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp.encoding import transfer
from dwcp.encoding.chunks import HOLE, Chunker, chunk_id
from dwcp.encoding.rebuild import FileChunks, Rebuild, fill
from dwcp.encoding.recipe import Builder, Recipe
from dwcp.encoding.transfer import Half, Receiver, Sender, Type, carry
from dwcp.errors import DigestMismatch, DwcpError, ProtocolError, TransferFailed
from dwcp.transport.frames import Buffer


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def recipe_of(data: bytes) -> Recipe:
    chunker, builder = Chunker(), Builder()
    builder.add(chunker.feed(data))
    builder.add(chunker.end())
    return builder.done()


OLD = noise(300_000) + bytes(5 * HOLE) + b"text, and more text. " * 20_000 + bytes(HOLE)
NEW = b"!" + OLD[:250_000] + noise(5000, 1) + OLD[250_000:]


class Shelf:
    """A sink in memory that may have chunks already."""

    def __init__(self, recipe: Recipe, have: dict[bytes, bytes] | None = None) -> None:
        self.recipe = recipe
        self.chunks = dict(have or {})
        self.finished = False

    def missing(self) -> list[int]:
        wanted = {self.recipe.id(piece): piece for piece in reversed(range(len(self.recipe.lengths)))}
        return sorted(p for name, p in wanted.items() if self.recipe.lengths[p] > 0 and name not in self.chunks)

    def put(self, piece: int, data: Buffer) -> None:
        self.chunks[self.recipe.id(piece)] = bytes(data)

    def finish(self) -> None:
        assert blake3(self.bytes()).digest() == self.recipe.digest
        self.finished = True

    def bytes(self) -> bytes:
        lengths = enumerate(self.recipe.lengths)
        return b"".join(bytes(-n) if n < 0 else self.chunks[self.recipe.id(piece)] for piece, n in lengths)


class Ends:
    """Both halves of one transfer of `data`, joined by hand."""

    def __init__(self, data: bytes, have: dict[bytes, bytes] | None = None) -> None:
        self.recipe = recipe_of(data)
        offsets = self.recipe.offsets()
        self.sender = Sender(self.recipe, lambda piece: data[offsets[piece] :][: self.recipe.lengths[piece]])
        self.shelf = Shelf(self.recipe)
        self.receiver = Receiver(self._take)
        self._have = have

    def _take(self, recipe: Recipe) -> Shelf:
        self.shelf = Shelf(recipe, self._have)
        return self.shelf

    def run(self, dice: random.Random | None = None, stop_after: int = 1 << 60) -> None:
        """To the end, or until so many bytes have passed; with `dice` in portions of any size."""
        passed = 0
        while not (self.sender.done and self.receiver.done):
            for one, other in ((self.sender, self.receiver), (self.receiver, self.sender)):
                out = one.pull(dice.choice((1, 5000, 1 << 20)) if dice else 1 << 20)
                while out:
                    size = dice.choice((1, 100, 70_000)) if dice else len(out)
                    part, out = out[:size], out[size:]
                    passed += len(part)
                    if passed > stop_after:
                        return
                    other.feed(part)


@pytest.mark.parametrize("kind", range(6))
@pytest.mark.parametrize("seed", range(4))
def test_the_file_arrives_however_the_stream_cuts_it(seed: int, kind: int) -> None:
    data = (NEW, b"", b"\0", bytes(100_000), noise(1 << 21), noise(40_000) * 30)[kind]
    ends = Ends(data)
    ends.run(random.Random(seed))
    assert ends.shelf.finished
    assert ends.shelf.bytes() == data


def test_only_what_is_missing_is_sent() -> None:
    first = Ends(OLD)
    first.run()
    second = Ends(NEW, first.shelf.chunks)
    second.run()
    assert second.shelf.bytes() == NEW
    assert second.sender.wire_out < 150_000 < first.sender.wire_out
    third = Ends(NEW, second.shelf.chunks)
    third.run()
    assert third.sender.wire_out < 3000
    assert third.receiver.wire_in == third.sender.wire_out


def test_text_is_compressed_on_the_way() -> None:
    ends = Ends(b"".join(b"line %d of a log, much like the one before\n" % n for n in range(50_000)))
    ends.run()
    assert ends.sender.wire_out < len(ends.shelf.bytes()) / 5


@given(st.integers(0, 520_000))
@settings(max_examples=40)
def test_a_stream_cut_at_any_byte_is_gone_on_with_by_the_next(place: int) -> None:
    first = Ends(noise(400_000) + OLD[300_000:])
    first.run(stop_after=place)
    for half in (first.sender, first.receiver):
        if not half.done:
            with pytest.raises(TransferFailed, match="the stream ended"):
                half.feed(b"")
        assert half.done
    second = Ends(noise(400_000) + OLD[300_000:], first.shelf.chunks)
    second.run()
    assert second.shelf.finished
    assert first.sender.wire_out + second.sender.wire_out < 600_000 + (1 << 20)


@given(st.integers(0, 400_000), st.integers(1, 255), st.booleans())
@settings(max_examples=60)
def test_a_byte_changed_on_the_way_never_reaches_the_file(place: int, flip: int, back: bool) -> None:
    ends = Ends(NEW)
    seen = 0
    try:
        for _ in range(100):
            for one, other in ((ends.sender, ends.receiver), (ends.receiver, ends.sender)):
                out = bytearray(one.pull())
                if (one is ends.receiver) == back and seen <= place < seen + len(out):
                    out[place - seen] ^= flip
                seen += len(out) if (one is ends.receiver) == back else 0
                if out:
                    other.feed(out)
            if ends.sender.done and ends.receiver.done:
                break
    except (ProtocolError, DigestMismatch, TransferFailed):
        pass
    for name, data in ends.shelf.chunks.items():
        assert chunk_id(data) == name
    if ends.shelf.finished:
        assert ends.shelf.bytes() == NEW


def message(kind: Type | int, payload: bytes = b"") -> bytes:
    return transfer._HEAD.pack(len(payload), kind) + payload


def told(half: Half) -> str:
    """The last words of a half that failed."""
    out = half.pull()
    assert out[4] == Type.FAILED
    return out[5:].decode()


@given(st.binary(max_size=300), st.sampled_from([*Type, 0, 99]), st.booleans(), st.booleans())
def test_any_bytes_are_taken_or_a_known_error(payload: bytes, kind: int, asked: bool, framed: bool) -> None:
    ends = Ends(NEW)
    if asked:  # both are past the recipe
        ends.receiver.feed(ends.sender.pull())
        ends.sender.feed(ends.receiver.pull())
    for half in (ends.sender, ends.receiver):
        try:
            half.feed(message(kind, payload) if framed else payload or b"x")
            half.pull()
        except (ProtocolError, DigestMismatch, TransferFailed):
            assert half.done


def test_a_message_too_large_is_refused_before_it_has_come() -> None:
    receiver = Ends(NEW).receiver
    with pytest.raises(ProtocolError, match="not of this protocol"):
        receiver.feed(transfer._HEAD.pack(1 << 31, Type.OFFER))
    assert "not of this protocol" in told(receiver)
    assert receiver.pull() == b""


def test_what_is_not_due_is_refused() -> None:
    for half, kind in (
        (Ends(NEW).receiver, Type.CHUNKS),
        (Ends(NEW).sender, Type.OFFER),
        (Ends(NEW).sender, Type.DONE),
    ):
        with pytest.raises(ProtocolError):
            half.feed(message(kind, bytes(48 if kind is Type.OFFER else 32)))


@pytest.mark.parametrize("runs", [[(0, 0)], [(0, 9999)], [(5, 1), (5, 1)], [(5, 1), (2, 1)], [(1 << 31, 1)]])
def test_pieces_that_cannot_be_asked_for_are_refused(runs: list[tuple[int, int]]) -> None:
    sender = Ends(noise(500_000)).sender
    sender.pull()
    with pytest.raises(ProtocolError, match="cannot be asked for"):
        sender.feed(message(Type.WANT, b"".join(transfer._RUN.pack(*run) for run in runs)))


def test_a_hole_cannot_be_asked_for() -> None:
    sender = Ends(b"x" + bytes(100_000)).sender
    with pytest.raises(ProtocolError, match="hole"):
        sender.feed(message(Type.WANT, transfer._RUN.pack(0, 2)))


@pytest.mark.parametrize("which", [0, 1])
def test_a_recipe_other_than_the_offered_one_is_refused(which: int) -> None:
    ends, other = Ends(noise(50_000)), Ends(noise(50_000, 1))
    offer, rest = ends.sender.pull()[:53], other.sender.pull()[53:]
    assert len(offer) == 53
    if which:
        rest = other.sender.pull()[:53] + rest
    with pytest.raises(ProtocolError):
        ends.receiver.feed(offer)
        ends.receiver.feed(rest)


def test_a_recipe_above_the_limit_is_refused_unread() -> None:
    receiver = Receiver(Shelf, limit=100_000)
    with pytest.raises(ProtocolError, match="raise the limit"):
        receiver.feed(Ends(noise(1 << 20)).sender.pull())


def test_a_wrong_chunk_is_not_given_on() -> None:
    ends = Ends(noise(5000))
    ends.receiver.feed(ends.sender.pull())
    ends.receiver.pull()
    with pytest.raises(DigestMismatch, match="not written"):
        ends.receiver.feed(message(Type.CHUNKS, transfer._CHUNKS.pack(1, 0, 5000) + noise(5000, 1)))
    assert not ends.shelf.chunks


def test_a_file_that_changed_since_its_recipe_is_not_sent() -> None:
    recipe = recipe_of(noise(5000))
    sender, receiver = Sender(recipe, lambda piece: noise(5000, 1)), Receiver(Shelf)
    receiver.feed(sender.pull())
    sender.feed(receiver.pull())
    with pytest.raises(TransferFailed, match="has changed since"):
        sender.pull()
    with pytest.raises(TransferFailed, match="the other end gave up: piece 0 has changed"):
        receiver.feed(sender.pull())
    assert receiver.pull() == b""


def test_a_receiver_that_took_another_file_is_found() -> None:
    ends = Ends(b"")
    ends.receiver.feed(ends.sender.pull())
    ends.receiver.pull()
    ends.sender.feed(message(Type.ENOUGH))
    with pytest.raises(ProtocolError, match="another file"):
        ends.sender.feed(message(Type.DONE, bytes(32)))


def test_a_recipe_whose_lengths_do_not_fit_its_chunks_ends_in_an_error_not_in_a_file() -> None:
    honest = recipe_of(noise(5000))
    lying = Recipe(array("q", [4999]), honest.ids, honest.digest)
    sender, receiver = Sender(lying, lambda piece: noise(5000)), Receiver(Shelf)
    receiver.feed(sender.pull())
    sender.feed(receiver.pull())
    with pytest.raises(TransferFailed):
        sender.pull()


def test_a_file_goes_over_a_socket_to_a_host_with_an_older_one(tmp_path: Path) -> None:
    old, target = tmp_path / "old", tmp_path / "new"
    old.write_bytes(OLD)
    near, far = socket.socketpair()
    sender = Ends(NEW).sender

    def take(recipe: Recipe) -> Rebuild:
        work, have = Rebuild(recipe, target), FileChunks(old)
        fill(work, have)
        have.close()
        return work

    receiver = Receiver(take, limit=1 << 30)
    thread = threading.Thread(target=carry, args=(receiver, far))
    thread.start()
    carry(sender, near)
    thread.join()
    assert target.read_bytes() == NEW
    assert sender.wire_out < 150_000
    near.close()
    far.close()


def test_a_half_that_fails_tells_the_other_over_the_stream() -> None:
    near, far = socket.socketpair()
    errors: list[DwcpError] = []

    def receive() -> None:
        try:
            carry(Receiver(Shelf, limit=10), far)
        except DwcpError as error:
            errors.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    with pytest.raises(TransferFailed, match=r"the other end gave up.*raise the limit"):
        carry(Ends(noise(100_000)).sender, near)
    thread.join()
    assert isinstance(errors[0], ProtocolError)
    near.close()
    far.close()
