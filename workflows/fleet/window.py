"""The sliding window of many moves, without any I/O: who waits, who moves, what may start next, who is tried again.

Every bound of `Slots` holds at each moment. One VM that fails is tried on another host until its attempts are used up,
and never keeps another from starting. Rooms are kept as a ledger: what has left frees room, what is on
its way takes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from models import failures
from models.fleet import FailedVm, HostRoom, MovedVm, Pending, Slots, VmLoad
from workflows.fleet import placement
from workflows.fleet.placement import Choice, Placement

_LOOKS = 16
"""VMs in a row that find no free slot before the search for the next start is given up: others would find none too."""
_NO_RETRY = (failures.AMBIGUOUS, failures.INVALID_INPUT, failures.CANCELLED)
"""Failures no other destination can mend. A cancelled move was stopped by a person: it is not started again."""


@dataclass(frozen=True)
class Task:
    load: VmLoad
    to: str | None = None
    """Destination that was asked for; None: any."""
    failures: int = 0
    avoid: frozenset[str] = frozenset()
    why: str = ""
    """Of the last failure."""

    @property
    def vm(self) -> str:
        return self.load.name


@dataclass(frozen=True)
class Start:
    task: Task
    to: str
    why: str


@dataclass
class Window:
    slots: Slots
    rooms: dict[str, HostRoom]
    """Of hosts that may take VMs."""
    attempts: int = 3
    place: Placement = placement.choose
    waiting: dict[str, Task] = field(default_factory=dict)
    running: dict[str, Start] = field(default_factory=dict)
    resting: set[str] = field(default_factory=set)
    """Of those that wait: not to be started just now."""
    moved: list[MovedVm] = field(default_factory=list)
    failed: list[FailedVm] = field(default_factory=list)
    moved_mib: int = 0

    def add(self, tasks: Iterable[Task]) -> None:
        """VMs that are known already are not added again."""
        for task in tasks:
            if task.vm not in self.running:
                self.waiting.setdefault(task.vm, task)

    def resume(self, pending: Iterable[Pending], to: str | None = None) -> list[Start]:
        """Take over what a run before this one left; the moves that are under way."""
        found = []
        for each in pending:
            task = Task(each.load, to, each.failures, frozenset(each.avoid))
            if each.to is None:
                self.add([task])
            else:
                start = Start(task, each.to, "under way")
                self.running[task.vm] = start
                found.append(start)
        return found

    def pending(self) -> tuple[Pending, ...]:
        """What the next run has to go on with."""
        moving = [_pending(start.task, start.to) for start in self.running.values()]
        return (*moving, *(_pending(task, None) for task in self.waiting.values()))

    def refresh(self, rooms: Mapping[str, HostRoom]) -> None:
        """The hosts' own figures, which replace the ledger; what is on its way is taken off again."""
        self.rooms = dict(rooms)
        for start in self.running.values():
            self._take(start.to, start.task.load.memory_mib)

    def next(self) -> Start | None:
        """The next move that may start now, or None. VMs that no host can take are failed on the way."""
        if len(self.running) >= self.slots.total:
            return None
        into, out, links, tenants = self._taken()
        looks = 0
        for task in list(self.waiting.values()):
            source, tenant = task.load.host, task.load.tenant
            if task.vm in self.resting or out[source] >= self.slots.out:
                continue
            if self.slots.tenant and tenants[tenant] >= self.slots.tenant:
                continue

            def free(host: str, source: str = source) -> bool:
                return into[host] < self.slots.into and links[_link(source, host)] < self.slots.link

            choice = self._choose(task, free)
            if choice.host is not None:
                return self._begin(task, choice)
            if not choice.busy:
                self._fail(task, f"{choice.reason}{'. ' + task.why if task.why else ''}")
            elif (looks := looks + 1) >= _LOOKS:
                return None
        return None

    def succeeded(self, vm: str) -> None:
        start = self.running.pop(vm)
        memory = start.task.load.memory_mib
        self.moved.append(MovedVm(vm=vm, to=start.to))
        self.moved_mib += memory
        if room := self.rooms.get(start.task.load.host):
            self.rooms[room.name] = room.model_copy(update={"free_mib": room.free_mib + memory})

    def failed_with(self, vm: str, kind: str, why: str) -> bool:
        """The move ended with an error. True: the VM waits to be tried again, elsewhere if it may."""
        start = self.running.pop(vm)
        self._give_back(start)
        task = replace(
            start.task,
            failures=start.task.failures + 1,
            avoid=start.task.avoid if start.task.to else start.task.avoid | {start.to},
            why=why[:300],
        )
        if kind in _NO_RETRY or task.failures >= self.attempts:
            self._fail(task, why)
            return False
        self.waiting[vm] = task
        return True

    def put_back(self, vm: str) -> None:
        """It was not started after all (another operation held it): it waits again, which counts as no failure."""
        start = self.running.pop(vm)
        self._give_back(start)
        self.waiting[vm] = start.task

    def gone(self, vm: str) -> None:
        """It is not on its source any more, and needs no move."""
        start = self.running.pop(vm, None)
        if start is not None:
            self._give_back(start)
        self.waiting.pop(vm, None)

    def _choose(self, task: Task, free: Callable[[str], bool]) -> Choice:
        if task.to is not None:
            return placement.given(task.load, task.to, self.rooms, free)
        return self.place(task.load, self.rooms, task.avoid, free)

    def _begin(self, task: Task, choice: Choice) -> Start:
        assert choice.host is not None
        start = Start(task, choice.host, choice.reason)
        del self.waiting[task.vm]
        self.running[task.vm] = start
        self._take(start.to, task.load.memory_mib)
        return start

    def _fail(self, task: Task, why: str) -> None:
        self.waiting.pop(task.vm, None)
        self.failed.append(FailedVm(vm=task.vm, why=why[:500]))

    def _give_back(self, start: Start) -> None:
        self._take(start.to, -start.task.load.memory_mib)

    def _take(self, host: str, mib: int) -> None:
        if room := self.rooms.get(host):
            self.rooms[host] = room.model_copy(update={"free_mib": max(0, room.free_mib - mib)})

    def _taken(self) -> tuple[Counter[str], Counter[str], Counter[tuple[str, str]], Counter[str | None]]:
        into: Counter[str] = Counter()
        out: Counter[str] = Counter()
        links: Counter[tuple[str, str]] = Counter()
        tenants: Counter[str | None] = Counter()
        for start in self.running.values():
            into[start.to] += 1
            out[start.task.load.host] += 1
            links[_link(start.task.load.host, start.to)] += 1
            tenants[start.task.load.tenant] += 1
        return into, out, links, tenants


def _pending(task: Task, to: str | None) -> Pending:
    return Pending(load=task.load, to=to, failures=task.failures, avoid=tuple(sorted(task.avoid))[:16])


def _link(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)
