"""Which codec for the next batch: a cost model over what was measured. Pure: times and measurements are passed in.

Two things pass a batch on, one after the other but each on different batches at once: processors (compression, and TLS
and sockets for what is left) and the link. Per raw byte and codec that takes

    work = (CPU seconds of the codec / its processors + share x TRANSPORT_SECONDS / processors) / availability
    link = share / link rate            share = wire bytes per raw byte

and what is slower sets the pace. No single codec makes both take equally long, so the choice is made for each batch at
a price: the codec with the least `price x work + (1 - price) x link`. The price rises while the chosen batches cost
more work than link, and falls while they cost less; that settles on the best mixture of two neighbouring codecs, which
is up to a tenth faster than the best single one (bench/regret.py).

* Share and CPU are predicted for each batch from a sample of it (features.py), corrected by what came out before:
  `Estimate`. So incompressible batches are not compressed, and a change of content is followed at once.
* The link's rate is known only while the link holds us back. While it does not and our processors are busy, the
  assumed rate grows, at first by half each time: a new session learns its link within some tenths of a second.
* A chain (chain.py) sees batches in order, so it has one processor, whatever there are, and must not change often: one
  chain codec at most is in use, and it stays in or out for CHAIN_DWELL. While the link is the slower side, all batches
  go by it: one that goes another way costs bytes.
* Availability is the part of the time in which a coding thread really runs.

Example, 1 core, /usr content: link 6 MB/s -> chain9; 12 -> chain6; 60 -> chain1; 125 -> zstd1, zstd3; 1000 -> lz4.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from dwcp.encoding.codec import CHAIN_LEVELS, RUNGS, Rung
from dwcp.encoding.features import NANOSECONDS, SHARE, STEPS, curve, sample_share
from dwcp.transport.frames import Buffer
from dwcp.transport.hello import Features

TRANSPORT_SECONDS: Final = 1 / 450e6
"""CPU per wire byte at both ends: TLS 1.3 and sockets (measured: 0.8 s/GiB sending, 1.2 receiving)."""
URGENT: Final[frozenset[Rung]] = frozenset({"none", "lz4", "zstd1"})
"""For bytes that somebody waits for: what takes a millisecond or two for a MiB."""

FIRST_LINK: Final = 500e6
"""Assumed bytes a second before the link has shown more, or has shown to be the limit."""
TICK: Final = 0.045
"""Delivery is judged over spans of at least this."""
FULL_TICK: Final = 0.095
"""The rate of a full link is measured over at least this, and at least a frame: frames come in one piece."""
LINK_SMOOTHING: Final = 0.3
BUSY: Final = 0.4
"""Of one processor: above it, compression may be what holds us back."""
FIRST_GROWTH: Final = 2.0
"""Of the assumed rate, for each span in which a link that was never full might be faster than assumed."""
GROWTH_STEP: Final = 0.03
GROWTH_MOST: Final = 0.35
"""Later it grows by so much more each time, up to so much."""

AVAILABILITY_SMOOTHING: Final = 0.05
MIN_AVAILABILITY: Final = 0.1
TRUST: Final = 0.65
"""Of a sample, against the mean of those before: it is a small part of the batch."""
MEAN_SMOOTHING: Final = 0.1
JUMP: Final = 0.25
"""Further than this from the mean: the content has changed, and the sample alone counts."""
INCOMPRESSIBLE: Final = 0.98
DENSE_FIRST: Final = 0.95
DENSE_WORTH: Final = 0.98
DENSE_HOPE: Final = 0.05
"""For each such batch that is not packed: the next ones may have been seen before."""
PRICE_STEP: Final = 0.3
PRICE_MOST: Final = 5.0
"""The price is kept as log-odds; at these the cheaper side counts under a hundredth."""
PRICE_FAR: Final = 2.5
"""Beyond it codecs are rarely mixed; the way back from there is shorter."""

DWELL_SECONDS: Final = 0.7
"""`Chooser.choice`, which is for people, stands at least this long."""
PROBE_EVERY: Final = 64
"""While a chain runs, one batch in so many goes by another codec, to stay informed of those."""
LATELY: Final = 0.02
"""Chains are judged by about fifty batches: what they gain comes in lumps."""
CHAIN_DWELL: Final = 2.0
SLOWNESS: Final = 1.1
SLOWER: Final = 1.3
"""A chain that does not keep up shows that the machine is slower than thought by this much."""
CHAIN_PART: Final = 0.6
"""It does not keep up when less than this part of the batches go by it: the link would wait for the rest."""
CHAIN_HOPE: Final = 1.02
"""What the first one may gain over its promise: how much of it memory repeats over a distance shows only then."""
CHAIN_GAIN: Final = 1.1
"""Something else must promise to be this much faster than a chain that runs, as what it remembers is lost then."""


class Estimate:
    """A quantity of each codec: its curve over the sample's share x a common factor x the codec's own factor.

    Content the curves do not know, and another machine, are common to all codecs: that factor follows fast, and from
    whichever codec is used. The codec's own follows slowly. What chains make of their memory says nothing about the
    others, so they have a second common factor, on top of the first.
    """

    FAST: Final = 0.05
    CHAINED: Final = 0.03
    SLOW: Final = 0.01
    BOUND: Final = 4.0

    def __init__(self, curves: dict[Rung, tuple[float, ...]], unit: float) -> None:
        self._curves = {rung: [value * unit for value in curve(values)] for rung, values in curves.items()}
        self._common = 1.0
        self._chained = 1.0
        self._own = dict.fromkeys(curves, 1.0)

    def observe(self, rung: Rung, sample: float, value: float) -> None:
        factor = value / self._curves[rung][int(sample * STEPS)]
        own = self._own[rung]
        if rung in CHAIN_LEVELS:
            factor /= self._common
            self._chained += self.CHAINED * (self._bounded(factor / own) - self._chained)
            common = self._chained
        else:
            self._common += self.FAST * (self._bounded(factor / own) - self._common)
            common = self._common
        self._own[rung] = self._bounded(own + self.SLOW * (factor / common - own))

    def factor(self, rung: Rung) -> float:
        """By which what was measured differs from the curve."""
        return self._own[rung] * self._common * (self._chained if rung in CHAIN_LEVELS else 1.0)

    def forget_chain(self) -> None:
        """No chain runs: what the last one made fades."""
        self._chained += self.SLOW * (1.0 - self._chained)

    def of(self, rung: Rung, sample: float) -> float:
        common = self._common * self._chained if rung in CHAIN_LEVELS else self._common
        return self._curves[rung][int(sample * STEPS)] * common * self._own[rung]

    def _bounded(self, factor: float) -> float:
        return min(self.BOUND, max(1 / self.BOUND, factor))


@dataclass(frozen=True, slots=True)
class Choice:
    rung: Rung
    reason: str


class Chooser:
    """For one session; not thread safe. `cores`: processors that may compress at the same time."""

    def __init__(self, allowed: tuple[Rung, ...], cores: int) -> None:
        self._alone = tuple(rung for rung in allowed if rung not in CHAIN_LEVELS) or ("none",)
        self._all = (*self._alone, *(rung for rung in allowed if rung in CHAIN_LEVELS))
        self._chains = tuple(rung for rung in allowed if rung in CHAIN_LEVELS)
        self._urgent = tuple(rung for rung in self._alone if rung in URGENT) or self._alone[:1]
        self._chain: Rung | None = None
        self._chain_since = float("-inf")
        self._slowness = SLOWNESS
        """Of this machine, against the curves, for chains."""
        self._chain_part = 1.0
        """Of the batches of late: those that went by the chain."""
        self._cores = cores
        self._available = 1.0
        self._seconds = Estimate(NANOSECONDS, 1e-9)
        self._share = Estimate(SHARE, 1.0)
        self._mean = 0.5
        """Of the samples' shares."""
        self._pending: deque[tuple[Rung, int, float]] = deque(maxlen=64)
        """Codec, size and sample of batches that were not observed yet."""
        self._dense = DENSE_FIRST
        """What a chain made lately of batches that look incompressible, per raw byte."""
        self._lately: dict[Rung, tuple[float, float]] = {}
        """Mean costs of each codec over the batches of late, whichever codec they went by."""
        self._batches = 0
        self._price = 0.0
        self._pace = 0.0

        self._link = FIRST_LINK
        self._full_before = False
        self._ever_full = False
        self._unlimited = 0
        self._tick: tuple[float, int] | None = None
        self._spent = 0.0
        self._asked = (0.0, 0.0)
        """Work and link that the batches chosen since the last tick were expected to cost."""

        self._used: dict[Rung, float] = {}
        self._chosen_at = float("-inf")
        self.choice = Choice(self._alone[0], "nothing measured yet")
        """The codec that most bytes went by lately, and why. Batches differ, and may go by others."""

    # --- what was measured ---

    def observe(self, rung: Rung, raw: int, wire: int, cpu: float, wall: float) -> None:
        """One batch was encoded by `rung`: `raw` bytes to `wire` bytes in `cpu` seconds of the thread's time."""
        if len(self._all) == 1:
            return
        sample = self._sample_of(rung, raw)
        if rung == "none" or not raw:
            return
        self._spent += cpu
        if sample > INCOMPRESSIBLE:
            self._dense += 0.2 * (wire / raw - self._dense)
        else:
            self._seconds.observe(rung, sample, cpu / raw)
            self._share.observe(rung, sample, wire / raw)
        if wall > 0:
            self._available += AVAILABILITY_SMOOTHING * (min(1.0, cpu / wall) - self._available)

    def delivered(self, now: float, total: int, limited: bool) -> None:
        """`total`: wire bytes delivered since the start. `limited`: the link, not we or the programs, sets the rate.

        Call it every 50 ms or so.
        """
        if self._tick is None:
            self._tick = (now, total)
            return
        span, size = now - self._tick[0], total - self._tick[1]
        if span < TICK or (limited and self._full_before and (span < FULL_TICK or not size)):
            return
        busy, self._spent, self._tick = self._spent >= BUSY * span, 0.0, (now, total)
        rate = max(1.0, size / span)
        if limited and not (self._full_before or self._ever_full):
            self._link = min(self._link, 2 * rate)  # the span was limited at its end only: this much it may carry
        elif limited and self._full_before:
            near = self._ever_full and self._link < 2.5 * rate
            self._link += (LINK_SMOOTHING if near else 1.0) * (rate - self._link)
            self._ever_full = True
        elif not limited:
            if busy and self._asked[1] > 0.9 * self._asked[0]:
                self._unlimited += 1
                steady = 1 + min(GROWTH_MOST, GROWTH_STEP * self._unlimited)
                self._link *= steady if self._ever_full else FIRST_GROWTH
            self._link = max(self._link, rate)
        if limited:
            self._unlimited = 0
        self._full_before = limited
        self._asked = (0.0, 0.0)

    # --- the choice ---

    def next(self, now: float, raw: Buffer, *, urgent: bool = False) -> Rung:
        """The codec for the next batch, which is `raw`. `urgent`: somebody waits for it, so nothing slow."""
        if len(self._all) == 1:
            return self._all[0]
        sample = sample_share(raw)
        self._mean += MEAN_SMOOTHING * (sample - self._mean)
        if sample > INCOMPRESSIBLE:
            rung = self._for_dense(urgent)
        else:
            if abs(sample - self._mean) < JUMP:
                sample = TRUST * sample + (1 - TRUST) * self._mean
            rung = self._least_wait(sample) if urgent else self._least_price(now, sample)
        self._pending.append((rung, len(raw), sample))
        self._tell(now, rung, len(raw))
        return rung

    def throughput(self, rung: Rung) -> float:
        """Raw bytes a second that this codec alone could carry, of content as it was lately."""
        return 1 / max(self._lately.get(rung) or self._costs(rung, self._mean))

    def _for_dense(self, urgent: bool) -> Rung:
        """For a batch that looks incompressible: as it is, unless a chain on a slow link has seen its like before."""
        plain = self._alone[0]
        if self._chain is None or urgent or self._dense > DENSE_WORTH or self._price > -PRICE_FAR:
            self._dense += DENSE_HOPE * (DENSE_FIRST - self._dense)
            return plain
        return self._chain

    def _least_wait(self, sample: float) -> Rung:
        return min(self._urgent, key=lambda rung: sum(self._costs(rung, sample)))

    def _least_price(self, now: float, sample: float) -> Rung:
        self._judge_chain(now)
        price = 1 / (1 + math.exp(-self._price))
        if self._chain is None:
            self._share.forget_chain()
            self._seconds.forget_chain()
        self._batches += 1
        chain = None if self._batches % PROBE_EVERY == 0 else self._chain
        eligible = (chain,) if chain and self._price < 0 else (*self._alone, *((chain,) if chain else ()))
        best, lowest, costs = self._alone[0], float("inf"), (0.0, 0.0)
        for rung in self._all:
            work, link = mine = self._costs(rung, sample)
            before = self._lately.get(rung, mine)
            self._lately[rung] = (
                before[0] + LATELY * (work - before[0]),
                before[1] + LATELY * (link - before[1]),
            )
            total = price * work + (1 - price) * link
            if total < lowest and rung in eligible:
                best, lowest, costs = rung, total, mine
        self._chain_part += LATELY * ((best == self._chain) - self._chain_part)
        self._asked = (self._asked[0] + costs[0], self._asked[1] + costs[1])
        slower = max(costs)
        self._pace += MEAN_SMOOTHING * (slower - self._pace) if self._pace else slower
        step = PRICE_STEP * (costs[0] - costs[1]) / min(self._pace, 3 * slower)  # the link may just have become fast
        if step * self._price < 0 and abs(self._price) > PRICE_FAR:
            step *= 4
        self._price = min(PRICE_MOST, max(-PRICE_MOST, self._price + step))
        return best

    def _judge_chain(self, now: float) -> None:
        """Which chain codec, if any, is worth being in the mixture."""
        if not self._chains or not self._ever_full or now - self._chain_since < CHAIN_DWELL:
            return
        if self._chain and self._chain_part < CHAIN_PART:
            self._slowness *= SLOWER
        could = {rung: self.throughput(rung) for rung in self._alone}
        could |= {rung: self._chain_throughput(rung) for rung in self._chains}
        if self._chain is not None:
            could[self._chain] *= CHAIN_GAIN
        elif self._chain_since < 0:
            could |= {rung: could[rung] * CHAIN_HOPE for rung in self._chains}
        best = max(could, key=could.__getitem__)
        wanted = best if best in CHAIN_LEVELS else None
        if wanted != self._chain:
            self._chain, self._chain_since, self._chain_part = wanted, now, 1.0

    def _chain_throughput(self, rung: Rung) -> float:
        """As the curves have it. What is measured of codecs that mostly wait for the link, with cold caches each time,
        says nothing about one that would be busy; that it cannot keep up is seen by the price.
        """
        work, link = self._lately.get(rung) or self._costs(rung, self._mean)
        return 1 / max(self._slowness * work / self._seconds.factor(rung), link)

    def _costs(self, rung: Rung, sample: float) -> tuple[float, float]:
        """Seconds of work and of the link for each raw byte."""
        cores = self._cores * max(MIN_AVAILABILITY, self._available)
        if rung == "none":
            return TRANSPORT_SECONDS / cores, 1 / self._link
        share = min(1.0, self._share.of(rung, sample))
        seconds = self._seconds.of(rung, sample)
        if rung in CHAIN_LEVELS:
            seconds *= self._cores
        return (seconds + share * TRANSPORT_SECONDS) / cores, share / self._link

    def _sample_of(self, rung: Rung, size: int) -> float:
        """The sample that the oldest such batch was chosen by; batches are observed in about the order of choice."""
        for i, (its, length, sample) in enumerate(self._pending):
            if its == rung and length == size:
                del self._pending[i]
                return sample
        return self._mean

    def _tell(self, now: float, rung: Rung, size: int) -> None:
        for other in self._used:
            self._used[other] *= 0.95
        self._used[rung] = self._used.get(rung, 0.0) + size
        most = max(self._used, key=self._used.__getitem__)
        if most != self.choice.rung and now - self._chosen_at >= DWELL_SECONDS:
            could = ", ".join(f"{each} {self.throughput(each) / 1e6:.0f}" for each in self._all)
            self.choice = Choice(most, f"link {self._link / 1e6:.1f} MB/s; {could}")
            self._chosen_at = now


def allowed_rungs(codec: str, features: Features) -> tuple[Rung, ...]:
    """What the configuration and the peer leave to choose from; never empty."""
    families = {"raw": ("none",), "none": ("none",), "lz4": ("lz4",), "zstd": ("zstd", "chain")}
    wanted = families.get(codec, ("none", "lz4", "zstd", "chain"))
    need = {"none": Features(0), "lz4": Features.LZ4, "zstd": Features.ZSTD, "chain": Features.ZSTD | Features.CHAIN}
    fit = tuple(rung for rung in RUNGS if _family(rung) in wanted and need[_family(rung)] in features)
    return fit if any(rung not in CHAIN_LEVELS for rung in fit) else ("none",)


def _family(rung: Rung) -> str:
    return "lz4" if rung == "lz4" else rung.rstrip("0123456789")
