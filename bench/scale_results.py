"""What a scale run found, and how runs are kept: bench/results/scale.json, a list with one run of each size.

A run replaces the run of the same size, with or without faults, and leaves the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from bench.results import ResultsError
from models.base import Count, Model, Seconds


class Spread(Model):
    """Of many values of one kind."""

    count: Count = 0
    median: float = 0.0
    p95: float = 0.0
    most: float = 0.0


def spread(values: Iterable[float]) -> Spread:
    """Percentiles by the nearest rank; zeros when there is nothing."""
    ordered = sorted(values)
    if not ordered:
        return Spread()

    def at(share: float) -> float:
        return round(float(ordered[min(len(ordered) - 1, int(share * len(ordered)))]), 4)

    return Spread(count=len(ordered), median=at(0.5), p95=at(0.95), most=round(float(ordered[-1]), 4))


class Stage(Model):
    """One part of a run."""

    name: str
    seconds: Seconds
    workflows: Count = 0
    """That ended in it."""
    moves: Count = 0
    """VMs that switched in it."""
    starts: Spread = Spread()
    """Seconds until the server had taken a start."""
    cpu_seconds: dict[str, float] = Field(default_factory=dict)
    """Of the server, the control workers, and the simulated hosts (one process, which also drives the run)."""

    @property
    def workflows_per_second(self) -> float:
        return self.workflows / self.seconds if self.seconds else 0.0

    @property
    def moves_per_second(self) -> float:
        return self.moves / self.seconds if self.seconds else 0.0


class History(Model):
    """Sizes of the histories of one type of workflow."""

    type: str
    events: Spread
    bytes: Spread
    seconds: Spread
    """From start to end, by the server's clock."""


class Fact(Model):
    """Something that has to be so at the end."""

    what: str
    expected: Count
    found: Count

    @property
    def holds(self) -> bool:
        return self.expected == self.found


class ScaleRun(Model):
    """One run of `python -m bench.scale`."""

    run: str
    """Its start, UTC."""
    command: str
    commit: str
    machine: str
    versions: dict[str, str]
    load: float
    """Load average of the machine before the run: what others did on it."""
    hosts: Count
    vms: Count
    evacuated: Count
    move_seconds: Seconds
    """Median of the simulated moves."""
    faults: Annotated[float, Field(ge=0, le=1)]
    """Share of moves that were made to fail."""
    silent: Count = 0
    """Hosts without a worker, from the start."""
    crashed: Count = 0
    """Hosts whose worker was stopped in the middle, and started again."""
    control_workers: Count
    stages: tuple[Stage, ...]
    placement_ms: Spread = Spread()
    """Milliseconds to choose one destination among all hosts, the pure function by itself."""
    histories: tuple[History, ...]
    peak_mib: dict[str, Count]
    """Resident memory by process: server, control workers, simulated hosts."""
    database_mib: Count
    facts: tuple[Fact, ...]
    failed_moves: dict[str, Count] = Field(default_factory=dict)
    """Runs of MigrateVm that did not move their VM, by the type of their error."""
    drain: tuple[tuple[float, int], ...] = ()
    """(seconds since the evacuations began, VMs still on those hosts)"""

    @property
    def size(self) -> tuple[int, int, int, bool]:
        """Two runs of one size stand for the same thing."""
        return (self.hosts, self.vms, self.evacuated, bool(self.faults))

    @property
    def holds(self) -> bool:
        return all(fact.holds for fact in self.facts)

    def stage(self, name: str) -> Stage | None:
        return next((stage for stage in self.stages if stage.name == name), None)


_RUNS = TypeAdapter(tuple[ScaleRun, ...])


def load(path: Path) -> tuple[ScaleRun, ...]:
    """All runs, smallest first; none when the file does not exist. Raises ResultsError."""
    if not path.exists():
        return ()
    try:
        return _RUNS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ResultsError(f"{path} holds no scale runs: {error}. Move it away and run again") from error


def save(path: Path, runs: Sequence[ScaleRun]) -> None:
    """These runs, and those of other sizes that were there."""
    fresh = {run.size: run for run in runs}
    kept = {run.size: run for run in load(path)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_RUNS.dump_json(tuple(run for _, run in sorted((kept | fresh).items())), indent=1) + b"\n")
