"""The window of many moves: its bounds hold at every moment, everything ends, and one failure holds up no other."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from models.fleet import HostRoom, Slots, VmLoad
from workflows.fleet.window import Task, Window

HOSTS = ["h0", "h1", "h2", "h3"]


def site(free: int = 1 << 20) -> dict[str, HostRoom]:
    return {name: HostRoom(name=name, total_mib=1 << 21, free_mib=free) for name in HOSTS}


def load(number: int, host: str, tenant: str | None = None) -> VmLoad:
    return VmLoad(name=f"vm-{number:03}", host=host, memory_mib=100, tenant=tenant)


slots = st.builds(
    Slots,
    total=st.integers(1, 10),
    out=st.integers(1, 4),
    into=st.integers(1, 4),
    link=st.integers(1, 4),
    tenant=st.integers(0, 3),
)


@given(
    slots=slots,
    hosts=st.lists(st.sampled_from(HOSTS), min_size=1, max_size=40),
    ends=st.lists(st.sampled_from(["ok", "fail", "busy", "gone"]), max_size=60),
)
def test_bounds_hold_at_every_moment_and_every_vm_ends_once(slots: Slots, hosts: list[str], ends: list[str]) -> None:
    window = Window(slots, site(), attempts=3)
    window.add(Task(load(number, host, f"t{number % 2}")) for number, host in enumerate(hosts))
    gone, fates = set(), iter(ends)
    while window.waiting or window.running:
        while window.next() is not None:
            check(window)
        assert window.running, "something that waits and may start does"
        vm = next(iter(window.running))
        match next(fates, "ok"):
            case "ok":
                window.succeeded(vm)
            case "fail":
                window.failed_with(vm, "MigrationFailed", "it broke")
            case "busy":
                window.put_back(vm)
            case "gone":
                gone.add(vm)
                window.gone(vm)
    done = [*(each.vm for each in window.moved), *(each.vm for each in window.failed), *gone]
    assert sorted(done) == [f"vm-{number:03}" for number in range(len(hosts))]


def check(window: Window) -> None:
    starts = list(window.running.values())
    bounds = window.slots
    assert len(starts) <= bounds.total
    assert max(Counter(start.task.load.host for start in starts).values()) <= bounds.out
    assert max(Counter(start.to for start in starts).values()) <= bounds.into
    assert max(Counter(frozenset((start.task.load.host, start.to)) for start in starts).values()) <= bounds.link
    if bounds.tenant:
        assert max(Counter(start.task.load.tenant for start in starts).values()) <= bounds.tenant
    assert all(start.to != start.task.load.host for start in starts)


@given(count=st.integers(1, 30), room=st.integers(0, 1500))
def test_what_is_on_its_way_takes_room_at_its_destination(count: int, room: int) -> None:
    window = Window(Slots(total=200, out=64, into=64, link=64), site(room))
    window.add(Task(load(number, "h0")) for number in range(count))
    while window.next() is not None:
        pass
    into = Counter(start.to for start in window.running.values())
    assert all(taken * 100 <= room for taken in into.values())
    assert len(window.running) == min(count, 3 * (room // 100))


def test_a_failure_leads_to_another_host_until_the_attempts_are_used_up() -> None:
    window = Window(Slots(), site(), attempts=2)
    window.add([Task(load(1, "h0"))])
    first = window.next()
    assert first is not None
    assert window.failed_with("vm-001", "Refused", "no room")
    second = window.next()
    assert second is not None
    assert second.to != first.to
    assert not window.failed_with("vm-001", "Refused", "no room either")
    assert [(each.vm, each.why) for each in window.failed] == [("vm-001", "no room either")]


def test_what_nobody_can_judge_and_what_people_stopped_is_not_tried_again() -> None:
    for kind in ("Ambiguous", "Cancelled"):
        window = Window(Slots(), site())
        window.add([Task(load(1, "h0"))])
        assert window.next() is not None
        assert not window.failed_with("vm-001", kind, "why")


def test_a_run_takes_over_what_the_one_before_left() -> None:
    window = Window(Slots(out=1), site())
    window.add(Task(load(number, "h0")) for number in range(3))
    started = window.next()
    assert started is not None
    heir = Window(Slots(out=1), site())
    under_way = heir.resume(window.pending())
    assert [(start.task.vm, start.to) for start in under_way] == [(started.task.vm, started.to)]
    assert heir.next() is None
    assert sorted([*heir.waiting, *heir.running]) == ["vm-000", "vm-001", "vm-002"]
