"""Batches of one direction as one zstd frame that never ends: each may refer to everything before it, up to a window.

Every batch is flushed to a block border, so it decodes alone given all before it. The price: packing is one thread, in
order, and unpacking too, after reassembly. Worth it only on a slow link (bench/regret.py). A chain may start anew at
any batch; batches sent in another codec in between are no part of it, and do not disturb it.

Invariants of unpacking, whatever the body claims: exactly `raw_length` bytes or ProtocolError; no output beyond that is
made or kept; the window is at most 2^window_log bytes, checked before it is allocated; after an error nothing decodes
until a new chain starts.

Why `stream_reader`: of python-zstandard's decoders only `stream_reader` fills a buffer of the caller's (`decompressobj`
returns whatever a body swells to), it drops the GIL, and it needs no second copy of libzstd (a ctypes binding would).
Two things it does not tell are found out here. Bytes left over: the borders of a body's blocks are walked first, so it
ends at one and never ends the frame (RFC 8878, 3.1.1.2). Output left over inside the decoder: after the batch it is
offered an empty block and room for one byte, and must leave the room empty.

How the window is searched: zstd's long-distance matching finds repeats of 64 bytes and more anywhere in it, at the
price of one cheap hash; the level's own tables, which forget all but the last few MiB, find the rest. Level 9 instead
has tables for the whole window: a little smaller, at half the speed. Of 214 MB of a guest's pages, none twice, remain
(`python -m bench.measured guest`; independent batches of 1 MiB for comparison):

    rung  chain1  chain3  chain6  chain9    zstd1  zstd3  zstd7
    MB        69      65      63      61       83      77      74
    MB/s     296     203      87      47      569     362     108
"""

from __future__ import annotations

from typing import IO, Final, cast

import zstandard

from dwcp.errors import ProtocolError
from dwcp.transport.frames import MAX_TOKENS, Buffer

WINDOW_LOG: Final = 27
"""Both ends must agree: the receiver refuses a chain with a larger window."""
MIN_WINDOW_LOG: Final = 20
MAX_WINDOW_LOG: Final = 27

_WHOLE_WINDOW: Final = 9
"""The level with tables for it; they remember one place in eight: larger ones cost more memory than they gain."""
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_BLOCK_HEADER: Final = 3
_EMPTY_BLOCK: Final = bytes(_BLOCK_HEADER)
_RLE: Final = 1
_RESERVED: Final = 3
_SMALLEST_BLOCK: Final = 1024
_SPARE_BLOCKS: Final = 64
"""zstd makes blocks of 8 to 128 KiB, and a few small ones; more than these allow for only waste our time."""


class ChainPacker:
    """One chain at one level, at the sender. Not thread safe: batches must go in, and arrive, in one order."""

    def __init__(self, level: int, window_log: int = WINDOW_LOG) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, write_content_size=False, write_checksum=False, write_dict_id=False, **_search(level, window_log)
        )
        self._chain = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def pack(self, raw: Buffer) -> bytes:
        """The body of the next batch. It must be sent: what follows refers to it."""
        start = self._chain.compress(raw)
        rest = self._chain.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        return start + rest if start else rest


