"""The estimator: what must hold for any figures, and what some moves are expected to cost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.migration import MigrationPolicy
from models.planning import Range, Strategy
from workflows.plan.estimate import MIB, Figures, chosen, strategies

NOW = datetime(2027, 1, 1, tzinfo=UTC)
GIB = 1024 * MIB


def around(rate: float) -> Range:
    return Range(low=rate / 2, likely=rate, high=rate * 2)


def figures(dirty: float | None = 0, link: float | None = 100 * MIB, **policy: object) -> Figures:
    return Figures(
        memory=4 * GIB,
        policy=MigrationPolicy.model_validate(policy),
        start=NOW,
        dirty=Range() if dirty is None else around(dirty),
        link=Range() if link is None else around(link),
        round_trip=0.01,
    )


def by_mode(of: Figures) -> dict[str, Strategy]:
    return {each.mode: each for each in strategies(of)}


def goal(of: Strategy, name: str) -> str:
    return next(each.met for each in of.goals if each.name == name)


ANY = st.builds(
    Figures,
    memory=st.floats(MIB, 1 << 44),
    policy=st.builds(
        MigrationPolicy,
        codec=st.sampled_from(["raw", "auto"]),
        max_downtime_ms=st.integers(1, 10_000),
        finish_within=st.floats(1, 86400),
        max_slowdown=st.integers(0, 99),
        bandwidth_mib=st.integers(0, 1000),
    ),
    start=st.just(NOW),
    resident=st.floats(0, 1 << 44),
    disks=st.floats(0, 1 << 44),
    dirty=st.one_of(st.just(Range()), st.floats(0, 1 << 36).map(around)),
    link=st.one_of(st.just(Range()), st.floats(1000, 1 << 34).map(around)),
    round_trip=st.floats(0, 2),
)


@given(ANY)
def test_every_strategy_has_an_answer_a_reason_and_ranges_in_order(of: Figures) -> None:
    found = strategies(of)
    assert [each.mode for each in found] == ["pre-copy", "hybrid", "post-copy"]
    for each in found:
        assert each.why
        assert each.slowdown <= of.policy.max_slowdown
        assert [goal.name for goal in each.goals] == ["max_downtime", "finish", "max_slowdown"]
        if each.converges == "yes" and of.dirty.likely is not None:
            assert each.seconds.low is not None
            assert each.seconds.high is not None
        if each.converges == "no":
            assert each.seconds.low is None
        if of.link.likely is None:
            assert (each.converges, each.seconds.likely) == ("unknown", None)
    assert strategies(of) == found, "the same figures, the same answer"


@given(st.floats(0, 500 * MIB), st.floats(1.01, 10))
def test_a_busier_guest_never_makes_a_move_more_likely_to_end(dirty: float, more: float) -> None:
    order = ["yes", "maybe", "no"]
    calm, busy = by_mode(figures(dirty))["pre-copy"], by_mode(figures(dirty * more))["pre-copy"]
    assert order.index(calm.converges) <= order.index(busy.converges)


def test_an_idle_guest_crosses_in_one_pass() -> None:
    found = by_mode(figures(0, codec="raw"))["pre-copy"]
    assert found.converges == "yes"
    assert found.wire_bytes.high == 4 * GIB, "raw, at worst: every page once"
    assert goal(found, "max_downtime") == "yes"


def test_a_guest_that_writes_faster_than_the_link_carries_needs_another_way() -> None:
    found = by_mode(figures(4 * GIB))
    assert found["pre-copy"].converges == "no"
    assert "of its memory get across" in found["pre-copy"].why
    assert (found["hybrid"].converges, found["post-copy"].converges) == ("yes", "yes")
    assert (found["post-copy"].thin_seconds.likely or 0) > 1, "and post-copy has its price"
    assert goal(found["pre-copy"], "finish") == "no"


def test_slowing_the_guest_down_may_let_it_end() -> None:
    calmed = by_mode(figures(300 * MIB, max_slowdown=95))["pre-copy"]
    assert calmed.converges == "yes"
    assert 0 < calmed.slowdown <= 95
    assert by_mode(figures(300 * MIB))["pre-copy"].converges != "yes"


def test_what_is_not_known_is_not_made_up() -> None:
    found = by_mode(figures(None))
    assert found["pre-copy"].converges == "unknown"
    assert (found["pre-copy"].seconds.likely, found["pre-copy"].seconds.high) == (None, None)
    assert found["post-copy"].seconds.high is not None, "whatever the guest writes: at most everything again"
    assert by_mode(figures(0, None))["post-copy"].converges == "unknown"


@pytest.mark.parametrize(("bound", "slower"), [("wire_mib", 5), ("bandwidth_mib", 5)])
def test_a_bound_of_the_policy_makes_it_slower(bound: str, slower: int) -> None:
    free, bounded = by_mode(figures(0))["pre-copy"], by_mode(figures(0, **{bound: slower}))["pre-copy"]
    assert (bounded.seconds.likely or 0) > 2 * (free.seconds.likely or 0)


def test_the_time_that_is_left_decides() -> None:
    late = by_mode(figures(0, finish_within=1))["pre-copy"]
    assert goal(late, "finish") == "no"
    assert goal(by_mode(figures(0, finish_within=86400))["pre-copy"], "finish") == "yes"


@pytest.mark.parametrize(
    ("policy", "mode", "words"),
    [
        ({}, "pre-copy", "allow_post_copy would let it end"),
        ({"allow_post_copy": True}, "hybrid", "only if that stalls"),
        ({"mode": "post-copy"}, "post-copy", "asks for post-copy"),
    ],
)
def test_the_policy_picks_and_the_reason_is_told(policy: dict[str, Any], mode: str, words: str) -> None:
    of = figures(2 * GIB, **policy)
    picked, reason = chosen(of.policy, strategies(of))
    assert picked == mode
    assert words in reason
