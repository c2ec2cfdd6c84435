"""Drives a window of moves: starts each as the workflow `vm/<site>/<vm>`, waits for its end, lets the next one start.

The moves are children that outlive this workflow (ABANDON): whatever ends it, a move goes on to its own end. A taken
id means that another operation holds the VM: its end is waited for, and the VM is looked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from temporalio import workflow
from temporalio.common import Priority, WorkflowIDReusePolicy
from temporalio.exceptions import ActivityError, ChildWorkflowError, FailureError, WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from models import failures, ids, queues
from models.fleet import Pending
from models.migration import MigrateRequest, MigrationPolicy, VmRef
from workflows import errors
from workflows.calls.fleet import FleetControl
from workflows.calls.site import Host
from workflows.fleet.window import Start, Window
from workflows.move.migrate_vm import MigrateVm
from workflows.site import verdict

_RETRY_AFTER = 5.0
"""Seconds before a VM whose move failed is tried again."""


class Convoy:
    def __init__(self, site: str, window: Window, policy: MigrationPolicy, show: Callable[[], None]) -> None:
        self.window = window
        self.paused = False
        self.stopping = False
        """No further move is started."""
        self.busy: set[str] = set()
        """VMs that another operation holds."""
        self._site = site
        self._policy = policy
        self._show = show
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._starting: set[str] = set()
        """Children that Temporal has not confirmed yet: a run that went on as a new one now would lose them."""
        self._changed = True

    def adopt(self, starts: list[Start]) -> None:
        """Moves that a run before this one started."""
        for start in starts:
            self._tasks[start.task.vm] = asyncio.create_task(self._watch(start))

    async def run(self, enough: Callable[[], bool] = lambda: False) -> None:
        """Until nothing waits and nothing moves; or `enough()`; or, once stopping, until nothing moves."""
        while True:
            self._changed = False
            self._start_what_may()
            self._show()
            if (enough() and not self._starting) or (not self._tasks and (self.stopping or not self.window.waiting)):
                return
            await workflow.wait_condition(lambda: self._changed)
            for vm in [vm for vm, task in self._tasks.items() if task.done()]:
                self._tasks.pop(vm).result()

    def pending(self) -> tuple[Pending, ...]:
        """What the next run has to go on with. A VM that another operation holds is tried anew there."""
        return tuple(
            each.model_copy(update={"to": None}) if each.load.name in self.busy else each
            for each in self.window.pending()
        )

    def wake(self) -> None:
        """Something that bears on what may start has changed."""
        self._changed = True

    def _start_what_may(self) -> None:
        while not (self.paused or self.stopping) and (start := self.window.next()) is not None:
            self._starting.add(start.task.vm)
            self._tasks[start.task.vm] = asyncio.create_task(self._move(start))

    async def _move(self, start: Start) -> None:
        vm = start.task.vm
        try:
            child = await workflow.start_child_workflow(
                MigrateVm.run,
                self._request(start).model_dump(mode="json", exclude_unset=True),
                id=ids.migrate_vm(self._site, vm),
                task_queue=queues.control(self._site),
                parent_close_policy=ParentClosePolicy.ABANDON,
                cancellation_type=ChildWorkflowCancellationType.ABANDON,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                priority=priority(self._policy, start.task.load.tenant),
                static_summary=f"{vm}: {start.task.load.host} → {start.to}",
                static_details=start.why,
            )
            self._confirmed(vm)
            await child
        except WorkflowAlreadyStartedError:
            self._confirmed(vm)
            await self._wait_for_other(start)
        except ChildWorkflowError as error:
            await self._look_again(start, *explain(error))
        else:
            self.window.succeeded(vm)
        self._changed = True

    def _confirmed(self, vm: str) -> None:
        self._starting.discard(vm)
        self._changed = True

    async def _watch(self, start: Start) -> None:
        """A move started by a run before this one."""
        state, why = await self._ended(start.task.vm)
        if state == "done":
            self.window.succeeded(start.task.vm)
        else:
            await self._look_again(start, failures.MIGRATION_FAILED, why)
        self._changed = True

    async def _wait_for_other(self, start: Start) -> None:
        vm = start.task.vm
        self.busy.add(vm)
        self._show()
        await self._ended(vm)
        self.busy.discard(vm)
        if await self._is_still_there(start):
            self.window.put_back(vm)
        else:
            self.window.gone(vm)

    async def _ended(self, vm: str) -> tuple[str, str]:
        """(state, why) of the VM's move once it runs no more; a worker that is away is waited for."""
        workflow_id = ids.migrate_vm(self._site, vm)
        while True:
            try:
                answer = await FleetControl(self._site).await_moves([workflow_id])
            except ActivityError as error:
                if errors.cancelled(error):
                    raise
                await workflow.sleep(_RETRY_AFTER)
                continue
            if (state := answer.states[workflow_id]) != "running":
                return state, answer.reasons.get(workflow_id, "")

    async def _look_again(self, start: Start, kind: str, why: str) -> None:
        """After a failure: only a VM that is still on its source is tried again."""
        if kind != failures.AMBIGUOUS and not await self._is_still_there(start):
            self.window.gone(start.task.vm)
        elif self.window.failed_with(start.task.vm, kind, why):
            self.window.resting.add(start.task.vm)
            await workflow.sleep(_RETRY_AFTER, summary=f"before {start.task.vm} is tried again")
            self.window.resting.discard(start.task.vm)

    async def _is_still_there(self, start: Start) -> bool:
        """A host that does not answer counts as yes: the next attempt finds out."""
        try:
            return verdict.alive(await Host(self._site, start.task.load.host).has(VmRef(vm=start.task.vm)))
        except ActivityError as error:
            if errors.cancelled(error):
                raise
            return True

    def _request(self, start: Start) -> MigrateRequest:
        load = start.task.load
        policy = self._policy if load.tenant is None else self._policy.model_copy(update={"tenant": load.tenant})
        return MigrateRequest(vm=load.name, to=start.to, source=load.host, policy=policy)


def priority(policy: MigrationPolicy, tenant: str | None = None) -> Priority:
    """Who goes first where tasks queue up; tenants share what is left equally."""
    return Priority(priority_key=policy.priority, fairness_key=tenant or policy.tenant)


def explain(error: FailureError) -> tuple[str, str]:
    """(type, message) of a move that failed."""
    cause = error.cause
    if isinstance(cause, FailureError) and not errors.cancelled(cause):
        return errors.explain(cause)
    return failures.CANCELLED, "the move was cancelled"
