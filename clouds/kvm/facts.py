"""What a destination knows of itself and how it sees what a VM's sheet names: asked of libvirt and the kernel once, for
all rules. Nothing is decided here.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from clouds.kvm.connection import Connection, Session, code_of, text_of
from clouds.kvm.disks import Place
from clouds.kvm.identity import identity
from clouds.kvm.inventory import host_report, qemu_owner
from models.host import HostReport, HostSettings, HostStanding, VmSheet

COMPARE_CPU_FAIL_INCOMPATIBLE = 1
_NETWORKS = Path("/sys/class/net")
_NODES = Path("/sys/devices/system/node/online")
_CPUS = Path("/sys/devices/system/cpu/online")
_PAGES = Path("/sys/kernel/mm/hugepages")


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
    networks: frozenset[str] = frozenset()
    """libvirt's networks that are active."""
    devices: frozenset[str] = frozenset()
    """Network devices of this host: bridges, cards."""
    tpm_backends: frozenset[str] = frozenset()
    """TPM backends its libvirt and QEMU offer."""
    huge_pages: dict[int, int] = field(default_factory=dict)
    """Free huge pages, by their size in KiB."""
    nodes: frozenset[int] = frozenset({0})
    """NUMA nodes that are online."""
    cpus: frozenset[int] = frozenset({0})
    """CPUs that are online."""
    standing: HostStanding | None = None
    """Its own."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


def host_facts(
    session: Session, settings: HostSettings, sheet: VmSheet, standing: HostStanding | None = None
) -> HostFacts:
    domain_error, tpm_backends = session.call("ask for domain capabilities", lambda c: _domain(c, sheet))
    return HostFacts(
        report=host_report(session, settings),
        memory_reserve_mib=settings.memory_reserve_mib,
        domain_error=domain_error,
        cpu_error=session.call("compare the VM's CPU", lambda c: _cpu_error(c, sheet)),
        disks={disk.path: identity(disk.path) for disk in sheet.disks},
        places={disk.path: Place.of(disk.path) for disk in sheet.disks if disk.image},
        trusted_network=settings.trusted_network,
        post_copy_error=_post_copy_error(qemu_owner(session)[0]) if sheet.policy.mode != "pre-copy" else "",
        networks=session.call("list libvirt's networks", _networks) if sheet.interfaces else frozenset(),
        devices=frozenset(entry.name for entry in _NETWORKS.iterdir()) if sheet.interfaces else frozenset(),
        tpm_backends=tpm_backends,
        huge_pages=free_huge_pages(_PAGES),
        nodes=numbers(_NODES.read_text()) if _NODES.exists() else frozenset({0}),
        cpus=numbers(_CPUS.read_text()),
        standing=standing,
    )


def numbers(listed: str) -> frozenset[int]:
    """A kernel's or libvirt's list of numbers: "0-2,^1,7" is 0, 2 and 7."""
    found: set[int] = set()
    for part in filter(None, (word.strip() for word in listed.split(","))):
        first, _, last = part.removeprefix("^").partition("-")
        span = range(int(first), int(last or first) + 1)
        found = found - set(span) if part.startswith("^") else found | set(span)
    return frozenset(found)


def free_huge_pages(folder: Path) -> dict[int, int]:
    """Size in KiB -> free pages, from the kernel's /sys/kernel/mm/hugepages."""
    found = {}
    for entry in _entries(folder):
        size = entry.name.removeprefix("hugepages-").removesuffix("kB")
        if size.isdigit():
            found[int(size)] = int((entry / "free_hugepages").read_text())
    return found


def _entries(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()


def _networks(connection: Connection) -> frozenset[str]:
    try:
        return frozenset(network.name() for network in connection.listAllNetworks() if network.isActive())
    except Exception as error:
        if code_of(error) and connection.isAlive():
            return frozenset()  # a libvirtd without the network driver has none
        raise


def _post_copy_error(user: int) -> str:
    """QEMU fetches missing pages by userfaultfd(2), which its user has to be allowed."""
    allowed = Path("/proc/sys/vm/unprivileged_userfaultfd")
    if user == 0 or not allowed.exists() or allowed.read_text().strip() == "1" or Path("/dev/userfaultfd").exists():
        return ""
    return f"QEMU runs there as user {user}, and vm.unprivileged_userfaultfd is 0"


def _domain(connection: Connection, sheet: VmSheet) -> tuple[str, frozenset[str]]:
    """(why this host cannot run such a domain, TPM backends of those it can run)."""
    try:
        text = connection.getDomainCapabilities(sheet.emulator or None, sheet.arch, sheet.machine, sheet.virt_type, 0)
    except Exception as error:
        if code_of(error) and connection.isAlive():
            return text_of(error), frozenset()
        raise
    backends = ET.fromstring(text).iterfind("devices/tpm/enum[@name='backendModel']/value")
    return "", frozenset(backend.text or "" for backend in backends)


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
