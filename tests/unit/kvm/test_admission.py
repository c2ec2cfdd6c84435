"""Each rule of admission, with a VM that fits and one that does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clouds.kvm.admission import RULES, examine
from clouds.kvm.disks import Place
from clouds.kvm.facts import HostFacts
from models.disks import DiskImage
from models.host import DiskReport, HostReport, HostStanding, InterfaceReport, MemoryBacking, VmReport, VmSheet
from models.migration import MigrationPolicy

VM = VmReport(name="web", uuid="0" * 8 + "-0000-4000-8000-" + "0" * 12, state="running", memory_mib=512, vcpus=1)
SHEET = VmSheet(
    vm=VM,
    host="host-a",
    machine="pc-q35-7.2",
    arch="x86_64",
    virt_type="qemu",
    cpu_xml="<cpu mode='custom'><model>qemu64</model></cpu>",
    qemu_version="7.2.22",
    host_uuid="a",
)
REPORT = HostReport(
    site="lab",
    host="host-b",
    uuid="b",
    libvirt_version="9.0.0",
    qemu_version="7.2.22",
    memory_total_mib=4096,
    memory_free_mib=1024,
)
FACTS = HostFacts(report=REPORT, memory_reserve_mib=256)
PASSTHROUGH, MAXIMUM = "<cpu mode='host-passthrough'/>", "<cpu mode='maximum'/>"
DISK = DiskReport(target="vda", path="/images/web.qcow2", identity="nfs4:store:/images:7")


def sheet(**changes: object) -> VmSheet:
    return SHEET.model_copy(update=changes)


def facts(
    domain_error: str = "", cpu_error: str = "", disks: dict[str, str] | None = None, **changes: object
) -> HostFacts:
    return HostFacts(REPORT.model_copy(update=changes), 256, domain_error, cpu_error, disks or {})


def found(vm: VmSheet, host: HostFacts) -> list[str]:
    return [finding.id for finding in examine(vm, host).items]


def test_a_vm_that_fits_is_admitted_without_a_word() -> None:
    assert found(SHEET, FACTS) == []


IMAGE = DiskImage(target="vda", path=DISK.path, format="qcow2", capacity=8 << 30, allocated=1 << 30)
NO_POST_COPY = replace(FACTS, post_copy_error="userfaultfd is for root")


def copied(readonly: bool = False, **image: Any) -> VmSheet:
    changed = None if image.get("image", IMAGE) is None else IMAGE.model_copy(update=image)
    disk = DISK.model_copy(update={"image": changed, "readonly": readonly})
    return sheet(disks=(disk,), policy=MigrationPolicy(disks="copy"))


def at(place: Place) -> HostFacts:
    return replace(FACTS, places={DISK.path: place})


def clear(trusted: bool) -> VmSheet:
    return sheet(policy=MigrationPolicy(protection="none"), trusted_network=trusted)


def trusting(trusted: bool) -> HostFacts:
    return replace(FACTS, trusted_network=trusted)


NOW = datetime(2027, 1, 1, tzinfo=UTC)


def backed(**how: Any) -> VmSheet:
    return sheet(backing=MemoryBacking(**how))


def plugged(kind: str, source: str) -> VmSheet:
    return sheet(interfaces=(InterfaceReport(mac="52:54:00:00:00:01", kind=kind, source=source),))


def from_(**standing: Any) -> VmSheet:
    return sheet(standing=HostStanding(host="host-a", **standing))


def to(**standing: Any) -> HostFacts:
    return replace(FACTS, standing=HostStanding(host="host-b", **standing), now=NOW)


def on(disk: DiskReport) -> tuple[VmSheet, HostFacts]:
    """The disk is one that both hosts see."""
    return sheet(disks=(disk,)), facts(disks={disk.path: disk.identity})


LARGE_PAGES = 1 << 20
UNSAFE = DISK.model_copy(update={"cache": "unsafe"})
VMDK = DISK.model_copy(update={"format": "vmdk"})

CASES: list[tuple[str, VmSheet, HostFacts, str]] = [
    ("not enough memory", SHEET, facts(memory_free_mib=767), "room"),
    ("the same host twice", SHEET, facts(uuid="a"), "host-uuid"),
    ("its name is taken", SHEET, facts(vms=(VM.model_copy(update={"uuid": "1" * 36}),)), "already-there"),
    ("its uuid is taken", SHEET, facts(vms=(VM.model_copy(update={"name": "other"}),)), "already-there"),
    ("an unknown machine type", SHEET, facts(domain_error="machine not supported"), "machine"),
    ("a CPU feature is missing", SHEET, facts(cpu_error="missing features: avx512f"), "cpu"),
    ("a disk is not there", sheet(disks=(DISK,)), FACTS, "storage"),
    ("a disk is another file", sheet(disks=(DISK,)), facts(disks={DISK.path: "boot:0:1:7"}), "storage"),
    (
        "a disk nobody could identify",
        sheet(disks=(DISK.model_copy(update={"identity": ""}),)),
        facts(disks={DISK.path: "boot:0:1:7"}),
        "storage",
    ),
    ("a device of the host", sheet(host_devices=("hostdev pci",)), FACTS, "host-devices"),
    ("a disk to copy that exists there", copied(), at(Place(exists=True, free=1 << 40)), "disk-copy"),
    ("a disk to copy without a folder", copied(), at(Place(folder=False)), "disk-copy"),
    ("a disk to copy without room", copied(), at(Place(free=(1 << 30) - 1)), "disk-copy"),
    ("a disk to copy of a strange format", copied(format="vmdk"), at(Place(free=1 << 40)), "disk-copy"),
    ("a disk to copy of unknown size", copied(capacity=0), at(Place(free=1 << 40)), "disk-copy"),
    ("a disk to copy that may outgrow its room", copied(), at(Place(free=1 << 30)), "disk-growth"),
    ("a disk to copy that is a device", copied(image=None), FACTS, "storage"),
    ("a disk to copy that is read-only", copied(readonly=True), FACTS, "storage"),
    ("in the clear, and the source does not trust the network", clear(False), trusting(True), "protection"),
    ("in the clear, and the destination does not", clear(True), trusting(False), "protection"),
    ("post-copy where QEMU may not", sheet(policy=MigrationPolicy(mode="hybrid")), NO_POST_COPY, "post-copy"),
    ("an older QEMU", SHEET, facts(qemu_version="6.2.0"), "qemu-older"),
    ("a CPU that is whatever KVM has", sheet(virt_type="kvm", cpu_xml=PASSTHROUGH), FACTS, "cpu-unnamed"),
    (
        "a CPU that is all a TCG has, and a patch of it",
        sheet(cpu_xml=MAXIMUM),
        facts(qemu_version="7.2.1"),
        "cpu-unnamed",
    ),
    ("a newer QEMU", SHEET, facts(qemu_version="8.0.0"), "qemu-newer"),
    ("an older libvirt", from_(libvirt_version="10.0.0"), FACTS, "libvirt-older"),
    ("huge pages that are not there", backed(page_kib=2048), FACTS, "huge-pages"),
    ("one huge page too few", backed(page_kib=2048), replace(FACTS, huge_pages={2048: 255}), "huge-pages"),
    ("a NUMA node that is not there", backed(nodes=(0, 1)), FACTS, "numa"),
    ("a CPU that is not there", backed(cpus=(0, 7)), FACTS, "cpu-pinning"),
    ("memory that is a file", backed(devices=("nvdimm /dev/pmem0",)), FACTS, "memory-device"),
    ("a format QEMU does not move", *on(VMDK), "disk-format"),
    ("a cache that is never flushed", *on(UNSAFE), "disk-cache"),
    ("snapshots", sheet(snapshots=2), FACTS, "snapshots"),
    ("a network that is not active", plugged("network", "default"), FACTS, "network"),
    ("a bridge that is not there", plugged("bridge", "br0"), FACTS, "network"),
    ("a card that is not there", plugged("direct", "eth1"), FACTS, "network"),
    (
        "a TPM chip of the host",
        sheet(tpm="passthrough"),
        replace(FACTS, tpm_backends=frozenset({"passthrough"})),
        "tpm",
    ),
    ("a TPM emulator that is not installed", sheet(tpm="emulator"), FACTS, "tpm"),
    ("a certificate that has expired here", SHEET, to(certificate_error="certificate has expired"), "certificate"),
    ("a certificate that has expired there", from_(certificate_error="certificate has expired"), FACTS, "certificate"),
    ("a certificate that expires soon", SHEET, to(certificate_expires=NOW + timedelta(days=6)), "certificate-soon"),
    ("no room for a data path", SHEET, to(state_free_mib=15), "state-room"),
    ("no room for the store", from_(store_free_mib=1000, store_leaves_mib=1024), FACTS, "store-room"),
    (
        "post-copy over pages of 1 GiB",
        sheet(backing=MemoryBacking(page_kib=LARGE_PAGES), policy=MigrationPolicy(mode="post-copy")),
        replace(FACTS, huge_pages={LARGE_PAGES: 1}),
        "post-copy-pages",
    ),
]


@pytest.mark.parametrize(("vm", "host", "rule"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_speaks_against_it_is_found_by_its_rule_alone(vm: VmSheet, host: HostFacts, rule: str) -> None:
    assert found(vm, host) == [rule]


def test_every_rule_has_a_case() -> None:
    assert {rule.id for rule in RULES} == {case[3] for case in CASES}


def test_a_disk_both_hosts_see_is_admitted() -> None:
    assert found(sheet(disks=(DISK,)), facts(disks={DISK.path: DISK.identity})) == []


def test_the_maximum_cpu_of_the_same_tcg_is_the_same_cpu() -> None:
    assert found(sheet(cpu_xml=MAXIMUM), FACTS) == []


def test_a_disk_that_is_not_there_is_copied_when_that_is_wanted() -> None:
    findings = examine(copied(), at(Place(free=1 << 40)))
    assert (findings.items, findings.copies) == ((), (IMAGE,))
    assert examine(copied().model_copy(update={"policy": MigrationPolicy()}), at(Place(free=1 << 40))).copies == ()


def test_a_disk_both_hosts_see_is_not_copied() -> None:
    assert examine(copied(), facts(disks={DISK.path: DISK.identity})).copies == ()


def test_a_copied_disk_takes_its_bases_along() -> None:
    base = DiskReport(target="vda.1", path="/images/base.qcow2", readonly=True)
    vm = copied()
    assert found(vm.model_copy(update={"disks": (*vm.disks, base)}), at(Place(free=1 << 40))) == []


def test_a_network_both_hosts_trust_may_be_used_in_the_clear() -> None:
    assert found(clear(True), trusting(True)) == []


def test_exactly_enough_memory_is_enough() -> None:
    assert found(SHEET, facts(memory_free_mib=768)) == []


def test_another_patch_release_of_qemu_is_fine() -> None:
    assert found(SHEET, facts(qemu_version="7.2.1")) == []


def test_findings_say_what_is_wrong_with_figures_and_what_to_do() -> None:
    (finding,) = examine(SHEET, facts(memory_free_mib=100)).items
    assert finding.severity == "blocker"
    assert "100 MiB" in finding.what
    assert "512 MiB" in finding.what
    assert finding.remedy


def test_every_finding_says_why_it_matters_and_what_to_do() -> None:
    assert all(rule.why.endswith(".") and rule.remedy.endswith(".") for rule in RULES)
    assert len({rule.id for rule in RULES}) == len(RULES)


def test_what_is_there_in_time_and_in_step_passes() -> None:
    vm = from_(
        clock_ahead=-2.0, certificate_expires=NOW + timedelta(days=8), state_free_mib=16, libvirt_version="9.0.0"
    )
    host = to(clock_ahead=2.0, certificate_expires=NOW + timedelta(days=8), store_free_mib=1025, store_leaves_mib=1024)
    assert found(vm, host) == []


def test_huge_pages_do_not_count_as_ordinary_memory() -> None:
    host = replace(facts(memory_free_mib=256), huge_pages={2048: 256})
    assert found(backed(page_kib=2048), host) == []


def test_an_unsafe_cache_of_a_disk_that_is_copied_does_not_matter() -> None:
    vm = copied()
    unsafe = vm.disks[0].model_copy(update={"cache": "unsafe"})
    assert found(vm.model_copy(update={"disks": (unsafe,)}), at(Place(free=1 << 40))) == []


def test_what_an_interface_is_plugged_into_may_be_there() -> None:
    host = replace(FACTS, networks=frozenset({"default"}), devices=frozenset({"br0"}))
    assert found(plugged("network", "default"), host) == found(plugged("bridge", "br0"), host) == []
    assert found(plugged("user", ""), FACTS) == []


def test_a_certificate_does_not_matter_in_the_clear() -> None:
    host = replace(to(certificate_error="certificate has expired"), trusted_network=True)
    assert found(clear(True), host) == []
