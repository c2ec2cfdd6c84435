"""What both implementations of the page stage share: the token format's numbers, and what its callers are given.

One batch of raw bytes becomes one batch of tokens (docs/dwcp-pages.md, byte by byte): a header, then page bytes,
control bytes and operands, each kind apart so that a codec finds like beside like.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal, NamedTuple

from blake3 import blake3

from dwcp.transport.frames import token_bound

bound: Final = token_bound
PAGE: Final = 4096
KEY_BYTES: Final = 16
"""A page's key: the first 16 bytes of its BLAKE3."""
NONE: Final = 0xFFFFFFFF
"""No slot, no index."""
VERSION: Final = 1
MAGIC: Final = b"PT\x00\x01"
HEADER: Final = struct.Struct("!4sII")
"""Magic and version, bytes of control, bytes of operands. What is left between header and control is data."""
MAX_SLOTS: Final = 1 << 28
MAX_BLOCKS: Final = 1024
MAX_PAGE_NUMBER: Final = (1 << 32) - 1
LEAF_PAGES: Final = 16
"""Addresses are remembered in leaves of 16 pages, with at most as many leaves as slots: that bounds the map."""
DELTA_LIMIT: Final = 1400
"""A page that differs by more bytes (runs counted as 4, words as 8) goes whole: a codec does better on it."""

Grammar = Literal["ram", "nbd"]
Phase = Literal["precopy", "postcopy", "device", "final"]
PHASES: Final[tuple[Phase, ...]] = ("precopy", "postcopy", "device", "final")


class Op(IntEnum):
    """Low four bits of a control byte."""

    LITERAL = 0
    BLOCK = 1
    ZERO_RECORD = 2
    ZERO = 3
    SAME = 4
    DELTA = 5
    COPY = 6
    KNOWN = 7
    BASE = 8
    BASE_DELTA = 9
    FRESH = 10
    SPLIT = 11
    ROOT = 12
    SYNC = 13
    START = 14


BARE: Final = 0x10
"""The page's header is not part of the record: it went as a literal, or there is none."""
JUMP: Final = 0x20
"""A signed distance from the page number that was expected follows."""
RUN: Final = 0x40
"""A count of pages, less two, follows."""

FIRST_PAGE_OP: Final = Op.ZERO_RECORD
LAST_PAGE_OP: Final = Op.SPLIT


class Counts(NamedTuple):
    """As in models.datapath.PageCounts."""

    records: int = 0
    zero: int = 0
    same: int = 0
    copied: int = 0
    known: int = 0
    base: int = 0
    delta: int = 0
    fresh: int = 0
    literal_bytes: int = 0
    lost_sync: int = 0


COUNT_OF: Final[dict[int, str]] = {
    Op.ZERO_RECORD: "zero",
    Op.ZERO: "zero",
    Op.SAME: "same",
    Op.DELTA: "delta",
    Op.COPY: "copied",
    Op.KNOWN: "known",
    Op.BASE: "base",
    Op.BASE_DELTA: "delta",
    Op.FRESH: "fresh",
    Op.SPLIT: "fresh",
}


@dataclass(frozen=True, slots=True)
class Contents:
    """Which page is in which slot. Equal at both ends of a flow after the same batches."""

    blocks: tuple[bytes, ...]
    """Names of the RAM blocks, or `disk`; an address says which by its place here."""
    places: bytes
    """(block, page number, slot) as little-endian u32, ordered by block and page number."""
    slots: int
    """Slots 0..slots-1 have been used; a few of them may be free again."""

    def root(self, keys: bytes) -> bytes:
        """16 bytes that name these contents and the pages with these keys: equal roots, equal pages."""
        digest = blake3(b"dwcp visit 1")
        digest.update(struct.pack("<III", len(self.blocks), self.slots, len(self.places)))
        for name in self.blocks:
            digest.update(bytes([len(name)]) + name)
        digest.update(self.places)
        digest.update(keys)
        return digest.digest(KEY_BYTES)
