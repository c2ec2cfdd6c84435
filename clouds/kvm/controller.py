"""Steers one move to its end: readings in, at most one step with its reason out. Pure, no clock of its own.

| rung | when | as far as |
| --- | --- | --- |
| downtime | what a pass begins with nearly fits; two passes gained nothing; the deadline presses | `max_downtime_ms` |
| throttle | pre-copy stalls or the deadline presses, the downtime is at its most | `max_slowdown` |
| post-copy | it stalls and this is a local minimum; half of the time is gone; the last moment | if allowed |
| pause | as post-copy, where that is not allowed, and what is left is across in time | if allowed |
| give up | the deadline | always |

It always ends: at the deadline it gives up, whatever the readings say and whether there are any. It cannot flap: each
rung is climbed once and never down again, unless people change the goals; but a throttle that shows nothing is taken
off, once and for good. A lost or held link freezes all judgement,
and the clock of the stall with it; the deadline goes on.

The deadline presses when pre-copy is not expected to end in time: what remains drains at bandwidth less dirty rate. The
last moment is when what remains needs all the time that is left, at the smoothed bandwidth, with a quarter to spare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clouds.kvm.stall import GAIN, StallDetector
from models.decisions import Action, Decision
from models.migration import MigrationPolicy, may_switch

ALPHA = 0.4
"""Weight of a new reading in the smoothed bandwidth."""
STEPS = 4
"""The planned pause grows to its bound in so many steps."""
LEAST_DOWNTIME_MS = 30
"""Below it the first step makes no sense: switching over costs about that much by itself."""
DWELL = 2.0
"""Seconds between two steps of any kind: a reading must have had a chance to show the first."""
THROTTLE_STEP = 20
"""Percent."""
THROTTLE_ENOUGH = 60
"""Percent at which a throttle must have shown something; also any that is as far as allowed."""
THROTTLE_DWELL, THROTTLE_PASSES = 10.0, 2
"""Seconds and passes a throttle is given to show what it does; QEMU itself applies one every second pass."""
SPARE, SPARE_SECONDS = 1.25, 3.0
"""What remains is expected to take so much longer than it should."""
HALF = 0.5
"""Share of the time that is left to pre-copy where post-copy is allowed and pre-copy does not look like ending."""
SETTLE = 5.0
"""Seconds of readings before the bandwidth is believed."""
SAME = 3
"""So many readings in a row must say that the deadline presses."""


@dataclass(frozen=True)
class Goals:
    """What may be done to the guest, and by when it must be over."""

    deadline: float
    """Seconds since the move began."""
    max_downtime_ms: int = 300
    max_slowdown: int = 0
    bandwidth_mib: int = 0
    may_switch: bool = False
    eager: bool = False
    """Switch to post-copy as soon as every page has been sent once."""
    may_pause: bool = False

    @classmethod
    def of(cls, policy: MigrationPolicy, began: float) -> Goals:
        """`began`: Unix time at which the move began; `finish_by` counts from there."""
        within = policy.finish_within
        if policy.finish_by is not None:
            within = min(within, policy.finish_by.timestamp() - began)
        return cls(
            deadline=within,
            max_downtime_ms=policy.max_downtime_ms,
            max_slowdown=policy.max_slowdown,
            bandwidth_mib=policy.bandwidth_mib,
            may_switch=may_switch(policy),
            eager=policy.mode == "post-copy",
            may_pause=policy.allow_pause,
        )


@dataclass(frozen=True)
class Reading:
    """The move at one moment. Bytes, and bytes a second of guest memory and copied disks."""

    elapsed: float
    """Seconds since the move began."""
    iteration: int = 0
    """Passes begun; 0: no memory was sent yet."""
    total: int = 0
    remaining: int = 0
    dirty_rate: float = 0.0
    bandwidth: float = 0.0
    throttle: int = 0
    """Percent of its CPU time that is taken from the guest now."""
    ratio: float = 1.0
    """Bytes on the link for each byte of the guest."""
    link: bool = True
    """The data path is connected."""
    hold: bool = False
    """People want nothing to cross."""
    running: bool = True
    """The guest runs at the source."""


@dataclass(frozen=True)
class Step:
    action: Action
    reason: str
    value: float = 0.0
    inputs: tuple[tuple[str, float], ...] = ()


class Controller:
    """Of one move. `advise` on each reading; `done` when its step was taken, `refused` when it could not be."""

    def __init__(self, goals: Goals, past: Iterable[Decision] = ()) -> None:
        """`past`: what was done already, by an attempt before this one. What it had read is read anew."""
        self.goals = goals
        self.downtime_ms = first_downtime(goals.max_downtime_ms)
        self.throttle = 0
        self.held = self.switched = self.paused = self.gave_up = False
        self.bandwidth = 0.0
        """Smoothed."""
        self._bound = goals.bandwidth_mib
        self._no_throttle = ""
        self._wrote = 0.0
        """Dirty rate before the first throttle."""
        self._acted = self._throttled = -DWELL
        self._throttled_in = 0
        self._stall = StallDetector(goals.deadline)
        self._judged = self._last = self._pass_at = 0.0
        self._pass = self._pressed = self._idle_passes = 0
        self._begins_with = 0
        """What the running pass began with."""
        for decision in past:
            self._remember(decision.action, decision.value, decision.at, decision.inputs)

    def change(self, goals: Goals) -> None:
        """People changed the goals; the next advice follows from the new ones."""
        if goals.deadline != self.goals.deadline:
            self._stall = StallDetector(goals.deadline)
        self.goals = goals

    def done(self, step: Step, elapsed: float) -> None:
        self._remember(step.action, step.value, elapsed, dict(step.inputs))

    def refused(self, step: Step, why: str) -> None:
        """The host could not do it. A throttle is not asked for again; the rest is."""
        if step.action == "throttle":
            self._no_throttle = why

    def advise(self, now: Reading) -> Step | None:
        """The next step, or None: let it go on."""
        if self.switched or self.gave_up:
            return None
        if now.elapsed >= self.goals.deadline:
            return self._step(now, "give up", self._verdict(now))
        if step := self._wishes(now):
            return step
        if self.held or not now.link or now.iteration < 1 or not now.total:
            self._last, self._pressed = now.elapsed, 0
            return None
        self._read(now)
        if self.paused or not now.running or now.elapsed - self._acted < DWELL:
            return None
        return self._last_resort(now) or self._ease(now)

    # --- what people want, at once ---

    def _wishes(self, now: Reading) -> Step | None:
        goals = self.goals
        if now.hold and not self.held and now.running:
            return self._step(now, "hold", "people paused the move: nothing crosses the link, the guest runs on")
        if self.held and not now.running:
            return self._step(now, "release", "the guest stands still for its switch: it must not wait for people")
        if self.held and not now.hold:
            return self._step(now, "release", "the move goes on: people resumed it, or its pause has run out")
        if goals.bandwidth_mib != self._bound:
            return self._step(now, "bandwidth", "the goal was changed", goals.bandwidth_mib)
        if self.downtime_ms > goals.max_downtime_ms:
            return self._step(now, "downtime", "the goal was changed to less", goals.max_downtime_ms)
        if self.throttle > goals.max_slowdown:
            return self._step(now, "throttle", "the goal was changed to less", goals.max_slowdown)
        return None

    # --- reading ---

    def _read(self, now: Reading) -> None:
        self._judged += max(0.0, now.elapsed - self._last) if self._last else 0.0
        self._last = now.elapsed
        if now.bandwidth > 0:
            self.bandwidth += ALPHA * (now.bandwidth - self.bandwidth) if self.bandwidth else now.bandwidth
        if now.iteration > self._pass:
            gained = now.remaining < self._begins_with * (1 - GAIN)
            self._idle_passes = 0 if gained or self._pass < 2 else self._idle_passes + 1
            self._pass, self._pass_at, self._begins_with = now.iteration, now.elapsed, now.remaining
            if now.iteration > 1:  # the first one sends everything: nothing to compare with
                self._stall.take(self._judged, now.remaining)
        self._pressed = self._pressed + 1 if self._expected(now) > self._left(now) else 0

    def _left(self, now: Reading) -> float:
        return self.goals.deadline - now.elapsed

    def _owed(self, now: Reading) -> float:
        """Bytes that would have to cross if the guest stopped writing now."""
        return min(float(now.total), now.remaining + now.dirty_rate * max(0.0, now.elapsed - self._pass_at))

    def _needs(self, now: Reading) -> float:
        """Seconds until all would be across if the guest stopped writing now."""
        return self._owed(now) / self.bandwidth if self.bandwidth else 0.0

    def _pause_ms(self, now: Reading) -> float:
        """The pause it would take to send what this pass began with."""
        return 1000 * self._begins_with / self.bandwidth if self.bandwidth else float("inf")

    def _expected(self, now: Reading) -> float:
        """Seconds until pre-copy ends; infinite when the guest writes as fast as the link carries."""
        if not self.bandwidth or now.iteration < 2:
            return 0.0  # what the first pass meets is mostly cheap (zero pages), and the dirty rate is not known
        net = self.bandwidth - now.dirty_rate
        return now.remaining / net if net > 0.05 * self.bandwidth else float("inf")

    # --- the rungs ---

    def _last_resort(self, now: Reading) -> Step | None:
        """Post-copy or a pause, when their moment has come."""
        goals, left = self.goals, self._left(now)
        needs = self._needs(now)
        believed = now.elapsed >= min(SETTLE, goals.deadline / 4) and self.bandwidth > 0
        last_moment = believed and left <= needs * SPARE + SPARE_SECONDS and self._hopeless(now)
        if goals.may_switch:
            if goals.eager and now.iteration > 1:
                return self._step(now, "post-copy", "every page has been sent once")
            if last_moment:
                return self._step(now, "post-copy", f"the last moment to be across by the deadline: {left:.0f} s left")
            if now.elapsed > goals.deadline * HALF and self._hopeless(now):
                return self._step(now, "post-copy", f"pre-copy had {now.elapsed:.0f} s, half of the time")
        stalled = self._exhausted(now) and self._stall.stalled and self._stall.at_minimum(self._begins_with)
        fresh = now.elapsed - self._pass_at <= DWELL
        if stalled and fresh and goals.may_switch:
            return self._step(now, "post-copy", f"pre-copy gained nothing for {self._stall.window:.0f} s")
        if goals.may_pause and needs <= left and believed and not goals.may_switch:
            if last_moment:
                return self._step(now, "pause", f"the last moment to be across by the deadline: {left:.0f} s left")
            if stalled and fresh:
                return self._step(now, "pause", f"pre-copy gained nothing for {self._stall.window:.0f} s")
        return None

    def _hopeless(self, now: Reading) -> bool:
        """Pre-copy is not expected to end by itself in the time that is left."""
        if now.iteration < 2:
            return self._needs(now) * SPARE > self._left(now)
        return self._expected(now) * SPARE > self._left(now)

    def _exhausted(self, now: Reading) -> bool:
        """Whatever is milder than post-copy or a pause has been done, and had its time to show."""
        if self.downtime_ms < self.goals.max_downtime_ms:
            return False
        return self._next_throttle() is None and self._throttle_shown(now)

    def _ease(self, now: Reading) -> Step | None:
        """A longer planned pause, then a slower guest."""
        if now.iteration < 2:
            return None
        goals, pressing = self.goals, self._pressed >= SAME
        if self.downtime_ms < goals.max_downtime_ms:
            fits = self.downtime_ms < self._pause_ms(now) <= goals.max_downtime_ms
            if fits:
                wanted = next(step for step in downtimes(goals.max_downtime_ms) if step >= self._pause_ms(now))
                return self._step(now, "downtime", "what this pass began with fits into it", wanted)
            if pressing or self._stall.stalled or self._idle_passes >= 2:
                why = (
                    "pre-copy is not expected to end in time"
                    if pressing
                    else f"{max(2, self._idle_passes)} passes gained less than {GAIN:.0%}"
                )
                wanted = next(step for step in downtimes(goals.max_downtime_ms) if step > self.downtime_ms)
                return self._step(now, "downtime", why, wanted)
            return None
        if self._in_vain(now):
            why = f"slowing it down by {self.throttle} % did not make it write less: it gets its CPU time back"
            return self._step(now, "throttle", why, 0)
        following = self._next_throttle()
        if following is None or not (pressing or self._stall.stalled) or not self._throttle_shown(now):
            return None
        if pressing and self._left(now) < 4 * (self._needs(now) + THROTTLE_DWELL):
            return self._step(
                now,
                "throttle",
                "pre-copy is not expected to end in time, and there is no time for steps",
                goals.max_slowdown,
            )
        why = (
            "pre-copy is not expected to end in time"
            if pressing
            else f"pre-copy gained nothing for {self._stall.window:.0f} s"
        )
        return self._step(now, "throttle", why, following)

    def _in_vain(self, now: Reading) -> bool:
        """The guest is slowed down, and writes no less: it has CPU time to spare, or a device writes."""
        enough = self.throttle >= min(THROTTLE_ENOUGH, self.goals.max_slowdown)
        return (
            bool(self.throttle) and enough and self._throttle_shown(now) and now.dirty_rate > self._wrote * (1 - GAIN)
        )

    def _next_throttle(self) -> int | None:
        if self._no_throttle or self.throttle >= self.goals.max_slowdown:
            return None
        return min(self.goals.max_slowdown, self.throttle + THROTTLE_STEP)

    def _throttle_shown(self, now: Reading) -> bool:
        if not self.throttle:
            return True
        return now.elapsed - self._throttled >= THROTTLE_DWELL and now.iteration >= self._throttled_in + THROTTLE_PASSES

    # --- words ---

    def _verdict(self, now: Reading) -> str:
        """Why it did not end in time, and what would have helped."""
        if now.hold or self.held:
            return "the deadline has come while people paused the move"
        if not now.link:
            return "the deadline has come while the link was lost"
        if self.paused:
            return "the deadline has come while the guest stood still: the link carried less than before"
        if now.iteration < 2:
            return "the deadline has come before every page was sent once: it takes more time, or a faster link"
        missing = [
            *([] if self.goals.may_switch else ["allow_post_copy"]),
            *([] if self.goals.may_pause or self.goals.may_switch else ["allow_pause"]),
            *([f"a guest that can be throttled ({self._no_throttle})"] if self._no_throttle else []),
            *(["a higher max_slowdown"] if self.goals.max_slowdown < 99 and not self._no_throttle else []),
        ]
        pause = f"its last pass began with what takes a pause of {self._pause_ms(now):.0f} ms"
        return f"the deadline has come: {pause}, allowed are {self.goals.max_downtime_ms}. What helps: " + ", ".join(
            [*missing, "more time or downtime"]
        )

    def _step(self, now: Reading, action: Action, reason: str, value: float = 0.0) -> Step:
        figures = {
            "bandwidth": self.bandwidth,
            "dirty_rate": now.dirty_rate,
            "remaining": now.remaining,
            "pass": now.iteration,
            "pass_began_with": self._begins_with,
            "best": self._stall.best,
            "seconds_left": max(0.0, self._left(now)),
            "needs_seconds": self._needs(now),
            "stalled": self._stall.stalled,
            "throttled_percent": now.throttle,
            "link_ratio": now.ratio,
        }
        rounded = tuple((name, round(float(value), 2)) for name, value in figures.items())
        return Step(action, reason, float(value), rounded)

    def _remember(self, action: Action, value: float, at: float, inputs: Mapping[str, float]) -> None:
        if action not in ("hold", "release", "bandwidth"):
            self._acted = at
        match action:
            case "downtime":
                self.downtime_ms = int(value)
            case "throttle":
                if not self.throttle:
                    self._wrote = inputs.get("dirty_rate", 0.0)
                elif not value and self.goals.max_slowdown:
                    self._no_throttle = "it did not make the guest write less"
                self.throttle, self._throttled, self._throttled_in = int(value), at, self._pass
            case "bandwidth":
                self._bound = int(value)
            case "hold" | "release":
                self.held, self._last = action == "hold", at
            case "post-copy":
                self.switched = True
            case "pause":
                self.paused = True
            case "give up":
                self.gave_up = True


def downtimes(most: int) -> tuple[int, ...]:
    """The steps of the planned pause in ms: 300 -> 75, 150, 225, 300; 40 -> 30, 40."""
    return tuple(sorted({min(most, max(LEAST_DOWNTIME_MS, most * step // STEPS)) for step in range(1, STEPS + 1)}))


def first_downtime(most: int) -> int:
    return downtimes(most)[0]
