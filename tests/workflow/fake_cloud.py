"""A cloud and the disks that go there, without either: what a test scripts, and a look at what must never be.

A disk is a number that grows when the guest writes; the cloud's disk holds the number that it was sent. `two_copies`
collects every moment at which the VM ran at its source and in the cloud, tests with isolated copies apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from models.cloud_cache import (
    BasesKept,
    BasesWeighed,
    CachedBase,
    CacheReport,
    CacheRequest,
    KeepBases,
    WeighBases,
)
from models.cloud_move import (
    CheckInstance,
    CloudPlace,
    CloudPlaces,
    CloudSizes,
    DiskSent,
    EndInstance,
    InstanceChecked,
    InstanceEnded,
    MakeImage,
    PlaceQuery,
    PlaceReport,
    Removed,
    RemoveThings,
    RoundBegun,
    RoundOrder,
    RunInstance,
    SendDisk,
    SettleSource,
    SourceFacts,
    SourceSettled,
    SourceStopped,
    StartSource,
    StopSource,
)
from models.clouds import CloudImage, Instance, InstanceState, Price, Quota, Size
from models.disks import DiskImage
from models.host import VmSighting
from models.migration import VmRef

if TYPE_CHECKING:
    from tests.workflow.fake_site import FakeHost, FakeSite

PLACE = "aws:eu-west-1"
FAR = "azure:westeurope"
"""Another cloud of the site."""
MIB = 1 << 20
DISK = DiskImage(target="vda", path="/images/counter.qcow2", format="qcow2", capacity=64 * MIB, allocated=8 * MIB)
SMALL = Size(name="t3.micro", vcpus=2, memory_mib=1024, architecture="x86_64", firmware=("bios",), drivers=("nvme",))
PRICE = Price(
    cloud="aws", region="eu-west-1", item="t3.micro", per="hour", usd=0.01, as_of="2026-09-06", source="a list"
)


@dataclass
class CloudState:
    """Of one site's cloud."""

    warm: bool = True
    export: bool = True
    """Its disks can be read."""
    sizes: tuple[Size, ...] = (SMALL,)
    quotas: tuple[Quota, ...] = ()
    disks: dict[str, int] = field(default_factory=dict)
    """Snapshot -> what it holds."""
    images: dict[str, tuple[str, ...]] = field(default_factory=dict)
    instances: dict[str, tuple[str, InstanceState, int]] = field(default_factory=dict)
    """Id -> token, state, what its disk held at the start."""
    tests: set[str] = field(default_factory=set)
    well: bool = True
    """Instances run, and the check is good."""
    two_copies: list[str] = field(default_factory=list)
    cache: bool = False
    """The settings name a cache."""
    bases: list[str] = field(default_factory=list)
    """Disks that it keeps."""

    def running(self) -> list[str]:
        return [id for id, (_, state, _) in self.instances.items() if state == "running" and id not in self.tests]

    def things(self) -> list[str]:
        """All that would be billed."""
        living = [id for id, (_, state, _) in self.instances.items() if state != "terminated"]
        return [*self.disks, *self.images, *living]


