"""A VM comes from a cloud to a host: what is asked, and what each step is told and tells. Sizes in bytes."""

from __future__ import annotations

import posixpath
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from models.base import AbsolutePath, Address, Count, MigrationId, Model, Name, Seconds, Text
from models.cloud_move import (
    MOST_DISKS,
    MOST_ROUNDS,
    Cost,
    CutOverRequest,
    DiskSent,
    Place,
    RoundReport,
    known_place,
)
from models.clouds import Architecture, CloudId, DiskSize, Firmware, Instance, Size, Token
from models.disks import DiskImage
from models.host import Finding
from models.migration import VmRef

TARGETS = tuple(f"vd{chr(ord('a') + number)}" for number in range(MOST_DISKS))
"""What the disks are called until a definition of the host says otherwise."""


class Hardware(Model):
    """What the VM is made of, where the host has no definition of it."""

    memory_mib: Annotated[int, Field(ge=64, le=1 << 24)] | None = None
    """None: as the instance's size has it."""
    vcpus: Annotated[int, Field(ge=1, le=4096)] | None = None
    firmware: Firmware = "bios"
    """A cloud does not tell how its instance boots."""
    network: Name | None = None
    """libvirt's network; left out with `bridge`: the VM has no network interface."""
    bridge: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,15}$")] | None = None


class HostProbe(Model):
    """How people's own service is asked whether it is well, once the VM runs on its host. From the control worker."""

    kind: Literal["http", "tcp", "ping"]
    address: Address
    """Of the guest: a host does not know it."""
    port: Annotated[int, Field(ge=1, le=65535)] = 80
    path: Annotated[str, StringConstraints(pattern=r"^/[^\s]{0,500}$")] = "/"
    within: Annotated[float, Field(ge=1, le=3600)] = 300


class CloudBringRequest(CutOverRequest):
    """Input of the workflow novacron.MoveFromCloud."""

    source: Annotated[str, Field(max_length=80)]
    """A Place."""
    to: Name
    """The host that gets it."""
    instance: Annotated[str, Field(max_length=512)] = ""
    """The provider's id; empty: the one instance there that has the VM's name."""
    folder: AbsolutePath = "/var/lib/libvirt/images"
    """Where the images go, under names of their own. It has to be there."""
    hardware: Hardware = Hardware()
    autostart: bool = False
    """libvirt starts the VM with its host from then on."""
    verify: HostProbe | None = None
    """Asked before the instance is let go."""

    @field_validator("source")
    @classmethod
    def _known(cls, source: str) -> str:
        return known_place(source)

    @field_validator("folder")
    @classmethod
    def _plain(cls, folder: str) -> str:
        if posixpath.normpath(folder) != folder or folder == "/":
            raise ValueError("name a folder in full, without '..' and without a slash at its end")
        return folder


# In the cloud.


class InstanceQuery(Model):
    """Which instance is the VM, and what can be had of it?"""

    place: Place
    vm: Name
    instance: Annotated[str, Field(max_length=512)] = ""
    sizes: bool = False
    """Ask for the sizes of its disks too."""


class InstanceFacts(Model):
    instance: Instance | None = None
    """None: there is none, or more than one."""
    candidates: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Ids and states of those that have the name."""
    volumes: Annotated[tuple[CloudId, ...], Field(max_length=128)] = ()
    """Its disks, the one that boots first."""
    sizes: Annotated[tuple[DiskSize, ...], Field(max_length=128)] = ()
    """Of these, in bytes; empty: they were not asked for."""
    size: Size | None = None
    """None: the catalogue does not have it."""
    export: bool = False
    """Its disks can be read."""
    warm: bool = False
    """Only what changed can be read too."""
    why_not: Text = ""
    """Why its disks cannot be read."""


class InstanceOfVm(Model):
    place: Place
    instance: CloudId


class SnapshotVolume(Model):
    """Hold a disk as it is now. The token finds what an attempt without an answer made."""

    place: Place
    volume: CloudId
    token: Token


class CheckArrival(Model):
    verify: HostProbe


class Checked(Model):
    good: bool
    said: Text = ""


# On the host.


class ArrivalQuery(Model):
    place: Place
    vm: VmRef
    folder: AbsolutePath


class ArrivalFacts(Model):
    """What a host is, as far as a VM that comes to it from a cloud cares."""

    host: Name
    vm: VmRef
    """With the uuid of the definition, if there is one, and the highest token that was seen for it."""
    defined: bool = False
    alive: bool = False
    """It runs, is paused or is on its way: anything but off."""
    disks: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    """Targets of the definition's disks that would be replaced, the first one boots."""
    architecture: Architecture = "x86_64"
    accelerated: bool = True
    """The host has KVM."""
    memory_free_mib: Count = 0
    folder: bool = True
    """The folder is there and can be written."""
    free: Count = 0
    """Bytes in it."""
    accounts: Annotated[tuple[Place, ...], Field(max_length=64)] = ()
    findings: Annotated[tuple[Finding, ...], Field(max_length=16)] = ()
    """What the host itself has against taking a VM."""


