"""The first exchange on every lane: HELLO from the source, then WELCOME or REFUSE. Pure: bytes and decisions only.

The source sends HELLO right after the TLS handshake; the destination judges it. The first HELLO that passes binds the
destination to that source process (its instance nonce); a later one from another instance is a restarted peer, which
has lost what was not acknowledged, and is refused. The same holds the other way round through `expected`.

Version rule: both sides name the lowest and highest version they speak; the session uses the highest common one. The
frame header, the place of HELLO's first four bytes and REFUSE never change, so that any two versions can say why not.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from dwcp.errors import ProtocolError
from dwcp.transport import frames
from dwcp.transport.frames import MAX_LANE, Buffer, Header, Type

VERSION: Final = 2
"""2: lanes join and leave while the session runs (`most`, LEAVE)."""
OLDEST_VERSION: Final = 2
INSTANCE_BYTES: Final = 16
UNKNOWN_INSTANCE: Final = bytes(INSTANCE_BYTES)
RETURN_LANE: Final = MAX_LANE
"""Number of the one lane that the destination writes and the source reads."""

_HELLO = struct.Struct("!HHIQ16s16sBBBB32s")
_WELCOME = struct.Struct("!HHI16s")
_REFUSE = struct.Struct("!HHH")
assert (_HELLO.size, _WELCOME.size, _REFUSE.size) == (
    frames.HELLO_BYTES,
    frames.WELCOME_BYTES,
    frames.REFUSE_FIXED,
)


class Features(IntFlag):
    """What a side can decode, and take part in. Both sides' features are AND-ed; unknown bits are ignored."""

    LZ4 = 1
    ZSTD = 2
    CHAIN = 4
    """zstd with a window over many batches of a flow."""
    PAGES = 8
    """Page tokens."""
    STORE = 16
    """The internal flow over which content stores talk."""


ALL_FEATURES: Final = Features.LZ4 | Features.ZSTD | Features.CHAIN | Features.PAGES | Features.STORE


class RefuseReason(IntEnum):
    VERSION = 1
    NAME = 2
    MIGRATION = 3
    OWNER = 4
    INSTANCE = 5
    LANE = 6
    ENDED = 7
    PROTECTION = 8


@dataclass(frozen=True, slots=True)
class Hello:
    migration_id: str
    owner_token: int
    instance: bytes
    expected: bytes
    """The destination's instance as the source knows it, zeros before the first WELCOME."""
    lane: int
    """0 .. most-1: a forward lane, written by the source. RETURN_LANE: written by the destination."""
    lanes: int
    """Forward lanes at the start: when they and the return lane are up, the session is connected."""
    most: int
    """Forward lanes that there may ever be at once."""
    features: Features = ALL_FEATURES
    version: int = VERSION
    oldest: int = OLDEST_VERSION


@dataclass(frozen=True, slots=True)
class Welcome:
    version: int
    features: Features
    instance: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    reason: RefuseReason
    text: str
    version: int = VERSION
    oldest: int = OLDEST_VERSION


def encode_hello(hello: Hello) -> bytes:
    name = hello.migration_id.encode("ascii")
    payload = _HELLO.pack(
        hello.version,
        hello.oldest,
        hello.features,
        hello.owner_token,
        hello.instance,
        hello.expected,
        hello.lane,
        hello.lanes,
        len(name),
        hello.most,
        name,
    )
    return frames.head(Type.HELLO, payload)


def decode_hello(header: Header, payload: Buffer) -> Hello:
    """Raises ProtocolError for anything but a well-formed HELLO."""
    _expect(header, Type.HELLO, len(payload))
    version, oldest, features, owner, instance, expected, lane, lanes, size, most, name = _HELLO.unpack(payload)
    if not 1 <= size <= len(name) or any(name[size:]):
        raise ProtocolError("HELLO's migration id is not padded as it must be; close the lane")
    if not name[:size].isascii():
        raise ProtocolError("HELLO's migration id is not ASCII; close the lane")
    if not 1 <= oldest <= version:
        raise ProtocolError(f"HELLO speaks versions {oldest}..{version}; close the lane")
    if owner >= 1 << 63:
        raise ProtocolError("HELLO's owner token is above 2**63 - 1; close the lane")
    return Hello(
        name[:size].decode("ascii"), owner, instance, expected, lane, lanes, most, Features(features), version, oldest
    )


