"""What leaves this host right now, as gauges: sums over the moves whose steps run in this worker.

A gauge tells what is, so each report of any move sets all of them, and the end of the last one sets them to zero. They
carry no VM's name: a series of Prometheus stays for as long as the process lives.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from temporalio import activity
from temporalio.common import MetricMeter

from activities.meters import show
from models import metrics
from models.datapath import DataPathStatus
from models.migration import MoveVm, Progress

STALLED_AFTER = 60.0
"""Seconds in which not one byte was taken in."""
_PHASES = ("moving", "post-copy")


@dataclass
class _Move:
    """One move as it was last seen."""

    past_its_end: Callable[[float], bool]
    fed: float
    """When it last took in a byte."""
    phase: str = "moving"
    elapsed: float = 0.0
    link_lost: bool = False
    raw: int = 0
    wire_rate: float = 0.0
    lanes: int = 0
    streams: dict[str, int] = field(default_factory=dict)
    streams_at: float = 0.0
    rates: dict[str, float] = field(default_factory=dict)

    def take(self, status: DataPathStatus, now: float) -> None:
        moved: Counter[str] = Counter()
        for flow in status.flows:
            moved[flow.service] += flow.raw_out + flow.raw_in
        if self.streams_at and now > self.streams_at:
            span = now - self.streams_at
            self.rates = {name: (count - self.streams.get(name, 0)) / span for name, count in moved.items()}
        self.streams, self.streams_at = dict(moved), now
        raw = status.raw_out + status.raw_in
        if raw != self.raw:
            self.raw, self.fed = raw, now
        self.link_lost = status.state == "link-lost"
        self.wire_rate, self.lanes = status.wire_rate, status.lanes_alive


class Watched:
    """One running move; made by Gauges.of."""

    def __init__(self, gauges: Gauges, move: _Move) -> None:
        self._gauges = gauges
        self._move = move

    def status(self, status: DataPathStatus) -> DataPathStatus:
        self._move.take(status, self._gauges.now())
        return status

    def report(self, progress: Progress) -> None:
        self._move.phase, self._move.elapsed = progress.phase, progress.elapsed
        self._gauges.publish(activity.metric_meter())


class Gauges:
    """Of one host's worker. Its moves run in threads."""

    def __init__(
        self, host: str, now: Callable[[], float] = time.monotonic, clock: Callable[[], float] = time.time
    ) -> None:
        self._host = host
        self.now = now
        self._clock = clock
        self._lock = threading.Lock()
        self._moves: dict[str, _Move] = {}
        self._streams: set[str] = set()
        """Every stream ever shown: one that is gone must be shown as zero."""

    @contextmanager
    def of(self, order: MoveVm) -> Iterator[Watched]:
        """While the move step runs here."""
        policy = order.policy
        ends_at = policy.finish_by.timestamp() if policy.finish_by else float("inf")
        move = _Move(lambda elapsed: elapsed > policy.finish_within or self._clock() > ends_at, self.now())
        with self._lock:
            self._moves[order.migration_id] = move
        try:
            yield Watched(self, move)
        finally:
            with self._lock:
                self._moves.pop(order.migration_id, None)
            self.publish(activity.metric_meter())

    def publish(self, meter: MetricMeter) -> None:
        with self._lock:
            moves, now = list(self._moves.values()), self.now()
            phases = Counter(move.phase for move in moves)
            rates: defaultdict[str, float] = defaultdict(float)
            for move in moves:
                for stream, rate in move.rates.items():
                    rates[stream] += rate
            self._streams |= rates.keys()
            streams = {stream: rates[stream] for stream in self._streams}
        host, lanes = self._host, sum(move.lanes for move in moves)
        wire = sum(move.wire_rate for move in moves)
        for phase in _PHASES:
            show(meter, metrics.RUNNING, phases[phase], host=host, phase=phase)
        show(meter, metrics.STALLED, sum(now - move.fed > STALLED_AFTER for move in moves), host=host)
        show(meter, metrics.LATE, sum(move.past_its_end(move.elapsed) for move in moves), host=host)
        show(meter, metrics.LINK_LOST, sum(move.link_lost for move in moves), host=host)
        for stream, rate in streams.items():
            show(meter, metrics.STREAM_RATE, rate, host=host, stream=stream)
        show(meter, metrics.WIRE_RATE, wire, host=host)
        show(meter, metrics.LANE_RATE, wire / lanes if lanes else 0, host=host)
        show(meter, metrics.LANES, lanes, host=host)
