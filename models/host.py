"""What a host worker is told (its settings file) and what it reports of its host."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, field_validator, model_validator

from models.base import AbsolutePath, Address, Count, Labels, Model, Name, Port, SocketPath, Text
from models.clouds import CloudAccounts
from models.datapath import TlsFiles
from models.disks import DiskImage
from models.events import Webhook
from models.lease import LeaseSettings
from models.migration import MigrationPolicy
from models.shares import Capacities
from models.slots import SlotLimits
from models.store import StoreSettings


class HostSettings(Model):
    """Settings file of one host worker (JSON). Temporal's address comes from Temporal's own profile and environment."""

    site: Name
    host: Name
    """The host's name in NovaCron: names its task queue and must be a DNS name in its certificate."""
    libvirt_socket: SocketPath = "/run/libvirt/libvirt-sock"
    state_dir: Annotated[str, Field(pattern=r"^/[^\x00]{0,40}$")] = "/run/novacron"
    """Each migration gets a folder here, the same path on every host of the site. Short: it holds sockets."""
    migration_address: Address
    """Address at which this host's data path listens for incoming migrations."""
    migration_namespace: Name | None = None
    """Network namespace (name under /run/netns) that holds the migration network; None: the worker's own."""
    more_migration_addresses: Annotated[tuple[Address, ...], Field(max_length=7)] = ()
    """Further addresses of this host, on other networks: lanes spread over all of them."""
    port_range: tuple[Port, Port] = (49152, 49407)
    tls: TlsFiles
    trusted_network: bool = False
    """The migration network may be used without TLS when a policy asks for it."""
    store: StoreSettings = StoreSettings()
    slots: Annotated[int, Field(ge=1, le=64)] = 8
    """Moves that may leave this host at once. All other steps have slots of their own."""
    memory_reserve_mib: Count = 256
    """Memory that incoming VMs must leave free."""
    clouds: CloudAccounts = ()
    """This host sends disks there. Stays on the host: no history has it."""


class NamedPolicy(Model):
    """The goals of one class of VMs."""

    name: Name
    labels: Labels = Field(default_factory=dict)
    """Holds for VMs that have all of these labels. Empty: only for requests that name it; but one that is called
    `default` holds for every VM that no other fits."""
    policy: MigrationPolicy = MigrationPolicy()


class SiteSettings(Model):
    """Settings file of a control worker (JSON): the site it serves, its hosts, and its policies."""

    site: Name
    hosts: Annotated[tuple[Name, ...], Field(min_length=1, max_length=2000)]
    bandwidth: Capacities | None = None
    """What moves may use of the network; None: nothing is bounded, and nothing is shared out."""
    slots: SlotLimits | None = None
    """How many moves may run at once; None: as many as are started."""
    policies: Annotated[tuple[NamedPolicy, ...], Field(max_length=64)] = ()
    """The first that fits a VM's labels holds."""
    webhooks: Annotated[tuple[Webhook, ...], Field(max_length=16)] = ()
    """Who is told of events (docs/events.md). Read by the control worker; restart it after a change."""
    leases: LeaseSettings = LeaseSettings()
    clouds: CloudAccounts = ()
    """The control worker makes images and instances there."""
    transfers: AbsolutePath = "/var/lib/novacron/transfers"
    """Folder for what is known of disks on their way between two clouds: 64 KiB for each GiB. What is lost there costs
    time, and never a disk; control workers on several machines do well to share it."""

    @model_validator(mode="after")
    def _policies_have_names_of_their_own(self) -> SiteSettings:
        names = [policy.name for policy in self.policies]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"policies: the name {twice[0]!r} is given twice")
        return self

    @model_validator(mode="after")
    def _slots_are_of_hosts_of_the_site(self) -> SiteSettings:
        if self.slots and (strange := sorted(self.slots.named_hosts() - set(self.hosts))):
            raise ValueError(f"slots: {strange[0]!r} is not a host of the site; name one of `hosts`")
        return self

    @field_validator("webhooks")
    @classmethod
    def _distinct(cls, webhooks: tuple[Webhook, ...]) -> tuple[Webhook, ...]:
        if len({webhook.name for webhook in webhooks}) < len(webhooks):
            raise ValueError("two webhooks have one name; give each its own")
        return webhooks


VmState = Literal["running", "paused", "shutdown", "shutoff", "crashed", "blocked", "suspended", "unknown"]


class DiskReport(Model):
    """One disk of a VM. `identity` is equal on two hosts exactly when both see the same file or device; it is built
    from the file system's source, the inode and the size, and is empty when the path does not exist there."""

    target: Name
    path: AbsolutePath
    readonly: bool = False
    identity: Annotated[str, Field(max_length=1024)] = ""
    image: DiskImage | None = None
    """What a copy of it needs; None for what cannot be copied: devices, network disks, bases of other images."""
    format: Annotated[str, Field(max_length=16)] = ""
    """raw, qcow2, ... as QEMU was told."""
    cache: Annotated[str, Field(max_length=16)] = ""
    """QEMU's cache mode; empty: its default, writeback."""


class InterfaceReport(Model):
    """A network interface of a VM, and what of its host it is plugged into."""

    mac: Annotated[str, Field(max_length=32)] = ""
    kind: Annotated[str, Field(max_length=16)]
    """libvirt's type: network, bridge, direct, user, ..."""
    source: Annotated[str, Field(max_length=256)] = ""
    """Name of the libvirt network, the bridge, or the host's device."""


