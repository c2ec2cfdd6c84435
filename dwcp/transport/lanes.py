"""How many lanes from source to destination? Pure: samples of half a second in, a wanted number and its reason out.

More lanes carry more where each is held back by itself (a loss or a long round trip keeps its congestion window small,
or the network polices every connection), and nothing more where the link is full or the processors are. From here the
cases cannot be told apart, so it is tried: under pressure, lanes are added, and stay only if the rate rises by a clear
part of what as many more of the same would carry. A trial that fails is undone and not repeated for RETRY seconds,
doubling. Loss or a long round trip makes trials come sooner and in larger steps. Without pressure, the extra lanes go
one by one; under lasting pressure, now and then, one fewer is tried the same way.

    quiet -> (pressure for DWELL) -> trial of more: joined, settled, measured -> kept | undone
                                  -> trial of fewer, when above the start      -> kept | undone

Examples: a LAN that 2 lanes fill stays at 2, with one trial of 3 after a while, then ever fewer. 100 ms and 0.5 % loss:
2, 3, 4, 6, 9, ... while it pays. A program that writes little, a rate limit, busy processors: no trial at all.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

SAMPLE_SECONDS: Final = 0.5
PRESSED: Final = 0.6
"""Part of the time in which the link was the limit, for a sample to count as pressed."""
FREE_CPU: Final = 0.08
OWN_CPU: Final = 0.25
"""Less idle than FREE_CPU, and this much of the processors ours: they are the limit, and a lane would cost, not bring.
What others take on a busy host says nothing: a queue in our kernel shows that we outrun the link all the same."""
LOSSY: Final = 0.0005
"""Segments sent again, of all: above it a lane's congestion window suffers."""
LONG_TRIP: Final = 0.02
"""Round trip above which a lane's congestion window takes long to grow."""
DWELL: Final = 6.0
DWELL_FAVOURED: Final = 2.5
SETTLE: Final = 1.5
"""And ten round trips: a new connection finds its speed before it is judged."""
MEASURE: Final = 4
"""Samples that are compared, before and after."""
PART_OF_IDEAL: Final = 0.4
LEAST_GAIN: Final = 0.08
MOST_LOSS: Final = 0.03
"""Of the rate, for which fewer lanes are still as good."""
RETRY: Final = 60.0
LAST_RETRY: Final = 960.0
FEWER_AFTER: Final = 60.0
IDLE_AFTER: Final = 10.0
"""Without pressure for so long: one lane fewer, each time."""
JOIN_WITHIN: Final = 10.0
"""Lanes that did not come up by then will not; the trial is undone."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen since the sample before."""

    now: float
    lanes: int
    """Alive."""
    rate: float
    """Wire bytes acknowledged a second."""
    pressed: float
    """Part of the time in which the link held bulk back."""
    free_cpu: float
    """Part of the processors' time that was idle."""
    round_trip: float
    """Least one of the lanes, in seconds."""
    loss: float
    """Segments sent again, of all."""
    own_cpu: float = 0.0
    """Part of the processors' time that this process took."""
    paced: bool = False
    """A rate limit holds bulk back."""

    @property
    def starved(self) -> bool:
        """The processors are the limit."""
        return self.free_cpu < FREE_CPU and self.own_cpu >= OWN_CPU


@dataclass(frozen=True, slots=True)
class Wanted:
    lanes: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Trial:
    before: int
    lanes: int
    rate: float
    since: float


