"""Which codec for the next batch: a cost model over what was measured. Pure: times and measurements are passed in.

    throughput(codec) = min(cores / seconds of CPU per raw byte, link x ratio)

The cheapest codec within TOLERANCE of the best throughput wins. CPU per raw byte counts compression and what TLS and
sockets cost per wire byte at both ends, so that a codec can pay for itself on a fast link. Speeds and ratios are
observed batch by batch; a codec that is not in use is estimated from its prior, scaled by what the others show, and its
neighbours on the ladder are tried on every PROBE_EVERY-th batch (any choice decodes, so a probe costs nothing but
time). The link's rate is known only while the link is the limit; otherwise what goes through is a lower bound.

Example, 2 cores, /usr/lib content: link 12 MB/s -> zstd5; 125 MB/s -> zstd1; 1 GB/s -> lz4 or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dwcp.encoding.codec import RUNGS, Rung
from dwcp.transport.hello import Features

TOLERANCE: Final = 0.97
DWELL_SECONDS: Final = 0.5
"""A choice stands at least this long."""
PROBE_EVERY: Final = 16
FIRST_LINK: Final = 125e6
"""Assumed bytes a second before the link has shown more, or has shown to be the limit."""
TRANSPORT_SECONDS: Final = 1 / 450e6
"""CPU per wire byte at both ends: TLS 1.3 and sockets (measured: 0.8 s/GiB sending, 1.2 receiving)."""
SMOOTHING: Final = 0.2

PRIOR_SPEED: Final[dict[Rung, float]] = {"none": 8e9, "lz4": 700e6, "zstd1": 450e6, "zstd3": 280e6, "zstd5": 130e6}
PRIOR_RATIO: Final[dict[Rung, float]] = {"none": 1.0, "lz4": 2.1, "zstd1": 2.9, "zstd3": 3.25, "zstd5": 3.4}


@dataclass(slots=True)
class Observed:
    """Smoothed seconds and wire bytes per raw byte of one codec on this content and machine."""

    seconds: float
    share: float

    def add(self, seconds: float, share: float) -> None:
        self.seconds += SMOOTHING * (seconds - self.seconds)
        self.share += SMOOTHING * (share - self.share)


@dataclass(frozen=True, slots=True)
class Choice:
    rung: Rung
    reason: str


class Chooser:
    def __init__(self, allowed: tuple[Rung, ...], cores: int) -> None:
        self._allowed = allowed
        self._cores = cores
        self._observed: dict[Rung, Observed] = {}
        self._link = FIRST_LINK
        self._batches = 0
        self._changed_at = float("-inf")
        self.choice = Choice(allowed[0], "nothing measured yet")
        self.choice = self._best()

    def observe(self, rung: Rung, raw: int, wire: int, seconds: float) -> None:
        """One batch was encoded by `rung`: `raw` bytes to `wire` bytes in `seconds` of wall time."""
        each, share = seconds / raw, wire / raw
        known = self._observed.get(rung)
        if known is None:
            # The first use also pays for setting the codec up, so its speed is only one opinion next to the prior.
            known = self._observed[rung] = Observed(1 / PRIOR_SPEED[rung], share)
        known.add(each, share)

    def link(self, rate: float, limited: bool) -> None:
        """`rate`: wire bytes delivered a second. `limited`: the link, not we or the programs, set that rate."""
        if limited:
            self._link += SMOOTHING * (rate - self._link)
        else:
            self._link = max(self._link, rate)

    def next(self, now: float) -> Rung:
        """The codec for the next batch: the choice, or now and then a neighbour of it to stay informed."""
        if now - self._changed_at >= DWELL_SECONDS:
            best = self._best()
            if best.rung != self.choice.rung:
                self.choice, self._changed_at = best, now
        self._batches += 1
        if self._batches % PROBE_EVERY:
            return self.choice.rung
        place = self._allowed.index(self.choice.rung)
        step = 1 if (self._batches // PROBE_EVERY) % 2 else -1
        return self._allowed[min(max(place + step, 0), len(self._allowed) - 1)]

    def throughput(self, rung: Rung) -> float:
        """Raw bytes a second that this codec could carry."""
        return min(self._cores / self._cost(rung), self._link / self._share(rung))

    def _best(self) -> Choice:
        could = {rung: self.throughput(rung) for rung in self._allowed}
        enough = max(could.values()) * TOLERANCE
        rung = min((r for r in self._allowed if could[r] >= enough), key=self._cost)
        return Choice(
            rung,
            f"link {self._link / 1e6:.1f} MB/s; " + ", ".join(f"{r} {could[r] / 1e6:.0f}" for r in self._allowed),
        )

    def _cost(self, rung: Rung) -> float:
        known = self._observed.get(rung)
        if known:
            packing = known.seconds
        else:
            # The machine is as much slower than the priors as on the codecs that were seen.
            seen = [o.seconds * PRIOR_SPEED[r] for r, o in self._observed.items() if r != "none"]
            packing = (sum(seen) / len(seen) if seen else 1.0) / PRIOR_SPEED[rung]
        return packing + self._share(rung) * TRANSPORT_SECONDS

    def _share(self, rung: Rung) -> float:
        known = self._observed.get(rung)
        if known:
            return known.share
        seen = [(1 - o.share) / (1 - 1 / PRIOR_RATIO[r]) for r, o in self._observed.items() if r != "none"]
        gain = sum(seen) / len(seen) if seen else 1.0
        return min(1.0, max(0.01, 1 - gain * (1 - 1 / PRIOR_RATIO[rung])))


def allowed_rungs(codec: str, features: Features) -> tuple[Rung, ...]:
    """What the configuration and the peer leave to choose from; never empty."""
    by_name: dict[str, tuple[Rung, ...]] = {"none": ("none",), "lz4": ("lz4",), "zstd": ("zstd1", "zstd3", "zstd5")}
    wanted = by_name.get(codec, RUNGS)
    fit = tuple(
        rung for rung in wanted if rung == "none" or (Features.LZ4 if rung == "lz4" else Features.ZSTD) in features
    )
    return fit or ("none",)
