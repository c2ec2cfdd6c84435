"""A pre-copy that reacts to what the controller does: memory, a guest that writes, a link that may be lost.

Not QEMU: just its bookkeeping. A pass sends what was dirty when it began; when it is over, what was dirtied meanwhile
is the next one, and when that fits into the planned pause the move is completed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from clouds.kvm.controller import Controller, Goals, Reading, Step
from models.decisions import Decision

MIB = 1 << 20
TICK = 1.0


@dataclass
class Guest:
    memory: float
    """Bytes."""
    writes: float = 0.0
    """Bytes a second at full speed."""
    working_set: float = 0.0
    """Bytes it writes to again and again."""


@dataclass
class Ended:
    how: str
    at: float
    downtime_ms: int = 0
    steps: list[tuple[float, Step]] = field(default_factory=list)

    @property
    def actions(self) -> list[str]:
        return [step.action for _, step in self.steps]


@dataclass
class PreCopy:
    guest: Guest
    bandwidth: float
    link: Callable[[float], bool] = lambda _: True
    hold: Callable[[float], bool] = lambda _: False
    attach_every: float = 0.0
    """A new controller, as a new attempt makes one, each so many seconds."""

    def run(self, goals: Goals, change: Callable[[float], Goals | None] = lambda _: None) -> Ended:
        """Until it completes, switches, or is given up; never longer than the deadline and a tick."""
        guest = self.guest
        remaining, dirty, passes, dirty_rate = guest.memory, 0.0, 1, 0.0
        throttle, wanted_throttle, pass_began = 0.0, 0.0, 0.0
        steps: list[tuple[float, Step]] = []
        controller, born, now = Controller(goals), 0.0, 0.0
        while True:
            now += TICK
            if self.attach_every and now - born >= self.attach_every:
                past = [
                    Decision(number=number, at=at, action=step.action, value=step.value, reason=step.reason)
                    for number, (at, step) in enumerate(steps, 1)
                ]
                controller, born = Controller(goals, past), now
            if (fresh := change(now)) is not None:
                goals = fresh
                controller.change(fresh)
            link, held = self.link(now), controller.held
            carries = self.bandwidth if link and not held else 0.0
            writes = 0.0 if controller.paused else guest.writes * (1 - throttle / 100)
            room = max(0.0, min(guest.working_set, guest.memory) - dirty)
            dirty += min(writes * TICK, room)
            remaining -= carries * TICK
            if remaining <= 0 and carries:
                passes += 1
                dirty_rate = dirty / max(TICK, now - pass_began)
                remaining, dirty, pass_began = dirty, 0.0, now
                throttle = wanted_throttle if passes % 2 else throttle
                if remaining / self.bandwidth * 1000 <= controller.downtime_ms:
                    pause = int(remaining / self.bandwidth * 1000)
                    return Ended("completed", now, pause, steps)
            step = controller.advise(
                Reading(
                    elapsed=now, iteration=passes, total=int(guest.memory), remaining=int(max(0, remaining)),
                    dirty_rate=dirty_rate, bandwidth=carries, link=link, hold=self.hold(now),
                    running=not controller.paused,
                )
            )  # fmt: skip
            if step is None:
                assert now < goals.deadline, "nothing was done at the deadline"
                continue
            if not link and step.action in ("post-copy", "pause"):
                raise AssertionError(f"{step.action} over a lost link")
            controller.done(step, now)
            steps.append((now, step))
            match step.action:
                case "post-copy" | "give up":
                    return Ended(step.action, now, steps=steps)
                case "throttle":
                    wanted_throttle = step.value
