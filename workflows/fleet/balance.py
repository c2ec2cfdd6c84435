"""Which VMs to move so that the hosts' memory is used evenly: pure, and never back and forth.

A VM moves from a fuller host to the emptiest one only when the first is not less full than the second afterwards. So
each move makes the whole more even, none can be worth undoing, and repeated rounds come to rest. Hysteresis on top:
nothing starts below `threshold`, and what has started goes on down to `settle`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from models.fleet import HostRoom, PlannedMove, VmLoad
from workflows.fleet.placement import used


def spread(rooms: Iterable[HostRoom]) -> float:
    """Percentage points of memory in use between the fullest and the emptiest host."""
    shares = [used(room) for room in rooms]
    return 100 * (max(shares) - min(shares)) if shares else 0.0


def fullest(rooms: Iterable[HostRoom], most: int) -> list[str]:
    """Names of the hosts to take VMs from first."""
    return [room.name for room in sorted(rooms, key=lambda room: (-used(room), room.name))[:most]]


def propose(
    rooms: Mapping[str, HostRoom],
    vms: Iterable[VmLoad],
    until: float,
    batch: int,
    leave: Collection[str] = (),
) -> list[PlannedMove]:
    """At most `batch` moves, each VM once, until the spread is at most `until` percentage points. `leave`: VMs that are
    not to be moved (again)."""
    left = dict(rooms)
    on: dict[str, list[VmLoad]] = {name: [] for name in rooms}
    for vm in sorted(vms, key=lambda vm: (-vm.memory_mib, vm.name)):
        if vm.host in on and vm.name not in leave and not vm.why_not and vm.memory_mib > 0:
            on[vm.host].append(vm)
    moves: list[PlannedMove] = []
    while len(moves) < batch and spread(left.values()) > until:
        move = _best(left, on)
        if move is None:
            break
        moves.append(move)
        on[move.source] = [vm for vm in on[move.source] if vm.name != move.vm]
        for name, change in ((move.source, move.memory_mib), (move.to, -move.memory_mib)):
            left[name] = left[name].model_copy(update={"free_mib": left[name].free_mib + change})
    return moves


def _best(rooms: Mapping[str, HostRoom], on: Mapping[str, list[VmLoad]]) -> PlannedMove | None:
    """The largest VM of the fullest host that makes the two more even; of the next fullest when it has none."""
    order = fullest(rooms.values(), len(rooms))
    to = rooms[order[-1]]
    for source in (rooms[name] for name in order[:-1]):
        for vm in on[source.name]:
            after_here, after_there = used(source, -vm.memory_mib), used(to, vm.memory_mib)
            if vm.memory_mib <= to.free_mib and after_there <= after_here:
                why = (
                    f"{source.name} is {100 * used(source):.0f} % full and {to.name} {100 * used(to):.0f} %; "
                    f"afterwards {100 * after_here:.0f} % and {100 * after_there:.0f} %"
                )
                return PlannedMove(vm=vm.name, source=source.name, to=to.name, memory_mib=vm.memory_mib, why=why)
    return None