class ReceiveDisk(Model):
    """Bring one disk of the cloud into its image here, or what changed of it."""

    move: MigrationId
    place: Place
    vm: VmRef
    target: Name
    path: AbsolutePath
    disk: CloudId
    """The snapshot that the image has to hold then."""
    base: Annotated[str, Field(max_length=512)] = ""
    """The snapshot that it holds now; empty: the whole disk."""
    token: Token
    prove: bool = False
    """The instance is stopped: read the image, and compare it with what the cloud gave."""


class DefineArrival(Model):
    """Give the host a definition of the VM with these images; what it had before is kept beside the first of them."""

    move: MigrationId
    vm: VmRef
    disks: Annotated[tuple[DiskImage, ...], Field(min_length=1, max_length=MOST_DISKS)]
    hardware: Hardware = Hardware()
    """With memory and vCPUs; used where the host has no definition."""


class StartArrival(Model):
    vm: VmRef
    disks: Annotated[tuple[DiskImage, ...], Field(min_length=1, max_length=MOST_DISKS)]
    watch: Seconds = 10
    """Seconds that it has to run on."""
    attempt: Count = 0
    """Which cut-over of the move it is: one that was ended starts nothing any more."""


class EndArrival(Model):
    """The VM is off here when this returns. `within` 0: its power is cut at once."""

    vm: VmRef
    disks: Annotated[tuple[DiskImage, ...], Field(max_length=MOST_DISKS)]
    within: Seconds = 0
    revert: bool = False
    """Take back what its guest wrote here: the images are as the cloud gave them."""
    attempt: Count = 0
    """The cut-over that is ended with it: an order to start that is late is refused. 0: none."""


class SettleArrival(Model):
    """The move is over on this host. `keep`: the images are the VM's own. Otherwise what it made is removed, and what
    was defined before is defined again."""

    move: MigrationId
    vm: VmRef
    disks: Annotated[tuple[DiskImage, ...], Field(max_length=MOST_DISKS)]
    keep: bool
    autostart: bool = False


class ArrivalSettled(Model):
    removed: Annotated[tuple[AbsolutePath, ...], Field(max_length=64)] = ()


# What it comes to.


class BringPlan(Model):
    """What a move from a cloud would do."""

    vm: Name
    place: Place
    instance: Annotated[str, Field(max_length=512)] = ""
    host: Name
    warm: bool
    volumes: Annotated[tuple[str, ...], Field(max_length=128)] = ()
    steps: Annotated[tuple[Text, ...], Field(max_length=32)] = ()
    findings: Annotated[tuple[Finding, ...], Field(max_length=64)] = ()
    disk_bytes: Count = 0
    """Of whole disks: how much of them was ever written, a cloud tells with a snapshot, and a plan makes none."""
    seconds: tuple[Seconds, Seconds] = (0, 0)
    """For the first copy at most, at 1 Gbit/s and at 100 Mbit/s."""
    costs: Annotated[tuple[Cost, ...], Field(max_length=16)] = ()
    """Of a dry run."""
    prices_as_of: date | None = None
    prices_source: Text = ""

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "blocker" for finding in self.findings)


class CloudBringOutcome(Model):
    """Result of novacron.MoveFromCloud: the VM runs on its host, or (rolled back) in the cloud, and nowhere else."""

    vm: Name
    site: Name
    place: Place
    host: Name
    plan: BringPlan | None = None
    """Of a dry run, which ends with it."""
    instance: Annotated[str, Field(max_length=512)] = ""
    rolled_back: bool = False
    instance_terminated: bool = False
    downtime: Seconds = 0
    """From the order to stop the instance until the VM ran and was checked."""
    received_bytes: Count = 0
    rounds: Annotated[tuple[RoundReport, ...], Field(max_length=MOST_ROUNDS)] = ()
    disks: Annotated[tuple[DiskSent, ...], Field(max_length=MOST_DISKS)] = ()
    images: Annotated[tuple[AbsolutePath, ...], Field(max_length=MOST_DISKS)] = ()
    notes: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
