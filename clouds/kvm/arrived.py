"""A VM that comes to this host from a cloud: its definition, its first start, and the way back.

What the host knew of the VM before, if anything, is the template: only its disks are replaced, and the text of it is
kept beside the first new image until the move is over. Nothing of the old images is touched. Before the first start
each image gets a point to which it can be taken back (clouds.disks.safepoint): an attempt that is undone leaves them
as the cloud gave them, so the next one needs differences only.
"""

from __future__ import annotations

import json
import os
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clouds.disks import safepoint
from clouds.kvm.connection import NO_DOMAIN, Connection, Domain, Session, ask_qemu, code_of
from clouds.kvm.errors import HostUnavailable, Refused
from clouds.kvm.inventory import STATES
from clouds.kvm.leaving import OFF, cut_power
from models.cloud_bring import Hardware
from models.disks import DiskImage
from models.migration import VmRef

AS_DEFINED = 1 | 2
"""VIR_DOMAIN_XML_SECURE and _INACTIVE: the definition, with what would otherwise be blanked out."""
SUFFIX = ".novacron-definition"
ENDED = ".novacron-ended"
"""Holds the number of the newest cut-over that was undone."""
GONE_WITHIN = 60.0


def alive(session: Session, vm: VmRef) -> bool:
    """There is a QEMU of it, whatever it does."""
    domain = session.find(vm)
    return domain is not None and _state(session, vm, domain) not in OFF


def targets(domain_xml: str) -> tuple[str, ...]:
    """Of the definition's disks that images take the place of, in its order: the first one boots."""
    return tuple(target.get("dev", "") for disk in _disks(ET.fromstring(domain_xml)) for target in disk.iter("target"))


def rebuilt(domain_xml: str, disks: Sequence[DiskImage]) -> str:
    """The definition, with these images for its disks. Raises Refused when their number differs."""
    root = ET.fromstring(domain_xml)
    found = _disks(root)
    if len(found) != len(disks):
        raise Refused(
            f"the definition of {root.findtext('name')} on this host has {len(found)} disks, and {len(disks)} come",
            "Change the definition, or undefine it: then one is made.",
        )
    for element, disk in zip(found, disks, strict=True):
        for child in [each for each in element if each.tag in ("source", "driver", "backingStore", "auth")]:
            element.remove(child)
        element.set("type", "file")
        element.insert(0, ET.Element("source", file=disk.path))
        element.insert(0, ET.Element("driver", name="qemu", type=disk.format))
    return ET.tostring(root, encoding="unicode")


def fresh(vm: VmRef, disks: Sequence[DiskImage], hardware: Hardware, *, kvm: bool, arm: bool = False) -> str:
    """A plain definition for a host that has none. Raises Refused without memory or vCPUs."""
    if hardware.memory_mib is None or hardware.vcpus is None:
        raise Refused(
            f"this host has no definition of {vm.vm}, and its memory and vCPUs are not known",
            "Give hardware.memory_mib and hardware.vcpus.",
        )
    root = ET.Element("domain", type="kvm" if kvm else "qemu")
    ET.SubElement(root, "name").text = vm.vm
    if vm.uuid:
        ET.SubElement(root, "uuid").text = vm.uuid
    ET.SubElement(root, "memory", unit="MiB").text = str(hardware.memory_mib)
    ET.SubElement(root, "vcpu").text = str(hardware.vcpus)
    system = ET.SubElement(root, "os", {"firmware": "efi"} if hardware.firmware == "uefi" else {})
    kind = {"arch": "aarch64", "machine": "virt"} if arm else {"arch": "x86_64", "machine": "q35"}
    ET.SubElement(system, "type", kind).text = "hvm"
    if not arm:
        ET.SubElement(ET.SubElement(root, "features"), "acpi")
    if kvm:
        ET.SubElement(root, "cpu", mode="host-model")
    devices = ET.SubElement(root, "devices")
    for disk in disks:
        element = ET.SubElement(devices, "disk", type="file", device="disk")
        ET.SubElement(element, "driver", name="qemu", type=disk.format)
        ET.SubElement(element, "source", file=disk.path)
        ET.SubElement(element, "target", dev=disk.target, bus="virtio")
    for kind_of, name in (("network", hardware.network), ("bridge", hardware.bridge)):
        if name:
            card = ET.SubElement(devices, "interface", type=kind_of)
            ET.SubElement(card, "source", {kind_of: name})
            ET.SubElement(card, "model", type="virtio")
    ET.SubElement(ET.SubElement(devices, "serial", type="pty"), "target", port="0")
    ET.SubElement(ET.SubElement(devices, "console", type="pty"), "target", type="serial", port="0")
    return ET.tostring(root, encoding="unicode")


