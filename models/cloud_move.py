"""A VM moves to a cloud: what is asked, what each step is told and tells, and how it ended. Sizes in bytes."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, StringConstraints, field_validator, model_validator

from models.base import AbsolutePath, Count, MigrationId, Model, Name, Seconds, Text
from models.clouds import (
    Architecture,
    CloudId,
    Digest,
    DiskSize,
    Firmware,
    Instance,
    Price,
    Quota,
    Size,
    Token,
)
from models.disks import DiskImage
from models.host import Finding
from models.migration import VmRef, Window
from models.preparing import PrepareReport

_PLACE = r"^[a-z]{2,8}:[a-z0-9][a-z0-9-]{0,62}$"
Place = Annotated[str, StringConstraints(pattern=_PLACE)]
"""A cloud and one of its regions: aws:eu-west-1."""
CacheUse = Literal["on", "read", "off"]
MOST_DISKS = 21
MOST_ROUNDS = 50
MOST_SIZES = 2000
OWNER_PREFIX = "cloud."


def cloud_of(place: str) -> str:
    return place.partition(":")[0]


def region_of(place: str) -> str:
    return place.partition(":")[2]


def owner_of(place: str) -> str:
    """What an owner record names for a VM that runs in a cloud: cloud.aws.eu-west-1."""
    return f"{OWNER_PREFIX}{cloud_of(place)}.{region_of(place)}"[:63]


class CloudNetwork(Model):
    """Where an instance is plugged in. All in the provider's own ids."""

    zone: Annotated[str, Field(max_length=64)] = ""
    subnet: Annotated[str, Field(max_length=512)] = ""
    """Empty: the provider's default network."""
    security_groups: Annotated[tuple[CloudId, ...], Field(max_length=16)] = ()


class Probe(Model):
    """How people's own service is asked whether it is well, once the instance runs. From the control worker."""

    kind: Literal["http", "tcp", "ping"]
    port: Annotated[int, Field(ge=1, le=65535)] = 80
    path: Annotated[str, StringConstraints(pattern=r"^/[^\s]{0,500}$")] = "/"
    """Of http: an answer below 400 is good."""
    address: Literal["private", "public"] = "private"
    within: Annotated[float, Field(ge=1, le=3600)] = 300
    """Seconds in which it must have answered once."""


def known_place(place: str) -> str:
    """The place, or ValueError that says how one is named."""
    if not re.fullmatch(_PLACE, place) or cloud_of(place) not in ("aws", "azure", "gcp", "oci"):
        raise ValueError("name a cloud and a region, as in aws:eu-west-1; clouds are aws, azure, gcp and oci")
    return place


class CutOverRequest(Model):
    """What moves to a cloud and from one have in common: when they cut over, and what becomes of the source."""

    vm: Name
    mode: Literal["auto", "cold", "warm"] = "auto"
    """warm: copied while it runs, in rounds. cold: shut down first. auto: warm where both sides can."""
    downtime: Annotated[float, Field(ge=1, le=86400)] = 120
    """Seconds that the VM may be away at the cut-over, as a goal: rounds go on until the last is expected to fit."""
    rounds: Annotated[int, Field(ge=1, le=MOST_ROUNDS)] = 10
    """The most before the cut-over; after them it is done although the goal is out of reach, and a note says so."""
    cut_over: Literal["now", "at", "window", "manual"] = "now"
    """now: as soon as the goal is in reach. Otherwise at that time, when one of the windows opens, or on the update
    cut_over_now; until then the copy is kept fresh."""
    cut_over_at: AwareDatetime | None = None
    windows: Annotated[tuple[Window, ...], Field(max_length=16)] = ()
    refresh_every: Annotated[float, Field(ge=60, le=86400)] = 900
    """Seconds between rounds while the cut-over is waited for."""
    wait_within: Annotated[float, Field(ge=60, le=7 * 86400)] = 2 * 86400.0
    """Seconds after which a move that waits for its cut-over is given up, and what it made is removed."""
    stop_within: Annotated[float, Field(ge=5, le=3600)] = 120
    """Seconds for a guest on a host to shut down."""
    keep_source_for: Annotated[float, Field(ge=0, le=30 * 86400)] = 86400.0
    """Seconds for which the source, shut off, can be rolled back to."""
    then: Literal["keep", "remove"] = "keep"
    """What becomes of the source after that."""
    dry_run: bool = False

    @model_validator(mode="after")
    def _when(self) -> Self:
        if (self.cut_over == "at") != (self.cut_over_at is not None):
            raise ValueError("cut_over_at goes with cut_over 'at', and with nothing else")
        if (self.cut_over == "window") != bool(self.windows):
            raise ValueError("windows go with cut_over 'window', and with nothing else")
        if self.mode == "cold" and self.cut_over != "now":
            raise ValueError("a cold move has nothing to keep fresh: cut_over is 'now'")
        return self


