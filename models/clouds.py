"""What NovaCron says about clouds, in one language for all of them. Sizes in bytes unless the name says MiB or GiB."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from models.base import AbsolutePath, Count, Model, Name, Seconds, SocketPath, Text

Cloud = Literal["aws", "azure", "gcp", "oci", "kvm"]
CloudId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9/][A-Za-z0-9._:/@+ ()\[\]-]{0,511}$")]
"""A provider's own id or path of a thing."""
Region = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Token = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
"""Idempotency token: clouds.tokens makes it."""
PageToken = Annotated[str, StringConstraints(max_length=4096)]
"""Where a list goes on, in the provider's words; empty at its end. Good for minutes: never kept in a history."""
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Tags = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=63)], Annotated[str, StringConstraints(max_length=63)]
    ],
    Field(max_length=32),
]
Architecture = Literal["x86_64", "arm64"]
Firmware = Literal["bios", "uefi"]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]{1,500}$")]
DiskFormat = Literal["raw", "qcow2", "vhd", "vmdk", "gcp"]
"""vhd: fixed, whole MiB. vmdk: stream-optimised. gcp: tar.gz of one sparse file `disk.raw`, whole GiB."""
DISK_LIMIT = 64 << 40
"""No cloud has larger disks; a header that says more is damaged."""
DiskSize = Annotated[int, Field(ge=1, le=DISK_LIMIT)]


class CallSettings(Model):
    """How calls to a provider are made. The SDKs' own defaults differ from call to call, so all are set."""

    attempts: Annotated[int, Field(ge=1, le=20)] = 6
    """Tries of one call by the SDK, the first included; throttling and lost connections are retried."""
    connect_timeout: Seconds = 10
    read_timeout: Seconds = 60
    parallel: Annotated[int, Field(ge=1, le=128)] = 16
    """Blocks in flight in one transfer. Each holds 512 KiB of memory; after a crash as many are sent again."""
    poll: Seconds = 5
    """Between two looks at a long operation."""
    finish_within: Seconds = 3600
    """A long operation that takes longer than this counts as unavailable."""


class CacheBounds(Model):
    """What may stay in a region after moves, so that the next VM of the same base sends only what differs."""

    scope: Name = "shared"
    """Disks are bases for VMs of the same scope only: give each tenant its own."""
    most_gib: Annotated[int, Field(ge=1, le=1 << 20)] = 200
    """All that is kept together, as it was sent; what has saved least for its size goes first."""
    days: Annotated[int, Field(ge=1, le=3650)] = 30
    """One that was of no use for so long is removed."""


class AwsCache(CacheBounds):
    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    """S3 bucket in the account's region, for the index. Has to be there. The disks themselves stay as snapshots."""


class AwsSettings(Model):
    """An AWS account in one region. Credentials come from boto3's own chain, never from here."""

    cloud: Literal["aws"] = "aws"
    region: Region
    profile: Name | None = None
    """Profile of the AWS configuration files; None: the chain's default."""
    endpoint_url: Url | None = None
    """One address for all services: a VPC endpoint's proxy, or a test's server."""
    endpoints: Annotated[dict[Literal["ec2", "ebs", "service-quotas", "pricing", "s3"], Url], Field(max_length=8)] = (
        Field(default_factory=dict)
    )
    """An address for one service (VPC endpoints); wins over endpoint_url."""
    cache: AwsCache | None = None
    """None: nothing stays, and every VM is sent whole."""
    calls: CallSettings = CallSettings()


def _no_token_in_the_clear(url: str) -> str:
    if url.startswith("http://") and urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError(f"{url} would carry tokens and disks unencrypted: use https, or a loopback address")
    return url


ClosedUrl = Annotated[Url, AfterValidator(_no_token_in_the_clear)]


class GcpSettings(Model):
    """A Google Cloud project in one region. Credentials come from google.auth's own chain, never from here."""

    cloud: Literal["gcp"] = "gcp"
    project: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9.:-]{4,61}[a-z0-9]$")]
    """Its id, not its number or display name."""
    region: Region
    zone: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    """Where instances are made when an order names no zone."""
    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")]
    """Disks pass through it on their way in; nothing stays there. Without retention rules and soft delete."""
    external_address: bool = False
    """Give instances an address that the internet reaches."""
    endpoints: Annotated[dict[Literal["compute", "storage"], ClosedUrl], Field(max_length=2)] = Field(
        default_factory=dict
    )
    """An address for one service: Private Service Connect, or a test's server."""
    calls: CallSettings = CallSettings()