def definition(session: Session, vm: VmRef) -> str | None:
    """What this host has of the VM, as text that it can be defined by again."""
    domain = session.find(vm)
    return session.call(f"read VM {vm.vm}", lambda _: domain.XMLDesc(AS_DEFINED)) if domain is not None else None


def define(session: Session, vm: VmRef, disks: Sequence[DiskImage], make: Callable[[], str]) -> None:
    """Define the VM with these images; `make` gives the definition where there is none. Raises Refused while it is
    alive here with other images, or when another VM has its name."""
    kept = Path(f"{disks[0].path}{SUFFIX}")
    named = session.find(VmRef(vm=vm.vm))
    if named is not None and vm.uuid and named.UUIDString() != vm.uuid:
        raise Refused(
            f"this host has another VM of the name {vm.vm}, {named.UUIDString()}", "Rename it, or undefine it."
        )
    before = definition(session, vm)
    mine = before is not None and disks[0].path in _images(before)
    if alive(session, vm):
        if mine:
            return
        raise Refused(f"VM {vm.vm} is alive on this host", "Find out which copy is the VM.")
    if not kept.exists():
        _keep(kept, before or "")
    wanted = rebuilt(before, disks) if before else make()
    domain = session.call(f"define VM {vm.vm}", lambda connection: connection.defineXML(wanted))
    session.call(f"take autostart from VM {vm.vm}", lambda _: domain.setAutostart(0))


def start(session: Session, vm: VmRef, disks: Sequence[DiskImage], attempt: int = 0) -> None:
    """Let it run, with a way back for its images. Raises Refused when it does not use them, or when this cut-over was
    undone meanwhile: a step that slow storage held up must not start a second copy."""
    domain = session.get(vm)
    if _state(session, vm, domain) not in OFF:
        return
    used = _images(definition(session, vm))
    if not all(disk.path in used for disk in disks):
        raise Refused(f"VM {vm.vm} was defined anew meanwhile, without the images that came", "Find out by whom.")
    for disk in disks:
        safepoint.make(disk.path)
    if attempt and _ended(disks) >= attempt:
        raise Refused(f"cut-over {attempt} of VM {vm.vm} was undone; it is not started", "Nothing to do.")
    session.call(f"start VM {vm.vm}", lambda _: domain.create())


def is_off(session: Session, vm: VmRef) -> bool:
    return not alive(session, vm)


def end(session: Session, vm: VmRef, disks: Sequence[DiskImage] = (), attempt: int = 0) -> None:
    """Returns when no QEMU of it is here; its definition stays. With the number of a cut-over, none up to that one
    starts it any more."""
    if attempt and disks and _ended(disks) < attempt:
        _keep(Path(f"{disks[0].path}{ENDED}"), str(attempt))
    domain = session.find(vm)
    if domain is None:
        return
    try:
        session.call(f"take autostart from VM {vm.vm}", lambda _: domain.setAutostart(0))
        cut_power(session, vm)
    except Exception as error:
        if code_of(error) != NO_DOMAIN:
            raise
    until = time.monotonic() + GONE_WITHIN
    while not is_off(session, vm):
        if time.monotonic() > until:
            raise HostUnavailable(f"VM {vm.vm} does not end", "It is tried again.")
        time.sleep(0.1)


