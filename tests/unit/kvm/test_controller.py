"""The controller always ends, never flaps, and keeps to its goals: on generated moves, on recorded ones, by example."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clouds.kvm.controller import Controller, Goals, Reading, Step, downtimes, first_downtime
from models.decisions import Decision
from models.migration import MigrationPolicy
from tests.unit.kvm.pre_copy import MIB, Ended, Guest, PreCopy

TRACES = Path(__file__).parent / "traces"
BUSY = Guest(memory=1024 * MIB, writes=60 * MIB, working_set=400 * MIB)
"""Writes more than the links here carry."""

guests = st.builds(
    Guest,
    memory=st.floats(16 * MIB, 65536 * MIB),
    writes=st.floats(0, 4096 * MIB),
    working_set=st.floats(0, 65536 * MIB),
)
goals = st.builds(
    Goals,
    deadline=st.floats(1, 2000),
    max_downtime_ms=st.integers(1, 5000),
    max_slowdown=st.integers(0, 99),
    may_switch=st.booleans(),
    eager=st.just(False),
    may_pause=st.booleans(),
)
outages = st.lists(st.tuples(st.floats(0, 2000), st.floats(0, 300)), max_size=4)


def within(spans: list[tuple[float, float]], now: float) -> bool:
    return any(since <= now < since + length for since, length in spans)


@settings(max_examples=300)
@given(guests, goals, st.floats(MIB / 4, 2048 * MIB), outages, outages, st.sampled_from([0.0, 7.0, 60.0]))
def test_any_move_ends_by_its_deadline_without_flapping_and_within_its_goals(
    guest: Guest,
    wanted: Goals,
    bandwidth: float,
    lost: list[tuple[float, float]],
    held: list[tuple[float, float]],
    attach_every: float,
) -> None:
    end = PreCopy(guest, bandwidth, lambda now: not within(lost, now), lambda now: within(held, now), attach_every).run(
        wanted
    )
    assert end.how in ("completed", "post-copy", "give up")
    assert end.at <= wanted.deadline + 1
    values: dict[str, list[float]] = {}
    for _, step in end.steps:
        values.setdefault(step.action, []).append(step.value)
        assert step.reason
    for action in ("downtime", "throttle"):
        taken = values.get(action, [])
        if action == "throttle" and taken and taken[-1] == 0:
            taken = taken[:-1]  # taken off for good, as it showed nothing
        assert taken == sorted(set(taken)), f"{action} went up and down: {taken}"
    assert max(values.get("downtime", [0])) <= wanted.max_downtime_ms
    assert max(values.get("throttle", [0])) <= wanted.max_slowdown
    counts = Counter(end.actions)
    assert "post-copy" not in counts or wanted.may_switch
    assert "pause" not in counts or wanted.may_pause
    assert max(counts["post-copy"], counts["pause"], counts["give up"]) <= 1
    assert counts["downtime"] <= len(downtimes(wanted.max_downtime_ms)) - 1
    assert counts["throttle"] <= 6


@given(
    st.lists(
        st.builds(
            Reading,
            elapsed=st.floats(0, 500),
            iteration=st.integers(0, 50),
            total=st.integers(0, 2**40),
            remaining=st.integers(0, 2**40),
            dirty_rate=st.floats(0, 1e12),
            bandwidth=st.floats(0, 1e12),
            link=st.booleans(),
            hold=st.booleans(),
            running=st.booleans(),
        ),
        max_size=60,
    ),
    goals,
)
def test_readings_that_make_no_sense_neither_break_it_nor_keep_it_from_its_end(
    readings: list[Reading], wanted: Goals
) -> None:
    controller = Controller(wanted)
    for reading in sorted(readings, key=lambda each: each.elapsed):
        if step := controller.advise(reading):
            controller.done(step, reading.elapsed)
    controller.advise(Reading(elapsed=wanted.deadline))
    if not controller.switched and not controller.gave_up:
        last = controller.advise(Reading(elapsed=wanted.deadline))
        assert last is not None
        assert last.action == "give up"


@given(guests, st.floats(4 * MIB, 2048 * MIB), st.floats(60, 2000))
def test_where_post_copy_is_allowed_a_steady_link_that_can_carry_the_vm_in_time_gets_it_across(
    guest: Guest, bandwidth: float, deadline: float
) -> None:
    fits = guest.memory / bandwidth * 2 + 20 < deadline
    end = PreCopy(guest, bandwidth).run(Goals(deadline, may_switch=True))
    if fits:
        assert end.how in ("completed", "post-copy"), end.steps[-1]


@given(guests, st.floats(4 * MIB, 2048 * MIB), st.floats(60, 2000))
def test_a_pause_that_is_allowed_gets_any_vm_across_that_fits_into_the_time(
    guest: Guest, bandwidth: float, deadline: float
) -> None:
    fits = guest.memory / bandwidth * 3 + 30 < deadline
    end = PreCopy(guest, bandwidth).run(Goals(deadline, may_pause=True))
    if fits:
        assert end.how == "completed", end.steps[-1]


def story(end: Ended) -> list[tuple[str, float]]:
    return [(step.action, step.value) for _, step in end.steps]


def test_an_idle_guest_is_left_alone() -> None:
    end = PreCopy(Guest(1024 * MIB), 100 * MIB).run(Goals(3600))
    assert (end.how, end.steps) == ("completed", [])


def test_a_guest_that_converges_is_given_its_short_pause_and_nothing_else() -> None:
    end = PreCopy(Guest(1024 * MIB, writes=20 * MIB, working_set=300 * MIB), 100 * MIB).run(Goals(3600))
    assert end.how == "completed"
    assert set(end.actions) <= {"downtime"}


def test_a_guest_that_writes_too_much_is_slowed_down_step_by_step_as_far_as_allowed_and_then_crosses() -> None:
    end = PreCopy(BUSY, 50 * MIB).run(Goals(3600, max_slowdown=80))
    assert end.how == "completed"
    assert [value for action, value in story(end) if action == "throttle"] in ([20, 40], [20, 40, 60], [20, 40, 60, 80])


def test_a_guest_that_writes_no_less_when_slowed_down_gets_its_cpu_back_for_good() -> None:
    controller = Controller(Goals(600, max_downtime_ms=30, max_slowdown=90))
    taken = []
    for second in range(1, 601):
        left = 100 * (10 - second % 10)
        reading = Reading(second, iteration=second // 10 + 1, total=4000, remaining=left, dirty_rate=100, bandwidth=100)
        if step := controller.advise(reading):
            controller.done(step, second)
            taken.append(step)
    values = [(step.action, step.value) for step in taken]
    assert values == [("throttle", 20), ("throttle", 40), ("throttle", 60), ("throttle", 0), ("give up", 0)]
    assert all("write less" in step.reason for step in taken[-2:])


def test_without_leave_for_more_it_waits_to_the_deadline_and_says_what_would_have_helped() -> None:
    end = PreCopy(BUSY, 50 * MIB).run(Goals(300))
    assert (end.how, end.at) == ("give up", 300)
    reason = end.steps[-1][1].reason
    assert "pause of" in reason
    assert "allow_post_copy" in reason
    assert "allow_pause" in reason


def test_a_stall_ends_in_post_copy_long_before_the_deadline_after_everything_milder() -> None:
    end = PreCopy(BUSY, 50 * MIB).run(Goals(3600, max_slowdown=20, may_switch=True))
    assert end.how == "post-copy"
    assert end.at < 600
    assert end.actions.index("throttle") < end.actions.index("post-copy")
    assert "gained nothing" in end.steps[-1][1].reason


def test_a_near_deadline_is_acted_on_early_enough_for_all_that_remains_to_cross() -> None:
    bandwidth = 50 * MIB
    end = PreCopy(BUSY, bandwidth).run(Goals(60, may_switch=True))
    assert end.how == "post-copy"
    remains = dict(end.steps[-1][1].inputs)["remaining"]
    assert end.at + remains / bandwidth <= 60


def test_a_near_deadline_leaves_no_time_for_small_steps() -> None:
    end = PreCopy(BUSY, 50 * MIB).run(Goals(75, max_slowdown=90))
    throttles = [value for action, value in story(end) if action == "throttle"]
    assert throttles[-1] == 90
    assert len(throttles) <= 2


def test_mode_post_copy_switches_when_the_first_pass_is_over() -> None:
    end = PreCopy(BUSY, 50 * MIB).run(Goals(3600, may_switch=True, eager=True))
    assert story(end) == [("post-copy", 0)]
    assert end.at == pytest.approx(1024 / 50, abs=2)


def test_half_of_the_time_is_all_that_a_pre_copy_gets_that_does_not_look_like_ending() -> None:
    end = PreCopy(Guest(4096 * MIB), 10 * MIB).run(Goals(500, may_switch=True))
    assert end.how == "post-copy"
    assert "half of the time" in end.steps[-1][1].reason or "last moment" in end.steps[-1][1].reason


def test_a_lost_link_is_no_stall_and_buys_no_time() -> None:
    lost = PreCopy(BUSY, 50 * MIB, link=lambda now: now < 30).run(Goals(200, max_slowdown=80, may_switch=True))
    assert (lost.how, lost.at) == ("give up", 200)
    assert "throttle" not in lost.actions
    assert "link was lost" in lost.steps[-1][1].reason


def test_a_pause_by_people_is_no_stall_and_buys_no_time() -> None:
    end = PreCopy(BUSY, 50 * MIB, hold=lambda now: now > 25).run(Goals(200, max_slowdown=80, may_switch=True))
    assert end.actions[-2:] == ["hold", "give up"]
    assert end.at == 200


def test_what_people_paused_goes_on_when_they_resume_it() -> None:
    end = PreCopy(Guest(1024 * MIB), 50 * MIB, hold=lambda now: 5 < now < 30).run(Goals(200))
    assert story(end) == [("hold", 0), ("release", 0)]
    assert end.how == "completed"
    assert end.at > 1024 / 50 + 24


def test_a_guest_at_its_switch_never_waits_for_people() -> None:
    controller = Controller(Goals(100))
    assert controller.advise(Reading(5, hold=True, running=False)) is None
    step = controller.advise(Reading(6, hold=True))
    assert step is not None
    controller.done(step, 6)
    released = controller.advise(Reading(7, hold=True, running=False))
    assert released is not None
    assert released.action == "release"


def test_new_goals_take_effect_at_once_also_downwards() -> None:
    controller = Controller(Goals(100, max_downtime_ms=400, max_slowdown=50))
    controller.done(Step("downtime", "", 400), 10)
    controller.done(Step("throttle", "", 40), 20)
    controller.change(Goals(100, max_downtime_ms=200, max_slowdown=10, bandwidth_mib=7))
    taken = []
    for second in (21, 22, 23, 24):
        if step := controller.advise(Reading(second)):
            controller.done(step, second)
            taken.append((step.action, step.value))
    assert taken == [("bandwidth", 7), ("downtime", 200), ("throttle", 10)]


def test_more_time_given_in_time_lets_the_move_go_on() -> None:
    end = PreCopy(BUSY, 50 * MIB).run(Goals(100), change=lambda now: Goals(250) if now == 90 else None)
    assert (end.how, end.at) == ("give up", 250)


def test_a_throttle_that_the_host_refuses_is_not_asked_for_again_and_named_in_the_end() -> None:
    controller = Controller(Goals(100, max_downtime_ms=30, max_slowdown=50))
    asked = 0
    for second in range(1, 101):
        reading = Reading(second, iteration=second // 5 + 1, total=1000, remaining=900, dirty_rate=50, bandwidth=10)
        if step := controller.advise(reading):
            if step.action == "throttle":
                asked += 1
                controller.refused(step, "no monitor")
            else:
                controller.done(step, second)
                last = step
    assert asked == 1
    assert "no monitor" in last.reason


def test_the_earlier_of_both_deadlines_holds() -> None:
    by = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
    policy = MigrationPolicy(finish_within=600, finish_by=by)
    assert Goals.of(policy, by.timestamp() - 60).deadline == 60
    assert Goals.of(policy, by.timestamp() - 6000).deadline == 600


def test_the_planned_pause_grows_in_steps_to_its_bound() -> None:
    assert downtimes(300) == (75, 150, 225, 300)
    assert downtimes(40) == (30, 40)
    assert downtimes(1) == (1,)
    assert first_downtime(300) == 75


def replay(name: str, wanted: Goals, attach_at: float | None = None) -> list[tuple[str, float]]:
    """What would have been done in a recorded move (which does not react to it): action and value."""
    controller = Controller(wanted)
    taken: list[Decision] = []
    for elapsed, total, remaining, iteration, dirty_rate, bandwidth in json.loads((TRACES / name).read_text())["rows"]:
        if attach_at is not None and elapsed > attach_at:
            controller, attach_at = Controller(wanted, taken), None
        if step := controller.advise(Reading(elapsed, iteration, total, remaining, dirty_rate, bandwidth)):
            controller.done(step, elapsed)
            told = Decision(number=1, at=elapsed, action=step.action, value=step.value, reason=step.reason)
            taken.append(told)
    return [(decision.action, decision.value) for decision in taken]


@pytest.mark.parametrize("name", ["idle.json", "dirty-5.json"])
def test_recorded_moves_that_converged_by_themselves_are_left_alone(name: str) -> None:
    everything = Goals(600, max_slowdown=80, may_switch=True, may_pause=True)
    assert replay(name, everything) == []


RAISED = [("downtime", 150), ("downtime", 225), ("downtime", 300)]


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (Goals(75), [*RAISED, ("give up", 0)]),
        (Goals(75, max_slowdown=60), [*RAISED, ("throttle", 60), ("throttle", 0), ("give up", 0)]),
        (Goals(600, max_slowdown=60, may_switch=True), [*RAISED, ("throttle", 20), ("throttle", 40)]),
        (Goals(75, may_switch=True), [("downtime", 150), ("post-copy", 0)]),
        (Goals(75, may_pause=True), [*RAISED, ("pause", 0), ("give up", 0)]),
    ],
)
def test_a_recorded_move_that_did_not_converge_is_helped_as_far_as_its_goals_allow(
    wanted: Goals, taken: list[tuple[str, float]]
) -> None:
    """The recording does not react, so a pause of the guest does not help it here."""
    assert replay("dirty-20.json", wanted) == taken


@pytest.mark.parametrize("second", range(5, 75, 10))
def test_an_attempt_that_attaches_anywhere_in_a_recorded_move_repeats_nothing(second: float) -> None:
    taken = replay("dirty-20.json", Goals(75, max_slowdown=60), attach_at=second)
    assert len(taken) == len(set(taken))
    assert taken[-1] == ("give up", 0)
    assert [value for action, value in taken if action == "downtime"] == sorted(
        value for action, value in taken if action == "downtime"
    )
