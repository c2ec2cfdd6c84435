"""How a move in one mode goes when every figure is as given: a pre-copy of passes, post-copy, or both. Pure.

A pass sends what is left, the guest dirties memory meanwhile, and that is the next pass; it ends when the rest fits
into the final pause. Hybrid switches about as the controller does (clouds/kvm/controller.py), by a simpler rule.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.migration import MoveMode
from workflows.details import duration, rate

UNKNOWN = "how fast the guest dirties its memory is not known"
STALLED, GAIN, PATIENCE, MOST_PASSES = 3, 0.1, 0.5, 2000
"""When hybrid switches, and when pre-copy is taken for endless."""


@dataclass(frozen=True)
class Case:
    """One set of figures, good or bad. `dirty` None: not known."""

    first: float
    disks: float
    dirty: float | None
    speed: float
    """Bytes of guest memory a second."""
    ratio: float
    pause: float
    """Milliseconds."""
    memory: float


@dataclass(frozen=True)
class Course:
    """How a move in one mode goes in one case; `ended` False: it does not get there."""

    ended: bool
    sent: float = 0
    """Bytes of guest memory and disks."""
    seconds: float = 0
    downtime: float = 0
    """Milliseconds."""
    thin: float = 0
    why: str = ""


@dataclass(frozen=True)
class Bounds:
    """What the policy allows a move."""

    pause: float
    """Milliseconds of the final pause."""
    within: float
    """Seconds for all of it."""


def run(mode: MoveMode, case: Case, bounds: Bounds) -> Course:
    if mode == "post-copy":
        return _post_copy(case)
    return _pre_copy(case, bounds, may_switch=mode == "hybrid")


def _pre_copy(case: Case, bounds: Bounds, may_switch: bool) -> Course:
    speed, within = case.speed, bounds.within
    fits = speed * bounds.pause / 1000
    seconds, sent, left = case.disks / speed, case.disks, case.first
    smallest, stalled = case.first, 0
    for passes in range(MOST_PASSES):
        if passes and case.dirty is None:
            return Course(False, why=UNKNOWN)
        if left <= fits:
            return Course(True, sent + left, seconds + left / speed, left / speed * 1000 + case.pause)
        seconds, sent = seconds + left / speed, sent + left
        again = _dirtied(case, left / speed)
        stalled = 0 if again < smallest * (1 - GAIN) else stalled + 1
        smallest = min(smallest, again)
        if may_switch and (stalled >= STALLED or seconds > within * PATIENCE):
            return Course(True, sent + again, seconds + again / speed, case.pause, again / speed)
        if seconds > within:
            return Course(False, why=f"it would not be across within {duration(max(0.0, within))}")
        if stalled > STALLED and again >= left:
            break
        left = again
    if case.dirty == float("inf"):
        return Course(False, why=UNKNOWN)
    return Course(False, why=f"the guest dirties {rate(case.dirty or 0.0)} and {rate(speed)} of its memory get across")


def _post_copy(case: Case) -> Course:
    """One pass over everything, then the switch, then what was dirtied meanwhile. Always ends, while the link lives."""
    first = (case.disks + case.first) / case.speed
    if case.dirty is None:
        return Course(False, why=UNKNOWN)
    again = _dirtied(case, case.first / case.speed)
    thin = again / case.speed
    return Course(True, case.disks + case.first + again, first + thin, case.pause, thin)


def _dirtied(case: Case, seconds: float) -> float:
    """Never more than there is."""
    return min(case.memory, case.dirty * seconds) if case.dirty and seconds else 0.0
