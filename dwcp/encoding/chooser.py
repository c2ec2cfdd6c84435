"""Which codec for the next batch: a cost model over what was measured. Pure: times and measurements are passed in.

    throughput(codec) = min(cores x availability / seconds of CPU per raw byte, link x ratio)

The cheapest codec within TOLERANCE of the best throughput wins; the choice changes only for a gain of HYSTERESIS, or
for a cheaper one that is as good. Availability is the part of the time in which a coding thread really runs. CPU per
raw byte counts compression and what TLS and sockets cost per wire byte at both ends, so that a codec can pay for itself
on a fast link. The link's rate is known only while the link is the limit; otherwise what goes through is a lower bound.

Content changes from batch to batch, so codecs are never compared by what each saw on batches of its own: `Estimate`
splits every observation into a factor common to all codecs (content, machine; follows fast) and one of the codec
(follows slowly from its prior). Neighbours of the choice are tried on every PROBE_EVERY-th batch: any choice decodes,
so a probe costs nothing but time.

Example, 2 cores, /usr/lib content: link 12 MB/s -> zstd5; 125 MB/s -> zstd1; 1 GB/s -> none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dwcp.encoding.codec import CHAIN_LEVELS, RUNGS, Rung
from dwcp.transport.hello import Features

TOLERANCE: Final = 0.985
HYSTERESIS: Final = 1.02
"""Neighbouring codecs differ by 3 to 8 %: wider bounds than these two keep the choice one below the best."""
DWELL_SECONDS: Final = 0.7
"""A choice stands at least this long."""
PROBE_EVERY: Final = 16
PROBE_EVERY_UNPACKED: Final = 4
"""While nothing is compressed only probes tell that the content has become compressible."""
FIRST_LINK: Final = 125e6
"""Assumed bytes a second before the link has shown more, or has shown to be the limit."""
TRANSPORT_SECONDS: Final = 1 / 450e6
"""CPU per wire byte at both ends: TLS 1.3 and sockets (measured: 0.8 s/GiB sending, 1.2 receiving)."""
LINK_SMOOTHING: Final = 0.4
AVAILABILITY_SMOOTHING: Final = 0.05
MIN_AVAILABILITY: Final = 0.1

PRIOR_SECONDS: Final[dict[Rung, float]] = {"lz4": 1 / 700e6, "zstd1": 1 / 450e6, "zstd3": 1 / 280e6, "zstd5": 1 / 130e6}
"""CPU seconds per raw byte; measured on /usr/lib content, 1 MiB batches, one core of an EPYC of the Zen 3 kind."""
PRIOR_GAIN: Final[dict[Rung, float]] = {"lz4": 0.54, "zstd1": 0.66, "zstd3": 0.70, "zstd5": 0.715}
"""Part of the raw bytes that is saved; same content."""


class Estimate:
    """A quantity of each codec: prior x common factor x the codec's own factor."""

    FAST: Final = 0.2
    SLOW: Final = 0.02
    CLEAR: Final = 0.05
    """Below this the common factor says too little to compare codecs by."""

    def __init__(self, prior: dict[Rung, float]) -> None:
        self._prior = prior
        self._common = 1.0
        self._own = dict.fromkeys(prior, 1.0)

    def observe(self, rung: Rung, value: float) -> None:
        factor, own, common = value / self._prior[rung], self._own[rung], self._common
        self._common += self.FAST * (factor / own - common)
        if common > self.CLEAR:
            self._own[rung] = min(4.0, max(0.25, own + self.SLOW * (factor / common - own)))

    def of(self, rung: Rung) -> float:
        return self._prior[rung] * self._common * self._own[rung]


@dataclass(frozen=True, slots=True)
class Choice:
    rung: Rung
    reason: str


class Chooser:
    def __init__(self, allowed: tuple[Rung, ...], cores: int) -> None:
        self._allowed = allowed
        self._cores = cores
        self._available = 1.0
        self._seconds = Estimate(PRIOR_SECONDS)
        self._gain = Estimate(PRIOR_GAIN)
        self._link = FIRST_LINK
        self._batches = 0
        self._changed_at = float("-inf")
        self.choice = Choice(allowed[0], "nothing measured yet")
        self.choice = self._best()

    def observe(self, rung: Rung, raw: int, wire: int, cpu: float, wall: float) -> None:
        """One batch was encoded by `rung`: `raw` bytes to `wire` bytes in `cpu` seconds of the thread's time."""
        if rung == "none":
            return
        self._seconds.observe(rung, cpu / raw)
        self._gain.observe(rung, max(0.0, 1 - wire / raw))
        if wall > 0:
            self._available += AVAILABILITY_SMOOTHING * (min(1.0, cpu / wall) - self._available)

    def link(self, rate: float, limited: bool) -> None:
        """`rate`: wire bytes delivered a second. `limited`: the link, not we or the programs, set that rate."""
        if limited:
            self._link += LINK_SMOOTHING * (rate - self._link)
        else:
            self._link = max(self._link, rate)

    def next(self, now: float) -> Rung:
        """The codec for the next batch: the choice, or now and then a neighbour of it to stay informed."""
        if now - self._changed_at >= DWELL_SECONDS:
            best = self._best()
            if best.rung != self.choice.rung and self._worth(best.rung):
                self.choice, self._changed_at = best, now
        self._batches += 1
        every = PROBE_EVERY_UNPACKED if self.choice.rung == "none" else PROBE_EVERY
        if self._batches % every:
            return self.choice.rung
        place = self._allowed.index(self.choice.rung)
        step = 1 if (self._batches // every) % 2 or not place else -1
        return self._allowed[min(max(place + step, 0), len(self._allowed) - 1)]

    def throughput(self, rung: Rung) -> float:
        """Raw bytes a second that this codec could carry."""
        cores = self._cores * max(MIN_AVAILABILITY, self._available)
        return min(cores / self._cost(rung), self._link / self._share(rung))

    def _worth(self, rung: Rung) -> bool:
        """Whether `rung`, the best one now, is worth a change."""
        cheaper = self._cost(rung) < self._cost(self.choice.rung)
        return cheaper or self.throughput(rung) > self.throughput(self.choice.rung) * HYSTERESIS

    def _best(self) -> Choice:
        could = {rung: self.throughput(rung) for rung in self._allowed}
        enough = max(could.values()) * TOLERANCE
        rung = min((r for r in self._allowed if could[r] >= enough), key=self._cost)
        return Choice(
            rung,
            f"link {self._link / 1e6:.1f} MB/s; " + ", ".join(f"{r} {could[r] / 1e6:.0f}" for r in self._allowed),
        )

    def _cost(self, rung: Rung) -> float:
        packing = 0.0 if rung == "none" else self._seconds.of(rung)
        return packing + self._share(rung) * TRANSPORT_SECONDS

    def _share(self, rung: Rung) -> float:
        """Wire bytes per raw byte."""
        return 1.0 if rung == "none" else min(1.0, max(0.01, 1 - self._gain.of(rung)))


def allowed_rungs(codec: str, features: Features) -> tuple[Rung, ...]:
    """What the configuration and the peer leave to choose from; never empty."""
    by_name: dict[str, tuple[Rung, ...]] = {"none": ("none",), "lz4": ("lz4",), "zstd": ("zstd1", "zstd3", "zstd5")}
    wanted = by_name.get(codec, tuple(rung for rung in RUNGS if rung not in CHAIN_LEVELS))
    fit = tuple(
        rung for rung in wanted if rung == "none" or (Features.LZ4 if rung == "lz4" else Features.ZSTD) in features
    )
    return fit or ("none",)
