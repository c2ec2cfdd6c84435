"""The wire format after `hello`: bytes in, messages out, and back. No input or output happens here.

Every frame is a 32-byte header, then `length` bytes of payload; all integers are big-endian (docs/dwcp-protocol.md):

    magic u16 | type u8 | codec u8 | flow u32 | seq u64 | length u32 | raw_length u32 | xxh3_64 u64

Invariants: the length is checked against its type's bounds before a byte of payload is read; the checksum covers the
header's first 24 bytes and the payload; fields a type does not use are zero; whatever bytes come in, the only thing
raised is ProtocolError.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeVar

import xxhash

from dwcp.errors import ProtocolError

Buffer = bytes | bytearray | memoryview

MAGIC: Final = 0x4457
"""'DW'."""
MAX_BATCH: Final = 4 << 20
"""Raw bytes of one DATA frame, and the bound of its encoded body: what does not shrink is sent as it is."""
MAX_TOKENS: Final = 2 * MAX_BATCH + 2048
"""Bytes of page tokens of one batch, at most (token_bound); mostly far less than its raw bytes."""
MAX_FLOWS: Final = 256
"""Flows of one session, over its whole life. Flow 0, the session's own, comes on top."""
MAX_UNACKED_FRAMES: Final = 4096
"""Frames of one flow and direction that may be unacknowledged."""
MAX_UNACKED_RAW: Final = 64 << 20
"""Raw bytes of one flow and direction that may be unacknowledged: the bound of the receiver's memory for it."""
MAX_TEXT: Final = 512
"""Bytes of an explanation in UTF-8."""
MAX_LANE: Final = 16
"""Highest lane number: forward lanes are 0 to 15, the return lane is 16."""
DIGEST_BYTES: Final = 16

HEADER = struct.Struct("!HBBIQIIQ")
HEADER_BYTES: Final = HEADER.size
_UNSUMMED = struct.Struct("!HBBIQII")
_TOKENS = struct.Struct("!I")
_FIN = struct.Struct("!16sB")
_OPEN = struct.Struct("!II")
_RESET = struct.Struct("!IB")
_ACK = struct.Struct("!IQ")
_PING = struct.Struct("!BQ")
_BYE = struct.Struct("!B")
MAX_SERVICE: Final = 63
_NAME = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_Kind = TypeVar("_Kind", bound=IntEnum)


class Type(IntEnum):
    HELLO = 1
    WELCOME = 2
    REFUSE = 3
    RDMA = 4
    DATA = 16
    FIN = 17
    OPEN = 18
    RESET = 19
    ACK = 32
    PING = 33
    PONG = 34
    BYE = 35
    LEAVE = 36


HELLO_BYTES: Final = 84
WELCOME_BYTES: Final = 24
REFUSE_FIXED: Final = 6
RDMA_BYTES: Final = 8192
"""Of what the ends say about RDMA (dwcp/transport/cards.py) none is longer."""

_BOUNDS: Final[dict[int, tuple[int, int]]] = {
    Type.HELLO: (HELLO_BYTES, HELLO_BYTES),
    Type.WELCOME: (WELCOME_BYTES, WELCOME_BYTES),
    Type.REFUSE: (REFUSE_FIXED, REFUSE_FIXED + MAX_TEXT),
    Type.RDMA: (1, RDMA_BYTES),
    Type.DATA: (DIGEST_BYTES + 1, DIGEST_BYTES + _TOKENS.size + MAX_TOKENS),
    Type.FIN: (_FIN.size, _FIN.size),
    Type.OPEN: (_OPEN.size + 1, _OPEN.size + MAX_SERVICE),
    Type.RESET: (_RESET.size, _RESET.size + MAX_TEXT),
    Type.ACK: (_ACK.size, _ACK.size * (MAX_FLOWS + 1)),
    Type.PING: (_PING.size, _PING.size),
    Type.PONG: (_PING.size, _PING.size),
    Type.BYE: (_BYE.size, _BYE.size + MAX_TEXT),
    Type.LEAVE: (_PING.size, _PING.size),
}
_CARRIES_FLOW: Final = frozenset({Type.DATA, Type.FIN})
_CARRIES_SEQ: Final = frozenset({Type.DATA, Type.FIN, Type.OPEN, Type.RESET})


class Codec(IntEnum):
    """How the body of a DATA frame is compressed. `zstd` at any level decodes alike.

    A body under CHAIN needs the bodies of its flow before it, down to the one under CHAIN_START that began the chain.
    """

    NONE = 0
    LZ4 = 1
    ZSTD = 2
    CHAIN_START = 3
    CHAIN = 4