class FakeCloudDisks:
    """CloudDiskActivities of one host."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.holds = 1
        """What the disk holds."""
        self.writes: list[int] = []
        """Bytes that differ at each round, the first copy not counted; then none."""
        self.shown: dict[int, int] = {}
        """Open rounds, and the moment each shows."""
        self.sends: list[SendDisk] = []
        self.follows = True
        """The guest shuts down when it is asked."""
        self.persistent = True
        self.obstacles: tuple[str, ...] = ()
        self.autostart = True
        self.settled: list[SettleSource] = []
        self.watched: list[float] = []
        """Seconds for which guests that were started again were watched."""

    @activity.defn(name="novacron.inspect_source")
    async def inspect_source(self, vm: VmRef) -> SourceFacts:
        await self._host._enter("inspect_source")
        found = self._host.vms[vm.vm]
        return SourceFacts(
            host=self._host.name,
            vm=VmRef(vm=found.name, uuid=found.uuid),
            persistent=self.persistent,
            running=found.state == "running",
            autostart=self.autostart,
            vcpus=found.vcpus,
            memory_mib=found.memory_mib,
            architecture="x86_64",
            disks=(DISK,),
            obstacles=self.obstacles,
            accounts=(PLACE,),
        )

    @activity.defn(name="novacron.begin_round")
    async def begin_round(self, order: RoundOrder) -> RoundBegun:
        await self._host._enter("begin_round")
        self._host.take_note(order.vm)
        self.holds += 1  # the guest has written
        self.shown = {order.number: self.holds}
        return RoundBegun(telling=("vda",) if order.base is not None else ())

    @activity.defn(name="novacron.send_disk")
    async def send_disk(self, order: SendDisk) -> DiskSent:
        await self._host._enter("send_disk")
        cloud, holds = self._host.site.cloud, self.holds
        if order.round is not None:
            if order.round.number not in self.shown:
                raise ApplicationError("the round is over", type="SourceChanged", non_retryable=True)
            holds = self.shown[order.round.number]
        elif self._host.vms[order.vm.vm].state != "shutoff":
            raise ApplicationError("it runs", type="Ambiguous", non_retryable=True)
        sent = 8 * MIB
        if order.base:
            assert order.base in cloud.disks, "a base that was removed"
            sent = self.writes.pop(0) if self.writes else 0
        saved = 0
        if order.cached and cloud.bases:
            sent, saved = 1 * MIB, 7 * MIB
        self.sends.append(order)
        disk = f"snap-{order.token[:8]}"
        cloud.disks[disk] = holds
        digest = f"{holds:064x}"
        return DiskSent(
            target="vda", disk=disk, size=64 * MIB, content=digest, source="" if order.round else digest, bytes=sent,
            seconds=1, origin=cloud.bases[0] if saved else "", saved=saved, cache="looked" if order.cached else "",
        )  # fmt: skip

    @activity.defn(name="novacron.end_round")
    async def end_round(self, order: RoundOrder) -> VmSighting:
        await self._host._enter("end_round")
        self.shown.pop(order.number, None)
        return self._seen(order.vm)

    @activity.defn(name="novacron.stop_source")
    async def stop_source(self, order: StopSource) -> SourceStopped:
        await self._host._enter("stop_source")
        self.autostart = False
        if not self.follows and not order.cut_power:
            return SourceStopped(stopped=False, why=f"{order.vm.vm} did not shut down; it runs on")
        self.holds += 1  # it writes while it goes down
        self._state(order.vm, "shutoff")
        return SourceStopped(stopped=True, seconds=2)

    @activity.defn(name="novacron.start_source")
    async def start_source(self, order: StartSource) -> VmSighting:
        await self._host._enter("start_source")
        self.autostart = order.autostart
        self.watched.append(order.watch)
        if order.run:
            self._state(order.vm, "running")
        self._look()
        return self._seen(order.vm)

    @activity.defn(name="novacron.settle_source")
    async def settle_source(self, order: SettleSource) -> SourceSettled:
        await self._host._enter("settle_source")
        self.settled.append(order)
        if order.remove:
            assert self._host.vms.pop(order.vm.vm).state == "shutoff"
        return SourceSettled(removed=tuple(disk.path for disk in order.disks) if order.remove else ())

    def _state(self, vm: VmRef, state: str) -> None:
        self._host.vms[vm.vm] = self._host.vms[vm.vm].model_copy(update={"state": state})

    def _seen(self, vm: VmRef) -> VmSighting:
        found = self._host.vms.get(vm.vm)
        return VmSighting(host=self._host.name, present=found is not None, vm=found)

    def _look(self) -> None:
        watch(self._host.site)


class FakeBases:
    """CloudBaseActivities of one host: the first disk that comes stays."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    @activity.defn(name="novacron.weigh_bases")
    async def weigh_bases(self, order: WeighBases) -> BasesWeighed:
        await self._host._enter("weigh_bases")
        cloud = self._host.site.cloud
        return BasesWeighed(saved=7 * MIB if cloud.bases else 0, reason=f"{len(cloud.bases)} bases")

    @activity.defn(name="novacron.keep_bases")
    async def keep_bases(self, order: KeepBases) -> BasesKept:
        await self._host._enter("keep_bases")
        cloud = self._host.site.cloud
        assert all(sent.source == sent.content for sent in order.sent), "not proved"
        assert all(sent.disk in cloud.disks for sent in order.sent), "removed before it could stay"
        if not cloud.bases:
            cloud.bases = [sent.disk for sent in order.sent]
        return BasesKept(disks=tuple(sent.disk for sent in order.sent if sent.disk in cloud.bases), reasons=("why",))


class FakeCache:
    """CloudCacheActivities of the site."""

    def __init__(self, site: FakeSite) -> None:
        self._cloud = site.cloud

    @activity.defn(name="novacron.look_at_cache")
    async def look_at_cache(self, wanted: CacheRequest) -> CacheReport:
        if wanted.place != PLACE:
            raise ApplicationError(f"no cloud account for {wanted.place}", type="Refused", non_retryable=True)
        made = datetime(2026, 11, 1, tzinfo=UTC)
        told = tuple(CachedBase(disk=disk, size=64 * MIB, held=8 * MIB, made=made) for disk in self._cloud.bases)
        if wanted.action == "prune":
            for each in told:
                del self._cloud.disks[each.disk]
            self._cloud.bases = []
        bounds = {"place": wanted.place, "scope": "shared", "most_gib": 200, "days": 30}
        return CacheReport(**bounds, **{"removed" if wanted.action == "prune" else "bases": told})


