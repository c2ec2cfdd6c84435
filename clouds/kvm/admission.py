"""May this host take this VM? A table of rules; each is a pure function of the VM's sheet and the facts of this host.

`host_facts` asks libvirt and the kernel, once, for everything the rules look at. A rule answers with what is wrong, in
one sentence, or with nothing. A rule that cannot know says so as a finding; it never passes for want of an answer.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clouds.kvm.connection import Connection, Session, code_of, text_of
from clouds.kvm.disks import Place, obstacle
from clouds.kvm.identity import identity
from clouds.kvm.inventory import host_report, qemu_owner
from models.disks import DiskImage
from models.host import DiskReport, Finding, Findings, HostReport, HostSettings, VmSheet

COMPARE_CPU_FAIL_INCOMPATIBLE = 1


@dataclass(frozen=True)
class HostFacts:
    """What a destination knows of itself, and how it sees what the sheet names."""

    report: HostReport
    memory_reserve_mib: int = 0
    domain_error: str = ""
    """Why its QEMU cannot run this emulator, machine and virt type; empty when it can."""
    cpu_error: str = ""
    """Why it cannot offer the VM's CPU; empty when it can."""
    disks: dict[str, str] = field(default_factory=dict)
    """Identity of each of the sheet's paths as seen here."""
    places: dict[str, Place] = field(default_factory=dict)
    """Where images would go that have to be copied."""
    trusted_network: bool = False
    post_copy_error: str = ""
    """Why its QEMU cannot take a VM in post-copy; empty when it can, or when that is not known."""


@dataclass(frozen=True)
class Rule:
    id: str
    severity: Literal["blocker", "warning"]
    check: Callable[[VmSheet, HostFacts], str]
    """What is wrong, or an empty string."""
    remedy: str


