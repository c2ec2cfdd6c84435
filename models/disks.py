"""Disk images that move with their VM, because the destination does not see them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from models.base import AbsolutePath, Count, MigrationId, Model, Name
from models.migration import VmRef


class DiskImage(Model):
    """One image file as its VM's host sees it. Sizes in bytes."""

    target: Name
    """The disk's name in the VM: vda."""
    path: AbsolutePath
    format: Annotated[str, Field(max_length=16)] = ""
    """raw, qcow2, ... as the VM's XML names it."""
    capacity: Count = 0
    """What the guest sees."""
    allocated: Count = 0
    """What the file takes on its host."""


class PrepareDisks(Model):
    """Make empty images at the destination, of the same format and size. Existing files are never touched."""

    migration_id: MigrationId
    disks: Annotated[tuple[DiskImage, ...], Field(min_length=1, max_length=64)]
    vm: VmRef | None = None
    """Whose disks they are, with the token of the operation."""


class SettleDisks(Model):
    """The move has ended: keep the images (the VM runs on them) or remove what this migration made."""

    migration_id: MigrationId
    disks: Annotated[tuple[DiskImage, ...], Field(min_length=1, max_length=64)]
    keep: bool
    vm: VmRef | None = None


class DisksReport(Model):
    paths: Annotated[tuple[AbsolutePath, ...], Field(max_length=64)] = ()
    """Images that were made, kept or removed."""
