"""Which host takes a VM: a pure choice from the hosts' room, with its reason.

The default spreads: of the hosts that have room, are not full with moves and are not avoided, those whose memory would
be least used after the move count as equal within `NEAR`, and among them a hash of VM and host decides. So the answer
is always the same for the same question, and planners that know nothing of each other do not all choose one host.

A better placement replaces `choose` by another function of the same shape (`Placement`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from models.fleet import HostRoom, VmLoad

NEAR = 0.05
"""Share of memory in use by which two hosts may differ and count as equal."""


@dataclass(frozen=True)
class Choice:
    vm: str
    host: str | None
    reason: str
    busy: bool = False
    """There is room, but only on hosts whose slots are taken: ask again when a move has ended."""


Placement = Callable[[VmLoad, Mapping[str, HostRoom], Collection[str], Callable[[str], bool]], Choice]
"""(VM, rooms of fit hosts, hosts to avoid, has this host a free slot) -> choice."""


def choose(
    vm: VmLoad,
    rooms: Mapping[str, HostRoom],
    avoid: Collection[str] = (),
    slot: Callable[[str], bool] = lambda _: True,
) -> Choice:
    """Never the host it runs on, an avoided one, or one without room for its memory. Linear in the number of hosts."""
    fit = [
        room for room in rooms.values()
        if room.free_mib >= vm.memory_mib and room.name != vm.host and room.name not in avoid
    ]  # fmt: skip
    if not fit:
        return Choice(vm.name, None, _why_none(vm, rooms, avoid))
    open_ones = [room for room in fit if slot(room.name)]
    if not open_ones:
        return Choice(vm.name, None, f"{_hosts(len(fit))} have room, and all their slots are taken", busy=True)
    least = min(used(room, vm.memory_mib) for room in open_ones)
    near = [room for room in open_ones if used(room, vm.memory_mib) <= least + NEAR]
    best = min(near, key=lambda room: (_draw(vm.name, room.name), room.name))
    left = best.free_mib - vm.memory_mib
    return Choice(
        vm.name,
        best.name,
        f"{len(fit)} of {_hosts(len(rooms))} have room; {best.name} is among the {len(near)} least used, "
        f"{left} of {best.total_mib} MiB stay free",
    )


def given(vm: VmLoad, to: str, rooms: Mapping[str, HostRoom], slot: Callable[[str], bool]) -> Choice:
    """The destination was named: only whether it can be now. Its memory is for its own admission to judge."""
    if to not in rooms:
        return Choice(vm.name, None, f"{to} takes no VM now")
    if not slot(to):
        return Choice(vm.name, None, f"all slots of {to} are taken", busy=True)
    return Choice(vm.name, to, "named as the destination")


def used(room: HostRoom, more_mib: int = 0) -> float:
    """Share of its memory in use (0 to 1), with so much more on it."""
    return 1 - (room.free_mib - more_mib) / max(1, room.total_mib)


def _draw(vm: str, host: str) -> int:
    """Rendezvous hashing: each VM has an order of hosts of its own."""
    return zlib.crc32(f"{vm}\x00{host}".encode())


def _why_none(vm: VmLoad, rooms: Mapping[str, HostRoom], avoid: Collection[str]) -> str:
    others = [room for room in rooms.values() if room.name != vm.host]
    tried = sorted(room.name for room in others if room.name in avoid)
    most = max((room.free_mib for room in others if room.name not in avoid), default=0)
    parts = [f"no host can take {vm.name}: it needs {vm.memory_mib} MiB"]
    if tried:
        parts.append(f"{', '.join(tried[:5])} refused it or failed")
    parts.append(f"the most room elsewhere is {most} MiB" if len(others) > len(tried) else "there is no other host")
    return "; ".join(parts)


def _hosts(count: int) -> str:
    return f"{count} host" if count == 1 else f"{count} hosts"
