"""Jobs that run by the clock."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from models.base import Model, Name, Seconds, Text

Job = Literal["evacuate", "move-many", "rebalance", "migrate"]
Overlap = Literal["skip", "buffer-one", "buffer-all", "allow-all"]
"""What happens to a start whose predecessor still runs."""


class PlannedJob(Model):
    """Input of the workflow novacron.Planned: what a schedule starts."""

    job: Job
    input: Annotated[dict[str, Any], Field(max_length=64)] = Field(default_factory=dict)
    """Input of that job's workflow."""


class PlannedOutcome(Model):
    """What became of one start of a schedule."""

    job: Job
    workflow_id: Annotated[str, Field(max_length=300)]
    started: bool
    """False: a run of that id was there already, and was left alone."""
    note: Text = ""


class ScheduleRequest(Model):
    """A schedule as people ask for it: a cron expression or an interval."""

    name: Name
    job: PlannedJob
    cron: Annotated[str, Field(max_length=100)] = ""
    """Five fields: minute, hour, day of month, month, day of week."""
    every: Seconds = 0
    """Seconds between starts; instead of cron."""
    zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9+_/-]{1,64}$")] = "UTC"
    jitter: Seconds = 0
    """Each start is put off by a random time up to this."""
    overlap: Overlap = "skip"
    catch_up: Annotated[float, Field(ge=10, le=86400 * 30)] = 3600
    """Seconds a start may be late, because Temporal was away, and still happen."""
    paused: bool = False

    @model_validator(mode="after")
    def _one_clock(self) -> ScheduleRequest:
        if bool(self.cron) == bool(self.every):
            raise ValueError("give either cron or every, and not both")
        if self.every and self.every < 60:
            raise ValueError("every: at least 60 seconds lie between two starts")
        return self


class ScheduleReport(Model):
    """A schedule as Temporal has it."""

    name: Name
    id: Annotated[str, Field(max_length=300)]
    job: str
    input: dict[str, Any] = Field(default_factory=dict)
    when: Text
    overlap: str
    catch_up: float
    """Seconds."""
    paused: bool = False
    next: tuple[datetime, ...] = ()
    last: datetime | None = None
    last_end: Text = ""
    """How what it started last has ended: running, done, left alone, or why it failed; empty when it is not known."""
    skipped: int = 0
    """Starts left out because the one before still ran."""
    missed: int = 0
    """Starts left out because they were later than the catch-up window."""
