"""May this host take this VM? The table of rules: what is checked, how bad it is, why, and what to do about it.

Each check is a pure function of the VM's sheet and the facts of this host (clouds/kvm/rules/). The workflows turn
blockers into refusals, and a plan shows them as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from clouds.kvm.facts import HostFacts
from clouds.kvm.rules import machine, storage, surroundings
from models.host import Finding, Findings, VmSheet

Severity = Literal["blocker", "warning"]


@dataclass(frozen=True)
class Rule:
    id: str
    severity: Severity
    check: Callable[[VmSheet, HostFacts], str]
    """What is wrong, or an empty string."""
    why: str
    """Why that matters, whatever VM it is."""
    remedy: str


RULES: tuple[Rule, ...] = (
    Rule(
        "host-uuid",
        "blocker",
        machine.distinct_host,
        "libvirt takes two hosts of one uuid for the same host and refuses the move.",
        "Set a host_uuid of its own in libvirtd.conf of each host.",
    ),
    Rule(
        "already-there",
        "blocker",
        machine.not_here_already,
        "libvirt refuses a second VM of that name or uuid, and two copies of a VM are never made.",
        "Remove or rename that VM, or choose another host.",
    ),
    Rule(
        "room",
        "blocker",
        machine.room,
        "A host that runs out of memory kills VMs.",
        "Free memory there, choose another host, or lower memory_reserve_mib.",
    ),
    Rule(
        "huge-pages",
        "blocker",
        machine.huge_pages,
        "QEMU does not start there without all of them.",
        "Reserve more there (vm.nr_hugepages), or choose another host.",
    ),
    Rule(
        "numa",
        "blocker",
        machine.memory_nodes,
        "libvirt cannot bind the VM's memory to nodes that do not exist.",
        "Loosen numatune (mode preferred), or choose a host with these nodes.",
    ),
    Rule(
        "cpu-pinning",
        "blocker",
        machine.pinned_cpus,
        "libvirt cannot pin a vCPU to a CPU that does not exist.",
        "Change the pinning (virsh vcpupin, emulatorpin), or choose a host with these CPUs.",
    ),
    Rule(
        "memory-device",
        "blocker",
        machine.memory_of_the_host,
        "What such memory holds stays on its host.",
        "Detach it, or move the VM while it is off.",
    ),
    Rule(
        "machine",
        "blocker",
        machine.machine_known,
        "The same machine type has to be there: it is the guest's hardware.",
        "Choose a host whose QEMU has this machine type and virt type.",
    ),
    Rule(
        "cpu",
        "blocker",
        machine.cpu_offered,
        "A guest that uses a feature which is gone crashes.",
        "Choose a host with these features, or give the VM an older CPU model.",
    ),
    Rule(
        "cpu-unnamed",
        "warning",
        machine.cpu_named,
        "Such a CPU is whatever its host has, and nobody can tell whether the guest survives another.",
        "Make sure both hosts have the same CPU, or name a CPU model.",
    ),
    Rule(
        "storage",
        "blocker",
        storage.same_storage,
        "The VM would find other data, or none, under its disks.",
        "Put the disks on storage both hosts mount at the same path, or use disks copy.",
    ),
    Rule(
        "disk-format",
        "blocker",
        storage.format_moves,
        "QEMU refuses to migrate while such an image is open for writing.",
        "Convert it to qcow2 or raw (qemu-img convert) while the VM is off.",
    ),
    Rule(
        "disk-cache",
        "blocker",
        storage.cache_is_flushed,
        "Nothing is flushed in this mode, so the destination may read what was there before.",
        "Set cache none (or any mode but unsafe), and restart the VM.",
    ),
    Rule(
        "snapshots",
        "blocker",
        storage.no_snapshots,
        "libvirt refuses to move a VM with snapshots: it does not carry them.",
        "Delete them, or only what libvirt knows of them (virsh snapshot-delete --metadata).",
    ),
    Rule(
        "disk-copy",
        "blocker",
        storage.copy_possible,
        "An image is made only where nothing is, and only if it fits.",
        "Make room, or move what is in the way; NovaCron overwrites nothing.",
    ),
    Rule(
        "disk-growth",
        "warning",
        storage.copy_may_grow,
        "A guest whose disk cannot grow any more stops with an I/O error.",
        "Make room there before the guest writes that much.",
    ),
    Rule(
        "network",
        "blocker",
        surroundings.networks_there,
        "libvirt does not start a VM there whose network is missing.",
        "Define and start it there under the same name (virsh net-start, ip link), or choose another host.",
    ),
    Rule(
        "protection",
        "blocker",
        surroundings.network_trusted,
        "Guest memory holds every secret of the guest.",
        "Use protection tls, or set trusted_network on both hosts.",
    ),
    Rule(
        "certificate",
        "blocker",
        surroundings.certificates_valid,
        "The two ends of the data path would not let each other in.",
        "Renew it (docs/operations.md, section 1); nothing has to be restarted.",
    ),
    Rule(
        "certificate-soon",
        "warning",
        surroundings.certificates_last,
        "From then on no data path is opened, and a lost link cannot be dialled again.",
        "Renew it (docs/operations.md, section 1); nothing has to be restarted.",
    ),
    Rule(
        "post-copy",
        "blocker",
        machine.post_copy_possible,
        "QEMU fetches missing pages by userfaultfd.",
        "Set vm.unprivileged_userfaultfd=1 there, or use mode pre-copy.",
    ),
    Rule(
        "post-copy-pages",
        "warning",
        machine.post_copy_in_small_pages,
        "In post-copy a guest that touches a missing page waits for all of that page.",
        "Use mode pre-copy, or give the VM smaller pages.",
    ),
    Rule(
        "host-devices",
        "blocker",
        surroundings.nothing_of_the_host,
        "A device of the host stays on its host.",
        "Detach these devices, or move the VM while it is off.",
    ),
    Rule(
        "tpm",
        "blocker",
        surroundings.tpm_moves,
        "The guest's keys live in its TPM, and have to arrive with it.",
        "Install swtpm there for backend emulator; a TPM that is passed through cannot move.",
    ),
    Rule(
        "qemu-older",
        "blocker",
        machine.qemu_not_older,
        "QEMU does not migrate backwards.",
        "Update QEMU there first.",
    ),
    Rule(
        "qemu-newer",
        "warning",
        machine.qemu_not_newer,
        "QEMU does not migrate backwards: this move has no way back until the source is updated too.",
        "Update the source as well, soon.",
    ),
    Rule(
        "libvirt-older",
        "warning",
        machine.libvirt_not_older,
        "A newer libvirt may describe the VM in words that an older one does not know; it refuses then, harmlessly.",
        "Update libvirt there.",
    ),
    Rule(
        "state-room",
        "blocker",
        surroundings.state_has_room,
        "A data path without its files cannot be found again after a crash.",
        "Make room on the file system of state_dir (/run/novacron).",
    ),
    Rule(
        "store-room",
        "warning",
        surroundings.store_has_room,
        "A VM that comes back then sends everything again.",
        "Make room there, or set store.limit_mib to 0.",
    ),
)


def examine(sheet: VmSheet, facts: HostFacts) -> Findings:
    """All findings of all rules, in the table's order."""
    return Findings(
        items=tuple(
            Finding(id=rule.id, severity=rule.severity, what=what[:4000], remedy=rule.remedy, why=rule.why)
            for rule in RULES
            if (what := rule.check(sheet, facts))
        ),
        copies=storage.copies(sheet, facts),
    )