class IntoCloudRequest(CutOverRequest):
    """What everything that becomes an instance has in common."""

    to: Annotated[str, Field(max_length=80)]
    """A Place."""
    size: CloudId
    network: CloudNetwork = CloudNetwork()
    verify: Probe | None = None
    """Asked before the source is let go."""

    @field_validator("to")
    @classmethod
    def _known(cls, to: str) -> str:
        return known_place(to)


class CloudMoveRequest(IntoCloudRequest):
    """Input of the workflow novacron.MoveToCloud."""

    source: Name | None = None
    """Host that runs the VM; None: all hosts are asked."""
    cut_power: bool = False
    """Cut the power of a guest that does not shut down in time. Its file systems are then as after a power cut."""
    prepare: bool = False
    """Make the guest ready for the cloud at the cut-over, when it is off: drivers, boot loader, mounts, network. Its
    own image is not touched. Not by itself, since it changes files of the guest's; and there is no `auto`, because
    whether a guest needs it shows when it is off, too late to ask."""
    dhcp: bool = False
    """With `prepare`: addresses that are set by hand give way to DHCP. Else a guest with some is refused."""
    cache: CacheUse = "on"
    """on: its disks start from a base that the place keeps, and may stay as bases themselves. read: they stay not. off:
    neither. Where the place's settings say nothing of a cache, all are off."""

    @model_validator(mode="after")
    def _prepares(self) -> Self:
        if self.dhcp and not self.prepare:
            raise ValueError("dhcp goes with prepare: nothing else changes the guest's network")
        return self


# What a place offers, and what a plan says of a move to it.


class PlaceQuery(Model):
    place: Place
    size: CloudId


class PlaceReport(Model):
    """What one cloud offers for one size."""

    size: Size | None = None
    """None: the place has no size of that name."""
    like: Annotated[tuple[str, ...], Field(max_length=20)] = ()
    """Names that come near."""
    quotas: Annotated[tuple[Quota, ...], Field(max_length=32)] = ()
    prices: Annotated[tuple[Price, ...], Field(max_length=500)] = ()
    warm: bool = False
    """It takes changed blocks."""
    most_disks: Annotated[int, Field(ge=1)] = 21
    """Of an image there."""
    cache: bool = False
    """Its settings name a cache."""
    export: bool = False
    """It gives disks out again, so that they can be read back."""


class CloudPlace(Model):
    """One configured account in one region, and what can be done there."""

    place: Place
    offers: dict[str, str]
    """Capability -> works, not built, not offered."""


class CloudPlaces(Model):
    places: Annotated[tuple[CloudPlace, ...], Field(max_length=64)] = ()


class CloudSizes(Model):
    sizes: Annotated[tuple[Size, ...], Field(max_length=MOST_SIZES)] = ()
    prices: Annotated[tuple[Price, ...], Field(max_length=500)] = ()
    more: bool = False


class Cost(Model):
    """In US dollars by a dated list; None where the list has no price."""

    what: Text
    usd: float | None
    per: Literal["once", "month"]


class CloudPlan(Model):
    """What a move would do, and what it would cost."""

    vm: Name
    source: Name
    place: Place
    warm: bool
    steps: Annotated[tuple[Text, ...], Field(max_length=32)] = ()
    findings: Annotated[tuple[Finding, ...], Field(max_length=64)] = ()
    disk_bytes: Count = 0
    """What the guest sees of its disks."""
    send_bytes: Count = 0
    """What the images hold, about what the first copy sends when no base saves any of it."""
    cached: bool = False
    """Its disks may start from bases that the place keeps."""
    saved_bytes: Count | None = None
    """Of these, about what a base that the place keeps saves, by a few blocks compared. None: not looked at."""
    cache: Text = ""
    """Why it is that much, or was not looked at."""
    seconds: Annotated[tuple[Seconds, Seconds], Field()] = (0, 0)
    """For the first copy, at 1 Gbit/s and at 100 Mbit/s: the link to the cloud is not measured."""
    costs: Annotated[tuple[Cost, ...], Field(max_length=16)] = ()
    prices_as_of: date | None = None
    prices_source: Text = ""
    prepared: PrepareReport | None = None
    """What would be changed in the guest, where it is off and `prepare` was asked for."""

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "blocker" for finding in self.findings)


