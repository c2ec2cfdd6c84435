"""Many VMs at once: evacuation, bulk moves, rebalancing. Requests, plans, progress and outcomes.

All collections are bounded: a run that handles more goes on as a new run and takes only what is here with it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, field_validator

from models.base import Count, Labels, Model, Name, Seconds, Text
from models.migration import MigrationPolicy

NonMovable = Literal["wait", "stop", "skip"]
"""What becomes of a VM that cannot move: looked at again until it can, shut down gracefully, or left where it is."""
FleetPhase = Literal[
    "planning", "planned", "moving", "waiting", "drained", "incomplete", "resuming", "done", "cancelled", "failed"
]
"""planned: a dry run that has ended. waiting: nothing can be moved now, it is looked again. drained: the host has no
running VM, with proof. incomplete: held in maintenance with VMs that were to be skipped. resuming: out of maintenance,
VMs are brought back."""
MAINTENANCE: tuple[FleetPhase, ...] = ("planning", "moving", "waiting", "drained", "incomplete")
"""Phases of an evacuation in which its host takes no VM."""
VmFate = Literal["waiting", "moving", "moved", "busy", "stopping", "stopped", "stuck", "failed", "left"]
"""busy: another operation holds it. stuck: it cannot move. failed: its attempts are used up. left: it went
by itself."""


def _with_priority(policy: MigrationPolicy, priority: int) -> MigrationPolicy:
    """The priority of the operation, where the policy names none."""
    return policy if "priority" in policy.model_fields_set else policy.model_copy(update={"priority": priority})


class Slots(Model):
    """How many moves may run at once. Each bound holds by itself."""

    total: Annotated[int, Field(ge=1, le=200)] = 50
    out: Annotated[int, Field(ge=1, le=64)] = 2
    """That leave one host."""
    into: Annotated[int, Field(ge=1, le=64)] = 2
    """That reach one host."""
    link: Annotated[int, Field(ge=1, le=64)] = 2
    """Between one pair of hosts, both ways together."""
    tenant: Annotated[int, Field(ge=0, le=200)] = 0
    """Of one tenant; 0 is no bound."""


class VmLoad(Model):
    """A VM as far as placing it needs."""

    name: Name
    host: Name
    memory_mib: Count = 0
    tenant: Name | None = None
    """Its label `tenant`."""
    why_not: Annotated[str, Field(max_length=300)] = ""
    """Why it cannot move as it is (paused, say); empty: it can."""


class HostRoom(Model):
    """A host as far as placing VMs needs. MiB."""

    name: Name
    total_mib: Count
    free_mib: Count
    """Available, without what its settings keep in reserve."""
    running: Count = 0
    moves: Count = 0
    """Data paths that live on it now."""


class SurveyRequest(Model):
    """Input of novacron.Survey: which VMs to name, a page at a time in the order of their names."""

    labels: Labels = Field(default_factory=dict)
    vms: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    """Only these; none: all."""
    hosts: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    """Only VMs on these; none: on all."""
    after: Annotated[str, Field(max_length=63)] = ""
    most: Annotated[int, Field(ge=0, le=2000)] = 500
    among: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    """Ask only these hosts; none: every host of the site."""
    draw: Annotated[int, Field(ge=0, le=2000)] = 0
    """Ask so many of them, drawn anew for each survey; 0: all."""


class Survey(Model):
    """The site's room, and a page of its live VMs."""

    rooms: Annotated[tuple[HostRoom, ...], Field(max_length=2000)] = ()
    vms: Annotated[tuple[VmLoad, ...], Field(max_length=2000)] = ()
    more: bool = False
    """There are VMs behind the last one named."""
    unfit: Annotated[dict[Name, Annotated[str, Field(max_length=300)]], Field(max_length=2000)] = Field(
        default_factory=dict
    )
    """Hosts that take no VM now, with the reason: silent, or in maintenance."""
    unasked: Count = 0
    """Hosts that were not drawn."""


class PlannedMove(Model):
    vm: Name
    source: Name
    to: Name
    memory_mib: Count = 0
    why: Annotated[str, Field(max_length=500)] = ""


class StuckVm(Model):
    """A VM that cannot move, why, and what becomes of it."""

    vm: Name
    memory_mib: Count = 0
    why: Annotated[str, Field(max_length=1000)]
    choice: NonMovable = "wait"


