"""EvacuateHost: what it moves where, what it does with VMs that cannot move, how it holds the host, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from models import ids
from models.fleet import EvacuateOutcome, FleetProgress, Slots
from models.host import Finding
from tests.workflow.fake_site import VM, FakeSite, Step, failure, reached, vm
from workflows.fleet.evacuate_host import EvacuateHost
from workflows.plan.plan_move import PlanMove

pytestmark = pytest.mark.temporal

Evacuation = WorkflowHandle[EvacuateHost, EvacuateOutcome]


async def evacuate(site: FakeSite, **wishes: object) -> Evacuation:
    return await site.client.start_workflow(
        EvacuateHost.run,
        {"host": "host-a", **wishes},
        id=ids.evacuate_host(site.name, "host-a"),
        task_queue=site.queue,
    )


def fill(site: FakeSite, count: int, host: str = "host-a") -> list[str]:
    """That many VMs instead of the one."""
    names = [f"vm-{number:02}" for number in range(count)]
    site.hosts["host-a"].vms.clear()
    site.hosts[host].vms |= {name: vm(name=name) for name in names}
    return names


async def until(evacuation: Evacuation, holds: Callable[[FleetProgress], bool]) -> FleetProgress:
    """Its progress once this holds."""
    async with asyncio.timeout(30):
        while True:
            progress = await evacuation.query(EvacuateHost.progress)
            if holds(progress):
                return progress
            assert (await evacuation.describe()).status == WorkflowExecutionStatus.RUNNING, progress
            await asyncio.sleep(0.05)


async def drained(evacuation: Evacuation) -> FleetProgress:
    return await until(evacuation, lambda progress: progress.phase == "drained")


async def ended(evacuation: Evacuation) -> EvacuateOutcome:
    async with asyncio.timeout(30):
        return await evacuation.result()


def let(step: Step) -> None:
    assert step.release is not None
    step.release.set()


async def test_a_host_is_emptied_and_the_proof_is_its_own_answer(site: FakeSite) -> None:
    names = fill(site, 5)
    async with site.working():
        evacuation = await evacuate(site)
        progress = await drained(evacuation)
        assert progress.drained is not None
        assert (progress.drained.host, progress.drained.running) == ("host-a", 0)
        assert (progress.moved, progress.failed, progress.memory_moved_mib) == (5, 0, 5 * 256)
        assert site.hosts["host-a"].vms == {}
        elsewhere = [name for host in ("host-b", "host-c") for name in site.hosts[host].vms]
        assert sorted(elsewhere) == names
        await evacuation.execute_update(EvacuateHost.resume, False)
        result = await ended(evacuation)
    assert (result.phase, [each.vm for each in result.moved]) == ("done", names)


async def test_while_it_runs_no_vm_may_be_moved_onto_the_host(site: FakeSite) -> None:
    site.switch(VM, "host-a", "host-c")
    async with site.working():
        evacuation = await evacuate(site)
        await drained(evacuation)
        error = await failure(await site.start({"vm": VM, "to": "host-a"}))
        assert error.type == "Refused"
        assert f"host-a is in maintenance (workflow host/{site.name}/host-a)" in error.message
        assert "novacron host resume host-a" in error.message
        await evacuation.execute_update(EvacuateHost.resume, False)
        await ended(evacuation)
        assert (await site.move({"vm": VM, "to": "host-a"})).destination == "host-a"


async def test_a_plan_names_the_maintenance_of_its_destination_beside_what_else_is_in_the_way(site: FakeSite) -> None:
    site.switch(VM, "host-a", "host-c")
    other = Finding(id="cpu", severity="blocker", what="no avx2", remedy="Lower the model.")
    site.hosts["host-a"].findings = (other,)
    async with site.working():
        evacuation = await evacuate(site)
        await drained(evacuation)
        plan = await site.client.execute_workflow(
            PlanMove.run, {"vm": VM, "to": "host-a"}, id=f"plan/{site.name}/1", task_queue=site.queue
        )
        await evacuation.cancel()
    assert [blocker.id for blocker in plan.blockers] == ["maintenance", "cpu"]
    assert "novacron host resume host-a" in plan.blockers[0].remedy


async def test_a_vm_in_two_halves_comes_together_also_on_a_host_in_maintenance(site: FakeSite) -> None:
    site.source.vms.clear()
    async with site.working():
        evacuation = await site.client.start_workflow(
            EvacuateHost.run,
            {"host": "host-b"},
            id=ids.evacuate_host(site.name, "host-b"),
            task_queue=site.queue,
        )
        await drained(evacuation)
        site.split(vm("paused", job=True, reason=12), vm(reason=10))
        assert (await site.move()).destination == "host-b"
        await evacuation.cancel()


async def test_a_vm_that_turns_up_in_maintenance_is_moved_too(site: FakeSite) -> None:
    async with site.working():
        evacuation = await evacuate(site)
        await drained(evacuation)
        site.hosts["host-a"].vms["late"] = vm(name="late")
        await evacuation.execute_update(EvacuateHost.look_now)
        progress = await until(evacuation, lambda seen: seen.moved == 2 and seen.phase == "drained")
        assert progress.drained is not None
        await evacuation.cancel()


async def test_a_dry_run_says_what_would_go_where_and_moves_nothing(site: FakeSite) -> None:
    fill(site, 2)
    site.hosts["host-a"].vms["asleep"] = vm("paused", name="asleep")
    site.hosts["host-c"].refuses = {"vm-00", "vm-01"}
    async with site.working():
        run = await site.client.start_workflow(
            EvacuateHost.run,
            {"host": "host-a", "dry_run": True, "non_movable": "skip"},
            id=ids.evacuation_plan(site.name, "host-a", "1"),
            task_queue=site.queue,
        )
        result = await ended(run)
    assert result.phase == "planned"
    assert result.plan is not None
    assert [(move.vm, move.to) for move in result.plan.moves] == [("vm-00", "host-b"), ("vm-01", "host-b")]
    assert all(move.why for move in result.plan.moves)
    assert [(each.vm, each.choice) for each in result.plan.stuck] == [("asleep", "skip")]
    assert "it is paused" in result.plan.stuck[0].why
    assert result.plan.memory_mib == 512
    assert not [entry for entry in site.journal if entry.endswith("move_vm")]


async def test_one_move_that_fails_is_tried_on_another_host_and_stops_no_other(site: FakeSite) -> None:
    fill(site, 4)
    broken = ApplicationError("the link broke", type="MigrationFailed", non_retryable=True)
    site.at(site.hosts["host-a"], "move_vm", error=broken, times=1)
    async with site.working():
        evacuation = await evacuate(site)
        progress = await drained(evacuation)
        assert progress.moved == 4
        await evacuation.cancel()


async def test_a_vm_whose_attempts_are_used_up_is_named_and_the_host_is_not_drained(site: FakeSite) -> None:
    fill(site, 2)
    site.hosts["host-b"].refuses = site.hosts["host-c"].refuses = {"vm-01"}
    async with site.working():
        evacuation = await evacuate(site, non_movable="skip")
        progress = await until(evacuation, lambda seen: seen.phase == "incomplete")
        assert (progress.drained, progress.moved) == (None, 1)
        assert "vm-01" in progress.note
        (line,) = [line for line in progress.vms if line.vm == "vm-01"]
        assert line.fate == "stuck"
        assert "host-b will not" in line.note
        await evacuation.cancel()


async def test_a_vm_that_cannot_move_is_waited_for(site: FakeSite) -> None:
    site.hosts["host-a"].vms[VM] = vm("paused")
    async with site.working():
        evacuation = await evacuate(site)
        await until(evacuation, lambda seen: seen.phase == "waiting" and bool(seen.note))
        site.hosts["host-a"].vms[VM] = vm("running")
        assert (await drained(evacuation)).moved == 1
        await evacuation.cancel()


async def test_a_vm_that_cannot_move_is_shut_down_only_when_that_was_asked_for(site: FakeSite) -> None:
    site.hosts["host-a"].vms[VM] = vm("paused")
    async with site.working():
        evacuation = await evacuate(site)
        await until(evacuation, lambda seen: seen.phase == "waiting" and bool(seen.note))
        assert "host-a.stop_vm" not in site.journal
        await evacuation.execute_update("set_non_movable", "stop")
        progress = await drained(evacuation)
        assert progress.drained is not None
        assert progress.drained.defined == (VM,)
        await evacuation.execute_update(EvacuateHost.resume, False)
        assert (await ended(evacuation)).stopped == (VM,)


async def test_a_vm_another_move_holds_is_waited_for_and_looked_for_again(site: FakeSite) -> None:
    step = site.at(site.hosts["host-a"], "move_vm", hold=True)
    async with site.working():
        other = await site.start()
        await reached(step)
        evacuation = await evacuate(site)
        progress = await until(evacuation, lambda seen: any(line.fate == "busy" for line in seen.vms))
        assert progress.running == 1
        let(step)
        progress = await drained(evacuation)
        assert (await other.result()).destination == "host-b"
        assert progress.moved == 0, "it was moved by somebody else"
        await evacuation.cancel()


async def test_slots_bound_what_moves_at_once_and_can_be_changed(site: FakeSite) -> None:
    fill(site, 4)
    step = site.at(site.hosts["host-a"], "move_vm", hold=True)
    async with site.working():
        evacuation = await evacuate(site, slots={"out": 1, "into": 1})
        progress = await until(evacuation, lambda seen: seen.running == 1)
        assert progress.waiting == 3
        await evacuation.execute_update(EvacuateHost.set_slots, Slots(out=3, into=3, link=3))
        assert (await until(evacuation, lambda seen: seen.running == 3)).waiting == 1
        let(step)
        await drained(evacuation)
        await evacuation.cancel()


async def test_a_pause_starts_no_further_move_and_a_cancel_leaves_those_under_way_alone(site: FakeSite) -> None:
    fill(site, 3)
    step = site.at(site.hosts["host-a"], "move_vm", hold=True)
    async with site.working():
        evacuation = await evacuate(site, slots={"out": 1})
        await reached(step)
        await evacuation.execute_update(EvacuateHost.pause)
        await evacuation.execute_update(EvacuateHost.cancel, "changed our minds")
        let(step)
        result = await ended(evacuation)
    assert (result.phase, len(result.moved)) == ("cancelled", 1)
    assert "cancelled: changed our minds" in result.notes
    assert len(site.hosts["host-a"].vms) == 2


async def test_a_termination_leaves_the_moves_to_their_own_end(site: FakeSite) -> None:
    step = site.at(site.hosts["host-a"], "move_vm", hold=True)
    async with site.working():
        evacuation = await evacuate(site)
        await reached(step)
        await evacuation.terminate()
        let(step)
        move = site.client.get_workflow_handle(site.id)
        async with asyncio.timeout(30):
            await move.result()
    assert (site.hosts["host-a"].vms, site.left_open()) == ({}, [])


async def test_resume_brings_the_vms_back_from_where_they_run_now(site: FakeSite) -> None:
    names = fill(site, 3)
    async with site.working():
        evacuation = await evacuate(site, to=["host-b"])
        await drained(evacuation)
        site.switch("vm-00", "host-b", "host-c")
        del site.hosts["host-b"].vms["vm-02"]
        await evacuation.execute_update(EvacuateHost.resume, True)
        result = await ended(evacuation)
    assert result.brought_back == ("vm-00", "vm-01")
    assert "not found on any host" in result.not_brought_back["vm-02"]
    assert sorted(site.hosts["host-a"].vms) == names[:2]


async def test_what_comes_after_the_end_is_refused(site: FakeSite) -> None:
    step = site.at(site.hosts["host-a"], "move_vm", hold=True)
    async with site.working():
        evacuation = await evacuate(site)
        await reached(step)
        await evacuation.execute_update(EvacuateHost.resume, False)
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await evacuation.execute_update(EvacuateHost.resume, True)
        assert isinstance(caught.value.cause, ApplicationError)
        assert "ending already" in caught.value.cause.message
        let(step)
        await ended(evacuation)


async def test_a_host_that_does_not_answer_is_never_taken_for_drained(site: FakeSite) -> None:
    async with site.working():
        await site.kill(site.hosts["host-a"])
        evacuation = await evacuate(site)
        progress = await until(evacuation, lambda seen: seen.phase == "waiting" and bool(seen.note))
        assert "cannot be asked" in progress.note
        assert progress.drained is None
        await evacuation.cancel()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (None, "input: got nothing. Give one JSON object"),
        ({"host": "host-x"}, "host: 'host-x' is not a host of site"),
        ({"host": "host-a", "to": ["host-z"]}, "to: 'host-z' is not a host of site"),
        ({"host": "host-a", "non_moveable": "skip"}, "did you mean 'non_movable'?"),
        ({"host": "host-a", "slots": {"outt": 1}}, "did you mean 'out'?"),
        ({"host": "host-b"}, "start it again with 'host/"),
    ],
)
async def test_a_wrong_input_fails_at_once_and_names_the_field(site: FakeSite, raw: object, words: str) -> None:
    host = raw["host"] if isinstance(raw, dict) and raw["host"] != "host-b" else "host-a"
    async with site.working():
        run = await site.client.start_workflow(
            "novacron.EvacuateHost", raw, id=ids.evacuate_host(site.name, host), task_queue=site.queue
        )
        error = await failure(run)
    assert error.type == "InvalidInput"
    assert words in error.message


async def test_a_destination_that_has_just_started_is_no_obstacle(site: FakeSite) -> None:
    """The first move that comes to it has it compared with the owner records."""
    site.hosts["host-b"].reconciled = False
    async with site.working():
        evacuation = await evacuate(site, to=["host-b"])
        assert (await drained(evacuation)).moved == 1
        await evacuation.cancel()
