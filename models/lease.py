"""Who owns a VM: one record each, and the fencing token that guards it. docs/ownership.md has the whole story."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.base import AbsolutePath, Count, Model, Name, Seconds

Uuid = Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")]
OperationId = Annotated[str, Field(max_length=200)]
Token = Count
"""0 is the oldest of all: nobody's."""

LEASE_SECONDS = 600.0
"""How long a lease holds without being renewed."""
PAGE = 500


class LeaseSettings(Model):
    """Where a site keeps its owner records."""

    store: Literal["sqlite", "postgres"] = "sqlite"
    """sqlite: one file, for control workers of one machine. postgres: for control workers on several."""
    file: AbsolutePath = "/var/lib/novacron/leases.db"
    """Of sqlite."""
    dsn_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")] = "NOVACRON_LEASES_DSN"
    """Of postgres: the environment variable of the control worker that holds the connection string. Secrets stand in no
    settings file and in no history."""


class Lease(Model):
    """One VM's record. `operation` is empty while nobody works on the VM; the token stays."""

    site: Name
    uuid: Uuid
    vm: Name
    host: Name
    """The host that owns the VM: the only one on which it may run."""
    token: Token
    lock: OperationId = ""
    operation: OperationId = ""
    """Who holds it: a lock that one operation has at a time (a workflow id), and that operation (its run)."""
    expires: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """Unix time by the store's own clock. It matters to takers only."""


class TakeLease(Model):
    """Take the VM for an operation, under a token above all before. `host` is noted for a VM without a record."""

    site: Name
    uuid: Uuid
    vm: Name
    host: Name
    lock: OperationId
    """One operation has this lock at a time, by Temporal's word: a record under the same lock is of a dead one."""
    operation: Annotated[str, Field(min_length=1, max_length=200)]
    """Asked again by the same operation, the answer is the same."""
    above: Token = 0
    """The highest token any host knows: a store that was lost and made anew starts above it."""
    seconds: Seconds = LEASE_SECONDS


class HoldLease(Model):
    """What the holder asks of its record. Refused once it holds it no more."""

    site: Name
    uuid: Uuid
    operation: Annotated[str, Field(min_length=1, max_length=200)]
    token: Token
    host: Name | None = None
    """The new owner; None: unchanged."""
    seconds: Seconds = LEASE_SECONDS


class LeaseQuery(Model):
    """One page of a site's records, by UUID."""

    site: Name
    after: Annotated[str, Field(max_length=36)] = ""
    limit: Annotated[int, Field(ge=1, le=PAGE)] = PAGE


class LeasePage(Model):
    leases: Annotated[tuple[Lease, ...], Field(max_length=PAGE)] = ()
    more: bool = False
    highest: Token = 0
    """The highest token the store has given out, to any VM of any site."""
