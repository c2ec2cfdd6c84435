"""Send a file to a host that has an older or similar one, over any stream of bytes: halves without input or output.

    sender                                   receiver
    OFFER, RECIPE ... RECIPE   ───────────▶  looks what it has of it
                               ◀───────────  WANT ... WANT, ENOUGH
    CHUNKS ... CHUNKS          ───────────▶  verifies each, writes it, then the whole
                               ◀───────────  DONE

One side speaks at a time, so that neither can block the other on a stream that is full both ways. Every message is
`length u32 | type u8 | payload` (docs/chunks.md has the payloads), integers big-endian. Either side may say FAILED,
with a text, and stop. A stream that ends early costs nothing but the way there: the next attempt asks for what is
missing then.

    half = Sender(recipe, read)              # or Receiver(take)
    while not half.done:
        if out := half.pull():  write(out)   # what it has to say, a megabyte or so at a time
        else:                   half.feed(read())    # b"" at the end of the stream

Invariants: a message's length is judged by its type before its payload is awaited; a recipe is bounded by what the
receiver allows; a chunk's length is known from the recipe before it is decoded, and its name holds before it is given
on; whatever bytes come in, the only errors are ProtocolError, TransferFailed and DigestMismatch.
"""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final, Protocol

from blake3 import blake3

from dwcp.encoding import recipe as recipes
from dwcp.encoding.chunks import chunk_id
from dwcp.encoding.codec import Coder, Rung
from dwcp.encoding.recipe import MAX_LENGTH, Recipe
from dwcp.errors import DigestMismatch, DwcpError, ProtocolError, TransferFailed
from dwcp.transport.frames import MAX_TEXT, Buffer, Codec, pack_text, unpack_text

MAGIC: Final = b"NCXF"
VERSION: Final = 1
MAX_GROUP: Final = 1 << 20
"""Raw bytes of one CHUNKS or RECIPE: chunks next to each other compress better together."""
MAX_RUNS: Final = 4096
"""Of one WANT."""
RUNG: Final[Rung] = "zstd3"
_PULL: Final = 1 << 20


class Type(IntEnum):
    OFFER = 1
    RECIPE = 2
    WANT = 3
    ENOUGH = 4
    CHUNKS = 5
    DONE = 6
    FAILED = 7


_HEAD = struct.Struct("!IB")
_OFFER = struct.Struct("!4sHHQ32s")
_BODY = struct.Struct("!BI")
_CHUNKS = struct.Struct("!HBI")
_RUN = struct.Struct("!II")
_BOUNDS: Final[dict[int, tuple[int, int]]] = {
    Type.OFFER: (_OFFER.size, _OFFER.size),
    Type.RECIPE: (_BODY.size + 1, _BODY.size + MAX_GROUP),
    Type.WANT: (_RUN.size, _RUN.size * MAX_RUNS),
    Type.ENOUGH: (0, 0),
    Type.CHUNKS: (_CHUNKS.size + 1, _CHUNKS.size + MAX_GROUP),
    Type.DONE: (32, 32),
    Type.FAILED: (0, MAX_TEXT),
}


class Sink(Protocol):
    """Where a receiver's chunks go: dwcp.encoding.rebuild.Rebuild is one."""

    def missing(self) -> list[int]: ...

    def put(self, piece: int, data: Buffer) -> None: ...

    def finish(self) -> None: ...