class MemoryBacking(Model):
    """What of its host's memory and CPUs a VM insists on."""

    page_kib: Count = 0
    """Size of the huge pages it lies in; 0: ordinary memory."""
    nodes: Annotated[tuple[int, ...], Field(max_length=1024)] = ()
    """NUMA nodes its memory is bound to (mode strict)."""
    cpus: Annotated[tuple[int, ...], Field(max_length=8192)] = ()
    """CPUs of the host that its vCPUs are pinned to."""
    devices: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Memory devices that are files of the host (NVDIMM, pmem)."""


class HostStanding(Model):
    """What a host has to say of itself for any move, whichever side of it it is on."""

    host: Name
    libvirt_version: Annotated[str, Field(max_length=32)] = ""
    clock_ahead: float | None = None
    """Seconds by which its clock is ahead of Temporal's, at most: the time that the question took to the comparison is
    in it. None: nobody compared."""
    certificate_error: Text = ""
    """Why a peer would refuse its data path certificate (or it its peers'); empty when it would not."""
    certificate_expires: AwareDatetime | None = None
    state_free_mib: Count | None = None
    """Room for the data path's sockets and log."""
    store_free_mib: Count | None = None
    """Room on the file system of its content store; None: it has none."""
    store_leaves_mib: Count = 0
    """Of that the store never takes so much."""


class VmReport(Model):
    """A VM as its host's libvirt sees it."""

    name: Name
    uuid: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")]
    state: VmState
    reason: Annotated[int, Field(ge=0, le=64)] = 0
    """libvirt's reason code for the state."""
    memory_mib: Count
    vcpus: Annotated[int, Field(ge=1, le=4096)]
    persistent: bool = False
    autostart: bool = False
    """The host starts it when it has booted itself."""
    job: bool = False
    """A libvirt job (migration, save, ...) is running on it."""
    labels: Labels = Field(default_factory=dict)


class HostReport(Model):
    """A host as its worker sees it."""

    site: Name
    host: Name
    uuid: Annotated[str, Field(max_length=64)]
    libvirt_version: Annotated[str, Field(max_length=32)]
    qemu_version: Annotated[str, Field(max_length=32)]
    cpu_model: Annotated[str, Field(max_length=128)] = ""
    cpus: Count = 0
    memory_total_mib: Count
    memory_free_mib: Count
    memory_reserve_mib: Count = 0
    """What incoming VMs must leave free of it."""
    vms: Annotated[tuple[VmReport, ...], Field(max_length=2000)] = ()
    migrations: Annotated[tuple[Name, ...], Field(max_length=256)] = ()
    """Ids of data paths that live on this host."""
    reconciled: bool = True
    """Since it was started its VMs were compared with the site's owner records; before that it takes no VM."""


class InventoryRequest(Model):
    """Input of the workflow novacron.Inventory; it may be left out."""

    hosts: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    """Ask only these; none: every host of the site."""


class SiteReport(Model):
    """All hosts of a site; `silent` ones are members whose worker did not answer, with the reason."""

    site: Name
    hosts: Annotated[tuple[HostReport, ...], Field(max_length=2000)] = ()
    silent: Annotated[dict[Name, Text], Field(max_length=2000)] = Field(default_factory=dict)
    rest: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    """Hosts for which one answer had no more room: ask for these by name."""
    maintenance: Annotated[dict[Name, Name], Field(max_length=2000)] = Field(default_factory=dict)
    """Hosts that take no VM now, with the phase of their maintenance."""


class VmSheet(Model):
    """Everything the destination needs to decide whether it can take the VM."""

    vm: VmReport
    host: Name
    machine: Annotated[str, Field(max_length=64)] = ""
    arch: Annotated[str, Field(max_length=32)] = ""
    emulator: Annotated[str, Field(max_length=256)] = ""
    virt_type: Annotated[str, Field(max_length=16)] = ""
    """libvirt's domain type: kvm or qemu (TCG)."""
    cpu_xml: Annotated[str, Field(max_length=65536)] = ""
    """The <cpu> element libvirt would migrate, for comparison on the destination; empty when it has none."""
    disks: Annotated[tuple[DiskReport, ...], Field(max_length=64)] = ()
    host_devices: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Attached devices of the host itself: they cannot move."""
    qemu_version: Annotated[str, Field(max_length=32)] = ""
    host_uuid: Annotated[str, Field(max_length=64)] = ""
    trusted_network: bool = False
    """The source's settings trust the migration network."""
    token: Count = 0
    """The highest fencing token that the VM's host has seen for it."""
    policy: MigrationPolicy = MigrationPolicy()
    """How the move is wanted."""
    interfaces: Annotated[tuple[InterfaceReport, ...], Field(max_length=64)] = ()
    backing: MemoryBacking = MemoryBacking()
    tpm: Annotated[str, Field(max_length=32)] = ""
    """Backend of its TPM: emulator, passthrough, external; empty: it has none."""
    snapshots: Count = 0
    """That libvirt keeps of it on its host."""
    standing: HostStanding | None = None
    """The source's own."""


NOT_RECONCILED = "not-reconciled"
"""Finding of a host that has not been compared with the owner records since it was started."""


class Finding(Model):
    """One result of a check, as data."""

    id: Name
    severity: Literal["blocker", "warning"]
    what: Text
    remedy: Text
    why: Text = ""
    """Why this matters, in one sentence; the same for every VM."""


class Findings(Model):
    items: Annotated[tuple[Finding, ...], Field(max_length=200)] = ()
    copies: Annotated[tuple[DiskImage, ...], Field(max_length=64)] = ()
    """Disk images that have to be copied, as the policy allows."""
    standing: HostStanding | None = None
    """The destination's own."""


class VmSighting(Model):
    """Answer of one host to: do you have this VM? Only an answer counts; silence is not absence."""

    host: Name
    present: bool
    vm: VmReport | None = None
    token: Count = 0
    """The highest fencing token that the host has seen for the VM."""
