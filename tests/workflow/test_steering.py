"""A running move is steered: goals changed, paused, resumed, each answered or refused; and its decisions are kept."""

from __future__ import annotations

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from models.decisions import Decision, Story
from tests.workflow.fake_site import VM, FakeSite, Move, Step, failure, outcome, reached
from tests.workflow.test_limit import release

pytestmark = pytest.mark.temporal


def decision(number: int, action: str = "downtime", value: float = 150, at: float = 3) -> Decision:
    return Decision.model_validate(
        {"number": number, "at": at, "action": action, "value": value, "reason": "why", "inputs": {"remaining": 5}}
    )


async def refused(move: Move, name: str, *args: object) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as told:
        await move.execute_update(name, args=list(args))
    return str(told.value.cause)


async def held(site: FakeSite, raw: object = None) -> tuple[Move, Step]:
    """A move whose long step runs until it is released."""
    step = site.at(site.source, "move_vm", hold=True)
    move = await site.start(raw)
    await reached(step)
    return move, step


async def test_new_goals_reach_the_host_and_everything_else_of_the_policy_stays(site: FakeSite) -> None:
    async with site.working():
        move, step = await held(site, {"vm": VM, "to": "host-b", "policy": {"lanes": 3}})
        told = await move.execute_update("set_policy", {"finish_within": 900, "max_downtime_ms": 500})
        assert told == "finish_within = 900.0, max_downtime_ms = 500, from now on"
        release(step)
        await outcome(move)
    (wish,) = site.source.wishes
    assert (wish.policy.finish_within, wish.policy.max_downtime_ms, wish.policy.lanes) == (900, 500, 3)
    assert wish.held_until == 0


async def test_goals_changed_before_the_vm_moves_are_part_of_its_order(site: FakeSite) -> None:
    step = site.at(site.source, "inspect_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        assert "noted while checking" in await move.execute_update("set_policy", {"max_slowdown": 40})
        release(step)
        await outcome(move)
    assert site.source.moves[0].policy.max_slowdown == 40
    assert site.source.wishes == []


async def test_a_pause_reaches_the_host_with_its_bound_and_resume_ends_it(site: FakeSite) -> None:
    async with site.working():
        move, step = await held(site, {"vm": VM, "to": "host-b", "policy": {"allow_post_copy": True}})
        assert "for 60 s at most" in await move.execute_update("pause", 60)
        assert "paused already" in await refused(move, "pause", 60)
        assert "Resume it first" in await refused(move, "post_copy_now")
        assert "holds when the move is resumed" in await move.execute_update("set_bandwidth", 5)
        assert await move.execute_update("resume") == "the move goes on"
        assert "not paused" in await refused(move, "resume")
        release(step)
        await outcome(move)
    paused, limited, resumed = site.source.wishes
    assert paused.held_until > 0
    assert (limited.held_until, limited.policy.wire_mib) == (paused.held_until, 5)
    assert (resumed.held_until, resumed.policy.wire_mib) == (0, 5)
    assert [wish.number for wish in site.source.wishes] == [1, 2, 3]
    assert site.source.limits == []


async def test_a_pause_the_host_refuses_is_none(site: FakeSite) -> None:
    site.source.refuses_wishes = True
    async with site.working():
        move, step = await held(site)
        assert "done" in await refused(move, "pause", 60)
        assert "not paused" in await refused(move, "resume")
        release(step)
        await outcome(move)


async def test_a_pause_that_nobody_answered_can_be_resumed_and_so_can_a_resume(site: FakeSite) -> None:
    away = ApplicationError("no answer", type="HostUnavailable", non_retryable=True)
    async with site.working():
        move, step = await held(site)
        site.at(site.source, "steer_move", error=away, times=2)
        assert "no answer" in await refused(move, "pause", 60)
        assert "no answer" in await refused(move, "resume")
        assert await move.execute_update("resume") == "the move goes on"
        release(step)
        await outcome(move)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lanes": 4}, "lanes: cannot be changed while the move runs"),
        ({"finish_witin": 4}, "finish_witin: is no field of a policy"),
        ({"max_downtime_ms": 0}, "max_downtime_ms: got 0"),
        ({"max_slowdown": "much"}, "max_slowdown: got 'much'"),
        ({"allow_post_copy": True}, "have to know of it"),
        ({"max_slowdown": 30}, "started with 0"),
        ({"finish_within": 100_000}, "43200 s at most"),
        ({"finish_by": "2001-01-01T00:00:00Z"}, "is past"),
        ({}, "Give one JSON object"),
    ],
)
async def test_what_cannot_be_changed_is_refused_with_the_reason_and_changes_nothing(
    site: FakeSite, changes: dict[str, object], words: str
) -> None:
    async with site.working():
        move, step = await held(site)
        assert words in await refused(move, "set_policy", changes)
        release(step)
        await outcome(move)
    assert site.source.wishes == []


async def test_every_decision_is_kept_once_and_told_in_order(site: FakeSite) -> None:
    site.source.decisions = (decision(2, "throttle", 20, at=9), decision(1), decision(2, "throttle", 20, at=9))
    async with site.working():
        move, step = await held(
            site, {"vm": VM, "to": "host-b", "policy": {"max_slowdown": 50, "allow_post_copy": True}}
        )
        release(step)
        done = await outcome(move)
        story = await move.query("decisions", result_type=Story)
    assert [(one.number, one.action, one.value) for one in done.decisions] == [
        (1, "downtime", 150),
        (2, "throttle", 20),
    ]
    assert done.decisions[0].inputs == {"remaining": 5}
    assert story.decisions == done.decisions
    assert [mark.phase for mark in story.marks] == ["checking", "preparing", "moving", "confirming", "cleaning", "done"]
    assert (story.source, story.destination, story.goals) == ("host-a", "host-b", done.goals)
    assert {goal.goal: goal.kept for goal in done.goals} == {
        "finish_within": True, "max_downtime_ms": True, "max_slowdown": True,
    }  # fmt: skip


async def test_a_failed_move_names_the_goals_it_did_not_keep(site: FakeSite) -> None:
    site.source.decisions = (decision(1, "give up", 0, at=300),)
    lost = ApplicationError("not across within finish_within", type="MigrationFailed", non_retryable=True)
    site.at(site.source, "move_vm", error=lost)
    async with site.working():
        move = await site.start()
        assert "finish_within" in (await failure(move)).message
        story = await move.query("decisions", result_type=Story)
    assert story.decisions[0].action == "give up"
    assert {goal.goal: goal.kept for goal in story.goals} == {"finish_within": False, "max_downtime_ms": True}


async def test_a_guest_that_may_have_been_paused_is_made_to_run_again_where_its_move_failed(site: FakeSite) -> None:
    site.at(site.source, "move_vm", error=ApplicationError("no", type="MigrationFailed", non_retryable=True))
    async with site.working():
        await site.failure({"vm": VM, "to": "host-b", "policy": {"allow_pause": True}})
        assert "host-a.revive_vm" in site.journal
        site.journal.clear()
        await site.failure()
        assert "host-a.revive_vm" not in site.journal
