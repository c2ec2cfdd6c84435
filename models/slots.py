"""How many moves may run at once on a site, whoever started them: limits, who moves, who waits and why."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from models.base import Count, Model, Name

WAKE = "novacron.slot"
"""Signal to a move that waits: ask again."""
MOST_LINES = 2000
"""Moves that the keeper of the slots knows of at once; more wait without a place in its line."""

Bound = Annotated[int, Field(ge=0, le=10_000)]
"""Moves at once; 0 is no bound."""
Tenant = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,63}$")]
"""A VM's label `tenant`; empty: it has none."""
WorkflowId = Annotated[str, Field(max_length=200)]
Reason = Annotated[str, Field(max_length=500)]


class HostSlots(Model):
    """How many moves one host bears at once."""

    out: Bound = 0
    """That leave it."""
    into: Bound = 0
    """That reach it."""
    both: Bound = 0
    """Of both kinds together."""


class LinkSlots(Model):
    """How many moves may run between two hosts, both ways together."""

    a: Name
    b: Name
    moves: Annotated[int, Field(ge=1, le=10_000)]


class SlotLimits(Model):
    """Part of a site's settings. Where nothing is said, nothing is bounded. Each bound holds by itself."""

    site: Bound = 0
    """Of all moves of the site."""
    each_host: HostSlots = HostSlots()
    """Of every host that is not named."""
    hosts: Annotated[dict[Name, HostSlots], Field(max_length=2000)] = Field(default_factory=dict)
    links: Annotated[tuple[LinkSlots, ...], Field(max_length=2000)] = ()
    each_tenant: Bound = 0
    """Of every tenant that is not named; VMs without the label are one tenant too."""
    tenants: Annotated[dict[Name, Bound], Field(max_length=2000)] = Field(default_factory=dict)

    def of(self, host: str) -> HostSlots:
        return self.hosts.get(host, self.each_host)

    def named_hosts(self) -> set[str]:
        return {*self.hosts, *(end for link in self.links for end in (link.a, link.b))}


class SlotWish(Model):
    """A move that is to begin, or that runs already (`held`)."""

    workflow_id: WorkflowId
    run_id: Annotated[str, Field(max_length=64)]
    source: Name
    to: Name
    tenant: Tenant = ""
    priority: Annotated[int, Field(ge=1, le=5)] = 3
    """1 goes first."""
    since: AwareDatetime
    """When it asked first."""
    held: bool = False
    """It moves, or may: it is counted, whatever the limits say."""
    asking: bool = False
    """Its answer is on its way, so it may begin any moment, or not."""


class SlotLine(Model):
    """One move as the keeper sees it."""

    wish: SlotWish
    held: bool = False
    """It has its slots."""
    found: bool = False
    """Counted by the keeper itself after it was lost: the move's own next word goes over this."""
    why: Reason = ""
    """Why it waits."""
    before: Count = 0
    """Moves before it that wait for the same."""


class SlotsState(Model):
    """What the keeper takes along into its next run, and what its query shows."""

    lines: Annotated[tuple[SlotLine, ...], Field(max_length=MOST_LINES)] = ()
    turns: Annotated[dict[Tenant, AwareDatetime], Field(max_length=MOST_LINES)] = Field(default_factory=dict)
    """Tenant -> when one of its moves began last."""
    limits: SlotLimits = SlotLimits()
    counted: bool = False
    """It knows which moves run: before that nobody begins."""


class SlotWishes(Model):
    """The moves of a site that run now, from their own mouths."""

    wishes: Annotated[tuple[SlotWish, ...], Field(max_length=MOST_LINES)] = ()


class SlotAnswer(Model):
    """May the move begin?"""

    granted: bool
    why: Reason = ""
    """Why not yet."""
    counting: bool = False
    """The keeper was just started, and will know in a moment."""


class GiveBack(Model):
    """A move that needs its slots, or its place in the line, no longer."""

    workflow_id: WorkflowId
    run_id: Annotated[str, Field(max_length=64)]