class ChainUnpacker:
    """The same chain at the receiver. Not thread safe."""

    def __init__(self, window_log: int = WINDOW_LOG) -> None:
        self._window = 1 << _checked(window_log)
        unpacker = zstandard.ZstdDecompressor(max_window_size=self._window)
        self._source = _Source()
        self._reader = unpacker.stream_reader(cast(IO[bytes], self._source), read_across_frames=False)
        self._begun = False
        self._broken = False
        self._out = bytearray(0)
        self._room = bytearray(1)

    def unpack(self, body: Buffer, raw_length: int) -> memoryview:
        """The raw bytes of the next batch, valid until the next call. Raises ProtocolError."""
        if not 1 <= raw_length <= MAX_TOKENS:
            raise ProtocolError(f"a batch of {raw_length} bytes is outside 1..{MAX_TOKENS}; end the session")
        if self._broken:
            raise ProtocolError("a chained batch after one that did not decode; end the session")
        self._broken = True  # until all of it has gone well
        body = memoryview(body)
        _walk(body, 0 if self._begun else self._frame_header(body), raw_length)
        if len(self._out) < raw_length:
            self._out = bytearray(raw_length)
        out = memoryview(self._out)[:raw_length]
        self._fill(out, body)
        self._begun, self._broken = True, False
        return out

    def _fill(self, out: memoryview, body: memoryview) -> None:
        """Decode `body` to exactly `out`."""
        self._source.offer(body)
        try:
            got = self._reader.readinto(out)
            if got == len(out):
                self._source.offer(_EMPTY_BLOCK)
                got += self._reader.readinto(self._room)
            raise ProtocolError(f"chained body does not decode to {len(out)} bytes, but {got} or more; end the session")
        except _DryError as dry:
            if not dry.probed:
                raise ProtocolError(f"chained body decodes to under {len(out)} bytes; end the session") from None
        except zstandard.ZstdError as error:
            raise ProtocolError(f"chained body does not decode: {error}; end the session") from error
        finally:
            self._source.clear()

    def _frame_header(self, body: memoryview) -> int:
        """The length of the header that starts a chain, once it claims nothing that was not agreed."""
        try:
            if bytes(body[:4]) != _MAGIC:
                raise ProtocolError("chained body does not start a zstd frame; end the session")
            claims = zstandard.get_frame_parameters(body)
            size = zstandard.frame_header_size(body)
        except zstandard.ZstdError as error:
            raise ProtocolError(f"chained body has no zstd frame header: {error}; end the session") from error
        known = claims.content_size != zstandard.CONTENTSIZE_UNKNOWN
        if claims.window_size > self._window or known or claims.dict_id or claims.has_checksum:
            raise ProtocolError(
                f"chain claims a window of {claims.window_size} bytes (agreed: {self._window}), a length, a dictionary "
                "or a checksum; end the session"
            )
        return size


class _DryError(Exception):
    """The decoder wants input that is not there."""

    def __init__(self, probed: bool) -> None:
        super().__init__("no more input")
        self.probed = probed
        """It has had the body and the empty block."""


class _Source:
    """What the decoder reads from: raises at the end of a batch, as an empty answer would end the chain."""

    def __init__(self) -> None:
        self._parts: list[Buffer] = []
        self._offered = 0

    def offer(self, part: Buffer) -> None:
        self._parts.append(part)
        self._offered += 1

    def clear(self) -> None:
        self._parts.clear()
        self._offered = 0

    def read(self, _size: int) -> Buffer:
        if not self._parts:
            raise _DryError(self._offered > 1)
        return self._parts.pop(0)


def _walk(body: memoryview, place: int, raw_length: int) -> None:
    """Raises ProtocolError unless `body` is whole blocks from `place` on, at least one, none of them the last."""
    end, left = len(body), _SPARE_BLOCKS + raw_length // _SMALLEST_BLOCK
    while place + _BLOCK_HEADER <= end and left:
        header = int.from_bytes(body[place : place + _BLOCK_HEADER], "little")
        kind = header >> 1 & 3
        if header & 1 or kind == _RESERVED:
            raise ProtocolError("chained body ends the chain, or holds an unknown block; end the session")
        place += _BLOCK_HEADER + (1 if kind == _RLE else header >> 3)
        left -= 1
        if place == end:
            return
    raise ProtocolError("chained body is empty, cut inside a block, or in too many blocks; end the session")


def _search(level: int, window_log: int) -> dict[str, int | bool]:
    """What differs from the level's defaults."""
    found: dict[str, int | bool] = {"window_log": _checked(window_log)}
    if level == _WHOLE_WINDOW:
        return found | {"hash_log": window_log - 3, "chain_log": window_log - 3}
    return found | {"enable_ldm": True}


def _checked(window_log: int) -> int:
    if not MIN_WINDOW_LOG <= window_log <= MAX_WINDOW_LOG:
        raise ValueError(f"window_log {window_log} is outside {MIN_WINDOW_LOG}..{MAX_WINDOW_LOG}")
    return window_log
