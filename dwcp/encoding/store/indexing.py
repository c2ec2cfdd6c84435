"""Make the index of disk images: read what is allocated, hash each block, keep keys and places. Incremental by file.

Zero blocks are left out, and so are blocks that the image has held before (as far as DISTINCT remembers them): a
have-list names each content once.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from sys import byteorder
from typing import Final, TypeAlias

from blake3 import blake3

from dwcp.encoding.store import extents, images, space
from dwcp.encoding.store.folder import Folder, Held, log
from dwcp.encoding.store.images import PLACE_BYTES, FileState, ImageHeader
from dwcp.encoding.store.reading import KEY, PAGE, RUN, ZERO_KEY, page_keys
from dwcp.errors import StoreFailed
from models.store import StoreSettings

DISTINCT: Final = 1 << 20
"""Blocks of one image that are looked at for repetition; about 100 MiB of memory while it is indexed."""
_ZEROS: Final = bytes(RUN * PAGE)

Tell: TypeAlias = Callable[[str, int, int], None]
"""What is being read, bytes done, bytes in all."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody wants."""


@dataclass
class Indexed:
    """What a run did."""

    indexed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """Images that are gone, or not named any more."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Image and reason."""
    read_bytes: int = 0
    blocks: int = 0


def find(named: Sequence[str], skipped: list[tuple[str, str]]) -> list[str]:
    """The images meant: files, and the files directly in folders; real paths."""
    found: dict[str, None] = {}
    for name in named:
        path = Path(name)
        try:
            if path.is_dir():
                found |= dict.fromkeys(str(one.resolve()) for one in sorted(path.iterdir()) if one.is_file())
            elif stat.S_ISREG(path.stat().st_mode):
                found[str(path.resolve())] = None
            else:
                skipped.append((name, "neither a file nor a folder: a device does not tell when it was changed"))
        except OSError as error:
            skipped.append((name, error.strerror or str(error)))
    return list(found)


def run(folder: Folder, settings: StoreSettings, paths: Sequence[str] | None, tell: Tell = silent) -> Indexed:
    """Index `paths` by hand; or all that the settings name, and drop what they do not name any more."""
    report = Indexed()
    with folder.locked():
        folder.sweep()
        known = _known(folder)
    wanted = find(settings.images if paths is None else paths, report.skipped)
    for path in wanted:
        head = known.get(path)
        by_hand = paths is not None or (head is not None and head.by_hand)
        if head is not None and head.by_hand == by_hand and images.unchanged(head):
            report.unchanged.append(path)
            continue
        try:
            _index(folder, settings, path, by_hand, report, tell)
        except (OSError, StoreFailed) as error:
            log.warning("%s is not indexed: %s", path, error)
            report.skipped.append((path, str(error)))
        else:
            report.indexed.append(path)
    if paths is None:
        meant = set(wanted)
        outlived = [
            path for path, head in known.items() if not (path in meant or (head.by_hand and Path(path).exists()))
        ]
        report.dropped += drop(folder, outlived)
    with folder.locked():
        space.drop_useless(folder, settings, "images")
    return report


def drop(folder: Folder, paths: Sequence[str]) -> list[str]:
    """Forget indexes; those that were there and not in use."""
    dropped = []
    with folder.locked():
        for entry in folder.entries("images"):
            head = images.header(entry)
            if head is not None and head.path in paths and folder.remove(entry.path):
                dropped.append(head.path)
    return dropped


def _known(folder: Folder) -> dict[str, ImageHeader]:
    """Newest index of each image."""
    found: dict[str, ImageHeader] = {}
    for entry in folder.entries("images"):
        if (head := images.header(entry)) is not None:
            found.setdefault(head.path, head)
    return found


def _index(folder: Folder, settings: StoreSettings, path: str, by_hand: bool, report: Indexed, tell: Tell) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        before = FileState.of(os.fstat(file))
        kind, where = extents.of(file, path)
        total = sum(count for _, count in where)
        with folder.locked():
            space.make_room(folder, settings, total * (KEY + PLACE_BYTES) + 16 * PAGE)
            held = folder.draft()
            for name, size in (("keys", KEY), ("blocks", PLACE_BYTES)):
                reserved = held.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                os.ftruncate(reserved, total * size)
                os.close(reserved)
        try:
            blocks, root, places = _hash(file, where, held, lambda done: tell(path, done * PAGE, total * PAGE))
            if FileState.of(os.fstat(file)) != before or FileState.of(Path(path).stat()) != before:
                raise StoreFailed("it was changed while it was read; a VM uses it")
            held.write("index", ImageHeader(kind, by_hand, blocks, before, root, places, path).pack())
            with folder.locked():
                folder.publish(held, "images", root)
        except BaseException:
            folder.discard(held)
            raise
        finally:
            held.release()
    finally:
        os.close(file)
    report.read_bytes += total * PAGE
    report.blocks += blocks


def _hash(
    file: int, where: Sequence[extents.Extent], held: Held, tell: Callable[[int], None]
) -> tuple[int, bytes, bytes]:
    """Number of blocks, root, and digest of their places; both files are complete and on the disk."""
    root, places = blake3(), blake3()
    blocks = done = 0
    seen: set[bytes] = set()
    with suppress(OSError):  # advice only
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    with (
        os.fdopen(held.open("keys", os.O_WRONLY), "wb") as keys_out,
        os.fdopen(held.open("blocks", os.O_WRONLY), "wb") as places_out,
    ):
        for first, pages in _chunks(file, where):
            kept, found = _distinct(first, pages, seen)
            root.update(found)
            places.update(kept)
            keys_out.write(found)
            places_out.write(kept)
            blocks += len(kept) // PLACE_BYTES
            done += len(pages) // PAGE
            tell(done)
        for out in (keys_out, places_out):
            out.truncate()
            out.flush()
            os.fsync(out.fileno())
    return blocks, root.digest(KEY), places.digest(KEY)


def _chunks(file: int, where: Sequence[extents.Extent]) -> Iterator[tuple[int, bytes]]:
    for first, count in where:
        for start in range(first, first + count, RUN):
            wanted = min(RUN, first + count - start) * PAGE
            pages = os.pread(file, wanted, start * PAGE)
            if len(pages) != wanted:
                raise StoreFailed("it became shorter while it was read; a VM uses it")
            yield start, pages


def _distinct(first: int, pages: bytes, seen: set[bytes]) -> tuple[bytes, bytes]:
    """Places and keys of the blocks that are neither zero nor remembered."""
    if len(pages) == len(_ZEROS) and pages == _ZEROS:
        return b"", b""
    found = page_keys(pages)
    kept, keys = array("I"), []
    for number in range(len(pages) // PAGE):
        key = found[number * KEY : number * KEY + KEY]
        if key == ZERO_KEY or key in seen:
            continue
        if len(seen) < DISTINCT:
            seen.add(key)
        kept.append(first + number)
        keys.append(key)
    if byteorder == "little":
        kept.byteswap()
    return kept.tobytes(), b"".join(keys)
