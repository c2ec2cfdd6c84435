"""What a host and its VMs are, as reports: read from libvirt and the kernel; nothing is decided here."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from clouds.kvm.connection import NO_DOMAIN, UNSUPPORTED, Connection, Domain, Session, code_of
from clouds.kvm.errors import Refused
from clouds.kvm.labels import labels_of
from models.host import HostReport, HostSettings, VmReport, VmSighting, VmState
from models.migration import VmRef

STATES: tuple[VmState, ...] = (
    "unknown", "running", "blocked", "paused", "shutdown", "shutoff", "crashed", "suspended",
)  # fmt: skip
"""By libvirt's virDomainState number."""
JOB_NONE = 0
MIGRATION_OUT, MIGRATION_IN = 5, 4
"""libvirt's virDomainJobOperation."""


def version(number: int) -> str:
    """libvirt packs versions as major * 1,000,000 + minor * 1,000 + release."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def memory_mib(meminfo: str) -> tuple[int, int]:
    """(total, available) MiB from /proc/meminfo. The kernel's own estimate of what can be had without swapping."""
    kib = {line.split(":")[0]: int(line.split()[1]) for line in meminfo.splitlines() if line.endswith("kB")}
    return kib["MemTotal"] // 1024, kib["MemAvailable"] // 1024


def host_report(
    session: Session, settings: HostSettings, migrations: tuple[str, ...] = (), reconciled: bool = True
) -> HostReport:
    total, available = memory_mib(Path("/proc/meminfo").read_text(encoding="ascii"))

    def ask(connection: Connection) -> HostReport:
        capabilities = ET.fromstring(connection.getCapabilities())
        return HostReport(
            site=settings.site,
            host=settings.host,
            uuid=capabilities.findtext("host/uuid", ""),
            libvirt_version=version(connection.getLibVersion()),
            qemu_version=version(connection.getVersion()),
            cpu_model=capabilities.findtext("host/cpu/model", ""),
            cpus=int(connection.getInfo()[2]),
            memory_total_mib=total,
            memory_free_mib=available,
            memory_reserve_mib=settings.memory_reserve_mib,
            vms=tuple(sorted((v for d in connection.listAllDomains() if (v := _still(d))), key=lambda v: v.name)),
            migrations=migrations,
            reconciled=reconciled,
        )

    return session.call("describe this host", ask)


def _still(domain: Domain) -> VmReport | None:
    """The VM's report, or None when it went away between listing and asking."""
    try:
        return vm_report(domain)
    except Exception as error:
        if code_of(error) == NO_DOMAIN:
            return None
        raise


def vm_report(domain: Domain) -> VmReport:
    state, reason = domain.state()[:2]
    _, _, memory_kib, vcpus, _ = domain.info()
    return VmReport(
        name=domain.name(),
        uuid=domain.UUIDString(),
        state=STATES[state] if state < len(STATES) else "unknown",
        reason=reason,
        memory_mib=memory_kib // 1024,
        vcpus=max(1, vcpus),
        persistent=bool(domain.isPersistent()),
        autostart=bool(domain.isPersistent() and domain.autostart()),
        job=job_operation(domain, STATES[state]) != 0,
        labels=labels_of(domain),
    )


def job_operation(domain: Domain, state: VmState) -> int:
    """libvirt's number of the job that runs on the VM, 0 for none, -1 for one that has no number."""
    if state in ("shutoff", "crashed"):
        return 0
    try:
        job = domain.jobStats()
    except Exception as error:
        if code_of(error) == UNSUPPORTED:  # "migration statistics are available only on the source host"
            return MIGRATION_IN
        raise
    return 0 if job.get("type", JOB_NONE) == JOB_NONE else int(job.get("operation", 0)) or -1


def look_for(session: Session, host: str, vm: VmRef) -> VmSighting:
    def ask(connection: Connection) -> VmReport | None:
        domain = session.find(vm)
        return _still(domain) if domain else None

    report = session.call(f"look for VM {vm.vm}", ask)
    return VmSighting(host=host, present=report is not None, vm=report)


def qemu_group(session: Session) -> int:
    """Group of this host's QEMU processes."""
    return qemu_owner(session)[1]


def qemu_owner(session: Session) -> tuple[int, int]:
    """Their user and group: libvirt tells it as the base of its file labels, "+UID:+GID"."""
    text = session.call("read the capabilities", lambda connection: connection.getCapabilities())
    label = ET.fromstring(text).findtext("host/secmodel[model='dac']/baselabel", "")
    try:
        user, group = label.split(":")
        return int(user), int(group)
    except ValueError:
        raise Refused(
            f"libvirt does not tell the user of its QEMU processes: its file label is {label!r}",
            "Point libvirt_socket to the system's libvirtd, which runs as root.",
        ) from None
