"""Requests, steps, progress and outcome of one live migration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, field_serializer, model_validator

from models.base import Address, Count, MigrationId, Model, Name, Port, Seconds, Text
from models.datapath import Codec, DataPathStatus, Protection, Rdma
from models.decisions import MOST_DECISIONS, Decision, GoalReport, Mark
from models.store import Scope

MoveMode = Literal["pre-copy", "post-copy", "hybrid"]


Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Window(Model):
    """When moves may run, on the clock of a time zone. `until` before `since` ends on the next day."""

    days: Annotated[tuple[Weekday, ...], Field(min_length=1, max_length=7)] = (
        "mon", "tue", "wed", "thu", "fri", "sat", "sun",
    )  # fmt: skip
    """Days on which it opens."""
    since: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    until: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9+_/-]{1,64}$")] = "UTC"
    """Name of the IANA time zone database, such as Europe/Berlin."""


class MigrationPolicy(Model):
    """How the move may be done. Defaults fit a VM on a link of 50 Mbit/s to 10 Gbit/s."""

    lanes: Annotated[int, Field(ge=1, le=16)] = 2
    """TCP streams under TLS at the start. More help on fast or lossy links and cost CPU."""
    max_lanes: Annotated[int, Field(ge=1, le=16)] = 8
    """Streams the data path may grow to by itself."""
    codec: Codec = "auto"
    """auto follows the link: lz4 while the CPU is the limit, zstd when the link is. raw: nothing is looked at."""
    page_memory_mib: Annotated[int, Field(ge=0, le=1 << 24)] = 1024
    """Pages remembered at each end for copies and deltas; beyond it pages go whole. 0: none."""
    store: bool = True
    """Use, and fill, the content stores of both hosts."""
    store_scope: Scope = "vm"
    """Whose pages may serve the move, besides disk images: wider saves more and leaks more."""
    tenant: Name = "default"
    mode: MoveMode = "pre-copy"
    """hybrid: pre-copy first, post-copy when it does not converge. post-copy: after one pass. A VM whose move has
    switched to post-copy runs at the destination and needs the source until all memory has arrived."""
    disks: Literal["shared", "copy"] = "shared"
    """copy: disks that the destination does not see are copied while the VM runs."""
    protection: Protection = "tls"
    """none: in the clear, refused unless both hosts' settings trust the migration network."""
    rdma: Rdma = "auto"
    max_downtime_ms: Annotated[int, Field(ge=1, le=2_000_000)] = 300
    """Longest final pause libvirt may plan for. Smaller: more rounds, longer move."""
    bandwidth_mib: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Upper bound for reading guest memory, MiB/s; 0 is no bound."""
    wire_mib: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Upper bound for the link, MiB/s on the wire; 0 is no bound. Changeable while the move runs."""
    finish_within: Annotated[float, Field(gt=0, le=86400 * 7)] = 6 * 3600
    """Seconds after which the move is given up and the VM stays where it is."""
    resume_within: Annotated[float, Field(gt=0, le=86400)] = 300
    """Seconds a lost link may stay lost before the move is given up."""
    finish_by: AwareDatetime | None = None
    """A moment instead of a span: the move is steered to be across by then, and given up when it cannot be. The earlier
    of both holds."""
    max_slowdown: Annotated[int, Field(ge=0, le=99)] = 0
    """Percent of its CPU time the guest may lose so that the move ends; 0: it is never throttled."""
    allow_post_copy: bool = False
    """The move may switch to post-copy when pre-copy cannot reach its goals: mode pre-copy then means hybrid."""
    allow_pause: bool = False
    """The guest may stand still for the rest of the move when nothing else lets it end in time."""
    priority: Annotated[int, Field(ge=1, le=5)] = 3
    """1 goes first. Evacuations take 1, people 3, rebalancing 5."""
    windows: Annotated[tuple[Window, ...], Field(max_length=16)] = ()
    """When the move may start; none: at any time."""


def given_policy(raw: Any) -> Any:
    """`"policy": "gold"` is short for `"policy_name": "gold"`."""
    if isinstance(raw, dict) and isinstance(raw.get("policy"), str):
        name = raw["policy"]
        rest = {field: value for field, value in raw.items() if field != "policy"}
        return {**rest, "policy_name": name} if rest.get("policy_name") is None else raw
    return raw


@field_serializer("policy")
def wished(policy: MigrationPolicy) -> dict[str, Any]:
    """Only what was asked for: on its way to the workflow a goal that nobody named must not become a wish."""
    return policy.model_dump(mode="json", exclude_unset=True)


def may_switch(policy: MigrationPolicy) -> bool:
    """The move may end in post-copy. libvirt has to be told before it starts."""
    return policy.mode != "pre-copy" or policy.allow_post_copy


class MigrateRequest(Model):
    """Input of the workflow novacron.MigrateVm."""

    vm: Name
    to: Name
    """Destination host."""
    source: Name | None = None
    """Host that runs the VM; found by asking every host of the site when omitted."""
    policy_name: Name | None = None
    """One of the site's policies; None: the one that fits the VM's labels."""
    policy: MigrationPolicy = MigrationPolicy()
    """What differs from it: only fields that are given count. A name instead of an object is `policy_name`."""

    _named = model_validator(mode="before")(given_policy)
    _only_what_was_given = wished


Phase = Literal[
    "checking", "waiting", "preparing", "moving", "post-copy", "confirming", "cleaning", "done", "failed", "cancelled",
]  # fmt: skip
"""waiting: for one of the policy's windows to open; then all is checked anew. post-copy: the VM runs at the destination
already, and the rest of its memory is still on the way."""


