"""One bulk flow's way through the encoding, at both ends: bytes -> page tokens -> chained zstd, and back.

What is here has a state that follows the flow's order, so it runs in the one thread that reads the flow, or writes it.
What needs no order (a codec for each batch by itself) is left to the lanes' threads, which work in parallel.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from dwcp.buffers import BufferPool
from dwcp.encoding.chain import ChainPacker, ChainUnpacker
from dwcp.encoding.codec import CHAIN_LEVELS, Rung
from dwcp.encoding.packed import Packed, Wanted
from dwcp.encoding.pages import Base, Decoder, Encoder, Have, Phase, bound
from dwcp.errors import ProtocolError
from dwcp.transport.frames import CHAINED, MAX_BATCH, Buffer, Codec

log = logging.getLogger(__name__)

NOT_WORTH_PACKING: Final = 512
_STOPPED: Final[frozenset[Phase]] = frozenset({"final", "device"})
_URGENT: Final[frozenset[Phase]] = frozenset({"device", "postcopy"})


class Choose(Protocol):
    """What the packer needs of the session's choice of codecs."""

    def rung(self, body: Buffer, *, urgent: bool) -> Rung: ...
    def observe(self, rung: Rung, raw: int, wire: int, cpu: float, wall: float) -> None: ...


class Knowledge(Protocol):
    """What the far end is known to have; it may become known while the flow runs."""

    base: Base | None
    have: Have | None


class Packer:
    """Source. `encoder`: None when the pages of this flow are not looked at."""

    def __init__(self, encoder: Encoder | None, choose: Choose, pool: BufferPool, known: Knowledge) -> None:
        self._encoder = encoder
        self._choose = choose
        self._pool = pool
        self._known = known
        self._chain: ChainPacker | None = None
        self._chain_rung: Rung = "none"

    def pack(self, raw: memoryview, *, flush: bool) -> Packed:
        """`flush`: the program has paused or ended, so nothing may be kept back."""
        packed = self._tokens(raw, flush) if self._encoder else Packed(len(raw), raw)
        if len(packed.body) < NOT_WORTH_PACKING:
            packed.codec = Codec.NONE
            return packed
        packed.rung = rung = self._choose.rung(packed.body, urgent=self.urgent)
        level = CHAIN_LEVELS.get(rung)
        if level is not None:
            self._pack_in_chain(packed, rung, level)
        return packed

    def _tokens(self, raw: memoryview, flush: bool) -> Packed:
        assert self._encoder
        base, have = self._known.base, self._known.have
        if self._encoder.phase in _STOPPED:
            base = have = None  # reading a store, or asking for what it lost, would prolong the pause
        self._encoder.base, self._encoder.have = base, have
        buffer = self._pool.take(bound(len(raw)))
        done = self._encoder.encode(raw, buffer, flush)
        wanted = Wanted(done.refs, done.bases, base) if done.refs else None
        return Packed(done.consumed, memoryview(buffer)[: done.size], done.size, buffer=buffer, wanted=wanted)

    @property
    def urgent(self) -> bool:
        """The guest waits for single pages, which come by post-copy, or for its devices' state."""
        return self._encoder is not None and self._encoder.phase in _URGENT

    def _pack_in_chain(self, packed: Packed, rung: Rung, level: int) -> None:
        begun, used = time.perf_counter(), time.thread_time()
        codec = Codec.CHAIN
        if self._chain is None or self._chain_rung != rung:
            self._chain, self._chain_rung, codec = ChainPacker(level), rung, Codec.CHAIN_START
        size = len(packed.body)
        body = self._chain.pack(packed.body)
        self._choose.observe(rung, size, len(body), time.thread_time() - used, time.perf_counter() - begun)
        if packed.buffer is not None:
            self._pool.give(packed.buffer)
            packed.buffer = None
        packed.body, packed.codec = body, codec


Supply = Callable[[int, Decoder, Buffer], Buffer]
"""(batch, decoder, tokens) -> the pages that the tokens refer to, in order, verified. May block: the peer sends again
what the store lost."""


class Unpacker:
    """Destination. `decoder` makes the page decoder when the first tokens come."""

    def __init__(self, decoder: Callable[[], Decoder], supply: Supply) -> None:
        self._make = decoder
        self._supply = supply
        self._decoder: Decoder | None = None
        self._chain: ChainUnpacker | None = None
        self._out = bytearray(0)

    def unpack(self, seq: int, codec: Codec, tokens: int, raw_length: int, body: Buffer) -> Buffer:
        """The raw bytes of the next batch, valid until the next call. Raises ProtocolError."""
        if codec in CHAINED:
            if codec is Codec.CHAIN_START:
                self._chain = ChainUnpacker()
            if self._chain is None:
                raise ProtocolError("a chained batch without a start of its chain; start the migration anew")
            body = self._chain.unpack(body, tokens or raw_length)
        if not tokens:
            return body
        if self._decoder is None:
            self._decoder = self._make()
            self._out = bytearray(MAX_BATCH)
        out = memoryview(self._out)
        size = self._decoder.decode(body, self._supply(seq, self._decoder, body), out)
        if size != raw_length:
            raise ProtocolError(f"tokens decode to {size} bytes, header says {raw_length}; start the migration anew")
        return out[:size]
