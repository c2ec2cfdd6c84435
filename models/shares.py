"""Bandwidth that moves share: what there is, who asks, who gets how much. MiB a second on the wire throughout."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from models.base import MigrationId, Model, Name

Mib = Annotated[int, Field(ge=0, le=1_000_000)]
"""MiB a second; 0 is no bound."""


class HostCapacity(Model):
    """What moves may use of a host's network."""

    out_mib: Mib = 0
    in_mib: Mib = 0


class LinkCapacity(Model):
    """What moves may use between two hosts, both ways together."""

    a: Name
    b: Name
    mib: Annotated[int, Field(ge=1, le=1_000_000)]


class Capacities(Model):
    """Part of a site's settings. Where nothing is said, nothing is bounded."""

    each_host: HostCapacity = HostCapacity()
    """Of every host that is not named."""
    hosts: Annotated[dict[Name, HostCapacity], Field(max_length=2000)] = Field(default_factory=dict)
    links: Annotated[tuple[LinkCapacity, ...], Field(max_length=2000)] = ()

    def of(self, host: str) -> HostCapacity:
        return self.hosts.get(host, self.each_host)


class Member(Model):
    """A move that shares."""

    workflow_id: Annotated[str, Field(max_length=200)]
    migration_id: MigrationId
    """Of its data path: what the source's host is told to bound."""
    source: Name
    to: Name
    priority: Annotated[int, Field(ge=1, le=5)] = 3
    cap_mib: Mib = 0
    """Bound of its own policy."""


class Leave(Model):
    """A move that shares no longer."""

    workflow_id: Annotated[str, Field(max_length=200)]


class ShareLine(Model):
    """One move's share, for people."""

    member: Member
    mib: float
    why: Annotated[str, Field(max_length=300)] = ""
    told: bool = False
    """Its host knows."""


class SharesState(Model):
    """What the allocator takes along into its next run, and what its query shows."""

    members: Annotated[tuple[ShareLine, ...], Field(max_length=2000)] = ()
