"""What the two ends tell each other on a plain lane, after hello, to carry on over RDMA. Pure: bytes and messages only.

    source                 destination
    Card ─────────────────▶            its queue pairs exist
         ◀───────────────── Card       as many queue pairs, connected to the source's: it can be written to
    Ready ────────────────▶            connected to the destination's: so can the source

`No` with the reason takes the place of any of the three, and ends the talk: the lane goes on over TCP. Each is the
payload of one RDMA frame: a byte that says which, then its fields, big-endian (docs/rdma.md).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from dwcp.errors import ProtocolError
from dwcp.transport import frames
from dwcp.transport.frames import Buffer, Header, Type
from dwcp.transport.ring import Shape

MAX_PAIRS: Final = 512
GID_BYTES: Final = 16

_WHICH_NO: Final = 0
_WHICH_CARD: Final = 1
_WHICH_READY: Final = 2
_CARD = struct.Struct("!16sBQIIIIH")
_PAIR = struct.Struct("!II")
_24_BITS: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Card:
    """How to reach one end."""

    gid: bytes
    """Of its device's port, as RoCE v2 forms it from an IP address."""
    mtu: int
    """Largest path MTU of the port, as verbs number them: 1 = 256 bytes to 5 = 4096."""
    address: int
    """Where its ring begins."""
    key: int
    """The right to write there; 0 at an end that is not written to."""
    shape: Shape
    pairs: tuple[tuple[int, int], ...]
    """Number and first packet sequence number of each queue pair."""


@dataclass(frozen=True, slots=True)
class Ready:
    pass


@dataclass(frozen=True, slots=True)
class No:
    reason: str


def encode(message: Card | Ready | No) -> bytes:
    """The whole frame."""
    match message:
        case Card():
            shape = message.shape
            fixed = _CARD.pack(
                message.gid,
                message.mtu,
                message.address,
                message.key,
                shape.size,
                shape.depth,
                shape.chunk,
                len(message.pairs),
            )
            payload = bytes([_WHICH_CARD]) + fixed + b"".join(_PAIR.pack(*pair) for pair in message.pairs)
        case Ready():
            payload = bytes([_WHICH_READY])
        case No():
            payload = bytes([_WHICH_NO]) + frames.pack_text(message.reason)
    return frames.head(Type.RDMA, payload)


def decode(header: Header, payload: Buffer) -> Card | Ready | No:
    """Of a verified frame. Raises ProtocolError for whatever is not exactly one of the three."""
    if header.type is not Type.RDMA or not payload:
        raise ProtocolError(f"expected RDMA, got {header.type.name} of {len(payload)} bytes; close the lane")
    which, rest = payload[0], bytes(payload[1:])
    if which == _WHICH_NO and len(rest) <= frames.MAX_TEXT:
        return No(frames.unpack_text(rest))
    if which == _WHICH_READY and not rest:
        return Ready()
    if which == _WHICH_CARD and len(rest) >= _CARD.size:
        return _decode_card(rest)
    raise ProtocolError(f"RDMA frame says {which} in {len(payload)} bytes; close the lane")


def _decode_card(raw: bytes) -> Card:
    gid, mtu, address, key, size, depth, chunk, count = _CARD.unpack_from(raw)
    if not 1 <= count <= MAX_PAIRS or len(raw) != _CARD.size + count * _PAIR.size:
        raise ProtocolError(f"card of {len(raw)} bytes names {count} queue pairs; close the lane")
    pairs = tuple(_PAIR.iter_unpack(raw[_CARD.size :]))
    if not 1 <= mtu <= 5 or any(number >= _24_BITS or first >= _24_BITS for number, first in pairs):
        raise ProtocolError(f"card with MTU {mtu}, or a number beyond 24 bits; close the lane")
    return Card(gid, mtu, address, key, Shape(size, depth, chunk), pairs)
