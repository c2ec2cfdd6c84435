"""A VM in two halves is gone on with until it is whole, over a new data path where the old is lost; never destroyed."""

from __future__ import annotations

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from models.host import VmReport
from tests.workflow.fake_site import VM, FakeSite, failure, outcome, reached, vm
from workflows.calls import deadlines
from workflows.move.migrate_vm import MigrateVm

pytestmark = pytest.mark.temporal

POST_COPY = {"vm": VM, "to": "host-b", "policy": {"mode": "post-copy"}}
GOES_ON = (vm("paused", job=True, reason=12), vm("running", reason=10))
BROKE_OFF = (vm("paused", job=True, reason=13), vm("running", reason=11))
HALF_KNOWN = (vm("paused", job=True, reason=12), vm("running", reason=11))


def broken() -> ApplicationError:
    return ApplicationError("post-copy broke off", type="Ambiguous", non_retryable=True)


def breaks(site: FakeSite, halves: tuple[VmReport, VmReport] = BROKE_OFF, times: int = 1) -> None:
    """The first `times` move steps end in the middle of post-copy."""
    site.at(site.source, "move_vm", change=lambda: site.split(*halves), error=broken(), times=times)


async def test_a_broken_post_copy_is_gone_on_with_over_a_new_data_path(site: FakeSite) -> None:
    breaks(site)
    async with site.working():
        result = await site.move(POST_COPY)
    assert site.runs_on() == ["host-b"]
    assert (result.destination, result.recoveries) == ("host-b", 1)
    (resumed,) = site.source.moves
    assert resumed.resume
    assert resumed.migration_id != result.migration_id
    rest = site.after("host-a.move_vm")
    assert sorted(rest[:2]) == ["host-a.close_path", "host-b.close_path"]
    assert rest[2:5] == ["host-b.open_path", "host-a.open_path", "host-a.move_vm"]
    assert site.left_open() == []
    assert not result.digest_verified
    assert any("2 data paths" in note for note in result.notes)
    assert (result.raw_bytes, result.wire_bytes) == (2000, 640), "both paths count"


async def test_a_post_copy_that_still_runs_is_attached_to_over_its_path(site: FakeSite) -> None:
    breaks(site, GOES_ON)
    async with site.working():
        result = await site.move(POST_COPY)
    (resumed,) = site.source.moves
    assert (resumed.resume, resumed.migration_id) == (True, result.migration_id)
    assert result.recoveries == 0
    assert result.digest_verified


async def test_the_old_path_is_closed_so_that_both_hosts_learn_that_it_broke(site: FakeSite) -> None:
    breaks(site, HALF_KNOWN)
    site.at(site.source, "close_path", change=lambda: site.split(*BROKE_OFF), times=1)
    async with site.working():
        result = await site.move(POST_COPY)
    assert result.recoveries == 1
    assert site.runs_on() == ["host-b"]


async def test_going_on_is_tried_again_while_the_network_is_away(site: FakeSite) -> None:
    breaks(site)
    site.at(
        site.destination, "open_path", error=ApplicationError("no way", type="DataPathFailed", non_retryable=True)
    ).times = 0
    network = site.destination.steps["open_path"]

    def fail_twice() -> None:
        network.times = 2

    site.at(site.source, "close_path", change=fail_twice, times=1)
    async with site.working():
        result = await site.move(POST_COPY)
    assert result.recoveries == 3
    assert site.runs_on() == ["host-b"]
    assert site.left_open() == []


async def test_a_post_copy_that_cannot_be_gone_on_with_is_told_and_both_halves_are_kept(site: FakeSite) -> None:
    breaks(site, times=1_000)
    async with site.working():
        error = await site.failure(POST_COPY)
    assert error.type == "Ambiguous"
    assert "a part of its memory is still on the source" in error.message
    assert "Destroy neither half" in error.message
    assert site.journal.count("host-a.move_vm") == 1 + len(deadlines.RESUME_AFTER)
    assert site.runs_on() == ["host-a", "host-b"]
    assert "discard_incoming" not in str(site.journal)


@pytest.mark.parametrize("job", [True, False])
@pytest.mark.parametrize("gone", ["host-a", "host-b"])
async def test_a_vm_that_lost_a_half_is_told_and_the_other_is_kept(site: FakeSite, gone: str, job: bool) -> None:
    def tear() -> None:
        site.split(*(half.model_copy(update={"job": job}) for half in BROKE_OFF))
        site.hosts[gone].vms.clear()

    site.at(site.source, "move_vm", change=tear, error=broken())
    async with site.working():
        error = await site.failure(POST_COPY)
    assert error.type == "Ambiguous"
    assert "post-copy lost one half" in error.message
    assert "discard_incoming" not in str(site.journal)
    assert len(site.runs_on()) == 1
    assert site.left_open() == []


