"""novacron.EvacuateHost: a host is emptied and held in maintenance, for as long as this workflow runs.

The story: look what would move where, move it in a sliding window, ask the host whether it is empty, and hold it so:
its VMs are counted again from time to time, and one that turns up is moved too. No move may choose the host meanwhile
(workflows/plan/preflight.py). It ends when people say so: `resume`, which may bring the VMs back, or `cancel`.

The moves are workflows of their own. Whatever ends this one, none is torn: what is on its way arrives or stays.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ChildWorkflowError

from models.fleet import (
    Drained,
    EvacuateOutcome,
    EvacuateRequest,
    EvacuateState,
    FleetPhase,
    FleetPlan,
    MovedVm,
    NonMovable,
)
from workflows import errors, request
from workflows.fleet import bring_back, emptiness, evacuation_plan
from workflows.fleet import log as fleet_log
from workflows.fleet.desk import FleetDesk
from workflows.fleet.evacuation_plan import Outlook
from workflows.fleet.host_news import HostNews
from workflows.fleet.window import Window

_EXAMPLE = '{"host": "host-a"}'
_HELD_FACTOR = 10
"""A host that is empty is looked at so much more rarely."""


@workflow.defn(name="novacron.EvacuateHost")
class EvacuateHost(FleetDesk):
    def __init__(self) -> None:
        super().__init__()
        self._news = HostNews()
        self._plan = FleetPlan()
        self._bring_back = False
        self._look_now = False
        self._moved: dict[str, str] = {}
        """VM -> where it was moved to."""
        self._moved_mib = 0
        self._stopped: list[str] = []
        self._moving_since: datetime | None = None
        self._drained: Drained | None = None
        self._note = ""

    @workflow.run
    async def run(self, raw: Any = None, state: EvacuateState | None = None) -> EvacuateOutcome:
        self._request = wanted = request.read_as(EvacuateRequest, raw, _EXAMPLE)
        self._site = evacuation_plan.site_of(wanted)
        self._slots = wanted.slots
        if state is not None:
            self._take_over(state)
        title = f"{'plan of ' if wanted.dry_run else ''}maintenance of {wanted.host}"
        phase: FleetPhase = "planned" if wanted.dry_run else self._log.progress.phase
        self._log.begin(title, self._site, [wanted.host], phase)
        if state is None:
            await evacuation_plan.members(self._site, wanted.host, wanted.to)
        if wanted.dry_run:
            self._plan = (await evacuation_plan.look(self._site, wanted)).plan
            return self._outcome(plan=self._plan)
        async with self._news.of(self._site, wanted.host, self._log):
            await self._hold()
            outcome = await self._end()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return outcome

    async def _hold(self) -> None:
        """Empty the host, and keep it empty, until people end it."""
        while self._ending is None:
            try:
                outlook = await evacuation_plan.look(self._site, self._request)
            except (ActivityError, ChildWorkflowError) as error:
                if errors.cancelled(error):
                    raise
                self._wait_for(f"{self._request.host} cannot be asked: {emptiness.why(error)}")
            else:
                self._plan = outlook.plan
                await self._empty(outlook)
                await self._prove()
            if self._ending is None:
                await self._rest()

    async def _empty(self, outlook: Outlook) -> None:
        """One round: move what can move, then see to what cannot."""
        window = Window(self._slots, outlook.rooms, self._request.attempts)
        window.add(outlook.tasks)
        if window.waiting:
            self._log.enter("moving")
            await self._drive(window)
            self._moved |= {each.vm: each.to for each in window.moved}
            self._moved_mib += window.moved_mib
            window.moved, window.moved_mib = [], 0
        if self._request.non_movable == "stop":
            for each in outlook.plan.stuck:
                if self._ending is None and await emptiness.stop(
                    self._site, self._request.host, each.vm, self._request.stop_within, self._log.note
                ):
                    self._stopped.append(each.vm)

    async def _drive(self, window: Window) -> None:
        """Let the moves of this window run to their end, or to where people stop them."""
        self._moving_since = self._moving_since or workflow.now()
        await self._over(self._site, window, self._request.policy).run()

    async def _prove(self) -> None:
        """Only the host's own answer makes it drained."""
        try:
            self._drained, left = await emptiness.ask(self._site, self._request.host)
        except ActivityError as error:
            if errors.cancelled(error):
                raise
            self._drained = None
            self._wait_for(f"{self._request.host} did not say whether it is empty: {emptiness.why(error)}")
            return
        skipped = self._request.non_movable == "skip" and left <= {each.vm for each in self._plan.stuck}
        self._log.enter("drained" if not left else "incomplete" if skipped else "waiting")
        self._remark(f"still there: {', '.join(sorted(left)[:20])}" if left else "")

    async def _rest(self) -> None:
        """Until it is time to look again, or people want something."""
        self._news.looked(self._log.progress.phase)
        held = self._log.progress.phase in ("drained", "incomplete")
        pause = self._request.look_every * (_HELD_FACTOR if held else 1)
        if workflow.info().is_continue_as_new_suggested():
            await self._news.pass_on()
            await workflow.wait_condition(workflow.all_handlers_finished)
            going_on = self._request.model_copy(update={"slots": self._slots})
            workflow.continue_as_new(args=[going_on.model_dump(mode="json", exclude_unset=True), self._state()])
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._ending is not None or self._look_now, timeout=pause, timeout_summary="look again"
            )
        self._look_now = False

    async def _end(self) -> EvacuateOutcome:
        """Out of maintenance from here on."""
        if not (self._bring_back and self._moved):
            self._log.enter("cancelled" if self._ending == "cancelled" else "done")
            return self._outcome()
        self._log.enter("resuming")
        self._halted = self._paused = False
        returning = await bring_back.look(self._site, self._request, self._moved)
        self._convoy, self._moving_since, self._moved_mib = None, None, 0
        await self._drive(returning.window)
        self._log.enter("done")
        return self._outcome(back=returning)

    def _outcome(self, plan: FleetPlan | None = None, back: bring_back.Returning | None = None) -> EvacuateOutcome:
        return EvacuateOutcome(
            host=self._request.host,
            phase=self._log.progress.phase,
            seconds=self._elapsed(),
            plan=plan,
            drained=self._drained,
            moved=self._moved_vms(),
            stopped=tuple(self._stopped),
            brought_back=back.back() if back else (),
            not_brought_back=back.not_back() if back else {},
            notes=tuple(self._log.notes),
        )

    def _wait_for(self, what: str) -> None:
        self._log.enter("waiting")
        self._remark(what)

    def _remark(self, note: str) -> None:
        self._note = note
        self._tell()

    def _tell(self) -> None:
        """Progress as it stands."""
        window = self._convoy.window if self._convoy else Window(self._slots, {})
        moving = (workflow.now() - self._moving_since).total_seconds() if self._moving_since else 0.0
        away = {} if self._log.progress.phase in ("resuming", "done") else self._moved
        self._log.tell(
            **fleet_log.figures(window, moving, len(away), self._moved_mib),
            stuck=len(self._plan.stuck),
            vms=fleet_log.lines(window, self._convoy.busy if self._convoy else (), self._plan.stuck, away),
            drained=self._drained,
            paused=self._paused,
            elapsed=self._elapsed(),
            note=self._note,
        )
        self._news.hear(self._log.progress)

    def _take_over(self, state: EvacuateState) -> None:
        self._since, self._drained, self._moved_mib = state.since, state.drained, state.moved_mib
        self._moved = {each.vm: each.to for each in state.moved}
        self._stopped = list(state.stopped)
        self._paused = state.paused
        self._log.enter(state.phase)
        self._news.known(self._log.progress, len(self._moved))

    def _moved_vms(self) -> tuple[MovedVm, ...]:
        return tuple(MovedVm(vm=vm, to=to) for vm, to in sorted(self._moved.items())[:2000])

    def _state(self) -> EvacuateState:
        return EvacuateState(
            since=self._since,
            phase=self._log.progress.phase,
            moved=self._moved_vms(),
            moved_mib=self._moved_mib,
            stopped=tuple(self._stopped),
            drained=self._drained,
            paused=self._paused,
        )

    @workflow.query(description="The plan of the last look: VM, destination, memory; VMs that cannot move, and why")
    def plan(self) -> FleetPlan:
        return self._plan

    @workflow.update(description='What becomes of VMs that cannot move. Argument: "wait", "stop" or "skip"')
    def set_non_movable(self, choice: NonMovable) -> str:
        self._request = self._request.model_copy(update={"non_movable": choice})
        self._look_now = True
        return f"VMs that cannot move: {choice}"

    @workflow.update(description="Look now at what is waited for, instead of at the next turn")
    def look_now(self) -> str:
        self._look_now = True
        return "looking"

    @workflow.update(description="End the maintenance. Argument: true to bring back the VMs that were moved away")
    def resume(self, bring_back: bool = False) -> str:
        self._bring_back = bring_back
        self._stop_all("done")
        back = f", then {len(self._moved)} VMs are brought back" if bring_back else ""
        return f"the maintenance of {self._request.host} ends when moves under way have ended{back}"

    @resume.validator
    def _may_resume(self, bring_back: bool = False) -> None:
        self._refuse_if_ending()
