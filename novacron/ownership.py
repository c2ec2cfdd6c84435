"""Ownership through the Python client: recover a VM, reconcile the site, list the owner records.

async with NovaCron.connect() as nova:
    report = await Ownership(nova).recover("counter")
"""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from models import ids, queues
from models.lease import Lease
from models.recovery import ReconcileReport, ReconcileRequest, RecoverReport, RecoverRequest
from novacron import connection, errors
from novacron.client import NovaCron, check_name, initiator, our_errors
from workflows.recovery.reconcile import Reconcile
from workflows.recovery.recover_vm import RecoverVm
from workflows.site.owners import Owners

CATCH_UP = timedelta(minutes=1)
"""A reconciliation that was missed by more, while Temporal was down, is left out: the next one sees the same."""
_LISTED_WITHIN = timedelta(minutes=2)
_RECONCILED_WITHIN = timedelta(hours=2)


class Ownership:
    def __init__(self, nova: NovaCron) -> None:
        self._nova = nova
        self._site = nova.site
        self._queue = queues.control(nova.site)

    async def recover(self, vm: str, dry_run: bool = False, left_cloud: bool = False) -> RecoverReport:
        """Make sure that there is one copy and nothing left of dead operations. Raises AlreadyMoving while an operation
        works on the VM, TwoCopies, Ambiguous, HostUnavailable (it names the silent hosts)."""
        check_name("vm", vm)
        with our_errors(vm):
            await connection.require_control_worker(self._nova.client, self._site, self._queue)
            return await self._nova.client.execute_workflow(
                RecoverVm.run,
                RecoverRequest(vm=vm, dry_run=dry_run, left_cloud=left_cloud).model_dump(mode="json"),
                id=ids.migrate_vm(self._site, vm),
                task_queue=self._queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=f"recover {vm}",
                static_details=f"Asked by {initiator()}",
            )

    async def reconcile(self, dry_run: bool = False) -> ReconcileReport:
        """Compare the site with its owner records now. One that runs already is waited for instead."""
        with our_errors(self._site):
            await connection.require_control_worker(self._nova.client, self._site, self._queue)
            return await self._nova.client.execute_workflow(
                Reconcile.run,
                ReconcileRequest(dry_run=dry_run).model_dump(mode="json"),
                id=ids.reconcile(self._site),
                task_queue=self._queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                execution_timeout=_RECONCILED_WITHIN,
                static_summary=f"reconcile {self._site}",
                static_details=f"Asked by {initiator()}",
            )

    async def reconcile_every(self, every: timedelta) -> str:
        """Make, or change, the schedule. It looks back twice its own pace, two hours at least; its id is returned."""
        wanted = self._schedule(every)
        name = ids.reconcile(self._site)
        with our_errors(self._site):
            try:
                await self._nova.client.create_schedule(name, wanted)
            except ScheduleAlreadyRunningError:

                def change(_: ScheduleUpdateInput) -> ScheduleUpdate:
                    return ScheduleUpdate(schedule=wanted)

                await self._nova.client.get_schedule_handle(name).update(change)
        return name

    async def reconcile_no_more(self) -> str:
        """Delete the schedule. Raises NotFound when there is none."""
        name = ids.reconcile(self._site)
        with our_errors(self._site):
            try:
                await self._nova.client.get_schedule_handle(name).delete()
            except RPCError as error:
                if error.status == RPCStatusCode.NOT_FOUND:
                    raise errors.NotFound(f"{name}: there is no such schedule", "Nothing to stop.") from None
                raise
        return name

    async def owners(self) -> list[Lease]:
        """All owner records of the site, by VM name."""
        found: list[Lease] = []
        with our_errors(self._site):
            await connection.require_control_worker(self._nova.client, self._site, self._queue)
            while True:
                page = await self._nova.client.execute_workflow(
                    Owners.run,
                    found[-1].uuid if found else "",
                    id=ids.owners(self._site, uuid4().hex[:12]),
                    task_queue=self._queue,
                    execution_timeout=_LISTED_WITHIN,
                    static_summary=f"owner records of {self._site}",
                )
                found += page.leases
                if not page.more:
                    return sorted(found, key=lambda lease: (lease.vm, lease.uuid))

    def _schedule(self, every: timedelta) -> Schedule:
        look_back = max(120, int(every.total_seconds() / 30))
        return Schedule(
            action=ScheduleActionStartWorkflow(
                Reconcile.run,
                ReconcileRequest(since_minutes=min(look_back, 60 * 24 * 30)).model_dump(mode="json"),
                id=ids.reconcile(self._site),
                task_queue=self._queue,
                execution_timeout=_RECONCILED_WITHIN,
                static_summary=f"reconcile {self._site}, by schedule",
            ),
            spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
        )
