"""Clouds through the Python client: which there are, their sizes, and VMs that move there, between them, and home.

async with NovaCron.connect() as nova:
    move = await Clouds(nova).move(CloudMoveRequest(vm="web", to="aws:eu-west-1", size="t3.medium"))
    async for standing in move.follow():
        print(standing.stage, standing.runs_on)
    home = await Clouds(nova).bring(CloudBringRequest(vm="web", source="aws:eu-west-1", to="host-b"))
    other = await Clouds(nova).transfer(
        CloudTransferRequest(vm="web", source="aws:eu-west-1", to="azure:westeurope", size="Standard_B2s")
    )
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
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
from models.cloud_bring import BringPlan, CloudBringOutcome, CloudBringRequest
from models.cloud_cache import CacheReport, CacheRequest
from models.cloud_move import (
    CloudMoveOutcome,
    CloudMoveRequest,
    CloudPlan,
    CloudsAnswer,
    CloudStanding,
    CutOverRequest,
    TestCutOver,
)
from models.cloud_transfer import CloudTransferOutcome, CloudTransferRequest, TransferPlan
from models.migration import Progress
from novacron import connection
from novacron.client import NovaCron, check_name, initiator, our_errors
from workflows import search_attributes as sa
from workflows.cloud.cloud_cache import CloudCache
from workflows.cloud.list_clouds import ListClouds
from workflows.cloud.move_between_clouds import MoveBetweenClouds
from workflows.cloud.move_from_cloud import MoveFromCloud
from workflows.cloud.move_to_cloud import MoveToCloud

_ASK = timedelta(seconds=10)
_STEERED_WITHIN = timedelta(seconds=90)
_TESTED_WITHIN = timedelta(hours=2)
_LISTED_WITHIN = timedelta(minutes=10)
_PRUNED_WITHIN = timedelta(hours=2)
REST = ("kept", "done", "failed", "cancelled")
"""Stages in which nothing moves any more."""


class Steerable:
    """One run of a move to a cloud, from one, or between two, running or ended. It goes on without us."""

    def __init__(self, handle: WorkflowHandle[Any, Any]) -> None:
        self._handle = handle

    @property
    def id(self) -> str:
        return self._handle.id

    @property
    def run_id(self) -> str | None:
        return self._handle.result_run_id or self._handle.run_id

    async def wait(self) -> None:
        """For its end, which is when the source is not kept any more. Raises one of novacron.errors."""
        with our_errors(self.id):
            await self._handle.result()

    async def standing(self) -> CloudStanding:
        with our_errors(self.id):
            return await self._query()

    async def progress(self) -> Progress:
        with our_errors(self.id):
            told: Progress = await self._handle.query("progress", result_type=Progress, rpc_timeout=_ASK)
            return told

    async def follow(self, every: float = 1.0) -> AsyncIterator[CloudStanding]:
        """Standings, until nothing moves any more or people have to say how to go on."""
        while True:
            with our_errors(self.id):
                running = (await self._handle.describe(rpc_timeout=_ASK)).status == WorkflowExecutionStatus.RUNNING
                seen = await self._glance()
            if seen is not None:
                yield seen
                if seen.stage in REST or seen.why:
                    return
            if not running:
                return
            await asyncio.sleep(every)

    async def cut_over_now(self) -> str:
        """Refused when it is cut over already."""
        return await self._steer("cut_over_now")

    async def roll_back(self, reason: str = "") -> str:
        """Refused unless the source is kept."""
        return await self._steer("roll_back", reason)

    async def let_go(self) -> str:
        """Do not keep the source any longer."""
        return await self._steer("let_go")

    async def cancel(self, reason: str = "") -> str:
        """Refused once the VM runs in the cloud."""
        return await self._steer("cancel", reason)

    async def test_cut_over(self, wish: TestCutOver) -> str:
        """Of a move into a cloud: boot an isolated copy of what is there, check it, terminate it; how that went."""
        return await self._steer("test_cut_over", wish.model_dump(mode="json"), within=_TESTED_WITHIN)

    async def _steer(self, update: str, *args: Any, within: timedelta = _STEERED_WITHIN) -> str:
        with our_errors(self.id):
            answer: str = await self._handle.execute_update(
                update, args=args, id=uuid4().hex, result_type=str, rpc_timeout=within
            )
            return answer

    async def _glance(self) -> CloudStanding | None:
        """None while no control worker answers."""
        try:
            return await self._query()
        except (WorkflowQueryFailedError, WorkflowQueryRejectedError):
            return None
        except RPCError as error:
            if error.status not in (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED):
                raise
            return None

    async def _query(self) -> CloudStanding:
        told: CloudStanding = await self._handle.query("standing", result_type=CloudStanding, rpc_timeout=_ASK)
        return told


class CloudMove(Steerable):
    """One run of MoveToCloud."""

    async def result(self) -> CloudMoveOutcome:
        """Wait for its end, which is when the source is not kept any more. Raises one of novacron.errors."""
        with our_errors(self.id):
            return CloudMoveOutcome.model_validate(await self._handle.result())


class CloudBringing(Steerable):
    """One run of MoveFromCloud."""

    async def result(self) -> CloudBringOutcome:
        """Wait for its end, which is when the instance is not kept any more. Raises one of novacron.errors."""
        with our_errors(self.id):
            return CloudBringOutcome.model_validate(await self._handle.result())


class CloudTransfer(Steerable):
    """One run of MoveBetweenClouds."""

    async def result(self) -> CloudTransferOutcome:
        """Wait for its end, which is when the old instance is not kept any more. Raises one of novacron.errors."""
        with our_errors(self.id):
            return CloudTransferOutcome.model_validate(await self._handle.result())


class Clouds:
    """The clouds of one site."""

    def __init__(self, nova: NovaCron) -> None:
        self._nova = nova
        self._queue = queues.control(nova.site)

    async def list(self, place: str | None = None) -> CloudsAnswer:
        """The accounts in the control worker's settings; with a place, the sizes there."""
        held = ids.clouds(self._nova.site, uuid4().hex[:12])
        with our_errors(place or self._nova.site):
            await connection.require_control_worker(self._nova.client, self._nova.site, self._queue)
            return await self._nova.client.execute_workflow(
                ListClouds.run, {"place": place} if place else None, id=held, task_queue=self._queue,
                execution_timeout=_LISTED_WITHIN,
            )  # fmt: skip

    async def cache(self, wanted: CacheRequest) -> CacheReport:
        """What a place keeps as bases for other VMs; with action prune, after what has to go went."""
        held = ids.clouds(self._nova.site, uuid4().hex[:12])
        with our_errors(wanted.place):
            await connection.require_control_worker(self._nova.client, self._nova.site, self._queue)
            return await self._nova.client.execute_workflow(
                CloudCache.run, wanted.model_dump(mode="json"), id=held, task_queue=self._queue,
                execution_timeout=_PRUNED_WITHIN,
            )  # fmt: skip

    async def plan(self, wanted: CloudMoveRequest) -> CloudPlan:
        """What the move would do, meet and cost. Raises AlreadyMoving while an operation works on the VM."""
        outcome = await (await self.move(wanted.model_copy(update={"dry_run": True}))).result()
        assert outcome.plan is not None
        return outcome.plan

    async def move(self, wanted: CloudMoveRequest) -> CloudMove:
        """Start it. Raises AlreadyMoving while another operation works on the VM."""
        return CloudMove(await self._start(MoveToCloud.run, wanted, f"{wanted.vm} to {wanted.to}"))

    async def plan_bringing(self, wanted: CloudBringRequest) -> BringPlan:
        """What a move from a cloud would do and meet. Raises AlreadyMoving while an operation works on the VM."""
        outcome = await (await self.bring(wanted.model_copy(update={"dry_run": True}))).result()
        assert outcome.plan is not None
        return outcome.plan

    async def bring(self, wanted: CloudBringRequest) -> CloudBringing:
        """Bring an instance to a host. Raises AlreadyMoving while another operation works on the VM."""
        what = f"{wanted.vm} from {wanted.source} to {wanted.to}"
        return CloudBringing(await self._start(MoveFromCloud.run, wanted, what))

    async def plan_transfer(self, wanted: CloudTransferRequest) -> TransferPlan:
        """What a move between clouds would do, meet and cost. Raises AlreadyMoving while an operation works on it."""
        outcome = await (await self.transfer(wanted.model_copy(update={"dry_run": True}))).result()
        assert outcome.plan is not None
        return outcome.plan

    async def transfer(self, wanted: CloudTransferRequest) -> CloudTransfer:
        """Move an instance to another cloud. Raises AlreadyMoving while another operation works on the VM."""
        what = f"{wanted.vm} from {wanted.source} to {wanted.to}"
        return CloudTransfer(await self._start(MoveBetweenClouds.run, wanted, what))

    async def _start(self, run: Any, wanted: CutOverRequest, what: str) -> WorkflowHandle[Any, Any]:
        site, held = self._nova.site, ids.migrate_vm(self._nova.site, wanted.vm)
        with our_errors(wanted.vm):
            await connection.require_control_worker(self._nova.client, site, self._queue)
            return await self._nova.client.start_workflow(
                run,
                wanted.model_dump(mode="json", exclude_unset=True),
                id=held,
                task_queue=self._queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=f"{'plan of ' if wanted.dry_run else ''}{what}",
                search_attributes=TypedSearchAttributes(
                    [SearchAttributePair(sa.SITE, site), SearchAttributePair(sa.INITIATOR, initiator())]
                ),
            )

    def at(self, vm: str) -> CloudMove:
        """The move of this VM, running or ended: to a cloud, or (but for `result`) any other."""
        check_name("vm", vm)
        held = ids.migrate_vm(self._nova.site, vm)
        return CloudMove(self._nova.client.get_workflow_handle_for(MoveToCloud.run, held))
