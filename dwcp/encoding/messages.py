"""What two content stores say to each other, over a flow of their session: bytes in, messages out. Pure.

    u32 length | u8 kind | payload          length counts the payload; all integers big-endian

    source                                         destination
    ROOTS  visits and images I have         --->
                                            <---   BASE   the newest visit we both have, or none
                                            <---   SAME   an image we both have: its blocks, numbered on
                                            <---   KEYS   keys of pages and blocks, numbered on, many times
                                            <---   DONE   how many there are in all
                                            <---   WANT   pages of a batch that my store lost after all
    PAGES  those                            --->

Nothing waits for it: a source that has heard nothing yet sends pages whole. A key is the first 16 bytes of the BLAKE3
of a page; its number is its place in everything named by SAME and KEYS, in order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dwcp.errors import ProtocolError

KEY: Final = 16
PAGE: Final = 4096
MAX_MESSAGE: Final = 1 << 20
MAX_ROOTS: Final = 256
MAX_KEYS: Final = 1 << 20
"""Keys that one session names: 16 MiB on the link, 4 GiB of pages."""
KEYS_AT_ONCE: Final = 16384
PAGES_AT_ONCE: Final = 64
WANT_AT_ONCE: Final = 4096
NO_ROOT: Final = bytes(KEY)

_HEAD = struct.Struct("!IB")
_ROOTS = struct.Struct("!HH")
_SAME = struct.Struct("!16sI")
_DONE = struct.Struct("!I")
_BATCH = struct.Struct("!IQ")


@dataclass(frozen=True, slots=True)
class Roots:
    visits: tuple[bytes, ...]
    """Newest first."""
    images: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class BaseIs:
    root: bytes
    """NO_ROOT: we have no visit in common."""


@dataclass(frozen=True, slots=True)
class Same:
    root: bytes
    count: int


@dataclass(frozen=True, slots=True)
class Keys:
    keys: bytes


@dataclass(frozen=True, slots=True)
class Done:
    count: int


@dataclass(frozen=True, slots=True)
class Want:
    flow: int
    batch: int
    ordinals: tuple[int, ...]
    """Which of the batch's references."""


@dataclass(frozen=True, slots=True)
class Pages:
    """In the order they were wanted; none at all: the batch is no longer there."""

    flow: int
    batch: int
    pages: tuple[bytes, ...]


Message = Roots | BaseIs | Same | Keys | Done | Want | Pages
_KINDS: Final[tuple[type[Message], ...]] = (Roots, BaseIs, Same, Keys, Done, Want, Pages)


def encode(message: Message) -> bytes:
    """The whole message with its head."""
    match message:
        case Roots():
            body = _ROOTS.pack(len(message.visits), len(message.images)) + b"".join(message.visits + message.images)
        case BaseIs():
            body = message.root
        case Same():
            body = _SAME.pack(message.root, message.count)
        case Keys():
            body = message.keys
        case Done():
            body = _DONE.pack(message.count)
        case Want():
            numbers = struct.pack(f"!{len(message.ordinals)}I", *message.ordinals)
            body = _BATCH.pack(message.flow, message.batch) + numbers
        case Pages():
            body = _BATCH.pack(message.flow, message.batch) + b"".join(message.pages)
    return _HEAD.pack(len(body), _KINDS.index(type(message)) + 1) + body


def decode(kind: int, body: bytes) -> Message:
    """Raises ProtocolError for anything but a well-formed message."""
    try:
        return _decode(kind, body)
    except struct.error as error:
        raise ProtocolError(f"store message {kind} of {len(body)} bytes: {error}; the peer is in error") from error


def _decode(kind: int, body: bytes) -> Message:
    match kind:
        case 1:
            visits, images = _ROOTS.unpack_from(body)
            roots = _split(body[_ROOTS.size :], KEY)
            if len(roots) != visits + images or max(visits, images) > MAX_ROOTS:
                raise ProtocolError(f"ROOTS names {visits} and {images} roots, has {len(roots)}; the peer is in error")
            return Roots(roots[:visits], roots[visits:])
        case 2 if len(body) == KEY:
            return BaseIs(body)
        case 3:
            root, count = _SAME.unpack(body)
            return Same(root, _bounded(count))
        case 4 if body and len(body) % KEY == 0:
            return Keys(body)
        case 5:
            return Done(_bounded(_DONE.unpack(body)[0]))
        case 6:
            flow, batch = _BATCH.unpack_from(body)
            rest = len(body) - _BATCH.size
            if rest % 4 or not 0 < rest <= 4 * WANT_AT_ONCE:
                raise ProtocolError(f"WANT of {len(body)} bytes; the peer is in error")
            return Want(flow, batch, struct.unpack_from(f"!{rest // 4}I", body, _BATCH.size))
        case 7:
            flow, batch = _BATCH.unpack_from(body)
            return Pages(flow, batch, _split(body[_BATCH.size :], PAGE))
        case _:
            raise ProtocolError(f"store message {kind} of {len(body)} bytes is unknown; the peer is in error")


def _split(body: bytes, size: int) -> tuple[bytes, ...]:
    if len(body) % size:
        raise ProtocolError(f"{len(body)} bytes are no multiple of {size}; the peer is in error")
    return tuple(body[at : at + size] for at in range(0, len(body), size))


def _bounded(count: int) -> int:
    if count > MAX_KEYS:
        raise ProtocolError(f"{count} keys, over {MAX_KEYS}; the peer is in error")
    return count


class Feed:
    """Bytes as they come, messages as they are complete."""

    def __init__(self) -> None:
        self._held = bytearray()

    def add(self, data: bytes) -> Iterator[Message]:
        """Raises ProtocolError."""
        self._held += data
        while len(self._held) >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._held)
            if length > MAX_MESSAGE:
                raise ProtocolError(f"store message of {length} bytes, over {MAX_MESSAGE}; the peer is in error")
            end = _HEAD.size + length
            if len(self._held) < end:
                return
            body = bytes(self._held[_HEAD.size : end])
            del self._held[:end]
            yield decode(kind, body)