CHAINED: Final = frozenset({Codec.CHAIN_START, Codec.CHAIN})
PAGES: Final = 0x10
"""Bit of the codec byte: what the body decodes to are page tokens (docs/dwcp-pages.md), whose length comes first."""


class Ending(IntEnum):
    """How a direction ended at its origin: HALF = the program shut its writing side, WHOLE = it is gone."""

    HALF = 0
    WHOLE = 1


class ResetReason(IntEnum):
    """STOP ends the direction towards the frame's sender only; the others end both directions of the flow."""

    STOP = 1
    UNREACHABLE = 2
    ABORT = 3


class ByeReason(IntEnum):
    STOPPED = 0
    FAILED = 1


@dataclass(frozen=True, slots=True)
class Header:
    type: Type
    codec: int
    flow: int
    seq: int
    length: int
    raw_length: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Data:
    """One batch. `digest` is the XXH3-128 of all raw bytes of this flow and direction up to its end."""

    flow: int
    seq: int
    codec: Codec
    raw_length: int
    digest: bytes
    body: Buffer
    tokens: int = 0
    """Bytes of page tokens that the body decodes to, and they to `raw_length` bytes; 0: it is no tokens."""

    @property
    def unpacked(self) -> int:
        """Bytes that the body decompresses to."""
        return self.tokens or self.raw_length


@dataclass(frozen=True, slots=True)
class Fin:
    """The direction ends here; takes a sequence number, so it is delivered after all data."""

    flow: int
    seq: int
    digest: bytes
    ending: Ending


@dataclass(frozen=True, slots=True)
class Open:
    """On flow 0: the source accepted a connection. `ordinal` is its place in accept order."""

    seq: int
    flow: int
    ordinal: int
    service: str


@dataclass(frozen=True, slots=True)
class Reset:
    """On flow 0: a flow, or the direction towards the sender of this frame, cannot go on."""

    seq: int
    flow: int
    reason: ResetReason
    text: str


@dataclass(frozen=True, slots=True)
class Ack:
    """(flow, n): every frame of that flow below n has been written to the local socket. Repeating one is harmless."""

    entries: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Ping:
    lane: int
    token: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Echo of a Ping, on a lane of the other direction."""

    lane: int
    token: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Last frame of a lane that is given up on purpose. Its Pong says: everything that came before it was read."""

    lane: int
    token: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender's session is over; no lane is to be dialled again."""

    reason: ByeReason
    text: str


Message = Data | Fin | Open | Reset | Ack | Ping | Pong | Bye | Leave


def pack_text(text: str) -> bytes:
    """UTF-8, cut to MAX_TEXT bytes at a character's border."""
    return text.encode("utf-8", "replace")[:MAX_TEXT].decode("utf-8", "ignore").encode()


def unpack_text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError(f"text is not UTF-8: {error}; close the lane") from error


def head(
    type_: Type, payload: Buffer, body: Buffer = b"", *, codec: int = 0, flow: int = 0, seq: int = 0, raw: int = 0
) -> bytes:
    """Header and first part of the payload in one piece, to be followed by `body` on the wire."""
    first = _UNSUMMED.pack(MAGIC, type_, codec, flow, seq, len(payload) + len(body), raw)
    checksum = xxhash.xxh3_64(first)
    checksum.update(payload)
    if body:
        checksum.update(body)
    return b"".join((first, checksum.intdigest().to_bytes(8, "big"), payload))


def data_head(
    flow: int, seq: int, codec: Codec, raw_length: int, digest: bytes, body: Buffer, tokens: int = 0
) -> bytes:
    """All of a DATA frame that precedes its body, so that a large body is never copied."""
    if not tokens:
        return head(Type.DATA, digest, body, codec=codec, flow=flow, seq=seq, raw=raw_length)
    first = digest + _TOKENS.pack(tokens)
    return head(Type.DATA, first, body, codec=codec | PAGES, flow=flow, seq=seq, raw=raw_length)


