"""Rebalancing: each move makes the hosts more even, it comes to rest, and nothing goes back and forth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.fleet import HostRoom, VmLoad
from workflows.fleet import balance
from workflows.fleet.placement import used

TOTAL = 10_000


def world(sizes: list[list[int]]) -> tuple[dict[str, HostRoom], list[VmLoad]]:
    vms = [
        VmLoad(name=f"vm-{host}-{number}", host=f"h{host}", memory_mib=size)
        for host, all_of in enumerate(sizes)
        for number, size in enumerate(all_of)
    ]
    return rooms_of(vms, len(sizes)), vms


def rooms_of(vms: list[VmLoad], count: int) -> dict[str, HostRoom]:
    taken = {f"h{number}": 0 for number in range(count)}
    for vm in vms:
        taken[vm.host] += vm.memory_mib
    return {name: HostRoom(name=name, total_mib=TOTAL, free_mib=max(0, TOTAL - mib)) for name, mib in taken.items()}


def unevenness(rooms: dict[str, HostRoom]) -> float:
    return sum(used(room) ** 2 for room in rooms.values())


sites = st.lists(st.lists(st.integers(1, 2000), max_size=5), min_size=2, max_size=6)


@given(sizes=sites, settle=st.floats(0, 30), batch=st.integers(1, 5))
def test_it_comes_to_rest_and_every_round_is_more_even_than_the_one_before(
    sizes: list[list[int]], settle: float, batch: int
) -> None:
    rooms, vms = world(sizes)
    for _ in range(200):
        moves = balance.propose(rooms, vms, settle, batch)
        if not moves:
            break
        assert len({move.vm for move in moves}) == len(moves) <= batch
        target = {move.vm: move.to for move in moves}
        before = unevenness(rooms)
        vms = [vm.model_copy(update={"host": target.get(vm.name, vm.host)}) for vm in vms]
        rooms = rooms_of(vms, len(sizes))
        assert unevenness(rooms) < before
    assert not balance.propose(rooms, vms, settle, batch), "it goes on for ever"


@given(sizes=sites, settle=st.floats(0, 30))
def test_no_single_move_is_worth_undoing(sizes: list[list[int]], settle: float) -> None:
    rooms, vms = world(sizes)
    for move in balance.propose(rooms, vms, settle, batch=1):
        there = [vm.model_copy(update={"host": move.to}) if vm.name == move.vm else vm for vm in vms]
        again = balance.propose(rooms_of(there, len(sizes)), there, settle, batch=50)
        assert (move.vm, move.source) not in [(each.vm, each.to) for each in again[:1]]


@given(sizes=sites, batch=st.integers(1, 10))
def test_every_destination_has_room(sizes: list[list[int]], batch: int) -> None:
    rooms, vms = world(sizes)
    left = {name: room.free_mib for name, room in rooms.items()}
    for move in balance.propose(rooms, vms, 0, batch):
        assert move.memory_mib <= left[move.to]
        left[move.to] -= move.memory_mib
        left[move.source] += move.memory_mib
        assert move.why


def test_hosts_that_are_even_enough_are_left_alone() -> None:
    rooms, vms = world([[1000], [900]])
    assert 0.99 < balance.spread(rooms.values()) < 1.01
    assert balance.propose(rooms, vms, 5, 10) == []


def test_a_vm_that_may_not_move_again_or_cannot_move_is_left_alone() -> None:
    rooms, vms = world([[1000, 1000, 1000], []])
    assert balance.propose(rooms, vms, 5, 10, leave=[vm.name for vm in vms]) == []
    asleep = [vm.model_copy(update={"why_not": "it is paused"}) for vm in vms]
    assert balance.propose(rooms, asleep, 5, 10) == []
