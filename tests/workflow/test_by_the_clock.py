"""Rebalance, and what schedules start: the real workflow under the one id, whatever Temporal appends to its own."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from models import ids
from models.fleet import RebalanceOutcome
from models.schedule import PlannedJob, PlannedOutcome, ScheduleRequest
from novacron.client import NovaCron
from novacron.errors import InvalidInput, NotFound
from novacron.fleet import Fleet
from novacron.schedules import Schedules
from tests.workflow.fake_site import VM, FakeSite, reached, vm
from workflows.fleet.planned import Planned
from workflows.fleet.rebalance import Rebalance

pytestmark = pytest.mark.temporal

STARTED = "-2026-11-23T04:14:12Z"
"""As Temporal appends it."""


async def planned(site: FakeSite, job: str, **given: object) -> WorkflowHandle[Planned, PlannedOutcome]:
    return await site.client.start_workflow(
        Planned.run,
        {"job": job, "input": given},
        id=ids.planned(site.name, "nightly") + STARTED,
        task_queue=site.queue,
    )


async def ended(run: WorkflowHandle[Planned, PlannedOutcome]) -> PlannedOutcome:
    async with asyncio.timeout(40):
        return await run.result()


async def balanced(site: FakeSite, **wishes: object) -> RebalanceOutcome:
    async with asyncio.timeout(40):
        return await site.client.execute_workflow(
            Rebalance.run, {"cool_down": 60, **wishes}, id=ids.rebalance(site.name), task_queue=site.queue
        )


def uneven(site: FakeSite) -> None:
    """host-a is full with eight VMs; free memory follows what runs where."""
    site.source.vms = {f"vm-{number}": vm(name=f"vm-{number}") for number in range(8)}
    weigh(site)


def weigh(site: FakeSite) -> None:
    for host in site.hosts.values():
        host.free_mib = 4096 - 256 * len(host.vms)


async def test_hosts_are_evened_out_and_then_left_alone(site: FakeSite) -> None:
    uneven(site)
    for host in site.hosts.values():
        site.at(host, "describe_host", change=lambda: weigh(site))
    async with site.working():
        first = await balanced(site)
        again = await balanced(site)
    assert (first.phase, first.before) == ("done", 50.0)
    assert first.after <= 10
    assert len({each.vm for each in first.moved}) == len(first.moved) > 0
    assert (again.moved, again.before) == ((), first.after)
    assert "below the threshold" in again.notes[0]


async def test_a_dry_run_of_rebalancing_moves_nothing(site: FakeSite) -> None:
    uneven(site)
    async with site.working():
        result = await balanced(site, dry_run=True)
    assert result.phase == "planned"
    assert result.plan is not None
    assert result.plan.moves
    assert len(site.source.vms) == 8


async def test_a_schedule_starts_the_move_under_the_vms_own_lock(site: FakeSite) -> None:
    async with site.working():
        result = await ended(await planned(site, "migrate", vm=VM, to="host-b"))
    assert (result.workflow_id, result.started) == (site.id, True)
    assert site.runs_on() == ["host-b"]


async def test_what_runs_already_is_left_alone_and_said(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        result = await ended(await planned(site, "migrate", vm=VM, to="host-c"))
        assert (result.started, result.note) == (False, "it runs already, and was left alone")
        assert step.release is not None
        step.release.set()
        assert (await move.result()).destination == "host-b"


async def test_a_scheduled_evacuation_is_started_and_not_waited_for(site: FakeSite) -> None:
    async with site.working():
        result = await ended(await planned(site, "evacuate", host="host-a"))
        assert result.workflow_id == ids.evacuate_host(site.name, "host-a")
        await site.client.get_workflow_handle(result.workflow_id).cancel()


async def test_a_scheduled_bulk_move_is_named_after_its_schedule(site: FakeSite) -> None:
    async with site.working():
        result = await ended(await planned(site, "move-many", hosts=["host-a"], to="host-b"))
    assert result.workflow_id == ids.move_many(site.name, "nightly")
    assert site.runs_on() == ["host-b"]


async def test_a_job_that_does_not_fit_fails_at_once(site: FakeSite) -> None:
    async with site.working():
        with pytest.raises(WorkflowFailureError) as caught:
            await ended(await planned(site, "rebalance", treshold=3))
    error = caught.value.cause
    assert isinstance(error, ApplicationError)
    assert error.type == "InvalidInput"
    assert "did you mean 'threshold'?" in error.message


async def test_a_schedule_is_made_listed_triggered_and_deleted(site: FakeSite) -> None:
    wanted = ScheduleRequest(
        name="sundays",
        job=PlannedJob(job="migrate", input={"vm": VM, "to": "host-b"}),
        cron="30 2 * * 0",
        zone="Europe/Berlin",
        catch_up=7200,
    )
    async with site.working():
        schedules = Schedules(NovaCron(site.client, site.name))
        made = await schedules.create(wanted)
        assert (made.when, made.overlap, made.catch_up) == ("30 2 * * 0 (Europe/Berlin)", "skip", 7200)
        assert (made.job, made.input["to"], len(made.next)) == ("migrate", "host-b", 3)
        with pytest.raises(InvalidInput, match="there is a schedule 'sundays'"):
            await schedules.create(wanted)
        await schedules.trigger("sundays")
        async with asyncio.timeout(30):
            while site.runs_on() != ["host-b"]:
                await asyncio.sleep(0.1)
        assert await last_end(schedules) == "done"
        await schedules.delete("sundays")


async def test_a_schedule_whose_job_fails_says_so_and_why(site: FakeSite) -> None:
    wanted = ScheduleRequest(
        name="off", job=PlannedJob(job="evacuate", input={"host": "host-x"}), every=86_400, paused=True
    )
    async with site.working():
        schedules = Schedules(NovaCron(site.client, site.name))
        assert (await schedules.create(wanted)).last_end == ""
        await schedules.trigger("off")
        found = await last_end(schedules)
        await schedules.delete("off")
    assert found.startswith("failed: ")
    assert "host-x" in found


async def test_a_host_that_is_not_in_maintenance_is_called_so(site: FakeSite) -> None:
    with pytest.raises(NotFound, match="host-b is not in maintenance") as caught:
        await Fleet(NovaCron(site.client, site.name)).maintenance("host-b").steer("resume", False)
    assert "novacron host evacuate host-b" in caught.value.remedy


async def last_end(schedules: Schedules) -> str:
    """How the only schedule's job ended, once it has."""
    async with asyncio.timeout(30):
        while True:
            found = [each.last_end for each in await schedules.list()]
            if found and found[0] not in ("", "running"):
                return found[0]
            await asyncio.sleep(0.1)
