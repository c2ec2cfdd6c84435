"""The story a move leaves: decisions with their reasons, phases with their times, and which goals were kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.base import Model, Name, Seconds

Action = Literal["downtime", "throttle", "bandwidth", "hold", "release", "post-copy", "pause", "give up"]
"""What was done to the move: raise the planned pause, slow the guest, bound the reading of its memory, hold the move
and let it go on, let the VM switch first, let the guest stand still, abort."""

MOST_DECISIONS = 64
Short = Annotated[str, Field(max_length=500)]


class Decision(Model):
    """One thing that was done to a running move, why, and on what figures."""

    number: Annotated[int, Field(ge=1)]
    """Counts within one migration; the same number is the same decision, however often it is told."""
    at: Seconds
    """Since the move step began."""
    action: Action
    value: float = 0
    """downtime: ms. throttle: percent of the guest's CPU time. bandwidth: MiB/s, 0 is no bound. Else 0."""
    reason: Short
    inputs: Annotated[dict[Name, float], Field(max_length=16)] = Field(default_factory=dict)
    """The figures it was made on: bytes, bytes a second, seconds, as their names say."""


class Mark(Model):
    """A phase began."""

    phase: Annotated[str, Field(max_length=32)]
    at: Seconds
    """Since the workflow began."""


class GoalReport(Model):
    """Whether one goal of the policy was kept."""

    goal: Annotated[str, Field(max_length=64)]
    wanted: Short
    got: Short
    kept: bool


class Story(Model):
    """All that `novacron explain` tells: of a running move up to now, of an ended one the whole."""

    vm: Name
    source: str = ""
    destination: str = ""
    phase: Annotated[str, Field(max_length=32)] = "checking"
    elapsed: Seconds = 0
    moving_since: Seconds = 0
    """Seconds from the start of the workflow to that of the move step, which decisions count from."""
    marks: Annotated[tuple[Mark, ...], Field(max_length=64)] = ()
    decisions: Annotated[tuple[Decision, ...], Field(max_length=MOST_DECISIONS)] = ()
    goals: Annotated[tuple[GoalReport, ...], Field(max_length=16)] = ()
    """Empty while it runs."""
    notes: Annotated[tuple[Annotated[str, Field(max_length=4000)], ...], Field(max_length=20)] = ()
