"""Batches in, bodies of DATA frames out, and back. Each batch stands alone here, so lanes work in parallel.

Invariants: decoding returns exactly `raw_length` bytes or raises ProtocolError, and never allocates more than that,
whatever the body claims; what does not shrink by MIN_GAIN is sent as it is.
"""

from __future__ import annotations

import threading
from typing import Final, Literal, get_args

import lz4.block
import zstandard

from dwcp.errors import ProtocolError
from dwcp.transport.frames import MAX_TOKENS, Buffer, Codec

Rung = Literal["none", "lz4", "zstd1", "zstd3", "zstd7", "chain1", "chain3", "chain6", "chain9"]
"""A codec and its level."""
RUNGS: Final[tuple[Rung, ...]] = get_args(Rung)
LEVELS: Final[dict[Rung, int]] = {"zstd1": 1, "zstd3": 3, "zstd7": 7}
CHAIN_LEVELS: Final[dict[Rung, int]] = {"chain1": 1, "chain3": 3, "chain6": 6, "chain9": 9}
"""These see all batches of a flow, in order (dwcp/encoding/chain.py); the others each batch by itself."""
MIN_GAIN: Final = 0.03
LZ4_HASTE: Final = 4
"""LZ4's acceleration: a fifth less work for 8 % more bytes. Where bytes count, zstd is the better choice anyway."""


class Coder(threading.local):
    """Compression contexts, one set per thread: they are reused between batches, and are not thread safe."""

    def __init__(self) -> None:
        self._pack: dict[Rung, zstandard.ZstdCompressor] = {}
        self._unpack = zstandard.ZstdDecompressor(max_window_size=2 * MAX_TOKENS)

    def encode(self, rung: Rung, raw: Buffer) -> tuple[Codec, Buffer]:
        """The codec used (NONE where `rung` does not pay) and the body; with NONE the body is `raw` itself."""
        if rung == "none":
            return Codec.NONE, raw
        if rung == "lz4":
            codec, body = Codec.LZ4, lz4.block.compress(raw, mode="fast", acceleration=LZ4_HASTE, store_size=False)
        else:
            packer = self._pack.get(rung)
            if packer is None:
                packer = zstandard.ZstdCompressor(level=LEVELS[rung], write_checksum=False, write_dict_id=False)
                self._pack[rung] = packer
            codec, body = Codec.ZSTD, packer.compress(raw)
        if len(body) > len(raw) * (1 - MIN_GAIN):
            return Codec.NONE, raw
        return codec, body

    def decode(self, codec: Codec, body: Buffer, raw_length: int) -> Buffer:
        """The raw bytes; with NONE that is `body` itself. Raises ProtocolError."""
        if not 1 <= raw_length <= MAX_TOKENS:
            raise ProtocolError(f"a batch of {raw_length} bytes is outside 1..{MAX_TOKENS}; close the lane")
        if codec is Codec.NONE:
            raw = body
        elif codec is Codec.LZ4:
            try:
                raw = lz4.block.decompress(body, uncompressed_size=raw_length)
            except (lz4.block.LZ4BlockError, ValueError) as error:
                raise ProtocolError(f"lz4 body does not decode: {error}; close the lane") from error
        else:
            raw = self._decode_zstd(body, raw_length)
        if len(raw) != raw_length:
            raise ProtocolError(f"body decodes to {len(raw)} bytes, header says {raw_length}; close the lane")
        return raw

    def _decode_zstd(self, body: Buffer, raw_length: int) -> bytes:
        try:
            # The binding allocates what the frame's own header claims, so that is checked first.
            claimed = zstandard.frame_content_size(body)
            if claimed != raw_length:
                raise ProtocolError(f"zstd frame claims {claimed} bytes, header says {raw_length}; close the lane")
            return self._unpack.decompress(body, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ProtocolError(f"zstd body does not decode: {error}; close the lane") from error
