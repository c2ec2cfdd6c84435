"""Clocks of two hosts: what a slow answer leaves open is not held against them, what is certain is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.host import HostStanding
from workflows.plan.clocks import APART, Ahead, ahead, compare


def host(name: str, ahead_by: float | None, waited: float = 0.1) -> Ahead | None:
    return ahead(HostStanding(host=name, clock_ahead=ahead_by), waited)


def test_clocks_that_differ_for_certain_are_a_warning_that_names_the_fast_one() -> None:
    for one, other in ((host("a", 8.0), host("b", 0.2)), (host("b", 0.2), host("a", 8.0))):
        (finding,) = compare(one, other)
        assert (finding.id, finding.severity) == ("clock-skew", "warning")
        assert finding.what == "the clock of a is ahead of that of b by at least 7.7 s"


def test_a_host_that_was_slow_to_answer_is_not_taken_for_one_whose_clock_is_ahead() -> None:
    assert compare(host("a", 9.8, waited=10.0), host("b", 0.1)) == ()


@pytest.mark.parametrize("other", [None, HostStanding(host="b")])
def test_where_nobody_compared_nothing_is_said(other: HostStanding | None) -> None:
    assert compare(host("a", 100.0), ahead(other, 0.1)) == ()


delay = st.floats(0, 60)


@given(skew=st.floats(-100, 100), there=st.floats(-100, 100), delays=st.tuples(delay, delay, delay, delay))
def test_a_warning_is_never_wrong_however_slow_the_machine_is(
    skew: float, there: float, delays: tuple[float, float, float, float]
) -> None:
    """The delays: from the question to the comparison, and from there to the answer, on each host."""
    one = host("a", skew + delays[0], delays[0] + delays[1])
    other = host("b", there + delays[2], delays[2] + delays[3])
    if compare(one, other):
        assert abs(skew - there) > APART - 1e-6
    elif abs(skew - there) > APART + sum(delays) + 1e-6:
        raise AssertionError("it was certain, and was not seen")
