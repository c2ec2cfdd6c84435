"""Where a VM goes: never where it has no room, always the same, and spread out."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from models.fleet import HostRoom, VmLoad
from workflows.fleet import placement


def room(name: str, free: int, total: int = 4096) -> HostRoom:
    return HostRoom(name=name, total_mib=total, free_mib=free)


rooms = st.dictionaries(
    st.sampled_from([f"h{number}" for number in range(12)]), st.integers(0, 4096), min_size=0, max_size=12
).map(lambda free: {name: room(name, mib) for name, mib in free.items()})
loads = st.builds(VmLoad, name=st.sampled_from(["a", "b", "c"]), host=st.just("h0"), memory_mib=st.integers(0, 5000))


@given(vm=loads, rooms=rooms, avoid=st.frozensets(st.sampled_from(["h1", "h2", "h3"])))
def test_a_choice_has_room_is_not_avoided_and_is_not_where_the_vm_runs(
    vm: VmLoad, rooms: dict[str, HostRoom], avoid: frozenset[str]
) -> None:
    choice = placement.choose(vm, rooms, avoid)
    assert choice.reason
    fit = [each.name for each in rooms.values() if each.free_mib >= vm.memory_mib and each.name not in {*avoid, "h0"}]
    assert (choice.host in fit) if fit else (choice.host is None and not choice.busy)


@given(vm=loads, rooms=rooms)
def test_the_same_question_has_the_same_answer_in_whatever_order_the_hosts_come(
    vm: VmLoad, rooms: dict[str, HostRoom]
) -> None:
    turned = dict(reversed(rooms.items()))
    assert placement.choose(vm, rooms).host == placement.choose(vm, turned).host


@given(vm=loads, rooms=rooms)
def test_nothing_is_chosen_that_is_clearly_fuller_than_another_host_would_be(
    vm: VmLoad, rooms: dict[str, HostRoom]
) -> None:
    choice = placement.choose(vm, rooms)
    if choice.host is not None:
        fit = [each for each in rooms.values() if each.free_mib >= vm.memory_mib and each.name != "h0"]
        least = min(placement.used(each, vm.memory_mib) for each in fit)
        assert placement.used(rooms[choice.host], vm.memory_mib) <= least + placement.NEAR + 1e-9


def test_planners_that_know_nothing_of_each_other_do_not_all_choose_one_host() -> None:
    same = {f"h{number}": room(f"h{number}", 2048) for number in range(10)}
    chosen = Counter(
        placement.choose(VmLoad(name=f"vm-{number}", host="x", memory_mib=64), same).host for number in range(400)
    )
    assert len(chosen) == 10
    assert max(chosen.values()) < 80


def test_room_behind_taken_slots_is_worth_waiting_for() -> None:
    choice = placement.choose(VmLoad(name="a", host="x", memory_mib=64), {"h1": room("h1", 512)}, (), lambda _: False)
    assert (choice.host, choice.busy) == (None, True)


def test_the_reason_names_who_refused_and_how_much_room_there_is() -> None:
    vm = VmLoad(name="a", host="x", memory_mib=1024)
    choice = placement.choose(vm, {"h1": room("h1", 2048), "h2": room("h2", 100)}, {"h1"})
    assert choice.reason == (
        "no host can take a: it needs 1024 MiB; h1 refused it or failed; the most room elsewhere is 100 MiB"
    )