class Half:
    """What both ends share: framing, the end of a stream, FAILED."""

    def __init__(self) -> None:
        self.done = False
        self.wire_in = self.wire_out = 0
        self._coder = Coder()
        self._held = bytearray()
        self._talk = self._script()
        self._failure: bytes | None = None

    def feed(self, data: Buffer) -> None:
        """What the stream gave; nothing at its end. Raises ProtocolError, TransferFailed, DigestMismatch, and what the
        sink raises; then this half is done, and `pull` gives the words for the other end."""
        if self.done:
            return
        try:
            if not len(data):
                raise TransferFailed("the stream ended in the middle of a transfer; try again, it goes on from there")
            self.wire_in += len(data)
            self._held += data
            while not self.done and (message := self._next_message()):
                if message[0] is Type.FAILED:
                    self.done = True
                    raise TransferFailed(f"the other end gave up: {unpack_text(message[1])}")
                self._heard(*message)
        except (DwcpError, OSError) as error:
            self._fail(error)
            raise

    def pull(self, size: int = _PULL) -> bytes:
        """The next bytes for the stream, of one message at least; nothing: it is the other end's turn. Raises what
        reading the file raises."""
        if self._failure is not None:
            out, self._failure = self._failure, None
            return out
        if self.done:
            return b""
        parts, total = [], 0
        try:
            while total < size and (part := next(self._talk, b"")):
                parts.append(part)
                total += len(part)
        except (DwcpError, OSError) as error:
            self._fail(error)
            raise
        self.wire_out += total
        return b"".join(parts)

    def _script(self) -> Iterator[bytes]:
        """All that this half says, in order; an empty part means: not before something was heard."""
        raise NotImplementedError

    def _heard(self, kind: Type, payload: bytes) -> None:
        raise NotImplementedError

    def _expected(self) -> frozenset[Type]:
        """What the other end may say now, besides FAILED."""
        raise NotImplementedError

    def _next_message(self) -> tuple[Type, bytes] | None:
        if len(self._held) < _HEAD.size:
            return None
        length, kind = _HEAD.unpack_from(self._held)
        bounds = _BOUNDS.get(kind)
        if bounds is None or not bounds[0] <= length <= bounds[1]:
            raise ProtocolError(f"message of type {kind} and {length} bytes is not of this protocol; close the stream")
        if kind != Type.FAILED and kind not in self._expected():
            raise ProtocolError(f"{Type(kind).name} is not due now; close the stream")
        if len(self._held) < _HEAD.size + length:
            return None
        payload = bytes(memoryview(self._held)[_HEAD.size : _HEAD.size + length])
        del self._held[: _HEAD.size + length]
        return Type(kind), payload

    def _fail(self, error: Exception) -> None:
        if not self.done:
            self._failure = _message(Type.FAILED, pack_text(str(error)))
        self.done = True

    def _unpack(self, codec: int, raw_length: int, body: bytes) -> Buffer:
        if not 1 <= raw_length <= MAX_GROUP or codec not in (Codec.NONE, Codec.ZSTD):
            raise ProtocolError(f"a body of {raw_length} bytes in codec {codec} is not of this protocol")
        return self._coder.decode(Codec(codec), body, raw_length)


class Sender(Half):
    def __init__(self, recipe: Recipe, read: Callable[[int], Buffer]) -> None:
        """`read` gives the bytes of a piece of the recipe; they are verified, so the file may change: then it fails."""
        super().__init__()
        self._recipe = recipe
        self._read = read
        self._runs: deque[tuple[int, int]] = deque()
        self._next_piece = 0
        self._enough = False

    def _expected(self) -> frozenset[Type]:
        return frozenset({Type.DONE}) if self._enough else frozenset({Type.WANT, Type.ENOUGH})

    def _heard(self, kind: Type, payload: bytes) -> None:
        if kind is Type.WANT:
            if len(payload) % _RUN.size:
                raise ProtocolError(f"WANT of {len(payload)} bytes is no multiple of {_RUN.size}; close the stream")
            for first, count in _RUN.iter_unpack(payload):
                self._add_run(first, count)
        elif kind is Type.ENOUGH:
            self._enough = True
        elif payload != self._recipe.digest:
            raise ProtocolError("the other end took another file than was sent; compare releases")
        else:
            self.done = True

    def _add_run(self, first: int, count: int) -> None:
        """In the recipe's order and each piece once, so that there is a bound to what can be asked for."""
        if not count or first < self._next_piece or first + count > len(self._recipe.lengths):
            raise ProtocolError(f"pieces {first}+{count} cannot be asked for (again); close the stream")
        if min(self._recipe.lengths[first : first + count]) < 0:
            raise ProtocolError(f"of pieces {first}+{count} one is a hole; close the stream")
        self._next_piece = first + count
        self._runs.append((first, count))

    def _script(self) -> Iterator[bytes]:
        encoded = self._recipe.encode()
        yield _message(Type.OFFER, _OFFER.pack(MAGIC, VERSION, 0, len(encoded), blake3(encoded).digest()))
        for place in range(0, len(encoded), MAX_GROUP):
            part = encoded[place : place + MAX_GROUP]
            codec, body = self._coder.encode(RUNG, part)
            yield _message(Type.RECIPE, _BODY.pack(codec, len(part)), body)
        del encoded
        while not self._enough:
            yield b""
        group: list[Buffer] = []
        size = 0
        while self._runs:
            first, count = self._runs.popleft()
            for piece in range(first, first + count):
                data = self._chunk(piece)
                if size + len(data) > MAX_GROUP:
                    yield self._chunks(group)
                    group, size = [], 0
                group.append(data)
                size += len(data)
        if group:
            yield self._chunks(group)

    def _chunk(self, piece: int) -> Buffer:
        data = self._read(piece)
        if len(data) != self._recipe.lengths[piece] or chunk_id(data) != self._recipe.id(piece):
            raise TransferFailed(f"piece {piece} has changed since the recipe was made; make it anew, and try again")
        return data

    def _chunks(self, group: list[Buffer]) -> bytes:
        raw = b"".join(group)
        codec, body = self._coder.encode(RUNG, raw)
        return _message(Type.CHUNKS, _CHUNKS.pack(len(group), codec, len(raw)), body)