# Steps on the source's host.


class SourceFacts(Model):
    """What a VM is, as far as a cloud cares."""

    host: Name
    vm: VmRef
    persistent: bool
    running: bool
    autostart: bool = False
    vcpus: Annotated[int, Field(ge=1, le=4096)]
    memory_mib: Count
    architecture: Annotated[str, Field(max_length=32)] = ""
    firmware: Firmware = "bios"
    host_kernel: bool = False
    """It boots a kernel file of its host: its disks may have no boot loader."""
    disks: Annotated[tuple[DiskImage, ...], Field(max_length=64)] = ()
    """Those to be copied, the first one boots."""
    obstacles: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    """Disks and devices that cannot be copied, with the reason."""
    accounts: Annotated[tuple[Place, ...], Field(max_length=64)] = ()
    """Places that this host's settings have an account for."""


class RoundOrder(Model):
    """One round of a warm move on its host."""

    move: MigrationId
    vm: VmRef
    number: Annotated[int, Field(ge=0, le=10**6)]
    base: Annotated[int, Field(ge=0, le=10**6)] | None = None
    """The round since which changes are wanted."""
    disks: Annotated[tuple[DiskImage, ...], Field(min_length=1, max_length=MOST_DISKS)]


class RoundBegun(Model):
    telling: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    """Disks whose bitmap tells what changed; of the others everything is compared."""


class SendDisk(Model):
    """Bring one disk to the cloud, or what changed of it. `round` None: the VM is off, and the image is read."""

    move: MigrationId
    place: Place
    vm: VmRef
    disk: DiskImage
    name: Name
    token: Token
    base: Annotated[str, Field(max_length=512)] = ""
    """The cloud's disk that the last round made; empty: the whole disk."""
    round: RoundOrder | None = None
    telling: bool = False
    """The round's bitmap says where to look."""
    layer: Annotated[int, Field(ge=0, le=10**6)] = 0
    """The VM is off, and was prepared in the layer of this attempt: that is read. 0: the image itself."""
    cached: bool = False
    """A whole disk may start from a base that the place keeps."""


class DiskSent(Model):
    """One disk on its way to a cloud, or from one."""

    target: Name
    disk: CloudId
    """The cloud's disk that holds it now."""
    size: DiskSize
    content: Digest
    """Content hash of the whole disk, as the cloud was given it, or as it gave it."""
    source: Annotated[str, Field(max_length=64)] = ""
    """Content hash of the image itself, where the VM was off; equal to `content`, or the step fails."""
    bytes: Count
    """Sent, or received, in this round."""
    seconds: Seconds
    origin: Annotated[str, Field(max_length=512)] = ""
    """The cached disk that the first one was made from; empty: it was sent whole."""
    saved: Count = 0
    """Bytes that were not sent for it."""
    cache: Text = ""
    """What the cache said to the first one, and why. Empty: it was not asked."""


class StopSource(Model):
    vm: VmRef
    within: Seconds
    cut_power: bool = False


class SourceStopped(Model):
    stopped: bool
    why: Text = ""
    seconds: Seconds = 0


class StartSource(Model):
    vm: VmRef
    autostart: bool = False
    run: bool = True
    """False: it was off before, and only gets its autostart back."""
    watch: Seconds = 0
    """It was asked to shut down and has not: seconds in which it may still do so, and is then started again."""


class SettleSource(Model):
    """The move is over on this host: forget rounds and ledgers; `remove`: the VM and its images too."""

    move: MigrationId
    vm: VmRef
    disks: Annotated[tuple[DiskImage, ...], Field(max_length=MOST_DISKS)]
    remove: bool = False
    place: Annotated[str, Field(max_length=80)] = ""
    """The cloud of the move: bases there that a disk was being made from are not used any more. Empty: none were."""


class SourceSettled(Model):
    removed: Annotated[tuple[AbsolutePath, ...], Field(max_length=64)] = ()


# Steps in the cloud.


class MakeImage(Model):
    place: Place
    name: Name
    token: Token
    disks: Annotated[tuple[CloudId, ...], Field(min_length=1, max_length=MOST_DISKS)]
    architecture: Architecture = "x86_64"
    firmware: Firmware = "bios"


