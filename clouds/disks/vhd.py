"""The footer of a fixed VHD: the disk's bytes, then these 512. Azure takes nothing else, and only sizes of whole MiB.

Layout: Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format"; all numbers big-endian.
"""

from __future__ import annotations

import struct
import uuid

MIB = 1 << 20
FOOTER = 512
COOKIE = b"conectix"
_FEATURES, _VERSION, _FIXED = 2, 0x00010000, 2
_NO_OFFSET = 2**64 - 1
_CREATOR, _HOST = b"nova", b"Wi2k"


def aligned(size: int) -> int:
    """Bytes of the disk, rounded up to whole MiB."""
    return -(-size // MIB) * MIB


def footer(size: int, identity: str) -> bytes:
    """Of a disk of `size` bytes. `identity` is a UUID; the time stamp is left zero, so that twice is the same bytes."""
    cylinders, heads, sectors = _geometry(size)
    fields = struct.pack(
        ">8sIIQI4sI4sQQHBBII16sB",
        COOKIE,
        _FEATURES,
        _VERSION,
        _NO_OFFSET,
        0,
        _CREATOR,
        _VERSION,
        _HOST,
        size,
        size,
        cylinders,
        heads,
        sectors,
        _FIXED,
        0,
        uuid.UUID(identity).bytes,
        0,
    ).ljust(FOOTER, b"\0")
    checksum = ~sum(fields) & 0xFFFFFFFF
    return fields[:64] + struct.pack(">I", checksum) + fields[68:]


def _geometry(size: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors as the specification's appendix computes them; nobody boots by them any more."""
    total = min(size // 512, 65535 * 16 * 255)
    if total >= 65535 * 16 * 63:
        sectors, heads = 255, 16
        return total // sectors // heads, heads, sectors
    sectors = 17
    heads = max(4, (total // sectors + 1023) // 1024)
    if total // sectors >= heads * 1024 or heads > 16:
        sectors, heads = 31, 16
    if total // sectors >= heads * 1024:
        sectors, heads = 63, 16
    return total // sectors // heads, heads, sectors
