"""Who may begin: no limit is ever exceeded, nobody starves, tenants are served alike, and each reason says what for."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.host import SiteSettings
from models.slots import HostSlots, LinkSlots, SlotLimits, SlotLine, SlotWish
from workflows.sharing import slots
from workflows.sharing.queueing import Slot
from workflows.sharing.slots import PATIENCE, STEP, admit

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOSTS = ("host-a", "host-b", "host-c")
TENANTS = ("", "red", "blue")


def line(
    name: str,
    source: str = "host-a",
    to: str = "host-b",
    *,
    tenant: str = "",
    priority: int = 3,
    waited: timedelta = timedelta(0),
    held: bool = False,
) -> SlotLine:
    wish = SlotWish(
        workflow_id=f"vm/lab/{name}",
        run_id="r",
        source=source,
        to=to,
        tenant=tenant,
        priority=priority,
        since=NOW - waited,
    )
    return SlotLine(wish=wish, held=held)


def begins(lines: list[SlotLine], limits: SlotLimits, turns: dict[str, datetime] | None = None) -> list[str]:
    """VMs that begin now."""
    found = admit(lines, limits, NOW, turns or {})
    return [key.removeprefix("vm/lab/") for key, turn in found.items() if turn.begins]


def why(lines: list[SlotLine], limits: SlotLimits, name: str) -> str:
    return admit(lines, limits, NOW, {})[f"vm/lab/{name}"].why


def test_without_limits_everybody_begins() -> None:
    assert begins([line("one"), line("two")], SlotLimits()) == ["one", "two"]


LIMITS = [
    SlotLimits(site=1),
    SlotLimits(each_host=HostSlots(out=1)),
    SlotLimits(each_host=HostSlots(into=1)),
    SlotLimits(hosts={"host-b": HostSlots(both=1)}),
    SlotLimits(links=(LinkSlots(a="host-b", b="host-a", moves=1),)),
    SlotLimits(each_tenant=1),
    SlotLimits(tenants={"red": 1}),
]


@pytest.mark.parametrize("limits", LIMITS)
def test_each_limit_holds_by_itself(limits: SlotLimits) -> None:
    held = line("held", tenant="red", held=True)
    assert begins([held, line("late", tenant="red")], limits) == []
    assert begins([line("one", tenant="red"), line("two", tenant="red")], limits) == ["one"]


def test_both_ways_of_a_host_and_of_a_link_count_together() -> None:
    back = [line("held", held=True), line("back", "host-b", "host-a")]
    assert begins(back, SlotLimits(each_host=HostSlots(both=1))) == []
    assert begins(back, SlotLimits(links=(LinkSlots(a="host-a", b="host-b", moves=1),))) == []
    assert begins(back, SlotLimits(each_host=HostSlots(out=1, into=1))) == ["back"]


def test_a_named_host_or_tenant_has_its_own_limit_only() -> None:
    limits = SlotLimits(
        each_host=HostSlots(into=1), hosts={"host-b": HostSlots(into=2)}, each_tenant=1, tenants={"red": 0}
    )
    three = [line(name, tenant="red") for name in ("one", "two", "three")]
    assert begins(three, limits) == ["one", "three"], "both asked at the same time: by name"


def test_moves_counted_above_a_limit_let_nobody_in_until_they_are_below_it() -> None:
    held = [line(f"held-{number}", held=True) for number in range(3)]
    assert begins([*held, line("late")], SlotLimits(site=2)) == []
    assert "3 of 2 moves of the site" in why([*held, line("late")], SlotLimits(site=2), "late")


def test_the_higher_priority_goes_first_then_who_asked_earlier() -> None:
    lines = [
        line("early", waited=timedelta(seconds=9)),
        line("first", priority=1),
        line("earlier", waited=timedelta(seconds=10)),
    ]
    assert begins(lines, SlotLimits(site=1)) == ["first"]
    assert begins(lines, SlotLimits(site=2)) == ["first", "earlier"]


def test_a_reason_says_what_is_full_and_who_is_before() -> None:
    limits = SlotLimits(each_host=HostSlots(into=1))
    lines = [line("held", held=True), line("one", priority=1), line("two", priority=2), line("three")]
    assert why(lines, limits, "one") == "1 of 1 moves into host-b; it is the next"
    assert why(lines, limits, "three") == "1 of 1 moves into host-b; 2 before it, the first is one"
    assert why([line("free")], limits, "free") == "1 of 1 moves into host-b"


def test_a_tenant_with_few_moves_goes_before_one_with_many() -> None:
    lines = [
        *(line(f"red-{number}", tenant="red", held=True) for number in range(3)),
        line("red-old", tenant="red", waited=timedelta(minutes=1)),
        line("blue", tenant="blue"),
    ]
    assert begins(lines, SlotLimits(site=4)) == ["blue"]


def test_tenants_take_turns_though_one_asked_for_a_thousand_moves_an_hour_ago() -> None:
    waiting = [line(f"red-{number}", tenant="red", waited=timedelta(hours=1)) for number in range(1000)]
    waiting += [line(f"blue-{number}", tenant="blue") for number in range(3)]
    order, turns, now = [], {"red": NOW}, NOW
    for _ in range(6):
        now += timedelta(minutes=1)
        (key,) = [key for key, turn in admit(waiting, SlotLimits(site=1), now, turns).items() if turn.begins]
        waiting = [each for each in waiting if each.wish.workflow_id != key]
        tenant = key.removeprefix("vm/lab/").partition("-")[0]
        turns[tenant] = now
        order.append(tenant)
    assert order == ["blue", "red", "blue", "red", "blue", "red"]


def test_who_has_waited_long_enough_goes_before_a_higher_priority() -> None:
    old = line("old", priority=5, waited=4 * STEP)
    assert begins([old, line("new", priority=1)], SlotLimits(site=1)) == ["old"]
    young = line("young", priority=5, waited=4 * STEP - timedelta(seconds=1))
    assert begins([young, line("new", priority=1)], SlotLimits(site=1)) == ["new"]


def test_a_move_that_needs_two_busy_hosts_has_the_next_slot_of_both_kept_for_it_in_the_end() -> None:
    limits = SlotLimits(each_host=HostSlots(out=1, into=1))
    busy = line("into-b", "host-c", "host-b", held=True)
    other = line("other", "host-a", "host-c")
    young, old = line("both", priority=2), line("both", priority=2, waited=PATIENCE)
    assert begins([busy, young, other], limits) == ["other"], "host-a is free, and nobody has waited long"
    assert begins([busy, old, other], limits) == []
    assert "0 of 1 moves out of host-a, the next slot is kept for both" in why([busy, old, other], limits, "other")
    assert begins([old, other], limits) == ["both"]


def test_the_bound_of_its_own_tenant_keeps_no_host_from_other_tenants() -> None:
    limits = SlotLimits(each_host=HostSlots(into=1), tenants={"red": 1})
    lines = [
        line("red", "host-a", "host-c", tenant="red", held=True),
        line("red-waits", tenant="red", waited=PATIENCE * 2),
        line("blue", tenant="blue"),
    ]
    assert begins(lines, limits) == ["blue"]


hosts = st.sampled_from(HOSTS)
bounds = st.integers(0, 3)
some_limits = st.builds(
    SlotLimits,
    site=bounds,
    each_host=st.builds(HostSlots, out=bounds, into=bounds, both=bounds),
    links=st.lists(st.builds(LinkSlots, a=hosts, b=hosts, moves=st.integers(1, 3)), max_size=2).map(tuple),
    each_tenant=bounds,
)
arrivals = st.tuples(hosts, hosts, st.sampled_from(TENANTS), st.integers(1, 5)).filter(lambda each: each[0] != each[1])


def over(lines: list[SlotLine], limits: SlotLimits) -> list[str]:
    """Limits that are exceeded, counted anew and plainly."""
    held = [each.wish for each in lines if each.held]
    counts: list[tuple[str, int, int]] = [("site", len(held), limits.site)]
    for host in HOSTS:
        out, into = sum(each.source == host for each in held), sum(each.to == host for each in held)
        of = limits.of(host)
        counts += [(f"out {host}", out, of.out), (f"into {host}", into, of.into), (host, out + into, of.both)]
    for link in limits.links:
        count = sum({each.source, each.to} == {link.a, link.b} for each in held)
        counts.append((f"{link.a} - {link.b}", count, link.moves))
    tenants = Counter(each.tenant for each in held)
    counts += [(f"tenant {tenant}", count, limits.each_tenant) for tenant, count in tenants.items()]
    return [name for name, count, limit in counts if limit and count > limit]


@settings(max_examples=150, deadline=None)
@given(some_limits, st.lists(st.one_of(arrivals, st.integers(0, 50)), max_size=40))
def test_no_limit_is_exceeded_however_moves_come_and_end_and_all_have_their_turn(
    limits: SlotLimits, story: list[tuple[str, str, str, int] | int]
) -> None:
    """Each entry of the story is a move that asks, or the end of one that runs. Then no more ask."""
    lines: dict[str, SlotLine] = {}
    turns: dict[str, datetime] = {}
    now = NOW

    def round_() -> None:
        found = admit(list(lines.values()), limits, now, turns)
        assert found.keys() == {key for key, each in lines.items() if not each.held}
        for key, turn in found.items():
            if turn.begins:
                lines[key] = lines[key].model_copy(update={"held": True})
                turns[lines[key].wish.tenant] = now
        assert over(list(lines.values()), limits) == []

    for number, entry in enumerate([*story, *([0] * len(story))]):
        now += timedelta(minutes=4)
        running = [key for key, each in lines.items() if each.held]
        if isinstance(entry, tuple):
            source, to, tenant, priority = entry
            asks = line(f"vm-{number}", source, to, tenant=tenant, priority=priority, waited=NOW - now)
            lines[asks.wish.workflow_id] = asks
        elif running:
            del lines[running[entry % len(running)]]
        round_()
    while lines:
        now += timedelta(minutes=1)
        running = [key for key, each in lines.items() if each.held]
        assert running, "somebody waits, and nobody moves: nothing would ever change"
        del lines[running[0]]
        round_()


@settings(max_examples=60, deadline=None)
@given(
    some_limits.filter(lambda limits: bool(limits.site or limits.each_host.into)),
    st.tuples(hosts, hosts, st.sampled_from(TENANTS), st.just(5)).filter(lambda each: each[0] != each[1]),
    st.lists(arrivals, min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_nobody_starves_though_others_of_a_higher_priority_keep_coming(
    limits: SlotLimits, patient: tuple[str, str, str, int], others: list[tuple[str, str, str, int]], random: object
) -> None:
    """A stream that never ends: each move that ends is followed by two more. The patient one begins all the same."""
    assert hasattr(random, "choice")
    source, to, tenant, priority = patient
    waits = line("patient", source, to, tenant=tenant, priority=priority)
    lines = {waits.wish.workflow_id: waits}
    turns: dict[str, datetime] = {}
    now, count = NOW, 0
    for _ in range(400):
        now += timedelta(minutes=2)
        running = [key for key, each in lines.items() if each.held]
        if running:
            del lines[random.choice(running)]
        for source, to, tenant, priority in others[count % len(others) :][:2]:
            count += 1
            asks = line(f"other-{count}", source, to, tenant=tenant, priority=priority, waited=NOW - now)
            lines[asks.wish.workflow_id] = asks
        found = admit(list(lines.values()), limits, now, turns)
        for key, turn in found.items():
            if turn.begins:
                lines[key] = lines[key].model_copy(update={"held": True})
                turns[lines[key].wish.tenant] = now
        if lines[waits.wish.workflow_id].held:
            return
    raise AssertionError("it never began")


def test_two_thousand_moves_are_decided_on_well_within_the_time_a_workflow_has() -> None:
    limits = SlotLimits(site=100, each_host=HostSlots(out=2, into=2), each_tenant=20)
    many = [
        line(f"vm-{number}", HOSTS[number % 3], HOSTS[(number + 1) % 3], tenant=f"t{number % 40}")
        for number in range(2000)
    ]
    assert len(begins(many, limits)) == 6


def test_a_limit_on_a_host_that_the_site_does_not_have_is_an_error_that_names_it() -> None:
    for strange in ({"hosts": {"host-x": {"into": 1}}}, {"links": [{"a": "host-a", "b": "host-x", "moves": 1}]}):
        with pytest.raises(ValidationError, match="slots: 'host-x' is not a host of the site"):
            SiteSettings.model_validate({"site": "lab", "hosts": ["host-a", "host-b"], "slots": strange})


async def test_a_move_tells_a_keeper_that_counts_only_of_what_it_holds_or_waits_for() -> None:
    slot, wish = Slot(), line("one").wish
    assert slot.wish() is None
    slot.moves_anyway(wish)
    assert slot.wish() == wish.model_copy(update={"held": True})
    await slot.give_back()
    assert slot.wish() is None, "it waits for a window, say: a slot kept for it would stand idle"
    assert slot.since == wish.since, "when it asks again it has not lost its age"


def test_a_link_that_is_named_twice_has_the_smaller_bound() -> None:
    twice = (LinkSlots(a="host-a", b="host-b", moves=3), LinkSlots(a="host-b", b="host-a", moves=2))
    assert slots.links_of(SlotLimits(links=twice)) == {frozenset(("host-a", "host-b")): 2}
