"""The footer of a fixed VHD: the disk's bytes, then these 512. Azure takes nothing else, and only sizes of whole MiB.

Layout: Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format"; all numbers big-endian. Filled in
as `qemu-img` does with `subformat=fixed,force_size`, which is what Azure's guide to making images asks for: the size
counts, and not the geometry, which is the largest there is.
"""

from __future__ import annotations

import struct
import uuid

MIB = 1 << 20
FOOTER = 512
COOKIE = b"conectix"
_FEATURES, _VERSION, _FIXED = 2, 0x00010000, 2
_NO_OFFSET = 2**64 - 1
_CREATOR, _CREATOR_VERSION, _HOST = b"qem2", 0x00050003, b"Wi2k"
"""Readers take the size from the size's field for this creator, and from the geometry for those they do not know."""
_GEOMETRY = (65535, 16, 255)
"""Cylinders, heads, sectors."""


def aligned(size: int) -> int:
    """Bytes of the disk, rounded up to whole MiB."""
    return -(-size // MIB) * MIB


def footer(size: int, identity: str) -> bytes:
    """Of a disk of `size` bytes. `identity` is a UUID; the time stamp is left zero, so that twice is the same bytes."""
    head = struct.pack(">8sIIQI", COOKIE, _FEATURES, _VERSION, _NO_OFFSET, 0)
    creator = struct.pack(">4sI4s", _CREATOR, _CREATOR_VERSION, _HOST)
    sizes = struct.pack(">QQHBBI", size, size, *_GEOMETRY, _FIXED)
    tail = uuid.UUID(identity).bytes
    checksum = ~sum(head + creator + sizes + tail) & 0xFFFFFFFF
    return (head + creator + sizes + struct.pack(">I", checksum) + tail).ljust(FOOTER, b"\0")
