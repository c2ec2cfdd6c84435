"""A worker dies in every step of a move to a cloud and from one, at every moment of it, with the real activities and
SDKs over HTTP: in the end there is one instance, nothing is left over, and bytes went twice for one part at most."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import WorkflowEnvironment

from activities.accounts import Accounts
from activities.cloud import CloudActivities
from activities.cloud_arrivals import CloudArrivalActivities
from activities.cloud_disks import CloudDiskActivities
from activities.cloud_guests import CloudGuestActivities
from activities.cloud_instances import CloudInstanceActivities
from activities.cloud_transfers import CloudTransferActivities
from clouds.disks.content import BLOCK
from clouds.disks.images import hash_image, open_image
from clouds.kvm import arrived
from models.cloud_bring import CloudBringOutcome
from models.cloud_move import CloudMoveOutcome
from models.host import SiteSettings, VmReport
from tests.clouds import conftest
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.fake_arrival import Arrival, qemu
from tests.clouds.fake_guest import WHAT, WHERE, FakeMachine
from tests.clouds.fake_source import OFF, UUID, Source
from tests.clouds.scene import Cloud
from tests.workflow import test_move_between_clouds as between
from tests.workflow import test_move_between_clouds_over_http as over_http
from tests.workflow import test_move_from_cloud as home
from tests.workflow import test_move_to_cloud as away
from tests.workflow.fake_site import VM, FakeSite
from tests.workflow.mortal import Death, Plan, always, at_each_moment, once
from workflows.cloud.move_from_cloud import MoveFromCloud
from workflows.cloud.move_to_cloud import MoveToCloud

pytestmark = pytest.mark.temporal

aws, aws_of_the_session = conftest.aws, conftest.aws_of_the_session
azure, azure_of_the_session = conftest.azure, conftest.azure_of_the_session
outward = over_http.outward

QUESTIONS = {"list_clouds", "list_cloud_sizes"}
"""Of no move."""
LEAVING = {
    "inspect_source", "place_report", "begin_round", "send_disk", "end_round", "stop_source", "make_cloud_image",
    "run_instance", "check_instance", "remove_cloud_things", "settle_source",
}  # fmt: skip
PREPARED = {"look_at_guest", "prepare_guest", "drop_layers"}
COMING = {
    "inspect_arrival", "find_instance", "snapshot_volume", "receive_disk", "stop_instance", "define_arrival",
    "look_at_instance", "start_arrival", "settle_arrival", "remove_cloud_things",
}  # fmt: skip
CHANGING = {"transfer_disk", "forget_transfer"}
BACK_HOME = {"end_instance", "start_source"}
BACK_TO_THE_CLOUD = {"end_arrival", "start_instance", "check_arrival"}
FEW = (0, 1, 2, 4, 5, 6, 8, 9)
MANY = tuple(range(40))
PART = 4
"""Blocks after which an image that is written is flushed; 64 outside of tests."""


def test_no_step_of_a_move_is_left_out_here() -> None:
    classes = (
        CloudActivities,
        CloudDiskActivities,
        CloudGuestActivities,
        CloudArrivalActivities,
        CloudInstanceActivities,
        CloudTransferActivities,
    )
    steps = {
        name for each in classes for name in dir(each) if hasattr(getattr(each, name), "__temporal_activity_definition")
    }
    assert steps == QUESTIONS | LEAVING | PREPARED | COMING | CHANGING | BACK_HOME | BACK_TO_THE_CLOUD


class Haste:
    """A clock that shows another second at each look: each attempt would watch and ask for seconds again."""

    def __init__(self) -> None:
        self._seconds = itertools.count()

    def monotonic(self) -> float:
        return float(next(self._seconds))

    def sleep(self, seconds: float) -> None:
        pass


@dataclass
class Scene:
    """A site with a cloud: host-a, whose VM has a real disk, and host-b, to which it may come."""

    site: FakeSite
    cloud: Cloud
    source: Source
    here: Arrival
    control: Accounts

    @property
    def place(self) -> str:
        return f"{self.cloud.settings.cloud}:{self.cloud.settings.region}"

    def dying(self, patch: pytest.MonkeyPatch, plan: Plan, for_good: str = "") -> Death:
        """From now on workers die."""
        death, site = Death(plan, for_good), self.site
        settings = SiteSettings(site=site.name, hosts=("host-a", "host-b"), clouds=(self.cloud.settings,))
        death.hold(patch)
        site.cloud_work = death.work(lambda: CloudActivities(settings, self.control))
        site.instance_work = death.work(lambda: CloudInstanceActivities(settings, self.control))
        site.source.cloud_work = death.work(self._source)
        site.source.guest_work = death.work(self._guests)
        site.destination.arrival_work = death.work(self._here)
        return death

    def _source(self) -> CloudDiskActivities:
        self.source.restart()
        return self.source.activities

    def _guests(self) -> CloudGuestActivities:
        self.source.restart()
        return self.source.guests

    def _here(self) -> CloudArrivalActivities:
        self.here.restart()
        return self.here.activities

    def living(self) -> list[str]:
        """Instances that run or may."""
        instances = self.cloud.adapter.instances
        assert instances is not None
        return [each.id for each in instances.list_instances().items if each.state in ("running", "pending")]

    def volume(self, instance: str) -> str:
        instances = self.cloud.adapter.instances
        assert instances is not None
        return instances.get_instance(instance).disks[0].disk

    def boots(self, instance: str) -> dict[int, bytes]:
        """What its disk held at its start."""
        volume, cloud = self.volume(instance), self.cloud
        held = cloud.server.strict.volumes[volume] if isinstance(cloud, AwsCloud) else cloud.content(volume)
        return {index: data for index, data in held.items() if data.strip(b"\0")}

    def becomes(self, host: str, number: int) -> None:
        """The site sees what libvirt has; and nothing ever runs beside a running instance."""
        state = "shutoff" if number == OFF else "running"
        known = self.site.hosts[host].vms.get(VM) or VmReport(
            name=VM, uuid=UUID, state="shutoff", memory_mib=256, vcpus=1
        )
        self.site.hosts[host].vms[VM] = known.model_copy(update={"state": state})

    async def leaves(self, **more: Any) -> away.Handle:
        return await away.begin(self.site, to=self.place, size=self.cloud.size, **more)

    async def comes(self, **more: Any) -> home.Handle:
        return await home.begin(self.site, source=self.place, folder=str(self.here.folder), **more)

    async def went(self, *blocks: int) -> str:
        """The instance to which it has moved. Nobody died."""
        self.source.write(*blocks)
        settings = SiteSettings(site=self.site.name, hosts=("host-a", "host-b"), clouds=(self.cloud.settings,))
        self.site.cloud_work = CloudActivities(settings, self.control)
        self.site.source.cloud_work = self.source.activities
        async with self.site.working():
            return (await away.ended(await self.leaves(mode="cold", keep_source_for=0))).instance

    def is_gone(self, result: CloudMoveOutcome) -> None:
        """It runs in the cloud, once, with all that its guest wrote; nothing else is anywhere."""
        assert self.living() == self.cloud.things() == [result.instance]
        assert self.boots(result.instance) == self.source.content()
        assert result.disks[0].source == result.disks[0].content
        assert self.source.domain.number == OFF
        assert self.files() == [self.source.domain.image.name]

    def runs_at_home(self) -> None:
        assert self.source.domain.number != OFF
        assert self.source.domain.auto
        assert self.files() == [self.source.domain.image.name]

    def is_at_home(self) -> None:
        """As before the move."""
        self.runs_at_home()
        assert self.cloud.things() == []

    def has_come(self, result: CloudBringOutcome, instance: str) -> None:
        """It runs on host-b, once, with what its guest wrote in the cloud; no snapshot and no file is left."""
        (path,) = result.images
        with open_image(path, "qcow2") as image:
            came = {index: image.read(index * BLOCK, BLOCK) for index in range(self.source.blocks)}
        assert {index: data for index, data in came.items() if data.strip(b"\0")} == self.boots(instance)
        assert result.disks[0].content == result.disks[0].source == hash_image(path, "qcow2")
        assert self.living() == []
        assert self.cloud.things() == [instance], "stopped, and kept"
        assert self.here.libvirt.domain is not None
        assert self.here.libvirt.domain.number != OFF
        assert self.here.left() == [Path(path).name]

    def files(self) -> list[str]:
        folder = self.source.folder
        return [path.name for path in folder.iterdir() if path.is_file()] + [
            str(path) for path in folder.glob("state/clouds/*")
        ]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A round's socket lies in it, and a socket's path has 107 bytes: pytest's own folders are too deep."""
    with tempfile.TemporaryDirectory(prefix="kills-") as made:
        yield Path(made)


