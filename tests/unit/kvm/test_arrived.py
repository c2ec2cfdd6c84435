"""Definitions of VMs that come from a cloud."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from clouds.kvm import arrived
from clouds.kvm.errors import Refused
from models.cloud_bring import Hardware
from models.disks import DiskImage
from models.migration import VmRef

UUID = "5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01"
BEFORE = """<domain type='kvm'><name>web</name><uuid>5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01</uuid><memory>1</memory>
<metadata><x:labels xmlns:x='urn:x'><x:tier>gold</x:tier></x:labels></metadata><devices>
<disk type='file' device='cdrom'><source file='/boot.iso'/><target dev='sda' bus='sata'/><readonly/></disk>
<disk type='block' device='disk'><driver name='qemu' type='raw' cache='none'/><source dev='/dev/sdx'/><backingStore/>
<target dev='sdb' bus='scsi'/><boot order='1'/><alias name='ua-root'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/old'/><target dev='vdb' bus='virtio'/>
</disk><interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/></interface></devices>
</domain>"""


def disks(*paths: str) -> tuple[DiskImage, ...]:
    return tuple(
        DiskImage(target=f"vd{'ab'[at]}", path=path, format="qcow2") for at, path in enumerate(paths)
    )  # fmt: skip


def test_only_the_disks_are_replaced_in_their_order() -> None:
    assert arrived.targets(BEFORE) == ("sdb", "vdb")
    root = ET.fromstring(arrived.rebuilt(BEFORE, disks("/new & one", "/two")))
    cd, first, second = root.findall("devices/disk")
    assert cd.find("source").get("file") == "/boot.iso"  # type: ignore[union-attr]
    assert first.get("type") == "file"
    assert first.find("source").attrib == {"file": "/new & one"}  # type: ignore[union-attr]
    assert first.find("driver").attrib == {"name": "qemu", "type": "qcow2"}  # type: ignore[union-attr]
    assert first.find("target").attrib == {"dev": "sdb", "bus": "scsi"}  # type: ignore[union-attr]
    assert first.find("boot") is not None
    assert first.find("backingStore") is None
    assert second.find("source").attrib == {"file": "/two"}  # type: ignore[union-attr]
    assert root.find("devices/interface/mac").get("address") == "52:54:00:00:00:01"  # type: ignore[union-attr]
    assert "gold" in ET.tostring(root, encoding="unicode")


def test_another_number_of_disks_is_refused() -> None:
    with pytest.raises(Refused, match="has 2 disks, and 1 come"):
        arrived.rebuilt(BEFORE, disks("/one"))


@pytest.mark.parametrize("kvm", [True, False])
def test_a_plain_definition_has_what_was_asked_for(kvm: bool) -> None:
    hardware = Hardware(memory_mib=512, vcpus=2, firmware="uefi", bridge="br0")
    root = ET.fromstring(arrived.fresh(VmRef(vm="web", uuid=UUID), disks("/one", "/two"), hardware, kvm=kvm))
    assert root.get("type") == ("kvm" if kvm else "qemu")
    assert (root.findtext("name"), root.findtext("uuid"), root.findtext("vcpu")) == ("web", UUID, "2")
    assert root.find("os").get("firmware") == "efi"  # type: ignore[union-attr]
    assert [each.get("file") for each in root.iter("source")][:2] == ["/one", "/two"]
    assert root.find("devices/interface/source").attrib == {"bridge": "br0"}  # type: ignore[union-attr]
    assert (root.find("cpu") is not None) is kvm


def test_without_memory_there_is_none() -> None:
    with pytest.raises(Refused, match="memory_mib"):
        arrived.fresh(VmRef(vm="web"), disks("/one"), Hardware(vcpus=1), kvm=True)