class OciSettings(Model):
    """An Oracle Cloud compartment in one region. Credentials come from a profile of OCI's configuration file, or from
    the instance that this runs on; never from here."""

    cloud: Literal["oci"] = "oci"
    region: Region
    compartment: CloudId
    """Its OCID."""
    tenancy: CloudId
    """OCID of the root compartment, which limits are counted in."""
    availability_domain: CloudId
    """Such as Uocm:PHX-AD-1: where instances are made when an order names no zone."""
    subnet: CloudId
    """OCID of the subnet for instances whose order names none: Oracle has no default one."""
    namespace: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    """Of Object Storage."""
    bucket: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,256}$")]
    """Imported disks are objects there until they are deleted."""
    credentials: Literal["file", "instance"] = "file"
    """file: the profile of ~/.oci/config, or of the file that OCI_CONFIG_FILE names. instance: its principal."""
    profile: Name = "DEFAULT"
    public_address: bool = False
    """Give instances an address that the internet reaches."""
    spool: AbsolutePath = "/var/lib/novacron/oci"
    """Folder for images on their way out: needs room for the largest. Of the worker alone, never of all users."""
    endpoints: Annotated[dict[Literal["core", "storage", "limits"], ClosedUrl], Field(max_length=3)] = Field(
        default_factory=dict
    )
    """An address for one service: a private endpoint, or a test's server."""
    calls: CallSettings = CallSettings()


class AzureCache(CacheBounds):
    container: ClosedUrl
    """Address of a blob container in the region, for the index: https://<account>.blob.core.windows.net/<container>.
    Has to be there; the worker's credentials need a role for it. The disks themselves stay as managed disks."""


class AzureSettings(Model):
    """An Azure subscription, one region and one resource group of it. Credentials come from azure-identity's
    DefaultAzureCredential chain, never from here."""

    cloud: Literal["azure"] = "azure"
    region: Region
    subscription: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    resource_group: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_()][A-Za-z0-9_().-]{0,88}[A-Za-z0-9_()-]$")]
    """Has to be there. Everything is made in it."""
    gallery: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._]{0,78}[A-Za-z0-9]$")] = "novacron"
    """Compute gallery for images; made when the first image is."""
    subnet: Annotated[str, StringConstraints(pattern=r"^(/subscriptions/[^\s?#]{1,480})?$")] = ""
    """Resource id of the subnet of instances whose order names none: Azure has no default network."""
    disk_type: Literal["Standard_LRS", "StandardSSD_LRS", "StandardSSD_ZRS", "Premium_LRS", "Premium_ZRS"] = (
        "StandardSSD_LRS"
    )
    """Of imported disks and of instances' disks: price against speed."""
    endpoint_url: ClosedUrl | None = None
    """Of the resource manager: another Azure (government, China) or a test's server. Tokens go over it: https, or a
    loopback address. None: the public Azure."""
    cache: AzureCache | None = None
    """None: nothing stays, and every VM is sent whole."""
    calls: CallSettings = CallSettings()


class KvmSize(Model):
    """A size of instance that a KVM host offers."""

    name: CloudId
    vcpus: Annotated[int, Field(ge=1, le=4096)]
    memory_mib: Annotated[int, Field(ge=16, le=64 << 20)]


_SIZES = tuple(
    KvmSize(name=f"{vcpus}x{gib}", vcpus=vcpus, memory_mib=gib << 10)
    for vcpus, gib in ((1, 1), (1, 2), (2, 4), (2, 8), (4, 8), (4, 16), (8, 16), (8, 32))
)


class KvmSettings(Model):
    """A KVM host of your own as a cloud: its libvirt, and a folder of it that this process sees under the same path."""

    cloud: Literal["kvm"] = "kvm"
    region: Region
    """Name of the place: the host's, usually."""
    libvirt_socket: SocketPath = "/run/libvirt/libvirt-sock"
    folder: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]{1,69}$")] = "/var/lib/novacron/cloud"
    """Disks, images and instances' volumes are in it, and nothing else. Short: paths of sockets hold it."""
    network: Name | None = None
    """libvirt network of instances whose order names none; None: they have no network."""
    accelerator: Literal["kvm", "qemu"] = "kvm"
    """What instances run on; qemu: emulated, where the host has no KVM."""
    sizes: Annotated[tuple[KvmSize, ...], Field(min_length=1, max_length=1000)] = _SIZES
    stop_within: Seconds = 90
    """A guest that is told to stop has this long to shut down; then its power is cut, as other clouds do."""
    memory_reserve_mib: Count = 2048
    """Of the host, not for instances."""
    calls: CallSettings = CallSettings()


CloudSettings = Annotated[
    AwsSettings | AzureSettings | GcpSettings | OciSettings | KvmSettings, Field(discriminator="cloud")
]


def place_of(settings: CloudSettings) -> str:
    """How people name it, such as aws:eu-central-1."""
    return f"{settings.cloud}:{settings.region}"


def _each_once(accounts: tuple[CloudSettings, ...]) -> tuple[CloudSettings, ...]:
    places = [place_of(each) for each in accounts]
    for place in places:
        if places.count(place) > 1:
            raise ValueError(f"{place} has {places.count(place)} accounts: VMs move to a place by this name, keep one")
    return accounts


CloudAccounts = Annotated[tuple[CloudSettings, ...], Field(max_length=64), AfterValidator(_each_once)]
"""Clouds that VMs may move to, one account for each region. Credentials are never in here."""


