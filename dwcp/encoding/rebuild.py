"""Build a file from its recipe: crash-safe, resumable, sparse, and in place only once every byte is right.

The work happens in `.<name>.<recipe>.part` beside the target, under a lock. There is no journal: an attempt that
finds such a file reads what is in it and keeps every chunk whose bytes have the right name, whatever a crash left. At
the end the whole file's BLAKE3 must hold; then fsync, rename, fsync of the folder. Until then the target is what it
was.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from array import array
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from blake3 import blake3

from dwcp.encoding.chunks import chunk_id
from dwcp.encoding.recipe import Recipe, extents, hash_zeros, of_file, read_at
from dwcp.errors import DigestMismatch, Incomplete, TransferFailed
from dwcp.transport.frames import Buffer

log = logging.getLogger(__name__)

Source = Callable[[bytes], Buffer | None]
"""The bytes of a chunk by its name, or None: does not have it. They are verified by whoever asks."""
_PORTION: Final = 1 << 20


class Rebuild:
    """One file in the making. Takes about 200 bytes of memory for each chunk that is missing."""

    def __init__(self, recipe: Recipe, target: Path | str, mode: int = 0o600) -> None:
        """Raises OSError, and TransferFailed if another process is at it."""
        self.recipe = recipe
        self._target = Path(target)
        self._mode = mode
        name = blake3(recipe.encode()).hexdigest()[:16]
        self._part = self._target.with_name(f".{self._target.name}.{name}.part")
        self._places: dict[bytes, list[int]] = {}
        """Where chunks are missing, by name."""
        self._handle = self._open()
        try:
            os.ftruncate(self._handle, recipe.length)
            self._wanted = self._find_missing()
        except BaseException:
            self.close()
            raise
        self._remove_older_parts()

    def __enter__(self) -> Rebuild:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def missing(self) -> list[int]:
        """Pieces still to come, each name once, in the file's order."""
        return [piece for piece in self._wanted if self.recipe.id(piece) in self._places]

    def put(self, piece: int, data: Buffer) -> None:
        """Write a chunk wherever it belongs. Raises DigestMismatch and writes nothing if it is not that chunk."""
        name = self.recipe.id(piece)
        if len(data) != self.recipe.lengths[piece] or chunk_id(data) != name:
            raise DigestMismatch(f"piece {piece} of {self._target} is not the chunk {name.hex()}; nothing was written")
        for offset in self._places.get(name, ()):
            _write_at(self._handle, offset, data)
        self._places.pop(name, None)

    def finish(self) -> None:
        """Verify the whole and put it in place. Raises Incomplete, OSError; DigestMismatch, and the work is removed."""
        if self._places:
            raise Incomplete(
                f"{self._target} lacks {len(self._places)} chunks; get them, or go on later", self.missing()
            )
        running = blake3()
        for offset, size, filled in extents(self._handle, self.recipe.length):
            if not filled:
                hash_zeros(running, size)
                continue
            for place in range(offset, offset + size, _PORTION):
                running.update(read_at(self._handle, place, min(_PORTION, offset + size - place)))
        if running.digest() != self.recipe.digest:
            self._part.unlink()
            raise DigestMismatch(f"{self._target} does not have its digest though every chunk had; check the disk")
        os.fchmod(self._handle, self._mode)
        os.fsync(self._handle)
        self._part.rename(self._target)
        folder = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Leave what is there to a later attempt. Idempotent."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _open(self) -> int:
        """The part file, locked. Another attempt may have finished and renamed it between our opening and locking."""
        while True:
            handle = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(handle).st_nlink:
                    there = self._part.stat()
                    if (there.st_dev, there.st_ino) == (os.fstat(handle).st_dev, os.fstat(handle).st_ino):
                        return handle
            except FileNotFoundError:
                log.info("%s went while it was opened: an attempt has just finished", self._part)
            except BlockingIOError as error:
                os.close(handle)
                raise TransferFailed(f"{self._target} is being rebuilt by another process; wait for it") from error
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _find_missing(self) -> array[int]:
        """Read what is there; note the places of all else."""
        wanted = array("Q")
        data = iter([*extents(self._handle, self.recipe.length), (self.recipe.length, 0, True)])
        begin, size, filled = next(data)
        for piece, offset in enumerate(self.recipe.offsets()):
            length = self.recipe.lengths[piece]
            if length < 0:
                continue
            while begin + size <= offset:
                begin, size, filled = next(data)
            name = self.recipe.id(piece)
            untouched = not filled and offset + length <= begin + size
            if untouched or chunk_id(read_at(self._handle, offset, length)) != name:
                places = self._places.setdefault(name, [])
                if not places:
                    wanted.append(piece)
                places.append(offset)
        return wanted

    def _remove_older_parts(self) -> None:
        """Of other recipes for the same target, unless somebody is at them."""
        prefix, start = f".{self._target.name}.", len(self._target.name) + 2
        for path in self._target.parent.iterdir():
            tail = path.name[start:]
            if path == self._part or not path.name.startswith(prefix) or not tail.endswith(".part") or len(tail) != 21:
                continue
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError as error:
                log.info("%s is left as it is: %s", path, error)
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                log.info("%s is left: another process is at it", path)
            finally:
                os.close(handle)


class FileChunks:
    """An older or similar file as a source. What has changed in it since is not given."""

    def __init__(self, path: Path | str, recipe: Recipe | None = None) -> None:
        """`recipe` is the file's own, if it is known. Raises OSError, TransferFailed."""
        recipe = recipe or of_file(path)
        self._places = {
            recipe.id(piece): (offset, recipe.lengths[piece])
            for piece, offset in enumerate(recipe.offsets())
            if recipe.lengths[piece] > 0
        }
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __call__(self, name: bytes) -> bytes | None:
        place = self._places.get(name)
        if place is None:
            return None
        data = os.pread(self._handle, place[1], place[0])
        return data if chunk_id(data) == name else None

    def close(self) -> None:
        os.close(self._handle)


def fill(work: Rebuild, source: Source) -> None:
    """Put what `source` has. What it gives wrongly counts as not had."""
    for piece in work.missing():
        data = source(work.recipe.id(piece))
        if data is None:
            continue
        try:
            work.put(piece, data)
        except DigestMismatch as error:
            log.warning("a source gave a wrong chunk: %s", error)


def rebuild(recipe: Recipe, source: Source, target: Path | str) -> None:
    """All at once. Raises Incomplete when `source` lacks chunks: what it had is kept for the next attempt."""
    with Rebuild(recipe, target) as work:
        fill(work, source)
        work.finish()


def _write_at(handle: int, offset: int, data: Buffer) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        if not written:
            raise OSError(errno.EIO, f"nothing could be written at {offset}")
        view = view[written:]
        offset += written
