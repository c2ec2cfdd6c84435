"""Stopping a move: obeyed until the switch, refused after, and always an orderly end that says where the VM is."""

from __future__ import annotations

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, CancelledError

from models.migration import Progress
from tests.workflow.fake_site import VM, FakeSite, Step, failure, outcome, reached
from workflows.move.migrate_vm import MigrateVm

pytestmark = pytest.mark.temporal

STEPS = [("host-a", "inspect_vm"), ("host-b", "admit_vm"), ("host-b", "open_path"), ("host-a", "open_path")]


def release(step: Step) -> None:
    assert step.release is not None
    step.release.set()


def stayed(site: FakeSite) -> bool:
    return site.runs_on() == ["host-a"] and site.left_open() == []


@pytest.mark.parametrize(("host", "name"), STEPS)
async def test_a_cancel_before_the_move_is_obeyed_after_the_step_it_met(site: FakeSite, host: str, name: str) -> None:
    step = site.at(site.hosts[host], name, hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        answer = await move.execute_update(MigrateVm.cancel, "maintenance")
        release(step)
        error = await failure(move)
    assert "stays on its source" in answer
    assert (error.type, error.category) == ("Cancelled", ApplicationErrorCategory.BENIGN)
    assert "Cancelled: maintenance. counter was not touched" in error.message
    assert "host-a.move_vm" not in site.journal
    assert stayed(site)


async def test_a_cancel_in_the_move_aborts_it_and_waits_for_its_end(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        await move.execute_update(MigrateVm.cancel, "maintenance")
        error = await failure(move)
    assert error.type == "Cancelled"
    assert "host-a has it running; host-b does not have it" in error.message
    rest = site.journal[site.journal.index("host-a.move_vm") + 1 :]
    assert rest[:3] == ["host-a.move_vm aborted", "host-b.look_for_vm", "host-a.look_for_vm"]
    assert stayed(site)


@pytest.mark.parametrize(("host", "name"), [*STEPS, ("host-a", "move_vm")])
async def test_a_cancel_by_temporal_itself_ends_as_cancelled(site: FakeSite, host: str, name: str) -> None:
    step = site.at(site.hosts[host], name, hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        await move.cancel()
        if name.endswith("_path"):
            release(step)
        with pytest.raises(WorkflowFailureError) as caught:
            await outcome(move)
        release(step)
        assert isinstance(caught.value.cause, CancelledError)
        assert (await move.describe()).status == WorkflowExecutionStatus.CANCELED
        assert (await move.query(MigrateVm.progress)).phase == "cancelled"
    assert stayed(site)


async def test_a_cancel_that_comes_too_late_for_the_switch_finishes_the_move(site: FakeSite) -> None:
    site.source.cancel_too_late = True
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        await move.execute_update(MigrateVm.cancel, "maintenance")
        result = await outcome(move)
    assert result.notes == ("a cancel came after the point of no return: the move was finished",)
    assert (site.runs_on(), site.left_open()) == (["host-b"], [])


@pytest.mark.parametrize("name", ["look_for_vm", "close_path"])
async def test_past_the_point_of_no_return_the_update_is_refused_and_a_cancel_means_finish(
    site: FakeSite, name: str
) -> None:
    step = site.at(site.destination, name, hold=True)
    async with site.working():
        move = await site.start({"vm": VM, "to": "host-b", "source": "host-a"})
        await reached(step)
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await move.execute_update(MigrateVm.cancel, "maintenance")
        assert isinstance(caught.value.cause, ApplicationError)
        assert "past its point of no return" in caught.value.cause.message
        await move.cancel()
        assert (await move.query(MigrateVm.progress)).phase in ("confirming", "cleaning")
        release(step)
        result = await outcome(move)
        assert (await move.describe()).status == WorkflowExecutionStatus.COMPLETED
    assert "a cancel came after the point of no return: the move was finished" in result.notes
    assert site.left_open() == []


async def test_a_cancel_during_clean_up_after_a_failure_changes_nothing(site: FakeSite) -> None:
    site.at(site.source, "move_vm", error=ApplicationError("it broke", type="MigrationFailed", non_retryable=True))
    step = site.at(site.destination, "close_path", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        await move.cancel()
        await move.query(MigrateVm.progress)
        release(step)
        error = await failure(move)
    assert error.type == "MigrationFailed"
    assert stayed(site)


async def test_two_cancels_are_one(site: FakeSite) -> None:
    step = site.at(site.destination, "open_path", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        await move.execute_update(MigrateVm.cancel, "first")
        await move.execute_update(MigrateVm.cancel, "second")
        release(step)
        assert (await failure(move)).type == "Cancelled"
    assert stayed(site)


async def test_a_cancel_without_a_reason_is_accepted(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        await move.execute_update("cancel")
        assert "Cancelled: no reason given." in (await failure(move)).message


async def test_reports_after_the_end_of_the_move_change_nothing(site: FakeSite) -> None:
    step = site.at(site.destination, "close_path", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        await move.signal(MigrateVm.report, Progress(phase="moving", percent=99))
        assert (await move.query(MigrateVm.progress)).phase == "cleaning"
        release(step)
        await outcome(move)
