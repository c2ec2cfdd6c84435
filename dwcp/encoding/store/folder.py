"""The store's folder: its layout, its locks, and the few file operations that everything else is made of.

    FORMAT                  "novacron store 1\\n": what this is; written last when the store is made
    lock                    flock, exclusive: held for moments, by whoever adds, removes or counts
    visits/ENTRY/           slab, visit       what a VM's memory was
    images/ENTRY/           index, blocks, keys
    drafts/NAME/            entries being written, or being removed
    aside/NAME/             a store of another format version, as it was found; goes first

An entry is a folder that appears and disappears by one rename; its files do not change, but for `uses` and `damaged`,
which grow by single appends. Whoever reads or writes an entry holds a lock (flock) on its folder: shared to read,
exclusive to write or remove. The kernel drops locks of a process that died, so a draft whose lock is free is garbage.
ENTRY is `created.root.nonce`: nanoseconds (20 digits), 32 and 16 hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from dwcp.errors import StoreDamaged, StoreFailed

log = logging.getLogger("dwcp.store")

Kind: TypeAlias = Literal["visits", "images"]

FORMAT: Final = b"novacron store 1\n"
LOCK_SECONDS: Final = 10.0
LOCK_POLL: Final = 0.01
WHOLE: Final = 0xFFFFFFFF
"""In `damaged`: not one page, all of the entry."""
MAX_MARKS: Final = 1 << 20
_PARTS: Final = ("visits", "images", "drafts")
_STAY: Final = frozenset({"FORMAT", "FORMAT.new", "lock", "aside", "lost+found"})
_ENTRY: Final = re.compile(r"(\d{20})\.([0-9a-f]{32})\.([0-9a-f]{16})")
_BROKEN: Final = frozenset(
    {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EIO, errno.EUCLEAN, errno.ENODATA}
)
_MARK: Final = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Entry:
    """One visit or image index, as its folder shows it."""

    kind: Kind
    path: Path
    created: int
    """Nanoseconds since 1970; later visits of a VM have later ones."""
    root: bytes
    uses: int
    used_at: float
    """Seconds since 1970: written, or last used."""
    size: int
    """Bytes on disk."""


class Held:
    """A lock on an entry's folder, and the way to its files."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        return os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=self.fd)

    def read(self, name: str, length: int = -1) -> bytes:
        """The file, or its first `length` bytes."""
        with os.fdopen(self.open(name), "rb") as stream:
            return stream.read(length)

    def size(self, name: str) -> int:
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_size

    def write(self, name: str, *parts: bytes) -> None:
        """A new file, on the disk when this returns."""
        with os.fdopen(self.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as stream:
            for part in parts:
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())

    def append(self, name: str, data: bytes) -> None:
        """Short additions by several processes do not mix. A store that cannot be written goes without."""
        try:
            file = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                os.write(file, data)
            finally:
                os.close(file)
        except OSError as error:
            log.info("%s of %s cannot be noted: %s", name, self.path, error)

    def use(self) -> None:
        """Note one use; the file's size is their count."""
        self.append("uses", b"+")

    def damaged(self) -> set[int]:
        """Pages marked, WHOLE among them when nothing of the entry is to be used."""
        try:
            marks = self.read("damaged", MAX_MARKS * _MARK.size)
        except FileNotFoundError:
            return set()
        except OSError as error:
            log.warning("%s/damaged cannot be read: %s; the whole entry counts as damaged", self.path, error)
            return {WHOLE}
        return {place for (place,) in _MARK.iter_unpack(marks[: len(marks) // _MARK.size * _MARK.size])}

    def mark(self, *places: int) -> None:
        for at in range(0, len(places), 1024):
            self.append("damaged", b"".join(_MARK.pack(place) for place in places[at : at + 1024]))

    def release(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@contextlib.contextmanager
def expecting(what: str) -> Iterator[None]:
    """Turn what only a damaged entry or disk does into StoreDamaged: one bad entry must not hide the others."""
    try:
        yield
    except OSError as error:
        if error.errno in _BROKEN:
            raise StoreDamaged(f"its {what} cannot be read ({error.strerror})") from error
        raise


def hold(path: Path, *, alone: bool = False) -> Held | None:
    """Lock the entry at `path`; None when it is gone, or another's use forbids it. Never waits."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.lstat()):
            return Held(path, fd)
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)  # being removed, or removed and another one of that name made meanwhile
    return None


def peek(path: Path) -> Held | None:
    """The way to an entry's files without a lock, for a short look; None when it is gone."""
    try:
        return Held(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW))
    except (FileNotFoundError, NotADirectoryError):
        return None


def marks(entry: Entry) -> set[int]:
    """What is marked as damaged in an entry."""
    held = peek(entry.path)
    if held is None:
        return set()
    try:
        return held.damaged()
    finally:
        held.release()


def condemn(held: Held, error: StoreDamaged) -> None:
    """Mark an entry that must not be used again; it goes when room is made."""
    try:
        if not os.path.samestat(os.fstat(held.fd), held.path.lstat()):
            return
    except FileNotFoundError:
        return  # not damaged: being removed
    log.warning("%s is damaged: %s; it is not used any more", held.path, error)
    held.mark(WHOLE)


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._ready = False

    def is_store(self) -> bool:
        """Whether a store of this format is there. Raises StoreFailed when the folder must not be used."""
        try:
            self._check_owner()
            return (self.path / "FORMAT").read_bytes() == FORMAT
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """Raises StoreFailed or OSError when a store is not there, and could not be."""
        if not self.is_store() and self.path.exists():
            self._check_others()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The folder, made if it is missing, for this thread of this process alone. Keep it short."""
        if not self.is_store():
            self._make()
        with self._lock():
            if not self.is_store():
                self._settle()
            self._ready = True
            yield

    def entries(self, kind: Kind) -> list[Entry]:
        """Newest first. What has no entry's name is not looked at."""
        found = []
        for path in _list(self.path / kind):
            match = _ENTRY.fullmatch(path.name)
            if match is None:
                continue
            try:
                noted = _stat(path / "uses")
                used_at = noted.st_mtime if noted else path.stat().st_mtime
                size = allocated(path)
            except FileNotFoundError:
                continue  # removed meanwhile
            uses = noted.st_size if noted else 0
            found.append(Entry(kind, path, int(match[1]), bytes.fromhex(match[2]), uses, used_at, size))
        return sorted(found, key=lambda entry: entry.path.name, reverse=True)

    def draft(self) -> Held:
        """A new folder for an entry under way, locked. Call it while the folder is locked."""
        path = self.path / "drafts" / secrets.token_hex(8)
        path.mkdir(0o700)
        held = hold(path, alone=True)
        if held is None:
            raise StoreFailed(f"draft {path} was taken away as it was made; is somebody cleaning this folder?")
        return held

    def publish(self, held: Held, kind: Kind, root: bytes) -> Path:
        """Turn a finished draft into an entry, newer than all others. Call it while the folder is locked."""
        newest = max((entry.created for entry in self.entries(kind)), default=0)
        created = min(max(time.time_ns(), newest + 1), 10**20 - 1)
        target = self.path / kind / f"{created:020d}.{root.hex()}.{secrets.token_hex(8)}"
        os.fsync(held.fd)
        held.path.rename(target)
        held.path = target
        sync(self.path / kind)
        return target

    def removable(self, path: Path) -> bool:
        """Whether nobody has it open just now."""
        held = hold(path, alone=True)
        if held is None:
            return False
        held.release()
        return True

    def remove(self, path: Path) -> bool:
        """Remove an entry, unless somebody has it open. Call it while the folder is locked."""
        held = hold(path, alone=True)
        if held is None:
            return False
        try:
            return self.discard(held)
        finally:
            held.release()

    def discard(self, held: Held) -> bool:
        """Remove what is held alone: out of sight at once, then file by file. False when that failed (logged)."""
        try:
            if held.path.parent.name != "drafts":
                target = self.path / "drafts" / held.path.name
                held.path.rename(target)
                held.path = target
            shutil.rmtree(held.path)
        except OSError as error:
            log.warning("%s could not be removed: %s; the next sweep tries again", held.path, error)
            return False
        return True

    def drafts(self) -> int:
        """Entries being written or removed just now, and what the dead have left of theirs."""
        return len(_list(self.path / "drafts"))

    def sweep(self) -> int:
        """Remove drafts of the dead; how many. Call it while the folder is locked."""
        gone = 0
        for path in _list(self.path / "drafts"):
            gone += self.remove(path)
        return gone

    def clear_aside(self) -> int:
        """Remove stores of other format versions; bytes freed. Call it while the folder is locked."""
        aside = self.path / "aside"
        if not aside.exists():
            return 0
        freed = allocated(aside)
        shutil.rmtree(aside)
        log.info("removed %s: a store of another format version", aside)
        return freed

    def used(self) -> int:
        """Bytes on disk of everything here. Drafts count with all they have asked for."""
        return allocated(self.path)

    def disk_free(self) -> int:
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def _make(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_owner()
        self._check_others()

    def _check_others(self) -> None:
        others = {path.name for path in _list(self.path)} - _STAY - set(_PARTS)
        if others and not (self.path / "FORMAT").exists():
            raise StoreFailed(f"{self.path} holds other files ({min(others)}) and is no store; give an empty folder")

    def _check_owner(self) -> None:
        """Memory of guests lies here: nobody else may put anything in its place."""
        found = self.path.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise StoreFailed(
                f"{self.path} belongs to user {found.st_uid}, mode {found.st_mode & 0o777:o}; the store's folder "
                f"must be user {os.geteuid()}'s and writable by nobody else: chown and chmod it, or give another"
            )

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            deadline = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise StoreFailed(
                            f"{self.path}/lock was held by another process for {LOCK_SECONDS:g} s; "
                            f"`fuser {self.path}/lock` names it"
                        ) from None
                    time.sleep(LOCK_POLL)
            yield
        finally:
            os.close(fd)

    def _settle(self) -> None:
        """Under the lock: a store of this format, whatever was here before. Killed half-way, it is done again."""
        mark = self.path / "FORMAT"
        found = mark.read_bytes() if mark.exists() else b""
        if found and self._ready:
            raise StoreFailed(
                f"{self.path} was taken over by another release of NovaCron; this process leaves it alone"
            )
        if found:
            aside = self.path / "aside" / secrets.token_hex(8)
            aside.mkdir(mode=0o700, parents=True)
            for path in _list(self.path):
                if path.name not in _STAY:
                    path.rename(aside / path.name)
            log.warning("%s holds a store of another format (%r); it was put aside in %s", self.path, found[:40], aside)
        for name in _PARTS:
            (self.path / name).mkdir(mode=0o700, exist_ok=True)
        new = self.path / "FORMAT.new"
        new.write_bytes(FORMAT)
        sync(new)
        new.rename(mark)
        sync(self.path)


def allocated(path: Path) -> int:
    """Bytes on disk of `path` and all below; files that have asked for more than they have yet count in full."""
    try:
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            return found.st_blocks * 512 + sum(allocated(one) for one in _list(path))
    except FileNotFoundError:
        return 0  # removed meanwhile
    return max(found.st_blocks * 512, found.st_size)


def sync(path: Path) -> None:
    """Onto the disk: a file, or the names in a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
