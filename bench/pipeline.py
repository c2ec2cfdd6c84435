"""The source's pipeline as a simulation: reader, lanes, processors, link. Time is simulated, sizes and costs are real.

What is modelled is what makes a codec good or bad: the reader hands over one batch at a time and packs chained batches
itself; each lane takes a batch when the window has room, packs it on one of the processors and gives it to the kernel;
the link carries one frame after the other; every 50 ms the chooser hears what was delivered and whether the link holds
the rest back, as a session tells it. What is not: other programs, losses, a slow destination.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.measured import Table
from dwcp.encoding.chooser import TRANSPORT_SECONDS, Chooser
from dwcp.encoding.codec import CHAIN_LEVELS, Rung

LANES: Final = 2
"""At least; a processor without a lane would not compress."""
TICK: Final = 0.05
WINDOW_SECONDS: Final = 0.1
ROUND_TRIP: Final = 0.001
WINDOW_FLOOR: Final = 128 << 10

Choose = Callable[[float, int], Rung]
"""The rung for batch `i` at a time."""


@dataclass(frozen=True)
class Run:
    seconds: float
    used: dict[Rung, int]
    """Batches by rung."""
    rungs: list[Rung]
    ends: list[float]
    """When each batch was over the link."""


class Pipeline:
    """One flow of all batches of a table over a link of `rate(now)` bytes a second."""

    def __init__(self, table: Table, rate: Callable[[float], float], cores: int) -> None:
        self._table = table
        self._rate = rate
        self._free = [0.0] * cores
        self._lanes = [0.0] * max(LANES, cores)
        self._link_free = 0.0
        self._sent: list[tuple[float, float, int]] = []
        """Of each frame: handed to the kernel, over the link, bytes."""
        self._settled = 0
        """Frames before it are acknowledged at the newest time asked for."""
        self._delivered = 0

    def run(self, choose: Choose, chooser: Chooser | None = None) -> Run:
        table, reader, taken = self._table, 0.0, 0.0
        rungs: list[Rung] = []
        tick = TICK
        observed: list[tuple[float, Rung, int, int, float]] = []
        for i, raw in enumerate(table.raw):
            ready = max(reader, taken)
            while chooser is not None and tick <= ready:
                self._observe(chooser, observed, tick)
                chooser.delivered(tick, *self._state(tick))
                tick += TICK
            if chooser is not None:
                self._observe(chooser, observed, ready)
            rung = choose(ready, i)
            rungs.append(rung)
            packing = table.packings[rung]
            wire, cpu = packing.wire[i], packing.cpu[i]
            chained = rung in CHAIN_LEVELS
            if chained:
                ready = self._work(ready, cpu)
                observed.append((ready, rung, raw, wire, cpu))
            lane = min(range(len(self._lanes)), key=self._lanes.__getitem__)
            taken = self._room(max(ready, self._lanes[lane]))
            done = self._work(taken, wire * TRANSPORT_SECONDS + (0.0 if chained else cpu))
            if not chained:
                observed.append((done, rung, raw, wire, cpu))
            start = max(done, self._link_free)
            self._link_free = start + wire / self._rate(start)
            self._sent.append((done, self._link_free, wire))
            self._lanes[lane] = done
            reader = ready
        return Run(self._link_free, {rung: rungs.count(rung) for rung in set(rungs)}, rungs, [s[1] for s in self._sent])

    def _observe(self, chooser: Chooser, observed: list[tuple[float, Rung, int, int, float]], now: float) -> None:
        while observed and observed[0][0] <= now:
            _, rung, raw, wire, cpu = observed.pop(0)
            chooser.observe(rung, raw, wire, cpu, cpu)

    def _work(self, start: float, cpu: float) -> float:
        """When a processor has done it."""
        core = min(range(len(self._free)), key=self._free.__getitem__)
        self._free[core] = max(start, self._free[core]) + cpu
        return self._free[core]

    def _limit(self, now: float) -> float:
        return max(WINDOW_FLOOR, self._rate(now) * (WINDOW_SECONDS + ROUND_TRIP))

    def _room(self, start: float) -> float:
        """The first time from `start` on at which the window takes another frame."""
        out = sum(size for _, end, size in self._sent[-64:] if end > start)
        for _, end, size in self._sent[-64:]:
            if out < self._limit(start):
                break
            if end > start:
                start, out = end, out - size
        return start

    def _state(self, now: float) -> tuple[int, bool]:
        """Bytes delivered, and whether the link is the limit: the window nearly full, and much of it not yet sent."""
        while self._settled < len(self._sent) and self._sent[self._settled][1] <= now:
            self._delivered += self._sent[self._settled][2]
            self._settled += 1
        out = sum(size for done, _, size in self._sent[self._settled :] if done <= now)
        ends = [end for done, end, _ in self._sent[self._settled :] if done <= now]
        unsent = (ends[-1] - now) * self._rate(now) if ends else 0.0
        return self._delivered, out >= 0.7 * self._limit(now) and unsent >= 0.3 * out
