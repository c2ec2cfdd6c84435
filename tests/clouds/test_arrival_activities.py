"""The steps of a move from each cloud, with its SDK over HTTP and real images: done twice they are done once, killed
they go on, and the image holds what the cloud has. What no cloud makes a difference to is tested with one of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.cloud import CloudActivities
from activities.cloud_instances import CloudInstanceActivities
from clouds.disks import safepoint
from clouds.disks.content import BLOCK, ContentHash
from clouds.disks.images import hash_image, open_image
from clouds.disks.ledger import SUFFIX, Ledger
from clouds.kvm import arrived
from clouds.tokens import token
from models.cloud_bring import (
    ArrivalQuery,
    DefineArrival,
    EndArrival,
    Hardware,
    InstanceOfVm,
    InstanceQuery,
    ReceiveDisk,
    SettleArrival,
    SnapshotVolume,
    StartArrival,
)
from models.cloud_move import DiskSent, MakeImage, RunInstance
from models.clouds import DiskOrder, place_of
from models.disks import DiskImage
from models.host import SiteSettings
from models.migration import VmRef
from tests.clouds.fake_arrival import Arrival, definition, qemu
from tests.clouds.fake_source import OFF, RUNNING, UUID
from tests.clouds.scene import Cloud, MemoryDisk, ignore, looks, stop

pytestmark = pytest.mark.one_cloud
COLD = pytest.mark.offers("ImageExport")
WARM = pytest.mark.offers("BlockDelta")
READ = {"oci": 1}
"""Reads that go well before the worker dies: Oracle's are of the packed image, not of blocks."""
FAR = {"aws": 2000}
"""A block behind the image that the instance was made of: AWS's volumes are whole GiB."""
VM = VmRef(vm="counter", uuid=UUID, token=1)
HARDWARE = Hardware(memory_mib=256, vcpus=1)


