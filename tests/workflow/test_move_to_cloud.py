"""novacron.MoveToCloud: one copy runs at any moment, a disk is sent whole once, and nothing is left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from models.cloud_move import CloudMoveOutcome, CloudStanding
from models.clouds import Quota
from models.recovery import RecoverReport
from tests.workflow.fake_cloud import MIB, PLACE
from tests.workflow.fake_site import UUID, VM, FakeSite, Step
from workflows.cloud.list_clouds import ListClouds
from workflows.cloud.move_to_cloud import MoveToCloud
from workflows.recovery.recover_vm import RecoverVm

pytestmark = pytest.mark.temporal

Handle = WorkflowHandle[MoveToCloud, CloudMoveOutcome]
GONE = ApplicationError("no answer from the cloud", type="Refused", non_retryable=True)


def wanted(**more: Any) -> dict[str, Any]:
    return {"vm": VM, "to": PLACE, "size": "t3.micro", **more}


async def begin(site: FakeSite, **more: Any) -> Handle:
    return await site.client.start_workflow(MoveToCloud.run, wanted(**more), id=site.id, task_queue=site.queue)


async def ended(handle: Handle) -> CloudMoveOutcome:
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
            seen = await handle.query(MoveToCloud.standing)
            if seen.stage == stage and why in seen.why:
                return seen
            await asyncio.sleep(0.05)


def at_home(site: FakeSite) -> None:
    """The VM runs where it was, nothing is left anywhere, and it never ran twice."""
    assert site.source.vms[VM].state == "running"
    assert site.source.cloud.autostart
    assert site.cloud.running() == []
    assert site.cloud.things() == []
    assert site.cloud.two_copies == []
    assert site.source.cloud.settled


async def test_a_running_vm_is_copied_in_rounds_and_then_runs_in_the_cloud_only(site: FakeSite) -> None:
    site.source.cloud.writes = [4 * MIB, MIB]
    async with site.working():
        result = await ended(await begin(site))
    (instance,) = site.cloud.running()
    assert result.instance == instance
    assert site.source.vms[VM].state == "shutoff"
    assert not site.source.cloud.autostart
    assert site.cloud.two_copies == []
    assert site.cloud.instances[instance][2] == site.source.cloud.holds, "it boots what the guest wrote last"
    assert [bool(order.base) for order in site.source.cloud.sends] == [False] + [True] * (
        len(site.source.cloud.sends) - 1
    )
    assert site.cloud.things() == [instance], "image and snapshots are gone"
    assert result.disks[0].source == result.disks[0].content
    record = site.leases.records[UUID]
    assert (record.host, record.operation) == ("cloud.aws.eu-west-1", "")
    assert site.source.tokens == {VM: record.token}


async def test_a_cold_move_shuts_down_first_and_sends_once(site: FakeSite) -> None:
    async with site.working():
        await ended(await begin(site, mode="cold"))
    steps = [entry for entry in site.journal if entry.startswith(("host-a.stop", "host-a.send", "host-a.begin"))]
    assert steps == ["host-a.stop_source", "host-a.send_disk"]
    assert site.cloud.two_copies == []


async def test_a_cloud_without_changed_blocks_takes_the_vm_cold(site: FakeSite) -> None:
    site.cloud.warm = False
    async with site.working():
        await ended(await begin(site))
        assert "host-a.begin_round" not in site.journal


async def test_a_dry_run_plans_and_touches_nothing(site: FakeSite) -> None:
    async with site.working():
        result = await ended(await begin(site, dry_run=True, size="t3.mikro"))
    assert result.plan is not None
    assert not result.plan.ok
    assert "t3.micro" in result.plan.findings[-1].remedy
    assert (result.plan.disk_bytes, result.plan.send_bytes) == (64 * MIB, 8 * MIB)
    assert str(result.plan.prices_as_of) == "2026-09-06"
    assert {entry for entry in site.journal if "look_for_vm" not in entry} == {
        "host-a.inspect_source",
        "cloud.place_report",
    }
    assert not site.leases.records


async def test_blockers_refuse_before_anything_starts(site: FakeSite) -> None:
    site.source.cloud.persistent = False
    site.source.cloud.obstacles = ("vdb /dev/sdb is no image file",)
    site.cloud.quotas = (Quota(name="vCPUs", limit=2, used=2, unit="vCPU"),)
    async with site.working():
        error = await failed(await begin(site))
    assert error.type == "Refused"
    assert all(f"[{id}]" in error.message for id in ("transient", "disk", "quota"))
    assert site.cloud.things() == []


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"to": "aws"}, "to:"),
        ({"to": "moon:base-1"}, "to:"),
        ({"cut_over": "at"}, "cut_over_at"),
        ({"rounds": 0}, "rounds:"),
        ({"sise": "t3"}, "did you mean 'size'?"),
    ],
)
async def test_a_request_that_does_not_fit_is_refused_at_once(site: FakeSite, raw: dict[str, Any], field: str) -> None:
    async with site.working():
        error = await failed(await begin(site, **raw))
    assert error.type == "InvalidInput"
    assert field in error.message


@pytest.mark.parametrize(
    "step", ["make_cloud_image", "run_instance", "check_instance", "end_instance once", "not well", "does not stop"]
)
async def test_a_failed_cut_over_is_undone_and_the_next_one_sends_differences_only(site: FakeSite, step: str) -> None:
    if step == "not well":
        site.cloud.well = False
    elif step == "does not stop":
        site.source.cloud.follows = False
    elif step == "end_instance once":
        site.cloud.well = False
        site.cloud_steps["end_instance"] = Step(error=ApplicationError("busy", type="CloudUnavailable"), times=1)
    else:
        site.cloud_steps[step] = Step(error=GONE, times=1)
    async with site.working():
        move = await begin(site)
        seen = await stands(move, "waiting", "was undone")
        assert seen.runs_on == "host-a"
        assert site.source.vms[VM].state == "running"
        assert site.source.cloud.autostart
        assert site.cloud.running() == []
        assert site.source.cloud.watched == [120 if step == "does not stop" else 0]
        site.cloud.well = site.source.cloud.follows = True
        await move.execute_update(MoveToCloud.cut_over_now)
        result = await ended(move)
    assert [order.base for order in site.source.cloud.sends].count("") == 1, "a disk was sent whole again"
    assert site.cloud.running() == [result.instance]
    assert site.cloud.two_copies == []
    assert site.cloud.instances[result.instance][2] == site.source.cloud.holds
    living = [id for id, (_, state, _) in site.cloud.instances.items() if state != "terminated"]
    assert site.cloud.things() == living == [result.instance]


async def test_who_cuts_over_by_hand_is_asked_again_after_a_failure(site: FakeSite) -> None:
    held = site.at(site.source, "send_disk", hold=True, times=1)
    site.cloud_steps["run_instance"] = Step(error=GONE, times=1)
    async with site.working():
        move = await begin(site)
        async with asyncio.timeout(20):
            await held.reached.wait()
        await move.execute_update(MoveToCloud.cut_over_now)
        assert held.release is not None
        held.release.set()
        await stands(move, "waiting", "was undone")
        await move.execute_update(MoveToCloud.cancel, "")
        await failed(move)
    assert site.journal.count("cloud.run_instance") == 1
    at_home(site)


async def test_when_the_instance_cannot_be_ended_the_source_stays_off(site: FakeSite) -> None:
    """Two copies would be worse than none: people are told what to do."""
    site.cloud.well = False
    site.cloud_steps["end_instance"] = Step(error=GONE)
    async with site.working():
        error = await failed(await begin(site))
    assert error.type == "Ambiguous"
    assert "novacron-token" in error.message
    assert "virsh start counter" in error.message
    assert site.source.vms[VM].state == "shutoff"
    assert site.cloud.two_copies == []


@pytest.mark.parametrize("step", ["host-a.begin_round", "host-a.send_disk", "host-a.stop_source"])
async def test_a_cancel_leaves_the_vm_at_home_and_nothing_behind(site: FakeSite, step: str) -> None:
    held = site.at(site.source, step.removeprefix("host-a."), hold=True, times=1)
    async with site.working():
        move = await begin(site)
        async with asyncio.timeout(20):
            await held.reached.wait()
        await move.execute_update(MoveToCloud.cancel, "not today")
        assert held.release is not None
        held.release.set()
        error = await failed(move)
    assert error.type == "Cancelled"
    assert "not today" in error.message
    at_home(site)
    assert site.leases.records[UUID].host == "host-a"


async def test_a_cancel_while_the_instance_starts_ends_it_before_the_source_runs(site: FakeSite) -> None:
    site.cloud_steps["check_instance"] = held = Step(release=asyncio.Event())
    async with site.working():
        move = await begin(site)
        async with asyncio.timeout(20):
            await held.reached.wait()
        await move.execute_update(MoveToCloud.cancel, "not today")
        assert held.release is not None
        held.release.set()
        assert (await failed(move)).type == "Cancelled"
    at_home(site)


async def test_a_round_whose_moment_is_lost_is_begun_anew(site: FakeSite) -> None:
    lost = ApplicationError("QEMU ended", type="SourceChanged", non_retryable=True)
    site.at(site.source, "send_disk", error=lost, times=1)
    async with site.working():
        await ended(await begin(site))
    assert site.journal.count("host-a.begin_round") > 2
    assert site.cloud.two_copies == []


async def test_a_manual_cut_over_waits_with_a_fresh_copy_and_tests_meanwhile(
    site: FakeSite, temporal: WorkflowEnvironment
) -> None:
    async with site.working():
        with temporal.with_time_skipping_disabled():
            move = await begin(site, cut_over="manual")
        await stands(move, "waiting")
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await move.execute_update("test_cut_over", {"network": {}})
        assert "keep the copy apart" in str(refused.value.cause)
        network = {"subnet": "subnet-1", "security_groups": ["sg-1"]}
        told = await move.execute_update("test_cut_over", {"network": network})
        assert "went well" in told
        assert site.source.vms[VM].state == "running"
        (test,) = site.cloud.tests
        assert site.cloud.instances[test][1] == "terminated"
        assert site.cloud.images == {}
        site.cloud.well = False
        assert "failed" in await move.execute_update("test_cut_over", {"network": network})
        site.cloud.well = True
        await move.execute_update(MoveToCloud.cut_over_now)
        await stands(move, "kept")
        await move.execute_update(MoveToCloud.let_go)
        await ended(move)
    assert site.cloud.two_copies == []
    assert site.source.vms[VM].state == "shutoff"


async def test_a_move_that_nobody_cuts_over_is_given_up_and_leaves_nothing(site: FakeSite) -> None:
    async with site.working():
        error = await failed(await begin(site, cut_over="manual", wait_within=3600))
    assert error.type == "Cancelled"
    assert "wait_within = 3600 s" in error.message
    at_home(site)
    assert site.journal.count("host-a.begin_round") >= 4, "the copy was kept fresh"


async def test_a_roll_back_stops_the_instance_before_the_source_runs(
    site: FakeSite, temporal: WorkflowEnvironment
) -> None:
    async with site.working():
        with temporal.with_time_skipping_disabled():
            move = await begin(site)
        seen = await stands(move, "kept")
        assert (seen.runs_on, seen.source_kept_until is not None) == (PLACE, True)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await move.execute_update(MoveToCloud.cancel, "")
        assert "roll_back" in str(refused.value.cause)
        await move.execute_update(MoveToCloud.roll_back, "it is slow there")
        result = await ended(move)
    assert result.rolled_back
    assert site.source.vms[VM].state == "running"
    assert site.cloud.instances[result.instance][1] == "stopped"
    assert site.cloud.two_copies == []
    assert (site.leases.records[UUID].host, site.leases.records[UUID].operation) == ("host-a", "")


async def test_the_source_is_removed_only_when_asked_for_and_the_instance_runs(site: FakeSite) -> None:
    async with site.working():
        result = await ended(await begin(site, then="remove", keep_source_for=10))
    assert result.source_removed
    assert VM not in site.source.vms


async def test_a_source_whose_instance_is_gone_is_not_removed(site: FakeSite, temporal: WorkflowEnvironment) -> None:
    async with site.working():
        with temporal.with_time_skipping_disabled():
            move = await begin(site, then="remove")
        await stands(move, "kept")
        site.cloud.well = False
        await move.execute_update(MoveToCloud.let_go)
        result = await ended(move)
    assert not result.source_removed
    assert any("not removed" in note for note in result.notes)
    assert site.source.vms[VM].state == "shutoff"


async def test_somebody_who_starts_the_source_meanwhile_ends_the_cut_over_not_the_vm(site: FakeSite) -> None:
    def meddle() -> None:
        site.source.vms[VM] = site.source.vms[VM].model_copy(update={"state": "running"})

    site.cloud_steps["check_instance"] = Step(change=meddle, times=1)
    async with site.working():
        move = await begin(site)
        seen = await stands(move, "waiting", "was undone")
        assert "somebody started" in seen.why
        assert site.cloud.running() == []
        await move.execute_update(MoveToCloud.cancel, "")
        await failed(move)
    assert site.source.vms[VM].state == "running"


async def test_a_vm_that_runs_in_a_cloud_is_not_moved_by_its_old_host(site: FakeSite) -> None:
    """Somebody started the kept source by hand: its record stops what would follow."""
    async with site.working():
        await ended(await begin(site, keep_source_for=0))
        site.source.vms[VM] = site.source.vms[VM].model_copy(update={"state": "running"})
        error = await site.failure()
    assert error.type == "Ambiguous"
    assert "names a cloud, cloud.aws.eu-west-1" in error.message


async def test_clouds_and_their_sizes_are_listed(site: FakeSite) -> None:
    async with site.working():
        for raw, expect in ((None, PLACE), ({"place": PLACE}, "t3.micro")):
            answer = await site.client.execute_workflow(
                ListClouds.run, raw, id=f"clouds/{site.name}/{expect}", task_queue=site.queue
            )
            told = answer.sizes.sizes[0].name if answer.sizes else answer.places[0].place
            assert told == expect


async def recovered(site: FakeSite, **more: Any) -> RecoverReport:
    wish = {"vm": VM, **more}
    async with asyncio.timeout(30):
        return await site.client.execute_workflow(RecoverVm.run, wish, id=site.id, task_queue=site.queue)


async def test_a_recovery_leaves_the_record_of_a_vm_in_a_cloud_until_people_say_that_it_left(site: FakeSite) -> None:
    async with site.working():
        await ended(await begin(site, keep_source_for=0))
        report = await recovered(site)
        assert (report.host, report.state) == ("cloud.aws.eu-west-1", "in a cloud")
        assert site.leases.records[UUID].host == "cloud.aws.eu-west-1"
        site.source.vms[VM] = site.source.vms[VM].model_copy(update={"state": "running"})
        with pytest.raises(WorkflowFailureError) as caught:
            await recovered(site)
        assert isinstance(caught.value.cause, ApplicationError)
        assert caught.value.cause.type == "TwoCopies"
        assert "--left-cloud" in caught.value.cause.message
        assert (await recovered(site, left_cloud=True)).host == "host-a"
    assert (site.leases.records[UUID].host, site.leases.records[UUID].operation) == ("host-a", "")