@pytest.fixture
def scene(site: FakeSite, request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    cloud: Cloud = request.getfixturevalue(request.param)
    monkeypatch.setattr(arrived, "ask_qemu", qemu)
    monkeypatch.setattr("clouds.transfer.FLUSH_EVERY", PART)
    for module in ("cloud", "cloud_arrivals", "cloud_instances"):
        monkeypatch.setattr(f"activities.{module}.time", Haste())
    control = Accounts((cloud.settings,), "the test", lambda _: cloud.adapter)
    source = Source(folder, cloud.settings, blocks=48, adapter=cloud.adapter)
    here = Arrival(folder / "images", cloud.settings, adapter=cloud.adapter)
    found = Scene(site, cloud, source, here, control)
    source.domain.on_change = lambda number: found.becomes("host-a", number)
    here.libvirt.on_change = lambda number: found.becomes("host-b", number)
    return found


def over(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scene", names, indirect=True)


@over("aws", "azure")
async def test_a_move_to_a_cloud_whose_workers_die_at_each_moment(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = scene.source
    source.write(*FEW)
    source.domain.shut_down_writes = lambda: source.write(7, what=b"last words")
    death = scene.dying(monkeypatch, at_each_moment)
    async with scene.site.working():
        result = await away.ended(await scene.leaves(rounds=1, keep_source_for=0))
    assert set(death.died) == LEAVING
    scene.is_gone(result)


@over("aws", "azure")
async def test_a_worker_that_dies_late_sends_one_part_twice(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cloud = scene.source, scene.cloud
    source.write(*MANY)
    source.domain.shut_down_writes = lambda: source.write(7, what=b"last words")
    death = scene.dying(monkeypatch, once(30))
    async with scene.site.working():
        result = await away.ended(await scene.leaves(rounds=1, keep_source_for=0))
    scene.is_gone(result)
    assert result.sent_bytes == (len(MANY) + 1) * BLOCK
    twice = cloud.sent() - result.sent_bytes
    assert twice <= death.died["send_disk"] * cloud.settings.calls.parallel * BLOCK


@over("aws", "azure")
async def test_a_cut_over_that_fails_is_undone_by_workers_that_die(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.source.write(*FEW)
    monkeypatch.setattr("activities.cloud.ask", lambda probe, address: "connection refused")
    death = scene.dying(monkeypatch, at_each_moment)
    async with scene.site.working():
        move = await scene.leaves(mode="cold", verify={"kind": "tcp", "port": 22, "within": 1})
        await away.stands(move, "waiting", "connection refused")
        assert scene.living() == []
        await move.execute_update(MoveToCloud.cancel, "enough")
        assert (await away.failed(move)).type == "Cancelled"
    assert set(death.died) > BACK_HOME
    scene.is_at_home()


@over("aws", "azure")
@pytest.mark.parametrize("moment", [6, 9])
async def test_what_a_dead_host_had_begun_is_removed_when_people_give_up(
    scene: Scene, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.source.write(*FEW)
    death = scene.dying(monkeypatch, always(moment), "send_disk")
    async with scene.site.working():
        move = await scene.leaves()
        async with asyncio.timeout(20):
            while not death.died["send_disk"]:
                await asyncio.sleep(0.01)
        assert len(scene.cloud.things()) == 1, "half a disk"
        await move.execute_update(MoveToCloud.cancel, "it does not come back")
        assert (await away.failed(move)).type == "Cancelled"
    scene.is_at_home()


@over("aws", "azure")
async def test_an_image_that_nobody_heard_of_is_removed_when_people_give_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.source.write(*FEW)
    called, dead = scene.cloud.calls.create_image, True
    death = scene.dying(monkeypatch, lambda attempt: 10**6 if dead else None, "make_cloud_image")
    async with scene.site.working():
        move = await scene.leaves(mode="cold")
        async with asyncio.timeout(20):
            while not death.died["make_cloud_image"]:
                await asyncio.sleep(0.01)
        assert scene.cloud.faults.count(called) == 1
        await move.execute_update(MoveToCloud.cancel, "it does not come back")
        dead = False
        assert (await away.failed(move)).type == "Cancelled"
    scene.is_at_home()


@over("aws", "azure")
async def test_a_snapshot_that_nobody_heard_of_is_removed_when_people_give_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = await scene.went(*FEW)
    death = scene.dying(monkeypatch, always(3), "snapshot_volume")
    async with scene.site.working():
        move = await scene.comes()
        async with asyncio.timeout(20):
            while not death.died["snapshot_volume"]:
                await asyncio.sleep(0.01)
        assert len(scene.cloud.things()) == 2
        await move.execute_update(MoveFromCloud.cancel, "it does not come back")
        assert (await home.failed(move)).type == "Cancelled"
    assert scene.living() == scene.cloud.things() == [instance]
    assert scene.here.left() == []


@over("aws")
async def test_a_prepared_guest_goes_once_and_its_source_is_as_it_was(
    scene: Scene, temporal: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, source = FakeMachine(), scene.source
    monkeypatch.setattr("clouds.preparing.layer.prepare", machine)
    monkeypatch.setattr("activities.cloud_guests.prepare", machine)
    monkeypatch.setattr("activities.cloud_guests.check_tools", lambda: None)
    source.write(*FEW)
    before = source.content()
    death = scene.dying(monkeypatch, at_each_moment)
    async with scene.site.working():
        with temporal.with_time_skipping_disabled():
            move = await scene.leaves(mode="cold", prepare=True)
        await away.stands(move, "kept")
        (instance,) = scene.living()
        assert scene.boots(instance) == {**before, WHERE: WHAT}
        await move.execute_update(MoveToCloud.roll_back, "")
        result = await away.ended(move)
    assert set(death.died) > PREPARED
    assert result.prepared is not None
    assert scene.living() == []
    assert scene.cloud.things() == [instance]
    assert source.content() == before
    scene.runs_at_home()


@over("aws")
async def test_a_move_to_a_cloud_is_rolled_back_by_workers_that_die(
    scene: Scene, temporal: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.source.write(*FEW)
    death = scene.dying(monkeypatch, at_each_moment)
    async with scene.site.working():
        with temporal.with_time_skipping_disabled():
            move = await scene.leaves(mode="cold")
        await away.stands(move, "kept")
        await move.execute_update(MoveToCloud.roll_back, "")
        result = await away.ended(move)
    assert set(death.died) > BACK_HOME
    assert result.rolled_back
    assert scene.living() == []
    assert scene.cloud.things() == [result.instance], "stopped, and kept with its disks"
    scene.runs_at_home()


@over("aws", "azure")
async def test_a_move_from_a_cloud_whose_workers_die_at_each_moment(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = await scene.went(*FEW)
    scene.cloud.guest_writes(scene.volume(instance), 9, b"written in the cloud")
    death = scene.dying(monkeypatch, at_each_moment)
    async with scene.site.working():
        result = await home.ended(await scene.comes(rounds=1, keep_source_for=0))
    assert set(death.died) == COMING
    scene.has_come(result, instance)


@over("aws", "azure")
async def test_a_worker_that_dies_late_fetches_one_part_twice(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    instance, cloud = await scene.went(*MANY), scene.cloud
    before = cloud.faults.count(cloud.calls.read)
    death = scene.dying(monkeypatch, once(30))
    async with scene.site.working():
        result = await home.ended(await scene.comes(rounds=1, keep_source_for=0))
    scene.has_come(result, instance)
    assert result.received_bytes == len(MANY) * BLOCK
    twice = cloud.faults.count(cloud.calls.read) - before - len(MANY)
    assert twice <= death.died["receive_disk"] * (PART + cloud.settings.calls.parallel)


@over("aws")
async def test_a_landing_that_fails_is_undone_by_workers_that_die(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = await scene.went(*FEW)
    monkeypatch.setattr("activities.cloud_instances.ask", lambda probe, address: "connection refused")
    death = scene.dying(monkeypatch, at_each_moment)
    async with scene.site.working():
        move = await scene.comes(verify={"kind": "tcp", "address": "10.0.0.7", "within": 1})
        await home.stands(move, "waiting", "connection refused")
        assert scene.living() == [instance]
        assert scene.here.libvirt.domain is None or scene.here.libvirt.domain.number == OFF
        await move.execute_update(MoveFromCloud.cancel, "enough")
        assert (await home.failed(move)).type == "Cancelled"
    assert set(death.died) > BACK_TO_THE_CLOUD
    assert scene.living() == scene.cloud.things() == [instance]
    assert scene.here.libvirt.domain is None
    assert scene.here.left() == []


async def test_a_move_between_clouds_whose_workers_die_at_each_moment(
    site: FakeSite, outward: over_http.Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    death = Death(at_each_moment)
    death.hold(monkeypatch)
    for name in ("cloud_work", "instance_work", "transfer_work"):
        real = getattr(site, name)
        setattr(site, name, death.work(lambda real=real: real))  # type: ignore[misc]
    async with site.working():
        result = await between.ended(await between.begin(site, **{**outward.wish, "keep_source_for": 0}))
    assert set(death.died) > CHANGING
    source, target = outward.source, outward.target
    assert (outward.running(source), outward.running(target)) == ([], [result.instance])
    assert outward.held(target, result.instance) == outward.held(source, outward.instance)
    assert (outward.extra(source), outward.extra(target)) == ([], [])
    assert outward.two_copies == []
