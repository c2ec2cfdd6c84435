"""The folder: each disk is a sparse raw file, its record, and the SHA-256 of each of its blocks.

    disks/<id>.raw   disks/<id>.json   disks/<id>.sums (once it is whole: clouds.disks.ledger)
    images/<id>.json                   volumes/<instance>-<target>.qcow2

Ids are made of tokens, so that a second attempt meets the first one's. A record is written whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from clouds.disks.content import BLOCK, RawFile
from clouds.disks.ledger import Ledger
from clouds.errors import BadDisk, Busy, MissingPackage, NotFound, NotPermitted, QuotaExceeded
from models.base import Count, Model
from models.clouds import CloudId, CloudImage, Digest, Snapshot, Token

M = TypeVar("M", bound=Model)
UNIT = 1 << 20
"""Sizes of disks are rounded up to it."""
COPY_WITHIN = 6 * 3600.0
_ID = re.compile(r"(disk|image)-[0-9a-f]{32}")


class DiskRecord(Model):
    """What is known of a disk."""

    snapshot: Snapshot
    token: Token
    line: CloudId
    """Disks of one line differ by what was written since: an import and its deltas, the snapshots of one volume."""
    content: Digest | None = None
    """Content hash of the blocks that were moved into it, once they all are there."""
    round: Count = 0
    """Of a snapshot of a running VM: which round of backups it was taken in."""


class ImageRecord(Model):
    image: CloudImage
    token: Token


class Store:
    def __init__(self, folder: str) -> None:
        """Touches nothing yet."""
        self.folder = Path(folder)

    # Records.

    def disk(self, id: str) -> DiskRecord:
        return self._read("disk", id, DiskRecord)

    def disks(self) -> Iterator[DiskRecord]:
        return self._all("disk", DiskRecord)

    def image(self, id: str) -> ImageRecord:
        return self._read("image", id, ImageRecord)

    def images(self) -> Iterator[ImageRecord]:
        return self._all("image", ImageRecord)

    def save_disk(self, record: DiskRecord) -> None:
        self._write("disk", record.snapshot.id, record)

    def save_image(self, record: ImageRecord) -> None:
        self._write("image", record.image.id, record)

    def forget_image(self, id: str) -> None:
        if _ID.fullmatch(id):
            self._record("image", id).unlink(missing_ok=True)

    def forget_disk(self, id: str) -> None:
        """The record last: what has none was never there."""
        for path in (self.sums(id), self.raw(id), self._record("disk", id)):
            path.unlink(missing_ok=True)

    # Content.

    def raw(self, id: str) -> Path:
        return self.folder / "disks" / f"{id}.raw"

    def sums(self, id: str) -> Path:
        return self.folder / "disks" / f"{id}.sums"

    def volume(self, instance: str, target: str) -> Path:
        path = self.folder / "volumes" / f"{instance}-{target}.qcow2"
        self._make(path.parent)
        return path

    def volumes(self, instance: str) -> tuple[Path, ...]:
        """Whole ones, and what a dead attempt left."""
        return tuple((self.folder / "volumes").glob(f"{instance}-*"))

    def ledger(self, id: str) -> Ledger:
        return Ledger.read(self.sums(id), id)

    def make(self, id: str, size: int, base: str | None) -> None:
        """The file, zeros or as `base`; nothing when it is there. Takes no room that it need not."""
        path = self.raw(id)
        if path.exists():
            return
        self._make(path.parent)
        fresh = path.with_suffix(".new")
        with self._told(path):
            if base is None:
                with fresh.open("wb") as file:
                    file.truncate(size)
            else:
                _copy(self.raw(base), fresh)
            fresh.replace(path)

    @contextmanager
    def writing(self, id: str) -> Iterator[RawFile]:
        """For one process at a time: a worker that was taken for dead may still write."""
        try:
            handle = os.open(self.raw(id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"there is no disk {id}", "Check the id and the region.") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with RawFile(self.raw(id), writable=True) as file:
                yield file
        except BlockingIOError:
            raise Busy(f"another process writes to {id}", "It is tried again; end the other one if it hangs.") from None
        finally:
            os.close(handle)

    def write_block(self, file: RawFile, index: int, data: bytes) -> None:
        """Raises QuotaExceeded when the file system is full."""
        with self._told(Path(file.path)):
            file.write(index * BLOCK, data[: file.size - index * BLOCK])

    def read_block(self, file: RawFile, index: int) -> bytes:
        return file.read(index * BLOCK, min(BLOCK, file.size - index * BLOCK)).ljust(BLOCK, b"\0")

    # Inside.

    def _record(self, kind: str, id: str) -> Path:
        return self.folder / f"{kind}s" / f"{id}.json"

    def _read(self, kind: str, id: str, model: type[M]) -> M:
        try:
            if not _ID.fullmatch(id):  # nothing else is ever part of a path
                raise FileNotFoundError
            return model.model_validate_json(self._record(kind, id).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotFound(f"there is no {kind} {id}", "Check the id and the region.") from None
        except ValueError as error:
            raise BadDisk(f"the record {self._record(kind, id)} is damaged: {error}", "Delete what it names.") from None

    def _all(self, kind: str, model: type[M]) -> Iterator[M]:
        for path in sorted((self.folder / f"{kind}s").glob(f"{kind}-*.json")):
            try:
                yield self._read(kind, path.stem, model)
            except NotFound:
                continue  # deleted this moment

    def _write(self, kind: str, id: str, record: Model) -> None:
        path = self._record(kind, id)
        self._make(path.parent)
        fresh = path.with_suffix(".json.new")
        with self._told(path), fresh.open("w", encoding="utf-8") as file:
            file.write(record.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def _make(self, folder: Path) -> None:
        with self._told(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise NotPermitted(
                f"{path} may not be written: {error.strerror}", f"Give this process the folder {self.folder}."
            ) from error
        except OSError as error:
            if error.errno in _FULL:
                raise QuotaExceeded(f"{path}: {error.strerror}", f"Make room in {self.folder}.") from error
            raise BadDisk(f"{path} cannot be written: {error.strerror}", "Look at its storage.") from error


_FULL = (28, 122)
"""ENOSPC, EDQUOT."""


def _copy(source: Path, target: Path) -> None:
    """Shares blocks where the file system can, and keeps holes."""
    tool = shutil.which("cp")
    if tool is None:
        raise MissingPackage("cp is not installed here", "Install the package coreutils.")
    command = [tool, "--reflink=auto", "--sparse=always", str(source), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COPY_WITHIN, check=False)
    except subprocess.TimeoutExpired as error:
        raise BadDisk(f"{source} was not copied within {COPY_WITHIN:.0f} s", "Look at its storage.") from error
    if done.returncode:
        target.unlink(missing_ok=True)
        raise QuotaExceeded(f"{source} cannot be copied: {done.stderr.strip()}", "Make room, and look at its storage.")