def distinct_host(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.host_uuid and sheet.host_uuid == facts.report.uuid:
        return f"{sheet.host} and {facts.report.host} have the same libvirt host uuid {sheet.host_uuid}"
    return ""


def room(sheet: VmSheet, facts: HostFacts) -> str:
    needed = sheet.vm.memory_mib + facts.memory_reserve_mib
    free = facts.report.memory_free_mib
    if free < needed:
        return (
            f"{facts.report.host} has {free} MiB of memory available, and {sheet.vm.name} needs "
            f"{sheet.vm.memory_mib} MiB with {facts.memory_reserve_mib} MiB kept in reserve"
        )
    return ""


def not_here_already(sheet: VmSheet, facts: HostFacts) -> str:
    for vm in facts.report.vms:
        if vm.uuid == sheet.vm.uuid or vm.name == sheet.vm.name:
            return f"{facts.report.host} already has a VM {vm.name} ({vm.uuid}), {vm.state}"
    return ""


def machine_known(sheet: VmSheet, facts: HostFacts) -> str:
    return f"{facts.report.host} cannot run {sheet.machine}: {facts.domain_error}" if facts.domain_error else ""


def cpu_offered(sheet: VmSheet, facts: HostFacts) -> str:
    return f"{facts.report.host} cannot offer the VM's CPU: {facts.cpu_error}" if facts.cpu_error else ""


def cpu_named(sheet: VmSheet, facts: HostFacts) -> str:
    """host-passthrough and maximum mean "what there is": libvirt finds them acceptable everywhere.

    Under TCG that is a property of the QEMU version alone, so the same version gives the same CPU.
    """
    mode = ET.fromstring(sheet.cpu_xml).get("mode", "") if sheet.cpu_xml else ""
    if mode not in ("host-passthrough", "maximum"):
        return ""
    if sheet.virt_type == "qemu" and sheet.qemu_version == facts.report.qemu_version:
        return ""
    return f"{sheet.vm.name} has CPU mode {mode}, so its CPU cannot be compared with that of {facts.report.host}"


def seen_alike(disk: DiskReport, facts: HostFacts) -> bool:
    return bool(disk.identity) and facts.disks.get(disk.path, "") == disk.identity


def copies(sheet: VmSheet, facts: HostFacts) -> tuple[DiskImage, ...]:
    """Images to copy, where the policy wants that. A base below an image goes with it: a copy has no base."""
    if sheet.policy.disks != "copy":
        return ()
    return tuple(disk.image for disk in sheet.disks if disk.image and not disk.readonly and not seen_alike(disk, facts))


def same_storage(sheet: VmSheet, facts: HostFacts) -> str:
    copied = {image.target for image in copies(sheet, facts)}
    strange = []
    for disk in sheet.disks:
        if disk.target.split(".")[0] in copied:
            continue
        here = facts.disks.get(disk.path, "")
        if not disk.identity:
            strange.append(f"{disk.target} {disk.path} could not be identified on {sheet.host}")
        elif not here:
            strange.append(f"{disk.target} {disk.path} does not exist on {facts.report.host}")
        elif here != disk.identity:
            strange.append(f"{disk.target} {disk.path} is a different file on {facts.report.host}")
    return "; ".join(strange)


def copy_possible(sheet: VmSheet, facts: HostFacts) -> str:
    images = {image.target for image in copies(sheet, facts)}
    wanted = [disk for disk in sheet.disks if disk.target in images]
    return "; ".join(why for disk in wanted if (why := obstacle(disk, facts.places.get(disk.path, Place()))))


def copy_may_grow(sheet: VmSheet, facts: HostFacts) -> str:
    tight = [
        f"{image.target} {image.path} may grow to {image.capacity >> 20} MiB, and {place.free >> 20} MiB are free there"
        for image in copies(sheet, facts)
        if image.allocated <= (place := facts.places.get(image.path, Place())).free < image.capacity
    ]
    return "; ".join(tight)


def network_trusted(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.policy.protection != "none":
        return ""
    wary = [
        host
        for host, trusts in ((sheet.host, sheet.trusted_network), (facts.report.host, facts.trusted_network))
        if not trusts
    ]
    return (
        f"protection none was asked for, and the settings of {' and '.join(wary)} do not trust the network"
        if wary
        else ""
    )


def post_copy_possible(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.policy.mode == "pre-copy" or not facts.post_copy_error:
        return ""
    return f"{facts.report.host} cannot take a VM in post-copy: {facts.post_copy_error}"


def nothing_of_the_host(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.host_devices:
        return f"{sheet.vm.name} holds devices of {sheet.host}: {'; '.join(sheet.host_devices)}"
    return ""


def qemu_not_older(sheet: VmSheet, facts: HostFacts) -> str:
    here, there = _numbers(facts.report.qemu_version)[:2], _numbers(sheet.qemu_version)[:2]
    if here < there:
        return (
            f"QEMU {facts.report.qemu_version} of {facts.report.host} is older than "
            f"{sheet.qemu_version} of {sheet.host}"
        )
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


RULES: tuple[Rule, ...] = (
    Rule("host-uuid", "blocker", distinct_host, "Set a host_uuid of its own in libvirtd.conf of each host."),
    Rule("already-there", "blocker", not_here_already, "Remove or rename that VM, or choose another host."),
    Rule("room", "blocker", room, "Free memory there, choose another host, or lower memory_reserve_mib."),
    Rule("machine", "blocker", machine_known, "Choose a host whose QEMU has this machine type and virt type."),
    Rule("cpu", "blocker", cpu_offered, "Choose a host with these features, or give the VM an older CPU model."),
    Rule("cpu-unnamed", "warning", cpu_named, "Make sure both hosts have the same CPU, or name a CPU model."),
    Rule(
        "storage",
        "blocker",
        same_storage,
        "Put the disks on storage both hosts mount at the same path, or use disks copy.",
    ),
    Rule("disk-copy", "blocker", copy_possible, "Make room, or move what is in the way; NovaCron overwrites nothing."),
    Rule("disk-growth", "warning", copy_may_grow, "Make room there before the guest writes that much."),
    Rule("protection", "blocker", network_trusted, "Use protection tls, or set trusted_network on both hosts."),
    Rule("post-copy", "blocker", post_copy_possible, "Set vm.unprivileged_userfaultfd=1 there, or use mode pre-copy."),
    Rule("host-devices", "blocker", nothing_of_the_host, "Detach these devices, or move the VM while it is off."),
    Rule("qemu-older", "blocker", qemu_not_older, "Update QEMU there first: QEMU does not migrate backwards."),
)


def examine(sheet: VmSheet, facts: HostFacts) -> Findings:
    """All findings of all rules, in the table's order."""
    return Findings(
        items=tuple(
            Finding(id=rule.id, severity=rule.severity, what=what[:4000], remedy=rule.remedy)
            for rule in RULES
            if (what := rule.check(sheet, facts))
        ),
        copies=copies(sheet, facts),
    )


def host_facts(session: Session, settings: HostSettings, sheet: VmSheet) -> HostFacts:
    return HostFacts(
        report=host_report(session, settings),
        memory_reserve_mib=settings.memory_reserve_mib,
        domain_error=session.call("ask for domain capabilities", lambda c: _domain_error(c, sheet)),
        cpu_error=session.call("compare the VM's CPU", lambda c: _cpu_error(c, sheet)),
        disks={disk.path: identity(disk.path) for disk in sheet.disks},
        places={disk.path: Place.of(disk.path) for disk in sheet.disks if disk.image},
        trusted_network=settings.trusted_network,
        post_copy_error=_post_copy_error(qemu_owner(session)[0]) if sheet.policy.mode != "pre-copy" else "",
    )


def _post_copy_error(user: int) -> str:
    """QEMU fetches missing pages by userfaultfd(2), which its user has to be allowed."""
    allowed = Path("/proc/sys/vm/unprivileged_userfaultfd")
    if user == 0 or not allowed.exists() or allowed.read_text().strip() == "1" or Path("/dev/userfaultfd").exists():
        return ""
    return f"QEMU runs there as user {user}, and vm.unprivileged_userfaultfd is 0"


def _domain_error(connection: Connection, sheet: VmSheet) -> str:
    try:
        connection.getDomainCapabilities(sheet.emulator or None, sheet.arch, sheet.machine, sheet.virt_type, 0)
    except Exception as error:
        if code_of(error) and connection.isAlive():
            return text_of(error)
        raise
    return ""


def _cpu_error(connection: Connection, sheet: VmSheet) -> str:
    if not sheet.cpu_xml:
        return ""  # QEMU's default CPU of the machine type, which `machine` covers
    try:
        # Without VALIDATE_XML: the element comes from libvirt itself, perhaps a newer one with new attributes.
        connection.compareHypervisorCPU(
            sheet.emulator or None,
            sheet.arch,
            sheet.machine,
            sheet.virt_type,
            sheet.cpu_xml,
            COMPARE_CPU_FAIL_INCOMPATIBLE,
        )
    except Exception as error:
        if code_of(error) and connection.isAlive():
            return text_of(error)
        raise
    return ""
