"""A move from a cloud, as calls: the host fetches its disks, the control worker works on the instance."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from models import failures, queues
from models.cloud_bring import (
    ArrivalFacts,
    ArrivalQuery,
    ArrivalSettled,
    CheckArrival,
    Checked,
    DefineArrival,
    EndArrival,
    HostProbe,
    InstanceFacts,
    InstanceOfVm,
    InstanceQuery,
    ReceiveDisk,
    SettleArrival,
    SnapshotVolume,
    StartArrival,
)
from models.cloud_move import DiskSent, EndInstance, InstanceEnded, Removed, RemoveThings
from models.clouds import Instance, Snapshot
from models.disks import DiskImage
from models.host import VmSighting
from models.migration import VmRef
from workflows import errors
from workflows.calls import deadlines
from workflows.calls.cloud import ASK, SETTLE, UNDO, bounded

with workflow.unsafe.imports_passed_through():
    from activities.cloud import CloudActivities
    from activities.cloud_arrivals import CloudArrivalActivities
    from activities.cloud_instances import CloudInstanceActivities

_call = workflow.execute_activity_method

SNAPSHOT = bounded(86400, heartbeat=20)
"""A cloud takes hours over the first one of a large disk."""
STOP = bounded(3600, heartbeat=20)


class ArrivalHost:
    """The host that the VM comes to."""

    def __init__(self, site: str, name: str) -> None:
        self.name = name
        self._queue = queues.host(site, name)

    async def inspect(self, query: ArrivalQuery) -> ArrivalFacts:
        what = f"could {query.vm.vm} come here?"
        return await _call(CloudArrivalActivities.inspect_arrival, query, **self._to(deadlines.QUESTION, what))

    async def receive(self, order: ReceiveDisk, deadline: ActivityConfig) -> DiskSent:
        what = f"fetch {'what changed of ' if order.base else ''}{order.target} from {order.place}"
        return await _call(CloudArrivalActivities.receive_disk, order, **self._to(deadline, what))

    async def define(self, order: DefineArrival) -> VmSighting:
        deadline = bounded(300, attempts=5)
        return await _call(
            CloudArrivalActivities.define_arrival, order, **self._to(deadline, f"define {order.vm.vm}, off")
        )

    async def start(self, order: StartArrival) -> Checked:
        deadline = bounded(order.watch + 300, attempts=5, heartbeat=15)
        return await _call(
            CloudArrivalActivities.start_arrival, order, **self._to(deadline, f"start {order.vm.vm}, and watch it")
        )

    async def end(self, order: EndArrival) -> VmSighting:
        what = f"{order.vm.vm} must not run here"
        return await _call(CloudArrivalActivities.end_arrival, order, **self._to(UNDO, what))

    async def settle(
        self, move: str, vm: VmRef, disks: Sequence[DiskImage], *, keep: bool, autostart: bool = False
    ) -> ArrivalSettled:
        order = SettleArrival(move=move, vm=vm, disks=tuple(disks), keep=keep, autostart=autostart)
        what = "the images are the VM's own" if keep else f"remove what came of {vm.vm}"
        return await _call(CloudArrivalActivities.settle_arrival, order, **self._to(SETTLE, what))

    def _to(self, deadline: ActivityConfig, what: str) -> ActivityConfig:
        return ActivityConfig(task_queue=self._queue, summary=f"{self.name}: {what}"[:200], **deadline)


class SourceCloud:
    """The cloud that the VM leaves, through the site's control worker."""

    def __init__(self, site: str, place: str) -> None:
        self._site = site
        self.place = place

    async def find(self, vm: str, instance: str, *, sizes: bool = False) -> InstanceFacts:
        query = InstanceQuery(place=self.place, vm=vm, instance=instance, sizes=sizes)
        return await _call(
            CloudInstanceActivities.find_instance, query, **self._to(ASK, f"which instance is {instance or vm}?")
        )

    async def look(self, instance: str) -> Instance:
        return await _call(
            CloudInstanceActivities.look_at_instance, self._of(instance), **self._to(ASK, f"how is {instance}?")
        )

    async def still_stopped(self, instance: str) -> None:
        """Asked of the cloud: somebody may have started the instance meanwhile. Raises MigrationFailed."""
        seen = await self.look(instance)
        if seen.state != "stopped":
            raise errors.final(
                failures.MIGRATION_FAILED,
                f"instance {instance} is {seen.state}, where this move had stopped it: somebody started it",
            )

    async def snapshot(self, volume: str, token: str, deadline: ActivityConfig) -> Snapshot:
        order = SnapshotVolume(place=self.place, volume=volume, token=token)
        what = f"hold {volume} as it is now"
        return await _call(CloudInstanceActivities.snapshot_volume, order, **self._to(deadline, what))

    async def stop(self, instance: str) -> Instance:
        return await _call(
            CloudInstanceActivities.stop_instance, self._of(instance), **self._to(STOP, f"stop {instance}")
        )

    async def start(self, instance: str) -> Instance:
        return await _call(
            CloudInstanceActivities.start_instance, self._of(instance), **self._to(UNDO, f"start {instance} again")
        )

    async def terminate(self, instance: str, token: str) -> InstanceEnded:
        """`token` is of this step: nothing else carries it."""
        order = EndInstance(place=self.place, token=token, instance=instance, terminate=True)
        return await _call(CloudActivities.end_instance, order, **self._to(UNDO, f"terminate {instance}"))

    async def check(self, verify: HostProbe) -> Checked:
        deadline = bounded(verify.within + 300, attempts=5, heartbeat=20)
        order = CheckArrival(verify=verify)
        return await _call(
            CloudInstanceActivities.check_arrival, order, **self._to(deadline, f"does {verify.address} answer?")
        )

    async def remove(self, image: str, disks: Sequence[str]) -> Removed:
        """Snapshots; `image` is what a move to a cloud has besides, and empty here."""
        order = RemoveThings(place=self.place, image=image, disks=tuple(disks))
        deadline = bounded(3600, heartbeat=20)
        what = f"remove {len(order.disks)} snapshots"
        return await _call(CloudActivities.remove_cloud_things, order, **self._to(deadline, what))

    def _of(self, instance: str) -> InstanceOfVm:
        return InstanceOfVm(place=self.place, instance=instance)

    def _to(self, deadline: ActivityConfig, what: str) -> ActivityConfig:
        return ActivityConfig(task_queue=queues.control(self._site), summary=f"{self.place}: {what}"[:200], **deadline)
