"""MigrateVm when things go well: what it does, in which order, and what it shows while it runs."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError

from models.host import Finding
from models.migration import Progress
from tests.workflow.fake_site import VM, FakeSite, outcome, reached, vm
from workflows import search_attributes as sa
from workflows.move.migrate_vm import MigrateVm
from workflows.site.inventory import Inventory

pytestmark = pytest.mark.temporal


async def test_a_vm_moves_and_every_path_is_closed(site: FakeSite) -> None:
    async with site.working():
        result = await site.move()
    assert (result.source, result.destination, result.vm) == ("host-a", "host-b", VM)
    assert site.runs_on() == ["host-b"]
    assert site.left_open() == []
    assert (result.digest, result.digest_verified, result.notes) == ("d1", True, ())
    assert (result.raw_bytes, result.wire_bytes, result.downtime_ms) == (1000, 320, 40)


async def test_the_steps_come_in_the_order_of_the_story(site: FakeSite) -> None:
    async with site.working():
        await site.move({"vm": VM, "to": "host-b", "source": "host-a"})
    assert site.journal[:7] == [
        "host-a.inspect_vm",
        "host-b.admit_vm",
        "host-b.open_path",
        "host-a.open_path",
        "host-a.move_vm",
        "host-b.look_for_vm",
        "host-a.look_for_vm",
    ]
    assert sorted(site.journal[7:]) == ["host-a.close_path", "host-b.close_path"]


@pytest.mark.parametrize("autostart", [True, False])
async def test_a_vm_that_started_with_its_host_starts_with_the_next_one(site: FakeSite, autostart: bool) -> None:
    site.source.vms[VM] = site.source.vms[VM].model_copy(update={"persistent": True, "autostart": autostart})
    async with site.working():
        result = await site.move()
    assert site.journal.count("host-b.start_with_host") == int(autostart)
    assert not result.notes


async def test_where_starting_with_its_host_cannot_be_set_the_move_succeeds_and_says_so(site: FakeSite) -> None:
    site.source.vms[VM] = site.source.vms[VM].model_copy(update={"persistent": True, "autostart": True})
    site.at(
        site.destination, "start_with_host", error=ApplicationError("read-only", type="Refused", non_retryable=True)
    )
    async with site.working():
        (note,) = (await site.move()).notes
    assert f"see to it there with `virsh autostart {VM}`" in note
    assert site.runs_on() == ["host-b"]


async def test_the_source_is_found_by_asking_every_host(site: FakeSite) -> None:
    site.switch(VM, "host-a", "host-c")
    async with site.working():
        result = await site.move()
    assert result.source == "host-c"
    assert site.runs_on() == ["host-b"]


async def test_a_second_start_is_told_the_running_run(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        first = await site.start()
        await reached(step)
        with pytest.raises(WorkflowAlreadyStartedError) as caught:
            await site.start()
        assert caught.value.run_id == first.result_run_id
        assert step.release is not None
        step.release.set()
        await outcome(first)


async def test_progress_is_shown_by_query_details_and_search_attributes(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        progress = await move.query(MigrateVm.progress)
        assert (progress.phase, progress.percent) == ("moving", 50)
        await move.signal(MigrateVm.report, Progress(phase="moving", percent=20, note="late"))
        assert (await move.query(MigrateVm.progress)).percent == 50, "percent never runs back"
        description = await move.describe()
        attributes = description.typed_search_attributes
        assert attributes[sa.VM_ID] == VM
        assert attributes[sa.SITE] == site.name
        assert attributes[sa.PHASE] == "moving"
        assert attributes[sa.PROGRESS] == 50
        assert attributes[sa.HOST_IDS] == ["host-a", "host-b"]
        assert attributes[sa.INITIATOR] == "temporal"
        assert step.release is not None
        step.release.set()
        await outcome(move)
        assert (await move.describe()).typed_search_attributes[sa.PHASE] == "done"
        assert (await move.query(MigrateVm.progress)).percent == 100


async def test_warnings_of_the_destination_are_notes_of_the_outcome(site: FakeSite) -> None:
    site.destination.findings = (
        Finding(id="qemu-newer", severity="warning", what="QEMU is newer there", remedy="No way back"),
    )
    async with site.working():
        assert (await site.move()).notes == ("QEMU is newer there. No way back",)


async def test_different_digests_are_told_and_never_hidden(site: FakeSite) -> None:
    site.destination.digest = "other"
    async with site.working():
        result = await site.move()
    assert not result.digest_verified
    assert "memory digest differs" in result.notes[0]


async def test_a_move_there_and_back_uses_the_same_lock(site: FakeSite) -> None:
    async with site.working():
        there = await site.move()
        back = await site.move({"vm": VM, "to": "host-a"})
    assert site.runs_on() == ["host-a"]
    assert there.migration_id != back.migration_id


async def test_the_inventory_names_silent_hosts(site: FakeSite) -> None:
    site.seen_polling.discard("host-c")
    async with site.working():
        await site.kill(site.destination)
        report = await site.client.execute_workflow(Inventory.run, id=f"inventory/{site.name}/1", task_queue=site.queue)
    assert [host.host for host in report.hosts] == ["host-a"]
    assert report.hosts[0].vms == (vm(),)
    assert "no worker polls" in report.silent["host-c"]
    assert "did not answer" in report.silent["host-b"]
