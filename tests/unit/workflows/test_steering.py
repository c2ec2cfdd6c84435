"""Every update in every phase: the table of workflows/move/steering.py, row by row, and the words of each refusal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from temporalio.exceptions import ApplicationError

from models.migration import MigrationPolicy, Phase
from workflows.move import steering
from workflows.move.steering import Standing

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HYBRID = MigrationPolicy(mode="hybrid")
ASK: dict[str, Callable[[Standing], object]] = {
    "cancel": steering.may_cancel,
    "set_bandwidth": lambda at: steering.may_limit(at, 5),
    "set_policy": lambda at: steering.changed(at, {"max_downtime_ms": 500}),
    "set_policy wire_mib": lambda at: steering.changed(at, {"wire_mib": 5}),
    "pause": lambda at: steering.may_pause(at, 60),
    "resume": steering.may_resume,
    "post_copy_now": steering.may_switch_now,
    "start_now": steering.may_start_now,
}
YES: dict[str, dict[str, set[str]]] = {
    "checking": {"any": {"cancel", "set_bandwidth", "set_policy", "set_policy wire_mib"}},
    "waiting": {"any": {"cancel", "set_bandwidth", "set_policy", "set_policy wire_mib", "start_now"}},
    "preparing": {"any": {"cancel", "set_bandwidth", "set_policy", "set_policy wire_mib"}},
    "moving": {
        "going": {"cancel", "set_bandwidth", "set_policy", "set_policy wire_mib", "pause", "post_copy_now"},
        "held": {"cancel", "set_bandwidth", "set_policy", "set_policy wire_mib", "resume"},
    },
    "post-copy": {"any": {"set_bandwidth", "set_policy wire_mib"}},
}
"""What is answered; all else is refused, in every phase."""


def standing(phase: Phase, held: bool = False, policy: MigrationPolicy = HYBRID) -> Standing:
    begun = policy if phase not in ("checking", "waiting", "preparing") else None
    return Standing(phase=phase, to="host-b", policy=policy, begun=begun, held=held, now=NOW, moving_for=100)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("update", ASK)
@pytest.mark.parametrize("phase", get_args(Phase))
def test_each_update_is_answered_or_refused_with_a_reason_in_each_phase(phase: Phase, update: str, held: bool) -> None:
    rows = YES.get(phase, {"any": set()})
    allowed = rows.get("any", rows.get("held" if held else "going", set()))
    if update in allowed:
        ASK[update](standing(phase, held))
        return
    with pytest.raises(ApplicationError) as refused:
        ASK[update](standing(phase, held))
    assert refused.value.type == "Refused"
    assert refused.value.non_retryable
    assert len(refused.value.message) > 30


def test_a_policy_keeps_what_is_not_named() -> None:
    policy = MigrationPolicy(lanes=7, finish_within=600)
    changed = steering.changed(standing("moving", policy=policy), {"finish_within": 1200, "allow_pause": True})
    assert (changed.finish_within, changed.allow_pause, changed.lanes) == (1200, True, 7)


def test_leave_for_post_copy_can_be_taken_back_and_given_again() -> None:
    begun = MigrationPolicy(allow_post_copy=True)
    now = MigrationPolicy(allow_post_copy=False)
    at = Standing(phase="moving", to="host-b", policy=now, begun=begun, now=NOW)
    assert steering.changed(at, {"allow_post_copy": True}).allow_post_copy


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"finish_within": 90}, "has been moving for 100 s"),
        ({"finish_by": (NOW - timedelta(seconds=1)).isoformat()}, "is past"),
        ({"finish_within": 1e5}, "43200 s at most"),
        ({"max_slowdown": 5}, "started with 0"),
    ],
)
def test_a_goal_that_cannot_be_kept_any_more_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ApplicationError, match=words):
        steering.changed(standing("moving"), changes)


@pytest.mark.parametrize("seconds", [0, -1, 1e9, float("nan")])
def test_a_pause_needs_a_bound(seconds: float) -> None:
    with pytest.raises(ApplicationError, match="seconds: got"):
        steering.may_pause(standing("moving"), seconds)


def test_mode_and_span_follow_the_goals_they_were_made_from() -> None:
    begun = MigrationPolicy(mode="hybrid", allow_post_copy=True, finish_within=600)
    at = Standing(phase="moving", to="host-b", policy=begun, begun=begun, now=NOW, moving_for=100)
    assert steering.changed(at, {"allow_post_copy": False}).mode == "pre-copy"
    later = steering.changed(at, {"finish_by": (NOW + timedelta(seconds=900)).isoformat()})
    assert later.finish_within == 1000
