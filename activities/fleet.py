"""What operations on many VMs need besides the moves: who is in maintenance, how a move ended, an orderly stop."""

from __future__ import annotations

import asyncio
import time

from temporalio import activity
from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities import errors
from activities.errors import translated
from activities.heartbeat import wait
from activities.on_host import OnHost
from clouds.kvm import stop
from models import failures, ids
from models.fleet import (
    MAINTENANCE,
    HostGate,
    HostQuery,
    Maintenance,
    MovesAnswer,
    MovesQuery,
    MoveState,
    StopResult,
    StopVm,
)
from models.host import SiteSettings
from models.migration import VmRef

EVACUATION = "novacron.EvacuateHost"
_PHASE = SearchAttributeKey.for_keyword("Phase")
_LOOK_EVERY = 1.0
_AT_ONCE = 20
_MOST_HOSTS = 2000


class FleetControlActivities:
    """Run by the site's control worker: questions to Temporal itself."""

    def __init__(self, settings: SiteSettings, client: Client) -> None:
        self._settings = settings
        self._client = client

    @activity.defn(name="novacron.host_gate")
    async def host_gate(self, query: HostQuery) -> HostGate:
        """May VMs be moved onto this host? Asked of the maintenance's own run, so never out of date."""
        held = ids.evacuate_host(self._settings.site, query.host)
        found = await _describe(self._client.get_workflow_handle(held))
        closed = found is not None and found.workflow_type == EVACUATION and _holds(found)
        return HostGate(
            maintenance=held if closed else "",
            shares=self._settings.bandwidth is not None,
            slots=self._settings.slots is not None,
        )

    @activity.defn(name="novacron.in_maintenance")
    async def in_maintenance(self) -> Maintenance:
        """All hosts of the site that take no VM. From the index of running workflows, which may lag by a second."""
        query = f'WorkflowType="{EVACUATION}" AND ExecutionStatus="Running" AND Site="{self._settings.site}"'
        hosts: dict[str, str] = {}
        async for each in self._client.list_workflows(query, limit=_MOST_HOSTS):
            named = ids.parse_evacuate_host(each.id)
            phase = each.typed_search_attributes.get(_PHASE)
            if named is not None and phase in MAINTENANCE:
                hosts[named[1]] = phase
        return Maintenance(hosts=hosts)

    @activity.defn(name="novacron.await_moves")
    async def await_moves(self, query: MovesQuery) -> MovesAnswer:
        """How these workflows stand, as soon as one of them runs no more, or after the time given."""
        deadline = time.monotonic() + query.within
        while True:
            activity.heartbeat()
            answer = await self._look(query.ids)
            if any(state != "running" for state in answer.states.values()) or time.monotonic() >= deadline:
                return answer
            await asyncio.sleep(_LOOK_EVERY)

    async def _look(self, workflow_ids: tuple[str, ...]) -> MovesAnswer:
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(workflow_id: str) -> tuple[MoveState, str]:
            async with limit:
                return await _state(self._client.get_workflow_handle(workflow_id))

        found = dict(zip(workflow_ids, await asyncio.gather(*map(one, workflow_ids)), strict=True))
        return MovesAnswer(
            states={key: state for key, (state, _) in found.items()},
            reasons={key: why[:500] for key, (_, why) in found.items() if why},
        )


class FleetHostActivities(OnHost):
    """Run by a host's worker."""

    @activity.defn(name="novacron.stop_vm", no_thread_cancel_exception=True)
    @translated
    def stop_vm(self, order: StopVm) -> StopResult:
        """Shut a guest down in order, and wait for it. One that does not follow in time runs on."""
        ref = VmRef(vm=order.vm)
        with self._session() as session:
            if stop.press(session, ref):
                return StopResult(stopped=True)
            late = errors.final(failures.REFUSED, f"{order.vm} did not shut down within {order.within:.0f} s")
            try:
                wait(f"the shutdown of {order.vm}", lambda: stop.stopped(session, ref), order.within, lambda: late)
            except ApplicationError as error:
                if error is not late:
                    raise
                return StopResult(stopped=False, why=f"{error.message}; it runs on")
        return StopResult(stopped=True)


def _holds(found: WorkflowExecutionDescription) -> bool:
    """A run too young to have said its phase counts: it may be about to empty the host."""
    phase = found.typed_search_attributes.get(_PHASE)
    return found.status == WorkflowExecutionStatus.RUNNING and (phase is None or phase in MAINTENANCE)


async def _describe(handle: WorkflowHandle[object, object]) -> WorkflowExecutionDescription | None:
    try:
        return await handle.describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return None


async def _state(handle: WorkflowHandle[object, object]) -> tuple[MoveState, str]:
    found = await _describe(handle)
    if found is None:
        return "unknown", "no such run"
    match found.status:
        case WorkflowExecutionStatus.RUNNING:
            return "running", ""
        case WorkflowExecutionStatus.COMPLETED:
            return "done", ""
    try:
        await handle.result()
    except WorkflowFailureError as error:
        return "failed", error.cause.message if isinstance(error.cause, ApplicationError) else str(error.cause)
    return "done", ""
