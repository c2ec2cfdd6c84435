"""An instance and the host that it comes to, without either: what a test scripts.

The instance's disk is a number in the cloud's state that grows when its guest writes; an image holds the number that
came. `two_copies` of the cloud's state collects every moment at which both ran.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from models.cloud_bring import (
    ArrivalFacts,
    ArrivalQuery,
    ArrivalSettled,
    CheckArrival,
    Checked,
    DefineArrival,
    EndArrival,
    InstanceFacts,
    InstanceOfVm,
    InstanceQuery,
    ReceiveDisk,
    SettleArrival,
    SnapshotVolume,
    StartArrival,
)
from models.cloud_move import DiskSent
from models.clouds import Instance, Snapshot
from models.host import VmReport, VmSighting
from models.migration import VmRef
from tests.workflow.fake_cloud import MIB, PLACE, SMALL, AtPlaces, watch

if TYPE_CHECKING:
    from tests.workflow.fake_site import FakeHost

INSTANCE = "i-0123"
GONE = "terminated"


class FakeArrivals:
    """CloudArrivalActivities of one host."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.images: dict[str, int] = {}
        """Path -> what it holds."""
        self.held: dict[str, str] = {}
        """Path -> snapshot."""
        self.gave: dict[str, int] = {}
        """Path -> what it held before its VM ran."""
        self.defined: tuple[str, ...] | None = None
        """Images that the definition names; None: there is none."""
        self.receives: list[ReceiveDisk] = []
        self.changes: list[int] = []
        """Bytes that differ at each round, the first copy not counted; then none."""
        self.settled: list[SettleArrival] = []
        self.ends: list[EndArrival] = []
        self.stays_up = True
        self.free = 1 << 40
        self.accounts: tuple[str, ...] = (PLACE,)

    @activity.defn(name="novacron.inspect_arrival")
    async def inspect_arrival(self, query: ArrivalQuery) -> ArrivalFacts:
        await self._host._enter("inspect_arrival")
        found = self._host.vms.get(query.vm.vm)
        return ArrivalFacts(
            host=self._host.name,
            vm=query.vm.model_copy(update={"token": self._host.tokens.get(query.vm.vm, 0)}),
            defined=found is not None,
            alive=found is not None and found.state != "shutoff",
            disks=("vda",) if found is not None else (),
            memory_free_mib=self._host.free_mib,
            free=self.free,
            accounts=self.accounts,
        )

    @activity.defn(name="novacron.receive_disk")
    async def receive_disk(self, order: ReceiveDisk) -> DiskSent:
        await self._host._enter("receive_disk")
        self._host.take_note(order.vm)
        cloud = self._host.site.cloud
        assert order.disk in cloud.disks, "a snapshot that was removed"
        came = 8 * MIB
        if order.base:
            assert order.base in cloud.disks, "a base that was removed"
            if self.held.get(order.path) != order.base:
                raise ApplicationError("another snapshot", type="SourceChanged", non_retryable=True)
            came = self.changes.pop(0) if self.changes else 0
        assert not self.gave, "its guest has written to the image"
        self.receives.append(order)
        self.images[order.path], self.held[order.path] = cloud.disks[order.disk], order.disk
        digest = f"{cloud.disks[order.disk]:064x}"
        return DiskSent(
            target=order.target, disk=order.disk, size=64 * MIB, content=digest, source=digest if order.prove else "",
            bytes=came, seconds=1,
        )  # fmt: skip

    @activity.defn(name="novacron.define_arrival")
    async def define_arrival(self, order: DefineArrival) -> VmSighting:
        await self._host._enter("define_arrival")
        self._host.take_note(order.vm)
        self.defined = tuple(disk.path for disk in order.disks)
        assert order.vm.uuid
        self._host.vms[order.vm.vm] = VmReport(
            name=order.vm.vm, uuid=order.vm.uuid, state="shutoff", reason=0, memory_mib=256, vcpus=1
        )
        return self._seen(order.vm)

    @activity.defn(name="novacron.start_arrival")
    async def start_arrival(self, order: StartArrival) -> Checked:
        await self._host._enter("start_arrival")
        for disk in order.disks:
            self.gave.setdefault(disk.path, self.images[disk.path])
            self.images[disk.path] += 1000  # the guest writes
        self._state(order.vm, "running")
        watch(self._host.site)
        if not self.stays_up:
            self._state(order.vm, "shutoff")
        return Checked(good=self.stays_up, said="it runs" if self.stays_up else "it stopped")

    @activity.defn(name="novacron.end_arrival")
    async def end_arrival(self, order: EndArrival) -> VmSighting:
        await self._host._enter("end_arrival")
        self.ends.append(order)
        if order.vm.vm in self._host.vms:
            self._state(order.vm, "shutoff")
        if order.revert:
            self.images |= self.gave
            self.gave = {}
        return self._seen(order.vm)

    @activity.defn(name="novacron.settle_arrival")
    async def settle_arrival(self, order: SettleArrival) -> ArrivalSettled:
        await self._host._enter("settle_arrival")
        self.settled.append(order)
        if order.keep:
            self.gave = {}
            return ArrivalSettled()
        gone = tuple(disk.path for disk in order.disks if disk.path in self.images)
        for path in gone:
            del self.images[path]
        if self.defined is not None:
            assert self._host.vms.pop(order.vm.vm).state == "shutoff"
            self.defined = None
        return ArrivalSettled(removed=gone)

    def _state(self, vm: VmRef, state: str) -> None:
        self._host.vms[vm.vm] = self._host.vms[vm.vm].model_copy(update={"state": state})

    def _seen(self, vm: VmRef) -> VmSighting:
        found = self._host.vms.get(vm.vm)
        return VmSighting(host=self._host.name, present=found is not None, vm=found)