def encode_answer(answer: Welcome | Refuse) -> bytes:
    if isinstance(answer, Welcome):
        return frames.head(Type.WELCOME, _WELCOME.pack(answer.version, 0, answer.features, answer.instance))
    payload = _REFUSE.pack(answer.reason, answer.oldest, answer.version) + frames.pack_text(answer.text)
    return frames.head(Type.REFUSE, payload)


def decode_answer(header: Header, payload: Buffer) -> Welcome | Refuse:
    """Raises ProtocolError for anything but a well-formed WELCOME or REFUSE."""
    if header.type is Type.REFUSE:
        _expect(header, Type.REFUSE, len(payload))
        reason, oldest, version = _REFUSE.unpack_from(payload)
        text = frames.unpack_text(bytes(payload[_REFUSE.size :]))
        try:
            return Refuse(RefuseReason(reason), text, version, oldest)
        except ValueError as error:
            raise ProtocolError(f"REFUSE for unknown reason {reason}: {text!r}; close the lane") from error
    _expect(header, Type.WELCOME, len(payload))
    version, zero, features, instance = _WELCOME.unpack(payload)
    if zero or instance == UNKNOWN_INSTANCE:
        raise ProtocolError("WELCOME carries no instance, or a reserved field is set; close the lane")
    if not OLDEST_VERSION <= version <= VERSION:
        raise ProtocolError(f"WELCOME chose version {version}, offered {OLDEST_VERSION}..{VERSION}; close the lane")
    return Welcome(version, Features(features), instance)


def judge(
    hello: Hello,
    *,
    migration_id: str,
    owner_token: int,
    instance: bytes,
    bound: bytes | None,
    offers: Features = ALL_FEATURES,
) -> Welcome | Refuse:
    """The destination's answer. `bound` is the source instance of the first HELLO that passed, None before it; `offers`
    is what this end can take part in."""
    if hello.version < OLDEST_VERSION or hello.oldest > VERSION:
        return Refuse(
            RefuseReason.VERSION,
            f"source speaks DWCP {hello.oldest}..{hello.version}, destination {OLDEST_VERSION}..{VERSION}; "
            "upgrade the older host",
        )
    if hello.migration_id != migration_id:
        return Refuse(RefuseReason.MIGRATION, "this port serves another migration; look up the port again")
    if hello.owner_token != owner_token:
        return Refuse(
            RefuseReason.OWNER,
            f"the source comes with owner token {hello.owner_token}, this end was opened under {owner_token}; "
            "whoever has the lower one has lost the VM: start the migration anew",
        )
    if hello.instance == UNKNOWN_INSTANCE:
        return Refuse(RefuseReason.INSTANCE, "HELLO carries no instance nonce")
    if bound is not None and hello.instance != bound:
        return Refuse(RefuseReason.INSTANCE, "the source's data path was restarted; start the migration anew")
    if hello.expected not in (UNKNOWN_INSTANCE, instance):
        return Refuse(RefuseReason.INSTANCE, "the destination's data path was restarted; start the migration anew")
    if not 1 <= hello.lanes <= hello.most <= MAX_LANE or not (hello.lane < hello.most or hello.lane == RETURN_LANE):
        return Refuse(RefuseReason.LANE, f"lane {hello.lane} of {hello.lanes} to {hello.most} does not exist")
    return Welcome(min(VERSION, hello.version), hello.features & offers, instance)


def _expect(header: Header, type_: Type, length: int) -> None:
    if header.type is not type_ or header.length != length:
        raise ProtocolError(f"expected {type_.name}, got {header.type.name} of {length} bytes; close the lane")
