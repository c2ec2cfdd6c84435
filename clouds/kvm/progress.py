"""Progress of a move from samples of libvirt's job and of the data path. Pure: samples and a clock in, Progress out.

Percent is the share of guest memory, and of disk images that are copied with it, that is across; it never runs back
although every new iteration brings dirty memory back into what remains. Disks go first, and libvirt tells the size
of the memory only after them: until then it is taken from the VM's own description. The ETA comes from how fast what
remains shrank over the last seconds, less the dirty rate, because what is dirtied meanwhile has to cross too:
eta = remaining / (drain - dirty); 1 GiB left at 50 MiB/s with 10 MiB/s dirtied is 25.6 s. Its band is the same at a
standard deviation of the drain above and below the mean of those seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from models.datapath import DataPathStatus
from models.migration import Phase, Progress

WINDOW = 8.0
"""Seconds of samples the drain rate is taken over: long enough to ride out a second of silence on the link."""
LONGEST_ETA = 86400.0
"""An ETA beyond a day is not a prediction; it is reported as unknown."""


@dataclass(frozen=True)
class JobSample:
    """The figures of libvirt's jobStats that progress needs: bytes of guest memory and of copied disks."""

    total: int = 0
    remaining: int = 0
    iteration: int = 0
    dirty_rate: float = 0.0
    """Bytes a second."""
    disk_total: int = 0
    disk_remaining: int = 0
    bandwidth: float = 0.0
    """Bytes a second that leave QEMU, as it measures them."""
    throttle: int = 0
    """Percent of its CPU time that QEMU takes from the guest."""

    @classmethod
    def of(cls, stats: Mapping[str, Any]) -> JobSample:
        page = int(stats.get("memory_page_size", 4096))
        return cls(
            total=int(stats.get("memory_total", 0)),
            remaining=int(stats.get("memory_remaining", 0)),
            iteration=int(stats.get("memory_iteration", 0)),
            dirty_rate=float(stats.get("memory_dirty_rate", 0)) * page,
            disk_total=int(stats.get("disk_total", 0)),
            disk_remaining=int(stats.get("disk_remaining", 0)),
            bandwidth=float(stats.get("memory_bps", 0)),
            throttle=int(stats.get("auto_converge_throttle", 0)),
        )


@dataclass
class Tracker:
    """Turns samples into Progress. `started` is what the operation had taken before the first sample; `memory` is the
    VM's memory in bytes, for as long as libvirt does not tell it."""

    started: float = 0.0
    percent: float = 0.0
    memory: int = 0
    _first: float | None = None
    _newest: JobSample = field(default_factory=JobSample)
    _drained: deque[tuple[float, int]] = field(default_factory=deque)
    """(time, bytes that left `remaining` since the sample before)."""

    @classmethod
    def resume(cls, last: Progress, started: float, memory: int = 0) -> Tracker:
        """Go on from the last report of an attempt that is over."""
        tracker = cls(started=started, percent=last.percent, memory=memory)
        tracker._newest = JobSample(
            last.memory_total,
            last.memory_remaining,
            last.iteration,
            disk_total=last.disk_total,
            disk_remaining=last.disk_remaining,
        )
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
        if job is not None and (job.total or job.disk_total):
            self._take(now, job if job.total else replace(job, total=self.memory, remaining=self.memory))
        newest = self._newest
        return Progress(
            phase=phase,
            percent=round(self.percent, 1),
            **self._eta(now),
            elapsed=self.started + now - self._first,
            memory_total=newest.total,
            memory_remaining=newest.remaining,
            disk_total=newest.disk_total,
            disk_remaining=newest.disk_remaining,
            iteration=newest.iteration,
            note=note,
            **_link(path),
        )

    def _take(self, now: float, job: JobSample) -> None:
        whole, left = job.total + job.disk_total, job.remaining + job.disk_remaining
        across = 100.0 * (whole - min(left, whole)) / whole
        # Only the end of the move is 100: the last iteration still has its pause and hand-over before it.
        self.percent = max(self.percent, min(across, 99.0))
        if self._drained:
            # What came back dirty between two samples hides some of what drained; then nothing is counted.
            self._drained.append((now, max(0, _left(self._newest) - _left(job))))
        else:
            self._drained.append((now, 0))
        while self._drained and self._drained[0][0] < now - WINDOW:
            self._drained.popleft()
        self._newest = job

    def _eta(self, now: float) -> dict[str, float | None]:
        """What remains at the mean rate, and at a standard deviation above and below it."""
        if len(self._drained) < 2:
            return {}
        times = [at for at, _ in self._drained]
        seconds = now - times[0]
        if seconds <= 0:
            return {}
        amounts = [amount for _, amount in self._drained][1:]
        mean = sum(amounts) / seconds
        spread = 0.0
        if len(amounts) > 1 and (sampled := times[-1] - times[0]) > 0:
            steps = [later - earlier for earlier, later in pairwise(times)]
            squares = sum(
                (amount - mean * step) ** 2 / step for amount, step in zip(amounts, steps, strict=True) if step
            )
            spread = (squares / sampled) ** 0.5
        return {
            "eta": self._seconds(mean),
            "eta_low": self._seconds(mean + spread),
            "eta_high": self._seconds(mean - spread),
        }

    def _seconds(self, drain: float) -> float | None:
        net = drain - self._newest.dirty_rate
        if net <= 0:
            return None
        eta = _left(self._newest) / net
        return round(eta, 1) if eta <= LONGEST_ETA else None


def _left(job: JobSample) -> int:
    return job.remaining + job.disk_remaining


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
