"""novacron.MoveBetweenClouds: one instance runs at any moment, a disk goes whole once, and nothing is left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from models.cloud_move import CloudStanding
from models.cloud_transfer import CloudTransferOutcome, CloudTransferRequest
from models.lease import Lease
from novacron import NovaCron
from novacron.clouds import Clouds
from tests.workflow.fake_bring import INSTANCE
from tests.workflow.fake_cloud import FAR, MIB, PLACE
from tests.workflow.fake_site import UUID, VM, FakeSite, Step, vm
from workflows.cloud.move_between_clouds import MoveBetweenClouds

pytestmark = pytest.mark.temporal

Handle = WorkflowHandle[MoveBetweenClouds, CloudTransferOutcome]
GONE = ApplicationError("no answer", type="Refused", non_retryable=True)
NETWORK = {"subnet": "subnet-1", "security_groups": ["sg-1"]}


@pytest.fixture
def site(site: FakeSite) -> FakeSite:
    """Its VM runs as an instance; no host has anything of it."""
    for host in site.hosts.values():
        host.vms.pop(VM, None)
    site.cloud.instances[INSTANCE] = ("a-token-of-then", "running", 7)
    site.leases.records[UUID] = Lease(site=site.name, uuid=UUID, vm=VM, host="cloud.aws.eu-west-1", token=3)
    site.leases.last = 3
    return site


async def begin(site: FakeSite, **more: Any) -> Handle:
    wanted = {"vm": VM, "source": PLACE, "to": FAR, "size": "t3.micro", "rounds": 2, **more}
    return await site.client.start_workflow(MoveBetweenClouds.run, wanted, id=site.id, task_queue=site.queue)


async def ended(handle: Handle) -> CloudTransferOutcome:
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
            seen = await handle.query(MoveBetweenClouds.standing)
            if seen.stage == stage and why in seen.why:
                return seen
            await asyncio.sleep(0.05)


def state(site: FakeSite) -> str:
    return site.cloud.instances[INSTANCE][1]


def living(site: FakeSite) -> list[str]:
    return [id for id, (_, state, _) in site.far.instances.items() if state != "terminated"]


def at_its_source(site: FakeSite) -> None:
    """The instance runs as before, nothing is left of the move, and it never ran twice."""
    assert state(site) == "running"
    assert site.cloud.disks == {}
    assert site.far.things() == []
    assert site.cloud.two_copies == []
    record = site.leases.records[UUID]
    assert (record.host, record.operation) == ("cloud.aws.eu-west-1", "")


async def test_an_instance_goes_in_rounds_and_then_runs_in_the_other_cloud_only(site: FakeSite) -> None:
    site.transfers.changes = [4 * MIB, MIB]
    async with site.working():
        result = await ended(await begin(site))
    assert state(site) == "stopped"
    assert living(site) == [result.instance]
    assert site.far.instances[result.instance][1:] == ("running", site.cloud.instances[INSTANCE][2])
    orders = site.transfers.orders
    assert [bool(order.base) for order in orders] == [False] + [True] * (len(orders) - 1)
    assert all(order.read_back for order in orders)
    assert result.disks[0].source == result.disks[0].content
    assert result.sent_bytes == 13 * MIB
    assert site.cloud.disks == {}, "no snapshot is left"
    assert site.far.things() == [result.instance], "no disk and no image is left"
    assert len(site.transfers.forgotten) == 1
    assert site.cloud.two_copies == []
    record = site.leases.records[UUID]
    assert (record.host, record.operation) == ("cloud.azure.westeurope", "")


@pytest.mark.parametrize("why", ["asked for", "no deltas in", "stopped"])
async def test_what_cannot_go_warm_goes_cold_and_once(site: FakeSite, why: str) -> None:
    site.far.warm = why != "no deltas in"
    if why == "stopped":
        site.cloud.instances[INSTANCE] = ("", "stopped", 7)
    async with site.working():
        result = await ended(await begin(site, mode="cold" if why == "asked for" else "auto"))
    told = ("stop_instance", "snapshot_volume", "transfer_disk")
    assert [entry for entry in site.journal if entry.endswith(told)] == [
        "cloud.stop_instance", "cloud.snapshot_volume", "far.transfer_disk"
    ]  # fmt: skip
    assert site.far.running() == [result.instance]
    assert site.cloud.two_copies == []


async def test_a_dry_run_tells_costs_and_touches_nothing(site: FakeSite) -> None:
    async with site.working():
        result = await ended(await begin(site, dry_run=True))
    assert result.plan is not None
    assert (result.plan.ok, result.plan.warm, result.plan.disk_bytes) == (True, True, 64 * MIB)
    assert any(f"out of {PLACE}" in cost.what for cost in result.plan.costs)
    assert "prepare" in [finding.id for finding in result.plan.findings]
    assert not [entry for entry in site.journal if entry.endswith(("snapshot_volume", "stop_instance"))]
    at_its_source(site)


@pytest.mark.parametrize("why", ["no export", "warm", "a host has it"])
async def test_what_stands_in_the_way_is_said_before_anything_starts(site: FakeSite, why: str) -> None:
    more: dict[str, Any] = {}
    match why:
        case "no export":
            site.cloud.export = False
        case "warm":
            site.far.warm, more = False, {"mode": "warm"}
        case "a host has it":
            site.source.vms[VM] = vm("running")
    async with site.working():
        error = await failed(await begin(site, **more))
    assert "othing was started" in error.message
    assert error.type == ("TwoCopies" if why == "a host has it" else "Refused")
    assert state(site) == "running"
    assert site.transfers.orders == []


@pytest.mark.parametrize(
    ("more", "field"),
    [({"to": PLACE}, "same place"), ({"source": "mars:1"}, "source"), ({"size": 5}, "size")],
)
async def test_wrong_input_names_the_field(site: FakeSite, more: dict[str, Any], field: str) -> None:
    async with site.working():
        error = await failed(await begin(site, **more))
    assert error.type == "InvalidInput"
    assert field in error.message


@pytest.mark.parametrize("step", ["run_instance", "end_instance once", "not well", "meddled with"])
async def test_a_failed_cut_over_is_undone_and_the_next_one_brings_differences_only(site: FakeSite, step: str) -> None:
    def meddle() -> None:
        token, _, holds = site.cloud.instances[INSTANCE]
        site.cloud.instances[INSTANCE] = (token, "running", holds)

    if step in ("not well", "end_instance once"):
        site.far.well = False
    if step == "end_instance once":
        site.cloud_steps["far.end_instance"] = Step(error=ApplicationError("busy", type="CloudUnavailable"), times=1)
    elif step == "meddled with":
        site.cloud_steps["far.check_instance"] = Step(change=meddle, times=1)
    elif step != "not well":
        site.cloud_steps[f"far.{step}"] = Step(error=GONE, times=1)
    async with site.working():
        move = await begin(site)
        seen = await stands(move, "waiting", "was undone")
        assert (seen.runs_on, state(site), site.far.running()) == (PLACE, "running", [])
        site.far.well = True
        await move.execute_update(MoveBetweenClouds.cut_over_now)
        result = await ended(move)
    assert [order.base for order in site.transfers.orders].count("") == 1, "a disk was brought whole again"
    assert site.far.things() == living(site) == [result.instance]
    assert site.far.instances[result.instance][2] == site.cloud.instances[INSTANCE][2]
    assert site.cloud.disks == {}
    assert site.cloud.two_copies == []


@pytest.mark.parametrize("step", ["far.end_instance", "start_instance"])
async def test_when_an_undo_is_not_certain_people_are_told_and_nothing_is_started(site: FakeSite, step: str) -> None:
    site.far.well = False
    site.cloud_steps[step] = Step(error=GONE)
    async with site.working():
        error = await failed(await begin(site))
    assert error.type == "Ambiguous"
    assert "provider's console" in error.message
    assert state(site) == "stopped"
    assert site.cloud.two_copies == []


@pytest.mark.parametrize("step", ["snapshot_volume", "far.transfer_disk", "stop_instance", "far.check_instance"])
async def test_a_cancel_leaves_the_instance_running_and_nothing_behind(site: FakeSite, step: str) -> None:
    site.cloud_steps[step] = held = Step(release=asyncio.Event(), times=1)
    async with site.working():
        move = await begin(site)
        async with asyncio.timeout(20):
            await held.reached.wait()
        await move.execute_update(MoveBetweenClouds.cancel, "not today")
        assert held.release is not None
        held.release.set()
        error = await failed(move)
    assert (error.type, "not today" in error.message) == ("Cancelled", True)
    at_its_source(site)


async def test_what_is_not_there_any_more_is_brought_whole_again(site: FakeSite) -> None:
    lost = ApplicationError("the base is gone", type="SourceChanged", non_retryable=True)
    site.cloud_steps["far.transfer_disk"] = Step(error=lost, times=1)
    async with site.working():
        result = await ended(await begin(site))
    assert site.far.things() == [result.instance]
    assert site.cloud.disks == {}


async def test_a_manual_cut_over_waits_with_a_fresh_copy_and_tests_meanwhile(
    site: FakeSite, temporal: WorkflowEnvironment
) -> None:
    async with site.working():
        with temporal.with_time_skipping_disabled():
            move = await begin(site, cut_over="manual")
        await stands(move, "waiting")
        assert "went well" in await move.execute_update("test_cut_over", {"network": NETWORK})
        (test,) = site.far.tests
        assert (state(site), site.far.instances[test][1], site.far.images) == ("running", "terminated", {})
        await move.execute_update(MoveBetweenClouds.cut_over_now)
        await stands(move, "kept")
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await move.execute_update(MoveBetweenClouds.cancel, "")
        assert "roll_back" in str(refused.value.cause)
        await move.execute_update(MoveBetweenClouds.let_go)
        await ended(move)
    assert site.cloud.two_copies == []
    assert state(site) == "stopped"


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_roll_back_stops_the_new_instance_before_the_old_one_runs(
    site: FakeSite, temporal: WorkflowEnvironment, recorded: bool
) -> None:
    """Also when the owner records were away at the cut-over, and do not know of it."""
    wish = CloudTransferRequest(vm=VM, source=PLACE, to=FAR, size="t3.micro")
    clouds = Clouds(NovaCron(site.client, site.name))
    async with site.working():
        assert (await clouds.plan_transfer(wish)).instance == INSTANCE
        with temporal.with_time_skipping_disabled():
            move = await clouds.transfer(wish)
        async with asyncio.timeout(40):
            seen = [each async for each in move.follow(every=0.05)][-1]
        assert (seen.stage, seen.runs_on) == ("kept", FAR)
        if not recorded:
            lagging = site.leases.records[UUID].model_copy(update={"host": "cloud.aws.eu-west-1"})
            site.leases.records[UUID] = lagging
        await clouds.at(VM).roll_back("it is slow there")
        result = await move.result()
    assert result.rolled_back
    assert (state(site), site.far.instances[result.instance][1]) == ("running", "stopped")
    assert site.cloud.two_copies == []
    assert site.leases.records[UUID].host == "cloud.aws.eu-west-1"


@pytest.mark.parametrize("runs", [True, False])
async def test_the_old_instance_is_terminated_only_when_asked_for_and_the_new_one_runs(
    site: FakeSite, temporal: WorkflowEnvironment, runs: bool
) -> None:
    async with site.working():
        with temporal.with_time_skipping_disabled():
            move = await begin(site, then="remove")
        await stands(move, "kept")
        site.far.well = runs
        await move.execute_update(MoveBetweenClouds.let_go)
        result = await ended(move)
    assert result.source_terminated == runs
    assert state(site) == ("terminated" if runs else "stopped")
    assert any("not terminated" in note for note in result.notes) != runs
