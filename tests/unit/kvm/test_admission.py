"""Each rule of admission, with a VM that fits and one that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clouds.kvm.admission import RULES, examine
from clouds.kvm.disks import Place
from clouds.kvm.facts import HostFacts
from models.disks import DiskImage
from models.host import DiskReport, HostReport, VmReport, VmSheet
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
    ("a CPU that is all another TCG has", sheet(cpu_xml=MAXIMUM), facts(qemu_version="8.0.0"), "cpu-unnamed"),
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


def test_a_newer_qemu_and_a_newer_patch_release_are_fine() -> None:
    assert found(SHEET, facts(qemu_version="7.2.1")) == []
    assert found(SHEET, facts(qemu_version="10.0.0")) == []


def test_findings_say_what_is_wrong_with_figures_and_what_to_do() -> None:
    (finding,) = examine(SHEET, facts(memory_free_mib=100)).items
    assert finding.severity == "blocker"
    assert "100 MiB" in finding.what
    assert "512 MiB" in finding.what
    assert finding.remedy