class FleetPlan(Model):
    """What would be done now."""

    moves: Annotated[tuple[PlannedMove, ...], Field(max_length=2000)] = ()
    stuck: Annotated[tuple[StuckVm, ...], Field(max_length=2000)] = ()
    memory_mib: Count = 0
    """Of the VMs that would move: at most so much guest memory crosses in the first pass of each."""
    notes: Annotated[tuple[Text, ...], Field(max_length=20)] = ()


class Drained(Model):
    """The fact that a host runs no VM, and who said so when."""

    host: Name
    asked_at: AwareDatetime
    """When the host answered, by the workflow's clock."""
    libvirt_version: Annotated[str, Field(max_length=32)]
    running: Count = 0
    """VMs alive in the host's own libvirt list: none."""
    defined: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    """VMs that are defined there and shut off."""


class VmLine(Model):
    """One VM in a progress report."""

    vm: Name
    fate: VmFate
    to: Annotated[str, Field(max_length=63)] = ""
    note: Annotated[str, Field(max_length=300)] = ""


class FleetProgress(Model):
    """How far an operation on many VMs is. Answer of the query `progress`."""

    phase: FleetPhase = "planning"
    paused: bool = False
    elapsed: Seconds = 0
    total: Count = 0
    waiting: Count = 0
    running: Count = 0
    moved: Count = 0
    failed: Count = 0
    stuck: Count = 0
    """Cannot move."""
    memory_mib: Count = 0
    memory_moved_mib: Count = 0
    eta: Seconds | None = None
    """Seconds until all that can move has moved, from the rate so far; None while unknown."""
    vms: Annotated[tuple[VmLine, ...], Field(max_length=200)] = ()
    """Running, failed and stuck ones first; at most 200."""
    drained: Drained | None = None
    note: Text = ""


class MovedVm(Model):
    vm: Name
    to: Name


class EvacuateRequest(Model):
    """Input of the workflow novacron.EvacuateHost."""

    host: Name
    to: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    """Hosts that may take VMs; none: every host of the site."""
    non_movable: NonMovable = "wait"
    stop_within: Annotated[float, Field(ge=5, le=3600)] = 300
    """Seconds a guest has for its shutdown with `stop`. One that does not follow is left running."""
    slots: Slots = Slots()
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Moves tried per VM and round, each to another destination where there is one."""
    policy: MigrationPolicy = MigrationPolicy(priority=1)
    dry_run: bool = False
    """Only plan: the result is what would be done. The host is not put into maintenance."""
    look_every: Annotated[float, Field(ge=5, le=3600)] = 60
    """Seconds between looks at VMs that are waited for, and ten times that between looks at a host that is drained."""

    @field_validator("policy")
    @classmethod
    def _goes_first(cls, policy: MigrationPolicy) -> MigrationPolicy:
        return _with_priority(policy, 1)


class EvacuateState(Model):
    """What a long maintenance takes along into its next run."""

    since: AwareDatetime
    phase: FleetPhase
    moved: Annotated[tuple[MovedVm, ...], Field(max_length=2000)] = ()
    moved_mib: Count = 0
    stopped: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    drained: Drained | None = None
    paused: bool = False


class EvacuateOutcome(Model):
    """Result of novacron.EvacuateHost: how the maintenance ended, or the plan of a dry run."""

    host: Name
    phase: FleetPhase
    seconds: Seconds
    plan: FleetPlan | None = None
    """Of a dry run."""
    drained: Drained | None = None
    """The last proof, when there was one."""
    moved: Annotated[tuple[MovedVm, ...], Field(max_length=2000)] = ()
    stopped: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    brought_back: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    not_brought_back: Annotated[dict[Name, Text], Field(max_length=2000)] = Field(default_factory=dict)
    notes: Annotated[tuple[Text, ...], Field(max_length=20)] = ()


class MoveManyRequest(Model):
    """Input of the workflow novacron.MoveMany. At least one of `labels`, `vms` and `hosts` chooses."""

    labels: Labels = Field(default_factory=dict)
    """VMs that carry all of these."""
    vms: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    hosts: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    """VMs that run on these."""
    to: Name | None = None
    """One destination for all; None: wherever the placement finds room."""
    slots: Slots = Slots()
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    policy: MigrationPolicy = MigrationPolicy()
    dry_run: bool = False
    """Only plan, and only the first page."""
    page: Annotated[int, Field(ge=1, le=1000)] = 300
    """VMs handled by one run before it goes on as a new one: bounds its history."""


class Pending(Model):
    """A VM whose move is under way, or to be tried again."""

    load: VmLoad
    to: Name | None = None
    """Where it is moving; None: it waits."""
    failures: Count = 0
    avoid: Annotated[tuple[Name, ...], Field(max_length=16)] = ()


class FailedVm(Model):
    vm: Name
    why: Annotated[str, Field(max_length=500)]


class MoveManyState(Model):
    """What a bulk move takes along into its next run."""

    since: AwareDatetime
    slots: Slots
    after: Annotated[str, Field(max_length=63)] = ""
    pending: Annotated[tuple[Pending, ...], Field(max_length=2000)] = ()
    moved: Count = 0
    memory_moved_mib: Count = 0
    failed: Count = 0
    failures: Annotated[tuple[FailedVm, ...], Field(max_length=100)] = ()
    paused: bool = False
    runs: Count = 1


class MoveManyOutcome(Model):
    """Result of novacron.MoveMany. Failures are named up to a hundred, and all are counted."""

    phase: FleetPhase
    seconds: Seconds
    moved: Count = 0
    failed: Count = 0
    memory_moved_mib: Count = 0
    failures: Annotated[tuple[FailedVm, ...], Field(max_length=100)] = ()
    plan: FleetPlan | None = None
    runs: Count = 1


class RebalanceRequest(Model):
    """Input of the workflow novacron.Rebalance: even out how full the hosts' memory is."""

    threshold: Annotated[float, Field(ge=1, le=100)] = 20
    """Percentage points between the fullest and the emptiest host from which on anything is done."""
    settle: Annotated[float, Field(ge=0, le=100)] = 10
    """It goes on until the difference is at most this. Below the threshold, so that it does not start again at once."""
    batch: Annotated[int, Field(ge=1, le=200)] = 10
    """Moves of one round; then the hosts are asked again."""
    rounds: Annotated[int, Field(ge=1, le=20)] = 3
    cool_down: Seconds = 300
    """Seconds between rounds: memory figures need time to settle."""
    labels: Labels = Field(default_factory=dict)
    """Only VMs that carry all of these are moved."""
    slots: Slots = Slots(total=4, out=1, into=1, link=1)
    policy: MigrationPolicy = MigrationPolicy(priority=5)
    dry_run: bool = False

    @field_validator("policy")
    @classmethod
    def _goes_last(cls, policy: MigrationPolicy) -> MigrationPolicy:
        return _with_priority(policy, 5)


