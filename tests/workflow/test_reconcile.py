"""Reconcile compares hosts with records, wakes RecoverVm where they differ, and lets returned hosts work again."""

from __future__ import annotations

import asyncio

import pytest

from models.lease import Lease
from models.recovery import ReconcileReport
from tests.workflow.fake_site import UUID, VM, FakeSite, reached, vm
from workflows.recovery.reconcile import Reconcile

pytestmark = pytest.mark.temporal


async def reconcile(site: FakeSite, **more: object) -> ReconcileReport:
    async with asyncio.timeout(90):
        return await site.client.execute_workflow(
            Reconcile.run, more, id=f"reconcile/{site.name}", task_queue=site.queue
        )


def record(site: FakeSite, host: str) -> None:
    site.leases.records[UUID] = Lease(site=site.name, uuid=UUID, vm=VM, host=host, token=3)
    site.leases.last = 3


async def test_a_site_in_order_wakes_nobody(site: FakeSite) -> None:
    record(site, "host-a")
    async with site.working():
        report = await reconcile(site)
    assert (report.hosts, report.vms, report.leases, report.told) == (3, 1, 1, ())
    assert "host-a.fence_vm" not in site.journal


async def test_a_record_that_points_elsewhere_is_set_right(site: FakeSite) -> None:
    record(site, "host-c")
    async with site.working():
        report = await reconcile(site)
    assert [(each.vm, each.result) for each in report.told] == [(VM, "repaired")]
    assert site.leases.records[UUID].host == "host-a"


async def test_a_terminated_move_is_found_and_cleaned_up_once(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        await move.terminate("as an impatient person would")
        assert step.release
        step.error = asyncio.CancelledError()  # type: ignore[assignment]
        step.release.set()
        while not (report := await reconcile(site)).told:  # visibility is written a moment later
            await asyncio.sleep(0.2)
        assert [(each.vm, each.result) for each in report.told] == [(VM, "repaired")]
        assert site.left_open() == []
        assert site.leases.records[UUID].operation == ""
        while (report := await reconcile(site)).told:
            await asyncio.sleep(0.2)


async def test_two_copies_are_told_as_such(site: FakeSite) -> None:
    site.destination.vms[VM] = vm()
    async with site.working():
        report = await reconcile(site)
    assert [each.result for each in report.told] == ["two copies"]
    assert site.runs_on() == ["host-a", "host-b"]


async def test_a_vm_on_the_move_is_left_to_its_move(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    site.destination.vms[VM] = vm("paused", reason=2)
    site.destination.findings = ()
    async with site.working():
        move = await site.start({"vm": VM, "to": "host-b", "source": "host-a"})
        await reached(step)
        report = await reconcile(site)
        assert [each.result for each in report.told] == ["busy"]
        assert step.release
        step.release.set()
        await move.result()


async def test_with_a_silent_host_nothing_is_recovered_and_it_is_named(site: FakeSite) -> None:
    record(site, "host-b")
    site.seen_polling.discard("host-c")
    async with site.working():
        report = await reconcile(site)
    assert [each.result for each in report.told] == ["waits"]
    assert "host-c" in report.silent
    assert "host-a.fence_vm" not in site.journal


async def test_hosts_that_came_back_may_work_when_their_vms_belong_there(site: FakeSite) -> None:
    for host in site.hosts.values():
        host.reconciled = False
    async with site.working():
        report = await reconcile(site)
    assert report.welcomed == ("host-a", "host-b", "host-c")
    assert report.unwelcome == {}


async def test_a_host_that_came_back_with_a_second_copy_may_not(site: FakeSite) -> None:
    site.destination.reconciled = False
    site.destination.vms[VM] = vm()
    async with site.working():
        report = await reconcile(site)
    assert report.unwelcome == {"host-b": "counter lives on it and on host-a"}
    assert not site.destination.reconciled