def encode(message: Message) -> bytes:
    """The whole frame of `message`."""
    match message:
        case Data():
            fields = message.flow, message.seq, message.codec, message.raw_length, message.digest
            return data_head(*fields, message.body, message.tokens) + bytes(message.body)
        case Fin():
            payload = _FIN.pack(message.digest, message.ending)
            return head(Type.FIN, payload, flow=message.flow, seq=message.seq)
        case Open():
            payload = _OPEN.pack(message.flow, message.ordinal) + message.service.encode("ascii")
            return head(Type.OPEN, payload, seq=message.seq)
        case Reset():
            payload = _RESET.pack(message.flow, message.reason) + pack_text(message.text)
            return head(Type.RESET, payload, seq=message.seq)
        case Ack():
            return head(Type.ACK, b"".join(_ACK.pack(flow, seq) for flow, seq in message.entries))
        case Ping():
            return head(Type.PING, _PING.pack(message.lane, message.token))
        case Pong():
            return head(Type.PONG, _PING.pack(message.lane, message.token))
        case Leave():
            return head(Type.LEAVE, _PING.pack(message.lane, message.token))
        case Bye():
            return head(Type.BYE, _BYE.pack(message.reason) + pack_text(message.text))


def decode_header(raw: Buffer) -> Header:
    """Check everything that can be checked before the payload is read. Raises ProtocolError."""
    if len(raw) != HEADER_BYTES:
        raise ProtocolError(f"a header has {HEADER_BYTES} bytes, got {len(raw)}; close the lane")
    magic, type_, codec, flow, seq, length, raw_length, checksum = HEADER.unpack(raw)
    if magic != MAGIC:
        raise ProtocolError(f"frame starts with {magic:#06x}, not {MAGIC:#06x}; close the lane")
    bounds = _BOUNDS.get(type_)
    if bounds is None:
        raise ProtocolError(f"frame type {type_} is unknown; close the lane")
    if not bounds[0] <= length <= bounds[1]:
        raise ProtocolError(f"{Type(type_).name} of {length} bytes is outside {bounds}; close the lane")
    if type_ == Type.DATA:
        _check_data(codec, raw_length, length - DIGEST_BYTES)
    elif codec or raw_length:
        raise ProtocolError(f"{Type(type_).name} has codec {codec}, raw length {raw_length}; close the lane")
    if type_ in _CARRIES_FLOW:
        if not 1 <= flow <= MAX_FLOWS:
            raise ProtocolError(f"{Type(type_).name} for flow {flow}, outside 1..{MAX_FLOWS}; close the lane")
    elif flow:
        raise ProtocolError(f"{Type(type_).name} names flow {flow} in its header; close the lane")
    if seq and type_ not in _CARRIES_SEQ:
        raise ProtocolError(f"{Type(type_).name} has sequence number {seq}; close the lane")
    return Header(Type(type_), codec, flow, seq, length, raw_length, checksum)


def _check_data(codec: int, raw_length: int, body_length: int) -> None:
    if codec & ~PAGES not in Codec._value2member_map_:
        raise ProtocolError(f"DATA in unknown codec {codec}; close the lane")
    if not 1 <= raw_length <= MAX_BATCH:
        raise ProtocolError(f"DATA of {raw_length} raw bytes is outside 1..{MAX_BATCH}; close the lane")
    if codec & PAGES:
        if body_length <= _TOKENS.size:
            raise ProtocolError("DATA of pages without tokens; close the lane")
    else:
        _check_body(codec, raw_length, body_length)


def _check_body(codec: int, unpacked: int, body_length: int) -> None:
    if codec == Codec.NONE and unpacked != body_length:
        raise ProtocolError(f"plain DATA of {body_length} bytes claims {unpacked}; close the lane")
    if codec in (Codec.LZ4, Codec.ZSTD) and body_length >= unpacked:
        raise ProtocolError(f"packed DATA of {body_length} bytes is no smaller than {unpacked}; close the lane")
    if codec in CHAINED and body_length > chain_bound(unpacked):
        raise ProtocolError(f"chained DATA of {body_length} bytes is too long for {unpacked}; close the lane")
    if body_length > MAX_TOKENS:
        raise ProtocolError(f"DATA of {body_length} bytes is longer than {MAX_TOKENS}; close the lane")


def token_bound(raw_length: int) -> int:
    """Bytes of page tokens that a batch may take at most. Usual are a few more than its pages that are sent."""
    return 2 * raw_length + 2048


def chain_bound(unpacked: int) -> int:
    """Most bytes a batch can take: unlike an independent one, a batch that does not shrink is part of the chain."""
    return unpacked + (unpacked >> 8) + 128


