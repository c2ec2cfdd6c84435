"""Sharing bandwidth: never above a capacity, nothing usable left over, fair by weight, the same in any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.shares import Capacities, HostCapacity, LinkCapacity, Member
from workflows.sharing.shares import allocate, weight

HOSTS = ["h0", "h1", "h2", "h3"]
NEAR = 1e-6


def member(number: int, source: str, to: str, priority: int = 3, cap: int = 0) -> Member:
    return Member(
        workflow_id=f"vm/s/{number}", migration_id=f"m{number}", source=source, to=to, priority=priority, cap_mib=cap
    )


pairs = st.tuples(st.sampled_from(HOSTS), st.sampled_from(HOSTS)).filter(lambda pair: pair[0] != pair[1])
many = st.lists(st.tuples(pairs, st.integers(1, 5), st.sampled_from([0, 0, 1, 10, 100])), max_size=15).map(
    lambda each: [member(n, source, to, priority, cap) for n, ((source, to), priority, cap) in enumerate(each)]
)
bound = st.sampled_from([0, 1, 7, 100, 1000])
links = pairs.flatmap(
    lambda pair: st.builds(LinkCapacity, a=st.just(pair[0]), b=st.just(pair[1]), mib=st.integers(1, 50))
)
capacities = st.builds(
    Capacities,
    each_host=st.builds(HostCapacity, out_mib=bound, in_mib=bound),
    hosts=st.dictionaries(st.sampled_from(HOSTS), st.builds(HostCapacity, out_mib=bound, in_mib=bound), max_size=2),
    links=st.lists(links, max_size=2, unique_by=lambda link: frozenset((link.a, link.b))).map(tuple),
)


def places(members: list[Member], of: Capacities) -> list[tuple[float, list[Member]]]:
    """(capacity, the moves that pass there) of everything that is bounded."""
    found = []
    for host in HOSTS:
        found.append((of.of(host).out_mib, [each for each in members if each.source == host]))
        found.append((of.of(host).in_mib, [each for each in members if each.to == host]))
    for link in of.links:
        found.append((link.mib, [each for each in members if {each.source, each.to} == {link.a, link.b}]))
    return [(float(mib), passing) for mib, passing in found if mib and passing]


@given(members=many, of=capacities)
def test_no_capacity_and_no_cap_is_exceeded(members: list[Member], of: Capacities) -> None:
    shares = allocate(members, of)
    for mib, passing in places(members, of):
        assert sum(shares[each.workflow_id].mib for each in passing) <= mib * (1 + NEAR)
    for each in members:
        if each.cap_mib:
            assert shares[each.workflow_id].mib <= each.cap_mib * (1 + NEAR)


@given(members=many, of=capacities)
def test_a_share_is_held_back_only_by_something_full_where_none_has_more_by_weight(
    members: list[Member], of: Capacities
) -> None:
    """Which is what max-min fair means, and that nothing anybody could use is left over."""
    shares = {key: share.mib for key, share in allocate(members, of).items()}
    bounded = places(members, of)
    for each in members:
        mine = shares[each.workflow_id] / weight(each.priority)
        here = [(mib, passing) for mib, passing in bounded if each in passing]
        if each.cap_mib and shares[each.workflow_id] >= each.cap_mib * (1 - NEAR):
            continue
        if not here:
            assert shares[each.workflow_id] == each.cap_mib
            continue
        assert any(
            sum(shares[other.workflow_id] for other in passing) >= mib * (1 - NEAR)
            and all(shares[other.workflow_id] / weight(other.priority) <= mine * (1 + NEAR) for other in passing)
            for mib, passing in here
        ), (each, shares)


@given(members=many, of=capacities, seed=st.randoms())
def test_the_order_of_the_moves_does_not_matter(members: list[Member], of: Capacities, seed: object) -> None:
    mixed = list(members)
    seed.shuffle(mixed)  # type: ignore[attr-defined]
    one, other = allocate(members, of), allocate(mixed, of)
    assert {key: share.mib for key, share in one.items()} == pytest.approx(
        {key: share.mib for key, share in other.items()}
    )


@given(members=many, of=capacities)
def test_every_move_that_is_bounded_gets_something_and_is_told_why(members: list[Member], of: Capacities) -> None:
    for each in members:
        share = allocate(members, of)[each.workflow_id]
        assert share.reason
        passes = any(each in passing for _, passing in places(members, of))
        assert (share.mib > 0) == (passes or each.cap_mib > 0)


def test_an_evacuation_goes_before_rebalancing() -> None:
    of = Capacities(each_host=HostCapacity(out_mib=170))
    shares = allocate([member(1, "h0", "h1", priority=1), member(2, "h0", "h2", priority=5)], of)
    assert [share.mib for share in shares.values()] == pytest.approx([160, 10])


def test_what_one_cannot_use_the_others_get() -> None:
    of = Capacities(each_host=HostCapacity(out_mib=100), links=(LinkCapacity(a="h0", b="h1", mib=10),))
    shares = allocate([member(1, "h0", "h1"), member(2, "h0", "h2")], of)
    assert [share.mib for share in shares.values()] == pytest.approx([10, 90])
    assert shares["vm/s/1"].reason == "its part of the link h0 - h1"
