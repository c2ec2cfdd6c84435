"""The sheet of a VM: all a destination needs to decide whether it can take the VM, read from the domain's XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

from clouds.kvm.connection import Connection, Domain, Session, code_of
from clouds.kvm.identity import identity
from clouds.kvm.inventory import version, vm_report
from models.disks import DiskImage
from models.host import DiskReport, VmSheet
from models.migration import VmRef

XML_MIGRATABLE = 8


Sizes = Callable[[str], tuple[int, int]]
"""Capacity and allocation in bytes of a disk, by its target."""


def vm_sheet(session: Session, host: str, vm: VmRef, trusted_network: bool = False) -> VmSheet:
    """Everything the destination needs to know of the VM. Raises NotFound."""
    domain = session.get(vm)

    def ask(connection: Connection) -> VmSheet:
        live = ET.fromstring(domain.XMLDesc(0))
        # The CPU as libvirt would send it: expanded to what the guest really sees, where libvirt knows that.
        cpu = ET.fromstring(domain.XMLDesc(XML_MIGRATABLE)).find("cpu")
        kind = live.find("os/type")
        return VmSheet(
            vm=vm_report(domain),
            host=host,
            machine=kind.get("machine", "") if kind is not None else "",
            arch=kind.get("arch", "") if kind is not None else "",
            emulator=live.findtext("devices/emulator", ""),
            virt_type=live.get("type", ""),
            cpu_xml=ET.tostring(cpu, encoding="unicode").strip() if cpu is not None else "",
            disks=disks(live, lambda target: _sizes(domain, target)),
            host_devices=host_devices(live),
            qemu_version=version(connection.getVersion()),
            host_uuid=ET.fromstring(connection.getCapabilities()).findtext("host/uuid", ""),
            trusted_network=trusted_network,
        )

    return session.call(f"inspect VM {vm.vm}", ask)


def _sizes(domain: Domain, target: str) -> tuple[int, int]:
    try:
        capacity, allocated, _physical = domain.blockInfo(target)
    except Exception as error:
        if code_of(error):  # an empty drive, or a disk that libvirt cannot measure: it will not be copied
            return 0, 0
        raise
    return capacity, allocated


def disks(domain: ET.Element, sizes: Sizes = lambda target: (0, 0)) -> tuple[DiskReport, ...]:
    """Every local file and device below the VM's disks, images and the images they are based on.

    Network disks (rbd, iscsi, nbd, ...) are left out: their URL names the same storage on every host.
    """
    found: list[DiskReport] = []
    for disk in domain.iterfind("devices/disk"):
        target = disk.find("target")
        name = target.get("dev", "disk") if target is not None else "disk"
        readonly = disk.find("readonly") is not None
        layer: ET.Element | None = disk
        depth = 0
        while layer is not None:
            source = layer.find("source")
            path = "" if source is None else _local_path(source)
            if path:
                found.append(
                    DiskReport(
                        target=f"{name}.{depth}" if depth else name,
                        path=path,
                        readonly=readonly or depth > 0,
                        identity=identity(path),
                        image=_image(disk, name, path, sizes) if depth == 0 else None,
                    )
                )
            layer, depth = layer.find("backingStore"), depth + 1
    return tuple(found)


def _image(disk: ET.Element, name: str, path: str, sizes: Sizes) -> DiskImage | None:
    if disk.get("type") != "file" or disk.get("device", "disk") != "disk":
        return None
    driver = disk.find("driver")
    capacity, allocated = sizes(name)
    kind = driver.get("type", "") if driver is not None else ""
    return DiskImage(target=name, path=path, format=kind, capacity=capacity, allocated=allocated)


def _local_path(source: ET.Element) -> str:
    path = source.get("file") or source.get("dev") or source.get("dir") or ""
    if not path and source.get("volume"):  # a pool's volume: no path to compare, so named so that it is seen
        path = f"/{source.get('pool')}/{source.get('volume')}"
    return path


def host_devices(domain: ET.Element) -> tuple[str, ...]:
    """Devices and folders of the host that the VM holds, for people to read. They cannot move."""
    found = []
    for device in domain.iterfind("devices/hostdev"):
        address = device.find("source/address")
        where = "" if address is None else " ".join(f"{k}={v}" for k, v in sorted(address.attrib.items()))
        found.append(f"hostdev {device.get('type', '')} {where}".strip())
    for device in domain.iterfind("devices/interface[@type='hostdev']"):
        mac = device.find("mac")
        found.append(f"interface hostdev {mac.get('address', '') if mac is not None else ''}".strip())
    for device in domain.iterfind("devices/filesystem"):
        source = device.find("source")
        where = (source.get("dir") or source.get("socket") or "") if source is not None else ""
        found.append(f"filesystem {where}".strip())
    return tuple(found)