@pytest.mark.parametrize("halves", [BROKE_OFF, GOES_ON])
@pytest.mark.parametrize("named", [True, False])
async def test_a_new_run_brings_together_what_an_ended_one_left_in_halves(
    site: FakeSite, halves: tuple[VmReport, VmReport], named: bool
) -> None:
    site.split(*halves)
    async with site.working():
        result = await site.move({"vm": VM, "to": "host-b"} | ({"source": "host-a"} if named else {}))
    assert site.runs_on() == ["host-b"]
    assert site.source.moves[0].resume
    assert result.recoveries == (1 if halves is BROKE_OFF else 0)
    assert "admit_vm" not in str(site.journal)
    assert site.left_open() == []


async def test_halves_are_not_brought_together_at_a_third_host(site: FakeSite) -> None:
    site.split(*BROKE_OFF)
    async with site.working():
        error = await site.failure({"vm": VM, "to": "host-c"})
    assert error.type == "Ambiguous"
    assert "host-a and host-b both hold a live copy" in error.message
    assert "move_vm" not in str(site.journal)


async def test_a_half_is_not_moved_to_a_host_without_the_other(site: FakeSite) -> None:
    site.split(*BROKE_OFF)
    async with site.working():
        error = await site.failure({"vm": VM, "to": "host-c", "source": "host-a"})
    assert error.type == "Refused"
    assert "host-c does not have its other half" in error.message
    assert "move_vm" not in str(site.journal)


async def test_in_post_copy_a_cancel_is_refused_and_temporals_own_means_finish(site: FakeSite) -> None:
    site.source.phase = "post-copy"
    site.source.cancel_too_late = True
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start(POST_COPY)
        await reached(step)
        assert (await move.query(MigrateVm.progress)).phase == "post-copy"
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await move.execute_update(MigrateVm.cancel, "no")
        assert "runs on host-b already" in str(refused.value.cause)
        await move.cancel()
        result = await outcome(move)
    assert result.notes == ("a cancel came after the point of no return: the move was finished",)
    assert site.runs_on() == ["host-b"]


async def test_a_cancel_while_going_on_changes_nothing(site: FakeSite) -> None:
    breaks(site)
    step = site.at(site.destination, "close_path", hold=True, times=1)
    async with site.working():
        move = await site.start(POST_COPY)
        await reached(step)
        await move.cancel()
        assert (await move.query(MigrateVm.progress)).phase == "post-copy"
        assert step.release is not None
        step.release.set()
        result = await outcome(move)
    assert "a cancel came after the point of no return: the move was finished" in result.notes
    assert site.runs_on() == ["host-b"]


async def test_a_running_hybrid_move_can_be_told_to_switch(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start({"vm": VM, "to": "host-b", "policy": {"mode": "hybrid"}})
        await reached(step)
        assert "counter runs on host-b" in str(await move.execute_update("post_copy_now"))
        assert (await move.query(MigrateVm.progress)).phase == "post-copy"
        with pytest.raises(WorkflowUpdateFailedError):
            await move.execute_update("post_copy_now")
        assert step.release is not None
        step.release.set()
        await outcome(move)
    assert site.journal.count("host-a.start_post_copy") == 1


async def test_a_pre_copy_move_cannot_be_told_to_switch(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await move.execute_update("post_copy_now")
        assert "mode hybrid or post-copy" in str(refused.value.cause)
        assert step.release is not None
        step.release.set()
        await outcome(move)


async def test_a_switch_that_libvirt_refuses_is_told_and_the_move_goes_on(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    site.at(site.source, "start_post_copy", error=ApplicationError("not yet", type="Refused", non_retryable=True))
    async with site.working():
        move = await site.start({"vm": VM, "to": "host-b", "policy": {"mode": "hybrid"}})
        await reached(step)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await move.execute_update("post_copy_now")
        assert "not yet" in str(refused.value.cause)
        assert step.release is not None
        step.release.set()
        assert (await outcome(move)).destination == "host-b"


async def test_a_post_copy_that_ends_as_a_plain_failure_is_one(site: FakeSite) -> None:
    site.at(site.source, "move_vm", error=broken())
    async with site.working():
        assert (await failure(await site.start(POST_COPY))).type == "MigrationFailed"
    assert site.runs_on() == ["host-a"]