def verify(raw_header: Buffer, header: Header, payload: Buffer) -> None:
    """Raise ProtocolError unless `payload` is complete and the checksum holds."""
    if len(payload) != header.length:
        raise ProtocolError(f"payload has {len(payload)} bytes, header says {header.length}; close the lane")
    checksum = xxhash.xxh3_64(bytes(raw_header[: _UNSUMMED.size]))
    checksum.update(payload)
    if checksum.intdigest() != header.checksum:
        raise ProtocolError(f"checksum of {header.type.name} seq {header.seq} does not hold; close the lane")


def decode_payload(header: Header, payload: Buffer) -> Message:
    """The message of a verified frame. Raises ProtocolError, also for HELLO, WELCOME and REFUSE: not after hello."""
    decoder = _DECODERS.get(header.type)
    if decoder is None:
        raise ProtocolError(f"{header.type.name} is not allowed here; close the lane")
    return decoder(header, payload)


def _decode_data(header: Header, payload: Buffer) -> Data:
    view = memoryview(payload)
    at, tokens = DIGEST_BYTES, 0
    if header.codec & PAGES:
        (tokens,) = _TOKENS.unpack_from(view, at)
        at += _TOKENS.size
        if not 1 <= tokens <= token_bound(header.raw_length):
            most = token_bound(header.raw_length)
            raise ProtocolError(f"{tokens} bytes of page tokens are outside 1..{most}; close the lane")
        _check_body(header.codec & ~PAGES, tokens, header.length - at)
    return Data(
        header.flow,
        header.seq,
        Codec(header.codec & ~PAGES),
        header.raw_length,
        bytes(view[:DIGEST_BYTES]),
        view[at:],
        tokens,
    )


def _decode_fin(header: Header, payload: Buffer) -> Fin:
    digest, ending = _FIN.unpack(payload)
    return Fin(header.flow, header.seq, digest, _member(Ending, ending))


def _decode_open(header: Header, payload: Buffer) -> Open:
    flow, ordinal = _OPEN.unpack_from(payload)
    service = bytes(payload[_OPEN.size :])
    if not _NAME.fullmatch(service):
        raise ProtocolError(f"OPEN names service {service!r}; close the lane")
    return Open(header.seq, _flow(flow), ordinal, service.decode("ascii"))


def _decode_reset(header: Header, payload: Buffer) -> Reset:
    flow, reason = _RESET.unpack_from(payload)
    text = unpack_text(bytes(payload[_RESET.size :]))
    return Reset(header.seq, _flow(flow), _member(ResetReason, reason), text)


def _decode_ack(header: Header, payload: Buffer) -> Ack:
    if header.length % _ACK.size:
        raise ProtocolError(f"ACK of {header.length} bytes is no multiple of {_ACK.size}; close the lane")
    entries = tuple(_ACK.iter_unpack(payload))
    if any(flow > MAX_FLOWS for flow, _ in entries):
        raise ProtocolError(f"ACK names a flow above {MAX_FLOWS}; close the lane")
    return Ack(entries)


def _decode_ping(header: Header, payload: Buffer) -> Ping | Pong | Leave:
    lane, token = _PING.unpack(payload)
    if lane > MAX_LANE:
        raise ProtocolError(f"{header.type.name} names lane {lane}, above {MAX_LANE}; close the lane")
    if header.type is Type.LEAVE:
        return Leave(lane, token)
    return Ping(lane, token) if header.type is Type.PING else Pong(lane, token)


def _decode_bye(header: Header, payload: Buffer) -> Bye:
    (reason,) = _BYE.unpack_from(payload)
    return Bye(_member(ByeReason, reason), unpack_text(bytes(payload[_BYE.size :])))


def _flow(flow: int) -> int:
    if not 1 <= flow <= MAX_FLOWS:
        raise ProtocolError(f"flow {flow} is outside 1..{MAX_FLOWS}; close the lane")
    return flow


def _member(kind: type[_Kind], value: int) -> _Kind:
    try:
        return kind(value)
    except ValueError as error:
        raise ProtocolError(f"{value} is no {kind.__name__}; close the lane") from error


_DECODERS: Final[dict[Type, Callable[[Header, Buffer], Message]]] = {
    Type.DATA: _decode_data,
    Type.FIN: _decode_fin,
    Type.OPEN: _decode_open,
    Type.RESET: _decode_reset,
    Type.ACK: _decode_ack,
    Type.PING: _decode_ping,
    Type.PONG: _decode_ping,
    Type.BYE: _decode_bye,
    Type.LEAVE: _decode_ping,
}
