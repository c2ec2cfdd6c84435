"""What the index knows of one base: a small head that is read to choose, and the list of its blocks that is read to use
it. Both have a version, and are believed only when they are whole.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from heapq import nsmallest
from typing import Any

from clouds.disks.content import BLOCK
from clouds.disks.ledger import EMPTY, Ledger
from clouds.errors import Damaged

FORMAT = 1
PROBES = 64
"""Blocks that a head tells, to be compared with a disk that is to be sent."""
LARGEST = 4 << 40
"""Bytes of a disk that is kept at most: lists of larger ones are too long."""
_SPREAD, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


@dataclass(frozen=True)
class Base:
    """A disk in the cloud that others may be made from."""

    disk: str
    """The cloud's id."""
    name: str
    """For people: whose disk it was."""
    size: int
    """Of the disk that it was made of, in bytes."""
    blocks: int
    """Of these that are not all zeros."""
    content: str
    """Content hash of all of it."""
    made: float
    """Seconds since 1970."""
    probes: tuple[tuple[int, str], ...]
    """(index, SHA-256) of some blocks: of all bases those with the same indices, as far as they have them."""
    sum: str
    """SHA-256 of the list as it is stored."""

    @property
    def key(self) -> str:
        """A name for objects: ids may hold slashes."""
        return key_of(self.disk)

    @property
    def held(self) -> int:
        """Bytes that it holds; a cloud that keeps differences bills less."""
        return self.blocks * BLOCK


def key_of(disk: str) -> str:
    return hashlib.sha256(disk.encode()).hexdigest()[:32]


def describe(disk: str, name: str, size: int, digests: Mapping[int, bytes], made: float) -> tuple[Base, bytes]:
    """(head, list as it is stored) of a disk whose blocks have these SHA-256, zero ones left out."""
    stored = pack(size, digests)
    base = Base(
        disk=disk,
        name=name,
        size=size,
        blocks=len(digests),
        content=Ledger(size, digests=dict(digests)).content(),
        made=made,
        probes=tuple((index, digests[index].hex()) for index in nsmallest(PROBES, digests, key=_spread)),
        sum=hashlib.sha256(stored).hexdigest(),
    )
    return base, stored


def write(base: Base) -> bytes:
    return json.dumps({"format": FORMAT, **asdict(base)}, sort_keys=True).encode()


def read(text: bytes) -> Base | None:
    """None: of another version, which is left alone. Raises Damaged."""
    try:
        told: dict[str, Any] = json.loads(text)
        if told.pop("format") != FORMAT:
            return None
        told["probes"] = tuple((int(index), str(digest)) for index, digest in told["probes"])
        base = Base(**told)
        numbers = (base.size, base.blocks, base.made)
        words = (base.disk, base.name, base.content, base.sum)
        sane = all(isinstance(each, int | float) and each >= 0 for each in numbers)
        if not sane or not all(isinstance(each, str) for each in words) or base.blocks * BLOCK >= base.size + BLOCK:
            raise ValueError("its figures make no sense")
        if any(not 0 <= index < -(-base.size // BLOCK) for index, _ in base.probes) or len(base.probes) > PROBES:
            raise ValueError("its probes make no sense")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"a head in the cache's index cannot be read: {error}", "It is left out.") from error
    return base


def pack(size: int, digests: Mapping[int, bytes]) -> bytes:
    packer, parts = zlib.compressobj(1), []
    for index in range(-(-size // BLOCK)):
        parts.append(packer.compress(digests.get(index, EMPTY)))
    return b"".join([*parts, packer.flush()])


def unpack(base: Base, stored: bytes) -> dict[int, bytes]:
    """By block, zero ones left out. Raises Damaged unless this is the whole list of this very base."""
    length = 32 * -(-base.size // BLOCK)
    if hashlib.sha256(stored).hexdigest() == base.sum and base.size <= LARGEST:
        try:
            flat = zlib.decompressobj().decompress(stored, length + 1)
        except zlib.error:
            flat = b""
        held = {at // 32: flat[at : at + 32] for at in range(0, len(flat), 32)}
        digests = {index: digest for index, digest in held.items() if digest != EMPTY}
        if len(flat) == length and Ledger(base.size, digests=digests).content() == base.content:
            return digests
    raise Damaged(f"the list of {base.disk} in the cache's index is not whole", "It is left out.")


def _spread(index: int) -> int:
    """An order of indices that is the same for all disks, and goes all over them."""
    return index * _SPREAD & _MASK
