"""Many VMs through the Python client: evacuate a host, move many, rebalance, and each of them by the clock.

async with NovaCron.connect() as nova:
    evacuation = await Fleet(nova).evacuate(EvacuateRequest(host="host-a"))
    await evacuation.until("drained")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Generic, TypeVar
from uuid import uuid4

from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.service import RPCError, RPCStatusCode

from models import ids, queues
from models.base import Model
from models.fleet import (
    EvacuateOutcome,
    EvacuateRequest,
    FleetPhase,
    FleetPlan,
    FleetProgress,
    MoveManyOutcome,
    MoveManyRequest,
    RebalanceOutcome,
    RebalanceRequest,
)
from models.migration import MigrationPolicy
from novacron import connection
from novacron.client import NovaCron, check_name, initiator, our_errors
from workflows import search_attributes as sa
from workflows.fleet import convoy

Outcome = TypeVar("Outcome", bound=Model)
_EVERY = 1.0
_ASK = timedelta(seconds=10)
_STEERED_WITHIN = timedelta(seconds=30)
_REST: tuple[FleetPhase, ...] = ("drained", "incomplete", "done", "cancelled", "failed", "planned")
"""Phases in which nothing moves and nothing is waited for."""


class Operation(Generic[Outcome]):
    """One operation on many VMs, running or ended. It goes on without us."""

    def __init__(self, handle: WorkflowHandle[Any, Any], result: type[Outcome]) -> None:
        self._handle = handle
        self._result = result

    @property
    def id(self) -> str:
        return self._handle.id

    @property
    def run_id(self) -> str | None:
        return self._handle.result_run_id or self._handle.run_id

    async def result(self) -> Outcome:
        """Wait for its end. Raises one of novacron.errors."""
        with our_errors(self.id):
            return self._result.model_validate(await self._handle.result())

    async def progress(self) -> FleetProgress:
        with our_errors(self.id):
            found: FleetProgress = await self._handle.query("progress", result_type=FleetProgress, rpc_timeout=_ASK)
            return found

    async def plan(self) -> FleetPlan:
        with our_errors(self.id):
            found: FleetPlan = await self._handle.query("plan", result_type=FleetPlan, rpc_timeout=_ASK)
            return found

    async def follow(self, every: float = _EVERY) -> AsyncIterator[FleetProgress]:
        """Progress, until it rests: drained, ended, or held with VMs that were to be skipped."""
        while True:
            with our_errors(self.id):
                status = (await self._handle.describe(rpc_timeout=_ASK)).status
                seen = await self._glance()
            if seen is not None:
                yield seen
                if seen.phase in _REST:
                    return
            if status not in (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW):
                return
            await asyncio.sleep(every)

    async def _glance(self) -> FleetProgress | None:
        """None while no control worker answers."""
        try:
            seen: FleetProgress = await self._handle.query("progress", result_type=FleetProgress, rpc_timeout=_ASK)
            return seen
        except (WorkflowQueryFailedError, WorkflowQueryRejectedError):
            return None
        except RPCError as error:
            if error.status not in (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED):
                raise
            return None

    async def steer(self, update: str, *args: Any) -> str:
        """One of its updates: pause, go_on, cancel, set_slots, resume, set_non_movable, look_now."""
        with our_errors(self.id):
            answer: str = await self._handle.execute_update(
                update, args=args, id=uuid4().hex, result_type=str, rpc_timeout=_STEERED_WITHIN
            )
            return answer


class Fleet:
    """Operations on many VMs of one site."""

    def __init__(self, nova: NovaCron) -> None:
        self._nova = nova

    async def evacuate(self, wanted: EvacuateRequest) -> Operation[EvacuateOutcome]:
        """Put a host into maintenance and empty it; with dry_run only plan. Raises AlreadyMoving when it is in
        maintenance already."""
        site = self._nova.site
        if wanted.dry_run:
            held = ids.evacuation_plan(site, wanted.host, uuid4().hex[:12])
        else:
            held = ids.evacuate_host(site, wanted.host)
        summary = f"{'plan of ' if wanted.dry_run else ''}maintenance of {wanted.host}"
        return await self._start("novacron.EvacuateHost", wanted, held, wanted.policy, summary, EvacuateOutcome)

    def maintenance(self, host: str) -> Operation[EvacuateOutcome]:
        """The maintenance of a host, running or ended."""
        check_name("host", host)
        return self._at(ids.evacuate_host(self._nova.site, host), EvacuateOutcome)

    async def move_many(self, wanted: MoveManyRequest, name: str = "") -> Operation[MoveManyOutcome]:
        held = ids.move_many(self._nova.site, name or uuid4().hex[:12])
        summary = f"moves to {wanted.to or 'wherever there is room'}"
        return await self._start("novacron.MoveMany", wanted, held, wanted.policy, summary, MoveManyOutcome)

    async def rebalance(self, wanted: RebalanceRequest) -> Operation[RebalanceOutcome]:
        held = ids.rebalance(self._nova.site)
        if wanted.dry_run:
            held = f"{held}/plan/{uuid4().hex[:12]}"
        return await self._start("novacron.Rebalance", wanted, held, wanted.policy, "rebalancing", RebalanceOutcome)

    async def _start(
        self, workflow: str, wanted: Model, held: str, policy: MigrationPolicy, summary: str, result: type[Outcome]
    ) -> Operation[Outcome]:
        nova, queue = self._nova, queues.control(self._nova.site)
        with our_errors(held):
            await connection.require_control_worker(nova.client, nova.site, queue)
            handle = await nova.client.start_workflow(
                workflow,
                wanted.model_dump(mode="json", exclude_unset=True),
                id=held,
                task_queue=queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                priority=convoy.priority(policy),
                static_summary=summary,
                search_attributes=TypedSearchAttributes(
                    [SearchAttributePair(sa.SITE, nova.site), SearchAttributePair(sa.INITIATOR, initiator())]
                ),
            )
        return Operation(handle, result)

    def _at(self, workflow_id: str, result: type[Outcome]) -> Operation[Outcome]:
        return Operation(self._nova.client.get_workflow_handle(workflow_id), result)
