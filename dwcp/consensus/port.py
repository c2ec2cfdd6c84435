"""The port: one record per VM, and a fencing token that only grows, across release, expiry and forgotten records too.

Every call is one transaction and may be repeated: the holder that asks again gets the same answer. Tokens come from one
counter per store, so no token is ever given out twice. A store that cannot be asked raises StoreUnavailable; then
nothing is known, and in particular not that it did nothing.
"""

from __future__ import annotations

from typing import Protocol

from models.lease import HoldLease, Lease, LeasePage, LeaseQuery, TakeLease


class LeaseStore(Protocol):
    def take(self, wish: TakeLease) -> Lease:
        """A new token for this operation, unless another one holds the VM. Raises Held."""

    def renew(self, held: HoldLease) -> Lease:
        """Hold it for `held.seconds` from now. Raises Lost."""

    def hand_over(self, held: HoldLease) -> Lease:
        """`held.host` owns the VM from now on. Raises Lost."""

    def release(self, held: HoldLease) -> Lease | None:
        """The operation is over; with `held.host`, that host owns the VM, in the same transaction. Released already:
        the record as it is. Raises Lost when a later operation holds the VM."""

    def look(self, site: str, uuid: str) -> Lease | None: ...

    def list(self, query: LeaseQuery) -> LeasePage: ...


class LeaseError(Exception):
    """Base of all."""


class StoreUnavailable(LeaseError):
    """The store cannot be asked now; the same call may be repeated."""


class Held(LeaseError):
    """Another operation works on the VM."""

    def __init__(self, lease: Lease, now: float) -> None:
        super().__init__(
            f"{lease.vm} is held by operation {lease.operation} ({lease.lock}) under token {lease.token} for another "
            f"{max(0.0, lease.expires - now):.0f} s. Wait for its end, or until it expires"
        )
        self.lease = lease


class Lost(LeaseError):
    """The operation does not hold the VM any more, or never did."""

    def __init__(self, held: HoldLease, lease: Lease | None) -> None:
        now = f"token {lease.token}, operation {lease.operation or 'none'}" if lease else "no record"
        super().__init__(
            f"operation {held.operation} with token {held.token} does not hold VM {held.uuid} any more: the store has "
            f"{now}"
        )
        self.lease = lease
