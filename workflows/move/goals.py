"""Which goals of its policy a move kept, and by what. Pure.

| goal | kept when |
| --- | --- |
| finish_within, finish_by | the VM ran at the destination by then; in post-copy its memory may have followed |
| max_downtime_ms | libvirt's figure for the final pause is within it, and the guest was not made to stand still |
| max_slowdown | it was never throttled beyond it |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.decisions import Decision, GoalReport
from models.migration import MigrationPolicy


@dataclass(frozen=True)
class End:
    """How a move ended. Times in seconds since the move step began, and Unix time."""

    moved: bool
    seconds: float
    at: float
    downtime_ms: int = 0
    post_copy: bool = False


def judge(policy: MigrationPolicy, end: End, decisions: Sequence[Decision]) -> tuple[GoalReport, ...]:
    switched = next((each.at for each in decisions if each.action == "post-copy"), None)
    saved = max(0.0, end.seconds - switched) if end.post_copy and switched is not None else 0.0
    took, at = end.seconds - saved, end.at - saved
    found = [_within(policy, end, took)]
    if policy.finish_by is not None:
        late = at - policy.finish_by.timestamp()
        got = f"{abs(late):.0f} s {'late' if late > 0 else 'before it'}" if end.moved else "not moved"
        found.append(_goal("finish_by", policy.finish_by.isoformat(), got, end.moved and late <= 0))
    found.append(_downtime(policy, end, decisions))
    slowest = max((each.value for each in decisions if each.action == "throttle"), default=0.0)
    if policy.max_slowdown or slowest:
        got = f"at most {slowest:.0f} %" if slowest else "never throttled"
        found.append(_goal("max_slowdown", f"{policy.max_slowdown} %", got, slowest <= policy.max_slowdown))
    return tuple(found)


def _within(policy: MigrationPolicy, end: End, took: float) -> GoalReport:
    got = f"{took:.1f} s" + (", then its memory followed" if end.post_copy else "")
    kept = end.moved and took <= policy.finish_within
    return _goal("finish_within", f"{policy.finish_within:g} s", got if end.moved else "not moved", kept)


def _downtime(policy: MigrationPolicy, end: End, decisions: Sequence[Decision]) -> GoalReport:
    paused = next((each.at for each in decisions if each.action == "pause"), None)
    wanted = f"{policy.max_downtime_ms} ms"
    if paused is not None:
        stood = max(0.0, end.seconds - paused)
        return _goal("max_downtime_ms", wanted, f"the guest stood still for about {stood:.0f} s", False)
    if not end.moved:
        return _goal("max_downtime_ms", wanted, "no pause", True)
    return _goal("max_downtime_ms", wanted, f"{end.downtime_ms} ms", end.downtime_ms <= policy.max_downtime_ms)


def _goal(goal: str, wanted: str, got: str, kept: bool) -> GoalReport:
    return GoalReport(goal=goal, wanted=wanted, got=got, kept=kept)