def accept(session: Session, vm: VmRef, disks: Sequence[DiskImage], autostart: bool) -> None:
    """The images are the VM's own from now on: there is no way back for them any more."""
    domain = session.find(vm)
    running = domain is not None and _state(session, vm, domain) not in OFF
    for disk in disks:
        if not Path(disk.path).exists():
            continue
        if running and domain is not None:
            _drop_in_use(session, domain, disk.path)
        else:
            safepoint.drop(disk.path)
    if domain is not None:
        session.call(f"set autostart of VM {vm.vm}", lambda _: domain.setAutostart(int(autostart and running)))
    if disks:
        Path(f"{disks[0].path}{SUFFIX}").unlink(missing_ok=True)


def undo(session: Session, vm: VmRef, disks: Sequence[DiskImage]) -> None:
    """Define what was defined before, or nothing. Refuses while the VM is alive with these images."""
    if not disks or not (kept := Path(f"{disks[0].path}{SUFFIX}")).exists():
        return
    domain, before = session.find(vm), kept.read_text()
    mine = disks[0].path in _images(definition(session, vm))
    if mine and alive(session, vm):
        raise Refused(f"VM {vm.vm} runs on the images that came; nothing was removed", "Find out which copy it is.")
    if before:
        session.call(f"define VM {vm.vm} as before", lambda connection: connection.defineXML(before))
    elif mine and domain is not None:
        session.call(f"undefine VM {vm.vm}", lambda _: domain.undefineFlags(2 | 4 | 16))
    kept.unlink()


def _drop_in_use(session: Session, domain: Domain, path: str) -> None:
    """QEMU has the image open: only QEMU may change its snapshots."""
    for block in session.call("ask QEMU for its disks", lambda _: _qmp(domain, "query-block")):
        inserted = block.get("inserted") or {}
        image = inserted.get("image") or {}
        if path not in (inserted.get("file"), image.get("filename")):
            continue
        if any(each.get("name") == safepoint.NAME for each in image.get("snapshots", ())):
            node = str(inserted["node-name"])
            session.call("drop the way back", lambda _: _delete(domain, node))  # noqa: B023  # called at once


def _delete(domain: Domain, node: str) -> None:
    _qmp(domain, "blockdev-snapshot-delete-internal-sync", device=node, name=safepoint.NAME)


def _qmp(domain: Domain, command: str, **arguments: Any) -> Any:
    told = json.loads(ask_qemu(domain, json.dumps({"execute": command, "arguments": arguments})))
    if "error" in told:
        raise Refused(f"QEMU refuses {command}: {told['error'].get('desc')}", "Its log on this host says more.")
    return told["return"]


def _disks(root: ET.Element) -> list[ET.Element]:
    """Those that its guest writes to."""
    return [
        disk
        for disk in root.iterfind("devices/disk")
        if disk.get("device", "disk") == "disk" and disk.find("readonly") is None
    ]


def _ended(disks: Sequence[DiskImage]) -> int:
    try:
        return int(Path(f"{disks[0].path}{ENDED}").read_text())
    except FileNotFoundError:
        return 0


def _images(domain_xml: str | None) -> set[str]:
    if domain_xml is None:
        return set()
    return {source.get("file", "") for disk in _disks(ET.fromstring(domain_xml)) for source in disk.iter("source")}


def _state(session: Session, vm: VmRef, domain: Domain) -> str:
    def ask(_: Connection) -> str:
        number = domain.state()[0]
        return STATES[number] if number < len(STATES) else "unknown"

    try:
        return session.call(f"look at VM {vm.vm}", ask)
    except Exception as error:
        if code_of(error) == NO_DOMAIN:
            return "shutoff"
        raise


def _keep(path: Path, text: str) -> None:
    """Secrets may stand in a definition."""
    part = path.with_name(f"{path.name}.new")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)
