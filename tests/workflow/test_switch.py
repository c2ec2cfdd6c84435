"""A switch that nobody finished is finished where every host proves its part, and left alone where one cannot."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from models.lease import Lease
from models.recovery import RecoverReport
from tests.workflow.fake_site import UUID, VM, FakeSite, vm
from workflows.recovery.recover_vm import RecoverVm

pytestmark = pytest.mark.temporal

WHOLE = vm("paused", reason=1)
HANDED_OVER = vm("paused", reason=2)


def lost(site: FakeSite, left: bool = True, whole: bool = True, defined: tuple[bool, bool] = (False, False)) -> None:
    """The move step ends in doubt, in the middle of the switch."""

    def change() -> None:
        site.source.vms[VM] = HANDED_OVER.model_copy(update={"persistent": defined[0]})
        if left:
            del site.source.vms[VM]
        if whole:
            site.destination.vms[VM] = WHOLE.model_copy(update={"persistent": defined[1]})

    error = ApplicationError("nobody saw how it ended", type="Ambiguous", non_retryable=True)
    site.at(site.source, "move_vm", change=change, error=error)


async def recover(site: FakeSite, **more: object) -> RecoverReport:
    async with asyncio.timeout(60):
        run = await site.client.start_workflow(RecoverVm.run, {"vm": VM, **more}, id=site.id, task_queue=site.queue)
        return await run.result()


async def refusal(site: FakeSite) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as caught:
        await recover(site)
    assert isinstance(caught.value.cause, ApplicationError), repr(caught.value.cause)
    return caught.value.cause


async def test_a_vm_that_stands_whole_after_its_source_has_left_is_let_run(site: FakeSite) -> None:
    lost(site)
    site.source.proves, site.destination.proves = {"left"}, {"arrived"}
    async with site.working():
        outcome = await site.move()
    assert site.destination.vms[VM].state == "running"
    assert any("it was let run there" in note for note in outcome.notes)
    assert site.journal.index("host-a.prove_departure") < site.journal.index("host-b.let_vm_run")


@pytest.mark.parametrize("proof", [("host-a", "left"), ("host-b", "arrived")])
async def test_it_stays_paused_where_one_host_cannot_prove_its_part(site: FakeSite, proof: tuple[str, str]) -> None:
    lost(site)
    site.source.proves, site.destination.proves = {"left"}, {"arrived"}
    site.hosts[proof[0]].proves.clear()
    async with site.working():
        error = await site.failure()
    assert error.type == "Ambiguous"
    assert f"it was not let run: {proof[0]} cannot prove that counter {proof[1]}" in error.message
    assert "novacron recover" in error.message
    assert site.destination.vms[VM].state == "paused"


async def test_a_silent_source_lets_nothing_run(site: FakeSite) -> None:
    lost(site)
    site.source.proves, site.destination.proves = {"left"}, {"arrived"}
    site.at(site.source, "look_for_vm", error=ApplicationError("gone", type="HostUnavailable", non_retryable=True))
    async with site.working():
        error = await site.failure({"vm": VM, "to": "host-b", "source": "host-a"})
    assert error.type == "Ambiguous"
    assert "host-b.let_vm_run" not in site.journal
    assert site.destination.vms[VM].state == "paused"


async def test_what_the_source_handed_over_goes_before_the_vm_is_let_run(site: FakeSite) -> None:
    lost(site, left=False)
    site.source.proves, site.destination.proves = {"handed over"}, {"arrived"}
    async with site.working():
        await site.move()
    order = ["host-b.prove_arrival", "host-a.remove_handed_over", "host-a.prove_departure", "host-b.let_vm_run"]
    assert [entry for entry in site.journal if entry in order] == order
    assert site.runs_on() == ["host-b"]


@pytest.mark.parametrize("again", [True, False])
async def test_its_definition_goes_too_unless_it_would_be_the_only_one(site: FakeSite, again: bool) -> None:
    lost(site, left=False, defined=(True, again))
    site.source.proves, site.destination.proves = {"handed over"}, {"arrived"}
    async with site.working():
        await site.move()
    assert (VM in site.source.vms) is not again


async def test_a_source_that_may_be_alive_is_a_second_copy(site: FakeSite) -> None:
    lost(site, left=False)
    site.destination.proves = {"arrived"}
    async with site.working():
        error = await site.failure()
    assert error.type == "Ambiguous"
    assert "nothing was removed: host-a cannot prove" in error.message
    assert "novacron.vm.two-copies" in [event.type for event in site.told]
    assert site.runs_on() == ["host-a", "host-b"]
    assert "host-b.let_vm_run" not in site.journal


async def test_nothing_goes_at_the_source_before_the_destination_is_proved_whole(site: FakeSite) -> None:
    lost(site, left=False)
    site.source.proves = {"handed over"}
    async with site.working():
        assert (await site.failure()).type == "Ambiguous"
    assert "host-a.remove_handed_over" not in site.journal


async def test_what_was_handed_over_in_vain_runs_again(site: FakeSite) -> None:
    lost(site, left=False, whole=False)
    site.source.proves = {"handed over"}
    async with site.working():
        error = await site.failure()
    assert site.source.vms[VM].state == "running"
    assert "was let run again on host-a" in error.message


async def test_a_guest_that_people_paused_stays_so(site: FakeSite) -> None:
    lost(site, left=False, whole=False)
    async with site.working():
        error = await site.failure()
    assert site.source.vms[VM].state == "paused"
    assert "stays paused on host-a" in error.message


async def test_recovery_ends_a_switch_that_nobody_watched(site: FakeSite) -> None:
    site.source.vms[VM], site.destination.vms[VM] = HANDED_OVER, WHOLE
    site.source.proves, site.destination.proves = {"handed over"}, {"arrived"}
    async with site.working():
        foreseen = await recover(site, dry_run=True)
        assert site.runs_on() == ["host-a", "host-b"]
        report = await recover(site)
    assert "remove the copy on host-a or host-b" in foreseen.done[0]
    assert (report.host, report.state, site.runs_on()) == ("host-b", "running", ["host-b"])
    assert site.destination.vms[VM].state == "running"


async def test_recovery_removes_what_was_handed_over_beside_the_vm_that_runs(site: FakeSite) -> None:
    site.source.vms[VM], site.destination.vms[VM] = HANDED_OVER, vm()
    site.source.proves = {"handed over"}
    refused = ApplicationError("QEMU says it is postmigrate", type="Refused", non_retryable=True)
    site.at(site.source, "discard_incoming", error=refused)
    async with site.working():
        report = await recover(site)
    assert (report.host, site.runs_on()) == ("host-b", ["host-b"])
    assert "host-a had handed over" in report.done[0]


@pytest.mark.parametrize("proves", [(set(), {"arrived"}), ({"handed over"}, set()), ({"arrived"}, {"arrived"})])
async def test_recovery_leaves_two_paused_copies_alone_that_prove_too_little(
    site: FakeSite, proves: tuple[set[str], set[str]]
) -> None:
    site.source.vms[VM], site.destination.vms[VM] = HANDED_OVER, WHOLE
    site.source.proves, site.destination.proves = proves
    async with site.working():
        error = await refusal(site)
    assert error.type == "TwoCopies"
    assert site.runs_on() == ["host-a", "host-b"]
    assert "host-b.let_vm_run" not in site.journal


async def test_recovery_lets_run_what_stands_whole_if_its_owner_proves_that_it_left(site: FakeSite) -> None:
    del site.source.vms[VM]
    site.destination.vms[VM] = WHOLE
    site.leases.records[UUID] = Lease(site=site.name, uuid=UUID, vm=VM, host="host-a", token=1)
    site.destination.proves = {"arrived"}
    async with site.working():
        report = await recover(site)
        assert site.destination.vms[VM].state == "paused"
        assert any("stays paused on host-b: host-a cannot prove" in note for note in report.notes)
        site.leases.records[UUID] = Lease(site=site.name, uuid=UUID, vm=VM, host="host-a", token=report.token)
        site.source.proves = {"left"}
        report = await recover(site)
    assert site.destination.vms[VM].state == "running"
    assert any("let it run on host-b" in done for done in report.done)


async def test_recovery_takes_back_what_was_handed_over_in_vain(site: FakeSite) -> None:
    site.source.vms[VM] = HANDED_OVER
    async with site.working():
        assert (await refusal(site)).type == "Ambiguous"
        site.source.proves = {"handed over"}
        report = await recover(site)
    assert (report.host, report.state, site.source.vms[VM].state) == ("host-a", "running", "running")