@pytest.fixture
def here(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arrival:
    monkeypatch.setattr(arrived, "ask_qemu", qemu)
    return Arrival(tmp_path / "images", cloud.settings)


@pytest.fixture
def control(cloud: Cloud) -> CloudInstanceActivities:
    return CloudInstanceActivities(SiteSettings(site="lab", hosts=("host-b",), clouds=(cloud.settings,)))


@pytest.fixture
async def instance(cloud: Cloud) -> str:
    """One that runs, is called as the VM, and has a disk of 32 MiB."""
    disk = MemoryDisk(64 * BLOCK)
    for index in (0, 3, 5):
        disk.write(index * BLOCK, b"data")
    images, place = cloud.adapter.image_import, place_of(cloud.settings)
    assert images is not None
    sent = images.import_disk(DiskOrder(name="vda", token=token("w", "disk")), disk, ignore).disk
    making = CloudActivities(SiteSettings(site="lab", hosts=("host-b",), clouds=(cloud.settings,)))
    env = ActivityEnvironment()
    made = await env.run(
        making.make_cloud_image, MakeImage(place=place, name="counter-1", token=token("w", "image"), disks=(sent,))
    )
    run = RunInstance(place=place, name="counter", token=token("w", "run"), image=made.id, size=cloud.size)
    ran = await env.run(making.run_instance, run)
    images.delete_image(made.id)
    images.delete_disk(sent)
    return ran.id


@pytest.fixture
async def volume(cloud: Cloud, instance: str) -> str:
    instances = cloud.adapter.instances
    assert instances is not None
    if cloud.calls.snapshots_of_stopped:
        stop(cloud, instance)
    return instances.get_instance(instance).disks[0].disk


async def snapshot(control: CloudInstanceActivities, volume: str, step: str) -> str:
    order = SnapshotVolume(place=place(control), volume=volume, token=token("w", step))
    return (await ActivityEnvironment().run(control.snapshot_volume, order)).id


def place(control: CloudInstanceActivities) -> str:
    (only,) = control._accounts.places
    return only


def wanted(here: Arrival, disk: str, base: str = "", *, prove: bool = False) -> ReceiveDisk:
    return ReceiveDisk(
        move="m1", place=place_of(here.cloud), vm=VM, target="vda", path=path(here), disk=disk, base=base, prove=prove,
        token=token("w", f"receive/{disk}"),
    )  # fmt: skip


def path(here: Arrival) -> str:
    return str(here.folder / "counter-vda-m1.qcow2")


def image(here: Arrival) -> DiskImage:
    return DiskImage(target="vda", path=path(here), format="qcow2")


def receive(here: Arrival, order: ReceiveDisk, *heartbeat: Any) -> tuple[DiskSent | None, list[Any]]:
    """(the answer, or None for an attempt that failed and may be tried again; its heartbeats)."""
    env, beats = ActivityEnvironment(), list[Any]()
    env.info = dataclasses.replace(env.info, heartbeat_details=list(heartbeat))
    env.on_heartbeat = lambda *details: beats.append(details[0])
    try:
        return env.run(here.activities.receive_disk, order), beats
    except ApplicationError as error:
        if error.non_retryable:
            raise
        return None, beats


def content(cloud: Cloud, disk: str) -> str:
    """The content hash of a snapshot, from the fake's own blocks."""
    found = ContentHash()
    for index, data in sorted(cloud.content(disk).items()):
        found.add(index, hashlib.sha256(data).digest())
    return found.hexdigest()


@COLD
async def test_a_disk_comes_whole(cloud: Cloud, here: Arrival, control: CloudInstanceActivities, volume: str) -> None:
    cloud.guest_writes(volume, 7, b"written there")
    disk = await snapshot(control, volume, "1")
    assert await snapshot(control, volume, "1") == disk, "asked again, the same"
    for _ in range(2):  # the answer was lost
        here.restart()
        done, _ = receive(here, wanted(here, disk, prove=True))
        assert done is not None
        assert done.bytes == 4 * BLOCK
        assert done.content == done.source == content(cloud, disk) == hash_image(path(here), "qcow2")


@WARM
async def test_then_only_what_changed_comes(
    cloud: Cloud, here: Arrival, control: CloudInstanceActivities, volume: str
) -> None:
    first = await snapshot(control, volume, "1")
    receive(here, wanted(here, first))
    cloud.guest_writes(volume, 3, b"new")
    cloud.guest_writes(volume, 5, b"")
    cloud.guest_writes(volume, FAR.get(cloud.adapter.cloud, 63), b"far behind")
    second = await snapshot(control, volume, "2")
    reads = cloud.faults.count(cloud.calls.read)
    for _ in range(2):  # the answer was lost
        here.restart()
        done, _ = receive(here, wanted(here, second, first, prove=True))
    assert done is not None
    assert done.bytes == 3 * BLOCK
    assert cloud.faults.count(cloud.calls.read) - reads <= 3
    assert done.content == done.source == content(cloud, second) == hash_image(path(here), "qcow2")


async def died_and_went_on(
    cloud: Cloud, here: Arrival, disk: str, base: str, monkeypatch: pytest.MonkeyPatch, heartbeat_arrived: bool = True
) -> None:
    monkeypatch.setattr("clouds.transfer.FLUSH_EVERY", 8)
    cloud.faults.on(cloud.calls.read, "unavailable", times=1000, after=READ.get(cloud.adapter.cloud, 12))
    died, beats = receive(here, wanted(here, disk, base))
    assert died is None
    cloud.faults.clear()
    before = cloud.faults.count(cloud.calls.read)
    here.restart()
    done, _ = receive(here, wanted(here, disk, base, prove=True), *(beats[-1:] if heartbeat_arrived else ()))
    assert done is not None
    assert done.source == content(cloud, disk)
    assert 0 < cloud.faults.count(cloud.calls.read) - before <= (8 if heartbeat_arrived else 16)


@COLD
@pytest.mark.parametrize("heartbeat_arrived", [True, False])
async def test_a_worker_that_dies_in_the_middle_goes_on(
    cloud: Cloud,
    here: Arrival,
    control: CloudInstanceActivities,
    volume: str,
    monkeypatch: pytest.MonkeyPatch,
    heartbeat_arrived: bool,
) -> None:
    for index in range(16):
        cloud.guest_writes(volume, index, b"%d" % index)
    disk = await snapshot(control, volume, "1")
    await died_and_went_on(cloud, here, disk, "", monkeypatch, heartbeat_arrived)


@WARM
async def test_a_worker_that_dies_in_a_difference_goes_on(
    cloud: Cloud, here: Arrival, control: CloudInstanceActivities, volume: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = await snapshot(control, volume, "0")
    receive(here, wanted(here, base))
    for index in range(16):
        cloud.guest_writes(volume, index, b"%d" % index)
    await died_and_went_on(cloud, here, await snapshot(control, volume, "1"), base, monkeypatch)


@WARM
async def test_a_difference_that_was_cut_off_comes_before_the_next_one(
    cloud: Cloud, here: Arrival, control: CloudInstanceActivities, volume: str
) -> None:
    """What changed and changed back is in no list from the base on: the image would keep it."""
    first = await snapshot(control, volume, "1")
    receive(here, wanted(here, first))
    cloud.guest_writes(volume, 3, b"for a moment")
    cloud.guest_writes(volume, 60, b"later")
    second = await snapshot(control, volume, "2")
    cloud.faults.on(cloud.calls.read, "unavailable", times=1000, after=1)
    died, _ = receive(here, wanted(here, second, first))
    assert died is None
    cloud.faults.clear()
    cloud.guest_writes(volume, 3, b"data")
    third = await snapshot(control, volume, "3")
    done, _ = receive(here, wanted(here, third, first, prove=True))
    assert done is not None
    assert done.source == content(cloud, third)


async def test_an_image_that_is_not_what_its_ledger_says_is_not_booted(
    cloud: Cloud, here: Arrival, control: CloudInstanceActivities, volume: str
) -> None:
    first = await snapshot(control, volume, "1")
    receive(here, wanted(here, first))
    here.write(path(here), 7, b"rot")
    second = await snapshot(control, volume, "2")
    with pytest.raises(ApplicationError) as caught:
        receive(here, wanted(here, second, first, prove=True))
    assert caught.value.type == "SourceChanged"
    assert "1 blocks differ" in caught.value.message
    again = wanted(here, second, prove=True).model_copy(update={"token": token("w", "anew")})
    done, _ = receive(here, again)
    assert done is not None
    assert done.source == content(cloud, second)


async def test_a_base_that_is_not_known_is_refused(
    cloud: Cloud, here: Arrival, control: CloudInstanceActivities, volume: str
) -> None:
    first = await snapshot(control, volume, "1")
    with pytest.raises(ApplicationError) as caught:
        receive(here, wanted(here, first, "snap-0"))
    assert caught.value.type == "SourceChanged"


async def test_a_file_that_is_there_is_never_written_to(
    here: Arrival, control: CloudInstanceActivities, volume: str
) -> None:
    here.somebodys(path(here))
    with pytest.raises(ApplicationError, match="not overwritten"):
        receive(here, wanted(here, await snapshot(control, volume, "1")))
    assert here.is_somebodys(path(here))
    assert here.left() == ["counter-vda-m1.qcow2"]


async def test_an_image_that_another_attempt_still_writes_is_waited_for(
    here: Arrival, control: CloudInstanceActivities, volume: str
) -> None:
    first = await snapshot(control, volume, "1")
    receive(here, wanted(here, first))
    second = await snapshot(control, volume, "2")
    with open_image(path(here), "qcow2", writable=True):
        assert receive(here, wanted(here, second, first))[0] is None, "it may be tried again"
    assert receive(here, wanted(here, second, first, prove=True))[0] is not None


async def test_nothing_comes_to_a_host_that_runs_the_vm(
    here: Arrival, control: CloudInstanceActivities, volume: str
) -> None:
    here.libvirt.defineXML(definition("/old.raw")).number = RUNNING
    with pytest.raises(ApplicationError) as caught:
        receive(here, wanted(here, await snapshot(control, volume, "1")))
    assert caught.value.type == "Ambiguous"


@pytest.mark.parametrize("before", [None, definition("/old.raw")])
async def test_defined_started_ended_and_as_it_was_before(
    here: Arrival, control: CloudInstanceActivities, volume: str, before: str | None
) -> None:
    if before:
        here.libvirt.defineXML(before)
    receive(here, wanted(here, await snapshot(control, volume, "1")))
    came = here.content(path(here))
    here.libvirt.on_start = lambda images: here.write(images[0], 6, b"written here")
    env, disks = ActivityEnvironment(), (image(here),)
    define = DefineArrival(move="m1", vm=VM, disks=disks, hardware=HARDWARE)
    for _ in range(2):
        assert env.run(here.activities.define_arrival, define).present
    domain = here.libvirt.domain
    assert domain is not None
    assert domain.images() == [path(here)]
    assert domain.number == OFF
    for _ in range(2):
        assert env.run(here.activities.start_arrival, StartArrival(vm=VM, disks=disks, watch=0)).good
    assert here.content(path(here)) != came
    with pytest.raises(ApplicationError, match="nothing was removed"):
        env.run(here.activities.settle_arrival, SettleArrival(move="m1", vm=VM, disks=disks, keep=False))
    for _ in range(2):
        env.run(here.activities.end_arrival, EndArrival(vm=VM, disks=disks, revert=True))
    assert domain.number == OFF
    assert here.content(path(here)) == came, "what it wrote here is taken back"
    for _ in range(2):
        env.run(here.activities.settle_arrival, SettleArrival(move="m1", vm=VM, disks=disks, keep=False))
    assert here.left() == []
    assert (here.libvirt.domain.xml if here.libvirt.domain else None) == before


async def test_a_start_that_comes_late_is_refused_once_its_cut_over_was_undone(
    here: Arrival, control: CloudInstanceActivities, volume: str
) -> None:
    """The host's storage held it up, and the instance runs again meanwhile."""
    receive(here, wanted(here, await snapshot(control, volume, "1")))
    env, disks = ActivityEnvironment(), (image(here),)
    env.run(here.activities.define_arrival, DefineArrival(move="m1", vm=VM, disks=disks, hardware=HARDWARE))
    env.run(here.activities.end_arrival, EndArrival(vm=VM, disks=disks, revert=True, attempt=1))
    with pytest.raises(ApplicationError, match="cut-over 1 of VM counter was undone"):
        env.run(here.activities.start_arrival, StartArrival(vm=VM, disks=disks, watch=0, attempt=1))
    assert here.libvirt.domain is not None
    assert here.libvirt.domain.number == OFF
    assert env.run(here.activities.start_arrival, StartArrival(vm=VM, disks=disks, watch=0, attempt=2)).good


async def test_what_is_kept_has_no_way_back_and_nothing_beside_it(
    here: Arrival, control: CloudInstanceActivities, volume: str
) -> None:
    receive(here, wanted(here, await snapshot(control, volume, "1")))
    env, disks = ActivityEnvironment(), (image(here),)
    env.run(here.activities.define_arrival, DefineArrival(move="m1", vm=VM, disks=disks, hardware=HARDWARE))
    env.run(here.activities.start_arrival, StartArrival(vm=VM, disks=disks, watch=0))
    assert safepoint.there(path(here))
    assert here.mode(f"{path(here)}{arrived.SUFFIX}") == 0o600, "secrets may stand in a definition"
    for _ in range(2):
        settle = SettleArrival(move="m1", vm=VM, disks=disks, keep=True, autostart=True)
        env.run(here.activities.settle_arrival, settle)
    assert not safepoint.there(path(here))
    assert here.left() == ["counter-vda-m1.qcow2"]
    assert here.libvirt.domain is not None
    assert (here.libvirt.domain.number, here.libvirt.domain.auto) == (RUNNING, 1)


@pytest.mark.parametrize("follows", [True, False])
async def test_a_roll_back_ends_a_guest_that_does_not_follow_too(here: Arrival, follows: bool) -> None:
    here.libvirt.follows = follows
    here.libvirt.defineXML(definition("/old.raw")).number = RUNNING
    order = EndArrival(vm=VM, disks=(), within=0.3)
    ActivityEnvironment().run(here.activities.end_arrival, order)
    assert here.libvirt.domain is not None
    assert here.libvirt.domain.number == OFF


async def test_an_order_with_an_older_token_is_turned_away(here: Arrival) -> None:
    here.libvirt.defineXML(definition("/old.raw"))
    env, newer = ActivityEnvironment(), VM.model_copy(update={"token": 5})
    env.run(here.activities.end_arrival, EndArrival(vm=newer, disks=()))
    with pytest.raises(ApplicationError, match="owner token 1"):
        env.run(here.activities.start_arrival, StartArrival(vm=VM, disks=(image(here),)))
    assert here.libvirt.domain is not None
    assert here.libvirt.domain.number == OFF


async def test_a_host_tells_what_it_has(here: Arrival) -> None:
    query = ArrivalQuery(place=place_of(here.cloud), vm=VmRef(vm="counter"), folder=str(here.folder))
    found = ActivityEnvironment().run(here.activities.inspect_arrival, query)
    assert (found.defined, found.alive, found.folder, found.accounts) == (False, False, True, (place_of(here.cloud),))
    assert found.free > 0
    here.libvirt.defineXML(definition("/old.raw"))
    found = ActivityEnvironment().run(here.activities.inspect_arrival, query)
    assert (found.defined, found.disks, found.vm.uuid) == (True, ("vda",), UUID)
    nowhere = ActivityEnvironment().run(
        here.activities.inspect_arrival, query.model_copy(update={"folder": "/not/there"})
    )
    assert not nowhere.folder


@pytest.mark.offers("Instances")
async def test_an_instance_is_found_stopped_and_started_by_the_clouds_word(
    cloud: Cloud, control: CloudInstanceActivities, instance: str
) -> None:
    env, offers = ActivityEnvironment(), cloud.adapter
    for _ in looks():
        found = await env.run(control.find_instance, InstanceQuery(place=place(control), vm="counter"))
        if found.instance is not None and found.instance.state == "running":
            break
    assert found.instance is not None
    assert found.instance.id == instance
    assert len(found.volumes) == 1
    assert (found.export, found.warm) == (offers.image_export is not None, offers.block_delta is not None)
    assert found.size is not None
    assert found.size.name == cloud.size
    wish = InstanceOfVm(place=place(control), instance=instance)
    for _ in range(2):
        assert (await env.run(control.stop_instance, wish)).state == "stopped"
    assert (await env.run(control.look_at_instance, wish)).state == "stopped"
    for _ in range(2):
        assert (await env.run(control.start_instance, wish)).state == "running"
    assert offers.instances is not None
    offers.instances.terminate_instance(instance)
    for step in (control.stop_instance, control.start_instance):
        with pytest.raises(ApplicationError) as caught:
            await env.run(step, wish)
        assert caught.value.non_retryable
    gone = await env.run(control.find_instance, InstanceQuery(place=place(control), vm="counter"))
    assert (gone.instance, gone.candidates) == (None, ())


async def test_a_ledger_tells_what_it_is_on_the_way_to(tmp_path: Path) -> None:
    ledger = Ledger(BLOCK, disk="snap-1", toward="snap-2")
    file = tmp_path / f"image{SUFFIX}"
    ledger.write(file, "m1")
    assert Ledger.read(file, "m1").toward == "snap-2"
    assert os.listdir(tmp_path) == [file.name]
