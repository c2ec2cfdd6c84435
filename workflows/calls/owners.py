"""The site's owner records, and what hosts are asked when an operation died: queues, deadlines, summaries."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from models import queues
from models.disks import DiskImage
from models.host import VmSighting
from models.lease import HoldLease, Lease, LeasePage, LeaseQuery, TakeLease
from models.migration import VmRef
from models.recovery import DeadQuery, DeadRuns, FindMarks, MarksReport, PathsReport, Welcome, Welcomed
from workflows.calls import deadlines

with workflow.unsafe.imports_passed_through():
    from activities.leases import LeaseActivities
    from activities.recovery import RecoveryActivities

_call = workflow.execute_activity_method


class Leases:
    """The owner records, through the site's control worker."""

    def __init__(self, site: str) -> None:
        self._site = site

    async def take(self, wish: TakeLease) -> Lease:
        return await _call(LeaseActivities.take_lease, wish, **self._to(deadlines.LEASE, f"take {wish.vm}"))

    async def renew(self, held: HoldLease) -> Lease:
        return await _call(LeaseActivities.renew_lease, held, **self._to(deadlines.LEASE, "hold the lease"))

    async def hand_over(self, held: HoldLease) -> Lease:
        what = f"the owner is {held.host}"
        return await _call(LeaseActivities.hand_over_lease, held, **self._to(deadlines.LEASE, what))

    async def release(self, held: HoldLease) -> Lease | None:
        """With a host: the VM is there from now on."""
        what = f"the owner is {held.host}; release the lease" if held.host else "release the lease"
        deadline = deadlines.LEASE_MOVED if held.host else deadlines.LEASE
        return await _call(LeaseActivities.release_lease, held, **self._to(deadline, what))

    async def page(self, after: str = "", limit: int = 500) -> LeasePage:
        query = LeaseQuery(site=self._site, after=after, limit=limit)
        return await _call(LeaseActivities.list_leases, query, **self._to(deadlines.LEASE, "list the owner records"))

    async def all(self) -> tuple[dict[str, Lease], int]:
        """(record by UUID, the highest token given out)."""
        found: dict[str, Lease] = {}
        page = await self.page()
        while True:
            found |= {lease.uuid: lease for lease in page.leases}
            if not page.more:
                return found, page.highest
            page = await self.page(after=page.leases[-1].uuid)

    async def dead_runs(self, since_minutes: int) -> DeadRuns:
        query = DeadQuery(site=self._site, since_minutes=since_minutes)
        return await _call(LeaseActivities.dead_runs, query, **self._to(deadlines.LEASE, "which runs died?"))

    def _to(self, deadline: ActivityConfig, what: str) -> ActivityConfig:
        return ActivityConfig(task_queue=queues.control(self._site), summary=f"{self._site}: {what}"[:200], **deadline)


class Survivor:
    """One host's worker, asked about what a dead operation left."""

    def __init__(self, site: str, name: str) -> None:
        self.name = name
        self._queue = queues.host(site, name)

    async def fence(self, ref: VmRef) -> VmSighting:
        what = f"obey no token below {ref.token} for {ref.vm}; is it there?"
        return await _call(RecoveryActivities.fence_vm, ref, **self._to(deadlines.QUESTION, what))

    async def paths(self) -> PathsReport:
        return await _call(RecoveryActivities.list_paths, **self._to(deadlines.QUESTION, "which data paths live?"))

    async def abort(self, ref: VmRef) -> VmSighting:
        what = f"end libvirt's migration of {ref.vm}"
        return await _call(RecoveryActivities.abort_job, ref, **self._to(deadlines.DISCARD, what))

    async def marks(self, disks: Sequence[DiskImage]) -> MarksReport:
        order = FindMarks(disks=tuple(disks))
        what = "images of a dead migration?"
        return await _call(RecoveryActivities.find_marks, order, **self._to(deadlines.QUESTION, what))

    async def welcome(self, floor: int) -> Welcomed:
        order = Welcome(floor=floor)
        return await _call(RecoveryActivities.welcome_host, order, **self._to(deadlines.QUESTION, "take work again"))

    def _to(self, deadline: ActivityConfig, what: str) -> ActivityConfig:
        return ActivityConfig(task_queue=self._queue, summary=f"{self.name}: {what}"[:200], **deadline)
