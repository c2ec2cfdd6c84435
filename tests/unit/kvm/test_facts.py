"""What is read from the kernel, and from a domain's XML, for the rules."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from clouds.kvm.facts import free_huge_pages, numbers
from clouds.kvm.sheet import backing, interfaces, tpm
from models.host import InterfaceReport, MemoryBacking

DOMAIN = ET.fromstring("""<domain>
  <vcpu cpuset='0-1'>2</vcpu>
  <memoryBacking><hugepages>
    <page size='2' unit='MiB'/><page size='1' unit='GiB' nodeset='1'/>
  </hugepages></memoryBacking>
  <numatune><memory mode='strict' nodeset='0'/><memnode cellid='1' mode='preferred' nodeset='5'/></numatune>
  <cputune><vcpupin vcpu='0' cpuset='3'/><emulatorpin cpuset='4,5'/></cputune>
  <devices>
    <interface type='network'><mac address='m1'/><source network='default' bridge='virbr0'/></interface>
    <interface type='bridge'><mac address='m2'/><source bridge='br0'/></interface>
    <interface type='direct'><source dev='eth0' mode='bridge'/></interface>
    <interface type='user'/>
    <interface type='hostdev'/>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
    <memory model='nvdimm'><source><path>/dev/pmem0</path></source></memory>
    <memory model='dimm'><target><size>1</size></target></memory>
  </devices>
</domain>""")


@pytest.mark.parametrize(
    ("listed", "expected"), [("0", {0}), ("0-2,7\n", {0, 1, 2, 7}), ("0-3,^1", {0, 2, 3}), ("", set())]
)
def test_a_list_of_numbers_is_read(listed: str, expected: set[int]) -> None:
    assert numbers(listed) == expected


def test_what_a_vm_insists_on_is_read() -> None:
    assert backing(DOMAIN) == MemoryBacking(
        page_kib=1 << 20, nodes=(0,), cpus=(0, 1, 3, 4, 5), devices=("nvdimm /dev/pmem0",)
    )
    assert backing(ET.fromstring("<domain/>")) == MemoryBacking()
    plain = ET.fromstring("<domain><memoryBacking><hugepages/></memoryBacking></domain>")
    assert backing(plain).page_kib == 2048


def test_interfaces_name_what_they_are_plugged_into() -> None:
    assert interfaces(DOMAIN) == (
        InterfaceReport(mac="m1", kind="network", source="default"),
        InterfaceReport(mac="m2", kind="bridge", source="br0"),
        InterfaceReport(kind="direct", source="eth0"),
        InterfaceReport(kind="user"),
    )


def test_the_backend_of_a_tpm_is_read() -> None:
    assert (tpm(DOMAIN), tpm(ET.fromstring("<domain/>"))) == ("emulator", "")


def test_free_huge_pages_are_counted_by_size(tmp_path: Path) -> None:
    for size, free in ((2048, 7), (1048576, 0)):
        folder = tmp_path / f"hugepages-{size}kB"
        folder.mkdir()
        (folder / "free_hugepages").write_text(f"{free}\n")
    assert free_huge_pages(tmp_path) == {2048: 7, 1048576: 0}
    assert free_huge_pages(tmp_path / "none") == {}