class AtPlaces:
    """Base of what works in all clouds of the site. Steps of FAR are scripted and noted as `far.<step>`."""

    def __init__(self, site: FakeSite) -> None:
        self._site = site

    async def _enter(self, step: str, place: str) -> CloudState:
        """The cloud of that place."""
        self._site.journal.append(f"far.{step}" if place == FAR else f"cloud.{step}")
        scripted = f"far.{step}" if place == FAR else step
        if scripted in self._site.cloud_steps:
            await self._site.cloud_steps[scripted].play()
        return self._of(place)

    def _of(self, place: str) -> CloudState:
        return {PLACE: self._site.cloud, FAR: self._site.far}[place]

    def _instance(self, place: str, id: str) -> Instance:
        _, state, _ = self._of(place).instances[id]
        cloud, _, region = place.partition(":")
        return Instance.model_validate({"cloud": cloud, "id": id, "state": state, "region": region, "size": SMALL.name})


class FakeCloud(AtPlaces):
    """CloudActivities of the site."""

    @activity.defn(name="novacron.list_clouds")
    async def list_clouds(self) -> CloudPlaces:
        return CloudPlaces(places=(CloudPlace(place=PLACE, offers={"Instances": "works"}),))

    @activity.defn(name="novacron.list_cloud_sizes")
    async def list_cloud_sizes(self, place: str) -> CloudSizes:
        if place != PLACE:
            raise ApplicationError(f"no cloud account for {place}", type="Refused", non_retryable=True)
        return CloudSizes(sizes=self._site.cloud.sizes, prices=(PRICE,))

    @activity.defn(name="novacron.place_report")
    async def place_report(self, query: PlaceQuery) -> PlaceReport:
        cloud = await self._enter("place_report", query.place)
        found = next((size for size in cloud.sizes if size.name == query.size), None)
        return PlaceReport(
            size=found, like=() if found else ("t3.micro",), quotas=cloud.quotas, prices=(PRICE,),
            warm=cloud.warm, export=cloud.export, cache=cloud.cache,
        )  # fmt: skip

    @activity.defn(name="novacron.make_cloud_image")
    async def make_cloud_image(self, order: MakeImage) -> CloudImage:
        cloud = await self._enter("make_cloud_image", order.place)
        assert set(order.disks) <= set(cloud.disks)
        image = f"ami-{order.token[:8]}"
        cloud.images[image] = order.disks
        return CloudImage(id=image, name=order.name, state="ready", disks=order.disks)

    @activity.defn(name="novacron.run_instance")
    async def run_instance(self, order: RunInstance) -> Instance:
        cloud = await self._enter("run_instance", order.place)
        instance = f"i-{order.token[:8]}"
        holds = cloud.disks[cloud.images[order.image][0]]
        if order.name.endswith("-test"):
            cloud.tests.add(instance)
        cloud.instances[instance] = (order.token, "running", holds)
        watch(self._site)
        return self._instance(order.place, instance)

    @activity.defn(name="novacron.check_instance")
    async def check_instance(self, order: CheckInstance) -> InstanceChecked:
        cloud = await self._enter("check_instance", order.place)
        said = "it answers" if cloud.well else "it does not answer"
        return InstanceChecked(instance=self._instance(order.place, order.instance), good=cloud.well, said=said)

    @activity.defn(name="novacron.end_instance")
    async def end_instance(self, order: EndInstance) -> InstanceEnded:
        cloud = await self._enter("end_instance", order.place)
        found = cloud.instances.items()
        mine = [id for id, (token, _, _) in found if token == order.token or id == order.instance]
        for each in mine:
            token, _, holds = cloud.instances[each]
            cloud.instances[each] = (token, "terminated" if order.terminate else "stopped", holds)
        return InstanceEnded(instances=tuple(mine))

    @activity.defn(name="novacron.remove_cloud_things")
    async def remove_cloud_things(self, order: RemoveThings) -> Removed:
        cloud = await self._enter("remove_cloud_things", order.place)
        cloud.images.pop(order.image, None)
        for disk in order.disks:
            assert not any(disk in disks for disks in cloud.images.values()), "an image needs it"
            cloud.disks.pop(disk, None)
        return Removed(count=len(order.disks))


def watch(site: FakeSite) -> None:
    """Called whenever something has started to run."""
    hosts = [host.name for host in site.hosts.values() for vm in host.vms.values() if vm.state == "running"]
    running = [*hosts, *site.cloud.running(), *site.far.running()]
    if len(running) > 1:
        site.cloud.two_copies.append(f"after {site.journal[-1]}: {running}")
