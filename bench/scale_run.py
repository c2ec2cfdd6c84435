"""One scale run: a simulated site of the size asked for, through the real workflows on a real Temporal server.

The stages: start a worker per host; ask the whole site what runs where; plan evacuations; move VMs one by one, all
started at once; evacuate many hosts at once; end their maintenance. At the end the site itself is looked at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from bench import scale_facts
from bench.scale_ground import ground
from bench.scale_results import Fact, History, Spread, Stage, spread
from bench.simulated.faults import Faults
from bench.simulated.site import HOST_MIB, RESERVE_MIB, Site
from bench.simulated.workers import Workers
from models import ids, queues
from models.base import Model
from models.fleet import EvacuateOutcome, EvacuateRequest, FleetProgress, HostRoom, VmLoad
from models.migration import MigrateRequest
from novacron.client import NovaCron
from workflows.fleet import placement
from workflows.fleet.evacuate_host import EvacuateHost
from workflows.move.migrate_vm import MigrateVm

SITE = "sim"
LOOK_EVERY = 15.0
"""Seconds between an evacuation's looks at VMs that could not be moved in the last round."""
PLACEMENTS = 200
ASK_AGAIN = 1.0
Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    hosts: int = 1000
    vms: int = 10_000
    evacuate: int = 50
    plans: int = 3
    """Dry runs of an evacuation, one after the other."""
    moves: int = 20
    """Single moves, all at once."""
    faults: float = 0.05
    """Share of moves that are made to fail."""
    silent: int = 0
    """Hosts without a worker; the last one of them is among those evacuated."""
    crashes: int = 0
    """Hosts whose worker is stopped in the middle of the evacuations, and started again."""
    crash_seconds: float = 20.0
    move_seconds: float = 4.0
    control_workers: int = 1
    seed: int = 1
    within: float = 1800.0
    """Seconds the evacuations may take together."""


@dataclass
class Found:
    """What a run found, before it is written down."""

    stages: list[Stage] = field(default_factory=list)
    placement_ms: Spread = field(default_factory=Spread)
    histories: tuple[History, ...] = ()
    peak_mib: dict[str, int] = field(default_factory=dict)
    database_mib: int = 0
    facts: list[Fact] = field(default_factory=list)
    failed_moves: dict[str, int] = field(default_factory=dict)
    drain: list[tuple[float, int]] = field(default_factory=list)


