"""novacron.MoveFromCloud: one copy runs at any moment, a disk is brought whole once, and nothing is left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from models.cloud_bring import CloudBringOutcome
from models.cloud_move import CloudStanding
from models.lease import Lease
from tests.workflow.fake_bring import INSTANCE
from tests.workflow.fake_cloud import MIB, PLACE
from tests.workflow.fake_site import UUID, VM, FakeSite, Step, vm
from workflows.cloud.move_from_cloud import MoveFromCloud

pytestmark = pytest.mark.temporal

Handle = WorkflowHandle[MoveFromCloud, CloudBringOutcome]
GONE = ApplicationError("no answer", type="Refused", non_retryable=True)
PROBE = {"kind": "tcp", "address": "10.0.0.7", "port": 22}


@pytest.fixture
def site(site: FakeSite) -> FakeSite:
    """Its VM runs as an instance; the definition is left, shut off, on the host that it had left."""
    site.source.vms[VM] = vm("shutoff")
    site.cloud.instances[INSTANCE] = ("a-token-of-then", "running", 7)
    site.leases.records[UUID] = Lease(site=site.name, uuid=UUID, vm=VM, host="cloud.aws.eu-west-1", token=3)
    site.leases.last = 3
    return site


def wanted(**more: Any) -> dict[str, Any]:
    return {"vm": VM, "source": PLACE, "to": "host-b", **more}


async def begin(site: FakeSite, **more: Any) -> Handle:
    return await site.client.start_workflow(MoveFromCloud.run, wanted(**more), id=site.id, task_queue=site.queue)


async def ended(handle: Handle) -> CloudBringOutcome:
    async with asyncio.timeout(60):
        return await handle.result()


async def failed(handle: Handle) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as caught:
        await ended(handle)
    assert isinstance(caught.value.cause, ApplicationError), repr(caught.value.cause)
    return caught.value.cause


async def stands(handle: Handle, stage: str, why: str = "") -> CloudStanding:
    async with asyncio.timeout(40):
        while True:
            seen = await handle.query(MoveFromCloud.standing)
            if seen.stage == stage and why in seen.why:
                return seen
            await asyncio.sleep(0.05)


def state(site: FakeSite) -> str:
    return site.cloud.instances[INSTANCE][1]


def holds(site: FakeSite) -> int:
    return site.cloud.instances[INSTANCE][2]


def in_the_cloud(site: FakeSite) -> None:
    """The VM runs where it was, nothing is left on the host, and it never ran twice."""
    assert state(site) == "running"
    assert VM not in site.destination.vms
    assert site.destination.arrivals.images == {}
    assert site.cloud.disks == {}
    assert site.cloud.two_copies == []
    assert site.leases.records[UUID].host == "cloud.aws.eu-west-1"
    assert site.leases.records[UUID].operation == ""


async def test_an_instance_is_brought_in_rounds_and_then_runs_on_the_host_only(site: FakeSite) -> None:
    here = site.destination.arrivals
    here.changes = [4 * MIB, MIB]
    async with site.working():
        result = await ended(await begin(site))
    assert state(site) == "stopped"
    assert site.destination.vms[VM].state == "running"
    assert site.destination.vms[VM].uuid == UUID, "the VM is the one that had left"
    assert site.cloud.two_copies == []
    assert [bool(order.base) for order in here.receives] == [False] + [True] * (len(here.receives) - 1)
    assert here.receives[-1].prove
    (path,) = result.images
    assert here.images[path] == holds(site) + 1000, "it boots what the instance wrote last"
    assert result.disks[0].source == result.disks[0].content
    assert site.cloud.disks == {}, "no snapshot is left"
    record = site.leases.records[UUID]
    assert (record.host, record.operation) == ("host-b", "")
    assert site.destination.tokens == {VM: record.token}
    assert [order.keep for order in here.settled] == [True]


async def test_a_cold_move_stops_first_and_brings_once(site: FakeSite) -> None:
    async with site.working():
        await ended(await begin(site, mode="cold"))
    steps = [entry for entry in site.journal if entry.endswith(("stop_instance", "snapshot_volume", "receive_disk"))]
    assert steps == ["cloud.stop_instance", "cloud.snapshot_volume", "host-b.receive_disk"]


@pytest.mark.parametrize("why", ["no deltas", "stopped"])
async def test_what_cannot_go_warm_goes_cold(site: FakeSite, why: str) -> None:
    site.cloud.warm = why != "no deltas"
    if why == "stopped":
        site.cloud.instances[INSTANCE] = ("", "stopped", 7)
    async with site.working():
        await ended(await begin(site))
    assert site.journal.count("host-b.receive_disk") == 1
    assert site.destination.vms[VM].state == "running"
    assert site.cloud.two_copies == []


async def test_a_cloud_that_does_not_tell_what_changed_gives_all_again_after_a_failed_cut_over(site: FakeSite) -> None:
    site.cloud.warm = False
    site.at(site.destination, "start_arrival", error=GONE, times=1)
    async with site.working():
        move = await begin(site)
        await stands(move, "waiting", "was undone")
        await move.execute_update(MoveFromCloud.cut_over_now)
        await ended(move)
    assert [order.base for order in site.destination.arrivals.receives] == ["", ""]
    assert site.cloud.two_copies == []


async def test_a_dry_run_plans_and_touches_nothing(site: FakeSite) -> None:
    async with site.working():
        result = await ended(await begin(site, dry_run=True))
    assert result.plan is not None
    assert result.plan.ok
    assert (result.plan.instance, result.plan.warm, result.plan.volumes) == (INSTANCE, True, ("vol-1",))
    assert result.plan.disk_bytes == 64 * MIB
    assert [cost.per for cost in result.plan.costs] == ["once", "month", "month"]
    assert {entry for entry in site.journal if "look_for_vm" not in entry} == {
        "cloud.find_instance",
        "host-b.inspect_arrival",
        "cloud.place_report",
    }
    assert site.leases.records[UUID].operation == ""


async def test_blockers_refuse_before_anything_starts(site: FakeSite) -> None:
    site.cloud.export = False
    site.destination.arrivals.accounts = ()
    async with site.working():
        error = await failed(await begin(site))
        site.cloud.instances["i-2"] = ("", "running", 1)
        two = await failed(await begin(site))
        named = await ended(await begin(site, instance=INSTANCE, dry_run=True))
    assert error.type == two.type == "Refused"
    assert "[export]" in error.message
    assert "[account]" in error.message
    assert "i-2" in two.message
    assert named.plan is not None
    assert named.plan.instance == INSTANCE
    assert site.cloud.disks == {}


async def test_a_vm_that_is_alive_on_a_host_does_not_come_a_second_time(site: FakeSite) -> None:
    site.source.vms[VM] = vm()
    async with site.working():
        error = await failed(await begin(site))
    assert error.type == "TwoCopies"
    assert "host-a" in error.message
    assert "cloud.find_instance" not in site.journal


async def test_a_record_that_names_another_cloud_is_believed(site: FakeSite) -> None:
    site.leases.records[UUID] = site.leases.records[UUID].model_copy(update={"host": "cloud.azure.westeurope"})
    async with site.working():
        error = await failed(await begin(site))
    assert error.type == "Ambiguous"
    assert "cloud.azure.westeurope" in error.message
    assert site.leases.records[UUID].host == "cloud.azure.westeurope"


async def test_an_instance_that_no_host_ever_had_gets_an_identity(site: FakeSite) -> None:
    site.source.vms.clear()
    site.leases.records.clear()
    async with site.working():
        await ended(await begin(site))
    (record,) = site.leases.records.values()
    assert record.host == "host-b"
    assert site.destination.vms[VM].uuid == record.uuid


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"source": "aws"}, "source:"),
        ({"source": "moon:base-1"}, "source:"),
        ({"to": "host-x"}, "to:"),
        ({"cut_over": "at"}, "cut_over_at"),
        ({"folder": "/images/../etc"}, "folder:"),
        ({"hardware": {"vcpu": 2}}, "did you mean 'vcpus'?"),
        ({"instanz": "i-1"}, "did you mean 'instance'?"),
    ],
)
async def test_a_request_that_does_not_fit_is_refused_at_once(site: FakeSite, raw: dict[str, Any], field: str) -> None:
    async with site.working():
        error = await failed(await begin(site, **raw))
    assert error.type == "InvalidInput"
    assert field in error.message


@pytest.mark.parametrize(
    "step",
    ["stop_instance", "look_at_instance", "define_arrival", "start_arrival", "does not stay up", "not well", "started"],
)
async def test_a_failed_cut_over_is_undone_and_the_next_one_brings_differences_only(site: FakeSite, step: str) -> None:
    here = site.destination.arrivals
    if step == "not well":
        site.cloud.well = False
    elif step == "does not stay up":
        here.stays_up = False
    elif step == "started":
        site.cloud_steps["look_at_instance"] = Step(
            change=lambda: site.cloud.instances.update({INSTANCE: ("", "running", holds(site))}), times=1
        )
    elif step.endswith("arrival"):
        site.at(site.destination, step, error=GONE, times=1)
    else:
        site.cloud_steps[step] = Step(error=GONE, times=1)
    async with site.working():
        move = await begin(site, verify=PROBE)
        seen = await stands(move, "waiting", "was undone")
        assert seen.runs_on == PLACE
        assert state(site) == "running"
        assert site.destination.vms.get(VM, vm("shutoff")).state == "shutoff"
        site.cloud.well = here.stays_up = True
        await move.execute_update(MoveFromCloud.cut_over_now)
        result = await ended(move)
    assert [order.base for order in here.receives].count("") == 1, "a disk was brought whole again"
    assert site.cloud.two_copies == []
    assert here.images[result.images[0]] == holds(site) + 1000
    assert state(site) == "stopped"
    assert site.cloud.disks == {}


async def test_when_the_vm_cannot_be_ended_here_the_instance_stays_stopped(site: FakeSite) -> None:
    site.cloud.well = False
    site.at(site.destination, "end_arrival", error=GONE)
    async with site.working():
        error = await failed(await begin(site, verify=PROBE))
    assert error.type == "Ambiguous"
    assert "virsh list" in error.message
    assert state(site) == "stopped"
    assert site.cloud.two_copies == []
    assert site.destination.arrivals.images, "nothing is destroyed for want of an answer"


@pytest.mark.parametrize(
    "step", ["cloud.snapshot_volume", "host-b.receive_disk", "cloud.stop_instance", "host-b.start_arrival"]
)
async def test_a_cancel_leaves_the_vm_in_the_cloud_and_nothing_behind(site: FakeSite, step: str) -> None:
    name = step.partition(".")[2]
    if step.startswith("cloud."):
        held = site.cloud_steps[name] = Step(release=asyncio.Event(), times=1)
    else:
        held = site.at(site.destination, name, hold=True, times=1)
    async with site.working():
        move = await begin(site)
        async with asyncio.timeout(20):
            await held.reached.wait()
        await move.execute_update(MoveFromCloud.cancel, "not today")
        assert held.release is not None
        held.release.set()
        error = await failed(move)
    assert error.type == "Cancelled"
    assert "not today" in error.message
    in_the_cloud(site)


async def test_a_cancel_by_temporal_is_the_same(site: FakeSite) -> None:
    held = site.at(site.destination, "receive_disk", hold=True, times=1)
    async with site.working():
        move = await begin(site)
        async with asyncio.timeout(20):
            await held.reached.wait()
        await move.cancel()
        assert held.release is not None
        held.release.set()
        with pytest.raises(WorkflowFailureError):
            await ended(move)
    in_the_cloud(site)


@pytest.mark.parametrize("kind", ["HostUnavailable", "SourceChanged"])
async def test_a_disk_step_that_died_is_done_again(site: FakeSite, kind: str) -> None:
    """A worker that was killed; an image that is not what its ledger says."""
    lost = ApplicationError("it died", type=kind, non_retryable=kind == "SourceChanged")
    site.at(site.destination, "receive_disk", error=lost, times=1)
    async with site.working():
        await ended(await begin(site))
    assert site.cloud.two_copies == []
    assert site.cloud.disks == {}


async def test_a_dead_host_fails_the_move_and_leaves_the_instance_running(site: FakeSite) -> None:
    held = site.at(site.destination, "receive_disk", hold=True, times=1)
    async with site.working():
        move = await begin(site)
        async with asyncio.timeout(20):
            await held.reached.wait()
        await move.execute_update(MoveFromCloud.cancel, "the host burns")
        assert held.release is not None
        held.release.set()
        await site.kill(site.destination)
        error = await failed(move)
    assert error.type == "Cancelled"
    assert state(site) == "running"
    assert site.cloud.disks == {}, "the snapshots went although the host did not answer"


async def test_a_manual_cut_over_waits_with_a_fresh_copy(site: FakeSite) -> None:
    async with site.working():
        error = await failed(await begin(site, cut_over="manual", wait_within=3600))
    assert error.type == "Cancelled"
    assert "wait_within = 3600 s" in error.message
    assert site.journal.count("host-b.receive_disk") >= 4, "the copy was kept fresh"
    in_the_cloud(site)


async def test_a_roll_back_ends_the_vm_before_the_instance_runs(site: FakeSite, temporal: WorkflowEnvironment) -> None:
    async with site.working():
        with temporal.with_time_skipping_disabled():
            move = await begin(site)
        seen = await stands(move, "kept")
        assert (seen.runs_on, seen.instance, seen.source_kept_until is not None) == ("host-b", INSTANCE, True)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await move.execute_update(MoveFromCloud.cancel, "")
        assert "roll_back" in str(refused.value.cause)
        await move.execute_update(MoveFromCloud.roll_back, "it is slow here")
        result = await ended(move)
    assert result.rolled_back
    assert state(site) == "running"
    assert site.destination.vms[VM].state == "shutoff"
    (order,) = site.destination.arrivals.ends
    assert (order.within, order.revert) == (120, False), "asked first; what it wrote here is kept"
    assert site.cloud.two_copies == []
    assert (site.leases.records[UUID].host, site.leases.records[UUID].operation) == ("cloud.aws.eu-west-1", "")


async def test_the_instance_is_terminated_only_when_asked_for_and_the_vm_runs(site: FakeSite) -> None:
    async with site.working():
        result = await ended(await begin(site, then="remove", keep_source_for=10))
    assert result.instance_terminated
    assert state(site) == "terminated"


async def test_an_instance_whose_vm_is_gone_is_not_terminated(site: FakeSite, temporal: WorkflowEnvironment) -> None:
    async with site.working():
        with temporal.with_time_skipping_disabled():
            move = await begin(site, then="remove")
        await stands(move, "kept")
        site.destination.vms[VM] = vm("shutoff")
        await move.execute_update(MoveFromCloud.let_go)
        result = await ended(move)
    assert not result.instance_terminated
    assert any("not terminated" in note for note in result.notes)
    assert state(site) == "stopped"
