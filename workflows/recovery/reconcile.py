"""novacron.Reconcile: compare what the hosts of a site have with its owner records, and set right what differs.

The story: ask all hosts, read all records, look which runs died; let hosts that were started anew take work again;
start RecoverVm for each VM that looks wrong. A VM that an operation works on is left to it. Run it by hand or on a
schedule; two at once do no harm.
"""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError, WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

from models import failures, ids, queues
from models.host import SiteReport
from models.recovery import ReconcileReport, ReconcileRequest, RecoverReport, RecoverRequest, VmTold
from workflows import errors, request
from workflows import search_attributes as sa
from workflows.calls.owners import Leases, Survivor
from workflows.recovery import suspicion
from workflows.recovery.recover_vm import RecoverVm
from workflows.recovery.suspicion import Suspect
from workflows.site import welcome
from workflows.site.inventory import ask_site

AT_ONCE = 20
"""Recoveries at the same time."""
MOST = 500
"""Recoveries of one run; the rest waits for the next."""
SAID = 600
"""Characters kept of each: a report of them all has to fit into one payload. The rest is in the recovery's own run."""


@workflow.defn(name="novacron.Reconcile")
class Reconcile:
    @workflow.run
    async def run(self, raw: Any = None) -> ReconcileReport:
        wanted = request.read_as(ReconcileRequest, raw or {}, '{"since_minutes": 120}')
        self._site = queues.site_of(workflow.info().task_queue)
        workflow.upsert_search_attributes([sa.SITE.value_set(self._site)])
        try:
            return await self._reconcile(wanted)
        except ActivityError as error:
            if errors.cancelled(error):
                raise
            raise errors.final(*errors.explain(error)) from error

    async def _reconcile(self, wanted: ReconcileRequest) -> ReconcileReport:
        leases, highest = await Leases(self._site).all()
        site = await ask_site(self._site)
        dead = (await Leases(self._site).dead_runs(wanted.since_minutes)).runs
        suspects = suspicion.suspects(site, leases, dead, workflow.now().timestamp())
        told = await self._recover(suspects[:MOST], site, wanted.dry_run)
        welcomed: list[str] = []
        unwelcome: dict[str, str] = {}
        if any(not host.reconciled for host in site.hosts):
            if any(each.result == "repaired" for each in told):  # their hosts may be well now
                leases, highest = await Leases(self._site).all()
                site = await ask_site(self._site)
            for host in site.hosts:
                if host.reconciled:
                    continue
                if why := welcome.objection(host, site, leases):
                    unwelcome[host.host] = why
                elif not wanted.dry_run:
                    await self._welcome(host.host, highest, welcomed, unwelcome)
        return ReconcileReport(
            site=self._site,
            hosts=len(site.hosts),
            vms=sum(len(host.vms) for host in site.hosts),
            leases=len(leases),
            silent=site.silent,
            welcomed=tuple(welcomed),
            unwelcome=unwelcome,
            told=told,
            left=max(0, len(suspects) - MOST),
        )

    async def _welcome(self, host: str, floor: int, welcomed: list[str], unwelcome: dict[str, str]) -> None:
        try:
            await Survivor(self._site, host).welcome(floor)
            welcomed.append(host)
        except ActivityError as error:
            unwelcome[host] = errors.explain(error)[1]

    async def _recover(self, suspects: list[Suspect], site: SiteReport, dry_run: bool) -> tuple[VmTold, ...]:
        if dry_run:
            return tuple(VmTold(vm=each.vm, why=each.why, result="would be asked") for each in suspects)
        if site.silent:
            said = f"no recovery without the answer of {', '.join(sorted(site.silent))}"[:SAID]
            return tuple(VmTold(vm=each.vm, why=each.why, result="waits", said=said) for each in suspects)
        limit = asyncio.Semaphore(AT_ONCE)
        return tuple(await asyncio.gather(*(self._one(each, limit) for each in suspects)))

    async def _one(self, suspect: Suspect, limit: asyncio.Semaphore) -> VmTold:
        async with limit:
            try:
                report = await workflow.execute_child_workflow(
                    RecoverVm.run,
                    RecoverRequest(vm=suspect.vm).model_dump(mode="json"),
                    id=ids.migrate_vm(self._site, suspect.vm),
                    parent_close_policy=ParentClosePolicy.ABANDON,
                    static_summary=f"recover {suspect.vm}: {suspect.why}"[:200],
                )
            except WorkflowAlreadyStartedError:
                return VmTold(vm=suspect.vm, why=suspect.why, result="busy", said="an operation works on it")
            except ChildWorkflowError as error:
                if errors.cancelled(error):
                    raise
                return _refused(suspect, error)
            return _told(suspect, report)


def _told(suspect: Suspect, report: RecoverReport) -> VmTold:
    said = "; ".join((*report.done, *report.notes))[:SAID]
    return VmTold(vm=suspect.vm, why=suspect.why, result="repaired" if report.done else "well", said=said)


def _refused(suspect: Suspect, error: ChildWorkflowError) -> VmTold:
    cause = error.cause
    doubled = isinstance(cause, ApplicationError) and cause.type == failures.TWO_COPIES
    said = cause.message if isinstance(cause, ApplicationError) else str(cause)
    return VmTold(vm=suspect.vm, why=suspect.why, result="two copies" if doubled else "refused", said=said[:SAID])
