"""What only a KVM host as a cloud has, on real libvirt and QEMU: VMs of others, VMs that are off, full disks, and the
bitmap that QEMU keeps between two snapshots."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clouds.capabilities import ImageExport, Instances
from clouds.disks.content import BLOCK, content_hash
from clouds.disks.images import hash_image
from clouds.errors import Invalid, NotPermitted, QuotaExceeded
from clouds.tokens import token
from tests.clouds.scene import MemoryDisk, boot_image, ignore, instance_order, order, small_disk
from tests.integration.contract.place import KvmCloud
from workers.lab.lab import Lab

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]
HOST = "host-b"


@pytest.fixture
def cloud(lab: Lab) -> Iterator[KvmCloud]:
    made = KvmCloud(lab, HOST)
    try:
        yield made
    finally:
        made.clean()


@pytest.fixture
def instances(cloud: KvmCloud) -> Instances:
    assert cloud.adapter.instances is not None
    return cloud.adapter.instances


@pytest.fixture
def export(cloud: KvmCloud) -> ImageExport:
    assert cloud.adapter.image_export is not None
    return cloud.adapter.image_export


def test_the_second_snapshot_reads_only_what_the_guest_wrote_since(
    cloud: KvmCloud, instances: Instances, export: ImageExport
) -> None:
    made = instances.create_instance(instance_order(cloud, boot_image(cloud)), token("place", "run"))
    volume = made.disks[0].disk
    first = export.create_snapshot(volume, token("place", "0"))
    cloud.guest_writes(volume, 9, b"new")
    before = cloud.sent()
    second = export.create_snapshot(volume, token("place", "1"))
    assert cloud.sent() - before == BLOCK
    assert second.parent == first.id
    assert set(cloud.content(second.id)) == {0, 1, 9}
    domain = cloud._plain().lookupByUUIDString(made.id)
    assert [each.getName().rpartition("-")[2] for each in domain.listAllCheckpoints(0)] == ["2"], "the newest one only"


@pytest.mark.parametrize("broken", ["backupBegin", "abortJob"])
def test_a_snapshot_whose_libvirt_goes_away_is_made_once_and_closes_its_round(
    cloud: KvmCloud, instances: Instances, export: ImageExport, broken: str
) -> None:
    made = instances.create_instance(instance_order(cloud, boot_image(cloud)), token("place", "run"))
    volume = made.disks[0].disk
    before = len(cloud.things())
    for kind in ("lose", "unavailable"):
        cloud.faults.on(broken, kind)
    snapshot = export.create_snapshot(volume, token("place", "0"))
    assert snapshot.state == "ready"
    assert len(cloud.things()) == before + 1
    assert set(cloud.content(snapshot.id)) == {0, 1}
    assert cloud._plain().lookupByUUIDString(made.id).jobStats().get("type", 0) == 0, "no round is open"
    assert export.create_snapshot(volume, token("place", "0")) == snapshot


def test_a_vm_that_is_off_is_copied_from_its_image(cloud: KvmCloud, instances: Instances, export: ImageExport) -> None:
    made = instances.create_instance(instance_order(cloud, boot_image(cloud)), token("place", "run"))
    cloud.guest_writes(made.disks[0].disk, 4, b"before it was stopped")
    assert instances.stop_instance(made.id).state == "stopped"
    snapshot = export.create_snapshot(made.disks[0].disk, token("place", "off"))
    target = MemoryDisk(snapshot.size)
    told = export.export_disk(snapshot.id, target, ignore)
    image = cloud.store.volume(made.id, "vda")
    assert told.content == content_hash(target) == hash_image(image, "qcow2")
    assert 4 in target.blocks()


def test_a_vm_of_somebody_else_is_looked_at_and_never_touched(
    lab: Lab, cloud: KvmCloud, instances: Instances, export: ImageExport
) -> None:
    connection = cloud._plain()
    xml = "<domain type='qemu'><name>theirs</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"
    theirs = connection.createXML(xml, 0)
    try:
        found = instances.get_instance(theirs.UUIDString())
        assert (found.name, found.state, found.image) == ("theirs", "running", "")
        assert found.id in {each.id for each in instances.list_instances(limit=1000).items}
        for act in (instances.start_instance, instances.stop_instance, instances.terminate_instance):
            with pytest.raises(NotPermitted, match="only looked at"):
                act(found.id)
        with pytest.raises(NotPermitted, match="only looked at"):
            instances.reboot_instance(found.id, token("place", "reboot"))
        assert theirs.isActive()
    finally:
        theirs.destroy()
        connection.close()


def test_a_transient_vm_is_refused_with_the_remedy(cloud: KvmCloud, instances: Instances, export: ImageExport) -> None:
    made = instances.create_instance(instance_order(cloud, boot_image(cloud)), token("place", "run"))
    domain = cloud._plain().lookupByUUIDString(made.id)
    xml = domain.XMLDesc(2)  # its definition
    domain.undefineFlags(16)
    try:
        with pytest.raises(Invalid, match="Define it"):
            export.create_snapshot(made.disks[0].disk, token("place", "transient"))
    finally:
        cloud._plain().defineXML(xml)


def test_a_full_file_system_ends_an_import_that_goes_on_when_there_is_room(cloud: KvmCloud) -> None:
    assert cloud.adapter.image_import is not None
    folder = Path(cloud.settings.folder)
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "novacron-test", str(folder)]
    subprocess.run(mount, check=True)
    try:
        source = small_disk()
        with pytest.raises(QuotaExceeded, match="Make room in"):
            cloud.adapter.image_import.import_disk(order(), source, ignore)
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        arrived = cloud.adapter.image_import.import_disk(order(), source, ignore)
        assert cloud.content(arrived.disk) == source.blocks()
    finally:
        subprocess.run(["umount", str(folder)], check=True)
