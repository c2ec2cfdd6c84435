"""novacron.Planned: what a schedule starts. It starts the real workflow under the id that makes it the only one.

Temporal appends the time to the id of every workflow a schedule starts, so a schedule cannot hold a VM's or a host's
lock itself. This one can be started as often as a clock likes: where the job runs already, it says so and ends well. It
waits for the end of what it started, so that a schedule's overlap policy means the job; a maintenance, which ends
when people say so, is only started.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ChildWorkflowError, WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from models import ids, queues
from models.fleet import EvacuateRequest, MoveManyRequest, RebalanceRequest
from models.migration import MigrateRequest
from models.schedule import Job, PlannedJob, PlannedOutcome
from workflows import errors, request
from workflows.fleet import convoy

_EXAMPLE = '{"job": "rebalance", "input": {"threshold": 20}}'
_Request = EvacuateRequest | MoveManyRequest | RebalanceRequest | MigrateRequest
_WORKFLOWS: dict[Job, tuple[str, type[_Request]]] = {
    "evacuate": ("novacron.EvacuateHost", EvacuateRequest),
    "move-many": ("novacron.MoveMany", MoveManyRequest),
    "rebalance": ("novacron.Rebalance", RebalanceRequest),
    "migrate": ("novacron.MigrateVm", MigrateRequest),
}


@workflow.defn(name="novacron.Planned")
class Planned:
    @workflow.run
    async def run(self, raw: Any = None) -> PlannedOutcome:
        wanted = read(raw)
        site, info = queues.site_of(workflow.info().task_queue), workflow.info()
        name, model = _WORKFLOWS[wanted.job]
        asked = model.model_validate(wanted.input)
        child_id = id_of(site, info.workflow_id, asked)
        try:
            child = await workflow.start_child_workflow(
                name,
                wanted.input,
                id=child_id,
                task_queue=queues.control(site),
                parent_close_policy=ParentClosePolicy.ABANDON,
                cancellation_type=ChildWorkflowCancellationType.ABANDON,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                priority=convoy.priority(asked.policy),
                static_summary=f"{wanted.job}, by the schedule of {info.workflow_id}"[:200],
            )
        except WorkflowAlreadyStartedError:
            return PlannedOutcome(
                job=wanted.job, workflow_id=child_id, started=False, note="it runs already, and was left alone"
            )
        if isinstance(asked, EvacuateRequest) and not asked.dry_run:
            return PlannedOutcome(
                job=wanted.job, workflow_id=child_id, started=True, note="it runs until it is resumed"
            )
        try:
            await child
        except ChildWorkflowError as error:
            raise errors.final(*convoy.explain(error)) from error
        return PlannedOutcome(job=wanted.job, workflow_id=child_id, started=True)


def read(raw: object) -> PlannedJob:
    """The job, with its own input read as well; ApplicationError InvalidInput."""
    wanted = request.read_as(PlannedJob, raw, _EXAMPLE)
    _, model = _WORKFLOWS[wanted.job]
    if wanted.job == "migrate":
        request.read(wanted.input)
    else:
        request.read_as(model, wanted.input, _EXAMPLE)
    return wanted


def id_of(site: str, planner: str, asked: _Request) -> str:
    """The one id under which this job may run."""
    if isinstance(asked, EvacuateRequest):
        if asked.dry_run:
            return ids.evacuation_plan(site, asked.host, "planned")
        return ids.evacuate_host(site, asked.host)
    if isinstance(asked, MigrateRequest):
        return ids.migrate_vm(site, asked.vm)
    if isinstance(asked, RebalanceRequest):
        return ids.rebalance(site)
    return ids.move_many(site, ids.name_of_planned(planner))
