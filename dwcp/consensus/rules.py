"""What a record becomes: pure, so that every store decides alike. Time is the store's own, in Unix seconds."""

from __future__ import annotations

from dwcp.consensus.port import Held, Lost
from models.lease import HoldLease, Lease, TakeLease


def again(found: Lease | None, wish: TakeLease) -> bool:
    """This very operation has taken it already."""
    return found is not None and found.operation == wish.operation


def may_take(found: Lease | None, wish: TakeLease, now: float) -> None:
    """Raises Held while another operation, under another lock, has not expired."""
    if found and found.operation and found.lock != wish.lock and found.expires > now:
        raise Held(found, now)


def taken(found: Lease | None, wish: TakeLease, token: int, now: float) -> Lease:
    """The record afterwards. Who owns the VM changes by a hand-over only."""
    return Lease(
        site=wish.site,
        uuid=wish.uuid,
        vm=wish.vm,
        host=found.host if found else wish.host,
        token=token,
        lock=wish.lock,
        operation=wish.operation,
        expires=now + wish.seconds,
    )


def renewed(found: Lease | None, held: HoldLease, now: float) -> Lease:
    """Also of a lease that has expired: as long as nobody else took it, it is its holder's."""
    return _holder(found, held).model_copy(update={"expires": now + held.seconds})


def handed_over(found: Lease | None, held: HoldLease) -> Lease:
    mine = _holder(found, held)
    return mine.model_copy(update={"host": held.host or mine.host})


def released(found: Lease | None, held: HoldLease) -> Lease | None:
    if found is None or (found.token == held.token and not found.operation):
        return found
    mine = handed_over(found, held)
    return mine.model_copy(update={"lock": "", "operation": "", "expires": 0.0})


def _holder(found: Lease | None, held: HoldLease) -> Lease:
    if found is None or (found.token, found.operation) != (held.token, held.operation):
        raise Lost(held, found)
    return found
