"""RecoverVm repairs what is certain, refuses and explains the rest, and never touches one of two copies."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError

from models.disks import DiskImage
from models.host import DiskReport
from models.lease import Lease
from models.migration import OpenPath, VmRef
from models.recovery import RecoverReport
from tests.workflow.fake_site import UUID, VM, FakeSite, reached, vm
from workflows.recovery.recover_vm import RecoverVm

pytestmark = pytest.mark.temporal

Recovery = WorkflowHandle[RecoverVm, RecoverReport]


async def start(site: FakeSite, **more: object) -> Recovery:
    return await site.client.start_workflow(RecoverVm.run, {"vm": VM, **more}, id=site.id, task_queue=site.queue)


async def recover(site: FakeSite, **more: object) -> RecoverReport:
    async with asyncio.timeout(60):
        return await (await start(site, **more)).result()


async def refusal(site: FakeSite) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as caught:
        await recover(site)
    assert isinstance(caught.value.cause, ApplicationError), repr(caught.value.cause)
    return caught.value.cause


def orphan(site: FakeSite, name: str = "dead") -> None:
    order = OpenPath(migration_id=name, peer="host-x", vm=VmRef(vm=VM, uuid=UUID))
    site.source.paths[name] = site.destination.paths[name] = order


def record(site: FakeSite) -> Lease:
    return site.leases.records[UUID]


async def test_a_vm_in_order_is_left_alone_and_gets_its_record(site: FakeSite) -> None:
    async with site.working():
        report = await recover(site)
        again = await recover(site)
    assert (report.host, report.state, report.done) == ("host-a", "running", ())
    assert (record(site).host, record(site).operation) == ("host-a", "")
    assert again.token > report.token
    assert {host.tokens[VM] for host in site.hosts.values()} == {again.token}


async def test_leftover_paths_images_and_record_of_a_dead_move_are_set_right(site: FakeSite) -> None:
    image = DiskImage(target="vda", path="/disk", format="raw")
    site.source.disks = (DiskReport(target="vda", path="/disk", image=image),)
    site.destination.vms[VM] = vm("paused", reason=2)
    site.destination.images, site.destination.marks = {"/disk"}, {"/disk": "dead"}
    orphan(site)
    dead = Lease(site=site.name, uuid=UUID, vm=VM, host="host-c", token=4, lock=site.id, operation="dead", expires=2e10)
    site.leases.records[UUID], site.leases.last = dead, 4
    async with site.working():
        report = await recover(site)
    assert (site.runs_on(), site.left_open(), site.destination.images) == (["host-a"], [], set())
    assert (record(site).host, record(site).token, record(site).operation) == ("host-a", 5, "")
    told = "; ".join(report.done)
    for part in ("paused copy that never ran on host-b", "data path dead on host-a", "removed images", "named host-c"):
        assert part in told


async def test_a_job_that_is_nobodys_is_ended_before_anything_else(site: FakeSite) -> None:
    site.source.vms[VM] = vm(job=True)
    site.destination.vms[VM] = vm("paused", reason=2, job=True)
    async with site.working():
        report = await recover(site)
    assert site.journal.index("host-a.abort_job") < site.journal.index("host-b.discard_incoming")
    assert site.runs_on() == ["host-a"]
    assert "ended libvirt's job on host-a" in report.done[0]


async def test_a_silent_host_stops_it_and_is_named(site: FakeSite) -> None:
    site.seen_polling.discard("host-c")
    async with site.working():
        error = await refusal(site)
    assert error.type == "HostUnavailable"
    assert "silent: host-c (no worker)" in error.message
    assert not site.leases.records


async def test_two_running_copies_raise_an_alarm_and_nothing_is_touched(site: FakeSite) -> None:
    site.destination.vms[VM] = vm()
    orphan(site)
    async with site.working():
        error = await refusal(site)
    assert error.type == "TwoCopies"
    assert [event.type for event in site.told] == ["novacron.vm.two-copies"]
    assert "host-a has it running; host-b has it running; 1 hosts do not have it" in error.message
    assert site.left_open() == ["host-a", "host-b"]
    assert site.runs_on() == ["host-a", "host-b"]
    assert record(site).operation == ""


async def test_a_copy_that_its_host_cannot_prove_never_ran_counts_as_a_second_one(site: FakeSite) -> None:
    site.destination.vms[VM] = vm("paused", reason=1)
    refused = ApplicationError("it has run", type="Refused", non_retryable=True)
    site.at(site.destination, "discard_incoming", error=refused)
    async with site.working():
        error = await refusal(site)
    assert error.type == "TwoCopies"
    assert "host-b holds a copy that may have run: it has run" in error.message


async def test_two_halves_are_brought_together(site: FakeSite) -> None:
    site.split(vm("paused", reason=13), vm(reason=11))
    async with site.working():
        report = await recover(site)
    assert (site.runs_on(), report.host, record(site).host) == (["host-b"], "host-b", "host-b")
    assert site.left_open() == []


async def test_one_half_is_told_and_kept(site: FakeSite) -> None:
    site.source.vms[VM] = vm("paused", reason=13)
    async with site.working():
        error = await refusal(site)
    assert error.type == "Ambiguous"
    assert "lost one half" in error.message
    assert site.runs_on() == ["host-a"]


async def test_a_dry_run_says_what_it_would_do_and_does_nothing(site: FakeSite) -> None:
    site.destination.vms[VM] = vm("paused", reason=2)
    async with site.working():
        report = await recover(site, dry_run=True)
    assert report.done == ("remove the paused copy on host-b, if it never ran",)
    assert site.runs_on() == ["host-a", "host-b"]
    assert not site.leases.records
    assert not [entry for entry in site.journal if not entry.endswith("look_for_vm")]


async def test_a_vm_nobody_has_is_not_found_unless_a_record_knows_it(site: FakeSite) -> None:
    site.source.vms.clear()
    orphan(site)
    async with site.working():
        assert (await refusal(site)).type == "NotFound"
        site.leases.records[UUID] = Lease(site=site.name, uuid=UUID, vm=VM, host="host-a", token=1)
        report = await recover(site)
    assert (report.state, report.host) == ("gone", None)
    assert site.left_open() == []


async def test_two_recoveries_at_once_are_one(site: FakeSite) -> None:
    step = site.at(site.source, "fence_vm", hold=True)
    async with site.working():
        first = await start(site)
        await reached(step)
        with pytest.raises(WorkflowAlreadyStartedError):
            await start(site)
        assert step.release
        step.release.set()
        async with asyncio.timeout(60):
            assert (await first.result()).state == "running"


async def test_wrong_input_fails_at_once_and_names_the_field(site: FakeSite) -> None:
    async with site.working():
        handle = await site.client.start_workflow("novacron.RecoverVm", {"v": VM}, id=site.id, task_queue=site.queue)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "InvalidInput"
    assert "vm: missing" in caught.value.cause.message