class RebalanceOutcome(Model):
    phase: FleetPhase
    seconds: Seconds
    before: float
    """Percentage points between the fullest and the emptiest host at the start."""
    after: float
    """The same at the last look."""
    moved: Annotated[tuple[MovedVm, ...], Field(max_length=4000)] = ()
    failures: Annotated[tuple[FailedVm, ...], Field(max_length=100)] = ()
    plan: FleetPlan | None = None
    notes: Annotated[tuple[Text, ...], Field(max_length=20)] = ()


class HostGate(Model):
    """Answer to: may VMs be moved onto this host?"""

    maintenance: Annotated[str, Field(max_length=300)] = ""
    """Workflow that holds it in maintenance; empty: none."""
    shares: bool = False
    """The site's settings bound the bandwidth of moves: they ask for a share."""
    slots: bool = False
    """The site's settings bound how many moves run at once: they ask before they begin."""


class HostQuery(Model):
    host: Name


class Maintenance(Model):
    """Hosts that take no VM now, with the phase of the workflow that holds them."""

    hosts: Annotated[dict[Name, str], Field(max_length=2000)] = Field(default_factory=dict)


MoveState = Literal["running", "done", "failed", "unknown"]


class MovesQuery(Model):
    """Moves (workflow ids) to look at; answered when one of them has ended, or after `within` seconds."""

    ids: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=400)]
    within: Seconds = 0


class MovesAnswer(Model):
    states: Annotated[dict[str, MoveState], Field(max_length=400)]
    reasons: Annotated[dict[str, Annotated[str, Field(max_length=500)]], Field(max_length=400)] = Field(
        default_factory=dict
    )
    """Of failed ones."""


class StopVm(Model):
    """Shut a guest down, as its power button would, and wait for it."""

    vm: Name
    within: Annotated[float, Field(ge=1, le=3600)] = 300


class StopResult(Model):
    stopped: bool
    why: Text = ""
    """Why not."""
