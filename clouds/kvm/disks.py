"""Disk images that the destination does not see: which have to be copied, and the empty images they are copied into.

An image is made only where nothing is, in a folder that is there. Beside it lies `<image>.novacron` with the id of the
migration it was made for, written first: what this migration made can be told from all else at any moment, and only
that is ever removed. libvirt and QEMU fill the image (NBD); nothing here reads or writes a guest's data.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clouds.kvm.errors import Refused
from models.disks import DiskImage
from models.host import DiskReport

FORMATS = ("raw", "qcow2")
"""What can be made by name, size and nothing else."""
MADE_WITHIN = 60.0


@dataclass(frozen=True)
class Place:
    """Where an image would go, as its new host sees it."""

    exists: bool = False
    folder: bool = True
    """The folder is there and can be written."""
    free: int = 0
    """Bytes."""

    @classmethod
    def of(cls, path: str) -> Place:
        folder = Path(path).parent
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            return cls(folder=False)
        room = os.statvfs(folder)
        return cls(exists=os.path.lexists(path), free=room.f_bavail * room.f_frsize)


def obstacle(disk: DiskReport, place: Place) -> str:
    """Why this disk cannot be copied to this place; empty when it can."""
    image, what = disk.image, f"{disk.target} {disk.path}"
    if image is None:
        return f"{what} is no image file of its own: only those can be copied"
    if disk.readonly:
        return f"{what} is read-only: only disks that the VM writes to are copied"
    if image.format not in FORMATS:
        return f"{what} has format {image.format or 'unknown'}: only {' and '.join(FORMATS)} are copied"
    if not image.capacity:
        return f"{what} did not tell its size"
    if not place.folder:
        return f"the folder of {what} is not there, or cannot be written"
    if place.exists:
        return f"{what} exists there as another file, and is not overwritten"
    if place.free < image.allocated:
        return f"{what} takes {image.allocated >> 20} MiB, and {place.free >> 20} MiB are free there"
    return ""


def make(images: Sequence[DiskImage], migration_id: str, owner: tuple[int, int]) -> tuple[str, ...]:
    """Make them all for `owner` (user and group); also again, after an attempt that died. Raises Refused, with none
    made."""
    made: list[DiskImage] = []
    try:
        for image in images:
            made.append(image)
            _make(image, migration_id, owner)
    except BaseException:
        remove(made, migration_id)
        raise
    return tuple(image.path for image in images)


def remove(images: Sequence[DiskImage], migration_id: str) -> tuple[str, ...]:
    """Remove what this migration made, and nothing else."""
    gone = []
    for image in images:
        if is_ours(image, migration_id):
            Path(image.path).unlink(missing_ok=True)
            _mark(image).unlink()
            gone.append(image.path)
    return tuple(gone)


def keep(images: Sequence[DiskImage], migration_id: str) -> tuple[str, ...]:
    """The VM runs on them now: forget that they were ours."""
    kept = [image for image in images if is_ours(image, migration_id)]
    for image in kept:
        _mark(image).unlink()
    return tuple(image.path for image in kept)


def is_ours(image: DiskImage, migration_id: str) -> bool:
    return marked(image) == migration_id


def marked(image: DiskImage) -> str | None:
    """The migration that made this image and has not settled it."""
    try:
        return _mark(image).read_text()
    except FileNotFoundError:
        return None


def _mark(image: DiskImage) -> Path:
    return Path(f"{image.path}.novacron")


def _make(image: DiskImage, migration_id: str, owner: tuple[int, int]) -> None:
    path = Path(image.path)
    if is_ours(image, migration_id):
        path.unlink(missing_ok=True)  # of an attempt that died: how far it came is not known
    elif os.path.lexists(path):
        raise Refused(f"{path} exists on this host and is not overwritten", "Move it away, if nobody needs it.")
    else:
        _claim(image, migration_id)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _create(image)
        os.chown(path, *owner)
    except FileExistsError as error:
        _mark(image).unlink()  # made by somebody else this very moment: not ours to remove
        raise Refused(f"{path} appeared on this host and is not overwritten", "Find out who made it.") from error
    except OSError as error:
        raise Refused(f"{path} cannot be made: {error}", "Make room or mend the folder's permissions.") from error


def _claim(image: DiskImage, migration_id: str) -> None:
    try:
        handle = os.open(_mark(image), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Refused(
            f"{_mark(image)} says that another migration made {image.path}",
            "Wait for that migration's end. If it is over and no VM uses the image, remove both files.",
        ) from error
    except OSError as error:
        raise Refused(f"{image.path} cannot be made: {error}", "Its folder has to be there and writable.") from error
    with os.fdopen(handle, "w") as file:
        file.write(migration_id)
        file.flush()
        os.fsync(file.fileno())


def _create(image: DiskImage) -> None:
    command = ["qemu-img", "create", "-q", "-f", image.format, image.path, str(image.capacity)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MADE_WITHIN, check=False)
    except FileNotFoundError as error:
        raise Refused("qemu-img is not installed on this host", "Install the package qemu-utils.") from error
    except subprocess.TimeoutExpired as error:
        raise Refused(
            f"qemu-img did not make {image.path} within {MADE_WITHIN:.0f} s", "Look at its storage."
        ) from error
    if done.returncode:
        raise Refused(f"qemu-img could not make {image.path}: {done.stderr.strip()}", "See its words.")
