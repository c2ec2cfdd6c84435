"""The virtual machine itself: its host, CPU, memory, and the programs that run it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from clouds.kvm.facts import HostFacts
from models.host import VmSheet

GIB_PAGE_KIB = 1 << 20


def distinct_host(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.host_uuid and sheet.host_uuid == facts.report.uuid:
        return f"{sheet.host} and {facts.report.host} have the same libvirt host uuid {sheet.host_uuid}"
    return ""


def not_here_already(sheet: VmSheet, facts: HostFacts) -> str:
    for vm in facts.report.vms:
        if vm.uuid == sheet.vm.uuid or vm.name == sheet.vm.name:
            return f"{facts.report.host} already has a VM {vm.name} ({vm.uuid}), {vm.state}"
    return ""


def room(sheet: VmSheet, facts: HostFacts) -> str:
    """Huge pages are taken from a pool of their own, which the kernel does not count as available."""
    wanted = 0 if sheet.backing.page_kib else sheet.vm.memory_mib
    needed, free = wanted + facts.memory_reserve_mib, facts.report.memory_free_mib
    if free < needed:
        return (
            f"{facts.report.host} has {free} MiB of memory available, and {sheet.vm.name} needs "
            f"{wanted} MiB with {facts.memory_reserve_mib} MiB kept in reserve"
        )
    return ""


def huge_pages(sheet: VmSheet, facts: HostFacts) -> str:
    size = sheet.backing.page_kib
    if not size:
        return ""
    needed, free = -(-sheet.vm.memory_mib * 1024 // size), facts.huge_pages.get(size, 0)
    if free < needed:
        return f"{sheet.vm.name} needs {needed} huge pages of {size} KiB, and {facts.report.host} has {free} free"
    return ""


def memory_nodes(sheet: VmSheet, facts: HostFacts) -> str:
    missing = sorted(set(sheet.backing.nodes) - facts.nodes)
    if missing:
        return f"{sheet.vm.name} is bound to NUMA nodes {_list(missing)}, which {facts.report.host} does not have"
    return ""


def pinned_cpus(sheet: VmSheet, facts: HostFacts) -> str:
    missing = sorted(set(sheet.backing.cpus) - facts.cpus)
    if missing:
        return f"{sheet.vm.name} is pinned to CPUs {_list(missing)}, which {facts.report.host} does not have"
    return ""


def memory_of_the_host(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.backing.devices:
        return f"{sheet.vm.name} has memory that is a file of {sheet.host}: {'; '.join(sheet.backing.devices)}"
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


def qemu_not_older(sheet: VmSheet, facts: HostFacts) -> str:
    if release(facts.report.qemu_version) < release(sheet.qemu_version):
        return _versions("QEMU", sheet.qemu_version, sheet.host, facts.report.qemu_version, facts.report.host, "older")
    return ""


def qemu_not_newer(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.qemu_version and release(facts.report.qemu_version) > release(sheet.qemu_version):
        return _versions("QEMU", sheet.qemu_version, sheet.host, facts.report.qemu_version, facts.report.host, "newer")
    return ""


def libvirt_not_older(sheet: VmSheet, facts: HostFacts) -> str:
    there = sheet.standing.libvirt_version if sheet.standing else ""
    if there and release(facts.report.libvirt_version) < release(there):
        return _versions("libvirt", there, sheet.host, facts.report.libvirt_version, facts.report.host, "older")
    return ""


def post_copy_possible(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.policy.mode == "pre-copy" or not facts.post_copy_error:
        return ""
    return f"{facts.report.host} cannot take a VM in post-copy: {facts.post_copy_error}"


def post_copy_in_small_pages(sheet: VmSheet, facts: HostFacts) -> str:
    if sheet.policy.mode == "pre-copy" or sheet.backing.page_kib < GIB_PAGE_KIB:
        return ""
    return f"{sheet.vm.name} has huge pages of {sheet.backing.page_kib >> 20} GiB, and may move in post-copy"


def release(version: str) -> tuple[int, ...]:
    """(major, minor): what QEMU and libvirt promise compatibility by."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())[:2]


def _versions(what: str, there: str, host: str, here: str, destination: str, how: str) -> str:
    return f"{what} {here} of {destination} is {how} than {there} of {host}"


def _list(values: list[int]) -> str:
    return ", ".join(map(str, values[:8])) + (" ..." if len(values) > 8 else "")
