"""Rounds of a warm move: what libvirt is asked, and that a round is found again, ended once, and nobody else's.

The jobs and bitmaps themselves are libvirt's and QEMU's: tests/integration shows them.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clouds.kvm import backup
from clouds.kvm.backup import Round
from clouds.kvm.connection import Session
from clouds.kvm.errors import HostUnavailable, Refused
from models.disks import DiskImage
from models.migration import VmRef

VM = VmRef(vm="web")


class libvirtError(Exception):  # the name by which ours know it
    def get_error_code(self) -> int:
        return 38

    def get_error_domain(self) -> int:
        return 10

    def get_error_message(self) -> str:
        return str(self)


@dataclass
class FakeCheckpoint:
    domain: FakeDomain
    name: str

    def getName(self) -> str:
        return self.name

    def delete(self, flags: int = 0) -> int:
        self.domain.checkpoints.remove(self.name)
        return 0


@dataclass
class FakeDomain:
    """A running VM with two disks and a CD."""

    state_number: int = 1
    job: str = ""
    checkpoints: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    unusable: bool = False
    """Its bitmaps."""

    def name(self) -> str:
        return "web"

    def state(self) -> list[int]:
        return [self.state_number, 0]

    def XMLDesc(self, flags: int = 0) -> str:
        disks = "".join(f"<disk device='{kind}'><target dev='{dev}'/></disk>" for kind, dev in DEVICES)
        return f"<domain><devices>{disks}</devices></domain>"

    def backupGetXMLDesc(self, flags: int = 0) -> str:
        if not self.job:
            raise libvirtError("no domain backup job present")
        return self.job

    def backupBegin(self, backup: str, checkpoint: str | None, flags: int = 0) -> int:
        if "incremental" in backup and self.unusable:
            raise libvirtError("bitmap is inconsistent")
        self.begun.append(backup)
        self.job = backup
        if checkpoint:
            self.checkpoints.append(ET.fromstring(checkpoint).findtext("name", ""))
        return 0

    def abortJob(self) -> int:
        self.job = ""
        return 0

    def listAllCheckpoints(self, flags: int = 0) -> list[FakeCheckpoint]:
        return [FakeCheckpoint(self, name) for name in self.checkpoints]


DEVICES = (("disk", "vda"), ("disk", "vdb"), ("cdrom", "sda"))


@dataclass
class FakeConnection:
    domain: FakeDomain

    def isAlive(self) -> int:
        return 1

    def close(self) -> int:
        return 0

    def lookupByName(self, name: str) -> FakeDomain:
        return self.domain


@pytest.fixture
def domain() -> FakeDomain:
    return FakeDomain()


@pytest.fixture
def session(domain: FakeDomain) -> Session:
    return Session("/none", opener=lambda _: FakeConnection(domain))  # type: ignore[arg-type,return-value]


@pytest.fixture
def disks(tmp_path: Path) -> list[DiskImage]:
    return [
        DiskImage(target="vda", path=str(tmp_path / "a.qcow2"), format="qcow2", capacity=1 << 20),
        DiskImage(target="vdb", path=str(tmp_path / "b.raw"), format="raw", capacity=1 << 20),
    ]


def round_of(disks: list[DiskImage], number: int, base: int | None = None, move: str = "m1") -> Round:
    return Round(move, number, disks, Path(disks[0].path).parent, base)


def test_the_first_round_shows_everything_and_begins_a_bitmap_where_there_can_be_one(
    domain: FakeDomain, session: Session, disks: list[DiskImage]
) -> None:
    assert backup.begin(session, VM, round_of(disks, 0)) == ()
    assert "incremental" not in domain.begun[0]
    assert 'name="sda"' not in domain.begun[0]
    assert domain.checkpoints == ["novacron-m1-0"]
    kept = ET.fromstring(backup.checkpoint_xml(round_of(disks, 0), ["vda", "vdb"]) or "")
    assert {disk.get("name"): disk.get("checkpoint") for disk in kept.iterfind("disks/disk")} == {
        "vda": "bitmap",
        "vdb": "no",
    }


def test_later_rounds_tell_changes_and_keep_one_checkpoint(
    domain: FakeDomain, session: Session, disks: list[DiskImage]
) -> None:
    for number in range(3):
        wanted = round_of(disks, number, number - 1 if number else None)
        assert backup.begin(session, VM, wanted) == (("vda",) if number else ())
        backup.end(session, VM, wanted)
        assert domain.checkpoints == [f"novacron-m1-{number}"]
    assert domain.job == ""


def test_a_round_that_is_open_is_found_and_not_begun_again(
    domain: FakeDomain, session: Session, disks: list[DiskImage]
) -> None:
    backup.begin(session, VM, round_of(disks, 0))
    backup.begin(session, VM, round_of(disks, 0))
    assert len(domain.begun) == 1
    assert backup.is_open(session, VM, round_of(disks, 0))
    assert not backup.is_open(session, VM, round_of(disks, 1))


def test_an_earlier_round_that_nobody_ended_makes_room(
    domain: FakeDomain, session: Session, disks: list[DiskImage]
) -> None:
    backup.begin(session, VM, round_of(disks, 0))
    assert backup.begin(session, VM, round_of(disks, 1, 0)) == ("vda",)
    assert len(domain.begun) == 2


def test_bitmaps_that_cannot_be_used_cost_a_full_look_and_no_failure(
    domain: FakeDomain, session: Session, disks: list[DiskImage]
) -> None:
    backup.begin(session, VM, round_of(disks, 0))
    backup.end(session, VM, round_of(disks, 0))
    domain.unusable = True
    assert backup.begin(session, VM, round_of(disks, 1, 0)) == ()
    assert domain.checkpoints == ["novacron-m1-1"]


def test_a_backup_of_somebody_else_is_left_alone(domain: FakeDomain, session: Session, disks: list[DiskImage]) -> None:
    domain.job = "<domainbackup mode='pull'><server transport='unix' socket='/run/nightly.sock'/></domainbackup>"
    domain.checkpoints = ["nightly"]
    with pytest.raises(HostUnavailable, match="another backup"):
        backup.begin(session, VM, round_of(disks, 0))
    backup.forget(session, VM, round_of(disks, 0))
    assert domain.job
    assert domain.checkpoints == ["nightly"]


def test_what_a_move_that_died_left_open_does_not_stand_in_the_way(
    domain: FakeDomain, session: Session, disks: list[DiskImage]
) -> None:
    backup.begin(session, VM, round_of(disks, 4, move="dead"))
    backup.begin(session, VM, round_of(disks, 0))
    assert len(domain.begun) == 2
    assert domain.checkpoints == ["novacron-m1-0"]


def test_a_vm_that_is_off_has_no_round(domain: FakeDomain, session: Session, disks: list[DiskImage]) -> None:
    domain.state_number = 5
    with pytest.raises(Refused, match="Copy its images as they are"):
        backup.begin(session, VM, round_of(disks, 0))
