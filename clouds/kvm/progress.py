"""Progress of a move from samples of libvirt's job and of the data path. Pure: samples and a clock in, Progress out.

Percent is the share of guest memory that is across, and never runs back although every new iteration brings dirty
memory back into what remains. The ETA comes from how fast the remaining memory shrank over the last seconds,
less the dirty rate, because what is dirtied meanwhile has to cross too:
eta = remaining / (drain - dirty); 1 GiB left at 50 MiB/s with 10 MiB/s dirtied is 25.6 s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.datapath import DataPathStatus
from models.migration import Phase, Progress

WINDOW = 8.0
"""Seconds of samples the drain rate is taken over: long enough to ride out a second of silence on the link."""
LONGEST_ETA = 86400.0
"""An ETA beyond a day is not a prediction; it is reported as unknown."""


@dataclass(frozen=True)
class JobSample:
    """The figures of libvirt's jobStats that progress needs, bytes and pages of guest memory."""

    total: int = 0
    remaining: int = 0
    iteration: int = 0
    dirty_rate: float = 0.0
    """Bytes a second."""

    @classmethod
    def of(cls, stats: Mapping[str, Any]) -> JobSample:
        page = int(stats.get("memory_page_size", 4096))
        return cls(
            total=int(stats.get("memory_total", 0)),
            remaining=int(stats.get("memory_remaining", 0)),
            iteration=int(stats.get("memory_iteration", 0)),
            dirty_rate=float(stats.get("memory_dirty_rate", 0)) * page,
        )


@dataclass
class Tracker:
    """Turns samples into Progress. `started` is what the operation had taken before the first sample."""

    started: float = 0.0
    percent: float = 0.0
    _first: float | None = None
    _newest: JobSample = field(default_factory=JobSample)
    _drained: deque[tuple[float, int]] = field(default_factory=deque)
    """(time, bytes that left `remaining` since the sample before)."""

    @classmethod
    def resume(cls, last: Progress, started: float) -> Tracker:
        """Go on from the last report of an attempt that is over."""
        tracker = cls(started=started, percent=last.percent)
        tracker._newest = JobSample(last.memory_total, last.memory_remaining, last.iteration)
        return tracker

    def progress(
        self,
        now: float,
        job: JobSample | None,
        path: DataPathStatus | None,
        phase: Phase = "moving",
        note: str = "",
    ) -> Progress:
        """Progress at `now` (seconds, monotonic). A missing sample keeps what the last one said."""
        self._first = now if self._first is None else self._first
        if job is not None and job.total:
            self._take(now, job)
        newest = self._newest
        return Progress(
            phase=phase,
            percent=round(self.percent, 1),
            eta=self._eta(now),
            elapsed=self.started + now - self._first,
            memory_total=newest.total,
            memory_remaining=newest.remaining,
            iteration=newest.iteration,
            note=note,
            **_link(path),
        )

    def _take(self, now: float, job: JobSample) -> None:
        across = 100.0 * (job.total - min(job.remaining, job.total)) / job.total
        # Only the end of the move is 100: the last iteration still has its pause and hand-over before it.
        self.percent = max(self.percent, min(across, 99.0))
        if self._drained:
            # What came back dirty between two samples hides some of what drained; then nothing is counted.
            self._drained.append((now, max(0, self._newest.remaining - job.remaining)))
        else:
            self._drained.append((now, 0))
        while self._drained and self._drained[0][0] < now - WINDOW:
            self._drained.popleft()
        self._newest = job

    def _eta(self, now: float) -> float | None:
        if len(self._drained) < 2:
            return None
        seconds = now - self._drained[0][0]
        if seconds <= 0:
            return None
        drain = sum(amount for _, amount in list(self._drained)[1:]) / seconds
        net = drain - self._newest.dirty_rate
        if net <= 0:
            return None
        eta = self._newest.remaining / net
        return round(eta, 1) if eta <= LONGEST_ETA else None


def _link(path: DataPathStatus | None) -> dict[str, Any]:
    if path is None:
        return {"link": "unknown"}
    return {
        "raw_rate": path.raw_rate,
        "wire_rate": path.wire_rate,
        "raw_bytes": path.raw_out,
        "wire_bytes": path.wire_out,
        "lanes_alive": path.lanes_alive,
        "redials": path.redials,
        "link": path.state,
    }
