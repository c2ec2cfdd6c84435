"""No step is without an end, and nothing with effects is dropped on a cancel."""

from __future__ import annotations

import pytest
from temporalio.workflow import ActivityCancellationType, ActivityConfig

from models.migration import MigrationPolicy
from workflows import errors
from workflows.calls import deadlines

POLICY = MigrationPolicy(finish_within=3600, resume_within=60)
TABLE: dict[str, ActivityConfig] = {
    "control": deadlines.CONTROL,
    "question": deadlines.QUESTION,
    "prepare": deadlines.PREPARE,
    "move": deadlines.move(POLICY),
    "confirm": deadlines.CONFIRM,
    "discard": deadlines.DISCARD,
    "close": deadlines.CLOSE,
}


@pytest.mark.parametrize("kind", TABLE)
def test_every_step_ends(kind: str) -> None:
    step = TABLE[kind]
    attempt, whole = step["start_to_close_timeout"], step["schedule_to_close_timeout"]
    assert attempt is not None
    assert whole is not None
    assert attempt < whole, "one stuck attempt leaves room for another"
    retry = step["retry_policy"]
    assert retry is not None
    assert set(retry.non_retryable_error_types or ()) == set(errors.FINAL)


@pytest.mark.parametrize("kind", ["prepare", "move", "confirm", "discard", "close"])
def test_what_has_effects_is_waited_for_on_a_cancel(kind: str) -> None:
    assert TABLE[kind]["cancellation_type"] == ActivityCancellationType.WAIT_CANCELLATION_COMPLETED


@pytest.mark.parametrize("kind", ["question", "prepare", "move"])
def test_a_dead_host_is_found_out_before_the_step_would_have_ended(kind: str) -> None:
    assert TABLE[kind]["schedule_to_start_timeout"] is not None


def test_the_move_is_bounded_by_its_policy_and_heard_from() -> None:
    move = deadlines.move(POLICY)
    attempt = move["start_to_close_timeout"]
    assert attempt is not None
    assert attempt.total_seconds() > POLICY.finish_within + POLICY.resume_within
    assert move["heartbeat_timeout"] is not None
