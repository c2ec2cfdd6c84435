"""Who gets how much of the bandwidth: max-min fair with weights. Pure.

Every move has a weight, perhaps a cap of its own, and passes through what may be bounded: its source's way out, its
destination's way in, the link between the two. All shares grow together, in proportion to the weights, until something
on a move's way is used up or its cap is reached; that move's share stands, and the others grow on (progressive filling;
Bertsekas and Gallager, Data Networks, 6.5.2). So no capacity is exceeded, none that somebody could use is left, and a
share can only grow at the cost of one that is, by weight, no larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.shares import Capacities, Member

_ENOUGH = 1e-9
"""A share of the whole below which a capacity counts as used up."""


@dataclass(frozen=True)
class Share:
    mib: float
    """MiB a second; 0 is no bound: nothing on its way is bounded."""
    reason: str


def weight(priority: int) -> float:
    """1 (goes first) to 5: each step counts twice the next one."""
    return 2.0 ** (5 - priority)


def allocate(members: Sequence[Member], capacities: Capacities) -> dict[str, Share]:
    """Workflow id of each member -> its share. The order of the members does not matter."""
    rooms = _rooms(members, capacities)
    ways = {member.workflow_id: _way(member, rooms) for member in members}
    shares = {each.workflow_id: 0.0 for each in members}
    reasons: dict[str, str] = {}
    left = dict(rooms)
    growing = [each for each in members if ways[each.workflow_id] or each.cap_mib]
    while growing:
        step, limits = _step(growing, ways, left, shares)
        for each in growing:
            more = step * weight(each.priority)
            shares[each.workflow_id] += more
            for place in ways[each.workflow_id]:
                left[place] -= more
        full = {place for place, room in left.items() if room <= _ENOUGH * rooms[place] or place in limits}
        still = []
        for each in growing:
            key = each.workflow_id
            if each.cap_mib and (key in limits or shares[key] >= each.cap_mib * (1 - _ENOUGH)):
                shares[key], reasons[key] = float(each.cap_mib), "its own bound"
            elif hit := sorted(full & set(ways[key])):
                reasons[key] = f"its part of {hit[0]}"
            else:
                still.append(each)
        growing = still
    return {key: Share(mib, reasons.get(key, "nothing on its way is bounded")) for key, mib in shares.items()}


def _step(
    growing: Sequence[Member], ways: Mapping[str, Sequence[str]], left: Mapping[str, float], shares: Mapping[str, float]
) -> tuple[float, set[str]]:
    """How far all may grow by weight until something stops one of them, and what that is."""
    weights: dict[str, float] = {}
    for each in growing:
        for place in ways[each.workflow_id]:
            weights[place] = weights.get(place, 0.0) + weight(each.priority)
    ends = {place: max(0.0, left[place]) / total for place, total in weights.items()}
    for each in growing:
        if each.cap_mib:
            ends[each.workflow_id] = max(0.0, each.cap_mib - shares[each.workflow_id]) / weight(each.priority)
    step = min(ends.values())
    return step, {name for name, end in ends.items() if end <= step}


def _rooms(members: Sequence[Member], capacities: Capacities) -> dict[str, float]:
    """What is bounded, by its name, in MiB a second."""
    rooms: dict[str, float] = {}
    for each in members:
        out, into = capacities.of(each.source).out_mib, capacities.of(each.to).in_mib
        rooms |= {f"the way out of {each.source}": float(out)} if out else {}
        rooms |= {f"the way into {each.to}": float(into)} if into else {}
    for link in capacities.links:
        rooms[_link(link.a, link.b)] = float(link.mib)
    return rooms


def _way(member: Member, rooms: Mapping[str, float]) -> list[str]:
    way = (f"the way out of {member.source}", f"the way into {member.to}", _link(member.source, member.to))
    return [place for place in way if place in rooms]


def _link(one: str, other: str) -> str:
    return f"the link {' - '.join(sorted((one, other)))}"
