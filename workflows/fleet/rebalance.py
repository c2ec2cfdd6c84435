"""novacron.Rebalance: even out how full the memory of a site's hosts is, in rounds, and come to rest.

Below the threshold it does nothing. A round asks the hosts, moves a batch, and waits for the figures to settle. No VM
moves twice in one run.
"""

from __future__ import annotations

import contextlib
from typing import Any

from temporalio import workflow

from models import queues
from models.fleet import (
    FailedVm,
    FleetPlan,
    HostRoom,
    MovedVm,
    PlannedMove,
    RebalanceOutcome,
    RebalanceRequest,
    SurveyRequest,
    VmLoad,
)
from workflows import request
from workflows.fleet import balance
from workflows.fleet import log as fleet_log
from workflows.fleet.desk import FleetDesk
from workflows.fleet.window import Task, Window
from workflows.site.survey import survey

_EXAMPLE = '{"threshold": 20, "batch": 10}'
_SOURCES = 20
"""Hosts whose VMs are looked at in one round: the fullest ones."""


@workflow.defn(name="novacron.Rebalance")
class Rebalance(FleetDesk):
    def __init__(self) -> None:
        super().__init__()
        self._before = self._after = 0.0
        self._moved: list[MovedVm] = []
        self._failed: list[FailedVm] = []
        self._moved_mib = 0

    @workflow.run
    async def run(self, raw: Any = None) -> RebalanceOutcome:
        self._request = wanted = request.read_as(RebalanceRequest, raw if raw is not None else {}, _EXAMPLE)
        self._site = queues.site_of(workflow.info().task_queue)
        self._slots = wanted.slots
        self._log.begin(f"rebalancing of {self._site}", self._site, [], "planned" if wanted.dry_run else "planning")
        plan: FleetPlan | None = None
        for turn in range(wanted.rounds):
            moves, loads, rooms = await self._propose(started=turn > 0)
            if wanted.dry_run:
                plan = FleetPlan(moves=tuple(moves), memory_mib=sum(move.memory_mib for move in moves))
            if wanted.dry_run or not moves or self._ending is not None:
                break
            await self._move(moves, loads, rooms)
            await self._cool_down()
        else:
            await self._propose(started=True)
        await workflow.wait_condition(workflow.all_handlers_finished)
        self._log.enter("planned" if wanted.dry_run else "cancelled" if self._ending == "cancelled" else "done")
        return RebalanceOutcome(
            phase=self._log.progress.phase,
            seconds=self._elapsed(),
            before=round(self._before, 1),
            after=round(self._after, 1),
            moved=tuple(self._moved),
            failures=tuple(self._failed[:100]),
            plan=plan,
            notes=tuple(self._log.notes),
        )

    async def _propose(self, started: bool) -> tuple[list[PlannedMove], dict[str, VmLoad], dict[str, HostRoom]]:
        """What to move now, from figures asked for now."""
        wanted = self._request
        rooms = {room.name: room for room in (await survey(self._site, SurveyRequest(most=0))).rooms}
        self._after = balance.spread(rooms.values())
        if not started:
            self._before = self._after
        if self._after <= (wanted.settle if started else wanted.threshold):
            told = f"{self._after:.1f} points between the fullest and the emptiest host"
            self._log.note(f"{told}: {'even enough' if started else f'below the threshold of {wanted.threshold:g}'}")
            return [], {}, rooms
        sources = tuple(balance.fullest(rooms.values(), _SOURCES))
        page = await survey(self._site, SurveyRequest(labels=wanted.labels, hosts=sources, most=2000))
        known = {each.vm for each in self._moved} | {each.vm for each in self._failed}
        moves = balance.propose(rooms, page.vms, min(wanted.settle, wanted.threshold), wanted.batch, known)
        if not moves:
            self._log.note(f"{self._after:.1f} points apart, and no move would make the hosts more even")
        return moves, {load.name: load for load in page.vms}, rooms

    async def _move(self, moves: list[PlannedMove], loads: dict[str, VmLoad], rooms: dict[str, HostRoom]) -> None:
        self._log.enter("moving")
        window = Window(self._slots, rooms, attempts=1)
        window.add(Task(loads[move.vm], move.to) for move in moves)
        await self._over(self._site, window, self._request.policy).run()
        self._convoy = None
        self._moved += window.moved
        self._failed += window.failed
        self._moved_mib += window.moved_mib

    async def _cool_down(self) -> None:
        if self._ending is None and self._request.rounds > 1:
            self._log.enter("waiting")
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._ending is not None, timeout=self._request.cool_down, timeout_summary="cool down"
                )

    def _tell(self) -> None:
        if self._convoy is None:
            return
        window = self._convoy.window
        figures = fleet_log.figures(window, self._elapsed(), len(self._moved), self._moved_mib, len(self._failed))
        lines = fleet_log.lines(window, self._convoy.busy)
        self._log.tell(**figures, vms=lines, paused=self._paused, elapsed=self._elapsed())
