"""recover, reconcile and owners through the Python client, against a real Temporal and a fake site."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.client import ScheduleActionStartWorkflow, ScheduleOverlapPolicy

from novacron import AlreadyMoving, NovaCron
from novacron.errors import HostUnavailable, LeasesUnavailable, NotFound, TwoCopies
from novacron.ownership import Ownership
from tests.workflow.fake_site import VM, FakeSite, reached, vm

pytestmark = pytest.mark.temporal


def keeper(site: FakeSite) -> Ownership:
    return Ownership(NovaCron(site.client, site.name))


async def test_a_recovery_makes_the_record_that_owners_lists(site: FakeSite) -> None:
    async with site.working():
        assert await keeper(site).owners() == []
        report = await keeper(site).recover(VM)
        (record,) = await keeper(site).owners()
    assert (record.vm, record.host, record.token, record.operation) == (VM, "host-a", report.token, "")


async def test_a_vm_on_the_move_is_not_recovered_beside_it(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        with pytest.raises(AlreadyMoving):
            await keeper(site).recover(VM)
        assert step.release
        step.release.set()
        await move.result()


async def test_refusals_arrive_as_errors_of_their_own(site: FakeSite) -> None:
    site.destination.vms[VM] = vm()
    async with site.working():
        with pytest.raises(TwoCopies, match="more than one live copy"):
            await keeper(site).recover(VM)
        with pytest.raises(NotFound):
            await keeper(site).recover("nobody")
        site.seen_polling.discard("host-c")
        with pytest.raises(HostUnavailable, match="silent: host-c"):
            await keeper(site).recover(VM)
        site.leases.gone = True
        with pytest.raises(LeasesUnavailable, match="they are away"):
            await keeper(site).owners()


async def test_the_schedule_skips_overlaps_and_is_changed_and_deleted_by_the_same_name(site: FakeSite) -> None:
    name = await keeper(site).reconcile_every(timedelta(minutes=10))
    assert await keeper(site).reconcile_every(timedelta(hours=3)) == name
    told = (await site.client.get_schedule_handle(name).describe()).schedule
    assert isinstance(told.action, ScheduleActionStartWorkflow)
    assert told.action.task_queue == site.queue
    assert told.spec.intervals[0].every == timedelta(hours=3)
    assert told.policy.overlap == ScheduleOverlapPolicy.SKIP
    assert told.policy.catchup_window == timedelta(minutes=1)
    await keeper(site).reconcile_no_more()
    with pytest.raises(NotFound):
        await keeper(site).reconcile_no_more()