class FakeInstances(AtPlaces):
    """CloudInstanceActivities of the site."""

    @activity.defn(name="novacron.find_instance")
    async def find_instance(self, query: InstanceQuery) -> InstanceFacts:
        cloud = await self._enter("find_instance", query.place)
        living = [id for id, (_, state, _) in cloud.instances.items() if state != GONE]
        meant = [id for id in living if not query.instance or id == query.instance]
        found = self._instance(query.place, meant[0]) if len(meant) == 1 else None
        return InstanceFacts(
            instance=found,
            candidates=tuple(meant),
            volumes=("vol-1",) if found else (),
            sizes=(64 * MIB,) if found and query.sizes else (),
            size=SMALL,
            export=cloud.export,
            warm=cloud.warm,
            why_not="" if cloud.export else "not offered: no export call",
        )

    @activity.defn(name="novacron.look_at_instance")
    async def look_at_instance(self, order: InstanceOfVm) -> Instance:
        await self._enter("look_at_instance", order.place)
        return self._instance(order.place, order.instance)

    @activity.defn(name="novacron.snapshot_volume")
    async def snapshot_volume(self, order: SnapshotVolume) -> Snapshot:
        cloud = await self._enter("snapshot_volume", order.place)
        disk = f"snap-{order.token[:8]}"
        for id, (token, state, holds) in cloud.instances.items():
            if state != GONE and disk not in cloud.disks:
                wrote = holds + 1 if state == "running" else holds
                cloud.instances[id] = (token, state, wrote)
                cloud.disks[disk] = wrote
        return Snapshot(id=disk, state="ready", size=64 * MIB)

    @activity.defn(name="novacron.stop_instance")
    async def stop_instance(self, order: InstanceOfVm) -> Instance:
        cloud = await self._enter("stop_instance", order.place)
        token, state, holds = cloud.instances[order.instance]
        if state == "running":
            holds += 1  # it writes while it goes down
        cloud.instances[order.instance] = (token, "stopped", holds)
        return self._instance(order.place, order.instance)

    @activity.defn(name="novacron.start_instance")
    async def start_instance(self, order: InstanceOfVm) -> Instance:
        cloud = await self._enter("start_instance", order.place)
        token, _, holds = cloud.instances[order.instance]
        cloud.instances[order.instance] = (token, "running", holds)
        watch(self._site)
        return self._instance(order.place, order.instance)

    @activity.defn(name="novacron.check_arrival")
    async def check_arrival(self, order: CheckArrival) -> Checked:
        cloud = await self._enter("check_arrival", PLACE)
        return Checked(good=cloud.well, said="it answers" if cloud.well else "it does not answer")