class Receiver(Half):
    def __init__(self, take: Callable[[Recipe], Sink], limit: int = MAX_LENGTH) -> None:
        """`take` is called once, with the recipe of a file of at most `limit` bytes."""
        super().__init__()
        self._take = take
        self._limit = limit
        self._encoded = bytearray()
        self._size = -1
        self._name = b""
        self.recipe: Recipe | None = None
        self._sink: Sink | None = None
        self._queue: deque[int] = deque()
        self._asked = False

    def _expected(self) -> frozenset[Type]:
        if self._size < 0:
            return frozenset({Type.OFFER})
        if self.recipe is None:
            return frozenset({Type.RECIPE})
        return frozenset({Type.CHUNKS}) if self._asked and self._queue else frozenset()

    def _heard(self, kind: Type, payload: bytes) -> None:
        if kind is Type.OFFER:
            self._offered(*_OFFER.unpack(payload))
        elif kind is Type.RECIPE:
            codec, raw_length = _BODY.unpack_from(payload)
            if raw_length > self._size - len(self._encoded):
                raise ProtocolError("the recipe is longer than was said; close the stream")
            self._encoded += self._unpack(codec, raw_length, payload[_BODY.size :])
            if len(self._encoded) == self._size:
                self._read_recipe()
        else:
            self._got(payload)

    def _offered(self, magic: bytes, version: int, zero: int, size: int, name: bytes) -> None:
        if magic != MAGIC or version != VERSION or zero:
            raise ProtocolError(f"the sender speaks {magic!r} version {version}, not {VERSION}; use the same release")
        if not recipes.size_of(0) <= size <= recipes.size_of(recipes.most_pieces(self._limit)):
            raise ProtocolError(f"a recipe of {size} bytes is above what is taken here; raise the limit")
        self._size, self._name = size, name

    def _read_recipe(self) -> None:
        if blake3(self._encoded).digest() != self._name:
            raise ProtocolError("the recipe is not the one that was offered; close the stream")
        self.recipe = recipes.decode(self._encoded, self._limit)
        self._encoded.clear()
        self._sink = self._take(self.recipe)
        self._queue.extend(self._sink.missing())

    def _got(self, payload: bytes) -> None:
        assert self.recipe is not None
        assert self._sink is not None
        count, codec, raw_length = _CHUNKS.unpack_from(payload)
        if not 1 <= count <= len(self._queue):
            raise ProtocolError(f"{count} chunks came, {len(self._queue)} are asked for; close the stream")
        pieces = [self._queue.popleft() for _ in range(count)]
        if sum(self.recipe.lengths[piece] for piece in pieces) != raw_length:
            raise ProtocolError(f"{count} chunks of {raw_length} bytes are not the ones asked for; close the stream")
        raw = memoryview(self._unpack(codec, raw_length, payload[_CHUNKS.size :]))
        place = 0
        for piece in pieces:
            data = raw[place : place + self.recipe.lengths[piece]]
            place += len(data)
            if chunk_id(data) != self.recipe.id(piece):
                raise DigestMismatch(f"piece {piece} is not the chunk that was asked for; it was not written")
            self._sink.put(piece, data)

    def _script(self) -> Iterator[bytes]:
        while self.recipe is None:
            yield b""
        runs = list(_runs(self._queue))
        for place in range(0, len(runs), MAX_RUNS):
            yield _message(Type.WANT, b"".join(_RUN.pack(*run) for run in runs[place : place + MAX_RUNS]))
        self._asked = True
        yield _message(Type.ENOUGH)
        while self._queue:
            yield b""
        assert self._sink is not None
        self._sink.finish()
        self.done = True
        yield _message(Type.DONE, self.recipe.digest)


class Stream(Protocol):
    """A connected socket, or anything like it. Deadlines are its own."""

    def recv(self, size: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...


def carry(half: Half, stream: Stream) -> None:
    """Run one half on a stream to its end. Raises what the half raises, after telling the other end; OSError."""
    try:
        while not half.done:
            if out := half.pull():
                stream.sendall(out)
            else:
                half.feed(stream.recv(_PULL))
    except (DwcpError, OSError):
        with contextlib.suppress(OSError):  # the stream may be what failed
            if out := half.pull():
                stream.sendall(out)
        raise


def _message(kind: Type, *payload: Buffer) -> bytes:
    return b"".join((_HEAD.pack(sum(map(len, payload)), kind), *payload))


def _runs(pieces: deque[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as (first, count)."""
    first = count = 0
    for piece in pieces:
        if count and piece == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = piece, 1
    if count:
        yield first, count
