"""What chunks save between two versions of a file, and what they cost: `python -m bench.chunks OLD NEW`.

Prints, for fixed blocks and for chunks of several sizes, what would be sent of NEW to a host that has OLD (each chunk
once, uncompressed), the recipe on top, and the speed of cutting, and of cutting and naming, on one core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blake3 import blake3

from dwcp.encoding import chunks
from dwcp.encoding.chunks import GEAR, HOLE, SIZES

ENTRY: Final = 40
"""Bytes of a piece in a recipe."""
Pieces = list[tuple[int, bytes]]


def sizes(average: int, level: int) -> tuple[int, int, int, int, int, int]:
    """As chunks.SIZES, for another average."""
    bits = average.bit_length() - 1
    return average // 4, average, 4 * average, HOLE, 1 << (64 - bits - level), 1 << (64 - bits + level)


def cut(data: bytes, chosen: tuple[int, int, int, int, int, int]) -> Iterator[tuple[int, int]]:
    place = 0
    for length in chunks.split(data, GEAR, chosen, False, True):
        if length > 0:
            yield place, length
        place += abs(length)


def blocks(data: bytes, size: int) -> Iterator[tuple[int, int]]:
    for place in range(0, len(data), size):
        part = data[place : place + size]
        if part.count(0) < len(part):
            yield place, len(part)


def named(data: bytes, places: Iterator[tuple[int, int]]) -> Pieces:
    view = memoryview(data)
    return [(length, blake3(view[place : place + length]).digest()) for place, length in places]


def sent(old: Pieces, new: Pieces) -> int:
    have = {name for _, name in old}
    return sum(length for name, length in {name: length for length, name in new}.items() if name not in have)


def row(label: str, old: Pieces, new: Pieces, speeds: str) -> str:
    fresh, recipe = sent(old, new), ENTRY * len(new)
    mean = sum(length for length, _ in new) / max(1, len(new))
    return (
        f"| {label} | {len(new)} | {mean / 1024:.1f} KiB | {fresh / 1e6:.2f} MB | {recipe / 1e6:.2f} MB "
        f"| {(fresh + recipe) / 1e6:.2f} MB | {speeds} |"
    )


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    old, new = (Path(name).read_bytes() for name in sys.argv[1:])
    print("| cut | pieces | mean | chunks sent | recipe | sum | MB/s cut, named |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for size in (4096, 32768):
        print(row(f"blocks of {size >> 10} KiB", named(old, blocks(old, size)), named(new, blocks(new, size)), "-"))
    for average in (8 << 10, 16 << 10, 32 << 10, 64 << 10):
        for level in (1, 2, 3) if average == chunks.NORMAL else (2,):
            chosen = sizes(average, level)
            begun = time.perf_counter()
            chunks.split(new, GEAR, chosen, False, True)
            middle = time.perf_counter()
            pieces = named(new, cut(new, chosen))
            ended = time.perf_counter()
            speeds = f"{len(new) / (middle - begun) / 1e6:.0f}, {len(new) / (ended - middle) / 1e6:.0f}"
            label = f"chunks of {average >> 10} KiB, level {level}" + (" (ours)" if chosen == SIZES else "")
            print(row(label, named(old, cut(old, chosen)), pieces, speeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
