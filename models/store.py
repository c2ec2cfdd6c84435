"""The content store of a host: what it is told, and what it says of itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.base import AbsolutePath, Count, Model, Name

Scope = Literal["vm", "tenant", "site"]
"""Whose pages may serve a move: the VM's own, those of all VMs of its tenant, or of all VMs of the site. Disk images of
the host always may. Wider saves more and leaks more: who can start moves can find out whether a page is known."""


class StoreSettings(Model):
    """Part of a host's settings: where its store lives, and how large it may grow."""

    folder: AbsolutePath = "/var/lib/novacron/store"
    limit_mib: Annotated[int, Field(ge=0, le=1 << 30)] = 16384
    """Disk space it may take; the least valuable goes first. 0: no store."""
    images: Annotated[tuple[AbsolutePath, ...], Field(max_length=256)] = ()
    """Disk images of this host, or folders of them, whose blocks it knows (a guest's page cache is its disk)."""
    keep_visits: Annotated[int, Field(ge=1, le=64)] = 1
    """Visits kept of one VM; older ones give way to a new one."""
    leave_free_mib: Annotated[int, Field(ge=0, le=1 << 30)] = 1024
    """Disk space that the store never takes, whatever its limit: thin disk images beside it must be able to grow."""


class StoreUse(Model):
    """What one data path process may do with its host's store."""

    settings: StoreSettings
    vm: Annotated[str, Field(min_length=1, max_length=64)]
    """The VM's UUID: names its visits."""
    tenant: Name = "default"
    scope: Scope = "vm"


class StoreStats(Model):
    """What a store holds. Bytes are on disk."""

    folder: AbsolutePath
    limit_bytes: Count
    used_bytes: Count = 0
    visits: Count = 0
    """Memory images of VMs that left or arrived."""
    visit_pages: Count = 0
    drafts: Count = 0
    """Visits and indexes being written; their space counts as used."""
    images: Count = 0
    image_blocks: Count = 0
    damaged: Count = 0
    """Pages that were found changed since they were stored; they are never used."""
    uses: Count = 0
    """How often what is there now served a move."""
