"""Who may begin to move, and for everybody else: what they wait for, and behind whom. Pure.

A move takes a slot of everything on its way at once, or none: of the site, out of its source, into its destination, of
both hosts, of the link, of its tenant. So nobody holds one slot while waiting for another, and no circle of waiting
moves can come about. Who is looked at first:

| among | goes first, each line where the one before is equal |
| --- | --- |
| moves of one tenant | the higher priority |
| | who asked earlier |
| the first moves of all tenants | the higher priority |
| | the tenant with fewer moves under way |
| | the tenant whose last move began longer ago |
| | who asked earlier |

Time mends what strict priority would starve: each `STEP` that a move has waited counts as one priority more among those
of its tenant; each `STEP` that a tenant has waited without any of its moves beginning, among tenants. So a tenant that
is served does not get ahead of others because its thousandth move is old.

Who does not fit lets others pass, at first. From `PATIENCE` on the first that waits for a place keeps all of its places
free of moves behind it: else one that needs two busy hosts could wait forever for both at once. The bound of its own
tenant is no such place, since what it kept free meanwhile would stand idle for other tenants.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from models.slots import SlotLimits, SlotLine, SlotWish

STEP = timedelta(minutes=10)
PATIENCE = timedelta(minutes=5)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Place:
    """Something on a move's way that is bounded."""

    name: str
    """As in: 4 of 4 NAME."""
    limit: int
    own: bool = False
    """The bound of the move's tenant."""


@dataclass(frozen=True)
class Turn:
    """What becomes of a move that waits."""

    begins: bool
    why: str
    """What it takes, or waits for."""
    before: int = 0
    """Moves before it that wait for the same."""


def admit(
    lines: Sequence[SlotLine], limits: SlotLimits, now: datetime, turns: Mapping[str, datetime]
) -> dict[str, Turn]:
    """Workflow id of each move that waits -> whether it begins now. `turns`: tenant -> when its last move began."""
    return _Round(lines, limits, now, turns).play()


def places(wish: SlotWish, limits: SlotLimits, links: Mapping[frozenset[str], int]) -> list[Place]:
    """All that is bounded on a move's way, the site first."""
    source, to, tenant = limits.of(wish.source), limits.of(wish.to), wish.tenant
    way = [
        Place("moves of the site", limits.site),
        Place(f"moves out of {wish.source}", source.out),
        Place(f"moves into {wish.to}", to.into),
        Place(f"moves on {wish.source}", source.both),
        Place(f"moves on {wish.to}", to.both),
        Place(
            f"moves on the link {' - '.join(sorted((wish.source, wish.to)))}",
            links.get(frozenset((wish.source, wish.to)), 0),
        ),
        Place(
            f"moves of tenant {tenant}" if tenant else "moves without a tenant",
            limits.tenants.get(tenant, limits.each_tenant),
            own=True,
        ),
    ]
    return [place for place in way if place.limit]


def links_of(limits: SlotLimits) -> dict[frozenset[str], int]:
    """Both hosts of a link -> its bound; of one that is named twice, the smaller."""
    found: dict[frozenset[str], int] = {}
    for link in limits.links:
        ends = frozenset((link.a, link.b))
        found[ends] = min(link.moves, found.get(ends, link.moves))
    return found


@dataclass(frozen=True)
class Use:
    """How far a bound is used."""

    place: Place
    used: int
    waiting: int


def usage(lines: Sequence[SlotLine], limits: SlotLimits) -> list[Use]:
    """Of all that is bounded on anybody's way, the fullest first."""
    links, found = links_of(limits), dict[str, Use]()
    for line in lines:
        for place in places(line.wish, limits, links):
            use = found.get(place.name, Use(place, 0, 0))
            found[place.name] = Use(place, use.used + line.held, use.waiting + (not line.held))
    return sorted(found.values(), key=lambda use: (-use.used / use.place.limit, use.place.name))


class _Round:
    """One look at everybody, in order. What begins is counted at once."""

    def __init__(
        self, lines: Sequence[SlotLine], limits: SlotLimits, now: datetime, turns: Mapping[str, datetime]
    ) -> None:
        links = links_of(limits)
        self._now = now
        self._turns = dict(turns)
        self._ways = {line.wish.workflow_id: places(line.wish, limits, links) for line in lines}
        held = [line.wish for line in lines if line.held]
        self._used = Counter(place.name for wish in held for place in self._ways[wish.workflow_id])
        self._under_way = Counter(wish.tenant for wish in held)
        self._kept: dict[str, str] = {}
        """Place -> the move for which its next slot is kept."""
        self._waiting: dict[str, list[str]] = {}
        """Place -> moves that wait for it, in order."""
        self._queues: dict[str, list[SlotWish]] = {}
        for wish in sorted((line.wish for line in lines if not line.held), key=self._within):
            self._queues.setdefault(wish.tenant, []).append(wish)

    def play(self) -> dict[str, Turn]:
        found: dict[str, Turn] = {}
        heads = [(*self._among(queue[0]), tenant, 0) for tenant, queue in self._queues.items()]
        heapq.heapify(heads)
        while heads:
            *_, tenant, at = heapq.heappop(heads)
            queue = self._queues[tenant]
            found[queue[at].workflow_id] = self._turn(queue[at])
            if at + 1 < len(queue):  # where its tenant stands may have changed, and no other's
                heapq.heappush(heads, (*self._among(queue[at + 1]), tenant, at + 1))
        return found

    def _turn(self, wish: SlotWish) -> Turn:
        way, key = self._ways[wish.workflow_id], wish.workflow_id
        full = [place for place in way if self._used[place.name] >= place.limit]
        kept = [place for place in way if self._used[place.name] == place.limit - 1 and place.name in self._kept]
        if not full and not kept:
            self._used.update(place.name for place in way)
            self._under_way[wish.tenant] += 1
            self._turns[wish.tenant] = self._now
            return Turn(True, ", ".join(f"{self._used[place.name]} of {place.limit} {place.name}" for place in way))
        first = (full or kept)[0]
        before = self._waiting.get(first.name, [])
        turn = Turn(False, self._why(first, before, kept=not full), len(before))
        patient = self._now - wish.since >= PATIENCE
        if patient and not any(place.own for place in full) and not any(place.name in self._kept for place in way):
            self._kept.update({place.name: key for place in way})
        for place in way:
            self._waiting.setdefault(place.name, []).append(key)
        return turn

    def _why(self, place: Place, before: Sequence[str], kept: bool) -> str:
        why = f"{self._used[place.name]} of {place.limit} {place.name}"
        if kept:
            why += f", the next slot is kept for {_vm(self._kept[place.name])}"
        return why + (f"; {len(before)} before it, the first is {_vm(before[0])}" if before else "; it is the next")

    def _within(self, wish: SlotWish) -> tuple[int, datetime, str]:
        """Among moves of one tenant."""
        return wish.priority - self._steps(wish.since), wish.since, wish.workflow_id

    def _among(self, wish: SlotWish) -> tuple[int, int, datetime, datetime, str]:
        """Among the first moves of all tenants."""
        served = self._turns.get(wish.tenant, _NEVER)
        level = wish.priority - self._steps(max(wish.since, served))
        return level, self._under_way[wish.tenant], served, wish.since, wish.workflow_id

    def _steps(self, since: datetime) -> int:
        return max(0, (self._now - since) // STEP)


def _vm(workflow_id: str) -> str:
    return workflow_id.rpartition("/")[2]
