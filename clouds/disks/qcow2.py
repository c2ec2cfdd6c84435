"""A qcow2 image as a stream: version 3, 64 KiB clusters, all tables before the data.

Made without a copy, the same byte for byte from the same content. Each block of ours is eight clusters in a row; blocks
that are all zeros have none. The whole layout follows from a survey, so the place of each byte is known beforehand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from clouds.disks.content import BLOCK, Reader, read_block
from clouds.disks.survey import Piece, Survey

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
SECTOR = 512
_ENTRIES = CLUSTER // 8
"""Clusters that one L2 table maps: 512 MiB."""
_COUNTS = CLUSTER // 2
"""Clusters that one refcount block counts, 16 bits each."""
_COPIED = 1 << 63
"""Of a cluster that is counted once: written in place."""
_PER_BLOCK = BLOCK // CLUSTER


def stream(source: Reader, found: Survey) -> Iterator[Piece]:
    """The whole image. Blocks are read again: a source that changed since the survey gives another content hash."""
    yield Piece(head(found))
    for first, number in found.runs:
        for index in range(first, first + number):
            block = read_block(source, index)
            yield Piece(block.data, block)
    yield Piece(b"")


def length(found: Survey) -> int:
    """Bytes of the whole stream."""
    return len(head(found)) + found.count * BLOCK


def head(found: Survey) -> bytes:
    """Header and tables. Order: header, refcount table, refcount blocks, L1, L2 tables, then the data."""
    l1_entries = max(1, -(-found.size // (CLUSTER * _ENTRIES)))
    l1_clusters = -(-l1_entries * 8 // CLUSTER)
    used = sorted({index * _PER_BLOCK // _ENTRIES for run in found.runs for index in range(run[0], sum(run))})
    fixed = 1 + l1_clusters + len(used) + found.count * _PER_BLOCK
    tables, counters = 1, 1
    while (need := -(-(fixed + tables + counters) // _COUNTS)) > counters or -(-need // _ENTRIES) > tables:
        counters, tables = need, max(tables, -(-need // _ENTRIES))
    l1_at = 1 + tables + counters
    l2_at = l1_at + l1_clusters
    data_at = l2_at + len(used)
    total = data_at + found.count * _PER_BLOCK
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0, CLUSTER_BITS, found.size, 0, l1_entries, l1_at * CLUSTER, CLUSTER, tables, 0, 0),
        *(0, 0, 0, 4, 104),
    )
    table = b"".join(struct.pack(">Q", (1 + tables + number) * CLUSTER) for number in range(counters))
    l1 = bytearray(l1_clusters * CLUSTER)
    l2 = bytearray(len(used) * CLUSTER)
    for place, number in enumerate(used):
        struct.pack_into(">Q", l1, number * 8, (l2_at + place) * CLUSTER | _COPIED)
    places = {number: place for place, number in enumerate(used)}
    cluster = data_at
    for first, number in found.runs:
        for guest in range(first * _PER_BLOCK, (first + number) * _PER_BLOCK):
            at = places[guest // _ENTRIES] * CLUSTER + guest % _ENTRIES * 8
            struct.pack_into(">Q", l2, at, cluster * CLUSTER | _COPIED)
            cluster += 1
    counts = (b"\0\1" * total).ljust(counters * CLUSTER, b"\0")
    return header.ljust(CLUSTER, b"\0") + table.ljust(tables * CLUSTER, b"\0") + counts + bytes(l1) + bytes(l2)
