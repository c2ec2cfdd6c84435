"""Which goals were kept: by what was seen, not by what was tried."""

from __future__ import annotations

from datetime import UTC, datetime

from models.decisions import Decision
from models.migration import MigrationPolicy
from workflows.move.goals import End, judge

AT = datetime(2030, 1, 1, 4, 0, tzinfo=UTC)


def kept(policy: MigrationPolicy, end: End, *decisions: tuple[str, float, float]) -> dict[str, bool]:
    told = [
        Decision.model_validate({"number": n, "action": action, "value": value, "at": at, "reason": "why"})
        for n, (action, value, at) in enumerate(decisions, 1)
    ]
    return {goal.goal: goal.kept for goal in judge(policy, end, told)}


def test_a_move_in_time_with_a_short_pause_kept_all() -> None:
    policy = MigrationPolicy(finish_within=60, finish_by=AT)
    assert kept(policy, End(True, 50, AT.timestamp() - 1, 299)) == {
        "finish_within": True, "finish_by": True, "max_downtime_ms": True,
    }  # fmt: skip


def test_late_and_long_are_not_kept() -> None:
    policy = MigrationPolicy(finish_within=60, finish_by=AT)
    assert not any(kept(policy, End(True, 61, AT.timestamp() + 1, 301)).values())


def test_in_post_copy_the_switch_counts_not_the_memory_that_follows() -> None:
    policy = MigrationPolicy(finish_within=60, finish_by=AT)
    end = End(True, 100, AT.timestamp() + 40, 20, post_copy=True)
    assert all(kept(policy, end, ("post-copy", 0, 55)).values())


def test_a_guest_that_stood_still_had_no_short_pause_whatever_libvirt_says() -> None:
    (within, downtime) = judge(
        MigrationPolicy(finish_within=60),
        End(True, 50, 0, 20),
        [Decision(number=1, action="pause", at=40, reason="why")],
    )
    assert within.kept
    assert not downtime.kept
    assert "10 s" in downtime.got


def test_a_move_that_did_not_happen_kept_no_deadline_and_paused_nobody() -> None:
    assert kept(MigrationPolicy(), End(False, 5, 0)) == {"finish_within": False, "max_downtime_ms": True}


def test_a_throttle_is_measured_against_what_was_allowed() -> None:
    assert kept(MigrationPolicy(max_slowdown=40), End(True, 5, 0), ("throttle", 40, 2))["max_slowdown"]
    assert not kept(MigrationPolicy(max_slowdown=20), End(True, 5, 0), ("throttle", 40, 2))["max_slowdown"]
