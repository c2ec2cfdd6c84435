"""MoveMany: whom it chooses, how it goes on over many pages, and what it tells of failures."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError

from models import ids
from models.fleet import FleetPlan, MoveManyOutcome
from tests.workflow.fake_site import VM, FakeSite, failure, reached, vm
from workflows.fleet.move_many import MoveMany

pytestmark = pytest.mark.temporal

Moves = WorkflowHandle[MoveMany, MoveManyOutcome]


async def start(site: FakeSite, **wishes: object) -> Moves:
    return await site.client.start_workflow(
        MoveMany.run, wishes, id=ids.move_many(site.name, "test"), task_queue=site.queue
    )


async def moved(site: FakeSite, **wishes: object) -> MoveManyOutcome:
    async with asyncio.timeout(40):
        return await (await start(site, **wishes)).result()


def fill(site: FakeSite, count: int) -> list[str]:
    names = [f"vm-{number:02}" for number in range(count)]
    site.source.vms.clear()
    for place, name in enumerate(names):
        site.source.vms[name] = vm(name=name, labels={"tier": "gold" if place % 2 else "tin"})
    return names


async def test_vms_are_chosen_by_label(site: FakeSite) -> None:
    fill(site, 4)
    async with site.working():
        result = await moved(site, labels={"tier": "gold"}, to="host-b")
    assert (result.phase, result.moved, result.failed) == ("done", 2, 0)
    assert sorted(site.destination.vms) == ["vm-01", "vm-03"]
    assert sorted(site.source.vms) == ["vm-00", "vm-02"]


async def test_many_pages_are_many_runs_and_every_vm_moves_once(site: FakeSite) -> None:
    names = fill(site, 7)
    async with site.working():
        result = await moved(site, hosts=["host-a"], page=2, slots={"out": 3, "into": 3, "link": 3})
    assert result.failures == ()
    assert (result.moved, result.failed, result.memory_moved_mib) == (7, 0, 7 * 256)
    assert result.runs >= 4
    assert sorted([*site.destination.vms, *site.hosts["host-c"].vms]) == names
    assert site.journal.count("host-a.move_vm") == 7


async def test_a_move_under_way_is_taken_along_into_the_next_run(site: FakeSite) -> None:
    fill(site, 3)
    step = site.at(site.source, "move_vm", hold=True, times=1)
    async with site.working():
        moves = await start(site, hosts=["host-a"], to="host-b", page=1)
        await reached(step)
        async with asyncio.timeout(30):
            while site.destination.vms.keys() != {"vm-01", "vm-02"}:
                await asyncio.sleep(0.05)
        assert step.release is not None
        step.release.set()
        async with asyncio.timeout(30):
            result = await moves.result()
    assert (result.moved, result.failed) == (3, 0)
    assert result.runs == 3


async def test_a_vm_that_fails_is_named_with_its_reason_and_stops_no_other(site: FakeSite) -> None:
    fill(site, 3)
    site.destination.refuses = {"vm-01"}
    async with site.working():
        result = await moved(site, hosts=["host-a"], to="host-b", attempts=2)
    assert (result.moved, result.failed) == (2, 1)
    assert result.failures[0].vm == "vm-01"
    assert "host-b will not" in result.failures[0].why


async def test_without_a_destination_a_refusal_leads_to_another_host(site: FakeSite) -> None:
    fill(site, 2)
    site.destination.refuses = {"vm-00", "vm-01"}
    async with site.working():
        result = await moved(site, vms=["vm-00", "vm-01"])
    assert (result.moved, result.failed) == (2, 0)
    assert sorted(site.hosts["host-c"].vms) == ["vm-00", "vm-01"]


async def test_an_ambiguous_end_is_never_tried_again(site: FakeSite) -> None:
    unclear = ApplicationError("two copies", type="Ambiguous", non_retryable=True)

    def two_copies() -> None:
        site.destination.vms[VM] = vm()

    site.at(site.source, "move_vm", error=unclear, change=two_copies)
    async with site.working():
        result = await moved(site, vms=[VM], to="host-b")
    assert (result.moved, result.failed) == (0, 1)
    assert site.journal.count("host-a.move_vm") == 1


async def test_a_vm_that_is_there_already_is_no_move(site: FakeSite) -> None:
    async with site.working():
        result = await moved(site, vms=[VM], to="host-a")
    assert (result.moved, result.failed) == (0, 0)


async def test_a_dry_run_plans_the_first_page_within_the_room_there_is(site: FakeSite) -> None:
    fill(site, 3)
    site.destination.free_mib = 300
    site.hosts["host-c"].free_mib = 300
    async with site.working():
        result = await moved(site, hosts=["host-a"], dry_run=True)
    assert isinstance(result.plan, FleetPlan)
    assert sorted(move.to for move in result.plan.moves) == ["host-b", "host-c"]
    (stuck,) = result.plan.stuck
    assert "it needs 256 MiB" in stuck.why
    assert not [entry for entry in site.journal if entry.endswith("move_vm")]


async def test_a_cancel_starts_no_further_move(site: FakeSite) -> None:
    fill(site, 3)
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        moves = await start(site, hosts=["host-a"], slots={"out": 1})
        await reached(step)
        await moves.execute_update(MoveMany.cancel, "enough")
        assert step.release is not None
        step.release.set()
        async with asyncio.timeout(30):
            result = await moves.result()
    assert (result.phase, result.moved) == ("cancelled", 1)
    assert len(site.source.vms) == 2


async def test_without_a_choice_nothing_is_moved(site: FakeSite) -> None:
    async with site.working():
        run = await site.client.start_workflow(
            "novacron.MoveMany", {"to": "host-b"}, id=ids.move_many(site.name, "x"), task_queue=site.queue
        )
        error = await failure(run)
    assert error.type == "InvalidInput"
    assert "nothing chooses VMs" in error.message
