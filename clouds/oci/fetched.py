"""An object of the bucket as a file here: fetched in ranges, gone on with after a crash, compared with what is known.

QCOW2 cannot be read from its beginning to its end, so the image comes into a file of the settings' folder first, and
the disk out of that. The file carries the object's etag in its name, so another object's bytes are never joined to it;
a lock keeps a second process away. It is removed once it was read, and after `FORGOTTEN` when nobody goes on.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clouds.disks.content import BLOCK, ContentHash, Reader, blocks
from clouds.disks.images import open_image
from clouds.errors import BadDisk, Busy, Damaged, Final, QuotaExceeded
from clouds.oci.uploads import OciUploads

FORGOTTEN = 2 * 86400.0
"""Seconds without a byte after which a file is nobody's."""
BEAT_EVERY = 2.0
_AGAIN = "It is read again."


@contextmanager
def fetched(uploads: OciUploads, disk: str, folder: Path, parallel: int, beat: Callable[[], None]) -> Iterator[Path]:
    """The whole QCOW2 of a disk, checked. Left by an error it stays for the next attempt, else it is removed.

    `beat` is called every few seconds of a long fetch, and may raise."""
    told, paced = uploads.head(disk), _Paced(beat)
    etag = hashlib.sha256(str(told["etag"]).encode()).hexdigest()[:16]
    path = folder / f"{disk}.{etag}.qcow2"
    with _mine(folder, path) as handle:
        _fetch(uploads, disk, int(told["content-length"]), handle, parallel * BLOCK, paced)
        try:
            _check(disk, path, told, paced)
        except Damaged:
            path.unlink(missing_ok=True)
            raise
        yield path
        path.unlink(missing_ok=True)


class _Paced:
    """Passes a beat on when the last one is some seconds ago."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last > BEAT_EVERY:
            self._beat()
            self._last = time.monotonic()


@contextmanager
def _mine(folder: Path, path: Path) -> Iterator[int]:
    """The file, to be written by this process alone. Raises Busy."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(folder)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Final(
            f"cannot write {path}: {error}", "Mend it, or set `spool` of this cloud to another folder."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"{path} is being fetched by another process", "It is waited for.") from error
        yield handle
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    for path in folder.glob("*.qcow2"):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - FORGOTTEN:
                path.unlink()


def _fetch(uploads: OciUploads, disk: str, length: int, handle: int, piece: int, beat: Callable[[], None]) -> None:
    at = os.fstat(handle).st_size
    while at < length:
        beat()
        data = uploads.range(disk, at, min(piece, length - at))
        try:
            os.pwrite(handle, data, at)
        except OSError as error:
            os.ftruncate(handle, at)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise QuotaExceeded(
                f"no room for the {length} bytes of {disk}'s image", "Make room in `spool` of this cloud's settings."
            ) from error
        at += len(data)
    os.ftruncate(handle, length)
    os.fsync(handle)


def _check(disk: str, path: Path, told: Any, beat: Callable[[], None]) -> None:
    """By the MD5 that Oracle has of an object in one piece, and by our own hash of a disk that we imported. Of an image
    that was exported in parts Oracle tells neither: it has to be a QCOW2 that can be opened. Raises Damaged."""
    wanted = str(told.get("content-md5", ""))
    if wanted and _md5(path, beat) != wanted:
        raise Damaged(f"the image of {disk} does not fit its MD5", _AGAIN)
    content = OciUploads.content_of(told)
    try:
        with open_image(path, "qcow2") as image:
            found = _content(image, beat) if content else ""
    except BadDisk as error:
        raise Damaged(f"the image of {disk} cannot be read: {error.what}", _AGAIN) from error
    if found != content:
        raise Damaged(f"the image of {disk} does not hold what was sent", _AGAIN)


def _content(image: Reader, beat: Callable[[], None]) -> str:
    digest = ContentHash()
    for block in blocks(image):
        beat()
        digest.add(block.index, hashlib.sha256(block.data).digest())
    return digest.hexdigest()


def _md5(path: Path, beat: Callable[[], None]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(8 << 20):
            beat()
            digest.update(piece)
    return base64.b64encode(digest.digest()).decode()
