"""What is recorded of the workflows around a move: recoveries, plans, many moves, events. Each ends in one run."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError

from models import ids
from models.disks import DiskImage
from models.host import DiskReport
from models.lease import Lease
from models.migration import OpenPath, VmRef
from models.slots import HostSlots, SlotLimits
from tests.workflow.fake_bring import INSTANCE
from tests.workflow.fake_cloud import FAR, PLACE
from tests.workflow.fake_site import UUID, VM, FakeSite, Step, outcome, reached, vm
from workflows.cloud.list_clouds import ListClouds
from workflows.cloud.move_between_clouds import MoveBetweenClouds
from workflows.cloud.move_from_cloud import MoveFromCloud
from workflows.cloud.move_to_cloud import MoveToCloud
from workflows.events.deliver_events import DeliverEvents
from workflows.fleet.evacuate_host import EvacuateHost
from workflows.fleet.move_many import MoveMany
from workflows.fleet.planned import Planned
from workflows.fleet.rebalance import Rebalance
from workflows.move.migrate_vm import MigrateVm
from workflows.plan.label_vm import LabelVm
from workflows.plan.plan_move import PlanMove
from workflows.recovery.reconcile import Reconcile
from workflows.recovery.recover_vm import RecoverVm
from workflows.sharing.site_slots import SiteSlots
from workflows.site.inventory import Inventory
from workflows.site.owners import Owners

Run = WorkflowHandle[Any, Any]


async def inventory(site: FakeSite) -> Run:
    return await _start(site, Inventory, ids.inventory(site.name, "1"))


async def planned_move(site: FakeSite) -> Run:
    return await _start(site, PlanMove, ids.plan(site.name, "1"), {"vm": VM, "to": "host-b"})


async def labelled(site: FakeSite) -> Run:
    return await _start(site, LabelVm, ids.label(site.name, VM), {"vm": VM, "give": {"tier": "gold"}})


async def owners_listed(site: FakeSite) -> Run:
    _record(site, "host-a")
    return await _start(site, Owners, ids.owners(site.name, "1"))


async def recovered(site: FakeSite) -> Run:
    """Data paths and an image of a dead move are left, and the record names another host."""
    image = DiskImage(target="vda", path="/disk", format="raw")
    site.source.disks = (DiskReport(target="vda", path="/disk", image=image),)
    order = OpenPath(migration_id="dead", peer="host-x", vm=VmRef(vm=VM, uuid=UUID))
    site.source.paths["dead"] = site.destination.paths["dead"] = order
    site.source.marks["/disk"] = "dead"
    _record(site, "host-c")
    return await _start(site, RecoverVm, site.id, {"vm": VM})


async def recovery_refused(site: FakeSite) -> Run:
    site.destination.vms[VM] = vm()
    return await _start(site, RecoverVm, site.id, {"vm": VM})


async def reconciled(site: FakeSite) -> Run:
    _record(site, "host-c")
    site.destination.reconciled = False
    return await _start(site, Reconcile, ids.reconcile(site.name))


async def evacuated(site: FakeSite) -> Run:
    """Drained, then resumed with its VMs brought back."""
    _fill(site, 3)
    run = await _start(site, EvacuateHost, ids.evacuate_host(site.name, "host-a"), {"host": "host-a"})
    async with asyncio.timeout(60):
        while (await run.query(EvacuateHost.progress)).phase != "drained":
            await asyncio.sleep(0.1)
    await run.execute_update(EvacuateHost.resume, True)
    return run


async def moved_many(site: FakeSite) -> Run:
    """Over several pages; what is kept is the last run."""
    _fill(site, 5)
    wish = {"hosts": ["host-a"], "page": 2}
    return await _start(site, MoveMany, ids.move_many(site.name, "recorded"), wish)


async def rebalanced(site: FakeSite) -> Run:
    _fill(site, 8)
    for host in site.hosts.values():
        host.free_mib = 4096 - 256 * len(host.vms)
    return await _start(site, Rebalance, ids.rebalance(site.name), {"cool_down": 60})


async def by_the_clock(site: FakeSite) -> Run:
    job = {"job": "migrate", "input": {"vm": VM, "to": "host-b"}}
    return await _start(site, Planned, ids.planned(site.name, "nightly") + "-2030-01-31T04:00:00Z", job)


async def events_delivered(site: FakeSite) -> Run:
    site.received["ops"] = []
    move = await site.start()
    await outcome(move)
    assert move.first_execution_run_id
    return site.client.get_workflow_handle_for(DeliverEvents.run, ids.events(site.id, move.first_execution_run_id))


async def waited_for_a_slot(site: FakeSite) -> Run:
    """Another move goes into the same host first."""
    site.source.vms["other"] = vm(name="other")
    step = site.at(site.source, "move_vm", hold=True)
    other = await _start(site, MigrateVm, ids.migrate_vm(site.name, "other"), {"vm": "other", "to": "host-b"})
    await reached(step)
    move = await site.start()
    async with asyncio.timeout(60):
        while (await move.query(MigrateVm.progress)).phase != "waiting":
            await asyncio.sleep(0.1)
    assert step.release
    step.release.set()
    await outcome(other)
    return move


async def slots_kept(site: FakeSite) -> Run:
    """From the first move to some time after the last."""
    await outcome(await waited_for_a_slot(site))
    return site.client.get_workflow_handle_for(SiteSlots.run, ids.slots(site.name))


LIMITS = {each.__name__: SlotLimits(each_host=HostSlots(into=1)) for each in (waited_for_a_slot, slots_kept)}
"""Scenario -> what its site bounds."""


async def clouds_listed(site: FakeSite) -> Run:
    return await _start(site, ListClouds, ids.clouds(site.name, "1"), {"place": PLACE})


async def moved_to_a_cloud(site: FakeSite) -> Run:
    site.source.cloud.writes = [4 << 20, 1 << 20]
    return await _start(site, MoveToCloud, site.id, {**_TO_A_CLOUD, "then": "remove"})


async def cut_over_undone_and_tried_again(site: FakeSite) -> Run:
    site.cloud_steps["check_instance"] = Step(error=ApplicationError("no", type="Refused", non_retryable=True), times=1)
    move = await _start(site, MoveToCloud, site.id, _TO_A_CLOUD)
    async with asyncio.timeout(40):
        while "was undone" not in (await move.query(MoveToCloud.standing)).why:
            await asyncio.sleep(0.05)
    await move.execute_update(MoveToCloud.cut_over_now)
    return move


_TO_A_CLOUD = {"vm": VM, "to": PLACE, "size": "t3.micro"}


async def came_from_a_cloud(site: FakeSite) -> Run:
    _in_the_cloud(site)
    site.destination.arrivals.changes = [4 << 20, 1 << 20]
    return await _start(site, MoveFromCloud, site.id, {**_FROM_A_CLOUD, "then": "remove"})


async def landing_undone_and_tried_again(site: FakeSite) -> Run:
    _in_the_cloud(site)
    site.at(
        site.destination, "start_arrival", error=ApplicationError("no", type="Refused", non_retryable=True), times=1
    )
    move = await _start(site, MoveFromCloud, site.id, _FROM_A_CLOUD)
    async with asyncio.timeout(40):
        while "was undone" not in (await move.query(MoveFromCloud.standing)).why:
            await asyncio.sleep(0.05)
    await move.execute_update(MoveFromCloud.cut_over_now)
    return move


async def went_from_cloud_to_cloud(site: FakeSite) -> Run:
    """At the second attempt."""
    _in_the_cloud(site)
    site.transfers.changes = [4 << 20, 1 << 20]
    no = ApplicationError("no", type="Refused", non_retryable=True)
    site.cloud_steps["far.check_instance"] = Step(error=no, times=1)
    wish = {"vm": VM, "source": PLACE, "to": FAR, "size": "t3.micro", "rounds": 2, "then": "remove"}
    move = await _start(site, MoveBetweenClouds, site.id, wish)
    async with asyncio.timeout(40):
        while "was undone" not in (await move.query(MoveBetweenClouds.standing)).why:
            await asyncio.sleep(0.05)
    await move.execute_update(MoveBetweenClouds.cut_over_now)
    return move


def _in_the_cloud(site: FakeSite) -> None:
    """Its VM runs as an instance."""
    site.source.vms[VM] = vm("shutoff")
    site.cloud.instances[INSTANCE] = ("a-token-of-then", "running", 7)
    _record(site, "cloud.aws.eu-west-1")


_FROM_A_CLOUD = {"vm": VM, "source": PLACE, "to": "host-b"}

SCENARIOS = (
    inventory,
    planned_move,
    labelled,
    owners_listed,
    recovered,
    recovery_refused,
    reconciled,
    evacuated,
    moved_many,
    rebalanced,
    by_the_clock,
    events_delivered,
    waited_for_a_slot,
    slots_kept,
    clouds_listed,
    moved_to_a_cloud,
    cut_over_undone_and_tried_again,
    came_from_a_cloud,
    landing_undone_and_tried_again,
    went_from_cloud_to_cloud,
)


async def _start(site: FakeSite, workflow: Any, id: str, *wish: object) -> Run:
    return await site.client.start_workflow(workflow.run, *wish, id=id, task_queue=site.queue)


def _fill(site: FakeSite, count: int) -> None:
    """So many VMs on the first host instead of the one."""
    site.source.vms = {name: vm(name=name) for name in (f"vm-{number}" for number in range(count))}


def _record(site: FakeSite, host: str) -> None:
    site.leases.records[UUID] = Lease(site=site.name, uuid=UUID, vm=VM, host=host, token=3)
    site.leases.last = 3
