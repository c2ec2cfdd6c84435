"""The sheet of a VM: all a destination needs to decide whether it can take the VM, read from the domain's XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

from clouds.kvm.connection import Connection, Domain, Session, code_of
from clouds.kvm.facts import numbers
from clouds.kvm.identity import identity
from clouds.kvm.inventory import version, vm_report
from models.disks import DiskImage
from models.host import DiskReport, InterfaceReport, MemoryBacking, VmSheet
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
            interfaces=interfaces(live),
            backing=backing(live),
            tpm=tpm(live),
            snapshots=domain.snapshotNum(0),
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
                        format=_driver(disk, "type") if depth == 0 else "",
                        cache=_driver(disk, "cache"),
                    )
                )
            layer, depth = layer.find("backingStore"), depth + 1
    return tuple(found)


def _image(disk: ET.Element, name: str, path: str, sizes: Sizes) -> DiskImage | None:
    if disk.get("type") != "file" or disk.get("device", "disk") != "disk":
        return None
    capacity, allocated = sizes(name)
    return DiskImage(target=name, path=path, format=_driver(disk, "type"), capacity=capacity, allocated=allocated)


def _driver(disk: ET.Element, word: str) -> str:
    driver = disk.find("driver")
    return driver.get(word, "") if driver is not None else ""


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


def interfaces(domain: ET.Element) -> tuple[InterfaceReport, ...]:
    """Network interfaces, and what of the host each is plugged into. Those that are host devices are not here."""
    found = []
    for interface in domain.iterfind("devices/interface"):
        kind, source, mac = interface.get("type", ""), interface.find("source"), interface.find("mac")
        if kind == "hostdev":
            continue
        plugged = {"network": "network", "bridge": "bridge", "direct": "dev"}.get(kind, "")
        found.append(
            InterfaceReport(
                mac=mac.get("address", "") if mac is not None else "",
                kind=kind,
                source=source.get(plugged, "") if source is not None else "",
            )
        )
    return tuple(found)


def backing(domain: ET.Element) -> MemoryBacking:
    """What of its host's memory and CPUs the VM insists on."""
    strict = domain.find("numatune/memory")
    bound = strict.get("nodeset", "") if strict is not None and strict.get("mode", "strict") == "strict" else ""
    cells = [cell for cell in domain.iterfind("numatune/memnode") if cell.get("mode", "strict") == "strict"]
    pins = [*domain.iterfind("cputune/vcpupin"), *domain.iterfind("cputune/emulatorpin")]
    memory = domain.find("vcpu")
    sets = [*(pin.get("cpuset", "") for pin in pins), memory.get("cpuset", "") if memory is not None else ""]
    return MemoryBacking(
        page_kib=_page_kib(domain),
        nodes=_union([bound, *(cell.get("nodeset", "") for cell in cells)]),
        cpus=_union(sets),
        devices=tuple(
            f"{device.get('model', 'memory')} {device.findtext('source/path', '')}".strip()
            for device in domain.iterfind("devices/memory")
            if device.find("source/path") is not None
        ),
    )


def _union(sets: list[str]) -> tuple[int, ...]:
    return tuple(sorted(frozenset[int]().union(*(numbers(listed) for listed in sets))))


_UNITS = {"B": 0, "K": 10, "KiB": 10, "M": 20, "MiB": 20, "G": 30, "GiB": 30, "T": 40, "TiB": 40}
DEFAULT_PAGE_KIB = 2048
"""libvirt takes the host's default size, on x86-64 this one, where the XML names none."""


def _page_kib(domain: ET.Element) -> int:
    """Size of the huge pages; of several the largest, since that is the scarcest. 0: none."""
    pages = domain.find("memoryBacking/hugepages")
    if pages is None:
        return 0
    sizes = [int(page.get("size", "0")) << _UNITS.get(page.get("unit", "KiB"), 10) for page in pages.iterfind("page")]
    return max(sizes, default=DEFAULT_PAGE_KIB << 10) >> 10


def tpm(domain: ET.Element) -> str:
    backend = domain.find("devices/tpm/backend")
    return backend.get("type", "") if backend is not None else ""
