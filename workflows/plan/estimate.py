"""What will a move cost, in each mode, and does it reach the policy's goals? Pure: measured figures in, ranges out.

The model is the one every pre-copy obeys: a pass sends what is left, the guest dirties memory meanwhile, and that is
the next pass; it ends when the rest fits into the final pause. It is run three times, with the best, the likely and the
worst of all figures, and what lies between them is the range. An expectation, never a promise.

| figure | from | when it is not known |
| --- | --- | --- |
| first pass | the VM's memory, of it what the host has really given it | all of it |
| dirty rate | measured (Dirtying) | best: none; worst: every page, all the time |
| link | measured (LinkSpeed), below the policy's bounds | no times, no answer whether it converges |
| ratio, source, pause | the constants below, from bench/results/migrate.json | |
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from models.goals import effective_mode, seconds_left
from models.migration import MigrationPolicy, MoveMode
from models.planning import Goal, Range, Strategy, Sure
from workflows.details import duration
from workflows.plan.course import Bounds, Case, Course, run

MIB = 1 << 20
RATIOS: dict[str, tuple[float, float, float]] = {
    "raw": (1.0, 1.3, 3.0),
    "none": (1.0, 1.5, 6.0),
    "lz4": (1.2, 2.5, 7.0),
    "zstd": (1.2, 3.0, 7.0),
    "auto": (1.2, 3.0, 7.0),
}
"""Guest memory to bytes on the link, by codec: worst, likely, best. Even raw leaves out pages that are zero."""
KNOWN = 5.0
"""A store that knows the guest (a VM that comes back, a disk image) makes the best case so much better."""
SOURCE = (200.0 * MIB, 400.0 * MIB, 1500.0 * MIB)
"""Bytes a second that a host reads and encodes, however fast the link."""
PAUSE_MS = (5.0, 40.0, 150.0)
"""Of the final pause what is not memory: device state and the handshake, without round trips."""
ROUND_TRIPS = 3
THROTTLED_TO = 0.8
"""A guest is slowed down until it dirties this part of what the link carries."""


@dataclass(frozen=True)
class Figures:
    """All that is known of a move. Bytes, bytes a second, seconds."""

    memory: float
    policy: MigrationPolicy
    start: datetime
    resident: float = 0
    disks: float = 0
    dirty: Range = field(default_factory=Range)
    link: Range = field(default_factory=Range)
    round_trip: float = 0


def ratio(policy: MigrationPolicy) -> Range:
    low, likely, high = RATIOS[policy.codec]
    return Range(low=low, likely=likely, high=high * (KNOWN if policy.store and policy.codec != "raw" else 1))


def strategies(figures: Figures) -> tuple[Strategy, ...]:
    """All three modes, in the order of how little they change for the guest."""
    return tuple(_strategy(mode, figures) for mode in ("pre-copy", "hybrid", "post-copy"))


def chosen(policy: MigrationPolicy, among: tuple[Strategy, ...]) -> tuple[MoveMode, str]:
    """(mode, reason): what a move by this policy would do."""
    mode = effective_mode(policy)
    if policy.mode != "pre-copy":
        why = f"the policy asks for {mode}"
    elif mode == "hybrid":
        why = "the policy allows post-copy: pre-copy first, and post-copy only if that stalls"
    else:
        why = "pre-copy is what the policy asks for, and it does not allow post-copy"
    picked = next((each for each in among if each.mode == mode), None)
    if picked is None:
        return mode, why
    hint = "; allow_post_copy would let it end" if mode == "pre-copy" and picked.converges in ("no", "maybe") else ""
    return mode, f"{why}; {picked.why}{hint}"


def _strategy(mode: MoveMode, figures: Figures) -> Strategy:
    if figures.link.likely is None:
        return _judged(Strategy(mode=mode, converges="unknown", why="the link's rate is not known"), figures)
    best, likely, worst = _cases(figures)
    bounds = Bounds(figures.policy.max_downtime_ms, seconds_left(figures.policy, figures.start))
    slowdown = 0
    if mode != "post-copy" and figures.policy.max_slowdown and not run(mode, worst, bounds).ended:
        slowdown = _slowdown(worst, figures.policy.max_slowdown)
        best, likely, worst = (_slowed(case, slowdown) for case in (best, likely, worst))
    courses = tuple(run(mode, case, bounds) for case in (best, likely, worst))
    ended = [course.ended for course in courses]
    converges: Sure = "yes" if all(ended) or mode == "post-copy" else "maybe" if any(ended) else "no"
    if figures.dirty.likely is None and converges == "maybe":
        converges = "unknown" if mode == "pre-copy" else "yes"
    ratios = [case.ratio for case in (best, likely, worst)]
    return _judged(
        Strategy(
            mode=mode,
            converges=converges,
            why=_why(mode, converges, courses, slowdown),
            wire_bytes=_range(courses, [course.sent / ratio for course, ratio in zip(courses, ratios, strict=True)]),
            seconds=_range(courses, [course.seconds for course in courses]),
            downtime_ms=_range(courses, [course.downtime for course in courses]),
            thin_seconds=_range(courses, [course.thin for course in courses]),
            slowdown=slowdown,
        ),
        figures,
    )


def _cases(figures: Figures) -> tuple[Case, Case, Case]:
    """(best, likely, worst) of everything at once."""
    policy, link, shrunk = figures.policy, figures.link, ratio(figures.policy)
    first = min(figures.memory, figures.resident or figures.memory)
    dirty = (figures.dirty.low or 0.0, figures.dirty.likely, figures.dirty.high)
    if figures.dirty.likely is None:
        dirty = (0.0, None, float("inf"))
    rates = (link.high or link.likely or 0.0, link.likely or 0.0, link.low or link.likely or 0.0)
    ratios = (shrunk.high or 1.0, shrunk.likely or 1.0, shrunk.low or 1.0)
    reads = (SOURCE[2], SOURCE[1], SOURCE[0])

    def case(at: int) -> Case:
        wire = min(rates[at], policy.wire_mib * MIB) if policy.wire_mib else rates[at]
        speed = min(wire * ratios[at], reads[at])
        if policy.bandwidth_mib:
            speed = min(speed, float(policy.bandwidth_mib * MIB))
        pause = PAUSE_MS[at] + ROUND_TRIPS * figures.round_trip * 1000
        return Case(first, figures.disks, dirty[at], max(1.0, speed), ratios[at], pause, figures.memory)

    return case(0), case(1), case(2)


def _slowdown(case: Case, most: int) -> int:
    """Percent by which the guest would have to be slowed down; never more than `most`."""
    if not case.dirty or case.dirty == float("inf"):
        return most
    if case.dirty <= THROTTLED_TO * case.speed:
        return min(most, 1)
    return min(most, max(1, -int(-100 * (1 - THROTTLED_TO * case.speed / case.dirty) // 1)))


def _slowed(case: Case, percent: int) -> Case:
    return case if case.dirty is None else replace(case, dirty=case.dirty * (100 - percent) / 100)


def _range(courses: tuple[Course, ...], values: list[float]) -> Range:
    """From best to worst; cases that do not end have no figure, and nothing above them has."""
    best, likely, worst = courses
    known = [value for course, value in zip(courses, values, strict=True) if course.ended]
    if not best.ended or not known:
        return Range()
    if not likely.ended:
        # What is not known in between (post-copy, hybrid) may still be bounded by the worst case.
        return Range(low=min(known), high=max(known) if worst.ended else None)
    return Range(low=min(known), likely=values[1], high=max(known) if worst.ended else None)


def _why(mode: MoveMode, converges: Sure, courses: tuple[Course, ...], slowdown: int) -> str:
    slowed = f", with the guest slowed down by up to {slowdown} %" if slowdown else ""
    trouble = next((course.why for course in courses[1:] if course.why), "") or courses[0].why
    if mode == "post-copy":
        return "it ends whatever the guest writes, and needs both hosts until it has"
    if mode == "hybrid" and converges != "no":
        thin = [course for course in courses if course.ended and course.thin]
        return f"{'it may switch to' if thin else 'it is not expected to need'} post-copy{slowed}"
    if converges == "yes":
        return f"it converges even in the worst case{slowed}"
    if converges == "maybe":
        return f"it converges in the better cases only{slowed}: {trouble}"
    return f"it does not converge{slowed}: {trouble}" if converges == "no" else trouble


def _judged(strategy: Strategy, figures: Figures) -> Strategy:
    """With the policy's goals."""
    policy, left = figures.policy, max(0.0, seconds_left(figures.policy, figures.start))
    slowest = max(0, strategy.slowdown)
    goals = (
        _goal("max_downtime", f"{policy.max_downtime_ms} ms", strategy, strategy.downtime_ms, policy.max_downtime_ms),
        _goal("finish", f"within {duration(left)}", strategy, strategy.seconds, left),
        Goal(
            name="max_slowdown",
            wanted=f"{policy.max_slowdown} %",
            met="yes",
            why=f"the guest is slowed down by up to {slowest} %" if slowest else "the guest is not slowed down",
        ),
    )
    return strategy.model_copy(update={"goals": goals})


def _goal(name: str, wanted: str, strategy: Strategy, expected: Range, bound: float) -> Goal:
    def told(met: Sure, why: str) -> Goal:
        return Goal(name=name, wanted=wanted, met=met, why=why)

    if strategy.converges == "unknown" and expected.low is None:
        return told("unknown", strategy.why)
    if expected.low is None or expected.low > bound:
        return told("no", strategy.why if expected.low is None else "not even in the best case")
    if expected.high is not None and expected.high <= bound:
        return told("yes", "even in the worst case")
    return told("maybe", "in the likely case" if (expected.likely or bound + 1) <= bound else "in the best case only")