class RunInstance(Model):
    place: Place
    name: Name
    token: Token
    image: CloudId
    size: CloudId
    network: CloudNetwork = CloudNetwork()


class EndInstance(Model):
    """Stop or terminate what this token made, whether its id is known or not."""

    place: Place
    token: Token
    instance: Annotated[str, Field(max_length=512)] = ""
    terminate: bool = True


class InstanceEnded(Model):
    instances: Annotated[tuple[str, ...], Field(max_length=64)] = ()


class CheckInstance(Model):
    place: Place
    instance: CloudId
    verify: Probe | None = None


class InstanceChecked(Model):
    instance: Instance
    good: bool
    said: Text = ""


class RemoveThings(Model):
    place: Place
    image: Annotated[str, Field(max_length=512)] = ""
    disks: Annotated[tuple[CloudId, ...], Field(max_length=2 * MOST_ROUNDS * MOST_DISKS)] = ()
    begun: Annotated[tuple[Token, ...], Field(max_length=2 * MOST_ROUNDS * MOST_DISKS)] = ()
    """Tokens of steps that did not end well: a disk of theirs may be there, and nobody knows its id."""


class Removed(Model):
    count: Count = 0


# How it stands, and how it ended.


class RoundReport(Model):
    number: Count
    bytes: Count
    seconds: Seconds
    reason: Text = ""
    """What was decided after it."""


Stage = Literal["planning", "copying", "waiting", "testing", "cutting over", "kept", "done", "failed", "cancelled"]


class CloudStanding(Model):
    """Answer of the query `standing`."""

    stage: Stage = "planning"
    runs_on: Annotated[str, Field(max_length=128)] = ""
    """Where the one copy runs, or is meant to: a host, or a place. Empty while it is on its way."""
    rounds: Annotated[tuple[RoundReport, ...], Field(max_length=MOST_ROUNDS)] = ()
    """The latest."""
    sent_bytes: Count = 0
    saved_bytes: Count = 0
    """What was not sent, because bases that the place keeps had it."""
    disks: Annotated[tuple[DiskSent, ...], Field(max_length=MOST_DISKS)] = ()
    instance: Annotated[str, Field(max_length=512)] = ""
    why: Text = ""
    source_kept_until: AwareDatetime | None = None
    notes: Annotated[tuple[Text, ...], Field(max_length=20)] = ()


class CloudMoveOutcome(Model):
    """Result of novacron.MoveToCloud: the VM runs in the cloud, or (rolled back) on its host, and nowhere else."""

    vm: Name
    site: Name
    source: Name
    place: Place
    plan: CloudPlan | None = None
    """Of a dry run, which ends with it."""
    instance: Annotated[str, Field(max_length=512)] = ""
    rolled_back: bool = False
    source_removed: bool = False
    downtime: Seconds = 0
    """From the order to stop until the instance ran and was checked."""
    prepared: PrepareReport | None = None
    """What was changed in the guest for the cloud, if that was asked for."""
    sent_bytes: Count = 0
    saved_bytes: Count = 0
    """What was not sent, because bases that the place keeps had it."""
    kept_bases: Annotated[tuple[CloudId, ...], Field(max_length=MOST_DISKS)] = ()
    """Disks of this move that stay in the place as bases for others."""
    rounds: Annotated[tuple[RoundReport, ...], Field(max_length=MOST_ROUNDS)] = ()
    disks: Annotated[tuple[DiskSent, ...], Field(max_length=MOST_DISKS)] = ()
    notes: Annotated[tuple[Text, ...], Field(max_length=20)] = ()


class TestCutOver(Model):
    """Argument of the update test_cut_over: where the isolated copy is plugged in."""

    __test__ = False
    network: CloudNetwork
    verify: Probe | None = None

    @model_validator(mode="after")
    def _isolated(self) -> TestCutOver:
        if not self.network.subnet or not self.network.security_groups:
            raise ValueError("name a subnet and security_groups that keep the copy apart: it has the VM's identity")
        return self


class CloudsRequest(Model):
    """Input of the workflow novacron.ListClouds."""

    place: Place | None = None
    """With one, its sizes are told."""


class CloudsAnswer(Model):
    places: Annotated[tuple[CloudPlace, ...], Field(max_length=64)] = ()
    sizes: CloudSizes | None = None