InstanceState = Literal["pending", "running", "stopping", "stopped", "terminating", "terminated", "paused", "unknown"]


class InstanceDisk(Model):
    """A disk as it hangs on an instance. `disk` is the provider's volume, not a snapshot."""

    device: Annotated[str, Field(max_length=64)]
    disk: CloudId
    boot: bool = False


class Instance(Model):
    cloud: Cloud
    id: CloudId
    name: Annotated[str, Field(max_length=256)] = ""
    state: InstanceState
    size: Annotated[str, Field(max_length=128)] = ""
    region: Region
    zone: Annotated[str, Field(max_length=64)] = ""
    image: Annotated[str, Field(max_length=512)] = ""
    private_addresses: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    public_addresses: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    launched: datetime | None = None
    disks: Annotated[tuple[InstanceDisk, ...], Field(max_length=128)] = ()
    tags: dict[str, str] = Field(default_factory=dict)


class InstancePage(Model):
    items: Annotated[tuple[Instance, ...], Field(max_length=1000)] = ()
    next: PageToken = ""


class InstanceOrder(Model):
    """An instance to be made from an image."""

    name: Name
    image: CloudId
    size: CloudId
    zone: Annotated[str, Field(max_length=64)] = ""
    subnet: Annotated[str, Field(max_length=512)] = ""
    """Empty: the provider's default network."""
    security_groups: Annotated[tuple[CloudId, ...], Field(max_length=16)] = ()
    user_data: Annotated[str, Field(max_length=16384)] = ""
    """For cloud-init, as text."""
    tags: Tags = Field(default_factory=dict)


class Size(Model):
    """An instance size, and what a guest needs to boot on it."""

    name: CloudId
    vcpus: Annotated[int, Field(ge=1, le=4096)]
    memory_mib: Count
    architecture: Architecture
    firmware: Annotated[tuple[Firmware, ...], Field(max_length=2)]
    drivers: Annotated[tuple[Name, ...], Field(max_length=8)] = ()
    """Kernel modules without which the guest has no disk or no network there."""


class SizePage(Model):
    items: Annotated[tuple[Size, ...], Field(max_length=1000)] = ()
    next: PageToken = ""


class Quota(Model):
    """A limit of the account. `used` is None where the provider does not tell."""

    name: Text
    limit: float
    used: float | None = None
    unit: Annotated[str, Field(max_length=64)] = ""


Usd = Annotated[float, Field(ge=0, le=10**6, allow_inf_nan=False)]


class Price(Model):
    """A price as of a day, from a list (clouds.prices); never asked for when a plan is made."""

    cloud: Cloud
    region: Region
    item: CloudId
    per: Literal["hour", "gb-month", "gb"]
    usd: Usd
    as_of: date
    source: Text


class DiskOrder(Model):
    """A disk to be made in the cloud from content here."""

    name: Name
    token: Token
    tags: Tags = Field(default_factory=dict)


class DeltaOrder(DiskOrder):
    """As DiskOrder, of a disk that differs from `base` only in the blocks that are sent."""

    base: CloudId


class Cursor(Model):
    """How far a transfer came: all that a new process needs to go on. Kept in heartbeats or beside the work."""

    disk: CloudId
    next_block: Count = 0
    """Blocks below this one are there."""
    sent: Count = 0
    """Blocks below it that were sent, zero ones left out."""
    prefix: Digest | None = None
    """Content hash of what was sent of it (None: nothing was); tells whether the source is still the same."""


class Transferred(Model):
    """A disk that has arrived, at either end."""

    disk: CloudId
    size: DiskSize
    content: Digest
    """Content hash (clouds.disks.content) of the blocks that were moved: of a whole disk, all of it."""
    blocks: Count
    """Blocks moved in all attempts together, each counted once."""


class Snapshot(Model):
    """A point in time of a disk, or an imported disk: what images are made of and blocks read from."""

    id: CloudId
    state: Literal["pending", "ready", "failed"]
    size: DiskSize
    parent: Annotated[str, Field(max_length=512)] = ""
    tags: dict[str, str] = Field(default_factory=dict)


class StoredObject(Model):
    """One in a bucket."""

    name: Annotated[str, Field(max_length=1024)]
    size: Count
    modified: datetime


class ImageOrder(Model):
    """A bootable image of imported disks; the first one boots."""

    name: Name
    token: Token
    disks: Annotated[tuple[CloudId, ...], Field(min_length=1, max_length=21)]
    architecture: Architecture = "x86_64"
    firmware: Firmware = "bios"
    tags: Tags = Field(default_factory=dict)


class CloudImage(Model):
    id: CloudId
    name: Text
    state: Literal["pending", "ready", "failed"]
    architecture: Annotated[str, Field(max_length=32)] = ""
    firmware: Annotated[str, Field(max_length=32)] = ""
    disks: Annotated[tuple[CloudId, ...], Field(max_length=64)] = ()
    tags: dict[str, str] = Field(default_factory=dict)
