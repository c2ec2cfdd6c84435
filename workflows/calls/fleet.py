"""The activities of operations on many VMs, with their queues and deadlines: what calls/site.py is to a move."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from models import queues
from models.fleet import HostGate, HostQuery, Maintenance, MovesAnswer, MovesQuery, StopResult, StopVm
from workflows.calls import deadlines

with workflow.unsafe.imports_passed_through():
    from activities.fleet import FleetControlActivities, FleetHostActivities

_call = workflow.execute_activity_method

WITHIN = 600.0
"""Seconds one look at foreign moves lasts at most; then it is asked again."""


class FleetControl:
    """The control worker of a site."""

    def __init__(self, site: str) -> None:
        self._site = site

    async def gate(self, host: str) -> HostGate:
        return await _call(
            FleetControlActivities.host_gate, HostQuery(host=host), **self._to(f"may VMs be moved onto {host}?")
        )

    async def in_maintenance(self) -> Maintenance:
        return await _call(FleetControlActivities.in_maintenance, **self._to("which hosts are in maintenance?"))

    async def await_moves(self, ids: Sequence[str], within: float = WITHIN) -> MovesAnswer:
        """Returns when one of them has ended, or after `within` seconds."""
        query = MovesQuery(ids=tuple(ids), within=within)
        what = f"wait for {ids[0]}" + (f" and {len(ids) - 1} more" if len(ids) > 1 else "")
        config = self._to(what, start_to_close_timeout=timedelta(seconds=within + 60))
        config["schedule_to_close_timeout"] = timedelta(seconds=within + 600)
        config["heartbeat_timeout"] = timedelta(seconds=30)
        return await _call(FleetControlActivities.await_moves, query, **config)

    def _to(self, what: str, **more: timedelta) -> ActivityConfig:
        config = ActivityConfig(
            task_queue=queues.control(self._site), summary=f"{self._site}: {what}"[:200], **deadlines.CONTROL
        )
        if more:
            config["start_to_close_timeout"] = more["start_to_close_timeout"]
        return config


async def stop_vm(site: str, host: str, vm: str, within: float) -> StopResult:
    """Shut a guest down in order; not killed when it does not follow."""
    config = ActivityConfig(
        task_queue=queues.host(site, host),
        summary=f"{host}: shut {vm} down"[:200],
        schedule_to_start_timeout=timedelta(seconds=60),
        start_to_close_timeout=timedelta(seconds=within + 60),
        schedule_to_close_timeout=timedelta(seconds=3 * within + 300),
        heartbeat_timeout=timedelta(seconds=15),
        retry_policy=deadlines.CONTROL["retry_policy"],
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )
    return await _call(FleetHostActivities.stop_vm, StopVm(vm=vm, within=within), **config)
