"""Where in a disk image's file its data lies: not the holes, and for qcow2 only clusters that are there as they are.

A guest may write what it likes into its image, so nothing here trusts one: a raw image that looks like qcow2 costs one
run of qemu-img, which is told to open this file alone (no backing file, no data file), read only.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterable
from typing import Any, Final

from dwcp.encoding.store.images import MAX_PLACES, QCOW2, RAW
from dwcp.encoding.store.reading import PAGE
from dwcp.errors import StoreFailed

MAP_SECONDS: Final = 600.0
MAX_MAP: Final = 256 << 20
"""Bytes of qemu-img's answer: some two million extents."""
_QCOW2_MAGIC: Final = b"QFI\xfb"
_DATA_ELSEWHERE: Final = 1 << 2
"""Incompatible feature: guest data lies in another file."""

Extent = tuple[int, int]
"""First page and number of pages."""


def of(file: int, path: str) -> tuple[int, list[Extent]]:
    """The image's kind and its extents in file order. Raises StoreFailed or OSError when it cannot be told."""
    head = os.pread(file, 104, 0)
    if head[:4] != _QCOW2_MAGIC:
        return RAW, _merged(_allocated(file))
    version = int.from_bytes(head[4:8], "big")
    if version not in (2, 3):
        raise StoreFailed(f"{path} is qcow2 of version {version}, only 2 and 3 are understood")
    if version == 3 and int.from_bytes(head[72:80], "big") & _DATA_ELSEWHERE:
        raise StoreFailed(f"{path} keeps its data in another file: index that one, it is raw")
    return QCOW2, _merged(_qcow2(path, os.fstat(file).st_size))


def _allocated(file: int) -> Iterable[Extent]:
    """What is no hole."""
    size = os.fstat(file).st_size
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # only a hole is left
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        first, last = start // PAGE, min(-(-end // PAGE), size // PAGE)
        if last > first:
            yield first, last - first


def _qcow2(path: str, size: int) -> Iterable[Extent]:
    """Uncompressed clusters of this file, by its own mapping."""
    image = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": path}}
    command = ["qemu-img", "map", "--force-share", "--output=json", "json:" + json.dumps(image)]
    try:
        told = subprocess.run(command, capture_output=True, timeout=MAP_SECONDS, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise StoreFailed(f"{path} is qcow2, and qemu-img is not there to map it; install qemu-utils") from None
    except subprocess.TimeoutExpired:
        raise StoreFailed(f"qemu-img did not map {path} within {MAP_SECONDS:g} s") from None
    if told.returncode or len(told.stdout) > MAX_MAP:
        why = told.stderr.decode("utf-8", "replace").strip()[-500:] or f"{len(told.stdout)} bytes of answer"
        raise StoreFailed(f"qemu-img cannot map {path}: {why}")
    try:
        for one in json.loads(told.stdout):
            if (extent := _extent(one, size)) is not None:
                yield extent
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreFailed(f"qemu-img's map of {path} is not understood: {error!r}") from error


def _extent(one: dict[str, Any], size: int) -> Extent | None:
    """Only what lies in this file at a page's boundary; compressed clusters have no offset."""
    if not one["data"] or one["zero"] or one["depth"] or one.get("compressed") or "offset" not in one:
        return None
    offset, length = int(one["offset"]), int(one["length"])
    if offset < 0 or offset % PAGE:
        return None
    count = min(length, size - offset) // PAGE
    return (offset // PAGE, count) if count > 0 else None


def _merged(extents: Iterable[Extent]) -> list[Extent]:
    """In file order, neighbours joined, nothing twice, nothing that an index cannot number."""
    found: list[Extent] = []
    end = 0
    for first, count in sorted(extents):
        start, stop = max(first, end), min(first + count, MAX_PLACES)
        if stop <= start:
            continue
        if found and start == end:
            found[-1] = (found[-1][0], stop - found[-1][0])
        else:
            found.append((start, stop - start))
        end = stop
    return found