class LaneCount:
    def __init__(self, start: int, most: int) -> None:
        self._start = start
        self._most = most
        self._trial: _Trial | None = None
        self._joined_at: float | None = None
        self._recent: deque[Sample] = deque(maxlen=MEASURE)
        self._pressed_since: float | None = None
        self._quiet_since: float | None = None
        self._more_from = 0.0
        self._more_retry = RETRY
        self._fewer_from: float | None = None
        self._fewer_retry = RETRY
        self.wanted = Wanted(start, "the configured start")

    def add(self, sample: Sample) -> Wanted:
        """Take a sample in; the newest answer."""
        pressed = sample.pressed >= PRESSED and not (sample.starved or sample.paced)
        if pressed:
            self._quiet_since = None
            if self._pressed_since is None:
                self._pressed_since = sample.now
                self._recent.clear()
        else:
            self._pressed_since = None
            if self._quiet_since is None:
                self._quiet_since = sample.now
        self._recent.append(sample)
        if self._fewer_from is None:
            self._fewer_from = sample.now + FEWER_AFTER
        if self._trial:
            self._judge(self._trial, sample)
        elif pressed:
            self._perhaps_try(sample)
        else:
            self._perhaps_go(sample)
        return self.wanted

    # --- no trial runs ---

    def _perhaps_try(self, sample: Sample) -> None:
        assert self._pressed_since is not None
        assert self._fewer_from is not None
        lanes = self.wanted.lanes
        if sample.lanes != lanes or len(self._recent) < MEASURE:
            return  # some are being dialled, or too little is known of this number
        favoured = sample.loss >= LOSSY or sample.round_trip >= LONG_TRIP
        ready = sample.now - self._pressed_since >= (DWELL_FAVOURED if favoured else DWELL)
        if ready and lanes < self._most and sample.now >= self._more_from:
            step = max(1, lanes // 2) if favoured else max(1, lanes // 4)
            trip, loss = sample.round_trip * 1e3, sample.loss * 100
            why = f"the link is the limit, round trip {trip:.1f} ms, loss {loss:.2f} %: trying more"
            self._begin(min(self._most, lanes + step), sample.now, why)
        elif ready and lanes > self._start and sample.now >= self._fewer_from:
            self._begin(lanes - 1, sample.now, "trying whether fewer do")

    def _perhaps_go(self, sample: Sample) -> None:
        assert self._quiet_since is not None
        if self.wanted.lanes > self._start and sample.now - self._quiet_since >= IDLE_AFTER:
            self._quiet_since = sample.now
            self._set(self.wanted.lanes - 1, "the link is not the limit")

    def _begin(self, lanes: int, now: float, why: str) -> None:
        self._trial = _Trial(self.wanted.lanes, lanes, self._rate(), now)
        self._joined_at = None
        self._set(lanes, why)

    # --- a trial runs ---

    def _judge(self, trial: _Trial, sample: Sample) -> None:
        if self._pressed_since is None and trial.lanes < trial.before:
            self._end(trial, sample.now, trial.before, "fewer: the link stopped being the limit meanwhile")
        elif sample.paced or sample.starved:
            self._end(trial, sample.now, trial.before, "the link stopped being the limit meanwhile")
        elif self._joined_at is None:
            if sample.lanes == trial.lanes:
                self._joined_at = sample.now
            elif sample.now - trial.since > JOIN_WITHIN:
                self._end(trial, sample.now, trial.before, "they did not come up")
        elif sample.now - self._joined_at <= SETTLE + 10 * sample.round_trip:
            self._recent.clear()
        elif len(self._recent) == MEASURE:
            self._decide(trial, sample.now)

    def _decide(self, trial: _Trial, now: float) -> None:
        change = self._rate() / trial.rate - 1 if trial.rate else 0.0
        said = f"{trial.before} to {trial.lanes} lanes changed the rate by {change * 100:+.0f} %"
        if trial.lanes > trial.before:
            enough = max(LEAST_GAIN, PART_OF_IDEAL * (trial.lanes / trial.before - 1))
            kept = change >= enough
        else:
            kept = change >= -MOST_LOSS
        self._end(trial, now, trial.lanes if kept else trial.before, said)

    def _end(self, trial: _Trial, now: float, lanes: int, why: str) -> None:
        self._trial = None
        self._recent.clear()
        kept = lanes == trial.lanes
        if trial.lanes > trial.before:
            self._more_retry = RETRY if kept else min(LAST_RETRY, self._more_retry * 2)
            self._more_from = now if kept else now + self._more_retry / 2
            self._fewer_from = max(self._fewer_from or 0.0, now + FEWER_AFTER)
        else:
            self._fewer_retry = RETRY if kept else min(LAST_RETRY, self._fewer_retry * 2)
            self._fewer_from = now + (FEWER_AFTER / 6 if kept else self._fewer_retry / 2)
            self._more_from = max(self._more_from, now + RETRY)  # what was just given up is not asked for again
        self._set(lanes, f"{why}; {'kept' if kept else 'undone'}")

    def _rate(self) -> float:
        return sum(sample.rate for sample in self._recent) / len(self._recent)

    def _set(self, lanes: int, reason: str) -> None:
        self.wanted = Wanted(lanes, reason)
