"""Guests of the lab: a transient libvirt domain each, booted from the kernel and initrd that guest/build.sh
made.

libvirt is reached from outside by the host's socket. The serial line goes to a file of the host, appended
to, so that a guest that comes back goes on in it.
"""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from models.base import Model
from workers.lab.errors import LabError, run
from workers.lab.heartbeats import Heartbeats
from workers.lab.settings import SCRATCH_FOLDER, SCRATCH_FORMAT, LabSettings

BOOT_WITHIN = 120.0
_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"


class Guest(Model):
    """A guest that has booted and beats."""

    name: str
    uuid: str
    host: str
    memory_mib: int
    accelerator: str
    """kvm or tcg."""
    boot_id: str
    pid: int
    """Of the heartbeat process inside the guest."""
    digest: str
    """Of the memory it never writes to."""


def domain_xml(
    name: str, identity: uuid.UUID, memory_mib: int, accelerator: str, folder: Path, words: Mapping[str, int]
) -> str:
    """The domain: q35, one CPU, a serial file; with `fill`, the read-only content disk that all hosts see; with
    `scratch`, a disk of its own, in a folder that each host has for itself."""
    domain = ET.Element("domain", type="kvm" if accelerator == "kvm" else "qemu")
    _text(domain, "name", name)
    _text(domain, "uuid", str(identity))
    _text(domain, "memory", str(memory_mib), unit="MiB")
    _text(domain, "vcpu", "1")
    system = ET.SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="q35")
    _text(system, "kernel", str(folder / "vmlinuz"))
    _text(system, "initrd", str(folder / "initrd.gz"))
    options = " ".join(f"{word}={value}" for word, value in words.items())
    _text(system, "cmdline", f"console=ttyS0 quiet panic=-1 {options}")
    ET.SubElement(ET.SubElement(domain, "features"), "acpi")
    ET.SubElement(domain, "cpu", mode="host-passthrough" if accelerator == "kvm" else "maximum")
    ET.SubElement(domain, "clock", offset="utc")
    for event in ("on_reboot", "on_crash"):
        _text(domain, event, "destroy")
    devices = ET.SubElement(domain, "devices")
    _text(devices, "emulator", "/usr/bin/qemu-system-x86_64")
    if words.get("fill"):
        disk = ET.SubElement(devices, "disk", type="file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type="raw", cache="none")
        ET.SubElement(disk, "source", file=str(folder / "content.img"))
        ET.SubElement(disk, "target", dev="vda", bus="virtio")
        ET.SubElement(disk, "readonly")
    if words.get("scratch"):
        disk = ET.SubElement(devices, "disk", type="file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type=SCRATCH_FORMAT, cache="none")
        ET.SubElement(disk, "source", file=f"{SCRATCH_FOLDER}/{name}.{SCRATCH_FORMAT}")
        ET.SubElement(disk, "target", dev="vdb", bus="virtio")
    serial = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(serial, "source", path=f"/var/lib/libvirt/serial/{name}.log", append="on")
    ET.SubElement(serial, "target", port="0")
    ET.SubElement(devices, "memballoon", model="none")
    ET.SubElement(devices, "controller", type="usb", model="none")
    if accelerator == "tcg":
        _uneven_memory(domain, memory_mib)
    return ET.tostring(domain, encoding="unicode")


def _uneven_memory(domain: ET.Element, memory_mib: int) -> None:
    """Memory of 128 KiB more, so that QEMU under TCG loses no write of the guest while it migrates.

    For memory of a multiple of 256 KiB, QEMU before 9.0 takes a fast path through the dirty bitmap that leaves TCG's
    TLB stale ("physmem: Fix migration dirty bitmap coherency with TCG memory access"): with plain libvirt and nothing
    of ours, 19 of 20 guests died of it here, and none of 12 with this. libvirt rounds memory up to whole MiB, so QEMU
    is told beside it.
    """
    size = (memory_mib << 20) + (128 << 10)
    ET.register_namespace("qemu", _QEMU)
    commandline = ET.SubElement(domain, f"{{{_QEMU}}}commandline")
    for option, value in (
        ("-object", f"memory-backend-ram,id=lab.ram,size={size}"),
        ("-machine", "memory-backend=lab.ram"),
        ("-m", f"{size >> 10}k"),
    ):
        ET.SubElement(commandline, f"{{{_QEMU}}}arg", value=option)
        ET.SubElement(commandline, f"{{{_QEMU}}}arg", value=value)


def boot(
    settings: LabSettings,
    hosts: Sequence[str],
    accelerator: str,
    name: str,
    host: str,
    memory_mib: int,
    fill: int,
    dirty: int,
    check: int,
    scratch: int = 0,
) -> Guest:
    """Boot a guest and return once it beats; LabError with its last words when it does not within 120 s."""
    if fill + 96 > memory_mib:
        raise LabError(f"fill: {fill} MiB do not fit in a guest of {memory_mib} MiB: leave 96 MiB for its kernel")
    if not (settings.guest_folder / "stamp").exists():
        raise LabError(f"the guest is not built in {settings.guest_folder}: run `make setup`")
    logs = {other: settings.serial_log(other, name) for other in hosts}
    words = {"fill": fill, "dirty": dirty, "check": check, "scratch": scratch}
    identity = uuid.uuid4()
    xml = domain_xml(name, identity, memory_mib, accelerator, settings.guest_folder, words)
    libvirt = _libvirt()
    try:
        with closing(libvirt.open(settings.libvirt_uri(host))) as connection:
            if name in [domain.name() for domain in connection.listAllDomains()]:
                raise LabError(f"{host} already has a guest {name}: choose another name, or destroy it first")
            for log in logs.values():
                log.unlink(missing_ok=True)
            if scratch:
                for other in hosts:
                    settings.scratch_image(other, name).unlink(missing_ok=True)
                image = str(settings.scratch_image(host, name))
                run("qemu-img", "create", "-q", "-f", SCRATCH_FORMAT, image, f"{scratch}M")
            connection.createXML(xml, 0)
    except libvirt.libvirtError as error:
        raise LabError(
            f"guest {name} could not be started on {host}: {error} (`novacron lab up` repairs a host)"
        ) from error
    with Heartbeats({host: logs[host]}, from_start=True) as heard:
        try:
            story = heard.wait_for(lambda story: story.beats >= 3, BOOT_WITHIN, f"heartbeat of guest {name}")
        except LabError as error:
            log = logs[host]
            text = log.read_text(errors="replace")[-600:] if log.exists() else ""
            raise LabError(
                f"guest {name} on {host} did not boot: {error}; its serial line {log} ends:\n{text}"
            ) from error
    return Guest(
        name=name,
        uuid=str(identity),
        host=host,
        memory_mib=memory_mib,
        accelerator=accelerator,
        boot_id=story.boot_ids[0],
        pid=story.pids[0],
        digest=story.digests[0],
    )


def destroy(settings: LabSettings, name: str, host: str) -> None:
    """End a guest on this host at once, its definition too; nothing happens when it is not there."""
    libvirt = _libvirt()
    try:
        with closing(libvirt.open(settings.libvirt_uri(host))) as connection:
            for domain in connection.listAllDomains():
                if domain.name() == name:
                    defined = domain.isPersistent()
                    if domain.isActive():  # first: a job of libvirt on a VM that runs bars its definition's removal
                        domain.destroy()
                    if defined:
                        domain.undefine()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it ended by itself meanwhile
            raise LabError(f"guest {name} could not be destroyed on {host}: {error}") from error


def _libvirt() -> Any:
    try:
        import libvirt
    except ImportError as error:
        raise LabError("the libvirt binding is not installed: run `make setup` (extra `kvm`)") from error
    libvirt.registerErrorHandler(lambda _, error: None, None)  # errors are raised; do not print them as well
    return libvirt


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text