class Progress(Model):
    """How far a move is. Percent never runs back. Memory in bytes of guest RAM, rates in bytes a second."""

    phase: Phase = "checking"
    percent: Annotated[float, Field(ge=0, le=100)] = 0
    eta: Seconds | None = None
    """Seconds until the memory is across, from the rate of the last seconds; None while unknown."""
    eta_low: Seconds | None = None
    """The same if the link goes on as in its better seconds (a standard deviation above the mean)."""
    eta_high: Seconds | None = None
    """The same for its worse seconds; None while no end can be seen at that rate."""
    elapsed: Seconds = 0
    memory_total: Count = 0
    memory_remaining: Count = 0
    disk_total: Count = 0
    """Bytes of disk images that are copied with the VM."""
    disk_remaining: Count = 0
    iteration: Count = 0
    raw_rate: float = 0
    wire_rate: float = 0
    wire_bytes: Count = 0
    raw_bytes: Count = 0
    lanes_alive: Count = 0
    redials: Count = 0
    link: Annotated[str, Field(max_length=32)] = ""
    note: Text = ""


class VmRef(Model):
    vm: Name
    uuid: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")] | None = None
    token: Count = 0
    """Fencing token of the operation that asks. A host that has seen a higher one for this VM refuses the order; 0 is
    the oldest of all."""


class HandedOver(VmRef):
    """A VM whose copy here is spent: it lives elsewhere."""

    defined_there: bool = False
    """It is defined where it lives, so its definition here goes too: a host that boots may start what it defines."""


class Endpoint(Model):
    """Where a destination's data path listens."""

    address: Address
    port: Port
    more_addresses: Annotated[tuple[Address, ...], Field(max_length=7)] = ()


class OpenPath(Model):
    """Start (or find) this host's end of the data path. `endpoint` is given to the source only."""

    migration_id: MigrationId
    peer: Name
    endpoint: Endpoint | None = None
    policy: MigrationPolicy = MigrationPolicy()
    vm: VmRef | None = None
    """Whose memory is carried: with its UUID the hosts' stores can be used."""
    probe: bool = False
    """Carry nothing but test bytes, which the destination drops; gone by itself after a minute."""


class LimitPath(Model):
    """Bound what a data path end puts on the link; 0 is no bound."""

    migration_id: MigrationId
    bytes_per_second: Count
    vm: VmRef | None = None


class PathLimit(Model):
    """The bound as it stands now."""

    bytes_per_second: Count


class MoveVm(Model):
    """Move the VM over the open data path (long; run on the source's host)."""

    migration_id: MigrationId
    vm: VmRef
    source: Name
    destination: Name
    policy: MigrationPolicy = MigrationPolicy()
    started: Seconds = 0
    """Seconds the operation had already taken when this step was scheduled (for progress)."""
    memory_mib: Count = 0
    """The VM's memory (for progress, until libvirt tells it)."""
    resume: bool = False
    """Post-copy broke off, and this is a new data path: go on from there."""
    copies: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    """Disks (vda, ...) whose images are copied too."""


class MoveResult(Model):
    """What the source's libvirt said when the VM had left."""

    seconds: Seconds = 0
    downtime_ms: Count = 0
    memory_total: Count = 0
    iterations: Count = 0
    attached: bool = False
    """This attempt found the move already running (or finished) rather than starting it."""
    cancel_came_too_late: bool = False
    post_copy: bool = False
    """The VM switched before all of its memory was across."""
    disk_total: Count = 0
    decisions: Annotated[tuple[Decision, ...], Field(max_length=MOST_DECISIONS)] = ()


class ClosePath(Model):
    migration_id: MigrationId


class PathReport(Model):
    """Last status of a data path end before it was stopped; None when there was none."""

    status: DataPathStatus | None = None


class AgentsQuery(Model):
    queues: Annotated[tuple[str, ...], Field(max_length=2000)]


class AgentsAnswer(Model):
    polled: Annotated[dict[str, bool], Field(max_length=2000)]


class MigrationOutcome(Model):
    """Result of novacron.MigrateVm: the VM runs on `destination`, and nowhere else."""

    vm: Name
    site: Name
    source: Name
    destination: Name
    migration_id: MigrationId
    seconds: Seconds
    """From the start of the workflow to the confirmed switch."""
    downtime_ms: Count = 0
    """libvirt's own figure for the final pause."""
    memory_bytes: Count = 0
    disk_bytes: Count = 0
    """Of disk images that were copied with the VM."""
    post_copy: bool = False
    """The VM switched before all of its memory was across."""
    recoveries: Count = 0
    """How often post-copy broke off and went on over a new data path."""
    raw_bytes: Count = 0
    """Bytes QEMU and libvirt wrote into the data path."""
    wire_bytes: Count = 0
    """Bytes the data path put on the link (before TLS framing)."""
    iterations: Count = 0
    redials: Count = 0
    digest: str = ""
    """BLAKE3 of the memory stream, equal at both ends."""
    digest_verified: bool = False
    notes: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    marks: Annotated[tuple[Mark, ...], Field(max_length=64)] = ()
    """Phases and when they began."""
    decisions: Annotated[tuple[Decision, ...], Field(max_length=MOST_DECISIONS)] = ()
    """What the controller did to the move, and why."""
    goals: Annotated[tuple[GoalReport, ...], Field(max_length=16)] = ()
    """Which goals of the policy were kept."""
