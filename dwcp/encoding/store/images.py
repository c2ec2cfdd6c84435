"""The index of one disk image: where its blocks lie, and their keys. The blocks themselves stay in the image.

    index   header (128), the image's path
    blocks  u32 for each block: its place in the image's file, in units of 4096 bytes
    keys    16 bytes for each block

Header, big-endian: magic, version, kind u8 (0 raw, 1 qcow2), flags u8 (1: indexed by hand), blocks u32, the file's size
u64, modification time i64 (ns) and inode u64, root, digest of the file `blocks`, length of the path u16, zeros, and at
112 the digest of the 112 bytes before it and the path. The root is the digest of the keys.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blake3 import blake3

from dwcp.encoding.store.folder import WHOLE, Entry, Held, condemn, expecting, hold, log, peek
from dwcp.encoding.store.reading import KEY, PAGE, Buffer, Readers, digest, gather
from dwcp.errors import StoreDamaged, StoreFailed

MAGIC: Final = b"NCIMAGE\n"
VERSION: Final = 1
HEADER_BYTES: Final = 128
PLACE_BYTES: Final = 4
MAX_PLACES: Final = 1 << 32
"""Images are indexed up to 16 TiB."""
RAW: Final = 0
QCOW2: Final = 1
BY_HAND: Final = 1
_HEAD: Final = struct.Struct(">8sHBBIQqQ16s16sH38x")
_PLACE: Final = struct.Struct(">I")
_CHECKED: Final = HEADER_BYTES - KEY


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells that a file is not what it was."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    kind: int
    by_hand: bool
    blocks: int
    state: FileState
    root: bytes
    places: bytes
    """Digest of `blocks`."""
    path: str

    def pack(self) -> bytes:
        path, state, flags = os.fsencode(self.path), self.state, BY_HAND if self.by_hand else 0
        head = _HEAD.pack(
            MAGIC, VERSION, self.kind, flags, self.blocks,
            state.size, state.mtime_ns, state.inode, self.root, self.places, len(path),
        )  # fmt: skip
        return head + digest(head, path) + path

    @classmethod
    def parse(cls, data: bytes) -> ImageHeader:
        """Raises StoreDamaged."""
        if len(data) < HEADER_BYTES or data[:8] != MAGIC:
            raise StoreDamaged("it does not begin as an index does")
        _, version, kind, flags, blocks, size, mtime_ns, inode, root, places, length = _HEAD.unpack(data[:_CHECKED])
        path = data[HEADER_BYTES:]
        if digest(data[:_CHECKED], path) != data[_CHECKED:HEADER_BYTES] or len(path) != length:
            raise StoreDamaged("its header was changed")
        if version != VERSION:
            raise StoreDamaged(f"it has format version {version}, this is {VERSION}")
        state = FileState(size, mtime_ns, inode)
        return cls(kind, bool(flags & BY_HAND), blocks, state, root, places, os.fsdecode(path))


@dataclass(frozen=True, slots=True)
class ImageInfo:
    root: bytes
    path: Path
    """The image."""
    blocks: int
    uses: int
    size: int
    """Bytes on disk of its index."""


def header(entry: Entry) -> ImageHeader | None:
    """None when the index is gone, or not to be used."""
    held = peek(entry.path)
    if held is None:
        return None
    try:
        return None if WHOLE in held.damaged() else _header(held, entry)
    except StoreDamaged as error:
        condemn(held, error)
        return None
    finally:
        held.release()


def unchanged(head: ImageHeader) -> bool:
    """Whether the image is what was indexed, as far as its inode tells. Blocks are verified all the same."""
    try:
        found = os.stat(head.path)  # noqa: PTH116 - no Path for each look
    except (OSError, ValueError):  # ValueError: a path that no file can have
        return False
    return stat.S_ISREG(found.st_mode) and FileState.of(found) == head.state


class Image:
    """An indexed image opened to be read; its index stays as long as it is open. Any thread may read."""

    def __init__(self, held: Held, head: ImageHeader, file: int) -> None:
        self.root = head.root
        self.path = Path(head.path)
        self.blocks = head.blocks
        self._file = file
        self._held = held
        self._bad = held.damaged()
        self._used = False
        self._readers = Readers(self._close)
        self._keys = _mapped(held, "keys", head.root)
        self._places = _mapped(held, "blocks", head.places)

    @classmethod
    def open(cls, entry: Entry) -> Image | None:
        """None when the image has changed or is gone, or its index is gone or damaged (which is then marked)."""
        held = hold(entry.path)
        if held is None:
            return None
        try:
            image = cls._open(held, entry)
        except BaseException as error:
            if isinstance(error, StoreDamaged):
                condemn(held, error)
            held.release()
            if isinstance(error, StoreFailed):
                return None
            raise
        if image is None:
            held.release()
        return image

    @classmethod
    def _open(cls, held: Held, entry: Entry) -> Image | None:
        if WHOLE in held.damaged():
            return None
        head = _header(held, entry)
        if not head.blocks or not unchanged(head):
            return None
        file = os.open(head.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if FileState.of(os.fstat(file)) != head.state:
                raise StoreFailed(f"{head.path} changed just now")
            return cls(held, head, file)
        except BaseException:
            os.close(file)
            raise

    @property
    def keys(self) -> bytes:
        return self._keys[:]

    def supply(self, indices: Sequence[int], into: Buffer) -> list[int]:
        """Read blocks into `into`, verified; the positions that failed (zeroed)."""
        if not self._readers.enter():
            return list(range(len(indices)))
        try:
            count, bad, keys, table = self.blocks, self._bad, self._keys, self._places
            good = [0 <= index < count and index not in bad for index in indices]
            places = [
                _PLACE.unpack_from(table, index * PLACE_BYTES)[0] if ok else -1
                for index, ok in zip(indices, good, strict=True)
            ]
            wanted = [keys[i * KEY : i * KEY + KEY] if ok else b"" for i, ok in zip(indices, good, strict=True)]
            failed = gather(self._file, places, wanted, into)
            self._mark({indices[position] for position in failed if good[position]})
        finally:
            self._readers.leave()
        return failed

    def failed(self, first: int, count: int) -> list[int]:
        """Verify blocks in bulk; those that are not what was indexed."""
        some = range(first, min(self.blocks, first + count))
        return [some[position] for position in self.supply(some, bytearray(len(some) * PAGE))]

    def use(self) -> None:
        """Note that it served a move, once for each time it was opened."""
        if not self._used:
            self._used = True
            self._held.use()

    def close(self) -> None:
        self._readers.close()

    def _close(self) -> None:
        os.close(self._file)
        self._keys.close()
        self._places.close()
        self._held.release()

    def _mark(self, indices: set[int]) -> None:
        if indices:
            log.warning("%s: %d blocks are not what was indexed; index it again", self.path, len(indices))
            self._bad |= indices
            self._held.mark(*sorted(indices))


def _header(held: Held, entry: Entry) -> ImageHeader:
    """Raises StoreDamaged unless header, name and the sizes of all files fit together."""
    with expecting("header"):
        head = ImageHeader.parse(held.read("index", HEADER_BYTES + 4096))
        if head.root != entry.root:
            raise StoreDamaged("its header belongs to another index")
        for name, size in (("blocks", head.blocks * PLACE_BYTES), ("keys", head.blocks * KEY)):
            if (found := held.size(name)) != size:
                raise StoreDamaged(f"its {name} have {found} bytes instead of {size}")
    return head


def _mapped(held: Held, name: str, expected: bytes) -> mmap.mmap:
    """A file of the index, verified. Read before it is mapped: a bad disk is then an error, not a signal."""
    file = held.open(name)
    try:
        running = blake3()
        with expecting(name):
            while chunk := os.read(file, 1 << 20):
                running.update(chunk)
        if running.digest(KEY) != expected:
            raise StoreDamaged(f"its {name} were changed")
        return mmap.mmap(file, 0, prot=mmap.PROT_READ)
    finally:
        os.close(file)