class Run:
    def __init__(self, size: Size, say: Say) -> None:
        self._size = size
        self._say = say
        share = size.faults / 5
        faults = Faults(seed=size.seed, refused=share, path=share, broken=2 * share, leftover=share)
        self.site = Site(SITE, size.hosts, size.vms, faults)
        names = list(self.site.hosts)
        self._evacuated = names[: size.evacuate]
        # one of the silent hosts is to be evacuated, the others could have been destinations
        self._silent = [*names[len(names) - size.silent + 1 :], names[0]] if size.silent else []
        self._found = Found()

    async def run(self) -> Found:
        async with ground(SITE, list(self.site.hosts), self._size.control_workers) as made:
            self._ground, self._client = made, made.client
            workers = Workers(made.client, self.site, self._size.move_seconds, self._silent)
            async with self._stage("workers"):
                await workers.__aenter__()
            try:
                await self._ask()
                await self._plan()
                await self._move()
                await self._evacuate(workers)
                await self._look_back()
            finally:
                await workers.__aexit__(None, None, None)
        return self._found

    async def _ask(self) -> None:
        """What runs where, as `novacron vm list` asks it."""
        async with self._stage("inventory"):
            report = await NovaCron(self._client, SITE).hosts()
        seen = {vm.name for host in report.hosts for vm in host.vms}
        silent_vms = self.site.left_on(self._silent)
        self._fact("VMs seen by the inventory", len(self.site.vms) - silent_vms, len(seen))
        self._fact("hosts the inventory calls silent", len(self._silent), len(report.silent))

    async def _plan(self) -> None:
        """How long people wait for a plan; and the choice of a destination by itself."""
        rooms = {
            host.name: HostRoom(name=host.name, total_mib=HOST_MIB, free_mib=host.free_mib - RESERVE_MIB)
            for host in self.site.hosts.values()
        }
        taken = []
        for number in range(PLACEMENTS):
            vm = self.site.vms[number * 37 % len(self.site.vms)]
            asked = VmLoad(name=vm, host=self.site.runs_on(vm)[0], memory_mib=4096)
            began = time.perf_counter()
            placement.choose(asked, rooms)
            taken.append((time.perf_counter() - began) * 1000)
        self._found.placement_ms = spread(taken)
        live = [host for host in self._evacuated if host not in self._silent]
        chosen = [live[number % len(live)] for number in range(self._size.plans)]
        planned = 0
        async with self._stage("plan"):
            for number, host in enumerate(chosen):
                outcome = await self._client.execute_workflow(
                    EvacuateHost.run,
                    EvacuateRequest(host=host, dry_run=True).model_dump(mode="json"),
                    id=ids.evacuation_plan(SITE, host, str(number)),
                    task_queue=queues.control(SITE),
                )
                planned += len(outcome.plan.moves) if outcome.plan else 0
        self._fact("VMs in the plans", sum(self.site.left_on([host]) for host in chosen), planned)

    async def _move(self) -> None:
        """Moves that people start, each by itself, all at once."""
        names = [name for name in self.site.hosts if name not in self._evacuated and name not in self._silent]
        half = len(names) // 2
        wanted = []
        for number in range(self._size.moves):
            source, to = names[number % half], names[half + number % half]
            running = [vm for vm, copy in self.site.hosts[source].copies.items() if not copy.incoming]
            wanted.append(MigrateRequest(vm=running[number // half % len(running)], source=source, to=to))
        async with self._stage("moves") as starts:
            handles = await asyncio.gather(*(self._start_move(request, starts) for request in wanted))
            ended = await asyncio.gather(*(_quietly(handle) for handle in handles))
        self._say(f"moves: {sum(ended)} of {len(ended)} VMs moved")

    async def _start_move(self, request: MigrateRequest, starts: list[float]) -> WorkflowHandle[MigrateVm, object]:
        workflow_id = ids.migrate_vm(SITE, request.vm)
        handle: WorkflowHandle[MigrateVm, object] = await self._start(MigrateVm.run, request, workflow_id, starts)
        return handle

    async def _evacuate(self, workers: Workers) -> None:
        """All at once; then the maintenance of each is ended."""
        live = [host for host in self._evacuated if host not in self._silent]
        async with self._stage("evacuation") as starts:
            handles = dict(
                zip(
                    self._evacuated,
                    await asyncio.gather(*(self._start_evacuation(host, starts) for host in self._evacuated)),
                    strict=True,
                )
            )
            crash = asyncio.create_task(self._crash(workers, live))
            drained = await self._drain({host: handles[host] for host in live})
            await crash
        self._fact("evacuated hosts drained, with proof", len(live), drained)
        self._fact("VMs left on them", 0, self.site.left_on(live))
        async with self._stage("ending"):
            await asyncio.gather(*(_end(handle) for handle in handles.values()))

    async def _start_evacuation(self, host: str, starts: list[float]) -> WorkflowHandle[EvacuateHost, EvacuateOutcome]:
        wanted = EvacuateRequest(host=host, look_every=LOOK_EVERY)
        workflow_id = ids.evacuate_host(SITE, host)
        handle: WorkflowHandle[EvacuateHost, EvacuateOutcome] = await self._start(
            EvacuateHost.run, wanted, workflow_id, starts
        )
        return handle

    async def _start(self, run: Any, wanted: Model, workflow_id: str, starts: list[float]) -> Any:
        """Ask until the server takes it: one that has no time to spare may refuse, and the id keeps it from starting
        twice. What that takes is part of the latency."""
        began = time.perf_counter()
        while True:
            try:
                handle = await self._client.start_workflow(
                    run,
                    wanted.model_dump(mode="json"),
                    id=workflow_id,
                    task_queue=queues.control(SITE),
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                )
            except RPCError as error:
                self._say(f"{workflow_id}: {error.message}; asking again")
                await asyncio.sleep(ASK_AGAIN)
            else:
                starts.append(time.perf_counter() - began)
                return handle

    async def _drain(self, handles: dict[str, WorkflowHandle[EvacuateHost, EvacuateOutcome]]) -> int:
        """Until each of these says that its host is drained; how many did in time."""
        began, open_, first = time.monotonic(), dict(handles), self.site.left_on(handles)
        self._found.drain.append((0.0, first))
        while open_ and (gone := time.monotonic() - began) < self._size.within:
            await asyncio.sleep(1)
            left = self.site.left_on(handles)
            self._found.drain.append((round(gone, 1), left))
            away = first - left
            eta = f", about {left * gone / away:.0f} s left" if away and left else ""
            self._say(
                f"evacuation: {away} of {first} VMs away, {len(handles) - len(open_)} of {len(handles)} hosts drained, "
                f"{gone:.0f} s{eta}"
            )
            for host in [host for host in open_ if not self.site.left_on([host])]:
                if await _drained(open_[host]):
                    del open_[host]
        return len(handles) - len(open_)

    async def _crash(self, workers: Workers, live: Sequence[str]) -> None:
        """When a third of the VMs has left, some workers go away for a while; half of them on evacuated hosts."""
        if not self._size.crashes:
            return
        first = self.site.left_on(live)
        while self.site.left_on(live) > first * 2 // 3:
            await asyncio.sleep(0.2)
        others = [name for name in self.site.hosts if name not in self._evacuated and name not in self._silent]
        half = self._size.crashes // 2
        chosen = [*[host for host in live if self.site.left_on([host])][:half], *others[: self._size.crashes - half]]
        await asyncio.gather(*(workers.stop(name) for name in chosen))
        await asyncio.sleep(self._size.crash_seconds)
        await asyncio.gather(*(workers.start(name) for name in chosen))

    async def _look_back(self) -> None:
        """The facts, from the site and from Temporal."""
        for _ in range(60):  # the index of workflows lags behind a little
            ended = await _asked(lambda: scale_facts.ended(self._client))
            if not ended.running():
                break
            await asyncio.sleep(1)
        self._found.facts += scale_facts.safe(self.site, ended.running())
        self._found.facts += scale_facts.owned(self.site, self._ground.leases(SITE))
        self._fact("moves that Temporal calls successful", self.site.switches, ended.moved())
        self._found.histories = scale_facts.histories(ended)
        self._found.failed_moves = await scale_facts.failed_moves(self._client, ended)
        self._found.peak_mib = {what: cost.peak_mib for what, cost in self._ground.look().items()}
        self._found.database_mib = self._ground.database_mib()

    @asynccontextmanager
    async def _stage(self, name: str) -> AsyncIterator[list[float]]:
        """Yields the list that takes the latencies of starts."""
        self._say(f"{name} ...")
        before, moved = self._ground.look(), self.site.switches
        closed, starts = await _closed(self._client), list[float]()
        began = time.monotonic()
        yield starts
        seconds = time.monotonic() - began
        after = self._ground.look()
        stage = Stage(
            name=name,
            seconds=round(seconds, 2),
            workflows=await _closed(self._client) - closed,
            moves=self.site.switches - moved,
            starts=spread(starts),
            cpu_seconds={what: round(after[what].cpu_seconds - before[what].cpu_seconds, 2) for what in after},
        )
        self._found.stages.append(stage)
        self._say(f"{name}: {stage.seconds:.1f} s, {stage.workflows} workflows ended, {stage.moves} VMs moved")

    def _fact(self, what: str, expected: int, found: int) -> None:
        self._found.facts.append(Fact(what=what, expected=expected, found=found))


async def _closed(client: Client) -> int:
    return (await _asked(lambda: client.count_workflows('ExecutionStatus != "Running"'))).count


async def _asked(question: Callable[[], Awaitable[T]]) -> T:
    """A server that has no time to spare is asked again, a minute long."""
    for _ in range(60):
        with suppress(RPCError):
            return await question()
        await asyncio.sleep(ASK_AGAIN)
    return await question()


async def _quietly(handle: WorkflowHandle[MigrateVm, object]) -> bool:
    try:
        await _asked(handle.result)
    except WorkflowFailureError:
        return False
    return True


async def _drained(handle: WorkflowHandle[EvacuateHost, EvacuateOutcome]) -> bool:
    try:
        progress: FleetProgress = await handle.query("progress", result_type=FleetProgress)
    except RPCError:
        return False  # it is asked again
    return progress.drained is not None


async def _end(handle: WorkflowHandle[EvacuateHost, EvacuateOutcome]) -> None:
    update = uuid4().hex  # the same one again is answered, not obeyed twice
    await _asked(lambda: handle.execute_update("resume", False, id=update))
    await _asked(handle.result)
