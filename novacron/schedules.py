"""Schedules: Temporal's own, made so that what they start is the right workflow under the right id.

A schedule starts novacron.Planned, which starts the job. Everything here can be done with `temporal schedule` as well.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, get_args

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.service import RPCError, RPCStatusCode

from models import ids, queues
from models.schedule import Overlap, PlannedJob, PlannedOutcome, ScheduleReport, ScheduleRequest
from novacron import connection, errors
from novacron.client import NovaCron, check_name, initiator, our_errors
from workflows.fleet import planned
from workflows.fleet.planned import Planned

_OVERLAPS: dict[Overlap, ScheduleOverlapPolicy] = {
    "skip": ScheduleOverlapPolicy.SKIP,
    "buffer-one": ScheduleOverlapPolicy.BUFFER_ONE,
    "buffer-all": ScheduleOverlapPolicy.BUFFER_ALL,
    "allow-all": ScheduleOverlapPolicy.ALLOW_ALL,
}
assert set(_OVERLAPS) == set(get_args(Overlap))


class Schedules:
    """The schedules of one site."""

    def __init__(self, nova: NovaCron) -> None:
        self._nova = nova

    async def create(self, wanted: ScheduleRequest) -> ScheduleReport:
        """Raises InvalidInput for a job whose input does not fit, and when there is a schedule of that name."""
        site = self._nova.site
        with our_errors(wanted.name):
            job = planned.read(wanted.job.model_dump())
            await connection.require_control_worker(self._nova.client, site, queues.control(site))
            try:
                handle = await self._nova.client.create_schedule(
                    ids.schedule(site, wanted.name), _schedule(site, wanted, job)
                )
            except ScheduleAlreadyRunningError:
                raise errors.InvalidInput(
                    f"name: there is a schedule {wanted.name!r} on site {site!r} already",
                    f"Choose another name, or delete it: `novacron schedule delete {wanted.name}`.",
                ) from None
            return await _report(self._nova.client, handle)

    async def list(self) -> list[ScheduleReport]:
        """Of this site, by name."""
        prefix = ids.schedule(self._nova.site, "")
        with our_errors("schedules"):
            known = [each.id async for each in await self._nova.client.list_schedules() if each.id.startswith(prefix)]
            client = self._nova.client
            return [await _report(client, client.get_schedule_handle(each)) for each in sorted(known)]

    async def delete(self, name: str) -> None:
        """What it has started goes on."""
        with our_errors(f"schedule {name}"):
            await self._handle(name).delete()

    async def trigger(self, name: str) -> None:
        """Start its job now, as its clock would."""
        with our_errors(f"schedule {name}"):
            await self._handle(name).trigger()

    async def pause(self, name: str, paused: bool) -> None:
        with our_errors(f"schedule {name}"):
            handle = self._handle(name)
            await (handle.pause() if paused else handle.unpause())

    def _handle(self, name: str) -> ScheduleHandle:
        check_name("name", name)
        return self._nova.client.get_schedule_handle(ids.schedule(self._nova.site, name))


def _schedule(site: str, wanted: ScheduleRequest, job: PlannedJob) -> Schedule:
    spec = ScheduleSpec(
        cron_expressions=[wanted.cron] if wanted.cron else [],
        intervals=[ScheduleIntervalSpec(every=timedelta(seconds=wanted.every))] if wanted.every else [],
        jitter=timedelta(seconds=wanted.jitter) if wanted.jitter else None,
        time_zone_name=wanted.zone,
    )
    return Schedule(
        action=ScheduleActionStartWorkflow(
            Planned.run,
            job.model_dump(mode="json"),
            id=ids.planned(site, wanted.name),
            task_queue=queues.control(site),
            static_summary=f"schedule {wanted.name}: {job.job}",
        ),
        spec=spec,
        policy=SchedulePolicy(overlap=_OVERLAPS[wanted.overlap], catchup_window=timedelta(seconds=wanted.catch_up)),
        state=ScheduleState(note=f"made by {initiator()}", paused=wanted.paused),
    )


async def _report(client: Client, handle: ScheduleHandle) -> ScheduleReport:
    found = await handle.describe()
    job = await _job(found)
    schedule, info = found.schedule, found.info
    overlap = next((name for name, policy in _OVERLAPS.items() if policy == schedule.policy.overlap), "other")
    return ScheduleReport(
        name=found.id.rpartition("/")[2],
        id=found.id,
        job=str(job.get("job", "?")),
        input=dict(job.get("input") or {}),
        when=_when(schedule.spec),
        overlap=overlap,
        catch_up=(schedule.policy.catchup_window or timedelta(days=30)).total_seconds(),
        paused=schedule.state.paused,
        next=tuple(info.next_action_times[:3]),
        last=info.recent_actions[-1].started_at if info.recent_actions else None,
        last_end=await _last_end(client, found),
        skipped=info.num_actions_skipped_overlap,
        missed=info.num_actions_missed_catchup_window,
    )


async def _last_end(client: Client, found: ScheduleDescription) -> str:
    """Of the job, not of its planner: that one does not wait for the end of a maintenance."""
    if not found.info.recent_actions:
        return ""
    action = found.info.recent_actions[-1].action
    if not isinstance(action, ScheduleActionExecutionStartWorkflow):
        return ""
    planner = client.get_workflow_handle_for(Planned.run, action.workflow_id, run_id=action.first_execution_run_id)
    try:
        told = await _end(planner)
        if told != "done":
            return told
        outcome: PlannedOutcome = await planner.result()
        return await _end(client.get_workflow_handle(outcome.workflow_id)) if outcome.started else outcome.note
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:  # Temporal has forgotten that run
            return ""
        raise


async def _end(handle: WorkflowHandle[Any, Any]) -> str:
    status = (await handle.describe()).status
    if status == WorkflowExecutionStatus.RUNNING:
        return "running"
    try:
        await handle.result()
    except WorkflowFailureError as error:
        return f"failed: {errors.from_workflow(error)}"[:500]
    return "done"


async def _job(found: ScheduleDescription) -> dict[str, Any]:
    action = found.schedule.action
    if not isinstance(action, ScheduleActionStartWorkflow) or not action.args:
        return {}
    (value,) = await found.data_converter.decode([action.args[0]], [dict])
    return value if isinstance(value, dict) else {}


def _when(spec: ScheduleSpec) -> str:
    parts = [*spec.cron_expressions]
    parts += [f"every {each.every.total_seconds():g} s" for each in spec.intervals]
    parts += [_calendar(each) for each in spec.calendars]
    return "; ".join(parts) + (f" ({spec.time_zone_name})" if spec.time_zone_name else "")


def _calendar(spec: Any) -> str:
    """Temporal keeps a cron expression as a calendar: back to five fields."""

    def field(ranges: Any, whole: tuple[int, int]) -> str:
        told = []
        for each in ranges:
            end = max(each.end, each.start)
            if (each.start, end) == whole:
                told.append("*" if each.step <= 1 else f"*/{each.step}")
            else:
                told.append(f"{each.start}" + (f"-{end}" if end > each.start else ""))
        return ",".join(told) or "*"

    return " ".join(
        (
            field(spec.minute, (0, 59)),
            field(spec.hour, (0, 23)),
            field(spec.day_of_month, (1, 31)),
            field(spec.month, (1, 12)),
            field(spec.day_of_week, (0, 6)),
        )
    )
