"""A lease store in memory, with the rules of the real ones; a test may take it away."""

from __future__ import annotations

import time
from collections.abc import Callable

from dwcp.consensus import StoreUnavailable, rules
from models.lease import HoldLease, Lease, LeasePage, LeaseQuery, TakeLease


class MemoryLeases:
    def __init__(self) -> None:
        self.records: dict[str, Lease] = {}
        self.last = 0
        self.gone = False
        self.renewals = 0

    def take(self, wish: TakeLease) -> Lease:
        self._ask()
        found = self.records.get(wish.uuid)
        if found and rules.again(found, wish):
            return found
        rules.may_take(found, wish, time.time())
        self.last = max(self.last, wish.above) + 1
        self.records[wish.uuid] = rules.taken(found, wish, self.last, time.time())
        return self.records[wish.uuid]

    def renew(self, held: HoldLease) -> Lease:
        self.renewals += 1
        return self._change(held, lambda found: rules.renewed(found, held, time.time()))

    def hand_over(self, held: HoldLease) -> Lease:
        return self._change(held, lambda found: rules.handed_over(found, held))

    def release(self, held: HoldLease) -> Lease | None:
        self._ask()
        lease = rules.released(self.records.get(held.uuid), held)
        if lease:
            self.records[held.uuid] = lease
        return lease

    def look(self, site: str, uuid: str) -> Lease | None:
        self._ask()
        return self.records.get(uuid)

    def list(self, query: LeaseQuery) -> LeasePage:
        self._ask()
        found = [lease for uuid, lease in sorted(self.records.items()) if uuid > query.after]
        return LeasePage(leases=tuple(found[: query.limit]), more=len(found) > query.limit, highest=self.last)

    def _change(self, held: HoldLease, change: Callable[[Lease | None], Lease]) -> Lease:
        self._ask()
        self.records[held.uuid] = change(self.records.get(held.uuid))
        return self.records[held.uuid]

    def _ask(self) -> None:
        if self.gone:
            raise StoreUnavailable("the owner records cannot be used: they are away")
