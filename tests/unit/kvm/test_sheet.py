"""What is read from a domain's XML, and how files are told apart."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

from clouds.kvm.identity import identity, network_source, read_text, world_wide_id
from clouds.kvm.inventory import memory_mib, version
from clouds.kvm.sheet import disks, host_devices
from models.disks import DiskImage

DOMAIN = """
<domain type='kvm'><devices>
  <disk type='file' device='disk'><source file='{image}'/>
    <backingStore type='file'><format type='raw'/><source file='{base}'/><backingStore/></backingStore>
    <target dev='vda'/></disk>
  <disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>
  <disk type='network' device='disk'><source protocol='rbd' name='pool/image'/><target dev='vdb'/></disk>
  <disk type='volume' device='disk'><source pool='fast' volume='data'/><target dev='vdc'/></disk>
  <hostdev mode='subsystem' type='pci'><source><address bus='0x06' slot='0x12'/></source></hostdev>
  <interface type='hostdev'><mac address='52:54:00:00:00:01'/></interface>
  <interface type='bridge'><mac address='52:54:00:00:00:02'/></interface>
  <filesystem type='mount'><source dir='/srv/shared'/></filesystem>
</devices></domain>"""

MOUNTINFO = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 22 0:52 / /images rw,relatime shared:9 master:2 - nfs4 store:/images rw,vers=4.2
41 22 0:53 / /run rw - tmpfs tmpfs rw
"""


def test_the_whole_chain_of_images_is_reported_and_network_disks_are_not(tmp_path: Path) -> None:
    image, base = tmp_path / "image", tmp_path / "base"
    image.touch()
    found = disks(ET.fromstring(DOMAIN.format(image=image, base=base)))
    assert [(disk.target, disk.path, disk.readonly) for disk in found] == [
        ("vda", str(image), False),
        ("vda.1", str(base), True),
        ("vdc", "/fast/data", False),
    ]
    assert [bool(disk.identity) for disk in found] == [True, False, False]


def test_an_image_of_its_own_tells_what_a_copy_of_it_needs(tmp_path: Path) -> None:
    xml = """<domain><devices>
      <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/a'/><target dev='vda'/></disk>
      <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='/b'/><target dev='sda'/></disk>
      <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/c'/><target dev='vdb'/></disk>
    </devices></domain>"""
    images = [disk.image for disk in disks(ET.fromstring(xml), lambda target: (8 << 30, 1 << 20))]
    image = DiskImage(target="vda", path="/a", format="qcow2", capacity=8 << 30, allocated=1 << 20)
    assert images == [image, None, None]


def test_devices_and_folders_of_the_host_are_named() -> None:
    assert host_devices(ET.fromstring(DOMAIN.format(image="/a", base="/b"))) == (
        "hostdev pci bus=0x06 slot=0x12",
        "interface hostdev 52:54:00:00:00:01",
        "filesystem /srv/shared",
    )


def test_a_file_is_the_same_through_two_names_and_differs_from_its_copy(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("same")
    (tmp_path / "two").write_text("same")
    os.link(tmp_path / "one", tmp_path / "linked")
    names = [identity(str(tmp_path / name)) for name in ("one", "linked", "two")]
    assert names[0] == names[1] != names[2]


def test_an_image_that_grows_stays_the_same_file(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.touch()
    before = identity(str(image))
    image.write_bytes(bytes(4096))
    assert identity(str(image)) == before


def test_a_file_that_is_not_there_has_no_identity(tmp_path: Path) -> None:
    assert identity(str(tmp_path / "none")) == ""


def test_a_file_on_network_storage_is_named_by_its_server_and_a_local_one_by_this_kernel(tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.touch()
    device = file.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"

    def seen_as(mount: str, boot: str) -> str:
        texts = {"/proc/self/mountinfo": mount.format(number), "/proc/sys/kernel/random/boot_id": boot}
        return identity(str(file), lambda path: texts[path])

    nfs, local = "9 1 {} / /images rw - nfs4 store:/images rw\n", "9 1 {} / / rw - ext4 /dev/vda1 rw\n"
    assert seen_as(nfs, "boot-a") == seen_as(nfs, "boot-b") == f"nfs4:store:/images:{file.stat().st_ino}"
    assert seen_as(local, "boot-a") != seen_as(local, "boot-b")


def test_the_mount_table_of_the_kernel_is_understood() -> None:
    assert network_source(MOUNTINFO, "0:52") == "nfs4:store:/images"
    assert network_source(MOUNTINFO, "254:1") == ""
    assert network_source(MOUNTINFO, "9:9") == ""
    assert network_source(read_text("/proc/self/mountinfo"), "9:9") == ""


def test_only_ids_that_a_san_gives_make_a_device_the_same_elsewhere() -> None:
    def reading(texts: dict[str, str]) -> str:
        def read(path: str) -> str:
            try:
                return texts[path.removeprefix("/sys/dev/block/8:0/")]
            except KeyError:
                raise FileNotFoundError(path) from None

        return world_wide_id("8:0", read)

    assert reading({"dm/uuid": "mpath-3600a0b80"}) == "mpath-3600a0b80"
    assert reading({"dm/uuid": "LVM-abc"}) == ""
    assert reading({"device/wwid": "naa.600a0b80\n"}) == "naa.600a0b80"
    assert reading({}) == ""


def test_versions_and_memory_are_read_as_their_makers_write_them() -> None:
    assert version(7002022) == "7.2.22"
    assert memory_mib("MemTotal:  4194304 kB\nMemFree: 1 kB\nMemAvailable: 2097152 kB\n") == (4096, 2048)
