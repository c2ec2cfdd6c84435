"""Before a move: what was measured, what each strategy is expected to cost, and which one the policy picks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from models.base import Count, Labels, MigrationId, Model, Name, Seconds, Text
from models.host import Finding
from models.migration import MigrationPolicy, MoveMode, VmRef, Window, given_policy, wished

Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]


Sure = Literal["yes", "maybe", "no", "unknown"]


class Range(Model):
    """An expectation. None: there is no such figure, because it is not known or the move would never get there."""

    low: Figure | None = None
    likely: Figure | None = None
    high: Figure | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        known = [value for value in (self.low, self.likely, self.high) if value is not None]
        if known != sorted(known):
            raise ValueError(f"low, likely and high must be in this order, got {known}")
        return self


class MeasureDirtying(Model):
    """How fast does the guest dirty its memory? Asked of the source, before a move and never during one."""

    vm: VmRef
    seconds: Annotated[int, Field(ge=1, le=30)] = 2


class Dirtying(Model):
    """QEMU looks at a sample of the guest's pages twice, `seconds` apart; it slows nothing down."""

    bytes_per_second: Range = Range()
    resident_bytes: Count = 0
    """Memory of the host that the VM takes: pages it never touched cost nothing on the link. 0: not known."""
    seconds: Seconds = 0
    note: Text = ""
    """What the range comes from, or why there is none."""


class ProbeLink(Model):
    """Fill the data path `migration_id`, which was opened as a probe, and see what arrives. Run on the source."""

    migration_id: MigrationId
    seconds: Annotated[float, Field(gt=0, le=10)] = 1.5
    most_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 32)] = 256 << 20


class LinkSpeed(Model):
    """Measured over the very path a move would take: its protection, lanes and limits. Random bytes, not compressed."""

    bytes_per_second: Range = Range()
    round_trip: Seconds = 0
    sent_bytes: Count = 0
    seconds: Seconds = 0
    lanes: Count = 0
    carrier: Annotated[str, Field(max_length=300)] = ""
    note: Text = ""
    """Why there is no figure."""


class PlanRequest(Model):
    """Input of the workflow novacron.PlanMove: what novacron.MigrateVm takes, and whether to measure."""

    vm: Name
    to: Name
    source: Name | None = None
    policy_name: Name | None = None
    policy: MigrationPolicy = MigrationPolicy()
    measure: bool = True
    """Sample the guest's dirty rate and probe the link. False: seconds faster, and without times."""

    _named = model_validator(mode="before")(given_policy)
    _only_what_was_given = wished


class Goal(Model):
    """One goal of the policy, and whether a strategy is expected to meet it."""

    name: Name
    wanted: Annotated[str, Field(max_length=200)]
    met: Sure
    why: Text


class Strategy(Model):
    """What moving in one mode is expected to cost."""

    mode: MoveMode
    converges: Sure
    why: Text
    wire_bytes: Range = Range()
    seconds: Range = Range()
    downtime_ms: Range = Range()
    thin_seconds: Range = Range()
    """Seconds after the switch in which the guest waits for memory it misses; post-copy's price."""
    slowdown: Annotated[int, Field(ge=0, le=99)] = 0
    """Percent of its CPU time the guest would have to lose for this; 0: none."""
    goals: Annotated[tuple[Goal, ...], Field(max_length=16)] = ()


class Plan(Model):
    """Result of novacron.PlanMove. A VM that cannot move is a result too: see `blockers`."""

    vm: Name
    site: Name
    source: Name | None = None
    destination: Name
    ok: bool
    """Nothing speaks against starting it. Whether it reaches its goals is told by the chosen strategy."""
    blockers: Annotated[tuple[Finding, ...], Field(max_length=200)] = ()
    warnings: Annotated[tuple[Finding, ...], Field(max_length=200)] = ()
    labels: Labels = Field(default_factory=dict)
    policy_name: Name | None = None
    policy_why: Text = ""
    """Which policy holds, and what chose it."""
    policy: MigrationPolicy = MigrationPolicy()
    starts_at: AwareDatetime | None = None
    """When a move asked for now would start: the next opening of the policy's windows. None: at once."""
    memory_bytes: Count = 0
    disk_bytes: Count = 0
    """Of images that would be copied."""
    dirtying: Dirtying = Dirtying()
    link: LinkSpeed = LinkSpeed()
    ratio: Range = Range()
    """How much smaller the stream is expected to be on the link than in memory."""
    strategies: Annotated[tuple[Strategy, ...], Field(max_length=8)] = ()
    chosen: MoveMode | None = None
    reason: Text = ""


class OpeningQuery(Model):
    windows: Annotated[tuple[Window, ...], Field(max_length=16)]
    at: AwareDatetime


class Opening(Model):
    """The first moment at or after the one asked for at which a move may start."""

    at: AwareDatetime


class LabelRequest(Model):
    """Input of the workflow novacron.LabelVm. At most 32 labels in all."""

    vm: Name
    source: Name | None = None
    """Host that has the VM; found by asking every host of the site when omitted."""
    give: Labels = Field(default_factory=dict)
    take: Annotated[tuple[Name, ...], Field(max_length=32)] = ()


class LabelOrder(Model):
    vm: VmRef
    give: Labels = Field(default_factory=dict)
    take: Annotated[tuple[Name, ...], Field(max_length=32)] = ()


class LabelReport(Model):
    """All labels of the VM, as its host has them now."""

    vm: Name
    host: Name
    labels: Labels = Field(default_factory=dict)
